//! The page at `/` with its tabs: what is wrong now, edges, one page of groups (a line each), conflicts.

use std::sync::Arc;

use askama::Template;

use crate::exposition::name::NameValidation;
use crate::model::LabelSet;

use super::super::path::group_path;
use super::super::reply::HttpReply;
use super::asset::VERSION;
use super::hub::{
    DeleteSummary, EdgeRows, EdgeSummary, SuppressedRows, SuppressedSummary, TroubleSummary, UplinkSummary, lag,
};
use super::pager::{Pager, grouped};
use super::search::{AGES, GroupOrder, Search};
use super::tab::PageTab;
use super::{BusyGroup, PageFrame, PageOwner, page, when};

/// The number of groups on a page.
const GROUPS_PER_PAGE: usize = 100;

/// A group in one line.
#[derive(Clone, Debug)]
struct GroupRow {
    /// Its labels as shown: at a hub, with the site labels.
    labels: Arc<LabelSet>,
    /// The time of the last accepted push, in nanoseconds since the Unix epoch.
    pushed_ns: Option<u64>,
    /// The time of the last refused push.
    failed_ns: Option<u64>,
    is_failing: bool,
    details: GroupDetails,
}

/// The particulars of a group that only the groups on the page need.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupDetails {
    /// The time until it expires, in nanoseconds; `None` if never.
    pub left_ns: Option<u64>,
    /// Its series, shown or not.
    pub series: usize,
    /// Writes in the last minute.
    pub per_minute: u32,
}

/// A group to search for.
#[derive(Clone, Copy, Debug)]
pub struct WeighedGroup<'a> {
    /// Its labels.
    pub labels: &'a Arc<LabelSet>,
    /// The times of the last accepted and of the last refused push, in seconds since the epoch; 0 for never.
    pub times: (f64, f64),
    /// The number by which it is ordered, the largest first, if the order needs one.
    pub weight: u64,
}

/// The groups that a search finds, one page of them.
#[derive(Debug, Template)]
#[template(path = "list.html")]
pub struct GroupList {
    search: Search,
    groups: Vec<GroupRow>,
    pager: Pager,
    /// The number of all groups, found or not.
    total: usize,
    /// The number of all groups whose last push failed.
    failing: usize,
    names: NameValidation,
    /// Whether to offer deletes.
    deletes: bool,
    /// See [`PageFrame::at_depth`].
    root: String,
    owner: PageOwner,
    now_ns: u64,
}

impl GroupList {
    /// Searches `groups`: labels, and the times of the last accepted and of the last refused push, in seconds since the
    /// epoch, 0 for never. `names` is the node's rule for names in paths.
    pub fn new<'a>(
        search: &Search,
        groups: impl Iterator<Item = (&'a Arc<LabelSet>, f64, f64)>,
        names: NameValidation,
        frame: &PageFrame,
        now_ns: u64,
    ) -> Self {
        let weighed = |(labels, pushed, failed)| WeighedGroup { labels, times: (pushed, failed), weight: 0 };
        Self::weighed(search, groups.map(weighed), names, frame, now_ns)
    }

    /// The same for groups in any order, if the order of the search needs a number of each.
    pub fn weighed<'a>(
        search: &Search,
        groups: impl Iterator<Item = WeighedGroup<'a>>,
        names: NameValidation,
        frame: &PageFrame,
        now_ns: u64,
    ) -> Self {
        let (mut finder, older_ns) = (search.finder(), search.older_ns());
        let (mut total, mut failing) = (0, 0);
        let found = groups.filter(|WeighedGroup { labels, times: (pushed, failed), .. }| {
            let is_failing = failed > pushed;
            total += 1;
            failing += usize::from(is_failing);
            let is_old =
                older_ns == 0 || now_ns.saturating_sub(when::of_seconds(*pushed).unwrap_or_default()) > older_ns;
            is_old && finder.finds(labels, is_failing)
        });
        let mut found: Vec<_> = found.collect();
        match search.order {
            GroupOrder::Labels => {}
            GroupOrder::Oldest => found.sort_by(|a, b| a.times.0.total_cmp(&b.times.0)),
            GroupOrder::Newest => found.sort_by(|a, b| b.times.0.total_cmp(&a.times.0)),
            _ => found.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.labels.cmp(b.labels))),
        }
        let (found, pager) = Pager::cut(found, search.from, GROUPS_PER_PAGE, |from| search.query_from(from));
        let groups = found.into_iter().map(|WeighedGroup { labels, times: (pushed, failed), .. }| GroupRow {
            labels: labels.clone(),
            pushed_ns: when::of_seconds(pushed),
            failed_ns: when::of_seconds(failed),
            is_failing: failed > pushed,
            details: GroupDetails::default(),
        });
        let (search, groups, root) = (search.clone(), groups.collect(), frame.at_depth(0));
        let owner = frame.owner.clone();
        Self { search, groups, pager, total, failing, names, deletes: true, root, owner, now_ns }
    }

    /// Sets whether to offer deletes.
    pub fn with_delete(mut self, deletes: bool) -> Self {
        self.deletes = deletes;
        self
    }

    /// Adds the particulars of groups; `details` is called only for those on this page.
    pub fn with_details(mut self, details: impl Fn(&LabelSet) -> Option<GroupDetails>) -> Self {
        self.groups.iter_mut().for_each(|group| group.details = details(&group.labels).unwrap_or_default());
        self
    }

    /// The list alone as a reply. The script puts it into the open page.
    pub fn reply(&self) -> HttpReply {
        page(self)
    }

    fn path(&self, group: &GroupRow) -> String {
        group_path(&group.labels, self.names)
    }

    fn ago(&self, wall_ns: &Option<u64>) -> String {
        when::ago(*wall_ns, self.now_ns)
    }

    fn left(&self, group: &GroupRow) -> Option<String> {
        group.details.left_ns.map(when::left)
    }

    /// The size and the writes of a group: `340 series, 4/min`.
    fn size(&self, group: &GroupRow) -> String {
        let GroupDetails { series, per_minute, .. } = group.details;
        let writes = if per_minute > 0 { format!(", {}/min", grouped(per_minute as usize)) } else { String::new() };
        format!("{} series{writes}", grouped(series))
    }

    /// The line above the list: `1 to 100 of 10,000 groups`.
    fn summary(&self) -> String {
        let groups = |count: usize| format!("{} group{}", grouped(count), if count == 1 { "" } else { "s" });
        let found = self.pager.total;
        let range = if self.pager.is_needed() {
            format!("{} to {} of ", grouped(self.pager.first), grouped(self.pager.last))
        } else {
            String::new()
        };
        match (self.search.is_narrowing(), found) {
            (true, 0) => format!("None of {} found", groups(self.total)),
            (true, _) => format!("{range}{} found, of {}", groups(found), grouped(self.total)),
            (false, 0) => "No groups".to_owned(),
            (false, _) => format!("{range}{}", groups(found)),
        }
    }
}

/// The page at `/`.
#[derive(Debug, Template)]
#[template(path = "index.html")]
pub struct IndexPage {
    list: GroupList,
    /// The troubles of this node itself.
    troubles: Vec<TroubleSummary>,
    edges: Option<EdgeRows>,
    uplinks: Vec<UplinkSummary>,
    suppressed: SuppressedRows,
    /// The groups with the most writes.
    busiest: Vec<BusyGroup>,
    deletes: Vec<DeleteSummary>,
    tab: PageTab,
    /// Whether the visitor may see what belongs to no group.
    overview: bool,
    at: &'static str,
    /// Bytes of a scrape that some scrapers refuse.
    large_scrape: Option<u64>,
    admin_api: bool,
    now_ns: u64,
    /// See [`PageFrame::at_depth`].
    root: String,
    owner: PageOwner,
    version: &'static str,
}

impl IndexPage {
    /// A page with these groups. `admin_api` is whether to offer deleting all groups.
    pub fn new(list: GroupList, admin_api: bool) -> Self {
        let (root, owner, now_ns) = (list.root.clone(), list.owner.clone(), list.now_ns);
        let (edges, suppressed, uplinks) = (None, SuppressedRows::default(), Vec::new());
        let (troubles, large_scrape, version) = (Vec::new(), None, &**VERSION);
        let (busiest, deletes, tab) = (Vec::new(), Vec::new(), list.search.tab);
        let at = tab.name();
        Self {
            list,
            troubles,
            edges,
            uplinks,
            suppressed,
            busiest,
            deletes,
            tab,
            overview: true,
            at,
            large_scrape,
            admin_api,
            now_ns,
            root,
            owner,
            version,
        }
    }

    /// Says whether the visitor may see what belongs to no group.
    pub fn with_overview(self, overview: bool) -> Self {
        Self { overview, ..self }
    }

    /// Whether the page has the list of groups: the first page of a node without edges has it too.
    fn has_groups(&self) -> bool {
        self.tab == PageTab::Groups || (self.tab == PageTab::Now && self.edges.is_none())
    }

    /// Adds the groups with the most writes.
    pub fn with_busiest(mut self, busiest: Vec<BusyGroup>) -> Self {
        self.busiest = busiest;
        self
    }

    /// Adds the last deletes.
    pub fn with_deletes(mut self, deletes: Vec<DeleteSummary>) -> Self {
        self.deletes = deletes;
        self
    }

    /// Adds the troubles of this node itself.
    pub fn with_troubles(mut self, troubles: Vec<TroubleSummary>) -> Self {
        self.troubles = troubles;
        self
    }

    /// The number of rows that the section of troubles has, or would have.
    fn wrong(&self) -> usize {
        self.troubles.len() + self.edges.as_ref().map_or(0, |edges| edges.wrong_total)
    }

    /// Adds the section of edges, at a hub.
    pub fn with_edges(mut self, edges: Vec<EdgeSummary>) -> Self {
        self.edges = Some(EdgeRows::new(edges, &self.list.search, self.now_ns));
        self
    }

    /// Adds the section of hubs, at an edge.
    pub fn with_uplinks(mut self, uplinks: Vec<UplinkSummary>) -> Self {
        self.uplinks = uplinks;
        self
    }

    /// Adds the notice of a scrape that is too large for some scrapers, with its bytes.
    pub fn with_large_scrape(mut self, bytes: Option<u64>) -> Self {
        self.large_scrape = bytes;
        self
    }

    /// Adds the suppressed families. `row` is called only for those on this page; `by_site` has the number of each site.
    pub fn with_suppressed<T>(
        mut self,
        suppressed: Vec<T>,
        row: impl FnMut(T) -> Option<SuppressedSummary>,
        by_site: Vec<(Arc<LabelSet>, usize)>,
    ) -> Self {
        let rows = SuppressedRows::new(suppressed, row, &self.list.search, self.list.names);
        self.suppressed = rows.by_site(by_site);
        self
    }

    /// The page as a reply.
    pub fn reply(&self) -> HttpReply {
        page(self)
    }

    fn ago(&self, wall_ns: &Option<u64>) -> String {
        when::ago(*wall_ns, self.now_ns)
    }

    fn deleted_ago(&self, delete: &DeleteSummary) -> String {
        when::ago(Some(delete.at_ns), self.now_ns)
    }

    fn path_of(&self, labels: &LabelSet) -> String {
        group_path(labels, self.list.names)
    }

    fn orders(&self) -> [(&'static str, &'static str, bool); GroupOrder::ALL.len()] {
        GroupOrder::ALL.map(|(order, parameter, name)| (parameter, name, order == self.list.search.order))
    }

    fn ages(&self) -> [(&'static str, &'static str, bool); AGES.len()] {
        AGES.map(|(age, name)| (age, name, age == self.list.search.older))
    }

    fn mebibytes(&self, bytes: &u64) -> String {
        format!("{:.1} MiB", *bytes as f64 / f64::from(1 << 20))
    }

    fn lag(&self, lag_ns: &u64) -> String {
        lag(*lag_ns)
    }
}
