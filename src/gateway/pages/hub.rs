//! The sections on links and conflicts: a hub's edges and sites, an edge's hubs, metrics held back, deletes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::exposition::name::NameValidation;
use crate::model::LabelSet;

use super::super::instant;
use super::super::path::group_path;
use super::pager::Pager;
use super::search::Search;
use super::when;

/// The number of edges, or of families held back, on a page.
const ROWS_PER_PAGE: usize = 50;
/// The edges that the section of troubles lists, at most.
const WRONG_MAX: usize = 20;
/// The states of edges, in the order in which they are counted.
const STATES: [&str; 5] = ["connected", "degraded", "away", "refused", "retired"];
/// The sites that the first page lists, at most.
const SITES_MAX: usize = 20;

/// An edge as its hub sees it.
#[derive(Clone, Debug, Default)]
pub struct EdgeSummary {
    /// Its name.
    pub name: String,
    /// Its site labels.
    pub labels: Arc<LabelSet>,
    /// Its state: `connected`, `degraded`, `away`, `refused` or `retired`.
    pub state: &'static str,
    /// Edges of a lower rank need attention more.
    pub rank: (u8, u8),
    /// Whether it is connected.
    pub connected: bool,
    /// Its troubles, the gravest first.
    pub troubles: Vec<TroubleSummary>,
    /// The number of groups in its store, as it last reported.
    pub groups: Option<u64>,
    /// The version of its software; empty if unknown.
    pub version: String,
    /// The time of the last message from it, in nanoseconds since the Unix epoch.
    pub last_seen_ns: Option<u64>,
    /// The age of the oldest change that the edge has and this hub does not have, in nanoseconds.
    pub lag_ns: Option<u64>,
    /// The time when its certificate expires, in nanoseconds since the Unix epoch.
    pub certificate_expires_ns: Option<u64>,
    /// The time from which it is late to renew that certificate, in the same way.
    pub certificate_late_ns: Option<u64>,
    /// The address from which it connects; empty if unknown.
    pub address: String,
}

/// A trouble of an edge, or of this node.
#[derive(Clone, Debug, Default)]
pub struct TroubleSummary {
    /// The particulars.
    pub text: String,
    /// The action that an operator takes.
    pub remedy: &'static str,
}

impl EdgeSummary {
    /// The link to its page, from the root.
    pub(super) fn link(&self) -> String {
        format!("./?edge={}", utf8_percent_encode(&self.name, NON_ALPHANUMERIC))
    }
}

/// A delete by a request.
#[derive(Clone, Debug, Default)]
pub struct DeleteSummary {
    /// When it was made, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The group, the selector, or all groups.
    pub what: String,
    /// The number of groups.
    pub groups: usize,
    /// The client: its user, if it gave one, and its address.
    pub who: String,
}

/// The edges of one site.
#[derive(Clone, Debug, Default)]
pub(super) struct SiteRow {
    pub labels: Arc<LabelSet>,
    /// The edges in each of [`STATES`].
    counts: [usize; STATES.len()],
    /// Groups in the stores of these edges, those of redundant ones once.
    pub groups: u64,
}

impl SiteRow {
    /// The number of edges in a state.
    pub fn count(&self, state: &str) -> usize {
        STATES.iter().position(|known| *known == state).map_or(0, |at| self.counts[at])
    }

    fn wrong(&self) -> usize {
        STATES.iter().zip(self.counts).filter(|(state, _)| class(state) == "bad").map(|(_, count)| count).sum()
    }

    /// The sites of the edges, those with the most edges in trouble first.
    fn of(edges: &[EdgeSummary]) -> Vec<SiteRow> {
        let mut sites: BTreeMap<&Arc<LabelSet>, SiteRow> = BTreeMap::new();
        for edge in edges {
            let site = sites.entry(&edge.labels).or_default();
            site.labels = edge.labels.clone();
            if let Some(at) = STATES.iter().position(|state| *state == edge.state) {
                site.counts[at] += 1;
            }
            site.groups = site.groups.max(edge.groups.unwrap_or_default());
        }
        let mut sites: Vec<SiteRow> = sites.into_values().collect();
        sites.sort_by_key(|site| Reverse(site.wrong()));
        sites
    }
}

/// The class of a state in the style sheet.
pub(super) fn class(state: &str) -> &'static str {
    match state {
        "connected" => "good",
        "retired" => "idle",
        _ => "bad",
    }
}

/// A hub as its edge sees it.
#[derive(Clone, Debug, Default)]
pub struct UplinkSummary {
    /// Its address as configured.
    pub hub: String,
    /// Whether there is a session.
    pub connected: bool,
    /// The time of the last message from it, in nanoseconds since the Unix epoch.
    pub last_seen_ns: Option<u64>,
    /// The number of revisions of this store that the hub has not acknowledged.
    pub pending: u64,
    /// The age of the oldest of them, in nanoseconds.
    pub lag_ns: u64,
    /// The reason why the last connection or attempt ended; empty if none did.
    pub last_error: String,
}

/// A suppressed family, which is stored but not shown. The pages call it *held back*.
#[derive(Clone, Debug, Default)]
pub struct SuppressedSummary {
    /// The metric's name.
    pub name: Arc<str>,
    /// Its type.
    pub type_name: &'static str,
    /// The labels of its group.
    pub group: Arc<LabelSet>,
    /// The reason of the conflict.
    pub reason: String,
    /// The family that is shown instead; `None` if a limit is the only reason.
    pub shown_instead: Option<ShownSummary>,
}

/// A family that is shown instead of one that is held back.
#[derive(Clone, Debug, Default)]
pub struct ShownSummary {
    /// The metric's name; empty where whole groups conflict.
    pub name: Arc<str>,
    /// Its type; empty where whole groups conflict.
    pub type_name: &'static str,
    /// The labels of its group; `None` if it is one of the node's own metrics.
    pub group: Option<Arc<LabelSet>>,
    /// The site where the group was pushed, if only the site distinguishes it from the one held back.
    pub site: Option<Arc<LabelSet>>,
    /// The number of further groups that show that metric.
    pub others: usize,
}

/// The edges on a page.
#[derive(Clone, Debug, Default)]
pub(super) struct EdgeRows {
    pub rows: Vec<EdgeSummary>,
    pub pager: Pager,
    /// The first edges that have a trouble, and the number of all of them.
    pub wrong: Vec<EdgeSummary>,
    pub wrong_total: usize,
    /// The states that occur, each with the number of edges.
    pub states: Vec<(&'static str, usize)>,
    /// The first sites, and the number of the others.
    pub sites: Vec<SiteRow>,
    pub more_sites: usize,
    now_ns: u64,
}

impl EdgeRows {
    /// Edges that need attention come first.
    pub fn new(mut edges: Vec<EdgeSummary>, search: &Search, now_ns: u64) -> Self {
        edges.sort_by(|a, b| (a.rank, &a.name).cmp(&(b.rank, &b.name)));
        let count = |state: &'static str| (state, edges.iter().filter(|edge| edge.state == state).count());
        let states = STATES.map(count).into_iter().filter(|(_, count)| *count > 0).collect();
        let is_wrong = |edge: &&EdgeSummary| !edge.troubles.is_empty();
        let wrong = edges.iter().filter(is_wrong).take(WRONG_MAX).cloned().collect();
        let wrong_total = edges.iter().filter(is_wrong).count();
        let mut sites = SiteRow::of(&edges);
        let more_sites = sites.len().saturating_sub(SITES_MAX);
        sites.truncate(SITES_MAX);
        let (rows, pager) = Pager::cut(edges, search.edges_from, ROWS_PER_PAGE, |from| format!("?edges={from}"));
        Self { rows, pager, wrong, wrong_total, states, sites, more_sites, now_ns }
    }

    /// The class of a state in the style sheet.
    pub fn class(&self, state: &str) -> &'static str {
        class(state)
    }

    pub fn seen(&self, edge: &EdgeSummary) -> String {
        if edge.connected { "now".to_owned() } else { when::ago(edge.last_seen_ns, self.now_ns) }
    }

    pub fn lag(&self, edge: &EdgeSummary) -> String {
        // Of an edge that is away, only what it reported to be missing is known.
        edge.lag_ns.filter(|lag_ns| edge.connected || *lag_ns > 0).map_or_else(|| "–".to_owned(), lag)
    }

    /// The time until a certificate expires: `in 89 d`; empty if it is unknown.
    pub fn expires_in(&self, edge: &EdgeSummary) -> String {
        match edge.certificate_expires_ns {
            Some(ns) if ns > self.now_ns => format!("in {}", instant::span(ns - self.now_ns)),
            Some(_) => "expired".to_owned(),
            None => String::new(),
        }
    }

    pub fn is_worrying(&self, edge: &EdgeSummary) -> bool {
        edge.certificate_late_ns.is_some_and(|ns| ns < self.now_ns)
    }
}

/// The families held back on a page.
#[derive(Clone, Debug, Default)]
pub(super) struct SuppressedRows {
    pub rows: Vec<SuppressedSummary>,
    pub pager: Pager,
    /// The sites that have some, each with the number.
    pub by_site: Vec<(Arc<LabelSet>, usize)>,
    pub total: usize,
    names: NameValidation,
}

impl SuppressedRows {
    pub fn new<T>(
        suppressed: Vec<T>,
        row: impl FnMut(T) -> Option<SuppressedSummary>,
        search: &Search,
        names: NameValidation,
    ) -> Self {
        let (part, pager) =
            Pager::cut(suppressed, search.suppressed_from, ROWS_PER_PAGE, |from| format!("?held={from}"));
        let rows: Vec<_> = part.into_iter().filter_map(row).collect();
        Self { rows, pager, names, ..Self::default() }
    }

    /// The same with the numbers of each site.
    pub fn by_site(self, mut by_site: Vec<(Arc<LabelSet>, usize)>) -> Self {
        by_site.retain(|(_, families)| *families > 0);
        Self { total: by_site.iter().map(|(_, families)| families).sum(), by_site, ..self }
    }

    pub fn path(&self, group: &LabelSet) -> String {
        group_path(group, self.names)
    }
}

/// A lag as a short text.
pub(super) fn lag(lag_ns: u64) -> String {
    if lag_ns < 1_000_000_000 { format!("{} ms", lag_ns / 1_000_000) } else { instant::span(lag_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_that_need_attention_come_first() {
        let day_ns = 86_400 * 1_000_000_000;
        let edge = |name: &str, state, rank, days| EdgeSummary {
            name: name.into(),
            state,
            rank,
            troubles: if state == "connected" { vec![] } else { vec![TroubleSummary::default()] },
            certificate_expires_ns: Some(100 * day_ns + days * day_ns),
            certificate_late_ns: Some(100 * day_ns + days * day_ns - 14 * day_ns),
            ..EdgeSummary::default()
        };
        let edges = vec![
            edge("a", "connected", (3, 0), 90),
            edge("b", "degraded", (2, 3), 3),
            edge("c", "away", (1, 1), 90),
            edge("d", "degraded", (2, 2), 90),
        ];
        let rows = EdgeRows::new(edges, &Search::default(), 100 * day_ns);
        let names = |edges: &[EdgeSummary]| edges.iter().map(|edge| edge.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&rows.rows), ["c", "d", "b", "a"]);
        assert_eq!((names(&rows.wrong), rows.wrong_total), (vec!["c".into(), "d".into(), "b".into()], 3));
        assert_eq!(rows.states, [("connected", 1), ("degraded", 2), ("away", 1)]);
        assert_eq!((rows.sites.len(), rows.sites[0].count("degraded"), rows.sites[0].wrong()), (1, 2, 3));
        assert_eq!(rows.expires_in(&rows.rows[2]), "in 3 d");
        assert!(rows.is_worrying(&rows.rows[2]) && !rows.is_worrying(&rows.rows[3]));
    }
}
