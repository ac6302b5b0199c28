//! The edges of a hub as metrics.

use super::edges::{EdgeRegistry, EdgeStatus};
use super::status::{LinkStatus, traffic};
use crate::model::{Family, FamilyBuilder, MetricType, ValueLayout};
use crate::node::metrics::{counter, gauge};
use crate::wire::Health;

/// An edge with the labels of its series.
type Row<'a> = (Vec<(&'a str, &'a str)>, &'a EdgeStatus);

/// A family of a number that edges report of themselves.
type Reported = (&'static str, MetricType, &'static str, fn(&Health) -> Option<u64>);

const REPORTED: &[Reported] = &[
    (
        "pushrelay_edge_start_timestamp_seconds",
        MetricType::Gauge,
        "When the edge started, in seconds since the epoch.",
        |health| health.started_seconds,
    ),
    (
        "pushrelay_edge_store_commit_failures_total",
        MetricType::Counter,
        "Batches of writes that the edge's disk refused.",
        |health| health.commit_failures,
    ),
    (
        "pushrelay_edge_store_failing",
        MetricType::Gauge,
        "Whether the last batch of writes at the edge failed.",
        |health| health.store_failing,
    ),
    (
        "pushrelay_edge_disk_free_bytes",
        MetricType::Gauge,
        "Bytes free on the file system of the edge's store.",
        |health| health.disk_free_bytes,
    ),
    ("pushrelay_edge_disk_bytes", MetricType::Gauge, "Bytes of the file system of the edge's store.", |health| {
        health.disk_bytes
    }),
    ("pushrelay_edge_groups", MetricType::Gauge, "Groups in the edge's store.", |health| health.groups),
    ("pushrelay_edge_groups_max", MetricType::Gauge, "Limit on the edge's groups.", |health| health.groups_max),
    ("pushrelay_edge_series", MetricType::Gauge, "Series that the edge shows.", |health| health.series),
    ("pushrelay_edge_series_max", MetricType::Gauge, "Limit on the edge's series.", |health| health.series_max),
    (
        "pushrelay_edge_pushes_total",
        MetricType::Counter,
        "Pushes that the edge answered, refused ones included.",
        |health| health.pushes,
    ),
    (
        "pushrelay_edge_push_bytes_total",
        MetricType::Counter,
        "Bytes of the bodies of these pushes, as sent.",
        |health| health.push_bytes,
    ),
    (
        "pushrelay_edge_pushes_refused_total",
        MetricType::Counter,
        "Pushes that the edge answered with a status of 400 or more.",
        |health| health.pushes_refused,
    ),
    (
        "pushrelay_edge_requests_refused_total",
        MetricType::Counter,
        "Requests that the edge refused for their password or its rate limit.",
        |health| health.requests_refused,
    ),
    (
        "pushrelay_edge_own_certificate_expiry_timestamp_seconds",
        MetricType::Gauge,
        "When the first of the certificates in the edge's files expires, in seconds since the epoch.",
        |health| health.certificate_expiry_seconds,
    ),
    ("pushrelay_edge_resident_memory_bytes", MetricType::Gauge, "Resident memory of the edge's process.", |health| {
        health.resident_bytes
    }),
    (
        "pushrelay_edge_uplink_resyncs_total",
        MetricType::Counter,
        "Sessions of the edge with any hub that began with a resync.",
        |health| health.resyncs,
    ),
    (
        "pushrelay_edge_held_back_families",
        MetricType::Gauge,
        "Families that the edge keeps but does not show.",
        |health| health.suppressed_families,
    ),
    (
        "pushrelay_edge_credentials_failing",
        MetricType::Gauge,
        "Whether files of credentials at the edge have changed and cannot be used.",
        |health| health.credentials_failing,
    ),
];

/// The edges as metrics, each with its name and its site labels. A retired edge has none.
pub fn gather_edges(edges: &EdgeRegistry, now_ns: u64) -> Vec<Family> {
    let edges = edges.list();
    let mut rows: Vec<Row<'_>> = edges
        .iter()
        .filter(|(_, edge)| edge.retired_ns == 0)
        .map(|(name, edge)| {
            let site = edge.site.iter().map(|label| (label.name, label.value)).filter(|label| label.0 != "edge");
            let mut labels: Vec<_> = site.chain([("edge", name.as_str())]).collect();
            labels.sort_unstable();
            (labels, edge)
        })
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    // All families have the same labels: sorted once, they need no sorting each.
    rows.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    // The values of an edge that never had a session are unknown, not zero.
    let heard: Vec<Row<'_>> = rows.iter().filter(|(_, edge)| edge.link.sessions > 0).cloned().collect();
    let mut families = states(&rows, now_ns);
    let each = |name, help, value: fn(&EdgeStatus, u64) -> Option<f64>| {
        family(name, MetricType::Gauge, help, &heard, |edge| value(edge, now_ns))
    };
    families.extend([
        each(
            "pushrelay_edge_last_seen_timestamp_seconds",
            "When the edge was last heard, in seconds since the epoch.",
            |edge, _| Some(edge.link.last_seen_ns as f64 / 1e9),
        ),
        each(
            "pushrelay_edge_lag_seconds",
            "Age of the edge's oldest change that is known to be missing here; 0 if none is known.",
            |edge, now_ns| Some(edge.lag_ns(now_ns) as f64 / 1e9),
        ),
        each("pushrelay_edge_clock_offset_seconds", "The edge's wall clock minus this hub's.", |edge, _| {
            Some(edge.link.clock_offset_ns as f64 / 1e9)
        }),
        each(
            "pushrelay_edge_certificate_expiry_timestamp_seconds",
            "When the edge's certificate expires, in seconds since the epoch.",
            |edge, _| Some(edge.certificate_expiry_seconds as f64).filter(|seconds| *seconds > 0.0),
        ),
        each(
            "pushrelay_edge_revision",
            "The revision of the edge's store up to which its changes are here.",
            |edge, _| Some(edge.link.received.0 as f64),
        ),
    ]);
    families.extend(REPORTED.iter().map(|(name, metric_type, help, value)| {
        family(name, *metric_type, help, &heard, |edge| value(&edge.health).map(|value| value as f64))
    }));
    families.extend(traffic("pushrelay_edge", &links(&heard)));
    families
}

/// The families that every edge has, even one that never connected.
fn states(rows: &[Row<'_>], now_ns: u64) -> Vec<Family> {
    let troubles: Vec<_> = rows.iter().map(|(labels, edge)| (labels, edge.troubles(now_ns))).collect();
    let healthy = troubles.iter().map(|(labels, troubles)| (labels, f64::from(u8::from(troubles.is_empty()))));
    let troubles = troubles.iter().flat_map(|(labels, troubles)| {
        troubles.iter().map(|trouble| (with(labels, ("reason", trouble.kind.reason())), 1.0))
    });
    let refused = rows.iter().flat_map(|(labels, edge)| {
        edge.refused.iter().map(|(reason, count)| (with(labels, ("reason", reason)), *count as f64))
    });
    let versions = rows.iter().filter(|(_, edge)| !edge.software.is_empty());
    let versions = versions.map(|(labels, edge)| {
        let version = edge.software.strip_prefix("pushrelay ").unwrap_or(&edge.software);
        (with(labels, ("version", version)), 1.0)
    });
    vec![
        family(
            "pushrelay_edge_connected",
            MetricType::Gauge,
            "Whether the edge is connected to this hub.",
            rows,
            |edge| Some(f64::from(u8::from(edge.link.connected))),
        ),
        gauge(
            "pushrelay_edge_healthy",
            "Whether the edge is connected and has no trouble.",
            healthy.map(|(labels, value)| (labels.as_slice(), value)),
        ),
        gauge("pushrelay_edge_trouble", "The troubles of the edge, by reason; always 1.", troubles),
        gauge("pushrelay_edge_build_info", "The version of the edge's software; always 1.", versions),
        counter("pushrelay_edge_refused_total", "Sessions refused under the edge's name.", refused),
    ]
}

/// The labels of an edge and one more, which counts before a site label of the same name.
fn with<'a>(labels: &[(&'a str, &'a str)], more: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().filter(|label| label.0 != more.0).chain([more]).collect()
}

/// A family with a series for each edge that has a value.
fn family(
    name: &str,
    metric_type: MetricType,
    help: &str,
    rows: &[Row<'_>],
    value: impl Fn(&EdgeStatus) -> Option<f64>,
) -> Family {
    let mut builder = FamilyBuilder::new(name, metric_type);
    builder.help(Some(help));
    for (labels, edge) in rows {
        if let Some(value) = value(edge) {
            builder.series(labels, &ValueLayout::Single, &[value], None);
        }
    }
    builder.finish().expect("each edge has its own name")
}

fn links<'a>(rows: &[Row<'a>]) -> Vec<(Vec<(&'a str, &'a str)>, &'a LinkStatus)> {
    rows.iter().map(|(labels, edge)| (labels.clone(), &edge.link)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LabelSet;

    #[test]
    fn an_edge_that_never_connected_is_shown_as_missing_and_without_lag() {
        let edges = EdgeRegistry::default();
        edges.expect("syq-1", &LabelSet::new([("IDC", "SYQ")]));
        let series = |families: &[Family], name: &str| {
            families.iter().find(|family| family.name().as_ref() == name).map_or(0, |family| family.values().len())
        };
        let families = gather_edges(&edges, 1_000);
        assert_eq!(series(&families, "pushrelay_edge_connected"), 1);
        assert_eq!(series(&families, "pushrelay_edge_lag_seconds"), 0);
        edges.update("syq-1", |edge| edge.link.sessions = 1);
        assert_eq!(series(&gather_edges(&edges, 1_000), "pushrelay_edge_lag_seconds"), 1);
    }
}
