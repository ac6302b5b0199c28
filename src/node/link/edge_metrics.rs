//! The edges of a hub as metrics.

use super::edges::{EdgeRegistry, EdgeStatus};
use super::status::{LinkStatus, traffic};
use crate::model::Family;
use crate::node::metrics::{counter, gauge};

/// The edges as metrics, each with its name and its site labels.
pub fn gather_edges(edges: &EdgeRegistry, now_ns: u64) -> Vec<Family> {
    let edges = edges.list();
    if edges.is_empty() {
        return Vec::new();
    }
    let rows: Vec<(Vec<(&str, &str)>, &EdgeStatus)> = edges
        .iter()
        .map(|(name, edge)| {
            let site = edge.site.iter().map(|label| (label.name, label.value)).filter(|label| label.0 != "edge");
            (site.chain([("edge", name.as_str())]).collect(), edge)
        })
        .collect();
    let each = |value: fn(&EdgeStatus) -> f64| rows.iter().map(move |(labels, edge)| (labels.clone(), value(edge)));
    // For an edge that never connected, these values are unknown, not zero.
    let heard = || rows.iter().filter(|(_, edge)| edge.link.last_seen_ns > 0);
    let each_heard = |value: fn(&EdgeStatus) -> f64| heard().map(move |(labels, edge)| (labels.clone(), value(edge)));
    let refused = rows.iter().flat_map(|(labels, edge)| {
        edge.refused.iter().map(move |(reason, count)| {
            let labels: Vec<_> = labels.iter().copied().chain([("reason", reason.as_str())]).collect();
            (labels, *count as f64)
        })
    });
    let mut families = vec![
        gauge(
            "pushrelay_edge_connected",
            "Whether the edge is connected to this hub.",
            each(|edge| f64::from(u8::from(edge.link.connected))),
        ),
        gauge(
            "pushrelay_edge_last_seen_timestamp_seconds",
            "When the edge was last heard, in seconds since the epoch.",
            each(|edge| edge.link.last_seen_ns as f64 / 1e9),
        ),
        gauge(
            "pushrelay_edge_lag_seconds",
            "Age of the edge's oldest change that is not here yet; of an edge that is away, how long it has not been heard.",
            heard().map(|(labels, edge)| (labels.clone(), edge.lag_ns(now_ns) as f64 / 1e9)),
        ),
        gauge(
            "pushrelay_edge_clock_offset_seconds",
            "The edge's wall clock minus this hub's.",
            each_heard(|edge| edge.link.clock_offset_ns as f64 / 1e9),
        ),
        gauge(
            "pushrelay_edge_certificate_expiry_timestamp_seconds",
            "When the edge's certificate expires, in seconds since the epoch.",
            each_heard(|edge| edge.certificate_expiry_seconds as f64),
        ),
        gauge(
            "pushrelay_edge_revision",
            "The revision of the edge's store up to which its changes are here.",
            each(|edge| edge.link.received.0 as f64),
        ),
    ];
    families.extend(traffic("pushrelay_edge", &each_link(&rows, |edge| &edge.link)));
    families.push(counter("pushrelay_edge_refused_total", "Sessions refused under the edge's name.", refused));
    families
}

fn each_link<'a>(
    rows: &[(Vec<(&'a str, &'a str)>, &'a EdgeStatus)],
    link: fn(&EdgeStatus) -> &LinkStatus,
) -> Vec<(Vec<(&'a str, &'a str)>, &'a LinkStatus)> {
    rows.iter().map(|(labels, edge)| (labels.clone(), link(edge))).collect()
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
        edges.update("syq-1", |edge| edge.link.last_seen_ns = 400);
        assert_eq!(series(&gather_edges(&edges, 1_000), "pushrelay_edge_lag_seconds"), 1);
    }
}
