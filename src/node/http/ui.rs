//! The data of the web pages, from the published store and the status of the links.

use std::sync::Arc;

use serde_json::{Value, json};

use super::auth::access::{Grant, is_in};
use super::deletes::DeleteRecord;
use super::service::Service;
use crate::gateway::HttpReply;
use crate::gateway::group_sort::GroupSort;
use crate::gateway::groups::object;
use crate::gateway::instant::rfc3339;
use crate::gateway::pages::{
    CertificateExpiry, DeleteSummary, EdgeSummary, GroupDetails, GroupFragment, GroupList, GroupOrder, IndexPage,
    LimitUse, PageTab, Search, ShownSummary, StatusPage, StatusState, SuppressedSummary, TroubleSummary, UplinkSummary,
    WeighedGroup,
};
use crate::gateway::path::AddressedGroup;
use crate::gateway::rights::Right;
use crate::net::address::shown;
use crate::net::http::Incoming;
use crate::node::link::edges::EdgeStatus;
use crate::node::link::trouble::Trouble;
use crate::selector::Selectors;
use crate::store::{Conflict, ExpiryView, GroupEntry, Published};

/// The deletes on the first page.
const DELETES_SHOWN_MAX: usize = 5;

impl Service {
    /// The page at `/`, or only its list of groups: of the groups that the visitor may read. The node and its links are
    /// shown to those who may see what belongs to no group.
    pub(super) fn index(&self, search: &Search, grant: &Grant) -> HttpReply {
        let (published, now_ns, scope) = (self.committer.published(), self.clock.wall_ns(), grant.scope(Right::Read));
        let (scope, has_overview) = (scope.as_ref(), grant.has_overview());
        let is_hub = self.rules.is_hub && has_overview;
        if let Some(name) = search.edge.as_ref().filter(|_| is_hub) {
            return self.edge_page(name, grant);
        }
        let shows_groups = search.tab == PageTab::Groups || (search.tab == PageTab::Now && !is_hub);
        let list = if shows_groups { self.group_list(search, scope, now_ns) } else { self.no_groups(search, now_ns) };
        let list = list.with_delete(grant.has(Right::Delete));
        if search.list_only {
            return list.reply();
        }
        let page = IndexPage::new(list, self.rules.admin_api && grant.is_admin()).with_overview(has_overview);
        let page = match search.tab {
            PageTab::Now if has_overview => {
                let page = page.with_troubles(self.own_troubles()).with_uplinks(self.uplink_summaries(now_ns));
                let page = page.with_large_scrape(Some(self.page_size.bytes()).filter(|_| self.page_size.is_large()));
                let busiest = if is_hub { self.busiest.get(published, now_ns) } else { Vec::new() };
                let deletes = if scope.is_none() { self.delete_summaries() } else { Vec::new() };
                let busiest = busiest.into_iter().filter(|group| is_in(scope, &group.labels)).collect();
                page.with_busiest(busiest).with_deletes(deletes)
            }
            _ => page,
        };
        let page = if matches!(search.tab, PageTab::Now | PageTab::HeldBack) {
            let rows = if search.tab == PageTab::HeldBack { suppressed(published, scope) } else { Vec::new() };
            let row = |(entry, at): (Arc<GroupEntry>, usize)| suppressed_family(published, &entry, at, scope);
            let by_site = if has_overview { published.suppressed_by_site() } else { Vec::new() };
            page.with_suppressed(rows, row, by_site)
        } else {
            page
        };
        let shows_edges = is_hub && matches!(search.tab, PageTab::Now | PageTab::Edges);
        let page = if shows_edges { page.with_edges(self.edge_summaries(now_ns)) } else { page };
        page.reply()
    }

    /// The groups that a search finds, in its order.
    fn group_list(&self, search: &Search, scope: Option<&Selectors>, now_ns: u64) -> GroupList {
        let (published, names, frame) = (self.committer.published(), self.rules.body.names, &self.rules.page_frame);
        let expiry = self.expiry();
        let list = if search.order.needs_entries() {
            let entries = published.entries();
            let shown = entries.iter().filter(|entry| entry.group.is_live() && !entry.header.suppressed);
            let readable = shown.filter(|entry| is_in(scope, entry.shown()));
            let groups = readable.map(|entry| WeighedGroup {
                labels: entry.shown(),
                times: (entry.push_time_seconds(), entry.push_failure_time_seconds()),
                weight: weight(search.order, entry, &expiry, now_ns),
            });
            GroupList::weighed(search, groups, names, frame, now_ns)
        } else {
            let times = published.times();
            let readable = times.iter().filter(|(labels, ..)| is_in(scope, labels));
            GroupList::new(search, readable, names, frame, now_ns)
        };
        list.with_details(|labels| {
            let entry = published.find(labels)?;
            let left_ns = if expiry.is_used() { expiry.left_ns(&entry) } else { None };
            let series = GroupSort::Series.weight(&entry, now_ns) as usize;
            Some(GroupDetails { left_ns, series, per_minute: entry.activity().per_minute(now_ns) })
        })
    }

    /// An empty list, for a tab without groups.
    fn no_groups(&self, search: &Search, now_ns: u64) -> GroupList {
        GroupList::new(search, std::iter::empty(), self.rules.body.names, &self.rules.page_frame, now_ns)
    }

    fn delete_summaries(&self) -> Vec<DeleteSummary> {
        let summary = |delete: DeleteRecord| DeleteSummary {
            at_ns: delete.at_ns,
            who: match delete.user.as_str() {
                "" => delete.peer.to_string(),
                user => format!("{user} at {}", delete.peer),
            },
            what: delete.what,
            groups: delete.groups,
        };
        self.deletes.list().into_iter().take(DELETES_SHOWN_MAX).map(summary).collect()
    }

    /// The details of one group.
    pub(super) fn fragment(&self, group: AddressedGroup, request: &Incoming, grant: &Grant) -> HttpReply {
        let target = match self.find_group(group) {
            Ok(target) => target,
            Err(error) => return HttpReply::error(400, error),
        };
        if let Err(reply) = grant.check_group(Right::Read, &target) {
            return reply;
        }
        match self.committer.published().find(&target) {
            Some(entry) => {
                let is_unconfirmed = self.committer.published().is_unconfirmed(entry.id());
                let (names, frame) = (self.rules.body.names, &self.rules.page_frame);
                let page = GroupFragment::new(&entry, names, frame, self.base(request), self.clock.wall_ns());
                let page = page.with_left(self.expiry().left_ns(&entry)).with_delete(grant.may(Right::Delete, &target));
                page.with_unconfirmed(is_unconfirmed).with_oddity(self.oddities.of(&target)).reply()
            }
            None => HttpReply::error(404, format_args!("there is no group {target}")),
        }
    }

    /// The URL of the node's root as the client of a page below `/status/group/` wrote it. Behind a proxy it may differ
    /// from what a person must write; the script of the pages corrects it.
    fn base(&self, request: &Incoming) -> String {
        let scheme = if self.protection.acceptor.is_some() { "https" } else { "http" };
        let is_plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte));
        let host = request.header("host").filter(is_plain).unwrap_or("GATEWAY");
        let prefix = request.path().split("/status/group/").next().unwrap_or_default();
        format!("{scheme}://{host}{prefix}/")
    }

    /// The page of limits, certificates, build and flags.
    pub(super) fn status_page(&self, request: &Incoming) -> HttpReply {
        let counts = self.committer.published().counts();
        let limit = |name, used: usize, max: usize| LimitUse { name, used: used as u64, max: max as u64 };
        let store = self.rules.store_limits;
        let mut limits = vec![
            limit("limits.groups_max", counts.groups, store.groups_max),
            limit("limits.series_max", counts.series, store.series_max),
        ];
        limits.extend(self.slots.iter().map(|slots| {
            let name = if slots.face() == "web" { "limits.connections_max" } else { "hub.connections_max" };
            limit(name, slots.open(), slots.connections_max())
        }));
        let certificate = |(file, expires, late): (String, u64, u64)| CertificateExpiry {
            file,
            expires_ns: expires.saturating_mul(1_000_000_000),
            late_ns: late.saturating_mul(1_000_000_000),
        };
        let certificates = self.certificates.files().into_iter().map(certificate).collect();
        let state = StatusState { limits, certificates, scrape_config: self.scrape_config(request) };
        StatusPage::new(&self.status, state, &self.rules.page_frame, self.clock.wall_ns()).reply()
    }

    /// The scrape configuration of Prometheus for this node.
    fn scrape_config(&self, request: &Incoming) -> String {
        let target = request.authority().unwrap_or("localhost:9091");
        let scheme = if self.protection.acceptor.is_some() { "    scheme: https\n" } else { "" };
        let prefix = request.path().strip_suffix("/status").unwrap_or_default();
        let path = format!("{prefix}/{}", self.rules.telemetry_path.trim_start_matches('/'));
        let path = if path == "/metrics" { String::new() } else { format!("    metrics_path: {path}\n") };
        format!(
            "scrape_configs:\n  - job_name: pushgateway\n    honor_labels: true\n{scheme}{path}    static_configs:\n      \
             - targets: ['{target}']\n        labels: {{instance: pushgateway}}\n"
        )
    }

    fn edge_summaries(&self, now_ns: u64) -> Vec<EdgeSummary> {
        self.edges.list().into_iter().map(|(name, edge)| self.edge_summary(name, edge, now_ns)).collect()
    }

    pub(super) fn edge_summary(&self, name: String, edge: EdgeStatus, now_ns: u64) -> EdgeSummary {
        let some = |ns: u64| Some(ns).filter(|ns| *ns > 0);
        EdgeSummary {
            state: edge.state(now_ns).name(),
            rank: rank(&edge, now_ns),
            troubles: edge.troubles(now_ns).into_iter().map(trouble_summary).collect(),
            groups: edge.health.groups,
            version: edge.software.strip_prefix("pushrelay ").unwrap_or(&edge.software).to_owned(),
            name,
            // The lag is unknown if the edge never had a session.
            lag_ns: some(edge.link.sessions).map(|_| edge.lag_ns(now_ns)),
            labels: edge.site.clone(),
            connected: edge.link.connected,
            last_seen_ns: some(edge.link.last_seen_ns),
            certificate_expires_ns: some(edge.certificate_expiry_seconds.saturating_mul(1_000_000_000)),
            certificate_late_ns: some(edge.certificate_expiry_seconds).map(|expiry| {
                expiry.saturating_sub(edge.certificate_warning_seconds(expiry)).saturating_mul(1_000_000_000)
            }),
            address: edge.address.map(shown).unwrap_or_default(),
        }
    }

    /// What is wrong with this node itself.
    fn own_troubles(&self) -> Vec<TroubleSummary> {
        let mut troubles = Vec::new();
        let failure = self.metrics.store_failure();
        if let Some(text) = failure.text.filter(|_| failure.is_failing) {
            let text = format!("the store cannot be written: {text}");
            troubles.push(TroubleSummary {
                text,
                remedy: "free space on the disk, or repair it: pushers get 503 until then",
            });
        }
        if self.certificates.is_failing() {
            let text = "files of certificates, keys or passwords have changed and cannot be used".into();
            troubles.push(TroubleSummary {
                text,
                remedy: "correct the files that the log names: the old ones stay in force",
            });
        }
        let failing = self.remote_writes.iter().map(|status| (status, status.counts().last_error));
        for (status, error) in failing.filter(|(_, error)| !error.is_empty()) {
            let text = format!("the receiver {} takes no samples: {error}", status.receiver);
            troubles.push(TroubleSummary { text, remedy: "correct what it says: each tick tries again" });
        }
        troubles
    }

    /// What `/api/v1/status` says of the node's health.
    pub(super) fn health_json(&self, grant: &Grant) -> Value {
        let now_ns = self.clock.wall_ns();
        let counts = self.committer.published().counts();
        let troubles = self.own_troubles();
        let troubles: Vec<Value> =
            troubles.iter().map(|trouble| json!({ "text": trouble.text, "remedy": trouble.remedy })).collect();
        let uplinks = self.uplink_summaries(now_ns).into_iter().map(|uplink| {
            json!({
                "hub": uplink.hub, "connected": uplink.connected, "last_error": uplink.last_error,
                "pending": uplink.pending, "lag_seconds": uplink.lag_ns as f64 / 1e9,
            })
        });
        let uplinks: Vec<Value> = uplinks.collect();
        let by_site = self.committer.published().suppressed_by_site().into_iter();
        let held_back = by_site.filter(|(_, families)| *families > 0);
        let held_back = held_back.map(|(site, families)| json!({ "site": object(&site), "families": families }));
        let held_back: Vec<Value> = held_back.collect();
        let receivers = self.remote_writes.iter().map(|status| {
            let counts = status.counts();
            json!({
                "name": status.receiver, "url": status.url, "last_error": counts.last_error, "samples": counts.samples,
                "last_success": Some(counts.last_success_ns).filter(|ns| *ns > 0).map(rfc3339),
            })
        });
        let receivers: Vec<Value> = receivers.collect();
        // They name groups, which not everybody may read.
        let deletes = if grant.scope(Right::Read).is_none() { self.deletes.list() } else { Vec::new() };
        json!({
            "groups": counts.groups, "series": counts.series, "held_back": held_back, "troubles": troubles,
            "uplinks": uplinks, "receivers": receivers,
            "deletes": deletes.iter().map(DeleteRecord::json).collect::<Vec<_>>(),
        })
    }

    fn uplink_summaries(&self, now_ns: u64) -> Vec<UplinkSummary> {
        let head = self.committer.published().head();
        let uplinks = self.uplinks.iter().map(|uplink| {
            let link = uplink.get();
            UplinkSummary {
                hub: uplink.hub.clone(),
                connected: link.connected,
                last_seen_ns: Some(link.last_seen_ns).filter(|ns| *ns > 0),
                pending: head.0.saturating_sub(link.acknowledged.0),
                lag_ns: link.lag.oldest_ns(now_ns),
                last_error: link.last_error,
            }
        });
        uplinks.collect()
    }
}

/// The number by which a search orders a group.
fn weight(order: GroupOrder, entry: &GroupEntry, expiry: &ExpiryView, now_ns: u64) -> u64 {
    let activity = entry.activity();
    let both = |first: u64, second: u64| first.min(u32::MAX.into()) << 32 | second.min(u32::MAX.into());
    match order {
        GroupOrder::Labels | GroupOrder::Oldest | GroupOrder::Newest => 0,
        GroupOrder::Largest => GroupSort::Series.weight(entry, now_ns),
        GroupOrder::Busiest => {
            both(activity.per_minute(now_ns).into(), activity.pushes.saturating_add(activity.updates))
        }
        GroupOrder::Failures => both(activity.refused, entry.push_failure_time_seconds() as u64),
        GroupOrder::Left => expiry.left_ns(entry).map_or(0, |left_ns| u64::MAX - left_ns),
    }
}

/// The order of edges on the page: by state, then by the gravest trouble.
fn rank(edge: &EdgeStatus, now_ns: u64) -> (u8, u8) {
    let gravest = edge.troubles(now_ns).first().map_or(u8::MAX, |trouble| trouble.kind as u8);
    (edge.state(now_ns) as u8, gravest)
}

fn trouble_summary(trouble: Trouble) -> TroubleSummary {
    TroubleSummary { text: trouble.text, remedy: trouble.kind.remedy() }
}

/// The suppressed families, each with its group, by site. The family that is shown instead is looked up only for the
/// part on the page.
fn suppressed(published: &Published, scope: Option<&Selectors>) -> Vec<(Arc<GroupEntry>, usize)> {
    let mut entries = published.suppressed();
    entries.sort_by(|a, b| a.id().site.cmp(&b.id().site));
    let families = entries.iter().filter(|entry| is_in(scope, entry.shown())).flat_map(|entry| {
        let suppressed = entry.leaders().filter(|(.., state)| state.conflict.is_some());
        suppressed.map(|(at, ..)| (entry.clone(), at))
    });
    families.collect()
}

/// One suppressed family, with the family that is shown instead. A reader of only some groups gets no other family, and
/// no reason, which may quote one.
fn suppressed_family(
    published: &Published,
    entry: &GroupEntry,
    at: usize,
    scope: Option<&Selectors>,
) -> Option<SuppressedSummary> {
    let conflict = entry.families.get(at)?.conflict.as_ref()?;
    let suppressed = entry.whole(at);
    Some(SuppressedSummary {
        name: suppressed.name().clone(),
        type_name: suppressed.schema().metric_type().name(),
        group: entry.shown().clone(),
        reason: match scope {
            None => conflict.to_string(),
            Some(_) => "it conflicts with a metric that is shown already".to_owned(),
        },
        shown_instead: scope.is_none().then(|| shown_instead(published, entry, conflict)).flatten(),
    })
}

fn shown_instead(published: &Published, entry: &GroupEntry, conflict: &Conflict) -> Option<ShownSummary> {
    match conflict {
        Conflict::Type { name, .. } => Some(by_name(published, name)),
        Conflict::Suffix { used, .. } => Some(by_name(published, used)),
        Conflict::AlikeName { used, .. } => Some(by_name(published, used)),
        Conflict::Duplicate { name, group, .. } => {
            let group = Some(group.as_ref().unwrap_or(entry.shown()).clone());
            Some(ShownSummary { group, others: 0, ..by_name(published, name) })
        }
        Conflict::Shadowed { by, .. } => {
            let (group, site) = (Some(by.shown()), Some(by.site.clone()));
            Some(ShownSummary { group, site, ..ShownSummary::default() })
        }
        Conflict::OwnLabel { .. }
        | Conflict::AlikeLabels { .. }
        | Conflict::Histogram { .. }
        | Conflict::Limit { .. } => None,
    }
}

/// The shown family of that metric name: of the first group that has it, or of the node itself.
fn by_name(published: &Published, name: &str) -> ShownSummary {
    let block = published.block(name);
    let first = block.as_ref().and_then(|block| block.entries().next());
    ShownSummary {
        name: Arc::from(name),
        type_name: first.map_or("", |shown| shown.family.schema().metric_type().name()),
        group: first.map(|shown| shown.labels.clone()),
        site: None,
        others: block.map_or(0, |block| {
            block.chunks().iter().map(|chunk| chunk.entries().len()).sum::<usize>().saturating_sub(1)
        }),
    }
}
