//! A cache of templates: the bytes of a body between its numbers. A later body that differs only in numbers is read by
//! comparing these bytes and parsing the numbers.
//!
//! A template is built while a body is read, and is valid for groups whose current families have the same schemas (the
//! same allocations) and whose grouping keys have the same names. Reading a body depends only on these and on the
//! bounds, so groups share templates. The cache key includes the body's first metric name, so that pushers which
//! alternate between bodies each keep a template.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;

use crate::exposition::number;
use crate::model::{Family, Group, LabelSet, Schema, Values};

/// No template is built for larger bodies, or for groups with more families.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
pub(super) const FAMILIES_MAX: usize = 1_024;
/// Bounds on the cached templates: their number, and their approximate bytes. Beyond them all are dropped, and rebuilt
/// when needed. The largest template takes less than a quarter of the bytes.
const TEMPLATES_MAX: usize = 1_024;
const BYTES_MAX: usize = 4 << 20;

/// The role of a number in its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberKind {
    /// Any number.
    Plain,
    /// A count or bucket of a histogram: whole, and not negative.
    Count,
    /// A count of a summary; Pushgateway accepts any number.
    SummaryCount,
}

impl NumberKind {
    /// The value of such a number; `None` if the number is invalid here, or an `f64` cannot express the value.
    fn of(self, number: f64) -> Option<f64> {
        match self {
            Self::Plain => Some(number),
            Self::Count => number::as_count(number).map(|count| count as f64),
            Self::SummaryCount => {
                let count = number::to_count(number);
                // A count that an `f64` cannot express needs a raw metric.
                Some(count as f64).filter(|float| *float as u64 == count)
            }
        }
    }
}

/// The value of a family that a number is read into.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueSlot {
    /// The index of the value.
    pub at: usize,
    pub kind: NumberKind,
}

impl ValueSlot {
    /// Reads the number that ends the line at the beginning of `text`; returns its length.
    pub fn read(self, text: &[u8], values: &mut [f64]) -> Option<usize> {
        let (number, length) = number::parse_line(text)?;
        *values.get_mut(self.at)? = self.kind.of(number)?;
        Some(length)
    }
}

/// The position of a number in a body, and its value slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub start: usize,
    pub end: usize,
    pub target: ValueSlot,
}

/// The bytes between the numbers of a body, and the value slots of the numbers.
#[derive(Debug)]
pub(super) struct Template {
    /// The text before, between and after the numbers, joined.
    text: Box<[u8]>,
    /// For each number: the end of the text before it, and its value slot.
    slots: Box<[(usize, ValueSlot)]>,
    /// For each family of the body, in its order: its index among the current families, and the end of its slots. A
    /// family may have fewer slots than values, since a sum may be missing.
    families: Box<[(usize, usize)]>,
    /// The schemas of the current families. They are compared by address; a `Weak` keeps the address from being reused.
    schemas: Box<[Weak<Schema>]>,
    /// The label names of the grouping key.
    names: Box<[Box<str>]>,
}

impl Template {
    /// Builds the template of a body with these numbers and families.
    pub fn new(
        body: &[u8],
        numbers: &[Number],
        families: &[(usize, usize)],
        current: &Group,
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
            schemas: current.families().iter().map(|f| Arc::downgrade(f.family.schema())).collect(),
            names: grouping.iter().map(|label| label.name.into()).collect(),
        }
    }

    fn is_for(&self, current: &Group, grouping: &LabelSet) -> bool {
        let families = current.families();
        self.schemas.len() == families.len()
            && std::iter::zip(&self.schemas, families)
                .all(|(cached, f)| std::ptr::eq(cached.as_ptr(), &**f.family.schema()))
            && self.names.len() == grouping.len()
            && std::iter::zip(&self.names, grouping).all(|(name, label)| **name == *label.name)
    }

    /// Reads a body that differs from the template's only in numbers; `None` otherwise. The families are sorted by
    /// name.
    fn read(&self, body: &[u8], current: &Group) -> Option<Vec<Family>> {
        let mut families: Vec<Option<Family>> = vec![None; current.families().len()];
        let (mut rest, mut from, mut done) = (body, 0, 0);
        for (at, slots_end) in &self.families {
            let schema = current.families().get(*at)?.family.schema();
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
        // A dropped schema occupies its own size while a `Weak` refers to it.
        let current = (size_of::<Weak<Schema>>() + size_of::<Schema>()) * self.schemas.len();
        let names: usize = self.names.iter().map(|name| size_of::<Box<str>>() + name.len()).sum();
        size_of::<Self>() + self.text.len() + slots + families + current + names
    }
}

/// The first metric name of a body: that of a HELP or TYPE line, or of a sample.
pub(super) fn first_name(body: &[u8]) -> Option<&[u8]> {
    let name = body.strip_prefix(b"# HELP ").or_else(|| body.strip_prefix(b"# TYPE ")).unwrap_or(body);
    name.split(|byte| matches!(byte, b' ' | b'{' | b'\n')).next().filter(|found| found.len() < name.len())
}

/// Templates by a hash of the current schemas, the names of the grouping key, and the body's first metric name.
#[derive(Debug, Default)]
pub(super) struct Templates {
    cached: Mutex<CachedTemplates>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct CachedTemplates {
    templates: HashMap<u64, Arc<Template>>,
    bytes: usize,
}

impl Templates {
    fn cached(&self) -> MutexGuard<'_, CachedTemplates> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, body: &[u8], current: &Group, grouping: &LabelSet) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        current.families().iter().for_each(|f| Arc::as_ptr(f.family.schema()).hash(&mut hasher));
        grouping.iter().for_each(|label| label.name.hash(&mut hasher));
        first_name(body).hash(&mut hasher);
        hasher.finish()
    }

    /// Reads a body to a group that holds `current`, if there is a template for it: its families in the order of names.
    pub fn read(&self, body: &[u8], current: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let key = self.key(body, current, grouping);
        let template = self.cached().templates.get(&key).cloned();
        template.filter(|template| template.is_for(current, grouping))?.read(body, current)
    }

    /// Keeps a template of what was read of a body to a group that holds `current`.
    pub fn insert(&self, template: Template, body: &[u8], current: &Group, grouping: &LabelSet) {
        let (key, bytes) = (self.key(body, current, grouping), template.bytes());
        let template = Arc::new(template);
        // Dropped templates are freed after the lock is released.
        let _gone = self.cached().insert(key, template, bytes);
    }
}

impl CachedTemplates {
    /// Returns the templates that are dropped.
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
    use crate::model::{FamilyBuilder, MetricType, NodeId, PushTime, ValueLayout, WriteTimestamp};

    fn current(name: &str) -> Group {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.series(&[("instance", "")], &ValueLayout::Single, &[1.0], None);
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        Group::put(moment, vec![builder.finish().unwrap()])
    }

    fn template(body: &[u8], current: &Group, grouping: &LabelSet) -> Template {
        let (start, end) = (body.len() - 2, body.len() - 1);
        let number = Number { start, end, target: ValueSlot { at: 0, kind: NumberKind::Plain } };
        Template::new(body, &[number], &[(0, 1)], current, grouping)
    }

    #[test]
    fn a_template_is_valid_for_the_same_schemas_and_key_names() {
        let (templates, group, grouping) = (Templates::default(), current("m"), LabelSet::new([("job", "a")]));
        templates.insert(template(b"m 1\n", &group, &grouping), b"m 1\n", &group, &grouping);
        let values = |families: Vec<Family>| families[0].values()[0];
        let read = |body: &[u8], group: &Group, key: LabelSet| templates.read(body, group, &key).map(values);
        assert_eq!(read(b"m 25.5\n", &group, LabelSet::new([("job", "b")])), Some(25.5));
        assert_eq!(read(b"m 2\n", &group.clone(), grouping.clone()), Some(2.0));
        assert_eq!(read(b"m 2\n", &current("m"), grouping.clone()), None, "an equal schema is not the same");
        assert_eq!(read(b"m 2\n", &group, LabelSet::new([("job", "a"), ("x", "")])), None);
        for other in [&b"m 2\n\n"[..], b"m 2", b"n 2\n", b"m 2 5\n", b"m x\n", b"", b"m 2\nm 2\n"] {
            assert_eq!(read(other, &group, grouping.clone()), None, "{other:?}");
        }
    }

    #[test]
    fn alternating_bodies_have_a_template_each() {
        let (templates, group) = (Templates::default(), current("m"));
        let keys = [LabelSet::new([("job", "a")]), LabelSet::new([("job", "a"), ("x", "")])];
        let bodies: [&[u8]; 4] = [b"m 1\n", b"# TYPE n gauge\nn 1\n", b"# HELP o o\no 1\n", b"p{a=\"1\"} 1\n"];
        let all = || keys.iter().flat_map(|key| bodies.map(|body| (body, key)));
        for (body, key) in all() {
            templates.insert(template(body, &group, key), body, &group, key);
        }
        assert!(all().all(|(body, key)| templates.read(body, &group, key).is_some()));
    }

    #[test]
    fn the_number_of_templates_is_bounded() {
        let (templates, grouping) = (Templates::default(), LabelSet::new([("job", "a")]));
        let insert =
            |body: &[u8], group: &Group| templates.insert(template(body, group, &grouping), body, group, &grouping);
        let groups: Vec<Group> = (0..TEMPLATES_MAX + 1).map(|_| current("m")).collect();
        groups.iter().chain(&groups[..1]).for_each(|group| insert(b"m 1\n", group));
        assert_eq!(templates.cached().templates.len(), 2, "one more than may be, and then the first again");
        assert_eq!(templates.cached().bytes, 2 * template(b"m 1\n", &groups[0], &grouping).bytes());
        let long = [&vec![b'\n'; BODY_BYTES_MAX - 4][..], b"m 1\n"].concat();
        for group in &groups {
            insert(&long, group);
            assert!(templates.cached().bytes <= BYTES_MAX);
        }
        assert!(templates.cached().bytes > BYTES_MAX / 4);
    }

    #[test]
    fn the_largest_template_takes_less_than_a_quarter_of_the_bytes() {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        let family = |at: usize| current(&format!("m{at}")).families()[0].family.clone();
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
