//! What a node is told to be. Checked: what stands here can be used as it is.
//!
//! `config/` makes these of a file and flags; `docs/reference/configuration.md` says what each means to an operator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::http::auth::guard::GuardRules;
use super::http::auth::passwords::Users;
use crate::model::LabelSet;
use crate::net::address::{HostPort, ListenAddress};
use crate::net::identity::EdgeName;
use crate::net::tls::TlsFiles;
use crate::net::tls::web::WebTls;
use crate::storage::SyncPolicy;
use crate::{exposition, session, store};

/// Which of the two a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Takes pushes and sends them on.
    Edge,
    /// Takes edges.
    Hub,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// What the node is.
    pub role: NodeRole,
    /// The gateway's HTTP face.
    pub web: WebOptions,
    /// How pushes are taken.
    pub push: PushOptions,
    /// Where they are kept.
    pub storage: StorageOptions,
    /// Bounds.
    pub limits: LimitOptions,
    /// What both ends of a link agree on by default.
    pub link: LinkOptions,
    /// The hubs to send to; none at a hub.
    pub uplinks: Vec<UplinkOptions>,
    /// Only at a hub.
    pub hub: Option<HubOptions>,
    /// Every option by its flag's name, without dashes in front, with its value: for `/api/v1/status`.
    pub flags: Vec<(String, String)>,
}

/// `[web]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOptions {
    /// Where to listen; at least one.
    pub listen_addresses: Vec<ListenAddress>,
    /// Where the scrape is; begins with a slash.
    pub telemetry_path: String,
    /// Before every path: empty, or beginning with a slash and not ending in one.
    pub route_prefix: String,
    /// `/-/quit` and `/-/reload` work.
    pub enable_lifecycle: bool,
    /// Everything can be wiped by one request.
    pub enable_admin_api: bool,
    /// Listen on the sockets that systemd passes on, not on `listen_addresses`.
    pub systemd_socket: bool,
    /// What is asked of clients.
    pub security: WebSecurity,
}

impl Default for WebOptions {
    fn default() -> Self {
        Self {
            listen_addresses: vec![ListenAddress::every_interface(9091)],
            telemetry_path: "/metrics".into(),
            route_prefix: String::new(),
            enable_lifecycle: false,
            enable_admin_api: false,
            systemd_socket: false,
            security: WebSecurity::default(),
        }
    }
}

/// `[web.tls]`, `[web.headers]`, `[web.basic_auth_users]`, `[web.rate_limit]`; or what a file of exporter-toolkit's says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSecurity {
    /// How TLS is spoken; without it, HTTP is not encrypted.
    pub tls: Option<WebTls>,
    /// Offer HTTP/2, in TLS.
    pub http2: bool,
    /// What every request must pass.
    pub guard: GuardRules,
    /// The file of its own from which all of this was read.
    pub config_file: Option<PathBuf>,
}

impl Default for WebSecurity {
    fn default() -> Self {
        let guard = GuardRules { headers: Vec::new(), users: Users::new(BTreeMap::new()), rate_limit: None };
        Self { tls: None, http2: true, guard, config_file: None }
    }
}

/// `[push]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Answer 202 without checking a push against what is held.
    pub disable_consistency_check: bool,
    /// Metric and label names may be any UTF-8.
    pub enable_utf8_names: bool,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageOptions {
    /// The directory; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// When a push is answered.
    pub sync: SyncPolicy,
    /// How long a hub remembers a delete.
    pub tombstone_retention: Duration,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            path: Some("data".into()),
            sync: SyncPolicy::Always,
            tombstone_retention: Duration::from_secs(7 * 86_400),
        }
    }
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitOptions {
    /// Bytes of a push's body, decompressed.
    pub body_bytes_max: usize,
    /// Bytes of a push's body as it arrives, if it is compressed.
    pub compressed_body_bytes_max: usize,
    /// Bytes of all bodies held at once.
    pub inflight_bytes_max: u64,
    /// What one push may hold.
    pub push: exposition::PushLimits,
    /// What the store may hold.
    pub store: store::StoreLimits,
    /// Bytes of compressed text kept between scrapes.
    pub scrape_cache_bytes_max: usize,
    /// HTTP connections at once.
    pub connections_max: usize,
    /// Scrapes and answers of the query API on their way at once.
    pub scrapes_max: usize,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// For a request's head to arrive.
    pub header_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    /// For the next request on a connection kept alive.
    pub idle_timeout: Duration,
    /// For a client to take the next bytes of an answer.
    pub write_timeout: Duration,
    /// For requests and links to end when the node stops.
    pub drain_timeout: Duration,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            compressed_body_bytes_max: 64 << 20,
            inflight_bytes_max: 512 << 20,
            push: exposition::PushLimits::default(),
            store: store::StoreLimits::default(),
            scrape_cache_bytes_max: 64 << 20,
            connections_max: 10_000,
            // More than one connection of HTTP/2 can ask for at once.
            scrapes_max: 200,
            header_bytes_max: 64 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// `[link]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// For TLS, the WebSocket and the greeting.
    pub handshake_timeout: Duration,
    /// Bytes of a message taken from the peer, decompressed.
    pub message_bytes_max: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        let session = session::Config::default();
        Self {
            handshake_timeout: Duration::from_nanos(session.handshake_ns),
            message_bytes_max: session.message_bytes_max,
        }
    }
}

impl LinkOptions {
    /// What either end's session has to know of them.
    pub fn session_config(&self) -> session::Config {
        session::Config {
            handshake_ns: u64::try_from(self.handshake_timeout.as_nanos()).unwrap_or(u64::MAX),
            message_bytes_max: self.message_bytes_max,
            ..session::Config::default()
        }
    }
}

/// `[[uplink]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkOptions {
    /// The hub.
    pub hub: HostPort,
    /// Labels that the edge claims; they count where the hub trusts edges.
    pub labels: LabelSet,
    /// The hub's authority, and this edge's certificate and key.
    pub tls: TlsFiles,
    /// When to dial.
    pub dialling: DialOptions,
    /// The shortest time from one update to the next.
    pub send_interval: Duration,
}

/// The longest that changes may be made to wait for more: a node that stops still delivers them.
pub const SEND_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// How an uplink dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialOptions {
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// The shortest wait before dialling again.
    pub backoff_min: Duration,
    /// The longest.
    pub backoff_max: Duration,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// `[hub]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// Where edges connect to; at least one.
    pub listen_addresses: Vec<ListenAddress>,
    /// The edges' authority, and the hub's certificate and key.
    pub tls: TlsFiles,
    /// Whether labels count that an edge merely claims.
    pub trust_edge_labels: bool,
    /// Links at once.
    pub connections_max: usize,
    /// How often both ends of a link say that they are there.
    pub heartbeat_interval: Duration,
    /// What the hub knows of edges by name; these labels win over a certificate's.
    pub edges: Vec<EdgeOptions>,
}

/// The port on which hubs take edges.
pub const HUB_PORT: u16 = 9443;
/// Links that a hub takes by default.
pub const HUB_CONNECTIONS_MAX: usize = 10_000;
/// How often both ends of a link say by default that they are there.
pub fn heartbeat_interval() -> Duration {
    Duration::from_nanos(session::HubConfig::default().heartbeat_ns)
}

/// `[[hub.edge]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeOptions {
    /// The edge's name, as its certificate says it.
    pub name: EdgeName,
    /// The labels of its place.
    pub labels: LabelSet,
}
