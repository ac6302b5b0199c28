//! The web pages: groups with their metrics, links, metrics held back, and the node's status.
//!
//! - **Size**: the pages are made for a hundred thousand groups. A page lists a hundred, a line each, and the server
//!   answers searches, so that the browser's memory is bounded. A group's metrics are loaded when it is opened
//!   (`/status/group/…`, a page of its own).
//! - **Script**: every page can be read without the script, which avoids loading whole pages, and deletes groups.
//! - **Security**: nothing is loaded from another origin and no script is inline, which [`CONTENT_SECURITY_POLICY`]
//!   enforces in the browser. The templates escape all pushed texts.
//! - **Links** are relative, so that the pages work behind any prefix.

mod asset;
mod group;
mod hub;
mod index;
mod pager;
mod points;
mod search;
mod when;

use askama::Template;

use super::query::NodeStatus;
use super::reply::{HTML, HttpReply};

pub(super) use asset::asset;
pub use group::GroupFragment;
pub use hub::{EdgeSummary, ShownSummary, SuppressedSummary, UplinkSummary};
pub use index::{GroupList, IndexPage};
pub use search::{Matcher, Search};

/// The policy for the browser: it may load and run only the files under `/static/`, and make requests to the page's own
/// origin.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The page at `/status`.
#[derive(Clone, Debug, Template)]
#[template(path = "status.html")]
pub struct StatusPage<'a> {
    status: &'a NodeStatus,
    now_ns: u64,
    root: &'static str,
    version: &'static str,
}

impl<'a> StatusPage<'a> {
    /// A page of that status at that time.
    pub fn new(status: &'a NodeStatus, now_ns: u64) -> Self {
        Self { status, now_ns, root: "", version: &asset::VERSION }
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
        .with("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests;
