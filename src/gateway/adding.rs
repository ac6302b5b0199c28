//! Pushes that add: which pushes do, which increments are taken, and the keys of repeats.
//!
//! A push adds if its path is below `/aggregate`, or if a rule says so for its group. A counter, a count or a bucket can
//! only grow, and a value that is not a finite number can never be counted on from: such increments are refused, so that
//! one bad push does not spoil a sum for ever.

use thiserror::Error;

use super::HttpReply;
use crate::exposition::native_sum::plain_native;
use crate::model::{
    Family, FamilyBuilder, GaugeRule, LabelSet, MetricType, Num, Series, ValueLayout, content_digest, truncated,
};
use crate::selector::Selector;
use crate::store::IdempotencyKey;

/// The header that names a push, so that a repeat is recognized.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The largest count of one push: whole numbers up to it are exact.
const COUNT_MAX: f64 = (1_u64 << 53) as f64;
/// Bytes of its value, at most.
const KEY_BYTES_MAX: usize = 255;

/// `[[aggregate.rule]]`: how groups add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateRule {
    /// The groups, by the labels under which they are shown.
    pub selector: Selector,
    /// How gauges are combined.
    pub gauges: GaugeRule,
    /// Whether pushes to these groups add at every path, not only below `/aggregate`.
    pub every_path: bool,
}

/// How a push to the group adds; `None` if it does not. `is_below` says whether its path is below `/aggregate`. The first
/// rule that matches counts.
pub fn gauges_of(rules: &[AggregateRule], group: &LabelSet, is_below: bool) -> Option<GaugeRule> {
    let rule = rules.iter().find(|rule| rule.selector.matches(|name| group.get(name)));
    match rule {
        Some(rule) => (is_below || rule.every_path).then_some(rule.gauges),
        None => is_below.then_some(GaugeRule::default()),
    }
}

/// The text of an `Idempotency-Key`.
///
/// # Errors
/// The answer 400 if it is empty or too long.
pub fn check_key(value: Option<&[u8]>) -> Result<Option<&[u8]>, HttpReply> {
    match value {
        Some(value) if value.is_empty() || value.len() > KEY_BYTES_MAX => {
            let text = format_args!("the Idempotency-Key has {} bytes: 1 to {KEY_BYTES_MAX} are allowed", value.len());
            Err(HttpReply::error(400, text))
        }
        value => Ok(value),
    }
}

/// The key of a push to the group with the text `key` and a decompressed body of that digest.
pub fn idempotency_key(group: &LabelSet, key: &[u8], body: u128) -> IdempotencyKey {
    IdempotencyKey { key: content_digest(&[group.to_string().as_bytes(), key]), body }
}

/// An increment that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IncrementError {
    /// A value that only grows would fall.
    #[error("metric {:?} {labels}: {part} of {value} is negative: a {type_name} only grows", truncated(.name))]
    Negative {
        /// The metric's name.
        name: String,
        /// The labels of the series.
        labels: String,
        /// The part of the series.
        part: &'static str,
        /// The value.
        value: String,
        /// The metric's type.
        type_name: &'static str,
    },
    /// A count that a sum cannot have exactly.
    #[error(
        "metric {:?} {labels}: {part} of {value} is too large to be added: the bound is 2^53 (a negative count is read as a \
         large one)",
        truncated(.name)
    )]
    TooLarge {
        /// The metric's name.
        name: String,
        /// The labels of the series.
        labels: String,
        /// The part of the series.
        part: &'static str,
        /// The value.
        value: String,
    },
    /// The sum could never be counted on.
    #[error("metric {:?} {labels}: {part} of {value} cannot be added: the sum would stay {value}", truncated(.name))]
    NotFinite {
        /// The metric's name.
        name: String,
        /// The labels of the series.
        labels: String,
        /// The part of the series.
        part: &'static str,
        /// The value.
        value: String,
    },
}

/// The families of a push as increments: checked, without quantiles and exemplars, and with buckets in order that end
/// with `+Inf`.
///
/// # Errors
/// The first value that cannot be added.
pub fn increments(families: Vec<Family>, gauges: GaugeRule) -> Result<Vec<Family>, IncrementError> {
    families.into_iter().map(|family| increment(family, gauges)).collect()
}

fn increment(family: Family, gauges: GaugeRule) -> Result<Family, IncrementError> {
    let schema = family.schema().clone();
    let metric_type = schema.metric_type();
    for series in schema.series() {
        check(&family, &series, gauges)?;
    }
    let is_settled = family.raw_metrics().is_none() && schema.layouts().iter().all(|layout| is_normal(&layout.values));
    if is_settled {
        return Ok(family);
    }
    let mut builder = FamilyBuilder::new(schema.name().clone(), metric_type);
    builder.help(schema.help()).unit(schema.unit());
    for (at, series) in schema.series().enumerate() {
        let labels: Vec<_> = series.labels().collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
        let (layout, values) = normal(&series.layout().values, &family.values()[series.values()]);
        let native = family.raw_metrics().and_then(|raw_metrics| plain_native(&raw_metrics[at]));
        builder.series(&labels, &layout, &values, native.as_deref());
    }
    Ok(builder.finish().expect("the series of a family differ"))
}

/// Checks the values of a series.
fn check(family: &Family, series: &Series<'_>, gauges: GaugeRule) -> Result<(), IncrementError> {
    let metric_type = family.schema().metric_type();
    let values = &family.values()[series.values()];
    let labels =
        || truncated(&LabelSet::new(series.labels().filter(|label| !label.1.is_empty())).to_string()).to_string();
    let finite = |part, value: f64| {
        let not_finite = || IncrementError::NotFinite {
            name: family.name().to_string(),
            labels: labels(),
            part,
            value: value.to_string(),
        };
        if value.is_finite() { Ok(()) } else { Err(not_finite()) }
    };
    let grows = |part, value: f64| {
        finite(part, value)?;
        let negative = || IncrementError::Negative {
            name: family.name().to_string(),
            labels: labels(),
            part,
            value: value.to_string(),
            type_name: metric_type.name(),
        };
        if value < 0.0 { Err(negative()) } else { Ok(()) }
    };
    let counts = |part, value: f64| {
        grows(part, value)?;
        let too_large = || IncrementError::TooLarge {
            name: family.name().to_string(),
            labels: labels(),
            part,
            value: value.to_string(),
        };
        if value > COUNT_MAX { Err(too_large()) } else { Ok(()) }
    };
    match (metric_type, values) {
        (MetricType::Counter, values) => values.iter().try_for_each(|value| grows("a value", *value)),
        (MetricType::Summary, [.., sum, count]) => counts("a count", *count).and_then(|()| finite("a sum", *sum)),
        (MetricType::Histogram, [buckets @ .., sum, count]) => {
            buckets.iter().try_for_each(|bucket| counts("a bucket", *bucket))?;
            counts("a count", *count).and_then(|()| finite("a sum", *sum))
        }
        (MetricType::Gauge | MetricType::Untyped, values) if gauges != GaugeRule::Last => {
            values.iter().try_for_each(|value| finite("a value", *value))
        }
        _ => Ok(()),
    }
}

/// Whether a layout is that of an increment already.
fn is_normal(layout: &ValueLayout) -> bool {
    match layout {
        ValueLayout::Single => true,
        ValueLayout::Summary { quantiles, .. } => quantiles.is_empty(),
        ValueLayout::Histogram { bounds, .. } => {
            let ends = bounds.last().is_none_or(|last| last.0 == f64::INFINITY);
            ends && bounds.is_sorted_by(|a, b| a.0 < b.0)
        }
    }
}

fn normal(layout: &ValueLayout, values: &[f64]) -> (ValueLayout, Vec<f64>) {
    match (layout, values) {
        (ValueLayout::Summary { has_sum, has_count, .. }, [.., sum, count]) => {
            let quantiles = Box::default();
            (ValueLayout::Summary { quantiles, has_sum: *has_sum, has_count: *has_count }, vec![*sum, *count])
        }
        (ValueLayout::Histogram { bounds, has_sum, has_count, float }, [buckets @ .., sum, count])
            if !bounds.is_empty() =>
        {
            let mut pairs: Vec<(f64, f64)> = bounds.iter().map(|bound| bound.0).zip(buckets.iter().copied()).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let infinite = pairs.last().filter(|(bound, _)| *bound == f64::INFINITY).map(|(_, count)| *count);
            let count = if *has_count { *count } else { infinite.unwrap_or(*count) };
            if infinite.is_none() {
                pairs.push((f64::INFINITY, count));
            }
            let layout = ValueLayout::Histogram {
                bounds: pairs.iter().map(|(bound, _)| Num(*bound)).collect(),
                has_sum: *has_sum,
                has_count: *has_count || infinite.is_some(),
                float: *float,
            };
            (layout, pairs.into_iter().map(|(_, count)| count).chain([*sum, count]).collect())
        }
        _ => (layout.clone(), values.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::{NameValidation, PushLimits};
    use crate::gateway::{BodyReader, BodyRules, Headers};

    fn read(text: &str) -> Vec<Family> {
        let (names, limits) = (NameValidation::default(), PushLimits::default());
        let rules = BodyRules { body_bytes_max: 1 << 20, names, limits, openmetrics: false };
        let target = LabelSet::new([("job", "a")]);
        BodyReader::new(rules).read(Headers::default(), text.as_bytes(), &target, None).unwrap()
    }

    fn refusal(text: &str, gauges: GaugeRule) -> String {
        increments(read(text), gauges).unwrap_err().to_string()
    }

    #[test]
    fn what_spoils_a_sum_is_refused() {
        let last = GaugeRule::Last;
        assert_eq!(
            refusal("# TYPE c counter\nc{a=\"b\"} -1\n", last),
            "metric \"c\" {a=\"b\"}: a value of -1 is negative: a counter only grows"
        );
        let nan = "metric \"c\" {}: a value of NaN cannot be added: the sum would stay NaN";
        assert_eq!(refusal("# TYPE c counter\nc NaN\n", last), nan);
        assert!(refusal("# TYPE c counter\nc +Inf\n", last).contains("a value of inf cannot be added"));
        assert!(refusal("# TYPE s summary\ns_sum NaN\ns_count 1\n", last).contains("a sum of NaN"));
        assert!(
            refusal("# TYPE s summary\ns_sum 1\ns_count -1\n", last)
                .contains("a count of 18446744073709552000 is too large")
        );
        for gauges in [GaugeRule::Max, GaugeRule::Min, GaugeRule::Sum] {
            assert!(refusal("g NaN\n", gauges).contains("a value of NaN"));
        }
        assert!(increments(read("g NaN\n# TYPE s summary\ns_sum -1\ns_count 1\n"), last).is_ok());
    }

    #[test]
    fn quantiles_are_dropped_and_buckets_end_with_infinity() {
        let summary =
            increments(read("# TYPE s summary\ns{quantile=\"0.5\"} 3\ns_sum 7\ns_count 2\n"), GaugeRule::Last);
        assert_eq!(summary.unwrap()[0].values()[..], [7.0, 2.0]);
        let text = "# TYPE h histogram\nh_bucket{le=\"2\"} 3\nh_bucket{le=\"1\"} 1\nh_sum 9\nh_count 4\n";
        let family = increments(read(text), GaugeRule::Last).unwrap().remove(0);
        assert_eq!(family.values()[..], [1.0, 3.0, 4.0, 9.0, 4.0]);
        let again = increments(vec![family.clone()], GaugeRule::Last).unwrap().remove(0);
        assert!(std::sync::Arc::ptr_eq(again.schema(), family.schema()), "an increment stays as it is");
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rule =
            |text, gauges, every_path| AggregateRule { selector: Selector::parse(text).unwrap(), gauges, every_path };
        let rules = [rule("{job=\"a\"}", GaugeRule::Max, false), rule("{job=~\"a|b\"}", GaugeRule::Sum, true)];
        let of = |job: &str, is_below| gauges_of(&rules, &LabelSet::new([("job", job)]), is_below);
        assert_eq!([of("a", true), of("a", false)], [Some(GaugeRule::Max), None]);
        assert_eq!([of("b", true), of("b", false)], [Some(GaugeRule::Sum), Some(GaugeRule::Sum)]);
        assert_eq!([of("c", true), of("c", false)], [Some(GaugeRule::Last), None]);
    }

    #[test]
    fn keys_have_1_to_255_bytes() {
        assert_eq!(check_key(None), Ok(None));
        assert_eq!(check_key(Some(&[b'k'; 255])).unwrap().map(<[u8]>::len), Some(255));
        for bad in [&[b'k'; 256][..], b""] {
            let reply = check_key(Some(bad)).unwrap_err();
            let text = format!("the Idempotency-Key has {} bytes: 1 to 255 are allowed\n", bad.len());
            assert_eq!((reply.status, String::from_utf8(reply.body).unwrap()), (400, text));
        }
        let group = LabelSet::new([("job", "a")]);
        let key = idempotency_key(&group, b"k", 1);
        assert_ne!(key.key, idempotency_key(&LabelSet::new([("job", "b")]), b"k", 1).key);
        assert_ne!(key.key, idempotency_key(&group, b"l", 1).key);
    }
}
