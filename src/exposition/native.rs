//! Native histograms as lists of buckets, for the query API and the pages.
//!
//! Bucket 0 has the upper bound 1; each bound is 2^(2^-schema) times the bound before. A span is a run of buckets; its
//! offset counts from the end of the span before. Empty buckets are left out; the others are sorted, lowest first.

use std::fmt;

use super::number;
use super::protobuf::message::{BucketSpan, Histogram};

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// The number of observations.
    pub count: Count,
    /// Their sum.
    pub sum: f64,
    /// The buckets that are not empty, lowest first.
    pub buckets: Vec<NativeBucket>,
}

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NativeBucket {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// The bounds that belong to the bucket.
    pub inclusive: Inclusive,
    /// The number of observations.
    pub count: Count,
}

/// The bounds that belong to a bucket. The numbers are those of the query API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inclusive {
    /// The upper one.
    Upper = 0,
    /// The lower one.
    Lower = 1,
    /// None. (A bound of 0 belongs only to the zero bucket.)
    Neither = 2,
    /// Both.
    Both = 3,
}

/// A number of observations, which is not whole in float histograms. Displayed as Go's `fmt.Sprint` prints it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// The count of an integer histogram.
    Integer(u64),
    /// The count of a float histogram.
    Float(f64),
}

impl Count {
    /// The count as a float, to compare with others.
    pub fn value(self) -> f64 {
        match self {
            Self::Integer(count) => count as f64,
            Self::Float(count) => count,
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Integer(0)) || self == Self::Float(0.0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(count) => count.fmt(f),
            Self::Float(count) => {
                let mut text = Vec::new();
                number::print_signed_zero(*count, &mut text);
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }
    }
}

impl Native {
    /// The buckets of a native histogram; `None` if the histogram is not native. Buckets of a span that have no count
    /// are left out; Pushgateway drops the connection for them.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        if !histogram.is_native() {
            return None;
        }
        let count_float = histogram.sample_count_float.unwrap_or(0.0);
        let zero_float = histogram.zero_count_float.unwrap_or(0.0);
        let is_float = count_float > 0.0 || zero_float > 0.0;
        let (count, zero, negative, positive) = if is_float {
            let floats = |counts: &[f64]| counts.iter().copied().map(Count::Float).collect();
            let (negative, positive) = (floats(&histogram.negative_count), floats(&histogram.positive_count));
            (Count::Float(count_float), Count::Float(zero_float), negative, positive)
        } else {
            let (negative, positive) = (sums(&histogram.negative_delta), sums(&histogram.positive_delta));
            let count = Count::Integer(histogram.sample_count.unwrap_or(0));
            (count, Count::Integer(histogram.zero_count.unwrap_or(0)), negative, positive)
        };
        let schema = histogram.schema.unwrap_or(0);
        let mut buckets = spread(&histogram.negative_span, negative, schema);
        buckets.reverse();
        for bucket in &mut buckets {
            (bucket.lower, bucket.upper) = (-bucket.upper, -bucket.lower);
            bucket.inclusive = if bucket.lower < 0.0 { Inclusive::Lower } else { Inclusive::Neither };
        }
        let threshold = histogram.zero_threshold.unwrap_or(0.0);
        if !zero.is_zero() {
            let (lower, upper) = (-threshold, threshold);
            buckets.push(NativeBucket { lower, upper, inclusive: Inclusive::Both, count: zero });
        }
        buckets.extend(spread(&histogram.positive_span, positive, schema));
        Some(Self { count, sum: histogram.sample_sum.unwrap_or(0.0), buckets })
    }
}

/// Counts from deltas: each delta is the difference to the count before.
fn sums(deltas: &[i64]) -> Vec<Count> {
    let mut count = 0_i64;
    let counts = deltas.iter().map(|delta| {
        count = count.wrapping_add(*delta);
        Count::Integer(count as u64)
    });
    counts.collect()
}

/// The buckets of positive spans that are not empty.
fn spread(spans: &[BucketSpan], counts: Vec<Count>, schema: i32) -> Vec<NativeBucket> {
    let mut buckets = Vec::new();
    let mut counts = counts.into_iter();
    let mut index = 0_i64;
    for span in spans {
        index += i64::from(span.offset.unwrap_or(0));
        for _ in 0..span.length.unwrap_or(0) {
            let Some(count) = counts.next() else { return buckets };
            if !count.is_zero() {
                let (lower, upper) = (bound(index - 1, schema), bound(index, schema));
                let inclusive = if upper > 0.0 { Inclusive::Upper } else { Inclusive::Neither };
                buckets.push(NativeBucket { lower, upper, inclusive, count });
            }
            index += 1;
        }
    }
    buckets
}

/// Pushgateway takes 2^(i/256) from a table of Prometheus that is not rounded correctly. For each entry: the units in
/// the last place by which it is below the correctly rounded number, plus one.
const BELOW_PLUS_ONE: &[u8; 256] = b"\
    1111112111211111112311222222222211211121122211221122102211221122\
    1111112222332132112111211112111111121011213311221222112121332222\
    2121223322322122222222323233323311221121223321332233212232332232\
    2243223233433343333333444455435422322333324422333243223333543344";

/// 2^(i/256) as in Pushgateway's table.
fn root(i: usize) -> f64 {
    let exact = (i as f64 / 256.0).exp2();
    f64::from_bits(exact.to_bits() + 1 - u64::from(BELOW_PLUS_ONE[i] - b'0'))
}

/// The upper bound of a bucket: 2^(index / 2^schema). The last finite one ends at the largest `f64`. Schemas below -4
/// do not exist, but Pushgateway computes with them and loses the bits that are shifted out.
pub(super) fn bound(index: i64, schema: i32) -> f64 {
    const SCHEMA_MAX: i32 = 8;
    let schema = schema.min(SCHEMA_MAX);
    let (whole, fraction) = if schema < 0 {
        (index.checked_shl(schema.unsigned_abs()).unwrap_or(0), 0)
    } else {
        let parts = 1_i64 << schema;
        (index.div_euclid(parts), index.rem_euclid(parts) as usize * (256 >> schema))
    };
    match whole {
        1024 if fraction == 0 => f64::MAX,
        // In two steps, since the power alone may be too large or too small.
        whole => {
            let half = whole.clamp(-2_200, 2_200) as i32 / 2;
            let rest = whole.clamp(-2_200, 2_200) as i32 - half;
            root(fraction) * 2_f64.powi(half) * 2_f64.powi(rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_the_schema() {
        assert_eq!([bound(0, 0), bound(3, 0), bound(-2, 0)], [1.0, 8.0, 0.25]);
        assert_eq!([bound(1, -1), bound(1, 1), bound(-1, 1)], [4.0, 2.82842712474619 / 2.0, 0.7071067811865475]);
        assert_eq!([bound(1024, 0), bound(1025, 0), bound(1 << 40, -4)], [f64::MAX, f64::INFINITY, f64::INFINITY]);
        assert_eq!([bound(2, -5), bound(-1, -53), bound(0, -53), bound(7, -64)], [2_f64.powi(64), 0.0, 1.0, 1.0]);
        assert_eq!([bound(-1074, 0), bound(-1080, 0)], [5e-324, 0.0]);
    }

    #[test]
    #[allow(clippy::approx_constant, reason = "Pushgateway's root of 2 is one unit below the right one")]
    fn buckets_are_listed_from_the_lowest_up() {
        let span = |offset, length| BucketSpan { offset: Some(offset), length: Some(length) };
        let histogram = Histogram {
            sample_count: Some(7),
            schema: Some(1),
            zero_threshold: Some(0.001),
            zero_count: Some(2),
            positive_span: vec![span(0, 2), span(1, 1)],
            positive_delta: vec![1, 1, -1],
            negative_span: vec![span(0, 2)],
            negative_delta: vec![1, 0],
            ..Histogram::default()
        };
        let native = Native::of(&histogram).unwrap();
        let listed = native.buckets.iter().map(|b| (b.inclusive as i32, b.lower, b.upper, b.count.value() as i32));
        let expected = [
            (1, -1.414213562373095, -1.0, 1),
            (1, -1.0, -0.7071067811865475, 1),
            (3, -0.001, 0.001, 2),
            (0, 0.7071067811865475, 1.0, 1),
            (0, 1.0, 1.414213562373095, 2),
            (0, 2.0, 2.82842712474619, 1),
        ];
        assert_eq!(listed.collect::<Vec<_>>(), expected);
        assert_eq!(native.count, Count::Integer(7));
        assert_eq!(Native::of(&Histogram::default()), None);
    }

    #[test]
    fn float_histograms_have_float_counts() {
        let span = BucketSpan { offset: Some(1), length: Some(2) };
        let histogram = Histogram {
            sample_count_float: Some(2.5),
            positive_span: vec![span],
            positive_count: vec![0.0, 2.5],
            ..Histogram::default()
        };
        let native = Native::of(&histogram).unwrap();
        assert_eq!((native.count.to_string(), native.buckets.len()), ("2.5".to_owned(), 1));
        assert_eq!((native.buckets[0].lower, native.buckets[0].upper), (2.0, 4.0));
    }

    #[test]
    fn spans_longer_than_the_counts_end_with_the_counts() {
        let span = BucketSpan { offset: Some(i32::MAX), length: Some(u32::MAX) };
        let histogram = Histogram { positive_span: vec![span; 3], positive_delta: vec![1], ..Histogram::default() };
        assert_eq!(Native::of(&histogram).unwrap().buckets.len(), 1);
    }
}
