//! The web pages: what is wrong now, edges, groups with their metrics, metrics held back, and the node's status. Each is a
//! tab, which is a link.
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
mod edge;
mod group;
mod hub;
mod index;
mod pager;
mod plot;
mod points;
mod search;
mod status;
mod tab;
mod when;

use std::sync::Arc;

use askama::Template;

use crate::model::LabelSet;

use super::reply::{HTML, HttpReply};
use super::url;

pub(super) use asset::asset;
pub use edge::{EdgeDetail, EdgePage};
pub use group::GroupFragment;
pub use hub::{DeleteSummary, EdgeSummary, ShownSummary, SuppressedSummary, TroubleSummary, UplinkSummary};
pub use index::{GroupDetails, GroupList, IndexPage, WeighedGroup};
pub use plot::Plot;
pub use search::{GroupFinder, GroupOrder, Search};
pub use status::{CertificateExpiry, LimitUse, StatusPage, StatusState};
pub use tab::PageTab;

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

/// A group with its size and its writes.
#[derive(Clone, Debug, Default)]
pub struct BusyGroup {
    /// Its labels as shown.
    pub labels: Arc<LabelSet>,
    /// Its series, shown or not.
    pub series: usize,
    /// Writes in the last minute.
    pub per_minute: u32,
    /// The address of the last pusher; empty if it is not known.
    pub last_peer: String,
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
