//! The data of an edge's page.

use super::auth::access::{Grant, is_in};
use super::busiest::busiest;
use super::service::Service;
use crate::gateway::HttpReply;
use crate::gateway::instant::span;
use crate::gateway::pages::{EdgeDetail, EdgePage, Plot};
use crate::gateway::rights::Right;
use crate::model::LabelSet;
use crate::net::address::shown;
use crate::node::link::edges::EdgeStatus;
use crate::node::link::history::EdgeSample;

impl Service {
    /// The page of one edge.
    pub(super) fn edge_page(&self, name: &str, grant: &Grant) -> HttpReply {
        let now_ns = self.clock.wall_ns();
        let Some(edge) = self.edges.get(name) else {
            return HttpReply::error(404, format_args!("there is no edge {name:?} on the roll"));
        };
        let (published, scope) = (self.committer.published(), grant.scope(Right::Read));
        let mut entries = published.entries();
        entries.retain(|entry| {
            entry.group.is_live() && entry.id().site == edge.site && is_in(scope.as_ref(), entry.shown())
        });
        let hour = self.edges.histories.of(name, edge.reading(now_ns), now_ns);
        let detail = EdgeDetail {
            facts: facts(&edge, now_ns),
            plots: plots(&hour),
            groups: if *edge.site == LabelSet::default() { Vec::new() } else { busiest(entries, now_ns) },
            edge: self.edge_summary(name.to_owned(), edge, now_ns),
        };
        EdgePage::new(detail, self.rules.body.names, &self.rules.page_frame, self.rules.admin_api && grant.is_admin())
            .reply()
    }
}

fn plots(hour: &[EdgeSample]) -> Vec<Plot> {
    let rates: Vec<_> = hour.iter().map(|sample| sample.pushes_per_second.map(f64::from)).collect();
    let lags: Vec<_> = hour.iter().map(|sample| sample.lag_ms.map(f64::from)).collect();
    let lag = |ms: f64| if ms < 1_000.0 { format!("{ms:.0} ms") } else { span((ms * 1e6) as u64) };
    vec![Plot::new("Pushes", &rates, |rate| format!("{rate:.1} a second")), Plot::new("Lag", &lags, lag)]
}

/// The health and the link of an edge: names and values, those that are known.
fn facts(edge: &EdgeStatus, now_ns: u64) -> Vec<(&'static str, String)> {
    let (health, link) = (&edge.health, &edge.link);
    let ago = |ns: u64| format!("{} ago", span(now_ns.saturating_sub(ns)));
    let until = |seconds: u64| match seconds.saturating_mul(1_000_000_000).checked_sub(now_ns) {
        Some(left_ns) => format!("in {}", span(left_ns)),
        None => "expired".to_owned(),
    };
    let some = |ns: u64| Some(ns).filter(|ns| *ns > 0);
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let of = |used: Option<u64>, max: Option<u64>| {
        used.map(|used| match max {
            Some(max) => format!("{used} of at most {max}"),
            None => used.to_string(),
        })
    };
    let lag = match (edge.lag_ns(now_ns), link.connected) {
        (0, true) => "nothing is missing here".to_owned(),
        (0, false) => "nothing is known to be missing here".to_owned(),
        (lag_ns, _) => format!("the oldest change that is missing here is {} old", span(lag_ns)),
    };
    let refused = health.pushes_refused.map_or_else(String::new, |refused| format!(", {refused} of them refused"));
    let bytes = health.push_bytes.map_or_else(String::new, |bytes| format!(" with {} MiB", bytes >> 20));
    let disk = health.disk_free_bytes.map(|free| match health.disk_bytes {
        Some(all) => format!("{} free of {}", mebibytes(free), mebibytes(all)),
        None => format!("{} free", mebibytes(free)),
    });
    let facts = [
        ("Last seen", some(link.last_seen_ns).map(|ns| if link.connected { "now".to_owned() } else { ago(ns) })),
        ("Link since", some(link.connected_since_ns).filter(|_| link.connected).map(ago)),
        ("Last error", Some(link.last_error.clone()).filter(|text| !text.is_empty())),
        ("Lag", some(link.sessions).map(|_| lag)),
        ("Address", edge.address.map(shown)),
        ("Software", Some(edge.software.clone()).filter(|text| !text.is_empty())),
        ("Started", health.started_seconds.map(|seconds| ago(seconds.saturating_mul(1_000_000_000)))),
        ("Certificate expires", some(edge.certificate_expiry_seconds).map(until)),
        ("First certificate in its files expires", health.certificate_expiry_seconds.map(until)),
        ("Clock", some(link.sessions).map(|_| format!("{:+.3} s from this hub's", link.clock_offset_ns as f64 / 1e9))),
        ("Pushes since its start", health.pushes.map(|pushes| format!("{pushes}{bytes}{refused}"))),
        ("Requests refused", health.requests_refused.map(|refused| refused.to_string())),
        ("Groups", of(health.groups, health.groups_max)),
        ("Series", of(health.series, health.series_max)),
        ("Held back there", health.suppressed_families.map(|families| format!("{families} families"))),
        ("Disk", disk),
        ("Memory", health.resident_bytes.map(mebibytes)),
        ("Failed commits", health.commit_failures.map(|failures| failures.to_string())),
        ("Sessions, resyncs", some(link.sessions).map(|sessions| format!("{sessions}, {}", link.resyncs))),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
