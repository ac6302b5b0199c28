//! Random request sequences: pushes in text and protobuf, valid and invalid, and deletes. There are few groups and few
//! names, so that they collide. A seed always gives the same sequence.
//!
//! There is neither HELP nor a family without metrics: if groups disagree about the help, or about the type of an empty
//! family, Pushgateway's answer is random. Nor is there a known difference: no label is empty in one series and absent
//! in another, no bucket or quantile is there twice, and native histograms keep the rules.

use std::collections::BTreeSet;

use crate::case::{Case, Step};
use crate::metrics::{
    Bucket, BucketSpan, Counter, Exemplar, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary,
    Value,
};

const GROUPS: &[&str] = &[
    "job/a",
    "job/a/instance/x",
    "job/a/instance@base64/eA",
    "job/a/k/v",
    "job/a/k/v/instance/x",
    "job/a/instance/x/k/v",
    "job/c/k@base64/=",
    "job/b",
    "job@base64/Yg",
    "job/b/path@base64/L3Zhci90bXA",
];
const NAMES: &[&str] = &["m", "n", "h", "s", "h_count", "s_sum", "m_total"];
const LABELS: &[(&str, &str)] =
    &[("k", "v"), ("k", "w"), ("instance", "x"), ("instance", "y"), ("job", "z"), ("l", "b"), ("l", "a\\b\"c\nd é")];
const VALUES: &[f64] = &[0.0, 1.0, -1.0, 0.1, 1e21, 1.5e-9, 123456789.0, 3.0, f64::INFINITY, f64::NAN];
/// The invalid characters that are inserted into a text.
const SPOILERS: &[u8] = b" \t\n{}\"=,#\\_:.+-eE0aX";

/// The sequence of a seed.
pub fn case(seed: u64) -> Case {
    let mut random = Random(seed);
    let len = 2 + random.below(6);
    Case { steps: (0..len).map(|_| random.step()).collect() }
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in so many times.
    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    fn step(&mut self) -> Step {
        let group = self.pick(GROUPS);
        let method = self.pick(&["PUT", "PUT", "POST", "POST", "POST", "DELETE"]);
        let request = format!("{method} /metrics/{group}");
        if method == "DELETE" {
            return Step::new(&request, None, None);
        }
        let mut names = NAMES.to_vec();
        let families = (0..self.below(4)).map(|_| names.remove(self.below(names.len() as u64) as usize));
        let families: Vec<&str> = families.collect();
        if self.one_in(3) {
            let families = families.iter().map(|name| self.family(name)).collect();
            return Step::new(&request, None, Some(families));
        }
        let mut text: String = families.iter().map(|name| self.family_text(name)).collect();
        if self.one_in(4) && !text.is_empty() {
            self.spoil(&mut text);
        }
        Step::new(&request, Some(text), None)
    }

    /// Mostly each name has its own type.
    fn metric_type(&mut self, name: &str) -> MetricType {
        if self.one_in(8) {
            return self.pick(&[MetricType::Gauge, MetricType::Counter, MetricType::Untyped, MetricType::Summary]);
        }
        match name {
            "h" => MetricType::Histogram,
            "s" => MetricType::Summary,
            "m_total" => MetricType::Counter,
            "m" => MetricType::Gauge,
            _ => MetricType::Untyped,
        }
    }

    fn labels(&mut self) -> Vec<(&'static str, &'static str)> {
        let mut labels = Vec::new();
        while self.one_in(2) {
            let label = self.pick(LABELS);
            if self.one_in(20) || labels.iter().all(|(name, _)| *name != label.0) {
                labels.push(label);
            }
        }
        labels
    }

    fn family_text(&mut self, name: &str) -> String {
        let metric_type = self.metric_type(name);
        let type_name = metric_type.name().to_lowercase();
        let mut text = String::new();
        if metric_type != MetricType::Untyped || self.one_in(2) {
            text += &format!("# TYPE {name} {type_name}\n");
        }
        let mut seen = BTreeSet::new();
        for _ in 0..1 + self.below(3) {
            let labels = self.labels();
            let sorted: BTreeSet<_> = labels.iter().copied().collect();
            if matches!(metric_type, MetricType::Histogram | MetricType::Summary) && !seen.insert(sorted) {
                continue;
            }
            match metric_type {
                MetricType::Histogram => {
                    for bound in ["0.5", "1", "+Inf"].iter().take(1 + self.below(3) as usize) {
                        text += &self.sample(&format!("{name}_bucket"), &labels, Some(("le", bound)));
                    }
                    text += &self.sample(&format!("{name}_sum"), &labels, None);
                    text += &self.sample(&format!("{name}_count"), &labels, None);
                }
                MetricType::Summary => {
                    text += &self.sample(name, &labels, Some(("quantile", "0.5")));
                    text += &self.sample(&format!("{name}_count"), &labels, None);
                }
                _ => text += &self.sample(name, &labels, None),
            }
        }
        text
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], extra: Option<(&str, &str)>) -> String {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().chain(&extra).map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let value = if name.ends_with("_count") || name.ends_with("_bucket") {
            self.below(9).to_string()
        } else {
            self.pick(VALUES).to_string()
        };
        let timestamp = if self.one_in(60) { " 1000" } else { "" };
        format!("{name}{labels} {value}{timestamp}\n")
    }

    fn spoil(&mut self, text: &mut String) {
        let places: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii()).map(|(at, _)| at).collect();
        let place = self.pick(&places);
        match self.below(3) {
            0 => drop(text.remove(place)),
            1 => text.insert(place, char::from(self.pick(SPOILERS))),
            _ => text.replace_range(place..=place, &char::from(self.pick(SPOILERS)).to_string()),
        }
    }

    fn family(&mut self, name: &str) -> MetricFamily {
        let metric_type = self.metric_type(name);
        let metric = (0..1 + self.below(3)).map(|_| self.metric(metric_type)).collect();
        let unit = self.one_in(4).then(|| "seconds".to_owned());
        MetricFamily { name: Some(name.to_owned()), help: None, metric_type: Some(metric_type.into()), metric, unit }
    }

    fn metric(&mut self, metric_type: MetricType) -> Metric {
        let pair = |(name, value): (&str, &str)| LabelPair { name: Some(name.into()), value: Some(value.into()) };
        let label: Vec<LabelPair> = self.labels().into_iter().map(pair).collect();
        let timestamp_ms = self.one_in(60).then_some(1000);
        let mut metric = Metric { label, timestamp_ms, ..Metric::default() };
        // Now and then a value of another kind than the type says.
        let kind = if self.one_in(20) { MetricType::Gauge } else { metric_type };
        match kind {
            MetricType::Counter => {
                let exemplar = self.one_in(3).then(|| Exemplar { value: Some(1.0), ..Exemplar::default() });
                metric.counter = Some(Counter { value: Some(self.pick(VALUES)), exemplar, created_timestamp: None });
            }
            MetricType::Gauge => metric.gauge = Some(Value { value: Some(self.pick(VALUES)) }),
            MetricType::Untyped => metric.untyped = Some(Value { value: Some(self.pick(VALUES)) }),
            MetricType::Summary => metric.summary = Some(self.summary()),
            MetricType::Histogram | MetricType::GaugeHistogram => metric.histogram = Some(self.histogram()),
        }
        metric
    }

    fn summary(&mut self) -> Summary {
        let quantile = Quantile { quantile: Some(0.5), value: Some(self.pick(VALUES)) };
        let quantile = vec![quantile; self.below(2) as usize];
        Summary {
            sample_count: Some(self.below(9)),
            sample_sum: Some(self.pick(VALUES)),
            quantile,
            created_timestamp: None,
        }
    }

    fn histogram(&mut self) -> Histogram {
        let mut histogram = Histogram {
            sample_count: Some(self.below(9)),
            sample_sum: Some(self.pick(VALUES)),
            ..Histogram::default()
        };
        if self.one_in(2) {
            let bucket =
                |bound: f64| Bucket { cumulative_count: Some(3), upper_bound: Some(bound), ..Bucket::default() };
            histogram.bucket =
                [0.5, 1.0, f64::INFINITY].iter().take(self.below(4) as usize).map(|b| bucket(*b)).collect();
        } else {
            histogram.schema = Some(self.below(6) as i32 - 1);
            histogram.zero_threshold = Some(0.001);
            histogram.zero_count = Some(self.below(3));
            histogram.positive_span = vec![BucketSpan { offset: Some(self.below(5) as i32 - 2), length: Some(2) }];
            histogram.positive_delta = vec![2, -1];
            histogram.sample_count = histogram.zero_count.map(|zero| zero + 3);
        }
        histogram
    }
}
