//! The data of the web pages, from the published store and the status of the links.

use std::sync::Arc;

use serde_json::{Value, json};

use super::auth::access::{Grant, is_in};
use super::deletes::DeleteRecord;
use super::service::Service;
use crate::gateway::HttpReply;
use crate::gateway::groups::object;
use crate::gateway::pages::{
    EdgeSummary, GroupFragment, GroupList, IndexPage, Search, ShownSummary, StatusPage, SuppressedSummary,
    TroubleSummary, UplinkSummary,
};
use crate::gateway::path::AddressedGroup;
use crate::gateway::rights::Right;
use crate::model::LabelSet;
use crate::net::address::shown;
use crate::net::http::Incoming;
use crate::node::link::edges::EdgeStatus;
use crate::node::link::trouble::Trouble;
use crate::selector::Selectors;
use crate::store::{Conflict, GroupEntry, Published};

impl Service {
    /// The page of groups, or only its list: of the groups that the visitor may read. The node and its links are shown to
    /// those who may see what belongs to no group.
    pub(super) fn index(&self, search: &Search, grant: &Grant) -> HttpReply {
        let (published, now_ns, scope) = (self.committer.published(), self.clock.wall_ns(), grant.scope(Right::Read));
        let times = published.times();
        let readable = times.iter().filter(|(labels, ..)| is_in(scope.as_ref(), labels));
        let list = GroupList::new(search, readable, self.rules.body.names, &self.rules.page_frame, now_ns);
        let list = list.with_delete(grant.has(Right::Delete));
        let expiry = self.expiry();
        let left_ns = |labels: &LabelSet| expiry.left_ns(&*published.find(labels)?);
        let list = if expiry.is_used() { list.with_expiry(left_ns) } else { list };
        if search.list_only {
            return list.reply();
        }
        let page = IndexPage::new(list, self.rules.admin_api && grant.is_admin())
            .with_suppressed(suppressed(published, scope.as_ref()), |(entry, at)| {
                suppressed_family(published, &entry, at, scope.as_ref())
            });
        if !grant.has_overview() {
            return page.reply();
        }
        let page = page.with_troubles(self.own_troubles()).with_uplinks(self.uplink_summaries(now_ns));
        let page = page.with_large_scrape(Some(self.page_size.bytes()).filter(|_| self.page_size.is_large()));
        let page = if self.rules.is_hub { page.with_edges(self.edge_summaries(now_ns)) } else { page };
        page.reply()
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

    /// The page of build, flags and start time.
    pub(super) fn status_page(&self) -> HttpReply {
        StatusPage::new(&self.status, &self.rules.page_frame, self.clock.wall_ns()).reply()
    }

    fn edge_summaries(&self, now_ns: u64) -> Vec<EdgeSummary> {
        let some = |ns: u64| Some(ns).filter(|ns| *ns > 0);
        let edges = self.edges.list().into_iter().map(|(name, edge)| EdgeSummary {
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
        });
        edges.collect()
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
        // They name groups, which not everybody may read.
        let deletes = if grant.has_overview() { self.deletes.list() } else { Vec::new() };
        json!({
            "groups": counts.groups, "series": counts.series, "held_back": held_back, "troubles": troubles,
            "uplinks": uplinks, "deletes": deletes.iter().map(DeleteRecord::json).collect::<Vec<_>>(),
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

/// The order of edges on the page: by state, then by the gravest trouble.
fn rank(edge: &EdgeStatus, now_ns: u64) -> (u8, u8) {
    let gravest = edge.troubles(now_ns).first().map_or(u8::MAX, |trouble| trouble.kind as u8);
    (edge.state(now_ns) as u8, gravest)
}

fn trouble_summary(trouble: Trouble) -> TroubleSummary {
    TroubleSummary { text: trouble.text, remedy: trouble.kind.remedy() }
}

/// The suppressed families, each with its group. The family that is shown instead is looked up only for the part on the
/// page.
fn suppressed(published: &Published, scope: Option<&Selectors>) -> Vec<(Arc<GroupEntry>, usize)> {
    let entries = published.suppressed();
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
