//! Adds families: increments to a contribution, and contributions to the sum that is shown.
//!
//! Counters, summaries and histograms are added series by series; a series that only one part has stays as it is. Gauges
//! and untyped metrics follow a [`GaugeRule`], gauge histograms take the last write. The raw metric of a histogram has
//! its native buckets; a [`NativeSum`] adds those.

use std::collections::BTreeMap;

use thiserror::Error;

use super::build::FamilyBuilder;
use super::contribution::GaugeRule;
use super::family::Family;
use super::label::LabelSet;
use super::schema::{MetricType, Num, ValueLayout};
use super::stamp::WriteTimestamp;
use super::truncated::truncated;
use super::values::Values;

/// Adds the raw metrics of two native histograms. An error is the reason why they cannot be added.
pub type NativeSum = fn(&[u8], &[u8]) -> Result<Vec<u8>, String>;

/// Bounds that an error lists, at most.
const BOUNDS_LISTED_MAX: usize = 64;

/// A contribution.
#[derive(Clone, Copy, Debug)]
pub struct SumPart<'a> {
    /// The family.
    pub family: &'a Family,
    /// The time of its last write; decides which gauge is the last one.
    pub stamp: WriteTimestamp,
}

/// Why an increment cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SumError {
    /// The sum has another type.
    #[error(
        "metric {:?} is pushed as {} but the sum is of the type {}: push it with one type, or delete the group first",
        truncated(.name), .pushed.name(), .total.name()
    )]
    Type {
        /// The metric's name.
        name: String,
        /// The type of the sum.
        total: MetricType,
        /// The type pushed.
        pushed: MetricType,
    },
    /// The histogram has other buckets.
    #[error(
        "metric {:?} {labels}: the buckets pushed differ from those of the sum: pushed le = {pushed}; the sum has le = \
         {total}; push with the same buckets, or delete the group first",
        truncated(.name)
    )]
    Buckets {
        /// The metric's name.
        name: String,
        /// The labels of the series.
        labels: String,
        /// The bounds of the sum.
        total: String,
        /// The bounds pushed.
        pushed: String,
    },
    /// The sum would not be finite, and could never be counted on from there.
    #[error(
        "metric {:?} {labels}: the sum would be infinite: nothing can be added to it then; delete the group to start anew",
        truncated(.name)
    )]
    Infinite {
        /// The metric's name.
        name: String,
        /// The labels of the series.
        labels: String,
    },
    /// Native buckets cannot be added.
    #[error("metric {:?} {labels}: {reason}; push the same kind of histogram, or delete the group first", truncated(.name))]
    Native {
        /// The metric's name.
        name: String,
        /// The labels of the series.
        labels: String,
        /// The reason.
        reason: String,
    },
}

/// How values of a type are combined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Add,
    Last,
    Max,
    Min,
}

impl Rule {
    fn of(metric_type: MetricType, gauges: GaugeRule) -> Self {
        match (metric_type, gauges) {
            (MetricType::Counter | MetricType::Summary | MetricType::Histogram, _) => Self::Add,
            (MetricType::GaugeHistogram, _) | (_, GaugeRule::Last) => Self::Last,
            (MetricType::Gauge | MetricType::Untyped, GaugeRule::Max) => Self::Max,
            (MetricType::Gauge | MetricType::Untyped, GaugeRule::Min) => Self::Min,
            (MetricType::Gauge | MetricType::Untyped, GaugeRule::Sum) => Self::Add,
        }
    }

    fn apply(self, total: f64, value: f64, is_later: bool) -> f64 {
        match self {
            Self::Add => total + value,
            Self::Max => total.max(value),
            Self::Min => total.min(value),
            Self::Last if is_later => value,
            Self::Last => total,
        }
    }
}

/// The sum after an increment.
///
/// # Errors
/// If the increment does not fit the sum. Nothing is added then.
pub fn added(total: &Family, pushed: &Family, gauges: GaugeRule, native: NativeSum) -> Result<Family, SumError> {
    let (of_total, of_pushed) = (total.schema().metric_type(), pushed.schema().metric_type());
    if of_total != of_pushed {
        return Err(SumError::Type { name: total.name().to_string(), total: of_total, pushed: of_pushed });
    }
    let part = |family| SumPart { family, stamp: WriteTimestamp::ZERO };
    let sum = combined(&[part(total), part(pushed)], pushed, Combine { gauges, native, strict: true })?;
    Ok(sum)
}

/// The sum of contributions, as it is shown. Contributions of another type than the first one are left out. Of classic
/// histograms whose buckets differ, the common buckets are shown: their counts are exact.
///
/// `None` if there are no parts.
pub fn folded(parts: &[SumPart<'_>], gauges: GaugeRule, native: NativeSum) -> Option<Family> {
    let first = parts.first()?;
    let alike = |part: &&SumPart<'_>| part.family.schema().metric_type() == first.family.schema().metric_type();
    let parts: Vec<SumPart<'_>> = parts.iter().filter(alike).copied().collect();
    match &parts[..] {
        [only] => Some(only.family.clone()),
        parts => combined(parts, first.family, Combine { gauges, native, strict: false }).ok(),
    }
}

#[derive(Clone, Copy)]
struct Combine {
    gauges: GaugeRule,
    native: NativeSum,
    /// Whether differences are errors.
    strict: bool,
}

/// One series of a sum.
struct Total {
    layout: ValueLayout,
    values: Vec<f64>,
    raw_metric: Box<[u8]>,
    stamp: WriteTimestamp,
}

/// Combines parts of one type. Help and unit are those of `head`.
fn combined(parts: &[SumPart<'_>], head: &Family, how: Combine) -> Result<Family, SumError> {
    let rule = Rule::of(head.schema().metric_type(), how.gauges);
    if let Some(family) = same_schema(parts, rule, how)? {
        return Ok(family);
    }
    let mut totals: BTreeMap<Vec<(&str, String)>, Total> = BTreeMap::new();
    for SumPart { family, stamp } in parts {
        for (at, series) in family.schema().series().enumerate() {
            let labels = series.labels().map(|(name, value)| (name, value.into_owned())).collect();
            let raw_metric = family.raw_metrics().map_or(&[][..], |raw_metrics| &raw_metrics[at]);
            let (layout, values) = (&series.layout().values, &family.values()[series.values()]);
            let part =
                Total { layout: layout.clone(), values: values.into(), raw_metric: raw_metric.into(), stamp: *stamp };
            match totals.entry(labels) {
                std::collections::btree_map::Entry::Vacant(new) => drop(new.insert(part)),
                std::collections::btree_map::Entry::Occupied(mut total) => {
                    let labels = total.key().iter().filter(|(_, value)| !value.is_empty());
                    let labels = LabelSet::new(labels.map(|(name, value)| (*name, value)));
                    total.get_mut().combine(part, rule, how, (family.name(), &labels))?;
                }
            }
        }
    }
    let mut builder = FamilyBuilder::new(head.name().clone(), head.schema().metric_type());
    builder.help(head.schema().help()).unit(head.schema().unit());
    for (labels, total) in &totals {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
        let raw_metric = Some(&*total.raw_metric).filter(|raw_metric| !raw_metric.is_empty());
        builder.series(&labels, &total.layout, &total.values, raw_metric);
    }
    Ok(builder.finish().expect("a map has each set of labels once"))
}

/// The common case: all parts have one schema and no native buckets. `None` if it is another case.
fn same_schema(parts: &[SumPart<'_>], rule: Rule, how: Combine) -> Result<Option<Family>, SumError> {
    let [first, rest @ ..] = parts else { return Ok(None) };
    let is_plain = |part: &SumPart<'_>| part.family.raw_metrics().is_none();
    let schema = first.family.schema();
    if !parts.iter().all(is_plain) || !rest.iter().all(|part| part.family.schema().same(schema)) {
        return Ok(None);
    }
    let mut values: Values = first.family.values().iter().copied().collect();
    let (totals, mut last) = (values.make_mut(), first.stamp);
    for SumPart { family, stamp } in rest {
        for (total, value) in totals.iter_mut().zip(family.values().iter()) {
            *total = rule.apply(*total, *value, *stamp >= last);
        }
        last = last.max(*stamp);
    }
    if how.strict && totals.iter().any(|total| total.is_infinite()) {
        check_finite(schema, totals, rule)?;
    }
    Ok(Family::new(schema.clone(), values, None))
}

/// Finds the series whose sum became infinite.
fn check_finite(schema: &super::schema::Schema, totals: &[f64], rule: Rule) -> Result<(), SumError> {
    let is_infinite = |values: &[f64]| values.iter().any(|value| value.is_infinite());
    match schema.series().find(|series| rule == Rule::Add && is_infinite(&totals[series.values()])) {
        Some(series) => {
            let labels = LabelSet::new(series.labels().filter(|label| !label.1.is_empty())).to_string();
            Err(SumError::Infinite { name: schema.name().to_string(), labels: truncated(&labels).to_string() })
        }
        None => Ok(()),
    }
}

impl Total {
    fn combine(
        &mut self,
        part: Total,
        rule: Rule,
        how: Combine,
        (name, labels): (&str, &LabelSet),
    ) -> Result<(), SumError> {
        if rule == Rule::Last {
            if part.stamp >= self.stamp {
                *self = part;
            }
            return Ok(());
        }
        let labels = || truncated(&labels.to_string()).to_string();
        let native = |reason| SumError::Native { name: name.into(), labels: labels(), reason };
        self.raw_metric = match (self.raw_metric.is_empty(), part.raw_metric.is_empty()) {
            (true, true) => Box::default(),
            (false, false) => match (how.native)(&self.raw_metric, &part.raw_metric) {
                Ok(sum) => sum.into(),
                Err(reason) if how.strict => return Err(native(reason)),
                Err(_) => Box::default(),
            },
            (_, is_classic) if how.strict => {
                let (pushed, sum) = if is_classic { ("no", "some") } else { ("some", "none") };
                return Err(native(format!("{pushed} native buckets are pushed, but the sum has {sum}")));
            }
            _ => Box::default(),
        };
        self.stamp = self.stamp.max(part.stamp);
        match (&self.layout, &part.layout) {
            (ValueLayout::Histogram { bounds, .. }, ValueLayout::Histogram { bounds: pushed, .. })
                if bounds != pushed =>
            {
                if how.strict {
                    let (total, pushed) = (listed(bounds), listed(pushed));
                    return Err(SumError::Buckets { name: name.into(), labels: labels(), total, pushed });
                }
                let common: Vec<Num> = bounds.iter().filter(|bound| pushed.contains(bound)).copied().collect();
                self.values = at_bounds(bounds, &self.values, &common);
                let values = at_bounds(pushed, &part.values, &common);
                self.values.iter_mut().zip(values).for_each(|(total, value)| *total += value);
                self.layout = with_bounds(&self.layout, common.into());
            }
            (a, b) if a.len() == b.len() => {
                let pairs = self.values.iter_mut().zip(&part.values);
                pairs.for_each(|(total, value)| *total = rule.apply(*total, *value, true));
            }
            _ => return Ok(()),
        }
        self.layout = united(&self.layout, &part.layout);
        if how.strict && rule == Rule::Add && self.values.iter().any(|value| value.is_infinite()) {
            return Err(SumError::Infinite { name: name.into(), labels: labels() });
        }
        Ok(())
    }
}

/// The bounds as text.
fn listed(bounds: &[Num]) -> String {
    let number = |bound: &Num| if bound.0 == f64::INFINITY { "+Inf".to_owned() } else { bound.0.to_string() };
    let mut texts: Vec<String> = bounds.iter().take(BOUNDS_LISTED_MAX).map(number).collect();
    texts.extend((bounds.len() > BOUNDS_LISTED_MAX).then(|| format!("… ({} in all)", bounds.len())));
    if texts.is_empty() { "none".to_owned() } else { texts.join(" ") }
}

/// The values of a histogram at some of its bounds, then sum and count.
fn at_bounds(bounds: &[Num], values: &[f64], kept: &[Num]) -> Vec<f64> {
    let counts = bounds.iter().zip(values).filter(|(bound, _)| kept.contains(bound)).map(|(_, count)| *count);
    counts.chain(values[bounds.len()..].iter().copied()).collect()
}

fn with_bounds(layout: &ValueLayout, kept: Box<[Num]>) -> ValueLayout {
    match layout {
        ValueLayout::Histogram { has_sum, has_count, float, .. } => {
            ValueLayout::Histogram { bounds: kept, has_sum: *has_sum, has_count: *has_count, float: *float }
        }
        other => other.clone(),
    }
}

/// The layout of a sum: it has a sum, a count, or float counts if one of the parts has.
fn united(a: &ValueLayout, b: &ValueLayout) -> ValueLayout {
    match (a, b) {
        (
            ValueLayout::Histogram { bounds, has_sum, has_count, float },
            ValueLayout::Histogram { has_sum: sum, has_count: count, float: floats, .. },
        ) => ValueLayout::Histogram {
            bounds: bounds.clone(),
            has_sum: *has_sum || *sum,
            has_count: *has_count || *count,
            float: *float || *floats,
        },
        (
            ValueLayout::Summary { quantiles, has_sum, has_count },
            ValueLayout::Summary { has_sum: sum, has_count: count, .. },
        ) => ValueLayout::Summary {
            quantiles: quantiles.clone(),
            has_sum: *has_sum || *sum,
            has_count: *has_count || *count,
        },
        _ => a.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_NATIVE: NativeSum = |_, _| Err("no native histograms here".into());

    fn family(metric_type: MetricType, series: &[(&str, f64)]) -> Family {
        let mut builder = FamilyBuilder::new("m", metric_type);
        for (value, number) in series {
            builder.series(&[("a", value)], &ValueLayout::Single, &[*number], None);
        }
        builder.finish().unwrap()
    }

    fn histogram(bounds: &[f64], values: &[f64]) -> Family {
        let bounds = bounds.iter().map(|bound| Num(*bound)).collect();
        let layout = ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
        builder.series(&[("a", "1")], &layout, values, None);
        builder.finish().unwrap()
    }

    fn shown(family: &Family) -> Vec<(String, Vec<f64>)> {
        let text = |series: crate::model::Series<'_>| LabelSet::new(series.labels()).to_string();
        family.schema().series().map(|series| (text(series), family.values()[series.values()].to_vec())).collect()
    }

    fn sum(total: &Family, pushed: &Family) -> Result<Family, SumError> {
        added(total, pushed, GaugeRule::Last, NO_NATIVE)
    }

    #[test]
    fn series_are_added_one_by_one() {
        let total = family(MetricType::Counter, &[("1", 1.0), ("2", 2.0)]);
        let pushed = family(MetricType::Counter, &[("2", 3.0), ("3", 4.0)]);
        let expected = [(r#"{a="1"}"#, 1.0), (r#"{a="2"}"#, 5.0), (r#"{a="3"}"#, 4.0)];
        assert_eq!(shown(&sum(&total, &pushed).unwrap()), expected.map(|(labels, value)| (labels.into(), vec![value])));
        let same = sum(&total, &total).unwrap();
        assert!(std::sync::Arc::ptr_eq(same.schema(), total.schema()), "an equal schema is shared");
        assert_eq!(same.values()[..], [2.0, 4.0]);
    }

    #[test]
    fn gauges_follow_their_rule() {
        let (total, pushed) = (family(MetricType::Gauge, &[("1", 5.0)]), family(MetricType::Gauge, &[("1", 3.0)]));
        let both = family(MetricType::Gauge, &[("1", 3.0), ("2", 0.0)]);
        for (rule, expected) in
            [(GaugeRule::Last, 3.0), (GaugeRule::Max, 5.0), (GaugeRule::Min, 3.0), (GaugeRule::Sum, 8.0)]
        {
            for pushed in [&pushed, &both] {
                assert_eq!(added(&total, pushed, rule, NO_NATIVE).unwrap().values()[0], expected, "{rule:?}");
            }
        }
        let at = |family, time_ns| SumPart { family, stamp: WriteTimestamp { time_ns, ..WriteTimestamp::ZERO } };
        for parts in [[at(&total, 2), at(&pushed, 1)], [at(&pushed, 1), at(&total, 2)], [at(&both, 1), at(&total, 2)]] {
            assert_eq!(folded(&parts, GaugeRule::Last, NO_NATIVE).unwrap().values()[0], 5.0);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let counter = family(MetricType::Counter, &[("1", 1e308)]);
        let error = |result: Result<Family, SumError>| result.unwrap_err().to_string();
        let gauge = family(MetricType::Gauge, &[("1", 1.0)]);
        assert!(
            error(sum(&counter, &gauge))
                .starts_with("metric \"m\" is pushed as gauge but the sum is of the type counter")
        );
        let infinite = error(sum(&counter, &counter));
        assert!(infinite.starts_with("metric \"m\" {a=\"1\"}: the sum would be infinite"), "{infinite}");
        let wider = family(MetricType::Counter, &[("1", 1e308), ("2", 1.0)]);
        assert_eq!(error(sum(&counter, &wider)), infinite);
        let (total, pushed) = (histogram(&[1.0, f64::INFINITY], &[1.0; 4]), histogram(&[2.0], &[1.0; 3]));
        assert!(error(sum(&total, &pushed)).contains("pushed le = 2; the sum has le = 1 +Inf; push with the same"));
    }

    #[test]
    fn contributions_with_other_buckets_are_shown_at_the_common_ones() {
        let a = histogram(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 9.0, 4.0]);
        let b = histogram(&[2.0, 3.0, 5.0], &[10.0, 20.0, 30.0, 90.0, 40.0]);
        let part = |family| SumPart { family, stamp: WriteTimestamp::ZERO };
        let both = folded(&[part(&a), part(&b)], GaugeRule::Last, NO_NATIVE).unwrap();
        assert_eq!(both, histogram(&[2.0, 5.0], &[12.0, 33.0, 99.0, 44.0]));
        let gauge = family(MetricType::Gauge, &[]);
        assert_eq!(folded(&[part(&a), part(&gauge)], GaugeRule::Last, NO_NATIVE), Some(a));
    }

    proptest! {
        /// Increments of whole numbers: the sum is exact however they are split into contributions, and in any order.
        #[test]
        fn sums_are_exact(increments in prop::collection::vec((0..4usize, "[a-c]", 0..1_000u32), 1..40)) {
            let mut contributions: Vec<Option<Family>> = vec![None; 4];
            let mut expected: BTreeMap<String, f64> = BTreeMap::new();
            for (contributor, series, value) in &increments {
                let pushed = family(MetricType::Counter, &[(series, f64::from(*value))]);
                let total = &mut contributions[*contributor];
                *total = Some(total.as_ref().map_or(pushed.clone(), |total| sum(total, &pushed).unwrap()));
                *expected.entry(series.clone()).or_default() += f64::from(*value);
            }
            let parts: Vec<Family> = contributions.into_iter().flatten().collect();
            let part = |family| SumPart { family, stamp: WriteTimestamp::ZERO };
            let forward: Vec<_> = parts.iter().map(part).collect();
            let backward: Vec<_> = parts.iter().rev().map(part).collect();
            for parts in [forward, backward] {
                let sum = folded(&parts, GaugeRule::Last, NO_NATIVE).unwrap();
                let found = sum.schema().series().map(|series| {
                    let (_, label) = series.labels().next().unwrap();
                    (label.into_owned(), sum.values()[series.values()][0])
                });
                prop_assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.clone());
            }
        }
    }
}
