//! The node's own metrics. They have Pushgateway's names where the meaning is the same, and `pushrelay_*` otherwise.
//!
//! Counters are kept here. The state of other parts (links, the store) is gathered at each scrape by the caller of
//! [`Metrics::gather`], with [`gauge`] and [`counter`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto;
use prometheus::{IntCounter, IntCounterVec, Opts};

use super::summary::WindowedSummary;
use crate::model::{Family, FamilyBuilder, LabelSet, MetricType, Revision, ValueLayout};
use crate::net::slots::Slots;
use crate::store::{Counts, Published};

/// Every family that a node of either role can show of itself. A push must agree with these types even before the
/// family exists. The times of pushes are not among them: they belong to groups, and are removed from pushes.
pub const OWN_FAMILIES: &[(&str, MetricType)] = &[
    ("process_cpu_seconds_total", MetricType::Counter),
    ("process_max_fds", MetricType::Gauge),
    ("process_open_fds", MetricType::Gauge),
    ("process_resident_memory_bytes", MetricType::Gauge),
    ("process_start_time_seconds", MetricType::Gauge),
    ("process_threads", MetricType::Gauge),
    ("process_virtual_memory_bytes", MetricType::Gauge),
    ("pushgateway_build_info", MetricType::Gauge),
    ("pushgateway_http_push_duration_seconds", MetricType::Summary),
    ("pushgateway_http_push_size_bytes", MetricType::Summary),
    ("pushgateway_http_requests_total", MetricType::Counter),
    ("pushrelay_certificate_expiry_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_certificate_warning_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_clock_ahead_groups_total", MetricType::Counter),
    ("pushrelay_clock_confirmed", MetricType::Gauge),
    ("pushrelay_clock_corrected_groups_total", MetricType::Counter),
    ("pushrelay_clock_unconfirmed_groups", MetricType::Gauge),
    ("pushrelay_connections", MetricType::Gauge),
    ("pushrelay_connections_failed_total", MetricType::Counter),
    ("pushrelay_connections_max", MetricType::Gauge),
    ("pushrelay_connections_shed_total", MetricType::Counter),
    ("pushrelay_credentials_last_read_successful", MetricType::Gauge),
    ("pushrelay_edge_build_info", MetricType::Gauge),
    ("pushrelay_edge_certificate_expiry_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_edge_clock_offset_seconds", MetricType::Gauge),
    ("pushrelay_edge_connected", MetricType::Gauge),
    ("pushrelay_edge_credentials_failing", MetricType::Gauge),
    ("pushrelay_edge_disk_bytes", MetricType::Gauge),
    ("pushrelay_edge_disk_free_bytes", MetricType::Gauge),
    ("pushrelay_edge_groups", MetricType::Gauge),
    ("pushrelay_edge_groups_max", MetricType::Gauge),
    ("pushrelay_edge_healthy", MetricType::Gauge),
    ("pushrelay_edge_held_back_families", MetricType::Gauge),
    ("pushrelay_edge_lag_seconds", MetricType::Gauge),
    ("pushrelay_edge_last_seen_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_edge_message_received_bytes_total", MetricType::Counter),
    ("pushrelay_edge_message_sent_bytes_total", MetricType::Counter),
    ("pushrelay_edge_own_certificate_expiry_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_edge_push_bytes_total", MetricType::Counter),
    ("pushrelay_edge_pushes_refused_total", MetricType::Counter),
    ("pushrelay_edge_pushes_total", MetricType::Counter),
    ("pushrelay_edge_refused_total", MetricType::Counter),
    ("pushrelay_edge_requests_refused_total", MetricType::Counter),
    ("pushrelay_edge_resident_memory_bytes", MetricType::Gauge),
    ("pushrelay_edge_resyncs_total", MetricType::Counter),
    ("pushrelay_edge_revision", MetricType::Gauge),
    ("pushrelay_edge_series", MetricType::Gauge),
    ("pushrelay_edge_series_max", MetricType::Gauge),
    ("pushrelay_edge_sessions_total", MetricType::Counter),
    ("pushrelay_edge_start_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_edge_store_commit_failures_total", MetricType::Counter),
    ("pushrelay_edge_store_failing", MetricType::Gauge),
    ("pushrelay_edge_trouble", MetricType::Gauge),
    ("pushrelay_edge_uplink_resyncs_total", MetricType::Counter),
    ("pushrelay_edge_wire_received_bytes_total", MetricType::Counter),
    ("pushrelay_edge_wire_sent_bytes_total", MetricType::Counter),
    ("pushrelay_hub_enrolments_total", MetricType::Counter),
    ("pushrelay_hub_refusals_total", MetricType::Counter),
    ("pushrelay_remote_write_bytes_total", MetricType::Counter),
    ("pushrelay_remote_write_dropped_total", MetricType::Counter),
    ("pushrelay_remote_write_failed_samples_total", MetricType::Counter),
    ("pushrelay_remote_write_fallbacks_total", MetricType::Counter),
    ("pushrelay_remote_write_last_success_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_remote_write_retried_total", MetricType::Counter),
    ("pushrelay_remote_write_samples_total", MetricType::Counter),
    ("pushrelay_remote_write_skipped_ticks_total", MetricType::Counter),
    ("pushrelay_remote_write_tick_duration_seconds", MetricType::Gauge),
    ("pushrelay_scrape_text_bytes", MetricType::Gauge),
    ("pushrelay_store_added_pushes_total", MetricType::Counter),
    ("pushrelay_store_checkpoints_total", MetricType::Counter),
    ("pushrelay_store_commit_failures_total", MetricType::Counter),
    ("pushrelay_store_commits_total", MetricType::Counter),
    ("pushrelay_store_expired_groups_total", MetricType::Counter),
    ("pushrelay_store_groups", MetricType::Gauge),
    ("pushrelay_store_held_back_families", MetricType::Gauge),
    ("pushrelay_store_idempotency_keys", MetricType::Gauge),
    ("pushrelay_store_mixed_type_names", MetricType::Gauge),
    ("pushrelay_store_repeated_pushes_total", MetricType::Counter),
    ("pushrelay_store_returned_groups_total", MetricType::Counter),
    ("pushrelay_store_revision", MetricType::Gauge),
    ("pushrelay_store_series", MetricType::Gauge),
    ("pushrelay_store_tombstones", MetricType::Gauge),
    ("pushrelay_uplink_acknowledged_revision", MetricType::Gauge),
    ("pushrelay_uplink_certificate_renewals_total", MetricType::Counter),
    ("pushrelay_uplink_clock_offset_seconds", MetricType::Gauge),
    ("pushrelay_uplink_connected", MetricType::Gauge),
    ("pushrelay_uplink_dial_failures_total", MetricType::Counter),
    ("pushrelay_uplink_held_back_families_total", MetricType::Counter),
    ("pushrelay_uplink_identity_mistaken", MetricType::Gauge),
    ("pushrelay_uplink_lag_seconds", MetricType::Gauge),
    ("pushrelay_uplink_message_received_bytes_total", MetricType::Counter),
    ("pushrelay_uplink_message_sent_bytes_total", MetricType::Counter),
    ("pushrelay_uplink_pending_revisions", MetricType::Gauge),
    ("pushrelay_uplink_reconnects_total", MetricType::Counter),
    ("pushrelay_uplink_resyncs_total", MetricType::Counter),
    ("pushrelay_uplink_sessions_total", MetricType::Counter),
    ("pushrelay_uplink_wire_received_bytes_total", MetricType::Counter),
    ("pushrelay_uplink_wire_sent_bytes_total", MetricType::Counter),
    ("pushrelay_web_certificate_expiry_timestamp_seconds", MetricType::Gauge),
    ("pushrelay_web_refused_total", MetricType::Counter),
    ("pushrelay_web_subject_requests_total", MetricType::Counter),
];

/// The methods of pushes that are observed.
const PUSH_METHODS: [&str; 2] = ["post", "put"];

/// The counters and summaries that the node updates itself.
pub struct Metrics {
    requests: IntCounterVec,
    request_cache: Mutex<BTreeMap<(u16, &'static str, &'static str), IntCounter>>,
    push_duration: [WindowedSummary; 2],
    push_size: [WindowedSummary; 2],
    process: ProcessCollector,
    store_failure: Mutex<StoreFailure>,
    /// Batches that were made durable.
    pub commits: IntCounter,
    /// Batches that could not be made durable; their pushers got 503.
    pub commit_failures: IntCounter,
    /// Checkpoints that were written.
    pub checkpoints: IntCounter,
    /// Groups that this node found expired and deleted.
    pub expired_groups: IntCounter,
    /// Groups that an edge brought back, and that may have been deleted while it was away.
    pub returned_groups: IntCounter,
}

/// Counts of pushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushCounts {
    /// Answered pushes.
    pub answered: u64,
    /// Those of them that got a status of 400 or more.
    pub refused: u64,
    /// Bytes of their bodies as sent.
    pub bytes: u64,
}

/// The last failure of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFailure {
    /// Whether no transaction succeeded since.
    pub is_failing: bool,
    /// The error; `None` if no transaction failed since the start.
    pub text: Option<String>,
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
            store_failure: Mutex::default(),
            commits: counter("pushrelay_store_commits_total", "Batches of writes made durable."),
            commit_failures: counter(
                "pushrelay_store_commit_failures_total",
                "Batches of writes that could not be made durable and were refused.",
            ),
            checkpoints: counter("pushrelay_store_checkpoints_total", "Checkpoints written."),
            expired_groups: counter(
                "pushrelay_store_expired_groups_total",
                "Groups that had expired and were deleted by this node.",
            ),
            returned_groups: counter(
                "pushrelay_store_returned_groups_total",
                "Groups that an edge brought back after their deletes were forgotten.",
            ),
        }
    }
}

impl Metrics {
    /// Counts a request. `method` is in lower case.
    pub fn request(&self, code: u16, handler: &'static str, method: &'static str) {
        let mut cache = self.request_cache.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = cache.entry((code, handler, method)).or_insert_with(|| {
            let code = code.to_string();
            self.requests.with_label_values(&[&*code, handler, method])
        });
        counter.inc();
    }

    /// Records the duration of a push and the size of its body as sent.
    pub fn push(&self, method: &str, seconds: f64, bytes: usize) {
        let Some(at) = PUSH_METHODS.iter().position(|m| *m == method) else { return };
        self.push_duration[at].observe(seconds);
        self.push_size[at].observe(bytes as f64);
    }

    /// The pushes answered so far.
    pub fn pushes(&self) -> PushCounts {
        let mut counts = PushCounts::default();
        let cache = self.request_cache.lock().unwrap_or_else(PoisonError::into_inner);
        for ((code, _, _), counter) in cache.iter().filter(|((_, handler, _), _)| *handler == "push") {
            counts.answered += counter.get();
            counts.refused += if *code >= 400 { counter.get() } else { 0 };
        }
        counts.bytes = self.push_size.iter().map(|size| size.sum() as u64).sum();
        counts
    }

    /// Records that a transaction failed, with the error.
    pub fn store_failed(&self, text: String) {
        *self.store_failure.lock().unwrap_or_else(PoisonError::into_inner) =
            StoreFailure { is_failing: true, text: Some(text) };
    }

    /// Records that a transaction is durable after one that failed.
    pub fn store_works(&self) {
        self.store_failure.lock().unwrap_or_else(PoisonError::into_inner).is_failing = false;
    }

    /// The last failure of the store.
    pub fn store_failure(&self) -> StoreFailure {
        self.store_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The families of these counters and summaries, in no order.
    pub fn gather(&self) -> Vec<Family> {
        let groups = [&self.expired_groups, &self.returned_groups];
        let counters = [&self.commits, &self.commit_failures, &self.checkpoints].into_iter().chain(groups);
        let counters = counters.flat_map(|counter| counter.collect());
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
/// The commit of this build; `unknown` for one without optimization.
pub const REVISION: &str = env!("PUSHRELAY_REVISION");
/// Version and commit.
pub const VERSION_AND_REVISION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PUSHRELAY_REVISION"), ")");

/// A gauge with these series. The labels of each may be in any order.
pub fn gauge<'a, L: AsRef<[(&'a str, &'a str)]>>(
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, f64)>,
) -> Family {
    singles(name, MetricType::Gauge, help, series)
}

/// A counter with these series. The labels of each may be in any order.
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
        builder.series(labels, &ValueLayout::Single, &[*value], None);
    }
    builder.finish().expect("a map has no duplicates")
}

fn summary(name: &str, help: &str, by_method: &[WindowedSummary; 2]) -> Option<Family> {
    let mut builder = FamilyBuilder::new(name, MetricType::Summary);
    builder.help(Some(help));
    let points = WindowedSummary::points();
    for (method, summary) in PUSH_METHODS.iter().zip(by_method).filter(|(_, summary)| !summary.is_empty()) {
        builder.series(&[("method", method)], &points, &summary.values(), None);
    }
    let family = builder.finish().expect("two methods");
    (family.schema().series_len() > 0).then_some(family)
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
        builder.series(&labels, &ValueLayout::Single, &[value], None);
    }
    builder.finish().expect("a registry has no duplicates")
}

/// The metrics of the connections to each kind of listener.
pub fn gather_connections(listeners: &[Slots]) -> Vec<Family> {
    let one = |name, help, value: fn(&Slots) -> usize| {
        gauge(name, help, listeners.iter().map(|slots| ([("face", slots.face())], value(slots) as f64)))
    };
    let shed = listeners.iter().flat_map(|slots| {
        slots.shed().map(|(reason, count)| ([("face", slots.face()), ("reason", reason)], count as f64))
    });
    let failed = listeners.iter().flat_map(|slots| {
        let counts = slots.failures().counts();
        counts.map(|(reason, count)| ([("face", slots.face()), ("reason", reason)], count as f64))
    });
    let failures = "Connections that ended before their first request or session.";
    vec![
        counter("pushrelay_connections_failed_total", failures, failed),
        one("pushrelay_connections", "Connections that are open.", Slots::open),
        one("pushrelay_connections_max", "Connections at once, at most.", Slots::connections_max),
        counter("pushrelay_connections_shed_total", "Connections closed or refused for lack of room.", shed),
    ]
}

/// The metrics of write timestamps.
pub fn gather_clock(published: &Published) -> Vec<Family> {
    let confirmed = "Whether a peer's clock has confirmed this node's since the start; 1 at a node without hubs.";
    let unconfirmed = "Groups whose last push has a write timestamp that no peer's clock has confirmed.";
    let corrected = "Groups whose write timestamps became later, since the clock was behind.";
    let ahead = "Groups pushed to while the clock was ahead: newer pushes elsewhere may have lost to these.";
    let is_confirmed = f64::from(u8::from(published.is_clock_confirmed()));
    vec![
        counter("pushrelay_clock_ahead_groups_total", ahead, [([], published.clock_ahead() as f64)]),
        gauge("pushrelay_clock_confirmed", confirmed, [([], is_confirmed)]),
        gauge("pushrelay_clock_unconfirmed_groups", unconfirmed, [([], published.unconfirmed_len() as f64)]),
        counter("pushrelay_clock_corrected_groups_total", corrected, [([], published.corrected() as f64)]),
    ]
}

/// The metrics of the store's contents.
pub fn gather_store(counts: Counts, head: Revision, suppressed: &[(Arc<LabelSet>, usize)]) -> Vec<Family> {
    let one = |name, help, value: f64| gauge(name, help, [([], value)]);
    let tombstones = "Deleted groups that a peer may still have to hear of.";
    let series = "Series shown, without those that tell the times of pushes.";
    let by_site = suppressed.iter().map(|(site, families)| {
        let labels: Vec<_> = site.iter().map(|label| (label.name, label.value)).collect();
        (labels, *families as f64)
    });
    let suppressed = "Families kept but not shown, since they conflict, by site.";
    let mixed = "Metric names that sites push with several types, of which one is shown.";
    let repeated = "Pushes that added nothing, since an Idempotency-Key marks them as repeats.";
    let revision = "Changes that the store has applied in its life.";
    vec![
        one("pushrelay_store_groups", "Groups held.", counts.groups as f64),
        one("pushrelay_store_tombstones", tombstones, counts.tombstones as f64),
        one("pushrelay_store_series", series, counts.series as f64),
        gauge("pushrelay_store_held_back_families", suppressed, by_site),
        one("pushrelay_store_mixed_type_names", mixed, counts.mixed_types as f64),
        one("pushrelay_store_revision", revision, head.0 as f64),
        counter("pushrelay_store_added_pushes_total", "Pushes that added to a group.", [([], counts.added as f64)]),
        counter("pushrelay_store_repeated_pushes_total", repeated, [([], counts.repeated as f64)]),
        one("pushrelay_store_idempotency_keys", "Idempotency-Keys that are remembered.", counts.keys as f64),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::super::certificates::{Certificates, CredentialsUser};
    use super::super::http::auth::access::AccessControl;
    use super::super::http::page_size::PageSize;
    use super::super::http::protection::Protection;
    use super::super::link::edge_metrics::gather_edges;
    use super::super::link::edges::EdgeRegistry;
    use super::super::link::refusals::RefusalCounts;
    use super::super::link::status::{UplinkStatus, gather_uplinks};
    use super::super::options::WebSecurity;
    use super::super::remote_write::{RemoteWriteStatus, gather_remote_writes};
    use super::*;
    use crate::gateway::body;
    use crate::net::certificate::Certificate;
    use crate::wire::Health;

    fn whole_health() -> Health {
        Health {
            started_seconds: Some(1),
            commit_failures: Some(1),
            store_failing: Some(1),
            disk_free_bytes: Some(1),
            disk_bytes: Some(1),
            groups: Some(1),
            groups_max: Some(1),
            series: Some(1),
            series_max: Some(1),
            pushes: Some(1),
            push_bytes: Some(1),
            pushes_refused: Some(1),
            certificate_expiry_seconds: Some(1),
            resident_bytes: Some(1),
            resyncs: Some(1),
            suppressed_families: Some(1),
            credentials_failing: Some(1),
            requests_refused: Some(1),
            store_failure: Some("no space".into()),
        }
    }

    /// A family of each name, below the heading that `docs/reference/metrics.md` has for those who show it.
    fn by_heading() -> [(&'static str, Vec<Family>); 6] {
        let metrics = Metrics::default();
        metrics.request(200, "push", "put");
        metrics.push("put", 0.5, 100);
        let edges = EdgeRegistry::default();
        edges.update("e", |edge| {
            edge.site = Arc::new(LabelSet::new([("IDC", "SYQ")]));
            edge.link.sessions = 1;
            edge.certificate_expiry_seconds = 1;
            edge.software = "pushrelay 1".into();
            edge.health = whole_health().into();
            edge.refused.insert("place".into(), 1)
        });
        let uplinks = [Arc::new(UplinkStatus::new("hub:1".into()))];
        let receiver = RemoteWriteStatus::example();
        let certificates = Certificates::default();
        let own = Certificate { common_name: None, not_before: UNIX_EPOCH, not_after: UNIX_EPOCH, uris: Vec::new() };
        certificates.in_use(&CredentialsUser::Hub, &own, [(Path::new("hub.pem"), &own)].into_iter());
        certificates.read(&CredentialsUser::Hub, true);
        let of_each_node = [
            metrics.gather(),
            certificates.gather(),
            vec![PageSize::default().gather()],
            gather_store(Counts::default(), Revision(1), &[(Arc::new(LabelSet::new([("IDC", "SYQ")])), 1)]),
            gather_clock(&Published::default()),
            // This family is shown only with TLS, for which this test has no files.
            vec![gauge("pushrelay_web_certificate_expiry_timestamp_seconds", "", [([], 1.0)])],
            Protection::new(&WebSecurity::default()).unwrap().gather(),
            vec![AccessControl::example().gather()],
            gather_connections(&[Slots::new("web", 1)]),
        ];
        let times = body::PUSH_TIME_FAMILIES.map(|name| gauge(name, "", [([("job", "a")], 1.0)]));
        [
            ("## For each group", times.into()),
            ("## At every node", of_each_node.concat()),
            // Enrolments are shown only with an authority, for which this test has no files.
            (
                "## At a hub",
                vec![
                    RefusalCounts::default().gather(),
                    counter("pushrelay_hub_enrolments_total", "", [([("result", "joined")], 1.0)]),
                ],
            ),
            ("## At a hub, for each edge", gather_edges(&edges, 1)),
            ("## At an edge, for each hub", gather_uplinks(&uplinks, Revision(1), 1)),
            ("## At a node with receivers of remote write, for each of them", gather_remote_writes(&[receiver])),
        ]
    }

    #[test]
    fn every_family_that_a_node_shows_of_itself_is_listed() {
        let [_, own @ ..] = by_heading();
        let listed: BTreeSet<_> = OWN_FAMILIES.iter().map(|(name, t)| (name.to_string(), t.name())).collect();
        let families = own.iter().flat_map(|(_, families)| families);
        let seen: BTreeSet<_> = families.map(|f| (f.name().to_string(), f.schema().metric_type().name())).collect();
        assert_eq!(seen.difference(&listed).collect::<Vec<_>>(), Vec::<&(String, &str)>::new());
        // The operating system may not provide all metrics of the process.
        let unseen: Vec<_> = listed.difference(&seen).filter(|(name, _)| !name.starts_with("process_")).collect();
        assert_eq!(unseen, Vec::<&(String, &str)>::new());
    }

    /// Heading, name, type and labels of each family, as the page lists them.
    type Row = (String, String, String, BTreeSet<String>);

    fn documented() -> Vec<Row> {
        let mut heading = "";
        let mut rows = Vec::new();
        for line in include_str!("../../docs/reference/metrics.md").lines() {
            if line.starts_with("## ") {
                heading = line;
            } else if line.starts_with("| `") {
                let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
                let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(|label| match label {
                    "site labels" => "IDC".to_owned(),
                    "labels of the group" => "job".to_owned(),
                    label => label.to_owned(),
                });
                assert!(!cells[5].is_empty(), "no meaning: {line}");
                rows.push((heading.to_owned(), cells[1].clone(), cells[2].clone(), labels.collect()));
            }
        }
        rows
    }

    #[test]
    fn the_metrics_reference_lists_every_family() {
        let shown = by_heading().into_iter().flat_map(|(heading, families)| {
            families.into_iter().map(move |family| {
                let (schema, name) = (family.schema(), family.name().to_string());
                let labels = schema.series().flat_map(|series| series.labels()).map(|(name, _)| name.to_owned());
                (heading.to_owned(), name, schema.metric_type().name().to_owned(), labels.collect())
            })
        });
        let (shown, documented): (BTreeSet<Row>, _) = (shown.collect(), documented());
        let rows: BTreeSet<Row> = documented.iter().cloned().collect();
        assert_eq!(rows.len(), documented.len(), "a family is listed twice");
        assert_eq!(shown, rows, "families (left) and rows of docs/reference/metrics.md (right)");
    }

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
