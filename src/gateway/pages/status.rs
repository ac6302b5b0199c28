//! The page at `/status`: limits with their use, certificates, differences from defaults, build, configuration.

use askama::Template;

use super::super::instant;
use super::super::query::NodeStatus;
use super::super::reply::HttpReply;
use super::asset::VERSION;
use super::{PageFrame, PageOwner, page, when};

/// A limit is near when this share of it is used, in percent.
const NEAR_PERCENT: u64 = 90;

/// A limit and its use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitUse {
    /// The key of the configuration.
    pub name: &'static str,
    /// The amount in use.
    pub used: u64,
    /// The limit.
    pub max: u64,
}

impl LimitUse {
    fn percent(&self) -> u64 {
        self.used.saturating_mul(100).checked_div(self.max).unwrap_or(100).min(100)
    }

    fn is_near(&self) -> bool {
        self.percent() >= NEAR_PERCENT
    }

    fn text(&self) -> String {
        let grouped = |count: u64| super::pager::grouped(usize::try_from(count).unwrap_or(usize::MAX));
        format!("{} of {} ({} %)", grouped(self.used), grouped(self.max), self.percent())
    }
}

/// The expiry of the certificates in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The file.
    pub file: String,
    /// When the first of them expires, in nanoseconds since the Unix epoch.
    pub expires_ns: u64,
    /// When they should have been renewed, in the same way.
    pub late_ns: u64,
}

/// The state that the page shows beside build and configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusState {
    /// Limits with their use.
    pub limits: Vec<LimitUse>,
    /// Certificates.
    pub certificates: Vec<CertificateExpiry>,
    /// The scrape configuration for this node.
    pub scrape_config: String,
}

/// The page at `/status`.
#[derive(Clone, Debug, Template)]
#[template(path = "status.html")]
pub struct StatusPage<'a> {
    status: &'a NodeStatus,
    state: StatusState,
    now_ns: u64,
    root: String,
    owner: &'a PageOwner,
    version: &'static str,
    at: &'static str,
}

impl<'a> StatusPage<'a> {
    /// A page of that status at that time.
    pub fn new(status: &'a NodeStatus, state: StatusState, frame: &'a PageFrame, now_ns: u64) -> Self {
        Self { status, state, now_ns, root: frame.at_depth(0), owner: &frame.owner, version: &VERSION, at: "status" }
    }

    /// The page as a reply.
    pub fn reply(&self) -> HttpReply {
        page(self)
    }

    fn started(&self) -> String {
        when::at(Some(self.status.start_ns))
    }

    fn uptime(&self) -> String {
        instant::span(self.now_ns.saturating_sub(self.status.start_ns))
    }

    fn is_late(&self, certificate: &CertificateExpiry) -> bool {
        certificate.late_ns < self.now_ns
    }

    fn expiry(&self, certificate: &CertificateExpiry) -> String {
        let at = when::at(Some(certificate.expires_ns));
        match certificate.expires_ns.checked_sub(self.now_ns) {
            Some(left_ns) => format!("{at}, in {}", instant::span(left_ns)),
            None => format!("{at}, expired"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_near_at_nine_tenths() {
        let limit = |used, max| LimitUse { name: "limits.groups_max", used, max };
        assert_eq!(limit(899, 1_000).text(), "899 of 1,000 (89 %)");
        assert_eq!(
            [limit(899, 1_000), limit(900, 1_000), limit(5, 0)].map(|limit| limit.is_near()),
            [false, true, true]
        );
    }
}
