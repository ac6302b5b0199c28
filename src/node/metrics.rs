//! The node's own metrics. Names are Pushgateway's where they mean the same, `pushrelay_*` otherwise.
//!
//! Counters live here; what is the state of something else (links, the store) is asked of it when scraped, by the caller
//! of [`Metrics::gather`], with [`gauge`] and [`counter`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto;
use prometheus::{IntCounter, IntCounterVec, Opts};

use super::summary::Summary;
use crate::model::{Family, FamilyBuilder, MetricType, Points};

/// Methods under which pushes are observed.
const PUSH_METHODS: [&str; 2] = ["post", "put"];

/// See the module's documentation.
pub struct Metrics {
    requests: IntCounterVec,
    request_cache: Mutex<BTreeMap<(u16, &'static str, &'static str), IntCounter>>,
    push_duration: [Summary; 2],
    push_size: [Summary; 2],
    process: ProcessCollector,
    /// Batches made durable.
    pub commits: IntCounter,
    /// Batches that could not be made durable; their pushers got 503.
    pub commit_failures: IntCounter,
    /// Checkpoints written.
    pub checkpoints: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("a valid name");
        let requests = Opts::new(
            "pushgateway_http_requests_total",
            "Total HTTP requests processed by the Pushgateway, excluding scrapes.",
        );
        Self {
            requests: IntCounterVec::new(requests, &["code", "handler", "method"]).expect("valid names"),
            request_cache: Mutex::default(),
            push_duration: Default::default(),
            push_size: Default::default(),
            process: ProcessCollector::for_self(),
            commits: counter("pushrelay_store_commits_total", "Batches of writes made durable."),
            commit_failures: counter(
                "pushrelay_store_commit_failures_total",
                "Batches of writes that could not be made durable and were refused.",
            ),
            checkpoints: counter("pushrelay_store_checkpoints_total", "Checkpoints written."),
        }
    }
}

impl Metrics {
    /// Counts an answered request. `method` is in lower case.
    pub fn request(&self, code: u16, handler: &'static str, method: &'static str) {
        let mut cache = self.request_cache.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = cache.entry((code, handler, method)).or_insert_with(|| {
            let code = code.to_string();
            self.requests.with_label_values(&[&*code, handler, method])
        });
        counter.inc();
    }

    /// Notes how long a push took, and the size of its body as sent.
    pub fn push(&self, method: &str, seconds: f64, bytes: usize) {
        let Some(at) = PUSH_METHODS.iter().position(|m| *m == method) else { return };
        self.push_duration[at].observe(seconds);
        self.push_size[at].observe(bytes as f64);
    }

    /// All families of this room, in no order.
    pub fn gather(&self) -> Vec<Family> {
        let counters = [&self.commits, &self.commit_failures, &self.checkpoints];
        let counters = counters.into_iter().flat_map(|counter| counter.collect());
        let mut families: Vec<Family> =
            self.requests.collect().into_iter().chain(self.process.collect()).chain(counters).map(convert).collect();
        let durations = "HTTP request duration for pushes to the Pushgateway.";
        families.extend(summary("pushgateway_http_push_duration_seconds", durations, &self.push_duration));
        let sizes = "HTTP request size for pushes to the Pushgateway.";
        families.extend(summary("pushgateway_http_push_size_bytes", sizes, &self.push_size));
        let build = [("revision", REVISION), ("version", VERSION)];
        let help = "A metric with a constant '1' value labeled by version and revision of this Pushgateway.";
        families.push(gauge("pushgateway_build_info", help, [(&build[..], 1.0)]));
        families
    }
}

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision it was built from, if the builder said so in `PUSHRELAY_REVISION`.
pub const REVISION: &str = match option_env!("PUSHRELAY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// A gauge with these series, each with its labels in any order.
pub fn gauge<'a, L: AsRef<[(&'a str, &'a str)]>>(
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, f64)>,
) -> Family {
    singles(name, MetricType::Gauge, help, series)
}

/// A counter with these series, each with its labels in any order.
pub fn counter<'a, L: AsRef<[(&'a str, &'a str)]>>(
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, f64)>,
) -> Family {
    singles(name, MetricType::Counter, help, series)
}

fn singles<'a, L: AsRef<[(&'a str, &'a str)]>>(
    name: &str,
    metric_type: MetricType,
    help: &str,
    series: impl IntoIterator<Item = (L, f64)>,
) -> Family {
    let mut seen = BTreeMap::new();
    for (labels, value) in series {
        let mut labels = labels.as_ref().to_vec();
        labels.sort();
        labels.dedup_by(|a, b| a.0 == b.0);
        seen.insert(labels, value);
    }
    let mut builder = FamilyBuilder::new(name, metric_type);
    builder.help(Some(help));
    for (labels, value) in &seen {
        builder.series(labels, &Points::Single, &[*value], None);
    }
    builder.finish().expect("a map has no duplicates")
}

fn summary(name: &str, help: &str, by_method: &[Summary; 2]) -> Option<Family> {
    let mut builder = FamilyBuilder::new(name, MetricType::Summary);
    builder.help(Some(help));
    let points = Summary::points();
    for (method, summary) in PUSH_METHODS.iter().zip(by_method).filter(|(_, summary)| !summary.is_empty()) {
        builder.series(&[("method", method)], &points, &summary.values(), None);
    }
    let family = builder.finish().expect("two methods");
    (family.shape().series_len() > 0).then_some(family)
}

fn convert(family: proto::MetricFamily) -> Family {
    let is_counter = family.get_field_type() == proto::MetricType::COUNTER;
    let metric_type = if is_counter { MetricType::Counter } else { MetricType::Gauge };
    let mut builder = FamilyBuilder::new(family.name(), metric_type);
    builder.help(Some(family.help()));
    for metric in family.get_metric() {
        let mut labels: Vec<(&str, &str)> = metric.get_label().iter().map(|l| (l.name(), l.value())).collect();
        labels.sort();
        let value = if is_counter { metric.get_counter().get_value() } else { metric.get_gauge().get_value() };
        builder.series(&labels, &Points::Single, &[value], None);
    }
    builder.finish().expect("a registry has no duplicates")
}

/// Names and types that pushes must agree with, of families that may not be there from the start.
pub fn reserved(gathered: &[Family]) -> Vec<(String, MetricType)> {
    let summaries = ["pushgateway_http_push_duration_seconds", "pushgateway_http_push_size_bytes"];
    let late = summaries.into_iter().map(|name| (name.to_string(), MetricType::Summary));
    let counter = (String::from("pushgateway_http_requests_total"), MetricType::Counter);
    let now = gathered.iter().map(|f| (f.name().to_string(), f.shape().metric_type()));
    late.chain([counter]).chain(now).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushgateway_s_names_are_there() {
        let metrics = Metrics::default();
        metrics.request(200, "push", "put");
        metrics.push("put", 0.5, 100);
        let names: Vec<String> = metrics.gather().iter().map(|f| f.name().to_string()).collect();
        for name in [
            "pushgateway_http_requests_total",
            "pushgateway_http_push_duration_seconds",
            "pushgateway_http_push_size_bytes",
            "pushgateway_build_info",
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}
