//! A metric family as pushed, before the labels of its group are known, and its way to a [`Family`].
//!
//! Between the two stands what Pushgateway does to every push (`sanitizeLabels`, then the consistency checks of Go's
//! gatherer): labels of the group override the metric's own; a metric without `instance` gets an empty one; labels are
//! sorted; and a push is refused that has timestamps, a type its metrics do not match, labels that are repeated or
//! reserved, or two metrics with the same labels. A refused push counts as failed (`push_failure_time_seconds`), unlike
//! one that cannot be parsed.

use std::borrow::Cow;

use super::histogram_rules::HistogramFault;
use crate::model::label::{INSTANCE, LabelSet, RESERVED_PREFIX, escape_value};
use crate::model::{
    AlikeNames, DuplicateSeries, Escaping, Family, FamilyBuilder, MetricType, ValueLayout, alike_labels, truncated,
};

/// A label of a pushed metric, unescaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawLabel<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// The value.
    pub value: Cow<'a, str>,
}

/// A push that can be parsed cannot be accepted.
///
/// The messages are those of Pushgateway, in which a metric is called a *collected metric*. Long names are cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushRefusal {
    /// A sample has a timestamp.
    #[error("pushed metrics must not have timestamps")]
    Timestamp,
    /// Two metrics have the same labels.
    #[error(
        "{} {{ {} }} was collected before with the same name and label values\n{cause}",
        collected_metric(family),
        truncated(labels)
    )]
    DuplicateSeries {
        /// The metric's name.
        family: String,
        /// All labels, those of the group too.
        labels: String,
        /// The reason why the labels are the same.
        cause: String,
    },
    /// Two metrics are one to a scraper: they differ only in labels with empty values, or in names that one escaping
    /// makes one. (Pushgateway accepts them.)
    #[error(
        "{} {{ {} }} was collected before with the same name and label values\n{}",
        collected_metric(family),
        truncated(&labels[1]),
        scraped_twice(labels, *escaping)
    )]
    ScrapedTwice {
        /// The metric's name.
        family: String,
        /// All labels of both, those of the group first, as the text format prints them between braces.
        labels: [String; 2],
        /// The escaping with which they are one.
        escaping: Escaping,
    },
    /// Two labels of a metric are one with an escaping. (Pushgateway accepts them, and Prometheus drops the scrape.)
    #[error("{} has two or more labels with the same name: {alike}", collected_metric(family))]
    AlikeLabels {
        /// The metric's name.
        family: String,
        /// The labels.
        alike: AlikeNames,
    },
    /// Several families are refused.
    #[error("{}", several(.0, *.1))]
    Several(
        /// The first refusals, at most [`REFUSALS_SHOWN_MAX`].
        Vec<PushRefusal>,
        /// The number of further families that are refused.
        usize,
    ),
    /// A metric has a label twice.
    #[error("{} has two or more labels with the same name: {}", collected_metric(family), truncated(label))]
    DuplicateLabel {
        /// The metric's name.
        family: String,
        /// The label's name.
        label: String,
    },
    /// A metric's name is not allowed. (Protobuf only: in text the line cannot be parsed.)
    #[error("{} has an invalid name", collected_metric(.0))]
    MetricName(String),
    /// The type is unknown. (Protobuf only: in text the line cannot be parsed.)
    #[error("{} has the unknown type {number}", collected_metric(family))]
    MetricType {
        /// The metric's name.
        family: String,
        /// The type's number.
        number: i32,
    },
    /// A label's name is empty, not UTF-8, not allowed, or begins with `__`.
    #[error("{} has a label with an invalid name: {}", collected_metric(family), truncated(label))]
    LabelName {
        /// The metric's name.
        family: String,
        /// The label's name.
        label: String,
    },
    /// A label's value is not UTF-8.
    #[error("{} has a label named {:?} whose value is not utf8", collected_metric(family), truncated(label))]
    LabelValue {
        /// The metric's name.
        family: String,
        /// The label's name.
        label: String,
    },
    /// A label is reserved in families of that type: `quantile` in summaries, `le` in histograms. (Pushgateway accepts
    /// `le`, and then shows series with two of them.)
    #[error("{} must not have an explicit {label:?} label", collected_metric(family))]
    TypeLabel {
        /// The metric's name.
        family: String,
        /// The label's name.
        label: &'static str,
    },
    /// A metric has no value of the family's type.
    #[error("{} is not a {}", collected_metric(family), metric_type.name().to_ascii_uppercase())]
    WrongType {
        /// The metric's name.
        family: String,
        /// The family's type.
        metric_type: MetricType,
    },
    /// A native histogram breaks a rule, so that Prometheus would drop the whole scrape. (Pushgateway accepts it.)
    #[error("{} is not a valid native histogram: {fault}", collected_metric(family))]
    Histogram {
        /// The metric's name.
        family: String,
        /// The rule.
        fault: HistogramFault,
    },
}

fn collected_metric(name: &str) -> String {
    format!("collected metric {:?}", truncated(name))
}

/// The reason why two metrics with different labels are one to a scraper.
fn scraped_twice([a, b]: &[String; 2], escaping: Escaping) -> String {
    let why = match escaping {
        Escaping::AllowUtf8 => "a label with an empty value is the same as none".to_owned(),
        other => format!("names become the same with the escaping {:?}", other.parameter()),
    };
    format!("{{ {} }} and {{ {} }} are one series to Prometheus: {why}", truncated(a), truncated(b))
}

/// The labels of a group and those of one of its series, both as the text format prints them between braces.
fn all_labels(grouping: &LabelSet, own: &str) -> String {
    let group = grouping.to_string();
    let parts = [&group[1..group.len() - 1], own];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
}

/// The number of replaced labels that an answer names.
const REPLACED_SHOWN_MAX: usize = 2;

/// The number of refusals of a push that an answer names.
pub const REFUSALS_SHOWN_MAX: usize = 20;

impl PushRefusal {
    /// Adds the refusal of another family of the same push.
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::Several(mut refusals, more) if refusals.len() < REFUSALS_SHOWN_MAX => {
                refusals.push(other);
                Self::Several(refusals, more)
            }
            Self::Several(refusals, more) => Self::Several(refusals, more + 1),
            first => Self::Several(vec![first, other], 0),
        }
    }
}

fn several(refusals: &[PushRefusal], more: usize) -> String {
    let lines: Vec<String> = refusals.iter().map(PushRefusal::to_string).collect();
    let more = if more == 0 { String::new() } else { format!("\n{more} more metrics are refused") };
    lines.join("\n") + &more
}

/// The end of a metric's labels in the list of its family, and the layout of its values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct MetricEnds {
    labels_end: u32,
    /// The index of its layout among the family's points.
    value_layout: u32,
}

/// A metric family as pushed. The labels and values of all metrics are in one list each, so that a series costs no
/// allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct RawFamily<'a> {
    /// The metric's name, valid under the [`super::NameValidation`] of the parser.
    pub name: Cow<'a, str>,
    /// The type.
    pub metric_type: MetricType,
    /// The help text, unescaped.
    pub help: Option<Cow<'a, str>>,
    /// The unit (protobuf only).
    pub unit: Option<Cow<'a, str>>,
    metrics: Vec<MetricEnds>,
    labels: Vec<RawLabel<'a>>,
    values: Vec<f64>,
    value_layout: Vec<ValueLayout>,
    /// Raw metrics, with the metric's index, in order.
    raw_metrics: Vec<(u32, Cow<'a, [u8]>)>,
    refusal: Option<PushRefusal>,
}

impl<'a> RawFamily<'a> {
    /// A family without metrics.
    pub fn new(name: Cow<'a, str>, metric_type: MetricType) -> Self {
        Self {
            name,
            metric_type,
            help: None,
            unit: None,
            metrics: Vec::new(),
            labels: Vec::new(),
            values: Vec::new(),
            value_layout: Vec::new(),
            raw_metrics: Vec::new(),
            refusal: None,
        }
    }

    /// Adds a metric: its labels in any order, the layout of its values, and one value per point. Drains `labels`,
    /// which can be reused.
    pub fn push(&mut self, labels: &mut Vec<RawLabel<'a>>, value_layout: &ValueLayout, values: &[f64]) {
        debug_assert_eq!(value_layout.len(), values.len());
        self.labels.append(labels);
        self.values.extend_from_slice(values);
        if self.value_layout.last() != Some(value_layout) {
            self.value_layout.push(value_layout.clone());
        }
        self.metrics.push(MetricEnds {
            labels_end: self.labels.len() as u32,
            value_layout: self.value_layout.len() as u32 - 1,
        });
    }

    /// Keeps a raw metric (an `io.prometheus.client.Metric` message without labels) with the metric added last.
    pub fn keep_raw_metric(&mut self, raw_metric: Cow<'a, [u8]>) {
        if let Some(last) = self.metrics.len().checked_sub(1) {
            self.raw_metrics.push((last as u32, raw_metric));
        }
    }

    /// Marks the family as one that cannot be accepted. The first reason stays, except that a timestamp replaces it:
    /// Pushgateway checks for timestamps first, even in families that it ignores.
    pub fn refuse(&mut self, refusal: PushRefusal) {
        if refusal == PushRefusal::Timestamp {
            self.refusal = Some(refusal);
        } else {
            self.refusal.get_or_insert(refusal);
        }
    }

    /// Like [`RawFamily::refuse`], for reasons other than timestamps. The refusal, which contains the family's name, is
    /// built only if it is the first: every metric may have one, and names may be long.
    pub(super) fn refuse_with(&mut self, refusal: impl FnOnce(String) -> PushRefusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal(self.name.clone().into_owned()));
        }
    }

    /// Repeats the metric added last, so that the family is refused because of two equal metrics.
    pub(super) fn repeat_last(&mut self) {
        let Some(last) = self.metrics.last().copied() else { return };
        let mut labels = self.own_labels(self.metrics.len() - 1).to_vec();
        let value_layout = self.value_layout[last.value_layout as usize].clone();
        let values = self.values[self.values.len() - value_layout.len()..].to_vec();
        self.push(&mut labels, &value_layout, &values);
    }

    /// The number of metrics.
    pub fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Whether there are no metrics. Protobuf can push an empty family, which replaces the group's family of that name.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// The labels of metric `i` as pushed.
    fn own_labels(&self, i: usize) -> &[RawLabel<'a>] {
        let start = if i == 0 { 0 } else { self.metrics[i - 1].labels_end as usize };
        &self.labels[start..self.metrics[i].labels_end as usize]
    }

    /// Builds the family for a group with the labels `grouping`, without those labels.
    ///
    /// # Errors
    ///
    /// Returns the reason if the push has to be refused.
    pub fn family(&self, grouping: &LabelSet) -> Result<Family, PushRefusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let mut builder = FamilyBuilder::new(&*self.name, self.metric_type);
        builder.help(self.help.as_deref()).unit(self.unit.as_deref());
        let mut plan = Plan::default();
        let mut labels: Vec<(&str, &str)> = Vec::new();
        let mut raw_metrics = self.raw_metrics.iter().peekable();
        let mut first_value = 0;
        for (i, metric) in self.metrics.iter().enumerate() {
            let own = self.own_labels(i);
            if i == 0 || !plan.fits(own) {
                plan = self.plan(own, grouping)?;
            }
            labels.clear();
            labels.extend(plan.sources.iter().map(|source| match source {
                LabelSource::Own(at) => (&*own[*at].name, &*own[*at].value),
                LabelSource::EmptyInstance => (INSTANCE, ""),
            }));
            let value_layout = &self.value_layout[metric.value_layout as usize];
            let values = &self.values[first_value..first_value + value_layout.len()];
            first_value += value_layout.len();
            let raw_metric =
                raw_metrics.next_if(|raw_metric| raw_metric.0 as usize == i).map(|raw_metric| &*raw_metric.1);
            builder.series(&labels, value_layout, values, raw_metric);
        }
        let family = builder.finish().map_err(|duplicate| self.duplicate(duplicate, grouping))?;
        if let Some(duplicate) = family.schema().repeated_sample() {
            return Err(PushRefusal::DuplicateSeries {
                family: duplicate.name.to_string(),
                labels: all_labels(grouping, &duplicate.labels),
                cause: "one series has this bucket or quantile twice: remove one".to_owned(),
            });
        }
        match family.schema().scraped_twice() {
            Some((own, escaping)) => Err(PushRefusal::ScrapedTwice {
                family: self.name.clone().into_owned(),
                labels: own.map(|own| all_labels(grouping, &own)),
                escaping,
            }),
            None => Ok(family),
        }
    }

    /// The refusal of two metrics that have the same labels in that group, with the reason.
    fn duplicate(&self, duplicate: DuplicateSeries, grouping: &LabelSet) -> PushRefusal {
        let kept = |i: usize| {
            let kept = self.own_labels(i).iter().filter(|label| !grouping.contains(&label.name));
            let mut labels: Vec<(&str, &str)> = kept.map(|label| (&*label.name, &*label.value)).collect();
            if !grouping.contains(INSTANCE) && !labels.iter().any(|label| label.0 == INSTANCE) {
                labels.push((INSTANCE, ""));
            }
            labels.sort_unstable();
            labels
        };
        let quoted = |(name, value): &(&str, &str)| {
            let mut text = format!("{name}=\"");
            escape_value(value, &mut text);
            text + "\""
        };
        let joined = |labels: Vec<(&str, &str)>| labels.iter().map(quoted).collect::<Vec<_>>().join(",");
        // Compares texts instead of remembering all labels: a push may have millions of series.
        let mut equal = (0..self.len()).filter(|i| joined(kept(*i)) == duplicate.labels);
        let pair = equal.next().zip(equal.next());
        let mut labels: Vec<(&str, &str)> = pair.map(|(_, second)| kept(second)).unwrap_or_default();
        labels.extend(grouping.iter().map(|label| (label.name, label.value)));
        labels.sort_unstable();
        let labels = joined(labels);
        let (first, second) = pair.unwrap_or_default();
        let cause = self.cause(first, second, grouping);
        PushRefusal::DuplicateSeries { family: duplicate.name.to_string(), labels, cause }
    }

    /// The reason why two metrics have the same labels: the grouping key replaces the labels in which they differ, or
    /// they are the same as pushed.
    fn cause(&self, first: usize, second: usize, grouping: &LabelSet) -> String {
        let value = |i: usize, name: &str| {
            let label = self.own_labels(i).iter().find(|label| label.name == name);
            label.map_or("", |label| &*label.value)
        };
        let replaced = grouping.iter().filter(|label| value(first, label.name) != value(second, label.name));
        let replaced: Vec<String> = replaced
            .take(REPLACED_SHOWN_MAX)
            .map(|label| {
                let [first, second] = [first, second].map(|i| value(i, label.name));
                let (name, by) = (truncated(label.name), truncated(label.value));
                format!("{name}={:?} and {name}={:?} by {name}={by:?}", truncated(first), truncated(second))
            })
            .collect();
        if replaced.is_empty() {
            return "the push has this series twice: remove one, or give them labels that differ".to_owned();
        }
        let replaced = replaced.join(", ");
        format!(
            "the grouping key replaced the samples' own {replaced}: push each to its own group, or rename the label"
        )
    }

    /// Checks the names of a metric's labels, and plans the series' own labels and their order.
    fn plan<'s>(&self, own: &'s [RawLabel<'a>], grouping: &LabelSet) -> Result<Plan<'s, 'a>, PushRefusal> {
        let family = || self.name.clone().into_owned();
        let mut order: Vec<usize> = (0..own.len()).collect();
        order.sort_by(|&a, &b| own[a].name.cmp(&own[b].name));
        if let Some(pair) = order.windows(2).find(|pair| own[pair[0]].name == own[pair[1]].name) {
            return Err(PushRefusal::DuplicateLabel {
                family: family(),
                label: own[pair[0]].name.clone().into_owned(),
            });
        }
        if let Some(label) = own.iter().find(|label| label.name.is_empty() || label.name.starts_with(RESERVED_PREFIX)) {
            return Err(PushRefusal::LabelName { family: family(), label: label.name.clone().into_owned() });
        }
        let reserved = self.metric_type.own_label();
        if let Some(label) = reserved.filter(|l| grouping.contains(l) || own.iter().any(|label| label.name == **l)) {
            return Err(PushRefusal::TypeLabel { family: family(), label });
        }
        let mut sources: Vec<LabelSource> = order.into_iter().map(LabelSource::Own).collect();
        sources.retain(|source| matches!(source, LabelSource::Own(at) if !grouping.contains(&own[*at].name)));
        if !grouping.contains(INSTANCE) && !own.iter().any(|label| label.name == INSTANCE) {
            let before = |source: &LabelSource| matches!(source, LabelSource::Own(at) if *own[*at].name < *INSTANCE);
            sources.insert(sources.partition_point(before), LabelSource::EmptyInstance);
        }
        let names = own.iter().map(|label| &*label.name).filter(|name| !grouping.contains(name));
        if let Some(alike) = alike_labels(names.chain(grouping.iter().map(|label| label.name))) {
            return Err(PushRefusal::AlikeLabels { family: family(), alike });
        }
        Ok(Plan { names: own, sources })
    }
}

/// The source of a label of the finished series.
enum LabelSource {
    Own(usize),
    EmptyInstance,
}

/// The own labels of a series, planned from a metric's label names. It is reused for the next metric if that has the
/// same names.
#[derive(Default)]
struct Plan<'s, 'a> {
    names: &'s [RawLabel<'a>],
    sources: Vec<LabelSource>,
}

impl Plan<'_, '_> {
    fn fits(&self, own: &[RawLabel<'_>]) -> bool {
        self.names.len() == own.len() && self.names.iter().zip(own).all(|(a, b)| a.name == b.name)
    }
}

#[cfg(test)]
mod tests;
