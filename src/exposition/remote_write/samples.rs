//! The samples of a family: their names, marks, labels and values.

use std::sync::Arc;

use super::labels::{ExternalLabels, LabelEncoder};
use super::native::{RawDetail, WrittenHistogram};
use super::scraped_value;
use crate::exposition::number;
use crate::model::{Escaping, Family, LabelSet, Schema, Series, SeriesLayout, ValueLayout};

/// Takes the samples of families.
pub trait SampleSink {
    /// The next samples are of a family with that schema.
    fn begin(&mut self, _schema: &Arc<Schema>) {}

    /// Counting of the next samples began at that time, in milliseconds since the Unix epoch; 0 if that is not known.
    fn start(&mut self, _start_ms: i64) {}

    /// A sample: the encoded labels of its series, and its value.
    fn sample(&mut self, labels: &[u8], value: f64);

    /// A native histogram: the encoded labels of its series, and the histogram, without its time.
    fn histogram(&mut self, labels: &[u8], histogram: WrittenHistogram);
}

/// Encodes the samples of families, and reuses what it prepared for the family before.
#[derive(Debug)]
pub struct SampleEncoder {
    escaping: Escaping,
    /// Whether native histograms are written.
    has_natives: bool,
    labels: LabelEncoder,
    /// The schema and layout for which names and marks are prepared.
    prepared: Option<(Arc<Schema>, usize)>,
    /// The name of the metric.
    plain: String,
    /// The name of its single values, buckets or quantiles.
    name: String,
    sum: String,
    count: String,
    marks: Vec<String>,
    lacks_infinity: bool,
    encoded: Vec<u8>,
}

impl SampleEncoder {
    /// An encoder with that escaping of names and these external labels. `has_natives` says whether native histograms are
    /// written, in place of their classic buckets.
    pub fn new(escaping: Escaping, external: ExternalLabels, has_natives: bool) -> Self {
        Self {
            escaping,
            has_natives,
            labels: LabelEncoder::new(escaping, external),
            prepared: None,
            plain: String::new(),
            name: String::new(),
            sum: String::new(),
            count: String::new(),
            marks: Vec::new(),
            lacks_infinity: false,
            encoded: Vec::new(),
        }
    }

    /// Passes the samples of the family in that group to `sink`, from the series at index `from` on, until `is_enough`.
    /// Returns the index of the next series, if there is one.
    pub fn family<S: SampleSink>(
        &mut self,
        group: &LabelSet,
        family: &Family,
        from: usize,
        sink: &mut S,
        is_enough: impl Fn(&S) -> bool,
    ) -> Option<usize> {
        let (schema, values) = (family.schema(), family.values());
        let all = schema.series_from(from);
        let (one_layout, several) = match all {
            Some(series) => (Some(series), None),
            None => (None, Some(schema.series().skip(from))),
        };
        let all = one_layout.into_iter().flatten().chain(several.into_iter().flatten());
        let raw_metrics = family.raw_metrics();
        let mut layout_index = None;
        sink.begin(schema);
        sink.start(0);
        for (at, series) in (from..).zip(all) {
            if is_enough(sink) {
                return Some(at);
            }
            if layout_index != Some(series.layout_index) {
                layout_index = Some(series.layout_index);
                self.prepare(schema, series.layout_index);
                let name = matches!(series.layout().values, ValueLayout::Single).then_some(&*self.name);
                self.labels.begin(group, schema, series.layout(), name);
            }
            if let Some(raw_metrics) = raw_metrics {
                let detail = RawDetail::of(&raw_metrics[at], schema.metric_type());
                sink.start(detail.start_ms);
                if let Some(histogram) = detail.histogram.filter(|_| self.has_natives) {
                    self.encoded.clear();
                    self.labels.put(&series, &self.plain, "", &mut self.encoded);
                    sink.histogram(&self.encoded, histogram);
                    continue;
                }
            }
            match &values[series.values()] {
                [value] => self.sample(&series, SampleKind::Body, "", *value, sink),
                [marked @ .., sum, count] => {
                    let marks = std::mem::take(&mut self.marks);
                    for (mark, value) in marks.iter().zip(marked) {
                        self.sample(&series, SampleKind::Body, mark, *value, sink);
                    }
                    self.marks = marks;
                    if self.lacks_infinity {
                        self.sample(&series, SampleKind::Body, "+Inf", *count, sink);
                    }
                    self.sample(&series, SampleKind::Sum, "", *sum, sink);
                    self.sample(&series, SampleKind::Count, "", *count, sink);
                }
                [] => {}
            }
        }
        None
    }

    fn sample(&mut self, series: &Series<'_>, name: SampleKind, mark: &str, value: f64, sink: &mut impl SampleSink) {
        let name = match name {
            SampleKind::Body => &self.name,
            SampleKind::Sum => &self.sum,
            SampleKind::Count => &self.count,
        };
        self.encoded.clear();
        self.labels.put(series, name, mark, &mut self.encoded);
        sink.sample(&self.encoded, scraped_value(value));
    }

    fn prepare(&mut self, schema: &Arc<Schema>, layout_index: usize) {
        let is_same = |(last, index): &(Arc<Schema>, usize)| Arc::ptr_eq(last, schema) && *index == layout_index;
        if self.prepared.as_ref().is_some_and(is_same) {
            return;
        }
        let name = self.escaping.escape(schema.name());
        // A histogram with one value stands for a native one.
        let is_histogram = matches!(schema.layouts()[layout_index].values, ValueLayout::Histogram { .. });
        self.name = if is_histogram { format!("{name}_bucket") } else { name.clone().into_owned() };
        self.plain = name.clone().into_owned();
        self.sum = format!("{name}_sum");
        self.count = format!("{name}_count");
        let numbers = match &schema.layouts()[layout_index].values {
            ValueLayout::Single => &[][..],
            ValueLayout::Summary { quantiles, .. } => quantiles,
            ValueLayout::Histogram { bounds, .. } => bounds,
        };
        self.marks = numbers.iter().map(|number| mark(number.0)).collect();
        self.lacks_infinity = is_histogram && !numbers.iter().any(|number| number.0 == f64::INFINITY);
        self.prepared = Some((schema.clone(), layout_index));
    }
}

/// The number of samples of a family with that schema.
pub fn samples_len(schema: &Schema) -> usize {
    let len = |layout: &SeriesLayout| match &layout.values {
        ValueLayout::Histogram { bounds, .. } if !bounds.iter().any(|bound| bound.0 == f64::INFINITY) => {
            layout.values.len() + 1
        }
        values => values.len(),
    };
    match schema.layouts() {
        [layout] => schema.series_len() * len(layout),
        _ => schema.series().map(|series| len(series.layout())).sum(),
    }
}

/// The samples of a series with several values.
#[derive(Clone, Copy)]
enum SampleKind {
    /// A single value, a bucket or a quantile.
    Body,
    Sum,
    Count,
}

/// A bound or quantile as Prometheus 3 stores it: whole numbers have a fraction (`formatOpenMetricsFloat`).
fn mark(number: f64) -> String {
    let mut text = Vec::new();
    number::print(number, &mut text);
    if number.is_finite() && !text.iter().any(|byte| matches!(byte, b'e' | b'.')) {
        text.extend_from_slice(b".0");
    }
    String::from_utf8_lossy(&text).into_owned()
}
