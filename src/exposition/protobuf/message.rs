//! The messages of `io.prometheus.client` in one metric (client_model, `metrics.proto`, proto2).
//!
//! They are used to check and to show raw metrics, where speed does not matter. Strings are bytes here, because proto2
//! does not guarantee UTF-8 and Pushgateway does not check it.

use crate::model::{MetricType, Num, ValueLayout};

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Seconds since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A label.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelPair {
    /// The name.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub name: Option<Vec<u8>>,
    /// The value.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub value: Option<Vec<u8>>,
}

/// The value of a gauge.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gauge {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// The value of a counter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Counter {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
    /// An exemplar: one observation with labels.
    #[prost(message, optional, tag = "2")]
    pub exemplar: Option<Exemplar>,
    /// The time when counting began.
    #[prost(message, optional, tag = "3")]
    pub created_timestamp: Option<Timestamp>,
}

/// A quantile of a summary.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Quantile {
    /// The quantile, from 0 to 1.
    #[prost(double, optional, tag = "1")]
    pub quantile: Option<f64>,
    /// Its value.
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
}

/// The value of a summary.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Summary {
    /// The number of observations.
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    /// Their sum.
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    /// The quantiles.
    #[prost(message, repeated, tag = "3")]
    pub quantile: Vec<Quantile>,
    /// The time when counting began.
    #[prost(message, optional, tag = "4")]
    pub created_timestamp: Option<Timestamp>,
}

/// A value without a type.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Untyped {
    /// The value.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// The value of a histogram: classic (buckets), native (spans), or both.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    /// The number of observations.
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    /// The same in a float histogram.
    #[prost(double, optional, tag = "4")]
    pub sample_count_float: Option<f64>,
    /// Their sum.
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    /// The classic buckets.
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    /// The time when counting began.
    #[prost(message, optional, tag = "15")]
    pub created_timestamp: Option<Timestamp>,
    /// The schema (resolution) of a native histogram.
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    /// The upper bound of the zero bucket; the lower one is its negative.
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    /// The count of the zero bucket.
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    /// The same in a float histogram.
    #[prost(double, optional, tag = "8")]
    pub zero_count_float: Option<f64>,
    /// The runs of negative buckets.
    #[prost(message, repeated, tag = "9")]
    pub negative_span: Vec<BucketSpan>,
    /// Their counts, each as the difference to the one before.
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    pub negative_delta: Vec<i64>,
    /// Their counts in a float histogram.
    #[prost(double, repeated, packed = "false", tag = "11")]
    pub negative_count: Vec<f64>,
    /// The runs of positive buckets.
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    /// Their counts, each as the difference to the one before.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_delta: Vec<i64>,
    /// Their counts in a float histogram.
    #[prost(double, repeated, packed = "false", tag = "14")]
    pub positive_count: Vec<f64>,
    /// Exemplars of a native histogram.
    #[prost(message, repeated, tag = "16")]
    pub exemplars: Vec<Exemplar>,
}

/// A classic bucket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bucket {
    /// The number of observations that are not greater than the bound.
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    /// The same in a float histogram.
    #[prost(double, optional, tag = "4")]
    pub cumulative_count_float: Option<f64>,
    /// The bound.
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
    /// An exemplar: one observation with labels.
    #[prost(message, optional, tag = "3")]
    pub exemplar: Option<Exemplar>,
}

/// A run of native buckets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BucketSpan {
    /// Buckets between the end of the span before and this one.
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    /// The number of buckets.
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

/// An exemplar: one observation with labels.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exemplar {
    /// Its labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// Its value.
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
    /// The time of the observation.
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Timestamp>,
}

/// One metric.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    /// The labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// The value of a gauge.
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    /// The value of a counter.
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    /// The value of a summary.
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    /// The value of an untyped metric.
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Untyped>,
    /// The value of a histogram.
    #[prost(message, optional, boxed, tag = "7")]
    pub histogram: Option<Box<Histogram>>,
    /// The time of the sample, in milliseconds since the Unix epoch.
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
}

impl Metric {
    /// The message, without labels, of these values.
    pub fn of(metric_type: MetricType, points: &ValueLayout, values: &[f64]) -> Metric {
        let mut metric = Metric::default();
        match (metric_type, points, values) {
            (MetricType::Counter, ValueLayout::Single, [value]) => {
                metric.counter = Some(Counter { value: Some(*value), ..Counter::default() });
            }
            (MetricType::Gauge, ValueLayout::Single, [value]) => metric.gauge = Some(Gauge { value: Some(*value) }),
            (_, ValueLayout::Single, [value]) => metric.untyped = Some(Untyped { value: Some(*value) }),
            (_, ValueLayout::Summary { quantiles, has_sum, has_count }, [values @ .., sum, count]) => {
                let quantiles = quantiles.iter().zip(values);
                metric.summary = Some(Summary {
                    sample_count: has_count.then_some(*count as u64),
                    sample_sum: has_sum.then_some(*sum),
                    quantile: quantiles
                        .map(|(quantile, value)| Quantile { quantile: Some(quantile.0), value: Some(*value) })
                        .collect(),
                    created_timestamp: None,
                });
            }
            (_, ValueLayout::Histogram { bounds, has_sum, has_count, float }, [values @ .., sum, count]) => {
                let buckets = bounds.iter().zip(values);
                metric.histogram = Some(Box::new(Histogram {
                    sample_count: (*has_count && !float).then_some(*count as u64),
                    sample_count_float: (*has_count && *float).then_some(*count),
                    sample_sum: has_sum.then_some(*sum),
                    bucket: buckets
                        .map(|(bound, count)| Bucket {
                            cumulative_count: (!float).then_some(*count as u64),
                            cumulative_count_float: float.then_some(*count),
                            upper_bound: Some(bound.0),
                            exemplar: None,
                        })
                        .collect(),
                    ..Histogram::default()
                }));
            }
            _ => {}
        }
        metric
    }

    /// The layout of the values, and the values; `None` if the message has no value of that type.
    pub fn values(&self, metric_type: MetricType) -> Option<(ValueLayout, Vec<f64>)> {
        let single = |value: Option<f64>| (ValueLayout::Single, vec![value.unwrap_or(0.0)]);
        match metric_type {
            MetricType::Counter => self.counter.as_ref().map(|counter| single(counter.value)),
            MetricType::Gauge => self.gauge.as_ref().map(|gauge| single(gauge.value)),
            MetricType::Untyped => self.untyped.as_ref().map(|untyped| single(untyped.value)),
            MetricType::Summary => self.summary.as_ref().map(Summary::values),
            MetricType::Histogram | MetricType::GaugeHistogram => self.histogram.as_deref().map(Histogram::values),
        }
    }
}

impl Summary {
    fn values(&self) -> (ValueLayout, Vec<f64>) {
        let values = self.quantile.iter().map(|quantile| quantile.value.unwrap_or(0.0));
        let sum_and_count = [self.sample_sum.unwrap_or(0.0), self.sample_count.unwrap_or(0) as f64];
        let points = ValueLayout::Summary {
            quantiles: self.quantile.iter().map(|quantile| Num(quantile.quantile.unwrap_or(0.0))).collect(),
            has_sum: self.sample_sum.is_some(),
            has_count: self.sample_count.is_some(),
        };
        (points, values.chain(sum_and_count).collect())
    }
}

impl Histogram {
    fn values(&self) -> (ValueLayout, Vec<f64>) {
        let counts = self.bucket.iter().map(|bucket| count(bucket.cumulative_count_float, bucket.cumulative_count));
        let total = count(self.sample_count_float, self.sample_count);
        let points = ValueLayout::Histogram {
            bounds: self.bucket.iter().map(|bucket| Num(bucket.upper_bound.unwrap_or(0.0))).collect(),
            has_sum: self.sample_sum.is_some(),
            has_count: self.sample_count.is_some() || self.sample_count_float.is_some(),
            float: self.sample_count_float.is_some()
                || self.bucket.iter().any(|bucket| bucket.cumulative_count_float.is_some()),
        };
        (points, counts.chain([self.sample_sum.unwrap_or(0.0), total]).collect())
    }

    /// Whether it has native buckets.
    pub fn is_native(&self) -> bool {
        !self.negative_span.is_empty() || !self.positive_span.is_empty()
    }
}

/// The count that is shown: the float one, unless it is absent or zero.
fn count(float: Option<f64>, integer: Option<u64>) -> f64 {
    float.filter(|float| *float != 0.0).unwrap_or_else(|| integer.unwrap_or(0) as f64)
}
