//! The pages for people: groups with their metrics, at a hub the edges and what is held back, and the node's status.
//!
//! Made for ten thousand groups: the page lists them in a line each; a group's metrics come when it is opened
//! (`/status/group/…`, a page of its own); searching is the browser's work. Nothing is loaded from elsewhere and nothing
//! runs inline, and the pages say so to the browser ([`CONTENT_SECURITY_POLICY`]); what was pushed is escaped by the
//! templates. Links are relative, so that the pages work behind any prefix.

mod group;

use std::sync::Arc;

use askama::Template;

use crate::model::LabelSet;

use super::instant;
use super::path::group_path;
use super::query::NodeStatus;
use super::reply::{HTML, Reply};

pub use group::GroupFragment;

/// What the browser is told it may load and run: what is served under `/static/`, and the page's own requests.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long before its end a certificate is shown as a worry: 14 days.
const EXPIRES_SOON_NS: u64 = 14 * 86_400 * 1_000_000_000;

/// A group in one line.
#[derive(Clone, Debug, Default)]
pub struct GroupSummary {
    /// Its labels as shown: at a hub, with those of the place.
    pub labels: Arc<LabelSet>,
    /// When the last push was accepted, in nanoseconds since the Unix epoch.
    pub pushed_ns: Option<u64>,
    /// When the last push was refused.
    pub failed_ns: Option<u64>,
    /// How many series it holds.
    pub series_len: usize,
}

/// An edge as its hub sees it.
#[derive(Clone, Debug, Default)]
pub struct EdgeSummary {
    /// Its name.
    pub name: String,
    /// The labels of its place.
    pub labels: Arc<LabelSet>,
    /// Whether it is connected.
    pub connected: bool,
    /// When it was last heard of, in nanoseconds since the Unix epoch.
    pub last_seen_ns: Option<u64>,
    /// The age of the oldest change that it has and this hub has not, in nanoseconds.
    pub lag_ns: Option<u64>,
    /// When its certificate ends, in nanoseconds since the Unix epoch.
    pub certificate_expires_ns: Option<u64>,
    /// Where it connects from; empty if unknown.
    pub address: String,
}

/// A family that is kept but not shown.
#[derive(Clone, Debug, Default)]
pub struct HeldFamily {
    /// The metric's name.
    pub name: Arc<str>,
    /// The labels of its group.
    pub group: Arc<LabelSet>,
    /// What it conflicts in.
    pub reason: String,
    /// The labels of the group that is shown instead.
    pub incumbent: Option<Arc<LabelSet>>,
}

/// What only a hub shows.
#[derive(Clone, Debug, Default)]
pub struct HubSummary {
    /// The edges it knows.
    pub edges: Vec<EdgeSummary>,
    /// The families it holds back.
    pub held: Vec<HeldFamily>,
}

/// The page at `/`.
#[derive(Clone, Debug, Default, Template)]
#[template(path = "index.html")]
pub struct IndexPage {
    /// All groups, in the order in which to show them.
    pub groups: Vec<GroupSummary>,
    /// At a hub, what it knows of its edges.
    pub hub: Option<HubSummary>,
    /// Whether to offer deleting everything.
    pub admin_api: bool,
    /// Now, in nanoseconds since the Unix epoch.
    pub now_ns: u64,
    /// The way up to the root of the pages; always empty here.
    root: &'static str,
}

impl IndexPage {
    /// A page of these groups at that time.
    pub fn new(groups: Vec<GroupSummary>, hub: Option<HubSummary>, admin_api: bool, now_ns: u64) -> Self {
        Self { groups, hub, admin_api, now_ns, root: "" }
    }

    /// The page as a reply.
    pub fn reply(&self) -> Reply {
        page(self)
    }

    fn path(&self, group: &GroupSummary) -> String {
        group_path(&group.labels)
    }

    fn failing(&self, group: &GroupSummary) -> bool {
        group.failed_ns.is_some() && group.failed_ns > group.pushed_ns
    }

    fn span_until_now(&self, wall_ns: &u64) -> String {
        instant::span(self.now_ns.saturating_sub(*wall_ns))
    }

    fn expires_soon(&self, wall_ns: &u64) -> bool {
        wall_ns.saturating_sub(self.now_ns) < EXPIRES_SOON_NS
    }

    fn lag(&self, lag_ns: &u64) -> String {
        if *lag_ns < 1_000_000_000 { format!("{} ms", lag_ns / 1_000_000) } else { instant::span(*lag_ns) }
    }

    fn readable(&self, wall_ns: &u64) -> String {
        instant::readable(*wall_ns)
    }

    fn rfc3339(&self, wall_ns: &u64) -> String {
        instant::rfc3339(*wall_ns)
    }
}

/// The page at `/status`.
#[derive(Clone, Debug, Template)]
#[template(path = "status.html")]
pub struct StatusPage<'a> {
    status: &'a NodeStatus,
    root: &'static str,
}

impl<'a> StatusPage<'a> {
    /// A page of that status.
    pub fn new(status: &'a NodeStatus) -> Self {
        Self { status, root: "" }
    }

    /// The page as a reply.
    pub fn reply(&self) -> Reply {
        page(self)
    }

    fn readable(&self) -> String {
        instant::readable(self.status.start_ns)
    }

    fn rfc3339(&self) -> String {
        instant::rfc3339(self.status.start_ns)
    }
}

fn page(template: &impl Template) -> Reply {
    match template.render() {
        Ok(html) => guarded(Reply::new(200, HTML, html)),
        Err(error) => Reply::error(500, format_args!("the page cannot be rendered: {error}")),
    }
}

/// The reply with the headers that keep a browser from doing more with it than is meant.
fn guarded(reply: Reply) -> Reply {
    reply
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
        .with("Cache-Control", "no-store")
}

/// What is served under `/static/`.
pub(super) fn asset(name: &[u8]) -> Reply {
    let (content_type, body) = match name {
        b"page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        b"page.js" => ("text/javascript; charset=utf-8", include_str!("page.js")),
        _ => return Reply::not_found(),
    };
    let reply = Reply::new(200, content_type, body).with("X-Content-Type-Options", "nosniff");
    // Asked for again each time: a new version must not meet old scripts.
    reply.with("Cache-Control", "no-cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_343_653_000_000_000;
    const HOSTILE: &str = "<script>alert(1)</script>\"'&";

    fn labels(pairs: &[(&str, &str)]) -> Arc<LabelSet> {
        Arc::new(LabelSet::new(pairs.iter().copied()))
    }

    fn html(reply: Reply) -> String {
        assert_eq!((reply.status, reply.content_type), (200, Some(HTML)));
        assert!(reply.headers.contains(&("Content-Security-Policy", CONTENT_SECURITY_POLICY.into())));
        String::from_utf8(reply.body).unwrap()
    }

    fn group(pairs: &[(&str, &str)]) -> GroupSummary {
        GroupSummary { labels: labels(pairs), pushed_ns: Some(NOW - 60_000_000_000), failed_ns: None, series_len: 3 }
    }

    #[test]
    fn groups_are_listed_with_their_paths() {
        let mut failing = group(&[("job", "a")]);
        failing.failed_ns = Some(NOW - 5_000_000_000);
        let page = html(IndexPage::new(vec![group(&[("job", "b/c"), ("x", "1")]), failing], None, false, NOW).reply());
        assert!(page.contains(r#"href="status/group/job@base64/Yi9j/x/1""#), "{page}");
        assert!(page.contains(r#"<i>job</i>b/c</span> <span class="label"><i>x</i>1"#), "{page}");
        assert!(page.contains(">60 s ago</time>") && page.contains("last push failed") && page.contains(">5 s ago"));
        assert!(!page.contains("Delete all") && !page.contains("Edges"));
    }

    #[test]
    fn deleting_is_offered_where_it_is_allowed() {
        let page = |groups, admin| html(IndexPage::new(groups, None, admin, NOW).reply());
        assert!(page(vec![group(&[("job", "a")])], true).contains("Delete all groups"));
        assert!(!page(vec![], true).contains("Delete all groups"));
    }

    #[test]
    fn what_was_pushed_is_text_and_nothing_else() {
        let hostile = labels(&[("job", HOSTILE)]);
        let edge = EdgeSummary {
            name: HOSTILE.into(),
            labels: hostile.clone(),
            address: HOSTILE.into(),
            ..Default::default()
        };
        let held = HeldFamily {
            name: HOSTILE.into(),
            group: hostile.clone(),
            reason: HOSTILE.into(),
            incumbent: Some(hostile.clone()),
        };
        let hub = HubSummary { edges: vec![edge], held: vec![held] };
        let index = html(IndexPage::new(vec![group(&[("job", HOSTILE)])], Some(hub), true, NOW).reply());
        let pairs = vec![(HOSTILE.to_owned(), HOSTILE.to_owned())];
        let status = html(StatusPage::new(&NodeStatus { build: pairs.clone(), flags: pairs, start_ns: NOW }).reply());
        for page in [index, status] {
            assert!(!page.contains("<script>") && !page.contains("\"'&"), "{page}");
            assert!(page.contains("&#60;script&#62;alert(1)&#60;/script&#62;"), "{page}");
        }
    }

    #[test]
    fn ten_thousand_groups_are_a_small_page() {
        let groups =
            (0..10_000).map(|i| group(&[("job", "batch"), ("instance", &format!("host-{i}.example.org:9100"))]));
        let page = html(IndexPage::new(groups.collect(), None, true, NOW).reply());
        assert!(page.len() < 6 << 20, "{} bytes", page.len());
    }

    #[test]
    fn assets_are_served_and_nothing_else() {
        assert_eq!(asset(b"page.css").status, 200);
        assert_eq!(asset(b"page.js").status, 200);
        assert_eq!(asset(b"../mod.rs").status, 404);
        assert_eq!(asset(b"").status, 404);
    }
}
