//! Collects the samples of one family.

use std::borrow::Cow;

use prost::Message;

use super::error::LineFault;
use super::line::{SampleLine, timestamp};
use crate::exposition::protobuf::is_raw_metric;
use crate::exposition::protobuf::message::{Exemplar, Metric, Timestamp};
use crate::exposition::raw::{PushRefusal, RawFamily, RawLabel};
use crate::exposition::{Limit, PushLimits, number};
use crate::model::{MetricType, Num, ValueLayout, truncated};

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMetricsType {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    Unknown,
}

/// The part of its series that a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleRole {
    Value,
    Bucket,
    Count,
    Sum,
    Created,
}

impl OpenMetricsType {
    const ALL: [Self; 8] = [
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
        Self::Unknown,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric_type| metric_type.name() == name)
    }

    /// The suffixes of its samples' names, with their roles.
    fn suffixes(self) -> &'static [(&'static str, SampleRole)] {
        match self {
            Self::Counter => &[("_total", SampleRole::Value), ("_created", SampleRole::Created)],
            Self::Gauge | Self::StateSet | Self::Unknown => &[("", SampleRole::Value)],
            Self::Histogram => &[
                ("_bucket", SampleRole::Bucket),
                ("_count", SampleRole::Count),
                ("_sum", SampleRole::Sum),
                ("_created", SampleRole::Created),
            ],
            Self::GaugeHistogram => {
                &[("_bucket", SampleRole::Bucket), ("_gcount", SampleRole::Count), ("_gsum", SampleRole::Sum)]
            }
            Self::Summary => &[
                ("", SampleRole::Value),
                ("_count", SampleRole::Count),
                ("_sum", SampleRole::Sum),
                ("_created", SampleRole::Created),
            ],
            Self::Info => &[("_info", SampleRole::Value)],
        }
    }

    /// The stored type, and the suffix of the stored name.
    fn stored(self) -> (MetricType, &'static str) {
        match self {
            Self::Counter => (MetricType::Counter, "_total"),
            Self::Gauge | Self::StateSet => (MetricType::Gauge, ""),
            Self::Histogram => (MetricType::Histogram, ""),
            Self::GaugeHistogram => (MetricType::GaugeHistogram, ""),
            Self::Summary => (MetricType::Summary, ""),
            Self::Info => (MetricType::Gauge, "_info"),
            Self::Unknown => (MetricType::Untyped, ""),
        }
    }
}

/// The family that is being read.
#[derive(Debug)]
pub(super) struct OpenFamily<'a> {
    pub name: Cow<'a, str>,
    /// `unknown` unless there is a TYPE line.
    pub metric_type: Option<OpenMetricsType>,
    pub help: Option<Cow<'a, str>>,
    pub unit: Option<&'a str>,
    /// The series read so far; `None` before the first sample.
    series: Option<RawFamily<'a>>,
    /// The series whose samples are being read.
    current: Option<OpenSeries<'a>>,
}

/// One series whose samples are on several lines.
#[derive(Debug, Default)]
struct OpenSeries<'a> {
    labels: Vec<RawLabel<'a>>,
    /// The total of a counter.
    value: Option<f64>,
    exemplar: Option<Exemplar>,
    /// The bounds and counts of buckets, or the quantiles and their values.
    marks: Vec<(f64, f64, Option<Exemplar>)>,
    sum: Option<f64>,
    count: Option<f64>,
    created: Option<Timestamp>,
}

impl<'a> OpenFamily<'a> {
    pub(super) fn new(name: Cow<'a, str>) -> Self {
        Self { name, metric_type: None, help: None, unit: None, series: None, current: None }
    }

    fn kind(&self) -> OpenMetricsType {
        self.metric_type.unwrap_or(OpenMetricsType::Unknown)
    }

    pub(super) fn has_samples(&self) -> bool {
        self.series.is_some()
    }

    /// The names that no other family of the body may use.
    pub(super) fn reserved_names(&self) -> impl Iterator<Item = String> {
        let suffixes = self.kind().suffixes().iter().map(|(suffix, _)| *suffix);
        // The text format shows a gauge histogram as a histogram.
        let shown: &[&str] = if self.kind() == OpenMetricsType::GaugeHistogram { &["_count", "_sum"] } else { &[] };
        let suffixes = suffixes.filter(|suffix| !suffix.is_empty()).chain(shown.iter().copied());
        suffixes.chain([""]).map(|suffix| format!("{}{suffix}", self.name))
    }

    /// The type and name, for messages.
    pub(super) fn described(&self) -> String {
        format!("{} {:?}", self.kind().name(), truncated(&self.name))
    }

    /// The role of a sample of that name; `None` if it does not belong to the family.
    fn role(&self, sample: &str) -> Option<SampleRole> {
        let suffix = sample.strip_prefix(&*self.name)?;
        self.kind().suffixes().iter().find(|(known, _)| *known == suffix).map(|(_, role)| *role)
    }

    pub(super) fn has_sample(&self, name: &str) -> bool {
        self.role(name).is_some()
    }

    /// Adds a sample that belongs to the family. Returns the number of series that are finished by it.
    pub(super) fn add(&mut self, mut sample: SampleLine<'a>, timestamps_refused: bool) -> Result<usize, LineFault> {
        let Some(role) = self.role(&sample.name) else { return Err(self.fault("has no such sample")) };
        let (metric_type, suffix) = self.kind().stored();
        let (name, help, unit) = (&self.name, &mut self.help, self.unit);
        let series = self.series.get_or_insert_with(|| {
            let name = if suffix.is_empty() { name.clone() } else { Cow::Owned(format!("{name}{suffix}")) };
            let mut family = RawFamily::new(name, metric_type);
            // Some clients write an empty HELP for metrics without help.
            family.help = help.take().filter(|help| !help.is_empty());
            family.unit = unit.map(Cow::Borrowed);
            family
        });
        if sample.has_timestamp && timestamps_refused {
            series.refuse(PushRefusal::Timestamp);
        }
        let may_have_exemplar = role == SampleRole::Bucket || self.kind() == OpenMetricsType::Counter;
        if sample.exemplar.is_some() && (!may_have_exemplar || role == SampleRole::Created) {
            return Err(self.fault("has an exemplar on a sample that is neither a total nor a bucket"));
        }
        match self.kind() {
            OpenMetricsType::Info if sample.value != 1.0 => return Err(self.fault("has a value other than 1")),
            OpenMetricsType::StateSet if sample.value != 0.0 && sample.value != 1.0 => {
                return Err(self.fault("has a value other than 0 and 1"));
            }
            OpenMetricsType::StateSet if !sample.labels.iter().any(|label| label.name == self.name) => {
                return Err(self.fault("has a sample without the label of its name, which says the state"));
            }
            OpenMetricsType::Gauge | OpenMetricsType::Info | OpenMetricsType::StateSet | OpenMetricsType::Unknown => {
                let Some(series) = &mut self.series else { return Ok(0) };
                series.push(&mut sample.labels, &ValueLayout::Single, &[sample.value]);
                return Ok(1);
            }
            _ => {}
        }
        let mark = self.take_mark(role, &mut sample.labels)?;
        let mut finished = 0;
        if self.current.as_ref().is_some_and(|current| current.labels != sample.labels) {
            finished = self.finish_series()?;
        }
        self.set(role, mark, sample)?;
        Ok(finished)
    }

    /// Takes the label `le` of a bucket or `quantile` of a quantile out of the labels.
    fn take_mark(&self, role: SampleRole, labels: &mut Vec<RawLabel<'a>>) -> Result<Option<f64>, LineFault> {
        let label = match (self.kind(), role) {
            (_, SampleRole::Bucket) => "le",
            (OpenMetricsType::Summary, SampleRole::Value) => "quantile",
            _ => return Ok(None),
        };
        let Some(at) = labels.iter().position(|own| own.name == label) else {
            return Err(self.fault(&format!("has a sample without the label {label:?}")));
        };
        let value = labels.remove(at).value;
        let mark = number::parse(value.as_bytes()).filter(|mark| match self.kind() {
            OpenMetricsType::Summary => (0.0..=1.0).contains(mark),
            _ => !mark.is_nan(),
        });
        let invalid = || self.fault(&format!("has the invalid label {label}={:?}", truncated(&value)));
        Ok(Some(mark.ok_or_else(invalid)?))
    }

    /// Sets a part of the current series.
    fn set(&mut self, role: SampleRole, mark: Option<f64>, sample: SampleLine<'a>) -> Result<(), LineFault> {
        let SampleLine { name, labels, value, exemplar, .. } = sample;
        let counts = matches!(role, SampleRole::Bucket | SampleRole::Count);
        if counts && number::as_count(value).is_none() {
            return Err(self.fault(&format!("has the count {value}, which is no integer from 0 on")));
        }
        let is_total = self.kind() == OpenMetricsType::Counter && role == SampleRole::Value;
        let is_sum = role == SampleRole::Sum;
        let may_be_negative = self.kind() == OpenMetricsType::GaugeHistogram;
        if (is_total || is_sum) && (value.is_nan() || (value < 0.0 && !may_be_negative)) {
            return Err(self.fault(&format!("has the total or sum {value}, which is negative or NaN")));
        }
        let current = self.current.get_or_insert_with(|| OpenSeries { labels, ..OpenSeries::default() });
        let before = match (role, mark) {
            (_, Some(mark)) => {
                let is_repeated = current.marks.last().is_some_and(|last| last.0 == mark);
                // Adding zero makes zero of negative zero.
                current.marks.push((mark, if counts { value + 0.0 } else { value }, exemplar));
                is_repeated
            }
            (SampleRole::Count, None) => current.count.replace(value + 0.0).is_some(),
            (SampleRole::Sum, None) => current.sum.replace(value).is_some(),
            (SampleRole::Created, None) => current.created.replace(timestamp(value)?).is_some(),
            (SampleRole::Value | SampleRole::Bucket, None) => {
                current.exemplar = exemplar;
                current.value.replace(value).is_some()
            }
        };
        if before { Err(self.fault(&format!("has the sample {:?} twice", truncated(&name)))) } else { Ok(()) }
    }

    /// Adds the series whose samples were read. Returns the number of series added.
    pub(super) fn finish_series(&mut self) -> Result<usize, LineFault> {
        let Some(current) = self.current.take() else { return Ok(0) };
        let (layout, values) = self.layout(&current)?;
        let (metric_type, _) = self.kind().stored();
        let raw_metric = current.raw_metric(metric_type, &layout, &values)?;
        let Some(series) = &mut self.series else { return Ok(0) };
        let mut labels = current.labels;
        series.push(&mut labels, &layout, &values);
        if let Some(raw_metric) = raw_metric {
            series.keep_raw_metric(raw_metric.into());
        }
        Ok(1)
    }

    /// Checks a series, and lists its values.
    fn layout(&self, series: &OpenSeries<'_>) -> Result<(ValueLayout, Vec<f64>), LineFault> {
        let OpenSeries { marks, sum, count, .. } = series;
        let (has_sum, has_count) = (sum.is_some(), count.is_some());
        let values = || marks.iter().map(|mark| mark.1);
        let nums = || marks.iter().map(|mark| Num(mark.0)).collect();
        match self.kind() {
            OpenMetricsType::Summary => {
                if marks.is_empty() && !has_sum && !has_count {
                    return Err(self.fault("has a series without a sample besides _created"));
                }
                let mut quantiles: Vec<f64> = marks.iter().map(|mark| mark.0).collect();
                quantiles.sort_by(f64::total_cmp);
                if quantiles.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(self.fault("has a quantile twice"));
                }
                let layout = ValueLayout::Summary { quantiles: nums(), has_sum, has_count };
                Ok((layout, values().chain([sum.unwrap_or(0.0), count.unwrap_or(0.0)]).collect()))
            }
            OpenMetricsType::Histogram | OpenMetricsType::GaugeHistogram => {
                let Some(last) = marks.last().filter(|last| last.0 == f64::INFINITY) else {
                    return Err(self.fault("has no bucket le=\"+Inf\", or not as the last one"));
                };
                if !marks.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
                    return Err(self.fault("has buckets whose bounds or counts do not grow"));
                }
                if has_sum != has_count {
                    return Err(self.fault("has one of sum and count without the other"));
                }
                if count.is_some_and(|count| count != last.1) {
                    return Err(self.fault("has a count that is not that of the bucket le=\"+Inf\""));
                }
                let has_negative = marks[0].0 < 0.0;
                let is_gauge = self.kind() == OpenMetricsType::GaugeHistogram;
                if has_sum && has_negative && !is_gauge {
                    return Err(self.fault("has a sum beside buckets of negative numbers"));
                }
                if sum.is_some_and(|sum| sum < 0.0) && !has_negative {
                    return Err(self.fault("has a negative sum without buckets of negative numbers"));
                }
                let layout = ValueLayout::Histogram { bounds: nums(), has_sum, has_count: true, float: false };
                Ok((layout, values().chain([sum.unwrap_or(0.0), last.1]).collect()))
            }
            _ => match series.value {
                Some(value) => Ok((ValueLayout::Single, vec![value])),
                None => Err(self.fault("has a series without _total")),
            },
        }
    }

    /// The family as it is stored, if it has series.
    pub(super) fn finish(mut self) -> Result<Option<RawFamily<'a>>, LineFault> {
        self.finish_series()?;
        if let Some(unit) = self.unit.filter(|unit| !unit.is_empty()) {
            let rest = self.name.strip_suffix(unit);
            if !rest.is_some_and(|rest| rest.ends_with('_')) {
                return Err(self.fault(&format!("has the unit {:?}, which does not end its name", truncated(unit))));
            }
            if matches!(self.kind(), OpenMetricsType::Info | OpenMetricsType::StateSet) {
                return Err(self.fault("has a unit, which this type must not have"));
            }
        }
        Ok(self.series)
    }

    /// The fault of a sample with the family's own name, where its type needs a suffix.
    pub(super) fn misnamed(&self) -> LineFault {
        let (_, suffix) = self.kind().stored();
        if let Some(bare) = self.name.strip_suffix(suffix).filter(|bare| !suffix.is_empty() && !bare.is_empty()) {
            let bare = truncated(bare);
            return self.fault(&format!("has the suffix of its samples: its TYPE line must name {bare:?}"));
        }
        let names: Vec<String> = self
            .kind()
            .suffixes()
            .iter()
            .map(|(suffix, _)| format!("{:?}", truncated(&format!("{}{suffix}", self.name)).to_string()))
            .collect();
        self.fault(&format!("has a sample without suffix: its samples are {}", names.join(", ")))
    }

    pub(super) fn fault(&self, problem: &str) -> LineFault {
        LineFault::Syntax(format!("the {} {problem}", self.described()))
    }
}

impl OpenSeries<'_> {
    /// The raw metric, if there is more than the values can express.
    fn raw_metric(
        &self,
        metric_type: MetricType,
        layout: &ValueLayout,
        values: &[f64],
    ) -> Result<Option<Vec<u8>>, LineFault> {
        let has_exemplar = self.exemplar.is_some() || self.marks.iter().any(|mark| mark.2.is_some());
        if self.created.is_none() && !has_exemplar {
            return Ok(None);
        }
        let mut metric = Metric::of(metric_type, layout, values);
        if let Some(counter) = &mut metric.counter {
            counter.exemplar.clone_from(&self.exemplar);
            counter.created_timestamp = self.created;
        }
        if let Some(summary) = &mut metric.summary {
            summary.created_timestamp = self.created;
        }
        if let Some(histogram) = &mut metric.histogram {
            histogram.created_timestamp = self.created;
            for (bucket, mark) in histogram.bucket.iter_mut().zip(&self.marks) {
                bucket.exemplar.clone_from(&mark.2);
            }
        }
        let raw_metric = metric.encode_to_vec();
        // Every reader of the raw metric has this bound.
        if is_raw_metric(&raw_metric) {
            Ok(Some(raw_metric))
        } else {
            Err(Limit::PartsPerSeries(PushLimits::default().parts_per_series_max).into())
        }
    }
}
