//! Prints the text format, byte for byte as prometheus/common's `expfmt.MetricFamilyToText` does.
//!
//! Series of one layout in one group differ only in their own label values and numbers. The text between those is built
//! once for all of them, and a series is printed by copying pieces.

use std::sync::Arc;

use crate::exposition::labels::{self, ShownLabel};
use crate::exposition::name::Escaping;
use crate::exposition::number;
use crate::model::label::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::{Family, LabelSet, MetricType, Num, Schema, Series, SeriesLayout, ValueLayout};

/// Prints families. Reuses its buffers, and the texts prepared for the schema printed last.
#[derive(Debug)]
pub struct TextRenderer {
    escaping: Escaping,
    /// The schema and layout for which `names` and `marks` are prepared.
    prepared: Option<(Arc<Schema>, usize)>,
    names: SampleNames,
    marks: MarkTexts,
    pieces: Pieces,
    /// The labels of the summary or histogram being printed.
    labels: Vec<u8>,
}

impl TextRenderer {
    /// A renderer with that escaping of names.
    pub fn new(escaping: Escaping) -> Self {
        Self {
            escaping,
            prepared: None,
            names: SampleNames::default(),
            marks: MarkTexts::default(),
            pieces: Pieces::default(),
            labels: Vec::new(),
        }
    }

    /// Appends the block of one metric name: HELP and TYPE of `head`, then the series of each family with the labels of
    /// its group. Appends nothing if there is no series. All families have the name and type of `head`.
    pub fn block<'a>(
        &mut self,
        head: &Schema,
        families: impl IntoIterator<Item = (&'a LabelSet, &'a Family)>,
        into: &mut Vec<u8>,
    ) {
        let mut families = families.into_iter().filter(|family| family.1.schema().series_len() > 0).peekable();
        if families.peek().is_some() {
            self.head(head, into);
        }
        for (group, family) in families {
            self.family(group, family, into);
        }
    }

    /// Appends the HELP and TYPE lines.
    pub fn head(&self, schema: &Schema, into: &mut Vec<u8>) {
        let name = self.escaping.escape(schema.name());
        if let Some(help) = schema.help() {
            into.extend_from_slice(b"# HELP ");
            print_name(is_legacy_metric_name(&name), &name, into);
            into.push(b' ');
            escape(help, false, into);
            into.push(b'\n');
        }
        into.extend_from_slice(b"# TYPE ");
        print_name(is_legacy_metric_name(&name), &name, into);
        into.push(b' ');
        // The text format has no name for gauge histograms.
        let metric_type = match schema.metric_type() {
            MetricType::GaugeHistogram => MetricType::Histogram,
            other => other,
        };
        into.extend_from_slice(metric_type.name().as_bytes());
        into.push(b'\n');
    }

    /// Appends the series of one family.
    pub fn family(&mut self, group: &LabelSet, family: &Family, into: &mut Vec<u8>) {
        let schema = family.schema();
        let values = family.values();
        let mut layout_index = None;
        for series in schema.series() {
            if layout_index != Some(series.layout_index) {
                layout_index = Some(series.layout_index);
                self.prepare(schema, series.layout_index);
                self.pieces.prepare(group, series.layout(), self.escaping);
            }
            self.labels.clear();
            match (&series.layout().values, &values[series.values()]) {
                (ValueLayout::Single, [value]) => {
                    let has_labels = !self.pieces.is_empty();
                    into.extend_from_slice(self.names.body.start(has_labels));
                    self.pieces.print(&series, into);
                    end_line(has_labels, *value, into);
                }
                (_, [marked @ .., sum, count]) => {
                    self.pieces.print(&series, &mut self.labels);
                    self.distribution(marked, *sum, *count, into);
                }
                _ => {}
            }
        }
    }

    /// The lines of a summary or histogram.
    fn distribution(&self, marked: &[f64], sum: f64, count: f64, into: &mut Vec<u8>) {
        for (i, value) in marked.iter().enumerate() {
            self.marked_line(self.marks.get(i), *value, into);
        }
        if self.marks.lacks_infinity {
            self.marked_line(b"le=\"+Inf\"", count, into);
        }
        let has_labels = !self.labels.is_empty();
        for (name, value) in [(&self.names.sum, sum), (&self.names.count, count)] {
            into.extend_from_slice(name.start(has_labels));
            into.extend_from_slice(&self.labels);
            end_line(has_labels, value, into);
        }
    }

    fn marked_line(&self, mark: &[u8], value: f64, into: &mut Vec<u8>) {
        into.extend_from_slice(self.names.body.start(true));
        if !self.labels.is_empty() {
            into.extend_from_slice(&self.labels);
            into.push(b',');
        }
        into.extend_from_slice(mark);
        end_line(true, value, into);
    }

    fn prepare(&mut self, schema: &Arc<Schema>, layout_index: usize) {
        let is_same = |(last, index): &(Arc<Schema>, usize)| Arc::ptr_eq(last, schema) && *index == layout_index;
        if !self.prepared.as_ref().is_some_and(is_same) {
            let named = |(last, _): &(Arc<Schema>, usize)| {
                last.name() == schema.name() && last.metric_type() == schema.metric_type()
            };
            if !self.prepared.as_ref().is_some_and(named) {
                self.names.prepare(&self.escaping.escape(schema.name()), schema.metric_type());
            }
            self.marks.prepare(&schema.layouts()[layout_index].values);
            self.prepared = Some((schema.clone(), layout_index));
        }
    }
}

fn end_line(has_labels: bool, value: f64, into: &mut Vec<u8>) {
    into.extend_from_slice(if has_labels { b"} " } else { b" " });
    number::print(value, into);
    into.push(b'\n');
}

/// A sample's name as printed with labels and without labels. A name that is not a legacy name is printed between the
/// braces.
#[derive(Debug, Default)]
struct SampleName {
    before_labels: Vec<u8>,
    alone: Vec<u8>,
}

impl SampleName {
    fn prepare(&mut self, name: &str, suffix: &str) {
        let name = format!("{name}{suffix}");
        self.before_labels.clear();
        self.alone.clear();
        if is_legacy_metric_name(&name) {
            self.alone.extend_from_slice(name.as_bytes());
            self.before_labels.extend_from_slice(name.as_bytes());
            self.before_labels.push(b'{');
        } else {
            self.alone.push(b'{');
            print_name(false, &name, &mut self.alone);
            self.before_labels.extend_from_slice(&self.alone);
            self.before_labels.push(b',');
            self.alone.push(b'}');
        }
    }

    fn start(&self, has_labels: bool) -> &[u8] {
        if has_labels { &self.before_labels } else { &self.alone }
    }
}

/// The names of a family's samples.
#[derive(Debug, Default)]
struct SampleNames {
    /// The name of values, quantiles or buckets.
    body: SampleName,
    sum: SampleName,
    count: SampleName,
}

impl SampleNames {
    fn prepare(&mut self, name: &str, metric_type: MetricType) {
        let is_histogram = matches!(metric_type, MetricType::Histogram | MetricType::GaugeHistogram);
        self.body.prepare(name, if is_histogram { "_bucket" } else { "" });
        if is_histogram || metric_type == MetricType::Summary {
            self.sum.prepare(name, "_sum");
            self.count.prepare(name, "_count");
        }
    }
}

/// The printed labels `quantile` or `le` of a layout.
#[derive(Debug, Default)]
struct MarkTexts {
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Whether a histogram has no `+Inf` bucket. Then one is printed from the count.
    lacks_infinity: bool,
}

impl MarkTexts {
    fn prepare(&mut self, points: &ValueLayout) {
        let (label, numbers): (&[u8], &[Num]) = match points {
            ValueLayout::Single => (b"", &[]),
            ValueLayout::Summary { quantiles, .. } => (b"quantile=\"", quantiles),
            ValueLayout::Histogram { bounds, .. } => (b"le=\"", bounds),
        };
        self.text.clear();
        self.ends.clear();
        for number in numbers {
            self.text.extend_from_slice(label);
            number::print(number.0, &mut self.text);
            self.text.push(b'"');
            self.ends.push(self.text.len());
        }
        let is_histogram = matches!(points, ValueLayout::Histogram { .. });
        self.lacks_infinity = is_histogram && !numbers.iter().any(|number| number.0 == f64::INFINITY);
    }

    fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start..self.ends[i]]
    }
}

/// The text between the label values of a series. It is the same for all groups whose keys have the same names.
#[derive(Debug, Default)]
struct LabelFrame {
    /// The label names of the grouping key for which it is built.
    group_names: Vec<Box<str>>,
    own_names: Box<[Box<str>]>,
    text: Vec<u8>,
    /// The position of each value in the text, and whether it is the group's.
    gaps: Vec<(usize, bool)>,
}

impl LabelFrame {
    fn fits(&self, group: &LabelSet, layout: &SeriesLayout) -> bool {
        self.own_names == layout.names
            && group.len() == self.group_names.len()
            && group.iter().zip(&self.group_names).all(|(label, name)| *label.name == **name)
    }

    fn make(&mut self, group: &LabelSet, layout: &SeriesLayout, escaping: Escaping) {
        self.group_names = group.iter().map(|label| label.name.into()).collect();
        self.own_names = layout.names.clone();
        self.text.clear();
        self.gaps.clear();
        for label in labels::shown(group, layout) {
            if !self.text.is_empty() {
                self.text.extend_from_slice(b"\",");
            }
            let (name, of_group) = match label {
                ShownLabel::Group(label) => (label.name, true),
                ShownLabel::Own { name, .. } => (name, false),
            };
            let name = escaping.escape_label(name);
            print_name(is_legacy_label_name(&name), &name, &mut self.text);
            self.text.extend_from_slice(b"=\"");
            self.gaps.push((self.text.len(), of_group));
        }
        if !self.text.is_empty() {
            self.text.push(b'"');
        }
    }
}

/// The printed labels of a series except its own values: a piece before each value, and one after the last.
#[derive(Debug, Default)]
struct Pieces {
    frame: LabelFrame,
    text: Vec<u8>,
    /// The end of the piece before each own value.
    ends: Vec<usize>,
}

impl Pieces {
    fn prepare(&mut self, group: &LabelSet, layout: &SeriesLayout, escaping: Escaping) {
        if !self.frame.fits(group, layout) {
            self.frame.make(group, layout, escaping);
        }
        self.text.clear();
        self.ends.clear();
        let (mut start, mut labels) = (0, group.iter());
        for &(end, of_group) in &self.frame.gaps {
            self.text.extend_from_slice(&self.frame.text[start..end]);
            start = end;
            if of_group && let Some(label) = labels.next() {
                escape(label.value, true, &mut self.text);
            } else {
                self.ends.push(self.text.len());
            }
        }
        self.text.extend_from_slice(&self.frame.text[start..]);
    }

    /// Whether the series has no labels.
    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn print(&self, series: &Series, into: &mut Vec<u8>) {
        let mut start = 0;
        for (i, &end) in self.ends.iter().enumerate() {
            into.extend_from_slice(&self.text[start..end]);
            into.extend_from_slice(series.escaped_value(i).as_bytes());
            start = end;
        }
        into.extend_from_slice(&self.text[start..]);
    }
}

/// Appends a legacy name unchanged, another name quoted.
fn print_name(legacy: bool, name: &str, into: &mut Vec<u8>) {
    if legacy {
        into.extend_from_slice(name.as_bytes());
    } else {
        into.push(b'"');
        escape(name, true, into);
        into.push(b'"');
    }
}

fn escape(text: &str, quotes: bool, into: &mut Vec<u8>) {
    let special = |byte: u8| byte == b'\\' || byte == b'\n' || (quotes && byte == b'"');
    if !text.bytes().fold(false, |found, byte| found | special(byte)) {
        return into.extend_from_slice(text.as_bytes());
    }
    for &byte in text.as_bytes() {
        match byte {
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'"' if quotes => into.extend_from_slice(b"\\\""),
            other => into.push(other),
        }
    }
}
