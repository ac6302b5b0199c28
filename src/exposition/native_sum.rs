//! The parts of sums that only protobuf can express: native histograms, and the time when a sum began.
//!
//! Two native histograms are brought to the coarser schema and to the wider zero bucket, as Prometheus does when it adds
//! histograms. A bucket that the zero bucket would cut belongs to it as a whole.

use std::collections::BTreeMap;

use prost::Message;

use super::native::bound;
use super::protobuf::message::{Bucket, BucketSpan, Histogram, Metric, Timestamp};
use crate::model::{MetricType, ValueLayout};

/// The schemas of exponential buckets.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;
/// Buckets of a sum, at most, for each side. If there would be more, the schema becomes coarser.
const BUCKETS_MAX: usize = 8_192;

/// Adds the raw metrics of two native histograms.
///
/// # Errors
/// The reason why they cannot be added.
pub fn add_native(total: &[u8], pushed: &[u8]) -> Result<Vec<u8>, String> {
    let (mut total, mut pushed) = (NativeCounts::read(total)?, NativeCounts::read(pushed)?);
    let schema = total.schema.min(pushed.schema);
    total.reduce(schema);
    pushed.reduce(schema);
    let mut threshold = total.zero_threshold.max(pushed.zero_threshold);
    loop {
        let wider = total.widen_zero(threshold).max(pushed.widen_zero(threshold));
        if wider <= threshold {
            break;
        }
        threshold = wider;
    }
    total.add(pushed);
    while total.sides.iter().any(|side| side.len() > BUCKETS_MAX) && total.schema > *SCHEMAS.start() {
        total.reduce(total.schema - 1);
    }
    Ok(total.message())
}

/// The raw metric of a native histogram without exemplars and dates, which a sum has not; `None` if the metric is none.
pub fn plain_native(raw_metric: &[u8]) -> Option<Vec<u8>> {
    let mut histogram = Metric::decode(raw_metric).ok()?.histogram?;
    if !histogram.is_native() && histogram.schema.is_none() {
        return None;
    }
    histogram.exemplars.clear();
    histogram.created_timestamp = None;
    histogram.bucket.iter_mut().for_each(|bucket| bucket.exemplar = None);
    Some(Metric { histogram: Some(histogram), ..Metric::default() }.encode_to_vec())
}

/// The raw metric of a series of a sum that began at `start_ns`, in nanoseconds since the Unix epoch. `native` is its
/// raw metric with native buckets; empty if it has none.
pub fn date_sum(
    metric_type: MetricType,
    layout: &ValueLayout,
    values: &[f64],
    native: &[u8],
    start_ns: u64,
) -> Vec<u8> {
    const SECOND: u64 = 1_000_000_000;
    let start = Timestamp { seconds: (start_ns / SECOND) as i64, nanos: (start_ns % SECOND) as i32 };
    let read = Metric::decode(native).ok().filter(|_| !native.is_empty());
    let mut metric = read.unwrap_or_else(|| Metric::of(metric_type, layout, values));
    if let Some(counter) = &mut metric.counter {
        counter.created_timestamp = Some(start);
    }
    if let Some(summary) = &mut metric.summary {
        summary.created_timestamp = Some(start);
    }
    if let Some(histogram) = &mut metric.histogram {
        histogram.created_timestamp = Some(start);
    }
    metric.encode_to_vec()
}

/// A native histogram with counts instead of differences.
struct NativeCounts {
    schema: i32,
    zero_threshold: f64,
    zero: f64,
    count: f64,
    sum: f64,
    is_float: bool,
    /// The positive and the negative buckets by index.
    sides: [BTreeMap<i64, f64>; 2],
    classic: Vec<Bucket>,
}

impl NativeCounts {
    fn read(raw_metric: &[u8]) -> Result<Self, String> {
        let metric = Metric::decode(raw_metric).map_err(|_| "a native histogram cannot be read".to_owned())?;
        let histogram = metric.histogram.ok_or("a native histogram is missing")?;
        let schema = histogram.schema.unwrap_or(0);
        if !SCHEMAS.contains(&schema) {
            return Err(format!("native histograms of the schema {schema} cannot be added"));
        }
        let is_float =
            histogram.sample_count_float.unwrap_or(0.0) > 0.0 || histogram.zero_count_float.unwrap_or(0.0) > 0.0;
        let counts = |floats: &[f64], deltas: &[i64]| match is_float {
            true => floats.to_vec(),
            false => sums(deltas),
        };
        let positive = counts(&histogram.positive_count, &histogram.positive_delta);
        let negative = counts(&histogram.negative_count, &histogram.negative_delta);
        let number = |float: Option<f64>, integer: Option<u64>| match is_float {
            true => float.unwrap_or(0.0),
            false => integer.unwrap_or(0) as f64,
        };
        Ok(Self {
            schema,
            zero_threshold: histogram.zero_threshold.unwrap_or(0.0),
            zero: number(histogram.zero_count_float, histogram.zero_count),
            count: number(histogram.sample_count_float, histogram.sample_count),
            sum: histogram.sample_sum.unwrap_or(0.0),
            is_float,
            sides: [indexed(&histogram.positive_span, positive), indexed(&histogram.negative_span, negative)],
            classic: histogram.bucket,
        })
    }

    /// Brings the buckets to a coarser schema.
    fn reduce(&mut self, schema: i32) {
        let steps = u32::try_from(self.schema - schema).unwrap_or(0);
        if steps == 0 {
            return;
        }
        for side in &mut self.sides {
            let mut coarser = BTreeMap::new();
            for (index, count) in std::mem::take(side) {
                // The bucket `i` of the coarser schema has the buckets 2i - 1 and 2i of the next finer one.
                *coarser.entry(((index - 1) >> steps) + 1).or_insert(0.0) += count;
            }
            *side = coarser;
        }
        self.schema = schema;
    }

    /// Widens the zero bucket to `threshold`, or so far that it cuts no bucket. Returns how far it reaches.
    fn widen_zero(&mut self, mut threshold: f64) -> f64 {
        let schema = self.schema;
        for side in &mut self.sides {
            while let Some(first) = side.first_entry()
                && (*first.get() == 0.0 || bound(*first.key() - 1, schema) < threshold)
            {
                let (index, count) = first.remove_entry();
                if count != 0.0 {
                    threshold = threshold.max(bound(index, schema));
                    self.zero += count;
                }
            }
        }
        self.zero_threshold = threshold;
        threshold
    }

    fn add(&mut self, other: Self) {
        self.zero += other.zero;
        self.count += other.count;
        self.sum += other.sum;
        self.is_float |= other.is_float;
        for (side, added) in self.sides.iter_mut().zip(other.sides) {
            added.into_iter().for_each(|(index, count)| *side.entry(index).or_insert(0.0) += count);
        }
        self.classic.retain_mut(|bucket| {
            let same = other.classic.iter().find(|other| other.upper_bound == bucket.upper_bound);
            if let Some(same) = same {
                let count = classic_count(bucket) + classic_count(same);
                let is_float = bucket.cumulative_count_float.is_some() || same.cumulative_count_float.is_some();
                bucket.cumulative_count = (!is_float).then_some(count as u64);
                bucket.cumulative_count_float = is_float.then_some(count);
            }
            same.is_some()
        });
    }

    fn message(self) -> Vec<u8> {
        let integer = |number: f64| (!self.is_float).then_some(number as u64);
        let float = |number: f64| self.is_float.then_some(number);
        let mut histogram = Histogram {
            sample_count: integer(self.count),
            sample_count_float: float(self.count),
            sample_sum: Some(self.sum),
            schema: Some(self.schema),
            zero_threshold: Some(self.zero_threshold),
            zero_count: integer(self.zero),
            zero_count_float: float(self.zero),
            bucket: self.classic,
            ..Histogram::default()
        };
        let [positive, negative] = &self.sides;
        (histogram.positive_span, histogram.positive_delta, histogram.positive_count) = listed(positive, self.is_float);
        (histogram.negative_span, histogram.negative_delta, histogram.negative_count) = listed(negative, self.is_float);
        if !histogram.is_native() {
            // An empty span tells that the histogram is native, as client libraries do.
            histogram.positive_span.push(BucketSpan { offset: Some(0), length: Some(0) });
        }
        Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec()
    }
}

fn classic_count(bucket: &Bucket) -> f64 {
    bucket.cumulative_count_float.unwrap_or_else(|| bucket.cumulative_count.unwrap_or(0) as f64)
}

fn sums(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0_i64;
    let counts = deltas.iter().map(|delta| {
        count = count.wrapping_add(*delta);
        count as f64
    });
    counts.collect()
}

/// The counts by the index of their bucket.
fn indexed(spans: &[BucketSpan], counts: Vec<f64>) -> BTreeMap<i64, f64> {
    let (mut index, mut counts, mut buckets) = (0_i64, counts.into_iter(), BTreeMap::new());
    for span in spans {
        index += i64::from(span.offset.unwrap_or(0));
        for _ in 0..span.length.unwrap_or(0) {
            let Some(count) = counts.next() else { return buckets };
            if count != 0.0 {
                buckets.insert(index, count);
            }
            index += 1;
        }
    }
    buckets
}

/// The buckets as spans, with differences or float counts.
fn listed(buckets: &BTreeMap<i64, f64>, is_float: bool) -> (Vec<BucketSpan>, Vec<i64>, Vec<f64>) {
    let (mut spans, mut deltas, mut floats): (Vec<BucketSpan>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    let (mut next, mut before) = (0_i64, 0_i64);
    for (index, count) in buckets {
        match spans.last_mut().filter(|_| *index == next) {
            Some(span) => span.length = span.length.map(|length| length + 1),
            None => spans.push(BucketSpan { offset: Some((index - next) as i32), length: Some(1) }),
        }
        next = index + 1;
        if is_float {
            floats.push(*count);
        } else {
            deltas.push(*count as i64 - before);
            before = *count as i64;
        }
    }
    (spans, deltas, floats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::native::Native;

    fn native(schema: i32, threshold: f64, zero: u64, spans: &[(i32, u32)], deltas: &[i64]) -> Vec<u8> {
        let counts = sums(deltas);
        let histogram = Histogram {
            sample_count: Some(zero + counts.iter().sum::<f64>() as u64),
            sample_sum: Some(1.5),
            schema: Some(schema),
            zero_threshold: Some(threshold),
            zero_count: Some(zero),
            positive_span: spans
                .iter()
                .map(|(offset, length)| BucketSpan { offset: Some(*offset), length: Some(*length) })
                .collect(),
            positive_delta: deltas.to_vec(),
            ..Histogram::default()
        };
        Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec()
    }

    fn shown(raw_metric: &[u8]) -> (String, Vec<(f64, f64, f64)>) {
        let histogram = Metric::decode(raw_metric).unwrap().histogram.unwrap();
        let native = Native::of(&histogram).unwrap();
        let buckets = native.buckets.iter().map(|bucket| (bucket.lower, bucket.upper, bucket.count.value()));
        (format!("{} {}", native.count, native.sum), buckets.collect())
    }

    #[test]
    fn the_coarser_schema_and_the_wider_zero_bucket_win() {
        // Buckets (0.5, 1] and (2, 4] of schema 0, and four of schema 1 from 1 on: (1, √2], (√2, 2], (2, 2√2], …
        let coarse = native(0, 0.001, 1, &[(0, 1), (1, 1)], &[2, 1]);
        let fine = native(1, 0.01, 2, &[(1, 4)], &[1, 0, 0, 0]);
        let expected = ("12 3".to_owned(), vec![(-0.01, 0.01, 3.0), (0.5, 1.0, 2.0), (1.0, 2.0, 2.0), (2.0, 4.0, 5.0)]);
        assert_eq!(shown(&add_native(&coarse, &fine).unwrap()), expected);
        assert_eq!(shown(&add_native(&fine, &coarse).unwrap()), expected);
        let wide = native(0, 0.75, 4, &[], &[]);
        let expected = ("8 3".to_owned(), vec![(-1.0, 1.0, 7.0), (2.0, 4.0, 1.0)]);
        let narrow = native(0, 0.001, 1, &[(0, 1), (1, 1)], &[2, -1]);
        assert_eq!(shown(&add_native(&wide, &narrow).unwrap()), expected);
        assert_eq!(shown(&add_native(&narrow, &wide).unwrap()), expected);
    }

    #[test]
    fn others_are_refused() {
        let good = native(0, 0.0, 0, &[(0, 1)], &[1]);
        let custom = native(-53, 0.0, 0, &[(0, 1)], &[1]);
        assert!(add_native(&good, &custom).unwrap_err().contains("schema -53"));
        assert!(add_native(&good, b"\xff").is_err() && add_native(b"", &good).is_err());
        assert_eq!(plain_native(b""), None);
        assert_eq!(plain_native(&good).as_deref(), Some(&good[..]));
    }

    #[test]
    fn a_sum_has_its_start() {
        let raw_metric = date_sum(MetricType::Counter, &ValueLayout::Single, &[7.0], b"", 1_500_000_000);
        let counter = Metric::decode(&*raw_metric).unwrap().counter.unwrap();
        assert_eq!(counter.created_timestamp, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(counter.value, Some(7.0));
    }
}
