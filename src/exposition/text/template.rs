//! What a body has between its values, kept: of the next body that differs from it in values alone, nothing is looked at
//! but these.
//!
//! A template is made of what was read of one body, for groups that hold the very shapes that were held then and whose
//! grouping keys have the same names. Reading a body depends on nothing else, so that groups share templates.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::exposition::number;
use crate::model::{Family, Group, LabelSet, Shape};

/// Of larger bodies no template is made.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// Templates kept, at most, and about how many bytes of them. Beyond that all are forgotten, and made anew when needed.
const TEMPLATES_MAX: usize = 1_024;
const BYTES_MAX: usize = 4 << 20;

/// What a number is to the family that it is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any number.
    Plain,
    /// A count or bucket of a histogram: whole, and not negative.
    Count,
    /// A count of a summary, which may be any number to the original.
    SummaryCount,
}

impl Kind {
    /// The value that such a number is; `None` if it cannot be one, or cannot be held as an `f64`.
    fn of(self, number: f64) -> Option<f64> {
        match self {
            Self::Plain => Some(number),
            Self::Count => number::as_count(number).map(|count| count as f64),
            Self::SummaryCount => {
                let count = number::to_count(number);
                // What an `f64` cannot hold is kept beside.
                Some(count as f64).filter(|float| *float as u64 == count)
            }
        }
    }
}

/// Which of a family's values a number is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    /// Its place among them.
    pub at: usize,
    pub kind: Kind,
}

impl Value {
    /// Reads the number that ends the line which `text` is the rest of; returns how long it is.
    pub fn read(self, text: &[u8], values: &mut [f64]) -> Option<usize> {
        let (number, length) = number::parse_line(text)?;
        *values.get_mut(self.at)? = self.kind.of(number)?;
        Some(length)
    }
}

/// A number that was read of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub start: usize,
    pub end: usize,
    pub value: Value,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Template {
    /// What stands before, between and behind the numbers.
    text: Box<[u8]>,
    /// Of each number, up to where that stands before it, and which value it is.
    slots: Box<[(usize, Value)]>,
    /// Which of the held families stand in the body, in its order, and where the slots of each end: it may have fewer than
    /// values, as a sum that nobody sent.
    families: Box<[(usize, usize)]>,
    /// The shapes that are held: their addresses, which nobody else has for as long as these are kept.
    held: Box<[Weak<Shape>]>,
    /// The label names of the grouping key.
    names: Box<[Box<str>]>,
}

impl Template {
    /// The template of a body with these numbers, of these of the held families.
    pub fn new(
        body: &[u8],
        numbers: &[Number],
        families: &[(usize, usize)],
        held: &Group,
        grouping: &LabelSet,
    ) -> Self {
        let (mut text, mut from) = (Vec::with_capacity(body.len()), 0);
        let mut slots = Vec::with_capacity(numbers.len());
        for number in numbers {
            text.extend_from_slice(&body[from..number.start]);
            slots.push((text.len(), number.value));
            from = number.end;
        }
        text.extend_from_slice(&body[from..]);
        Self {
            text: text.into(),
            slots: slots.into(),
            families: families.into(),
            held: held.families().iter().map(|f| Arc::downgrade(f.family.shape())).collect(),
            names: grouping.iter().map(|label| label.name.clone()).collect(),
        }
    }

    fn is_for(&self, held: &Group, grouping: &LabelSet) -> bool {
        let families = held.families();
        self.held.len() == families.len()
            && std::iter::zip(&self.held, families).all(|(kept, f)| std::ptr::eq(kept.as_ptr(), &**f.family.shape()))
            && self.names.len() == grouping.len()
            && std::iter::zip(&self.names, grouping).all(|(name, label)| *name == label.name)
    }

    /// Reads a body, if it differs from the template's in values alone: its families in the order of names.
    fn read(&self, body: &[u8], held: &Group) -> Option<Vec<Family>> {
        let mut families: Vec<Option<Family>> = vec![None; held.families().len()];
        let (mut rest, mut from, mut done) = (body, 0, 0);
        for (at, slots_end) in &self.families {
            let shape = held.families().get(*at)?.family.shape();
            let mut values: Arc<[f64]> = std::iter::repeat_n(0.0, shape.values_len()).collect();
            let into = Arc::get_mut(&mut values)?;
            for (end, value) in self.slots.get(done..*slots_end)? {
                rest = rest.strip_prefix(&self.text[from..*end])?;
                rest = &rest[value.read(rest, into)?..];
                from = *end;
            }
            done = *slots_end;
            families[*at] = Some(Family::new(shape.clone(), values, None)?);
        }
        (*rest == self.text[from..]).then(|| families.into_iter().flatten().collect())
    }

    fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| name.len()).sum();
        let held = (size_of::<Weak<Shape>>() + size_of::<Shape>()) * self.held.len();
        self.text.len() + size_of::<(usize, Value)>() * self.slots.len() + held + names
    }
}

/// Templates by what is held.
#[derive(Debug, Default)]
pub(super) struct Templates {
    kept: Mutex<Kept>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kept {
    templates: HashMap<u64, Arc<Template>>,
    bytes: usize,
}

impl Templates {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, held: &Group) -> u64 {
        let address = |shape: &Arc<Shape>| Arc::as_ptr(shape).addr();
        self.hasher.hash_one(Vec::from_iter(held.families().iter().map(|f| address(f.family.shape()))))
    }

    /// Reads a body to a group that holds `held`, if there is a template for it: its families in the order of names.
    pub fn read(&self, body: &[u8], held: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let key = self.key(held);
        let template = self.kept().templates.get(&key).cloned();
        template.filter(|template| template.is_for(held, grouping))?.read(body, held)
    }

    /// Keeps a template of what was read to a group that holds `held`, unless that is too much by itself.
    pub fn keep(&self, template: Template, held: &Group) {
        let (key, bytes) = (self.key(held), template.bytes());
        if bytes > BYTES_MAX {
            return;
        }
        let mut kept = self.kept();
        if let Some(old) = kept.templates.remove(&key) {
            kept.bytes -= old.bytes();
        }
        if kept.templates.len() >= TEMPLATES_MAX || kept.bytes + bytes > BYTES_MAX {
            *kept = Kept::default();
        }
        kept.bytes += bytes;
        kept.templates.insert(key, Arc::new(template));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FamilyBuilder, MetricType, Moment, NodeId, Points, Stamp};

    fn held(name: &str) -> Group {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.series(&[("instance", "")], &Points::Single, &[1.0], None);
        let moment = Moment { stamp: Stamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        Group::put(moment, vec![builder.finish().unwrap()])
    }

    fn template(body: &[u8], held: &Group, grouping: &LabelSet) -> Template {
        let (start, end) = (body.len() - 2, body.len() - 1);
        let number = Number { start, end, value: Value { at: 0, kind: Kind::Plain } };
        Template::new(body, &[number], &[(0, 1)], held, grouping)
    }

    #[test]
    fn a_template_is_for_those_who_hold_the_same_and_have_keys_with_the_same_names() {
        let (templates, group, grouping) = (Templates::default(), held("m"), LabelSet::new([("job", "a")]));
        templates.keep(template(b"m 1\n", &group, &grouping), &group);
        let values = |families: Vec<Family>| families[0].values()[0];
        let read = |body: &[u8], group: &Group, key: LabelSet| templates.read(body, group, &key).map(values);
        assert_eq!(read(b"m 25.5\n", &group, LabelSet::new([("job", "b")])), Some(25.5));
        assert_eq!(read(b"m 2\n", &group.clone(), grouping.clone()), Some(2.0));
        assert_eq!(read(b"m 2\n", &held("m"), grouping.clone()), None, "an equal shape is not the same");
        assert_eq!(read(b"m 2\n", &group, LabelSet::new([("job", "a"), ("x", "")])), None);
        for other in [&b"m 2\n\n"[..], b"m 2", b"n 2\n", b"m 2 5\n", b"m x\n", b"", b"m 2\nm 2\n"] {
            assert_eq!(read(other, &group, grouping.clone()), None, "{other:?}");
        }
    }

    #[test]
    fn few_templates_are_kept() {
        let (templates, grouping) = (Templates::default(), LabelSet::new([("job", "a")]));
        let groups: Vec<Group> = (0..TEMPLATES_MAX + 1).map(|_| held("m")).collect();
        for group in groups.iter().chain(&groups[..1]) {
            templates.keep(template(b"m 1\n", group, &grouping), group);
        }
        assert_eq!(templates.kept().templates.len(), 2, "one more than may be, and then the first again");
        assert_eq!(templates.kept().bytes, 2 * template(b"m 1\n", &groups[0], &grouping).bytes());
        let long = [&vec![b'\n'; BODY_BYTES_MAX - 4][..], b"m 1\n"].concat();
        for group in &groups {
            templates.keep(template(&long, group, &grouping), group);
            assert!(templates.kept().bytes <= BYTES_MAX);
        }
        assert!(templates.kept().bytes > BYTES_MAX / 4);
        let before = templates.kept().bytes;
        let family = |at: usize| held(&format!("m{at}")).families()[0].family.clone();
        let moment = Moment { stamp: Stamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        let large = Group::put(moment, (0..BYTES_MAX / size_of::<Shape>()).map(family).collect());
        templates.keep(template(b"m0 1\n", &large, &grouping), &large);
        assert_eq!(templates.kept().bytes, before, "a group of very many families takes nobody's place");
    }
}
