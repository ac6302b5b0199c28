//! The web pages: groups with their metrics, links, metrics held back, and the node's status.
//!
//! - **Size**: the pages are made for a hundred thousand groups. A page lists a hundred, a line each, and the server
//!   answers searches, so that the browser's memory is bounded. A group's metrics are loaded when it is opened
//!   (`/status/group/…`, a page of its own).
//! - **Script**: every page can be read without the script, which avoids loading whole pages, and deletes groups.
//! - **Security**: nothing is loaded from another origin and no script is inline, which [`CONTENT_SECURITY_POLICY`]
//!   enforces in the browser. The templates escape all pushed texts.
//! - **Links** begin with the path of the external URL if there is one ([`PageFrame`]). Otherwise they are relative, so
//!   that the pages work behind any prefix.

mod asset;
mod group;
mod hub;
mod index;
mod pager;
mod points;
mod search;
mod when;

use std::sync::Arc;

use askama::Template;

use crate::model::LabelSet;

use super::query::NodeStatus;
use super::reply::{HTML, HttpReply};
use super::url;

pub(super) use asset::asset;
pub use group::GroupFragment;
pub use hub::{EdgeSummary, ShownSummary, SuppressedSummary, TroubleSummary, UplinkSummary};
pub use index::{GroupList, IndexPage};
pub use search::{GroupFinder, Search};

/// The policy for the browser: it may load and run only the files under `/static/`, and make requests to the page's own
/// origin.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The parts that all pages of a node share: the root of their links, and whose they are.
///
/// A relative link works behind every prefix if the browser sees the slash at the end of the prefix. An ingress that
/// strips the prefix may serve the page without that slash, so a configured external URL goes before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageFrame {
    root: Option<Arc<str>>,
    owner: PageOwner,
}

/// The node that a page is of, as its header and its title say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageOwner {
    /// Its role: `edge`, `hub`, `relay`, or `gateway` for a node without links; may be empty.
    pub role: &'static str,
    /// Its name: that of its certificate, or the host's; may be empty.
    pub name: Arc<str>,
    /// Its site labels; empty at a hub.
    pub site: Arc<LabelSet>,
}

impl PageFrame {
    /// The frame of a node's pages. `external_path` is the path of its external URL, decoded.
    pub fn new(external_path: Option<&str>, owner: PageOwner) -> Self {
        let root = external_path.map(|path| path.trim_matches('/')).map(|path| {
            if path.is_empty() { "/".into() } else { format!("/{}/", url::escape(path.as_bytes())).into() }
        });
        Self { root, owner }
    }

    /// The root as a prefix of links on a page that is so many folders below it: empty, or with a slash at the end.
    fn at_depth(&self, folders: usize) -> String {
        self.root.as_deref().map_or_else(|| "../".repeat(folders), str::to_owned)
    }
}

/// The page at `/status`.
#[derive(Clone, Debug, Template)]
#[template(path = "status.html")]
pub struct StatusPage<'a> {
    status: &'a NodeStatus,
    now_ns: u64,
    root: String,
    owner: &'a PageOwner,
    version: &'static str,
}

impl<'a> StatusPage<'a> {
    /// A page of that status at that time.
    pub fn new(status: &'a NodeStatus, frame: &'a PageFrame, now_ns: u64) -> Self {
        Self { status, now_ns, root: frame.at_depth(0), owner: &frame.owner, version: &asset::VERSION }
    }

    /// The page as a reply.
    pub fn reply(&self) -> HttpReply {
        page(self)
    }

    fn started(&self) -> String {
        when::at(Some(self.status.start_ns))
    }

    fn uptime(&self) -> String {
        super::instant::span(self.now_ns.saturating_sub(self.status.start_ns))
    }
}

fn page(template: &impl Template) -> HttpReply {
    match template.render() {
        Ok(html) => guarded(HttpReply::new(200, HTML, html)),
        Err(error) => HttpReply::error(500, format_args!("the page cannot be rendered: {error}")),
    }
}

/// Adds the security headers.
fn guarded(reply: HttpReply) -> HttpReply {
    reply
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
}

#[cfg(test)]
mod tests;
