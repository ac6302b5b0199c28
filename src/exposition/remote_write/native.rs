//! The parts of a raw metric that a message can have: a native histogram, and the time when counting began.

use prost::Message;

use super::scraped_value;
use crate::exposition::histogram_rules;
use crate::exposition::protobuf::message::{BucketSpan, Histogram, Metric, Timestamp};
use crate::model::{Family, FamilyBuilder, MetricType, Schema, ValueLayout};

/// The hint that a histogram is a gauge, whose counts may fall.
const GAUGE: i32 = 3;

/// `Histogram`, the same in both versions of messages. The bounds of custom buckets are not among its fields, because
/// pushed histograms cannot have any.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WrittenHistogram {
    #[prost(uint64, optional, tag = "1")]
    count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    count_float: Option<f64>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<WrittenSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<WrittenSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    /// The time of the sample, in milliseconds since the Unix epoch.
    #[prost(int64, tag = "15")]
    pub(super) timestamp: i64,
    /// When counting began, in the same unit; 0 if that is not known.
    #[prost(int64, tag = "17")]
    pub(super) start_timestamp: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct WrittenSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl WrittenHistogram {
    /// The histogram as a scrape of the protobuf format yields it.
    fn new(histogram: Histogram, metric_type: MetricType) -> Self {
        let count_float = histogram.sample_count_float.unwrap_or(0.0);
        let zero_float = histogram.zero_count_float.unwrap_or(0.0);
        let is_float = count_float > 0.0 || zero_float > 0.0;
        let spans = |spans: &[BucketSpan]| {
            let spans = spans.iter();
            let span =
                |span: &BucketSpan| WrittenSpan { offset: span.offset.unwrap_or(0), length: span.length.unwrap_or(0) };
            spans.map(span).collect()
        };
        let mut written = Self {
            sum: scraped_value(histogram.sample_sum.unwrap_or(0.0)),
            schema: histogram.schema.unwrap_or(0),
            zero_threshold: histogram.zero_threshold.unwrap_or(0.0),
            negative_spans: spans(&histogram.negative_span),
            positive_spans: spans(&histogram.positive_span),
            reset_hint: if metric_type == MetricType::GaugeHistogram { GAUGE } else { 0 },
            ..Self::default()
        };
        if is_float {
            (written.count_float, written.zero_count_float) = (Some(count_float), Some(zero_float));
            written.negative_counts = histogram.negative_count;
            written.positive_counts = histogram.positive_count;
        } else {
            written.count_int = Some(histogram.sample_count.unwrap_or(0));
            written.zero_count_int = Some(histogram.zero_count.unwrap_or(0));
            written.negative_deltas = histogram.negative_delta;
            written.positive_deltas = histogram.positive_delta;
        }
        written
    }
}

/// The parts of a raw metric.
#[derive(Debug, Default)]
pub(super) struct RawDetail {
    /// The native histogram.
    pub histogram: Option<WrittenHistogram>,
    /// When counting began, in milliseconds since the Unix epoch; 0 if that is not known.
    pub start_ms: i64,
}

impl RawDetail {
    /// Reads a raw metric. Its native histogram is left out if no receiver accepts it.
    pub fn of(raw_metric: &[u8], metric_type: MetricType) -> Self {
        let metric = Metric::decode(raw_metric).unwrap_or_default();
        let counter = metric.counter.as_ref().and_then(|counter| counter.created_timestamp);
        let summary = metric.summary.as_ref().and_then(|summary| summary.created_timestamp);
        let histogram = metric.histogram.as_ref().and_then(|histogram| histogram.created_timestamp);
        let start = counter.or(summary).or(histogram);
        let native = metric.histogram.filter(|histogram| is_scraped_native(histogram));
        Self {
            histogram: native.map(|histogram| WrittenHistogram::new(*histogram, metric_type)),
            start_ms: start.map_or(0, milliseconds),
        }
    }
}

fn milliseconds(timestamp: Timestamp) -> i64 {
    let ms = timestamp.seconds.saturating_mul(1_000).saturating_add(i64::from(timestamp.nanos) / 1_000_000);
    ms.max(0)
}

/// Whether Prometheus reads the histogram as a native one.
fn is_scraped_native(histogram: &Histogram) -> bool {
    let is_native = histogram.is_native()
        || histogram.zero_threshold.is_some_and(|threshold| threshold > 0.0)
        || histogram.zero_count.is_some_and(|count| count > 0);
    is_native && histogram_rules::check(histogram).is_ok()
}

/// The native histograms of a family, by the index of the series; `None` if it has none.
fn natives(family: &Family) -> Option<Vec<bool>> {
    let metric_type = family.schema().metric_type();
    if !matches!(metric_type, MetricType::Histogram | MetricType::GaugeHistogram) {
        return None;
    }
    let is_native = |raw: &[u8]| !raw.is_empty() && RawDetail::of(raw, metric_type).histogram.is_some();
    let natives: Vec<bool> = family.raw_metrics()?.iter().map(|raw| is_native(raw)).collect();
    natives.contains(&true).then_some(natives)
}

/// The schema of a family as it is written with its native histograms, each of which is one sample; `None` if it has
/// none.
pub fn native_schema(family: &Family) -> Option<std::sync::Arc<Schema>> {
    let natives = natives(family)?;
    let schema = family.schema();
    let mut builder = FamilyBuilder::new(schema.name().clone(), schema.metric_type());
    for (series, is_native) in schema.series().zip(natives) {
        let labels: Vec<_> = series.labels().collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
        let layout = if is_native { &ValueLayout::Single } else { &series.layout().values };
        builder.series(&labels, layout, &vec![0.0; layout.len()], None);
    }
    builder.finish().ok().map(|family| family.schema().clone())
}
