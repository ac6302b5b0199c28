//! The options of a node, checked: they can be used as they are.
//!
//! `config/` makes them from the file and the flags; `docs/reference/configuration.md` describes each for operators. Every
//! default is defined here, or by the type from a lower layer that a field has; `config/` defines none.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::http::auth::guard::GuardRules;
use super::http::auth::passwords::Users;
use super::http::auth::tokens::Tokens;
pub use super::remote_write::options::{ProtobufMessage, QueueOptions, RemoteWriteOptions, WriteMode};
use crate::exposition::TimestampRule;
use crate::gateway::RouteConfig;
use crate::gateway::adding::AggregateRule;
use crate::gateway::rights::AllowRules;
use crate::model::LabelSet;
use crate::net::address::{HostPort, ListenAddress};
use crate::net::identity::{EdgeName, NamePattern};
use crate::net::proxy::ProxyOptions;
use crate::net::proxy_protocol::TrustedProxy;
use crate::net::tls::TlsFiles;
use crate::net::tls::web::WebTls;
use crate::net::token::TokenDigest;
use crate::storage::SyncPolicy;
use crate::store::{ExpiryRules, IDEMPOTENCY_WINDOW_NS};
use crate::{exposition, session, store};

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// The node accepts pushes and sends them to hubs.
    Edge,
    /// The node accepts links from edges.
    Hub,
}

/// All options of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// The role of the node.
    pub role: NodeRole,
    /// `[web]`: the HTTP server.
    pub web: WebOptions,
    /// `[push]`: the checks of pushes.
    pub push: PushOptions,
    /// `[aggregate]`: pushes that add up.
    pub aggregate: AggregateOptions,
    /// `[storage]`: the files of the store.
    pub storage: StorageOptions,
    /// `[limits]`: the limits on requests and on the store.
    pub limits: LimitOptions,
    /// `[link]`: the options that uplinks and the hub share.
    pub link: LinkOptions,
    /// `[[uplink]]`: the hubs to send to; may be empty.
    pub uplinks: Vec<UplinkOptions>,
    /// `[[remote_write]]`: the receivers to write to; may be empty.
    pub remote_writes: Vec<RemoteWriteOptions>,
    /// `[hub]`: only at a hub.
    pub hub: Option<HubOptions>,
    /// `[[expire]]`: the rules by which groups expire.
    pub expiry: ExpiryRules,
    /// `[[allow]]`: who may do what; without a rule everybody may do everything.
    pub allow: AllowRules,
    /// Every option by its flag's name (without leading dashes) and its value, for `/api/v1/status`.
    pub flags: Vec<(String, String)>,
    /// The default of every option, in the same form; empty if it has none.
    pub defaults: Vec<(String, String)>,
}

impl NodeOptions {
    /// The flags whose value is not the default: name, value, default.
    pub fn changed_flags(&self) -> Vec<(String, String, String)> {
        let changed = self.flags.iter().filter_map(|(name, value)| {
            let default = self.defaults.iter().find(|(known, _)| known == name).map_or("", |(_, default)| default);
            (value != default).then(|| (name.clone(), value.clone(), default.to_owned()))
        });
        changed.collect()
    }
}

/// `[web]`: the HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOptions {
    /// The addresses to listen on; at least one.
    pub listen_addresses: Vec<ListenAddress>,
    /// The path of scrapes; begins with a slash.
    pub telemetry_path: String,
    /// The path of the external URL, decoded; `None` if there is no external URL.
    pub external_path: Option<String>,
    /// The prefix of every path: empty, or beginning with a slash and not ending in one.
    pub route_prefix: String,
    /// Whether `/-/quit` and `/-/reload` are enabled.
    pub enable_lifecycle: bool,
    /// Whether the admin API, which deletes all groups, is enabled.
    pub enable_admin_api: bool,
    /// The paths below the prefix that GET requests may have without a password; each begins with a slash.
    pub open_paths: Vec<String>,
    /// Whether to listen on the sockets that systemd passes on, instead of `listen_addresses`.
    pub systemd_socket: bool,
    /// TLS, authentication, headers and rate limit.
    pub security: WebSecurity,
}

impl Default for WebOptions {
    fn default() -> Self {
        Self {
            listen_addresses: vec![ListenAddress::every_interface(9091)],
            telemetry_path: RouteConfig::default().telemetry_path,
            external_path: None,
            route_prefix: String::new(),
            enable_lifecycle: false,
            enable_admin_api: false,
            open_paths: Vec::new(),
            systemd_socket: false,
            security: WebSecurity::default(),
        }
    }
}

/// `[web.tls]`, `[web.headers]`, `[web.basic_auth_users]`, `[web.rate_limit]`; or the contents of a web configuration
/// file of exporter-toolkit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSecurity {
    /// The TLS settings; `None` means unencrypted HTTP.
    pub tls: Option<WebTls>,
    /// Whether HTTP/2 is offered over TLS.
    pub http2: bool,
    /// The rules that every request must satisfy.
    pub guard: GuardRules,
    /// The web configuration file from which these options were read, if there is one.
    pub config_file: Option<PathBuf>,
}

impl WebSecurity {
    /// Whether passwords, tokens or certificates are in the configuration file itself, and not in files that it names.
    pub fn has_inline_credentials(&self) -> bool {
        let has_pem = self.tls.as_ref().is_some_and(WebTls::has_inline_pem);
        !self.guard.tokens.is_empty() || self.config_file.is_none() && (has_pem || !self.guard.users.is_empty())
    }
}

impl Default for WebSecurity {
    fn default() -> Self {
        let (users, tokens) = (Users::new(BTreeMap::new()), Tokens::default());
        let guard = GuardRules { headers: Vec::new(), users, tokens, rate_limit: None };
        Self { tls: None, http2: true, guard, config_file: None }
    }
}

/// `[push]`: the checks of pushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Answer 202 without checking a push against the stored groups.
    pub disable_consistency_check: bool,
    /// Allow any UTF-8 in metric and label names.
    pub enable_utf8_names: bool,
    /// The treatment of samples with a timestamp.
    pub timestamps: TimestampRule,
    /// Read OpenMetrics bodies.
    pub openmetrics: bool,
}

/// `[aggregate]`: pushes that add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateOptions {
    /// How long an `Idempotency-Key` is remembered.
    pub idempotency_window: Duration,
    /// How groups add up; the first rule that matches counts.
    pub rules: Vec<AggregateRule>,
}

impl Default for AggregateOptions {
    fn default() -> Self {
        Self { idempotency_window: Duration::from_nanos(IDEMPOTENCY_WINDOW_NS), rules: Vec::new() }
    }
}

/// `[storage]`: the files of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageOptions {
    /// The directory; `None` keeps the store in memory only.
    pub path: Option<PathBuf>,
    /// The point at which a push is answered, relative to fsync.
    pub sync: SyncPolicy,
    /// The time for which a hub keeps tombstones.
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

/// `[limits]`: the limits on requests and on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitOptions {
    /// Bytes of a push's body, decompressed, at most.
    pub body_bytes_max: usize,
    /// Bytes of a compressed push's body as sent, at most.
    pub compressed_body_bytes_max: usize,
    /// Bytes of all request bodies in memory together.
    pub inflight_bytes_max: u64,
    /// The limits on the contents of one push.
    pub push: exposition::PushLimits,
    /// The limits on the contents of the store.
    pub store: store::StoreLimits,
    /// Bytes of compressed text that is cached between scrapes.
    pub scrape_cache_bytes_max: usize,
    /// HTTP connections at once, at most.
    pub connections_max: usize,
    /// Scrapes and responses of the query API in flight at once, at most.
    pub scrapes_max: usize,
    /// Bytes of a request's head, at most.
    pub header_bytes_max: usize,
    /// Time for a request's head to arrive.
    pub header_timeout: Duration,
    /// Time for a request's body to arrive.
    pub body_timeout: Duration,
    /// Time until the next request on a kept-alive connection; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// Time for a client to take the next bytes of a response.
    pub write_timeout: Duration,
    /// Time for requests and links to end at shutdown.
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
            // More than one HTTP/2 connection can request at once.
            scrapes_max: 200,
            header_bytes_max: 64 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            // Pushgateway has no limit. An idle connection is closed when another one needs its room.
            idle_timeout: None,
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// `[link]`: the options that uplinks and the hub share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Time for TLS, then for the WebSocket, then for the hello; at a hub, for the first two together.
    pub handshake_timeout: Duration,
    /// Bytes of a message from the peer, decompressed, at most.
    pub message_bytes_max: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), message_bytes_max: 64 << 20 }
    }
}

impl LinkOptions {
    /// The times and bounds of a session, at both ends; an edge sets its own interval of updates.
    pub fn session_config(&self) -> session::Config {
        session::Config {
            handshake_ns: u64::try_from(self.handshake_timeout.as_nanos()).unwrap_or(u64::MAX),
            batch_bytes_max: session::BATCH_BYTES_MAX,
            message_bytes_max: self.message_bytes_max,
            progress_ns: session::PROGRESS_NS,
            send_interval_ns: 0,
        }
    }
}

/// `[[uplink]]`: a hub to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkOptions {
    /// The address of the hub.
    pub hub: HostPort,
    /// Further addresses of the same hub.
    pub addresses: Vec<HostPort>,
    /// The labels that the edge claims for its site; they count only if the hub trusts edges.
    pub labels: LabelSet,
    /// The path of the request for the link.
    pub path: String,
    /// TLS with the hub, and this edge's certificate.
    pub tls: UplinkTls,
    /// The file of this edge's token, if it has one.
    pub token_file: Option<PathBuf>,
    /// Whether the hub renews the certificate, and the files are replaced.
    pub renew: bool,
    /// The proxy to the hub, if there is one.
    pub proxy: Option<ProxyOptions>,
    /// The limits and pauses of dialling.
    pub dialling: DialOptions,
    /// The shortest time between two updates.
    pub send_interval: Duration,
    /// The answer to a push into a conflict at the hub.
    pub verdicts: VerdictRule,
}

/// The answer to a push into a conflict at the hub that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerdictRule {
    /// As to any other push; the failure time of its group says so.
    #[default]
    Mark,
    /// 400 with the hub's reason.
    Reject,
}

/// TLS of an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkTls {
    /// The hub's authority, and this edge's certificate and private key.
    Certificate(TlsFiles),
    /// The authorities of the certificate of the hub, or of the box in front of it; this edge has a token.
    Authorities(PathBuf),
    /// No TLS: the token can be read on the way.
    Off,
}

impl UplinkTls {
    /// The files of this edge's certificate, if it has one.
    pub fn certificate(&self) -> Option<&TlsFiles> {
        match self {
            Self::Certificate(files) => Some(files),
            Self::Authorities(_) | Self::Off => None,
        }
    }

    /// All files.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Certificate(files) => vec![files.ca_file.clone(), files.cert_file.clone(), files.key_file.clone()],
            Self::Authorities(ca_file) => vec![ca_file.clone()],
            Self::Off => Vec::new(),
        }
    }
}

impl UplinkOptions {
    /// The default of `plaintext`.
    pub const PLAINTEXT: bool = false;
    /// The default of `renew`.
    pub const RENEW: bool = false;
    /// The default of `send_interval`.
    pub const SEND_INTERVAL: Duration = Duration::ZERO;
    /// The longest `send_interval` allowed: a node that shuts down must still deliver its changes.
    pub const SEND_INTERVAL_MAX: Duration = Duration::from_secs(10);
}

/// The limits and pauses of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialOptions {
    /// Time for each name look-up, then for the TCP connection.
    pub connect_timeout: Duration,
    /// The shortest pause before the hub is dialled again.
    pub backoff_min: Duration,
    /// The longest pause before the hub is dialled again.
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

/// `[hub]`: the listeners for edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// The addresses at which edges connect; at least one, unless they connect at the gateway's listener.
    pub listen_addresses: Vec<ListenAddress>,
    /// The edges' authority, and the hub's certificate and private key; `None` if a box in front of the hub ends TLS.
    pub tls: Option<TlsFiles>,
    /// Whether edges with a token connect at the gateway's listener too.
    pub web_link: bool,
    /// Whether the labels count that an edge claims for its site.
    pub trust_edge_labels: bool,
    /// The edges that may connect; empty for all.
    pub allow: Vec<NamePattern>,
    /// The names of the site labels that every edge must have.
    pub required_labels: Vec<String>,
    /// The boxes in front of the hub that may name the address of an edge.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Links at once, at most.
    pub connections_max: usize,
    /// The interval of heartbeats on a link, for both ends.
    pub heartbeat_interval: Duration,
    /// The enrolment of edges; `None` if this hub issues no certificates.
    pub enrolment: Option<EnrolmentOptions>,
    /// The known edges by name. Their labels win over those of a certificate.
    pub edges: Vec<EdgeOptions>,
}

/// `[hub.enrol]`: the certificates that a hub issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentOptions {
    /// The directory of the authority, its key and the invitations.
    pub directory: PathBuf,
    /// The time for which a certificate is valid.
    pub certificate_lifetime: Duration,
}

impl EnrolmentOptions {
    /// The default of `certificate_lifetime`.
    pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
    /// The shortest lifetime: an edge must have time to renew its certificate.
    pub const CERTIFICATE_LIFETIME_MIN: Duration = Duration::from_secs(3_600);
}

impl HubOptions {
    /// The port of the default address for edges.
    pub const PORT: u16 = 9443;
    /// The default of `plaintext`.
    pub const PLAINTEXT: bool = false;
    /// The default of `web_link`.
    pub const WEB_LINK: bool = false;
    /// The default of `trust_edge_labels`.
    pub const TRUST_EDGE_LABELS: bool = false;
    /// The default of `connections_max`.
    pub const CONNECTIONS_MAX: usize = 10_000;
    /// The default of `heartbeat_interval`.
    pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
}

/// `[[hub.edge]]`: a known edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeOptions {
    /// The edge's name, as in its certificate if it has one.
    pub name: EdgeName,
    /// The labels of its site.
    pub labels: LabelSet,
    /// The digests of its tokens; two while one takes the place of the other.
    pub tokens: Vec<TokenDigest>,
}
