//! The buckets of native histograms as the query API lists them.
//!
//! The index of a bucket counts from the one whose upper bound is 1; bounds grow by 2^(2^-schema) from one to the next. A
//! span is a run of buckets, its offset counted from the end of the span before. A bucket is listed, unless it is empty,
//! as `[boundaries, lower, upper, count]`, from the lowest up, where `boundaries` says which bounds are in it: 0 the upper,
//! 1 the lower, 3 both.

use serde_json::{Value, json};

use super::text;
use crate::exposition::protobuf::message::{BucketSpan, Histogram};

const UPPER_INCLUSIVE: u64 = 0;
const LOWER_INCLUSIVE: u64 = 1;
const BOTH_INCLUSIVE: u64 = 3;

/// Count and buckets, if the histogram is native. Buckets that spans promise and nothing counts are left out, where the
/// original drops the connection.
pub(super) fn count_and_buckets(histogram: &Histogram) -> Option<(String, Value)> {
    if !histogram.is_native() {
        return None;
    }
    let count_float = histogram.sample_count_float.unwrap_or(0.0);
    let zero_float = histogram.zero_count_float.unwrap_or(0.0);
    let is_float = count_float > 0.0 || zero_float > 0.0;
    let (count, zero, negative, positive) = if is_float {
        let counts = |counts: &[f64]| counts.iter().map(|count| Some(text(*count)).filter(|_| *count != 0.0)).collect();
        let zero = Some(text(zero_float)).filter(|_| zero_float != 0.0);
        (text(count_float), zero, counts(&histogram.negative_count), counts(&histogram.positive_count))
    } else {
        let zero = histogram.zero_count.filter(|zero| *zero != 0).map(|zero| zero.to_string());
        let count = histogram.sample_count.unwrap_or(0).to_string();
        (count, zero, sums(&histogram.negative_delta), sums(&histogram.positive_delta))
    };
    let schema = histogram.schema.unwrap_or(0);
    let negative = buckets(&histogram.negative_span, negative, schema);
    let positive = buckets(&histogram.positive_span, positive, schema);
    let threshold = histogram.zero_threshold.unwrap_or(0.0);
    let mut listed = Vec::new();
    for (lower, upper, count) in negative.into_iter().rev() {
        listed.push(json!([LOWER_INCLUSIVE, text(-upper), text(-lower), count]));
    }
    if let Some(count) = zero {
        listed.push(json!([BOTH_INCLUSIVE, text(-threshold), text(threshold), count]));
    }
    for (lower, upper, count) in positive {
        listed.push(json!([UPPER_INCLUSIVE, text(lower), text(upper), count]));
    }
    Some((count, Value::Array(listed)))
}

/// Counts from each one's difference to the one before; `None` for zero.
fn sums(deltas: &[i64]) -> Vec<Option<String>> {
    let mut count = 0_i64;
    let counts = deltas.iter().map(|delta| {
        count = count.wrapping_add(*delta);
        Some(count as u64).filter(|count| *count != 0).map(|count| count.to_string())
    });
    counts.collect()
}

/// Lower and upper bound and count of each bucket that is not empty.
fn buckets(spans: &[BucketSpan], counts: Vec<Option<String>>, schema: i32) -> Vec<(f64, f64, String)> {
    let mut buckets = Vec::new();
    let mut counts = counts.into_iter();
    let mut index = 0_i64;
    for span in spans {
        index += i64::from(span.offset.unwrap_or(0));
        for _ in 0..span.length.unwrap_or(0) {
            let Some(count) = counts.next() else { return buckets };
            if let Some(count) = count {
                buckets.push((bound(index - 1, schema), bound(index, schema), count));
            }
            index += 1;
        }
    }
    buckets
}

/// Prometheus keeps 2^(i/256) in a table that is not rounded as well as it could be, and the original shows numbers out of
/// it. This is how many units in the last place each is below the right one, plus one.
const BELOW_PLUS_ONE: &[u8; 256] = b"\
    1111112111211111112311222222222211211121122211221122102211221122\
    1111112222332132112111211112111111121011213311221222112121332222\
    2121223322322122222222323233323311221121223321332233212232332232\
    2243223233433343333333444455435422322333324422333243223333543344";

/// 2^(i/256) as the original has it.
fn root(i: usize) -> f64 {
    let exact = (i as f64 / 256.0).exp2();
    f64::from_bits(exact.to_bits() + 1 - u64::from(BELOW_PLUS_ONE[i] - b'0'))
}

/// The upper bound of a bucket: 2^(index / 2^schema). The last finite one ends at the largest `f64`.
fn bound(index: i64, schema: i32) -> f64 {
    const SCHEMA_MIN: i32 = -4;
    const SCHEMA_MAX: i32 = 8;
    let schema = schema.clamp(SCHEMA_MIN, SCHEMA_MAX);
    let (whole, fraction) = if schema < 0 {
        (index.saturating_mul(1 << -schema), 0)
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
        assert_eq!([bound(1, -1), bound(1, 1), bound(-1, 1)], [4.0, 1.414213562373095, 0.7071067811865475]);
        assert_eq!([bound(1024, 0), bound(1025, 0), bound(i64::MAX, -4)], [f64::MAX, f64::INFINITY, f64::INFINITY]);
        assert_eq!([bound(-1074, 0), bound(-1080, 0)], [5e-324, 0.0]);
    }

    /// An answer recorded from Pushgateway 1.11.2.
    #[test]
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
        let expected = json!([
            [1, "-1.414213562373095", "-1", "1"],
            [1, "-1", "-0.7071067811865475", "1"],
            [3, "-0.001", "0.001", "2"],
            [0, "0.7071067811865475", "1", "1"],
            [0, "1", "1.414213562373095", "2"],
            [0, "2", "2.82842712474619", "1"],
        ]);
        assert_eq!(count_and_buckets(&histogram), Some(("7".to_owned(), expected)));
        assert_eq!(count_and_buckets(&Histogram::default()), None);
    }

    #[test]
    fn spans_that_promise_too_much_end_with_the_counts() {
        let span = BucketSpan { offset: Some(i32::MAX), length: Some(u32::MAX) };
        let histogram = Histogram { positive_span: vec![span; 3], positive_delta: vec![1], ..Histogram::default() };
        assert_eq!(count_and_buckets(&histogram).unwrap().1.as_array().unwrap().len(), 1);
    }
}
