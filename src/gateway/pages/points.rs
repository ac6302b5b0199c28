//! The value of a series as a page shows it: a number, or a distribution as ranges with their counts and bars.

use crate::exposition::detail::Detail;
use crate::exposition::native::{Count, Inclusive, Native};
use crate::exposition::number;
use crate::model::{LabelSet, ValueLayout};

use super::when;

/// The maximum number of buckets of one series on a page; of the others, the page shows the count.
const ROWS_SHOWN_MAX: usize = 400;
/// The part of a count that may be missing from the sum of its rows because floats are rounded.
const ROUNDING_MAX: f64 = 1e-12;
/// The bound of the row for observations that no bucket has.
const IN_NO_RANGE: &str = "in no range";

/// The value of one series.
#[derive(Debug)]
pub(super) enum PointsView {
    Value(String),
    Distribution(DistributionView),
}

/// The HTML bytes of a row of a distribution, of a label, and of a note, without their texts.
const ROW_BYTES: usize = 192;
const LABEL_BYTES: usize = 64;
const NOTE_BYTES: usize = 96;

/// The approximate bytes of a label on a page.
pub(super) fn label_bytes(name: &str, value: &str) -> usize {
    LABEL_BYTES + name.len() + value.len()
}

impl PointsView {
    /// Bytes of it on a page, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            Self::Distribution(shown) => {
                shown.rows.iter().map(|row| ROW_BYTES + row.bound.len() + row.value.len()).sum()
            }
        }
    }
}

impl Extras {
    /// Bytes of it on a page, about.
    pub fn bytes(&self) -> usize {
        let labels = self.exemplars.iter().flat_map(|(labels, _)| labels);
        let labels: usize = labels.map(|label| label_bytes(label.name, label.value)).sum();
        let notes = self.exemplars.iter().map(|(_, value)| value).chain(&self.created);
        labels + notes.map(|note| NOTE_BYTES + note.len()).sum::<usize>()
    }
}

/// The value of a summary or histogram.
#[derive(Debug, Default)]
pub(super) struct DistributionView {
    /// The heading of its rows: `Quantile` or `Range`.
    pub heading: &'static str,
    pub rows: Vec<DistributionRow>,
    /// The number of rows that are not on the page.
    pub more: usize,
    /// Their counts together; empty if all are on the page, and for quantiles.
    pub more_count: String,
    pub sum: String,
    pub count: String,
}

/// A quantile, or a bucket.
#[derive(Debug)]
pub(super) struct DistributionRow {
    pub bound: String,
    pub value: String,
    /// The bucket's count in per cent of the fullest bucket's.
    pub percent: Option<String>,
}

/// The parts of a series that the text format cannot express.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// The exemplars.
    pub exemplars: Vec<(LabelSet, String)>,
    /// The created timestamp, as HTML.
    pub created: Option<String>,
}

/// The view of a series with these values. `raw_metric` is empty if the values express the whole series.
pub(super) fn view(points: &ValueLayout, values: &[f64], raw_metric: &[u8]) -> (PointsView, Extras) {
    if raw_metric.is_empty() {
        return (of_values(points, values), Extras::default());
    }
    let detail = Detail::of(raw_metric);
    let exemplars = detail.exemplars.into_iter().map(|(labels, value)| (labels, printed(value))).collect();
    let extras = Extras { exemplars, created: detail.created_ns.map(|ns| when::at(Some(ns))) };
    let view = match detail.native {
        Some(native) => PointsView::Distribution(of_native(&native)),
        None => of_values(points, values),
    };
    (view, extras)
}

fn of_values(points: &ValueLayout, values: &[f64]) -> PointsView {
    let (bounds, is_summary) = match points {
        ValueLayout::Single => return PointsView::Value(printed(values.first().copied().unwrap_or_default())),
        ValueLayout::Summary { quantiles, .. } => (quantiles, true),
        ValueLayout::Histogram { bounds, .. } => (bounds, false),
    };
    let [cumulated @ .., sum, count] = values else { return PointsView::Value(String::new()) };
    let (sum, count, total) = (printed(*sum), printed(*count), *count);
    let pairs = bounds.iter().map(|bound| bound.0).zip(cumulated.iter().copied());
    let distribution = if is_summary {
        let rows = pairs.map(|(quantile, value)| DistributionRow {
            bound: printed(quantile),
            value: printed(value),
            percent: None,
        });
        let rows = rows.take(ROWS_SHOWN_MAX).collect();
        DistributionView {
            heading: "Quantile",
            rows,
            more: bounds.len().saturating_sub(ROWS_SHOWN_MAX),
            ..DistributionView::default()
        }
    } else {
        classic(pairs.collect(), total)
    };
    PointsView::Distribution(DistributionView { sum, count, ..distribution })
}

/// The ranges of a classic histogram with these cumulated buckets and that count.
///
/// A pusher may leave out the bucket `+Inf`, which scrapes get from the count: the last range has the rest of the
/// count. Bounds are shown in their order, in which the client may not have sent them.
fn classic(mut buckets: Vec<(f64, f64)>, count: f64) -> DistributionView {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    if buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
        buckets.push((f64::INFINITY, count));
    }
    let mut below = (f64::NEG_INFINITY, 0.0);
    let buckets = buckets.into_iter().map(|(bound, cumulated)| {
        let count = Count::Float(cumulated - below.1);
        let bucket = CountedRange { open: '(', lower: below.0, upper: bound, close: ']', count };
        below = (bound, cumulated);
        bucket
    });
    ranges(&buckets.collect::<Vec<_>>(), count)
}

fn of_native(native: &Native) -> DistributionView {
    let buckets = native.buckets.iter().map(|bucket| {
        let (open, close) = match bucket.inclusive {
            Inclusive::Upper => ('(', ']'),
            Inclusive::Lower => ('[', ')'),
            Inclusive::Neither => ('(', ')'),
            Inclusive::Both => ('[', ']'),
        };
        CountedRange { open, lower: bucket.lower, upper: bucket.upper, close, count: bucket.count }
    });
    let ranges = ranges(&buckets.collect::<Vec<_>>(), native.count.value());
    DistributionView { sum: printed(native.sum), count: native.count.to_string(), ..ranges }
}

/// The count between two bounds.
struct CountedRange {
    open: char,
    lower: f64,
    upper: f64,
    close: char,
    count: Count,
}

/// The ranges with their counts and bars, up to [`ROWS_SHOWN_MAX`]. All rows add up to `count`: observations that are in
/// no bucket (NaN in a native histogram), and counts that contradict each other, make a last row of their own.
fn ranges(buckets: &[CountedRange], count: f64) -> DistributionView {
    let weight = |count: f64| if count.is_finite() { count.max(0.0) } else { 0.0 };
    let fullest = buckets.iter().map(|bucket| weight(bucket.count.value())).fold(0.0, f64::max);
    let percent = |count: f64| (fullest > 0.0).then(|| format!("{:.1}", weight(count) / fullest * 100.0));
    let rows = buckets.iter().take(ROWS_SHOWN_MAX).map(|bucket| DistributionRow {
        bound: range(bucket.open, bucket.lower, bucket.upper, bucket.close),
        value: bucket.count.to_string(),
        percent: percent(bucket.count.value()),
    });
    let mut rows: Vec<_> = rows.collect();
    let total = |buckets: &[CountedRange]| buckets.iter().map(|bucket| bucket.count.value()).sum::<f64>();
    let (more, beyond) = (buckets.len() - rows.len(), total(&buckets[rows.len()..]));
    let rest = count - total(buckets);
    // Counts of float histograms are rounded.
    if rest.abs() > count.abs() * ROUNDING_MAX {
        rows.push(DistributionRow { bound: IN_NO_RANGE.to_owned(), value: printed(rest), percent: None });
    }
    let more_count = if more > 0 { printed(beyond) } else { String::new() };
    DistributionView { heading: "Range", rows, more, more_count, ..DistributionView::default() }
}

/// A range in mathematical notation. An infinite bound is never included.
fn range(open: char, lower: f64, upper: f64, close: char) -> String {
    let close = if upper == f64::INFINITY { ')' } else { close };
    format!("{open}{}, {}{close}", bound(lower), bound(upper))
}

fn bound(value: f64) -> String {
    match value {
        f64::INFINITY => "∞".to_owned(),
        f64::NEG_INFINITY => "−∞".to_owned(),
        value if value != 0.0 && value.is_finite() => {
            // Bounds of native buckets have many digits: six are shown.
            let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
            printed(rounded)
        }
        value => printed(value),
    }
}

fn printed(value: f64) -> String {
    let mut text = Vec::new();
    number::print(value, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exposition::native::NativeBucket;
    use crate::model::Num;

    fn rows(distribution: &DistributionView) -> Vec<(&str, &str, &str)> {
        let rows = distribution.rows.iter();
        rows.map(|row| (&*row.bound, &*row.value, row.percent.as_deref().unwrap_or("-"))).collect()
    }

    #[test]
    fn histograms_are_ranges_with_counts_and_bars() {
        let bounds = [0.1, 1.0, f64::INFINITY].map(Num).into();
        let points = ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let (PointsView::Distribution(shown), _) = view(&points, &[1.0, 3.0, 7.0, 7.5, 7.0], b"") else {
            panic!("no distribution")
        };
        assert_eq!(rows(&shown), [("(−∞, 0.1]", "1", "25.0"), ("(0.1, 1]", "2", "50.0"), ("(1, ∞)", "4", "100.0")]);
        assert_eq!((&*shown.sum, &*shown.count), ("7.5", "7"));
        let nan = [f64::NAN, f64::INFINITY, 7.0, 7.5, 7.0];
        let (PointsView::Distribution(shown), _) = view(&points, &nan, b"") else { panic!("no distribution") };
        assert!(shown.rows.iter().all(|row| row.percent.as_deref().is_none_or(|p| p == "0.0")));
    }

    /// The rows of a classic histogram with these bounds, cumulated counts and count.
    fn classic_rows(buckets: &[(f64, f64)], count: f64) -> Vec<(String, String)> {
        let bounds = buckets.iter().map(|(bound, _)| Num(*bound)).collect();
        let points = ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let values: Vec<f64> = buckets.iter().map(|(_, cumulated)| *cumulated).chain([5.0, count]).collect();
        let (PointsView::Distribution(shown), _) = view(&points, &values, b"") else { panic!("no distribution") };
        shown.rows.into_iter().map(|row| (row.bound, row.value)).collect()
    }

    #[test]
    fn the_last_range_has_the_rest_of_the_count() {
        let row = |bound: &str, value: &str| (bound.to_owned(), value.to_owned());
        // Text and protobuf may leave out the bucket `+Inf`.
        assert_eq!(
            classic_rows(&[(1.0, 1.0), (2.0, 1.0)], 100.0),
            [row("(−∞, 1]", "1"), row("(1, 2]", "0"), row("(2, ∞)", "99")]
        );
        assert_eq!(classic_rows(&[], 7.0), [row("(−∞, ∞)", "7")]);
        assert_eq!(
            classic_rows(&[(2.0, 3.0), (1.0, 1.0)], 3.0),
            [row("(−∞, 1]", "1"), row("(1, 2]", "2"), row("(2, ∞)", "0")]
        );
        // The count contradicts the bucket `+Inf`.
        let contradiction = classic_rows(&[(1.0, 1.0), (f64::INFINITY, 5.0)], 100.0);
        assert_eq!(contradiction, [row("(−∞, 1]", "1"), row("(1, ∞)", "4"), row("in no range", "95")]);
    }

    proptest! {
        #[test]
        fn rows_add_up_to_the_count(
            buckets in prop::collection::vec((prop_oneof![-9..9_i32, Just(i32::MAX)], 0..9_u32), 0..2 * ROWS_SHOWN_MAX),
            count in 0..99_u32,
        ) {
            let bound = |bound| if bound == i32::MAX { f64::INFINITY } else { f64::from(bound) };
            let buckets: Vec<_> = buckets.iter().map(|(at, count)| (bound(*at), f64::from(*count))).collect();
            let shown = classic(buckets, count.into());
            let number = |text: &str| if text.is_empty() { 0.0 } else { text.parse::<f64>().unwrap() };
            let total = shown.rows.iter().map(|row| number(&row.value)).sum::<f64>() + number(&shown.more_count);
            prop_assert_eq!(total, f64::from(count));
        }
    }

    #[test]
    fn observations_without_a_bucket_have_a_row() {
        let one = NativeBucket { lower: 1.0, upper: 2.0, inclusive: Inclusive::Upper, count: Count::Integer(2) };
        let native = |count, buckets| of_native(&Native { count, sum: f64::NAN, buckets });
        let with_nan = native(Count::Integer(5), vec![one]);
        assert_eq!(rows(&with_nan), [("(1, 2]", "2", "100.0"), ("in no range", "3", "-")]);
        let tenth = NativeBucket { count: Count::Float(0.1), ..one };
        assert_eq!(native(Count::Float(0.3), vec![tenth; 3]).rows.len(), 3, "rounding is no rest");
    }

    #[test]
    fn native_buckets_show_which_bounds_they_include() {
        let bucket = |inclusive, lower, upper, count| NativeBucket { lower, upper, inclusive, count };
        let native = Native {
            count: Count::Integer(7),
            sum: -1.5,
            buckets: vec![
                bucket(Inclusive::Lower, -std::f64::consts::SQRT_2, -1.0, Count::Integer(1)),
                bucket(Inclusive::Both, -0.001, 0.001, Count::Integer(4)),
                bucket(Inclusive::Upper, 1.0, f64::INFINITY, Count::Integer(2)),
            ],
        };
        let shown = of_native(&native);
        let expected = [("[-1.41421, -1)", "1", "25.0"), ("[-0.001, 0.001]", "4", "100.0"), ("(1, ∞)", "2", "50.0")];
        assert_eq!(rows(&shown), expected);
        assert_eq!((&*shown.sum, &*shown.count, shown.heading), ("-1.5", "7", "Range"));
    }

    #[test]
    fn more_buckets_than_fit_are_counted() {
        let bounds: Vec<Num> = (0..ROWS_SHOWN_MAX + 5).map(|bound| Num(bound as f64)).collect();
        let values = vec![1.0; bounds.len() + 2];
        let histogram =
            ValueLayout::Histogram { bounds: bounds.clone().into(), has_sum: true, has_count: true, float: false };
        let summary = ValueLayout::Summary { quantiles: bounds.into(), has_sum: true, has_count: true };
        // The histogram has one range more, up to infinity.
        for (points, more, count) in [(histogram, 6, "0"), (summary, 5, "")] {
            let (PointsView::Distribution(shown), _) = view(&points, &values, b"") else { panic!("no distribution") };
            assert_eq!((shown.rows.len(), shown.more, &*shown.more_count), (ROWS_SHOWN_MAX, more, count));
        }
    }
}
