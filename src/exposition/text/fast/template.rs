//! What a body has between its values, kept: of the next body that differs from it in values alone, nothing is looked
//! at but these.
//!
//! A template is made of what was read of one body, for groups that hold the very schemas that were held then and whose
//! grouping keys have the same names. Beside them and the bounds, reading a body depends on nothing, so that groups
//! share templates. Of what is pushed in turns to groups that hold the same, as one family and then another, each has
//! its own: it is kept under the name that the body begins with, too.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;

use crate::exposition::number;
use crate::model::{Family, Group, LabelSet, Schema, Values};

/// Of larger bodies, and for groups that hold more families, no template is made.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
pub(super) const FAMILIES_MAX: usize = 1_024;
/// Templates kept, at most, and about how many bytes of them. Beyond that all are forgotten, and made anew when needed.
/// The largest takes less than a quarter of the bytes.
const TEMPLATES_MAX: usize = 1_024;
const BYTES_MAX: usize = 4 << 20;

/// What a number is to the family that it is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberKind {
    /// Any number.
    Plain,
    /// A count or bucket of a histogram: whole, and not negative.
    Count,
    /// A count of a summary, which may be any number to Pushgateway.
    SummaryCount,
}

impl NumberKind {
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
pub(super) struct ValueSlot {
    /// Its place among them.
    pub at: usize,
    pub kind: NumberKind,
}

impl ValueSlot {
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
    pub target: ValueSlot,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Template {
    /// What stands before, between and behind the numbers.
    text: Box<[u8]>,
    /// Of each number, up to where that stands before it, and where it goes.
    slots: Box<[(usize, ValueSlot)]>,
    /// Which of the held families stand in the body, in its order, and where the slots of each end: it may have fewer
    /// than values, as a sum that nobody sent.
    families: Box<[(usize, usize)]>,
    /// The schemas that are held: their addresses, which nobody else has for as long as these are kept.
    held: Box<[Weak<Schema>]>,
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
            slots.push((text.len(), number.target));
            from = number.end;
        }
        text.extend_from_slice(&body[from..]);
        Self {
            text: text.into(),
            slots: slots.into(),
            families: families.into(),
            held: held.families().iter().map(|f| Arc::downgrade(f.family.schema())).collect(),
            names: grouping.iter().map(|label| label.name.into()).collect(),
        }
    }

    fn is_for(&self, held: &Group, grouping: &LabelSet) -> bool {
        let families = held.families();
        self.held.len() == families.len()
            && std::iter::zip(&self.held, families).all(|(kept, f)| std::ptr::eq(kept.as_ptr(), &**f.family.schema()))
            && self.names.len() == grouping.len()
            && std::iter::zip(&self.names, grouping).all(|(name, label)| **name == *label.name)
    }

    /// Reads a body, if it differs from the template's in values alone: its families in the order of names.
    fn read(&self, body: &[u8], held: &Group) -> Option<Vec<Family>> {
        let mut families: Vec<Option<Family>> = vec![None; held.families().len()];
        let (mut rest, mut from, mut done) = (body, 0, 0);
        for (at, slots_end) in &self.families {
            let schema = held.families().get(*at)?.family.schema();
            let mut values = Values::zeros(schema.values_len());
            let into = values.make_mut();
            for (end, target) in self.slots.get(done..*slots_end)? {
                rest = rest.strip_prefix(&self.text[from..*end])?;
                rest = &rest[target.read(rest, into)?..];
                from = *end;
            }
            done = *slots_end;
            families[*at] = Some(Family::new(schema.clone(), values, None)?);
        }
        (*rest == self.text[from..]).then(|| families.into_iter().flatten().collect())
    }

    fn bytes(&self) -> usize {
        let slots = size_of::<(usize, ValueSlot)>() * self.slots.len();
        let families = size_of::<(usize, usize)>() * self.families.len();
        // A schema that nobody has takes its own size for as long as it is referred to.
        let held = (size_of::<Weak<Schema>>() + size_of::<Schema>()) * self.held.len();
        let names: usize = self.names.iter().map(|name| size_of::<Box<str>>() + name.len()).sum();
        size_of::<Self>() + self.text.len() + slots + families + held + names
    }
}

/// The name that a body begins with: of the metric that its first line declares, or is a sample of.
pub(super) fn first_name(body: &[u8]) -> Option<&[u8]> {
    let name = body.strip_prefix(b"# HELP ").or_else(|| body.strip_prefix(b"# TYPE ")).unwrap_or(body);
    name.split(|byte| matches!(byte, b' ' | b'{' | b'\n')).next().filter(|found| found.len() < name.len())
}

/// Templates by what is held, the names of the grouping key, and the name that the body begins with.
#[derive(Debug, Default)]
pub(super) struct Templates {
    kept: Mutex<CachedTemplates>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct CachedTemplates {
    templates: HashMap<u64, Arc<Template>>,
    bytes: usize,
}

impl Templates {
    fn kept(&self) -> MutexGuard<'_, CachedTemplates> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, body: &[u8], held: &Group, grouping: &LabelSet) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        held.families().iter().for_each(|f| Arc::as_ptr(f.family.schema()).hash(&mut hasher));
        grouping.iter().for_each(|label| label.name.hash(&mut hasher));
        first_name(body).hash(&mut hasher);
        hasher.finish()
    }

    /// Reads a body to a group that holds `held`, if there is a template for it: its families in the order of names.
    pub fn read(&self, body: &[u8], held: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let key = self.key(body, held, grouping);
        let template = self.kept().templates.get(&key).cloned();
        template.filter(|template| template.is_for(held, grouping))?.read(body, held)
    }

    /// Keeps a template of what was read of a body to a group that holds `held`.
    pub fn keep(&self, template: Template, body: &[u8], held: &Group, grouping: &LabelSet) {
        let (key, bytes) = (self.key(body, held, grouping), template.bytes());
        let template = Arc::new(template);
        // What goes is let go when nobody has to wait for it.
        let _gone = self.kept().insert(key, template, bytes);
    }
}

impl CachedTemplates {
    /// Returns what had to go.
    fn insert(&mut self, key: u64, template: Arc<Template>, bytes: usize) -> (Option<Arc<Template>>, CachedTemplates) {
        let old = self.templates.remove(&key);
        self.bytes -= old.as_ref().map_or(0, |old| old.bytes());
        let is_full = self.templates.len() >= TEMPLATES_MAX || self.bytes + bytes > BYTES_MAX;
        let gone = if is_full { std::mem::take(self) } else { CachedTemplates::default() };
        self.bytes += bytes;
        self.templates.insert(key, template);
        (old, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FamilyBuilder, MetricType, Moment, NodeId, Points, WriteTimestamp};

    fn held(name: &str) -> Group {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.series(&[("instance", "")], &Points::Single, &[1.0], None);
        let moment = Moment { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        Group::put(moment, vec![builder.finish().unwrap()])
    }

    fn template(body: &[u8], held: &Group, grouping: &LabelSet) -> Template {
        let (start, end) = (body.len() - 2, body.len() - 1);
        let number = Number { start, end, target: ValueSlot { at: 0, kind: NumberKind::Plain } };
        Template::new(body, &[number], &[(0, 1)], held, grouping)
    }

    #[test]
    fn a_template_is_for_those_who_hold_the_same_and_have_keys_with_the_same_names() {
        let (templates, group, grouping) = (Templates::default(), held("m"), LabelSet::new([("job", "a")]));
        templates.keep(template(b"m 1\n", &group, &grouping), b"m 1\n", &group, &grouping);
        let values = |families: Vec<Family>| families[0].values()[0];
        let read = |body: &[u8], group: &Group, key: LabelSet| templates.read(body, group, &key).map(values);
        assert_eq!(read(b"m 25.5\n", &group, LabelSet::new([("job", "b")])), Some(25.5));
        assert_eq!(read(b"m 2\n", &group.clone(), grouping.clone()), Some(2.0));
        assert_eq!(read(b"m 2\n", &held("m"), grouping.clone()), None, "an equal schema is not the same");
        assert_eq!(read(b"m 2\n", &group, LabelSet::new([("job", "a"), ("x", "")])), None);
        for other in [&b"m 2\n\n"[..], b"m 2", b"n 2\n", b"m 2 5\n", b"m x\n", b"", b"m 2\nm 2\n"] {
            assert_eq!(read(other, &group, grouping.clone()), None, "{other:?}");
        }
    }

    #[test]
    fn who_push_in_turns_have_a_template_each() {
        let (templates, group) = (Templates::default(), held("m"));
        let keys = [LabelSet::new([("job", "a")]), LabelSet::new([("job", "a"), ("x", "")])];
        let bodies: [&[u8]; 4] = [b"m 1\n", b"# TYPE n gauge\nn 1\n", b"# HELP o o\no 1\n", b"p{a=\"1\"} 1\n"];
        let all = || keys.iter().flat_map(|key| bodies.map(|body| (body, key)));
        for (body, key) in all() {
            templates.keep(template(body, &group, key), body, &group, key);
        }
        assert!(all().all(|(body, key)| templates.read(body, &group, key).is_some()));
    }

    #[test]
    fn few_templates_are_kept() {
        let (templates, grouping) = (Templates::default(), LabelSet::new([("job", "a")]));
        let keep =
            |body: &[u8], group: &Group| templates.keep(template(body, group, &grouping), body, group, &grouping);
        let groups: Vec<Group> = (0..TEMPLATES_MAX + 1).map(|_| held("m")).collect();
        groups.iter().chain(&groups[..1]).for_each(|group| keep(b"m 1\n", group));
        assert_eq!(templates.kept().templates.len(), 2, "one more than may be, and then the first again");
        assert_eq!(templates.kept().bytes, 2 * template(b"m 1\n", &groups[0], &grouping).bytes());
        let long = [&vec![b'\n'; BODY_BYTES_MAX - 4][..], b"m 1\n"].concat();
        for group in &groups {
            keep(&long, group);
            assert!(templates.kept().bytes <= BYTES_MAX);
        }
        assert!(templates.kept().bytes > BYTES_MAX / 4);
    }

    #[test]
    fn the_largest_template_takes_less_than_a_quarter_of_the_room() {
        let moment = Moment { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        let family = |at: usize| held(&format!("m{at}")).families()[0].family.clone();
        let large = Group::put(moment, (0..FAMILIES_MAX).map(family).collect());
        let labels = (0..64).map(|at| (format!("{at:0>99}"), ""));
        let number =
            |at| Number { start: at * 4 + 2, end: at * 4 + 3, target: ValueSlot { at: 0, kind: NumberKind::Plain } };
        let numbers: Vec<Number> = (0..BODY_BYTES_MAX / 4).map(number).collect();
        let families = vec![(0, 0); FAMILIES_MAX];
        let body = b"m 1\n".repeat(BODY_BYTES_MAX / 4);
        let bytes = Template::new(&body, &numbers, &families, &large, &LabelSet::new(labels)).bytes();
        assert!((BYTES_MAX / 8..BYTES_MAX / 4).contains(&bytes), "{bytes}");
    }
}
