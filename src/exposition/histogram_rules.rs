//! The rules that a native histogram has to keep, so that a receiver can take it.
//!
//! They are those by which Prometheus checks a native histogram before it stores it (`Validate` in `model/histogram`).
//! Prometheus drops a whole scrape for one histogram that breaks a rule, and some receivers end. Infinite and NaN
//! observations, empty histograms and float histograms break none.

use prost::Message;

use super::protobuf::message::{BucketSpan, Histogram, Metric};

/// The schemas of exponential buckets.
const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;
/// The schema of buckets with custom bounds. The format of a scrape has no field for the bounds, so there are none.
const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A rule that a native histogram breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramFault {
    /// The schema does not exist.
    #[error("its schema is {0}, which is neither one of -4 to 8 nor -53")]
    Schema(i32),
    /// A span begins before the end of the span before it.
    #[error("its {side} span {number} has the negative offset {offset}")]
    SpanOffset {
        /// The side.
        side: Side,
        /// The number of the span, from 1.
        number: usize,
        /// Its offset.
        offset: i32,
    },
    /// The spans and the list of buckets have different lengths.
    #[error("its {side} spans have {spans} buckets, but it has {buckets}")]
    BucketNumber {
        /// The side.
        side: Side,
        /// The buckets that the spans have.
        spans: u64,
        /// The buckets listed.
        buckets: usize,
    },
    /// A bucket has a negative count.
    #[error("its {side} bucket {number} has a negative count")]
    NegativeBucket {
        /// The side.
        side: Side,
        /// The number of the bucket, from 1.
        number: usize,
    },
    /// The zero bucket has a negative count.
    #[error("its zero bucket has a negative count")]
    NegativeZeroBucket,
    /// The count is negative.
    #[error("its count is negative")]
    NegativeCount,
    /// The count differs from the sum of the buckets, and the sum of the observations is not NaN.
    #[error("its count is {count}, but its buckets have {buckets} observations")]
    Count {
        /// The count.
        count: u64,
        /// The sum of the buckets' counts.
        buckets: u128,
    },
    /// The sum of the observations is NaN, and the count is less than the sum of the buckets. (A NaN is counted, but is
    /// in no bucket.)
    #[error("its count is {count}, which is less than the {buckets} observations in its buckets")]
    CountTooSmall {
        /// The count.
        count: u64,
        /// The sum of the buckets' counts.
        buckets: u128,
    },
    /// The spans of a histogram with custom bounds reach further than its bounds.
    #[error("its spans reach over {0} buckets with custom bounds, but it has no bounds")]
    CustomBounds(u64),
    /// A histogram with custom bounds has a field that only exponential buckets have.
    #[error("it has custom bounds and {0}, which only exponential buckets have")]
    Exponential(&'static str),
}

/// The sign of the observations in a list of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above zero.
    Positive,
    /// Below zero.
    Negative,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
        })
    }
}

/// The rule that a raw metric ([`crate::model::RawMetrics`]) breaks, as text; `None` if it breaks none, or has no
/// native histogram.
pub fn raw_metric_fault(raw_metric: &[u8]) -> Option<String> {
    let histogram = Metric::decode(raw_metric).ok()?.histogram?;
    check(&histogram).err().map(|fault| fault.to_string())
}

/// Checks a histogram. One that receivers read as a classic histogram breaks no rule.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(histogram: &Histogram) -> Result<(), HistogramFault> {
    let zero_count = histogram.zero_count.unwrap_or(0);
    let (count_float, zero_float) =
        (histogram.sample_count_float.unwrap_or(0.0), histogram.zero_count_float.unwrap_or(0.0));
    let threshold = histogram.zero_threshold.unwrap_or(0.0);
    if !histogram.is_native() && threshold <= 0.0 && zero_count == 0 && zero_float <= 0.0 {
        return Ok(());
    }
    // The rule by which receivers tell float histograms.
    let is_float = count_float > 0.0 || zero_float > 0.0;
    let (positive, negative) = if is_float {
        (histogram.positive_count.len(), histogram.negative_count.len())
    } else {
        (histogram.positive_delta.len(), histogram.negative_delta.len())
    };
    let schema = histogram.schema.unwrap_or(0);
    if schema == CUSTOM_BUCKETS_SCHEMA {
        check_spans(Side::Positive, &histogram.positive_span, positive, true)?;
        let reach = reach(&histogram.positive_span);
        // One bucket, to +Inf, needs no bound.
        if reach > 1 {
            return Err(HistogramFault::CustomBounds(reach));
        }
        let has_zero_bucket = if is_float { zero_float != 0.0 } else { zero_count != 0 };
        let fields = [
            (has_zero_bucket, "a zero bucket"),
            (threshold != 0.0, "a zero threshold"),
            (!histogram.negative_span.is_empty(), "negative spans"),
            (negative != 0, "negative buckets"),
        ];
        if let Some((_, field)) = fields.into_iter().find(|(is_there, _)| *is_there) {
            return Err(HistogramFault::Exponential(field));
        }
    } else if EXPONENTIAL_SCHEMAS.contains(&schema) {
        check_spans(Side::Positive, &histogram.positive_span, positive, false)?;
        check_spans(Side::Negative, &histogram.negative_span, negative, false)?;
    } else {
        return Err(HistogramFault::Schema(schema));
    }
    if is_float {
        check_floats(Side::Negative, &histogram.negative_count)?;
        check_floats(Side::Positive, &histogram.positive_count)?;
        if zero_float < 0.0 {
            return Err(HistogramFault::NegativeZeroBucket);
        }
        return if count_float < 0.0 { Err(HistogramFault::NegativeCount) } else { Ok(()) };
    }
    let negative = sum(Side::Negative, &histogram.negative_delta)?;
    let positive = sum(Side::Positive, &histogram.positive_delta)?;
    let buckets = negative + positive + u128::from(zero_count);
    let count = histogram.sample_count.unwrap_or(0);
    let is_nan = histogram.sample_sum.is_some_and(f64::is_nan);
    match u128::from(count).cmp(&buckets) {
        std::cmp::Ordering::Less if is_nan => Err(HistogramFault::CountTooSmall { count, buckets }),
        std::cmp::Ordering::Less | std::cmp::Ordering::Greater if !is_nan => {
            Err(HistogramFault::Count { count, buckets })
        }
        _ => Ok(()),
    }
}

/// Checks the spans of a side. Only the first span of exponential buckets may have a negative offset.
fn check_spans(side: Side, spans: &[BucketSpan], buckets: usize, is_custom: bool) -> Result<(), HistogramFault> {
    let offsets = spans.iter().map(|span| span.offset.unwrap_or(0)).enumerate();
    if let Some((at, offset)) = offsets.skip(usize::from(!is_custom)).find(|(_, offset)| *offset < 0) {
        return Err(HistogramFault::SpanOffset { side, number: at + 1, offset });
    }
    let lengths = spans.iter().map(|span| u64::from(span.length.unwrap_or(0))).sum();
    if lengths != buckets as u64 {
        return Err(HistogramFault::BucketNumber { side, spans: lengths, buckets });
    }
    Ok(())
}

/// The number of buckets that the spans cover, gaps included. No offset is negative.
fn reach(spans: &[BucketSpan]) -> u64 {
    spans
        .iter()
        .map(|span| u64::from(span.length.unwrap_or(0)) + u64::from(span.offset.unwrap_or(0).unsigned_abs()))
        .sum()
}

fn check_floats(side: Side, counts: &[f64]) -> Result<(), HistogramFault> {
    match counts.iter().position(|count| *count < 0.0) {
        Some(at) => Err(HistogramFault::NegativeBucket { side, number: at + 1 }),
        None => Ok(()),
    }
}

/// The sum of the counts of a side. Each delta is the difference to the count before.
fn sum(side: Side, deltas: &[i64]) -> Result<u128, HistogramFault> {
    let (mut count, mut sum) = (0_i64, 0_u128);
    for (at, delta) in deltas.iter().enumerate() {
        // A count beyond the range is negative in a receiver.
        let next = count.checked_add(*delta).and_then(|count| u64::try_from(count).ok());
        let Some(next) = next else { return Err(HistogramFault::NegativeBucket { side, number: at + 1 }) };
        sum += u128::from(next);
        count = next as i64;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: i32, length: u32) -> BucketSpan {
        BucketSpan { offset: Some(offset), length: Some(length) }
    }

    /// Counts 2 at zero, 1 and 2 below, 1 and 3 above.
    fn integer() -> Histogram {
        Histogram {
            sample_count: Some(9),
            sample_sum: Some(1.5),
            schema: Some(3),
            zero_threshold: Some(0.001),
            zero_count: Some(2),
            positive_span: vec![span(-4, 1), span(2, 1)],
            positive_delta: vec![1, 2],
            negative_span: vec![span(0, 2)],
            negative_delta: vec![1, 1],
            ..Histogram::default()
        }
    }

    fn float() -> Histogram {
        Histogram {
            sample_count_float: Some(3.5),
            zero_count_float: Some(0.5),
            positive_span: vec![span(0, 1)],
            positive_count: vec![1.5],
            negative_span: vec![span(0, 1)],
            negative_count: vec![1.5],
            ..Histogram::default()
        }
    }

    fn custom() -> Histogram {
        Histogram {
            sample_count: Some(2),
            schema: Some(-53),
            positive_span: vec![span(0, 1)],
            positive_delta: vec![2],
            ..Histogram::default()
        }
    }

    #[test]
    fn histograms_that_keep_the_rules_are_accepted() {
        let nan = Histogram { sample_sum: Some(f64::NAN), sample_count: Some(12), ..integer() };
        let infinite = Histogram { sample_sum: Some(f64::INFINITY), ..integer() };
        let empty = Histogram { positive_span: vec![span(0, 0)], ..Histogram::default() };
        let float_nan = Histogram { positive_count: vec![f64::NAN], sample_sum: Some(f64::NAN), ..float() };
        let float_unlike = Histogram { sample_count_float: Some(99.0), ..float() };
        let classic = Histogram { sample_count: Some(7), schema: Some(99), ..Histogram::default() };
        for histogram in [integer(), float(), custom(), nan, infinite, empty, float_nan, float_unlike, classic] {
            assert_eq!(check(&histogram), Ok(()), "{histogram:?}");
        }
        for schema in EXPONENTIAL_SCHEMAS {
            assert_eq!(check(&Histogram { schema: Some(schema), ..integer() }), Ok(()));
        }
    }

    #[test]
    fn each_rule_is_checked() {
        use HistogramFault::*;
        use Side::{Negative, Positive};
        let cases = [
            (Histogram { schema: Some(-5), ..integer() }, Schema(-5)),
            (Histogram { schema: Some(9), ..float() }, Schema(9)),
            (
                Histogram { positive_span: vec![span(0, 1), span(-1, 1)], ..integer() },
                SpanOffset { side: Positive, number: 2, offset: -1 },
            ),
            (
                Histogram { negative_span: vec![span(0, 1), span(-2, 1)], ..integer() },
                SpanOffset { side: Negative, number: 2, offset: -2 },
            ),
            (
                Histogram { positive_span: vec![span(0, u32::MAX); 2], ..integer() },
                BucketNumber { side: Positive, spans: 2 * u64::from(u32::MAX), buckets: 2 },
            ),
            (
                Histogram { negative_span: vec![span(0, 2)], ..float() },
                BucketNumber { side: Negative, spans: 2, buckets: 1 },
            ),
            (Histogram { positive_delta: vec![1, -2], ..integer() }, NegativeBucket { side: Positive, number: 2 }),
            (Histogram { negative_delta: vec![-1, 2], ..integer() }, NegativeBucket { side: Negative, number: 1 }),
            (
                Histogram { positive_delta: vec![1, i64::MAX], ..integer() },
                NegativeBucket { side: Positive, number: 2 },
            ),
            (Histogram { positive_count: vec![-0.5], ..float() }, NegativeBucket { side: Positive, number: 1 }),
            (Histogram { negative_count: vec![-0.5], ..float() }, NegativeBucket { side: Negative, number: 1 }),
            (Histogram { zero_count_float: Some(-0.5), ..float() }, NegativeZeroBucket),
            (Histogram { sample_count_float: Some(-1.0), ..float() }, NegativeCount),
            (Histogram { sample_count: Some(10), ..integer() }, Count { count: 10, buckets: 9 }),
            (Histogram { sample_count: None, ..integer() }, Count { count: 0, buckets: 9 }),
            (Histogram { zero_count: Some(u64::MAX), ..integer() }, Count { count: 9, buckets: (1 << 64) + 6 }),
            (
                Histogram { sample_count: Some(8), sample_sum: Some(f64::NAN), ..integer() },
                CountTooSmall { count: 8, buckets: 9 },
            ),
            // Receivers read a float histogram without observations as an integer histogram without buckets.
            (
                Histogram { sample_count_float: Some(0.0), zero_count_float: None, ..float() },
                BucketNumber { side: Positive, spans: 1, buckets: 0 },
            ),
            (Histogram { positive_span: vec![span(1, 1)], ..custom() }, CustomBounds(2)),
            (
                Histogram { positive_span: vec![span(-1, 1)], ..custom() },
                SpanOffset { side: Positive, number: 1, offset: -1 },
            ),
            (Histogram { zero_count: Some(1), ..custom() }, Exponential("a zero bucket")),
            (Histogram { zero_threshold: Some(0.1), ..custom() }, Exponential("a zero threshold")),
            (Histogram { negative_span: vec![span(0, 0)], ..custom() }, Exponential("negative spans")),
            (Histogram { negative_delta: vec![0], ..custom() }, Exponential("negative buckets")),
        ];
        for (histogram, fault) in cases {
            assert_eq!(check(&histogram), Err(fault), "{histogram:?}");
            let metric = Metric { histogram: Some(Box::new(histogram)), ..Metric::default() };
            assert!(raw_metric_fault(&metric.encode_to_vec()).is_some());
        }
        assert_eq!(raw_metric_fault(b""), None);
    }
}
