//! Collects samples into families: assigns each name to a family, and joins the parts of summaries and histograms,
//! which are on lines of their own.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::exposition::protobuf::message::Metric;
use crate::exposition::raw::{PushRefusal, RawFamily, RawLabel};
use crate::exposition::{PushLimits, number};
use crate::model::{MetricType, Num, ValueLayout, truncated};

/// The part of its series that a sample is, by the suffix of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SamplePart {
    /// A value, quantile or bucket.
    #[default]
    Body,
    Sum,
    Count,
}

/// The label `quantile` or `le` of a sample, and its value.
pub(super) type QuantileOrBound = (&'static str, f64);

/// A family by its index, and a part of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Selected {
    family: usize,
    part: SamplePart,
}

#[derive(Default)]
pub(super) struct Collector<'a> {
    families: Vec<Collected<'a>>,
    /// The family and part of each name seen so far, suffixed names included. An assignment never changes.
    index: HashMap<Cow<'a, str>, Selected>,
    selected: Option<Selected>,
    selected_name: Cow<'a, str>,
    /// The family of the sample before.
    last_recorded: Option<usize>,
    series_len: usize,
}

struct Collected<'a> {
    raw: RawFamily<'a>,
    /// Whether the type is fixed: by a TYPE line or by a sample.
    is_typed: bool,
    /// The series of a summary or histogram.
    distributions: Vec<Distribution<'a>>,
    /// The index of each series by its sorted labels.
    slots: HashMap<Vec<RawLabel<'a>>, usize>,
    /// The index of the series that got the last sample.
    last_slot: usize,
    /// Whether a sample without a name repeats a series. One repetition is enough for the refusal.
    is_repeated: bool,
}

#[derive(Default)]
struct Distribution<'a> {
    labels: Vec<RawLabel<'a>>,
    /// Quantiles and their values, or upper bounds and their counts.
    marks: Vec<(Num, f64)>,
    sum: Option<f64>,
    count: Option<u64>,
    /// A histogram's count that is not an integer. If both are given, this one is shown.
    count_float: Option<f64>,
}

impl<'a> Collector<'a> {
    pub(super) fn series_len(&self) -> usize {
        self.series_len
    }

    pub(super) fn families_len(&self) -> usize {
        self.families.len()
    }

    /// Whether the name is the one selected last.
    pub(super) fn is_selected(&self, name: &str) -> bool {
        self.selected.is_some() && self.selected_name == name
    }

    /// Selects the family of a name: the family with this name, else the summary or histogram whose name this is with a
    /// suffix, else a new family.
    pub(super) fn select(&mut self, name: Cow<'a, str>) {
        let selected = match self.index.get(&*name) {
            Some(selected) => *selected,
            None => {
                let selected = self.resolve(name.clone());
                self.index.insert(name.clone(), selected);
                selected
            }
        };
        self.selected = Some(selected);
        self.selected_name = name;
    }

    fn resolve(&mut self, name: Cow<'a, str>) -> Selected {
        let suffixes = [("_count", SamplePart::Count), ("_sum", SamplePart::Sum), ("_bucket", SamplePart::Body)];
        for (suffix, part) in suffixes {
            let base = name.strip_suffix(suffix).filter(|base| !base.is_empty());
            let Some(at) = base.and_then(|base| self.index.get(base)) else { continue };
            let owns = match self.families[at.family].raw.metric_type {
                _ if at.part != SamplePart::Body
                    || *self.families[at.family].raw.name != name[..name.len() - suffix.len()] =>
                {
                    false
                }
                MetricType::Summary => suffix != "_bucket",
                MetricType::Histogram | MetricType::GaugeHistogram => true,
                MetricType::Counter | MetricType::Gauge | MetricType::Untyped => false,
            };
            if owns {
                return Selected { family: at.family, part };
            }
        }
        self.families.push(Collected {
            raw: RawFamily::new(name, MetricType::Untyped),
            is_typed: false,
            distributions: Vec::new(),
            slots: HashMap::new(),
            last_slot: 0,
            is_repeated: false,
        });
        Selected { family: self.families.len() - 1, part: SamplePart::Body }
    }

    fn current(&self) -> Option<&Collected<'a>> {
        self.selected.map(|selected| &self.families[selected.family])
    }

    fn current_mut(&mut self) -> Option<&mut Collected<'a>> {
        self.selected.map(|selected| &mut self.families[selected.family])
    }

    /// The selected family's name, for messages.
    pub(super) fn selected_name(&self) -> &str {
        self.current().map_or("", |family| &family.raw.name)
    }

    /// The label that is reserved in the selected family: `quantile` or `le`.
    pub(super) fn type_label(&self) -> Option<&'static str> {
        self.current().and_then(|family| family.raw.metric_type.own_label())
    }

    /// Sets the selected family's help. Returns the family's name as an error if it has a help already.
    pub(super) fn set_help(&mut self, help: Cow<'a, str>) -> Result<(), String> {
        match self.current_mut() {
            Some(family) if family.raw.help.is_none() => family.raw.help = Some(help),
            other => return Err(other.map(|family| family.raw.name.clone().into_owned()).unwrap_or_default()),
        }
        Ok(())
    }

    /// Sets the selected family's type. Returns the family's name as an error if the type is fixed already.
    pub(super) fn set_type(&mut self, metric_type: MetricType) -> Result<(), String> {
        match self.current_mut() {
            Some(family) if !family.is_typed => {
                family.raw.metric_type = metric_type;
                family.is_typed = true;
            }
            other => return Err(other.map(|family| family.raw.name.clone().into_owned()).unwrap_or_default()),
        }
        Ok(())
    }

    /// Marks the selected family as one that cannot be accepted.
    pub(super) fn refuse(&mut self, refusal: PushRefusal) {
        if let Some(family) = self.current_mut() {
            family.raw.refuse(refusal);
        }
    }

    /// Adds a sample to the selected family, and drains `labels`.
    pub(super) fn record(
        &mut self,
        labels: &mut Vec<RawLabel<'a>>,
        mark: Option<QuantileOrBound>,
        value: f64,
    ) -> Result<(), String> {
        let Some(Selected { family: at, part }) = self.selected else { return Err("invalid metric name".into()) };
        self.last_recorded = Some(at);
        let family = &mut self.families[at];
        family.is_typed = true;
        if family.raw.metric_type.own_label().is_none() {
            family.raw.push(labels, &ValueLayout::Single, &[value]);
            self.series_len += 1;
            return Ok(());
        }
        let before = family.distributions.len();
        let slot = family.slot(labels);
        self.series_len += family.distributions.len() - before;
        family.add(slot, part, mark, value)
    }

    /// Adds a sample whose line names no metric. As in Pushgateway, it belongs to the series before it in the same
    /// family, which mostly is then refused as a duplicate.
    pub(super) fn record_nameless(
        &mut self,
        labels: &[RawLabel<'a>],
        mark: Option<QuantileOrBound>,
        value: f64,
    ) -> Result<(), String> {
        let Some(selected) = self.selected.filter(|selected| self.last_recorded == Some(selected.family)) else {
            return Err("invalid metric name".into());
        };
        let family = &mut self.families[selected.family];
        let slot = family.slots.get(labels).copied();
        match (family.raw.metric_type.own_label(), slot) {
            (None, _) if !std::mem::replace(&mut family.is_repeated, true) => family.raw.repeat_last(),
            (None, _) => {}
            (Some(_), Some(slot)) if labels.is_empty() => return family.add(slot, selected.part, mark, value),
            (Some(_), _) => family.is_repeated = true,
        }
        Ok(())
    }

    /// The families that have metrics.
    pub(super) fn finish(self) -> Vec<RawFamily<'a>> {
        let finished = self.families.into_iter().map(Collected::finish);
        finished.filter(|family| !family.is_empty()).collect()
    }
}

impl<'a> Collected<'a> {
    /// The index of the series with these labels, which is added if it does not exist.
    fn slot(&mut self, labels: &mut Vec<RawLabel<'a>>) -> usize {
        if self.distributions.get(self.last_slot).is_some_and(|last| last.labels == *labels) {
            return self.last_slot;
        }
        let mut sorted = labels.clone();
        sorted.sort();
        self.last_slot = *self.slots.entry(sorted).or_insert_with(|| {
            let labels = std::mem::take(labels);
            self.distributions.push(Distribution { labels, ..Distribution::default() });
            self.distributions.len() - 1
        });
        self.last_slot
    }

    fn add(&mut self, slot: usize, part: SamplePart, mark: Option<QuantileOrBound>, value: f64) -> Result<(), String> {
        let is_summary = self.raw.metric_type == MetricType::Summary;
        let distribution = &mut self.distributions[slot];
        let special = self.raw.metric_type.own_label();
        let mark = mark.filter(|mark| special == Some(mark.0) && !mark.1.is_nan()).map(|mark| mark.1);
        match (part, mark) {
            (SamplePart::Sum, _) => distribution.sum = Some(value),
            (SamplePart::Count, _) if is_summary => distribution.count = Some(number::to_count(value)),
            (SamplePart::Body, Some(mark)) if is_summary => distribution.marks.push((Num(mark), value)),
            (SamplePart::Body, None) => {}
            (_, _) if value < 0.0 => {
                let what = if part == SamplePart::Count { "count" } else { "bucket population" };
                return Err(format!("negative {what} for histogram {:?}", truncated(&self.raw.name)));
            }
            (SamplePart::Count, _) => match number::as_count(value) {
                Some(count) => distribution.count = Some(count),
                None => distribution.count_float = Some(value),
            },
            // Adding zero makes zero of negative zero.
            (SamplePart::Body, Some(mark)) => distribution.marks.push((Num(mark), value + 0.0)),
        }
        Ok(())
    }

    fn finish(mut self) -> RawFamily<'a> {
        let metric_type = self.raw.metric_type;
        let mut values = Vec::new();
        for mut distribution in self.distributions {
            let points = distribution.finish(metric_type, &mut values);
            let raw_metric = distribution.raw_metric(metric_type, &points, &values);
            self.raw.push(&mut distribution.labels, &points, &values);
            if let Some(raw_metric) = raw_metric {
                self.raw.keep_raw_metric(raw_metric.into());
            }
        }
        if self.is_repeated && metric_type.own_label().is_some() {
            self.raw.repeat_last();
        }
        self.raw
    }
}

impl Distribution<'_> {
    /// The raw metric, if the values cannot express the distribution: both counts of a histogram were given, or a
    /// summary's count is too large for an `f64`.
    fn raw_metric(&self, metric_type: MetricType, points: &ValueLayout, values: &[f64]) -> Option<Vec<u8>> {
        let count = self.count?;
        if count as f64 as u64 == count && self.count_float.is_none() {
            return None;
        }
        // Text may have that many, but every reader of the raw metric would refuse it.
        if self.marks.len() >= PushLimits::default().parts_per_series_max {
            return None;
        }
        let mut metric = Metric::of(metric_type, points, values);
        if let Some(summary) = &mut metric.summary {
            summary.sample_count = Some(count);
        }
        if let Some(histogram) = &mut metric.histogram {
            histogram.sample_count = Some(count);
        }
        Some(prost::Message::encode_to_vec(&metric))
    }

    /// Lists the values, and returns their layout. If one count of a histogram is a float, all are.
    fn finish(&self, metric_type: MetricType, values: &mut Vec<f64>) -> ValueLayout {
        let count = self.count_float.or(self.count.map(|count| count as f64));
        values.clear();
        values.extend(self.marks.iter().map(|mark| mark.1));
        values.extend([self.sum.unwrap_or(0.0), count.unwrap_or(0.0)]);
        let marks = self.marks.iter().map(|mark| mark.0).collect();
        let (has_sum, has_count) = (self.sum.is_some(), count.is_some());
        if metric_type == MetricType::Summary {
            return ValueLayout::Summary { quantiles: marks, has_sum, has_count };
        }
        let float = self.count_float.is_some() || self.marks.iter().any(|mark| is_float_count(mark.1));
        ValueLayout::Histogram { bounds: marks, has_sum, has_count: has_count || float, float }
    }
}

fn is_float_count(value: f64) -> bool {
    number::as_count(value).is_none()
}
