//! The API of a hub's edges: the roll as JSON, and taking edges off it.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::{info, warn};

use super::auth::access::Grant;
use super::auth::guard::user;
use super::service::Service;
use crate::gateway::instant::rfc3339;
use crate::gateway::{HttpReply, query};
use crate::model::LabelSet;
use crate::net::address::shown;
use crate::net::http::Incoming;
use crate::net::identity::EdgeIdentity;
use crate::node::link::edges::{EdgeStatus, NotForgotten};
use crate::node::link::hub::HubLinks;
use crate::store::Scope;
use crate::wire::Health;

/// The time for the session of a retired edge to end before its groups are deleted.
const ENDING_MAX: Duration = Duration::from_secs(5);
/// The time between two looks whether it has ended.
const ENDING_STEP: Duration = Duration::from_millis(20);

impl Service {
    /// The roll: every edge with its state, troubles and health.
    pub(super) fn edges_json(&self) -> HttpReply {
        let now_ns = self.clock.wall_ns();
        query::list(self.edges.list().iter().map(|(name, edge)| edge_json(name, edge, now_ns)))
    }

    /// Takes an edge off the roll.
    pub(super) async fn forget_edge(&self, name: &str, request: &Incoming, grant: &Grant) -> HttpReply {
        let Some(hub_links) = &self.hub_links else { return unknown(name) };
        if hub_links.is_configured(name) {
            let text = "has a [[hub.edge]] section: remove the section and reload, then forget the edge";
            return HttpReply::error(409, format_args!("the edge {name:?} {text}"));
        }
        match self.edges.forget(name) {
            Err(NotForgotten::Unknown) => unknown(name),
            Err(NotForgotten::Connected) => {
                let text =
                    "is connected: stop or retire it first; a forgotten edge would come back with its next message";
                HttpReply::error(409, format_args!("the edge {name:?} {text}"))
            }
            Ok(()) => {
                info!(edge = name, peer = %request.peer(), user = user(request, grant.subject()), "edge forgotten");
                saved(hub_links).await
            }
        }
    }

    /// Takes an edge out of service, and deletes the groups of its site if `delete_groups` is set.
    pub(super) async fn retire_edge(
        &self,
        name: &str,
        delete_groups: bool,
        request: &Incoming,
        grant: &Grant,
    ) -> HttpReply {
        let Some(hub_links) = &self.hub_links else { return unknown(name) };
        let edges = self.edges.list();
        let Some((_, edge)) = edges.iter().find(|(known, _)| known == name) else { return unknown(name) };
        let site = edge.site.clone();
        if delete_groups {
            let others = edges.iter().filter(|(known, other)| known != name && other.retired_ns == 0);
            let shares = others.filter(|(_, other)| other.site == site).map(|(other, _)| other.as_str());
            if let Some(text) = groups_stay(&site, shares.collect()) {
                return HttpReply::error(
                    409,
                    format_args!("the groups of the edge {name:?} cannot be deleted: {text}"),
                );
            }
        }
        if !hub_links.retire(name) {
            return unknown(name);
        }
        info!(edge = name, delete_groups, peer = %request.peer(), user = user(request, grant.subject()), "edge retired");
        let saved = saved(hub_links).await;
        if !delete_groups {
            return saved;
        }
        if saved.status >= 400 {
            let text = "the edge is retired, but its groups stay, as the roll of edges cannot be written: try again";
            return HttpReply::unavailable(text);
        }
        if !self.session_ended(name).await {
            let text = "the edge is retired, but its groups stay, as its session does not end: try again";
            return HttpReply::unavailable(text);
        }
        match self.committer.wipe(Scope::Site(site.clone())).await {
            Ok(()) => {
                info!(edge = name, %site, "the groups of a retired edge are deleted");
                saved
            }
            Err(error) => HttpReply::unavailable(format_args!("the edge is retired, but its groups stay: {error}")),
        }
    }

    /// Waits until the edge's session is over: what it still sends would come after the deletes. Returns whether it is.
    async fn session_ended(&self, name: &str) -> bool {
        let ended = async {
            while self.edges.update_known(name, |edge| edge.link.connected) == Some(true) {
                tokio::time::sleep(ENDING_STEP).await;
            }
        };
        let is_over = tokio::time::timeout(ENDING_MAX, ended).await.is_ok();
        if !is_over {
            warn!(edge = name, "the session of a retired edge does not end");
        }
        is_over
    }
}

/// The reason for which the groups of a site cannot be deleted; `None` if they can.
fn groups_stay(site: &LabelSet, shares: Vec<&str>) -> Option<String> {
    if site.is_empty() {
        return Some("it has no site".into());
    }
    (!shares.is_empty())
        .then(|| format!("its site {site} has other edges, {}: retire it without its groups", shares.join(", ")))
}

fn unknown(name: &str) -> HttpReply {
    HttpReply::error(404, format_args!("there is no edge {name:?} on the roll"))
}

/// The reply once the roll is on disk.
async fn saved(hub_links: &HubLinks) -> HttpReply {
    match hub_links.roll.save(false).await {
        Ok(()) => HttpReply::accepted(),
        Err(error) => HttpReply::unavailable(format_args!(
            "done, but the roll of edges cannot be written, and a restart of the hub would undo it: {error}"
        )),
    }
}

fn edge_json(name: &str, edge: &EdgeStatus, now_ns: u64) -> Value {
    let link = &edge.link;
    let moment = |ns: u64| (ns > 0).then(|| rfc3339(ns));
    let was_heard = link.sessions > 0;
    let site: serde_json::Map<String, Value> =
        edge.site.iter().map(|label| (label.name.to_owned(), label.value.into())).collect();
    let troubles: Vec<Value> = edge
        .troubles(now_ns)
        .into_iter()
        .map(
            |trouble| json!({ "reason": trouble.kind.reason(), "text": trouble.text, "remedy": trouble.kind.remedy() }),
        )
        .collect();
    let refusal = edge
        .refusal
        .as_ref()
        .map(|refusal| json!({ "reason": refusal.reason, "text": refusal.text, "at": moment(refusal.at_ns) }));
    json!({
        "name": name,
        "site": site,
        "state": edge.state(now_ns).name(),
        "troubles": troubles,
        "connected": link.connected,
        "last_seen": moment(link.last_seen_ns),
        "last_error": some(&link.last_error),
        "refusal": refusal,
        "refused": edge.refused,
        "retired": moment(edge.retired_ns),
        "address": edge.address.map(shown),
        "own_identity": edge.own_identity.as_ref().map(EdgeIdentity::to_uri),
        "authenticated_by": was_heard.then_some(if edge.has_token { "token" } else { "certificate" }),
        "certificate_expires": moment(edge.certificate_expiry_seconds.saturating_mul(1_000_000_000)),
        "software": some(&edge.software),
        "lag_seconds": was_heard.then(|| edge.lag_ns(now_ns) as f64 / 1e9),
        "clock_offset_seconds": was_heard.then(|| link.clock_offset_ns as f64 / 1e9),
        "sessions": link.sessions,
        "resyncs": link.resyncs,
        "groups": edge.health.groups,
        "series": edge.health.series,
        "health": health_json(&edge.health),
    })
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The health as the edge reported it, without the fields that it did not report.
fn health_json(health: &Health) -> Value {
    let all = json!({
        "started": health.started_seconds.map(|seconds| rfc3339(seconds.saturating_mul(1_000_000_000))),
        "commit_failures": health.commit_failures,
        "store_failing": health.store_failing.map(|failing| failing > 0),
        "store_failure": health.store_failure,
        "disk_free_bytes": health.disk_free_bytes,
        "disk_bytes": health.disk_bytes,
        "groups_max": health.groups_max,
        "series_max": health.series_max,
        "pushes": health.pushes,
        "push_bytes": health.push_bytes,
        "pushes_refused": health.pushes_refused,
        "requests_refused": health.requests_refused,
        "certificate_expires": health
            .certificate_expiry_seconds
            .map(|seconds| rfc3339(seconds.saturating_mul(1_000_000_000))),
        "resident_bytes": health.resident_bytes,
        "resyncs": health.resyncs,
        "held_back_families": health.suppressed_families,
        "credentials_failing": health.credentials_failing.map(|failing| failing > 0),
    });
    let Value::Object(mut fields) = all else { return all };
    fields.retain(|_, value| !value.is_null());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_site_with_other_edges_stay() {
        let site = LabelSet::new([("IDC", "SYQ")]);
        assert_eq!(groups_stay(&site, vec![]), None);
        assert!(groups_stay(&site, vec!["syq-2"]).unwrap().contains("syq-2"));
        assert!(groups_stay(&LabelSet::default(), vec![]).unwrap().contains("no site"));
    }

    #[test]
    fn an_edge_that_never_connected_has_nulls_and_no_zeros() {
        let json = edge_json("syq-1", &EdgeStatus::default(), 9);
        for field in ["last_seen", "certificate_expires", "lag_seconds", "clock_offset_seconds", "groups", "software"] {
            assert_eq!(json[field], Value::Null, "{field}");
        }
        assert_eq!((&json["state"], &json["health"]), (&json!("away"), &json!({})));
        assert_eq!(json["troubles"][0]["reason"], "away");
    }
}
