//! The labels of samples, encoded as fields of a `TimeSeries` message.
//!
//! Groups whose keys have the same names share a template for the series of a layout: the order of all labels, with the
//! encoded names. For each group, its values are filled in once; for each series, only its own.

use std::sync::Arc;

use crate::exposition::protobuf::wire::{bytes_len, put_bytes, put_length};
use crate::model::{Escaping, LabelSet, Schema, Series, SeriesLayout};

/// The label that names the metric.
const NAME: &str = "__name__";
/// The field of a label in a `TimeSeries` message.
const LABEL: u8 = 1;

/// Labels that are added to every series, as Prometheus's `external_labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalLabels(Arc<LabelSet>);

impl ExternalLabels {
    /// Adds these labels; those with empty values have no effect.
    pub fn new(labels: LabelSet) -> Self {
        Self(Arc::new(labels))
    }
}

/// The source of a label's value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SlotSource {
    /// The group's label at that index.
    Group(usize),
    /// The series' own label at that index.
    Own(usize),
    /// The name of the sample.
    Name,
    /// The bound or quantile of the sample.
    Mark,
    /// An external label alone.
    External,
}

/// A label of a template.
#[derive(Debug)]
struct LabelSlot {
    source: SlotSource,
    /// The name's field in a `Label` message.
    name: Box<[u8]>,
    /// The label with the value of the external label of that name; empty if there is none.
    external: Box<[u8]>,
}

impl LabelSlot {
    fn put(&self, value: &str, into: &mut Vec<u8>) {
        if value.is_empty() {
            return into.extend_from_slice(&self.external);
        }
        put_length(LABEL, self.name.len() + bytes_len(value.len()), into);
        into.extend_from_slice(&self.name);
        put_bytes(2, value.as_bytes(), into);
    }
}

/// The labels of all series of one layout, for all groups whose keys have the same names.
#[derive(Debug, Default)]
struct LabelTemplate {
    group_names: Vec<Box<str>>,
    own_names: Box<[Box<str>]>,
    mark: Option<&'static str>,
    slots: Vec<LabelSlot>,
}

impl LabelTemplate {
    fn fits(&self, group: &LabelSet, layout: &SeriesLayout, mark: Option<&'static str>) -> bool {
        !self.slots.is_empty()
            && self.mark == mark
            && self.own_names == layout.names
            && group.len() == self.group_names.len()
            && group.iter().zip(&self.group_names).all(|(label, name)| *label.name == **name)
    }

    fn make(
        &mut self,
        group: &LabelSet,
        layout: &SeriesLayout,
        mark: Option<&'static str>,
        (escaping, external): (Escaping, &ExternalLabels),
    ) {
        self.group_names = group.iter().map(|label| label.name.into()).collect();
        self.own_names = layout.names.clone();
        self.mark = mark;
        // A sample's own labels win over the group's, and those over external ones: the first of equal names stays.
        let named = std::iter::once((NAME, SlotSource::Name)).chain(mark.map(|mark| (mark, SlotSource::Mark)));
        let own = layout.names.iter().enumerate().map(|(at, name)| (&**name, SlotSource::Own(at)));
        let group = self.group_names.iter().enumerate().map(|(at, name)| (&**name, SlotSource::Group(at)));
        let escaped = |(name, source)| (escaping.escape_label(name), source);
        let mut all: Vec<_> = named.map(|(name, source)| (name.into(), source)).collect();
        all.extend(own.chain(group).map(escaped));
        all.extend(external.0.iter().map(|label| (label.name.into(), SlotSource::External)));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|later, earlier| later.0 == earlier.0);
        let slots = all.into_iter().map(|(name, source)| {
            let mut slot = LabelSlot { source, name: Box::default(), external: Box::default() };
            let mut field = Vec::new();
            put_bytes(1, name.as_bytes(), &mut field);
            slot.name = field.into();
            let mut whole = Vec::new();
            slot.put(external.0.get(&name).unwrap_or_default(), &mut whole);
            slot.external = whole.into();
            slot
        });
        self.slots = slots.collect();
    }
}

/// A label whose value is not filled in yet, after the bytes before it.
#[derive(Clone, Copy, Debug)]
struct LabelGap {
    end: usize,
    slot: usize,
    source: SlotSource,
}

/// The labels of the series of one layout in one group.
#[derive(Debug)]
pub(super) struct LabelEncoder {
    escaping: Escaping,
    external: ExternalLabels,
    template: LabelTemplate,
    text: Vec<u8>,
    gaps: Vec<LabelGap>,
}

impl LabelEncoder {
    pub(super) fn new(escaping: Escaping, external: ExternalLabels) -> Self {
        let template = LabelTemplate::default();
        Self { escaping, external, template, text: Vec::new(), gaps: Vec::new() }
    }

    /// Begins the series of a layout in a group. `name` is the name of all samples if they have one.
    pub(super) fn begin(&mut self, group: &LabelSet, schema: &Schema, layout: &SeriesLayout, name: Option<&str>) {
        let mark = schema.metric_type().own_label().filter(|_| name.is_none());
        if !self.template.fits(group, layout, mark) {
            self.template.make(group, layout, mark, (self.escaping, &self.external));
        }
        self.text.clear();
        self.gaps.clear();
        let (mut labels, mut next) = (group.iter(), 0);
        for (slot, label) in self.template.slots.iter().enumerate() {
            match label.source {
                SlotSource::Group(at) => {
                    // Escaping may change the order.
                    if at < next {
                        (labels, next) = (group.iter(), 0);
                    }
                    let value = labels.nth(at - next).map_or("", |label| label.value);
                    next = at + 1;
                    label.put(value, &mut self.text);
                }
                SlotSource::External => self.text.extend_from_slice(&label.external),
                SlotSource::Name if name.is_some() => label.put(name.unwrap_or_default(), &mut self.text),
                source => self.gaps.push(LabelGap { end: self.text.len(), slot, source }),
            }
        }
    }

    /// Appends the labels of a series. `name` and `mark` are those of the sample; the mark is empty if it has none.
    pub(super) fn put(&self, series: &Series<'_>, name: &str, mark: &str, into: &mut Vec<u8>) {
        let mut start = 0;
        for gap in &self.gaps {
            into.extend_from_slice(&self.text[start..gap.end]);
            start = gap.end;
            let slot = &self.template.slots[gap.slot];
            match gap.source {
                SlotSource::Own(at) => {
                    let escaped = series.escaped_value(at);
                    match escaped.contains('\\') {
                        false => slot.put(escaped, into),
                        true => slot.put(&crate::model::label::unescape_value(escaped), into),
                    }
                }
                SlotSource::Name => slot.put(name, into),
                // A sample without a mark has no such label, not even an external one.
                _ if mark.is_empty() => {}
                _ => slot.put(mark, into),
            }
        }
        into.extend_from_slice(&self.text[start..]);
    }
}
