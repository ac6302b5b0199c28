//! Keys to options: reads each key once, with its default, and checks the rules between keys.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::log::LogOptions;
use super::proxy;
use super::reader::{ConfigReader, Section};
use super::value::{ByteSize, ConfigValue, Pause};
use super::web;
use crate::model::label::is_legacy_label_name;
use crate::net::address::{HostPort, ListenAddress};
use crate::net::identity::EdgeName;
use crate::net::proxy_protocol::TrustedProxy;
use crate::net::tls::TlsFiles;
use crate::net::tls::problem::CertificateUse;
use crate::net::token::TokenDigest;
use crate::net::websocket;
use crate::node::options::{
    DialOptions, EdgeOptions, EnrolmentOptions, HubOptions, LimitOptions, LinkOptions, NodeRole, PushOptions,
    StorageOptions, UplinkOptions, UplinkTls, VerdictRule, WebOptions,
};
use crate::session::{HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, MESSAGE_BYTES_MIN};
use crate::{exposition, store};

pub(super) fn web(reader: &mut ConfigReader<'_>) -> WebOptions {
    let section = reader.section(reader.root(), "web");
    let default = WebOptions::default();
    let listen_addresses = addresses(reader, section, (default.listen_addresses, 1));
    let telemetry_path: String = reader.value(section, "telemetry_path", default.telemetry_path);
    if !telemetry_path.starts_with('/') || telemetry_path.trim_end_matches('/').is_empty() {
        reader.mistake(
            section,
            "telemetry_path",
            format!("{telemetry_path:?} must begin with a slash and not be all of it"),
        );
    }
    let external_url = reader.value(section, "external_url", String::new());
    let external_path = url_path(&external_url);
    if external_path.is_none() && !external_url.is_empty() {
        let text = format!("{external_url:?} is no URL: write it like \"https://push.example.org/prefix\"");
        reader.mistake(section, "external_url", text);
    }
    let host = external_url.strip_prefix("https://").map(url_host);
    reader.note_names(CertificateUse::Gateway, host.filter(|host| !host.is_empty()).into_iter().collect());
    let route_prefix: String = reader.value(section, "route_prefix", default.route_prefix);
    // As in Pushgateway: the default of the prefix is the path of the external URL.
    let prefix = if route_prefix.is_empty() { external_path.clone().unwrap_or_default() } else { route_prefix };
    let prefix = prefix.trim_matches('/');
    let open_paths: Vec<String> = reader.list(section, "open_paths", default.open_paths);
    if let Some(path) = open_paths.iter().find(|path| !path.starts_with('/') || path.contains(['?', '%'])) {
        reader.mistake(section, "open_paths", format!("{path:?} must be a path like \"/-/healthy\", not escaped"));
    }
    WebOptions {
        listen_addresses,
        telemetry_path: telemetry_path.trim_end_matches('/').to_owned(),
        external_path,
        route_prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
        enable_lifecycle: reader.value(section, "enable_lifecycle", default.enable_lifecycle),
        enable_admin_api: reader.value(section, "enable_admin_api", default.enable_admin_api),
        open_paths,
        systemd_socket: reader.value(section, "systemd_socket", default.systemd_socket),
        security: web::security(reader, section),
    }
}

/// The decoded path of an `http` or `https` URL, or of a path alone, which Pushgateway accepts too.
fn url_path(url: &str) -> Option<String> {
    let path = if url.starts_with('/') && !url.starts_with("//") {
        url
    } else {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        Some(path).filter(|_| !host.is_empty())?
    };
    let good = !url.contains(['?', '#']) && !url.contains(char::is_whitespace);
    good.then(|| percent_decode_str(path).decode_utf8().ok().map(Cow::into_owned))?
}

/// The host of a URL, whose scheme was removed.
fn url_host(rest: &str) -> String {
    let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default().into(),
        None => host.split(':').next().unwrap_or_default().into(),
    }
}

fn addresses<'a>(
    reader: &mut ConfigReader<'a>,
    section: Section<'a>,
    (default, least): (Vec<ListenAddress>, usize),
) -> Vec<ListenAddress> {
    let before = reader.mistakes_len();
    let addresses = reader.list(section, "listen_address", default);
    if addresses.len() < least && reader.mistakes_len() == before {
        reader.mistake(section, "listen_address", "at least one address is needed".into());
    }
    for (i, address) in addresses.iter().enumerate() {
        if address.port() != 0 && addresses[..i].contains(address) {
            reader.mistake(section, "listen_address", format!("{address} is given twice"));
        }
    }
    addresses
}

pub(super) fn push(reader: &mut ConfigReader<'_>) -> PushOptions {
    let section = reader.section(reader.root(), "push");
    let default = PushOptions::default();
    PushOptions {
        disable_consistency_check: reader.value(
            section,
            "disable_consistency_check",
            default.disable_consistency_check,
        ),
        enable_utf8_names: reader.value(section, "enable_utf8_names", default.enable_utf8_names),
        timestamps: reader.value(section, "timestamps", default.timestamps),
        openmetrics: reader.value(section, "openmetrics", default.openmetrics),
    }
}

pub(super) fn storage(reader: &mut ConfigReader<'_>) -> StorageOptions {
    let section = reader.section(reader.root(), "storage");
    let default = StorageOptions::default();
    StorageOptions {
        path: reader.directory(section, "path", default.path),
        sync: reader.value(section, "sync", default.sync),
        tombstone_retention: reader.value(section, "tombstone_retention", default.tombstone_retention),
    }
}

pub(super) fn limits(reader: &mut ConfigReader<'_>) -> LimitOptions {
    let section = reader.section(reader.root(), "limits");
    let default = LimitOptions::default();
    let body_bytes_max = bytes(reader, section, "body_bytes_max", default.body_bytes_max);
    if body_bytes_max > BODY_BYTES_MAX {
        reader.mistake(section, "body_bytes_max", "a push cannot be larger than 1GiB: split it".into());
    }
    LimitOptions {
        body_bytes_max,
        compressed_body_bytes_max: bytes(
            reader,
            section,
            "compressed_body_bytes_max",
            default.compressed_body_bytes_max,
        ),
        inflight_bytes_max: reader.value(section, "inflight_bytes_max", ByteSize(default.inflight_bytes_max)).0,
        push: exposition::PushLimits {
            line_bytes_max: bytes(reader, section, "line_bytes_max", default.push.line_bytes_max),
            labels_per_series_max: reader.value(section, "series_labels_max", default.push.labels_per_series_max),
            series_max: reader.value(section, "push_series_max", default.push.series_max),
            families_max: reader.value(section, "push_families_max", default.push.families_max),
            ..default.push
        },
        store: store::StoreLimits {
            groups_max: reader.value(section, "groups_max", default.store.groups_max),
            series_max: reader.value(section, "series_max", default.store.series_max),
        },
        scrape_cache_bytes_max: bytes(reader, section, "scrape_cache_bytes_max", default.scrape_cache_bytes_max),
        connections_max: reader.value(section, "connections_max", default.connections_max),
        scrapes_max: reader.value(section, "scrapes_max", default.scrapes_max),
        header_bytes_max: bytes(reader, section, "header_bytes_max", default.header_bytes_max),
        header_timeout: reader.value(section, "header_timeout", default.header_timeout),
        body_timeout: reader.value(section, "body_timeout", default.body_timeout),
        idle_timeout: Some(reader.value(section, "idle_timeout", Pause(default.idle_timeout.unwrap_or_default())).0)
            .filter(|limit| !limit.is_zero()),
        write_timeout: reader.value(section, "write_timeout", default.write_timeout),
        drain_timeout: reader.value(section, "drain_timeout", default.drain_timeout),
    }
}

/// The parser counts the contents of one push in 32 bits.
const BODY_BYTES_MAX: usize = 1 << 30;

fn bytes<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>, name: &str, default: usize) -> usize {
    // A size that this machine cannot address is no bound on it.
    usize::try_from(reader.value(section, name, ByteSize(default as u64)).0).unwrap_or(usize::MAX)
}

pub(super) fn log(reader: &mut ConfigReader<'_>) -> LogOptions {
    let section = reader.section(reader.root(), "log");
    let default = LogOptions::default();
    LogOptions {
        level: reader.value(section, "level", default.level),
        format: reader.value(section, "format", default.format),
    }
}

pub(super) fn link(reader: &mut ConfigReader<'_>) -> LinkOptions {
    let section = reader.section(reader.root(), "link");
    let default = LinkOptions::default();
    let handshake_timeout = reader.value(section, "handshake_timeout", default.handshake_timeout);
    let message_bytes_max = bytes(reader, section, "message_bytes_max", default.message_bytes_max);
    if (message_bytes_max as u64) < MESSAGE_BYTES_MIN {
        let text = format!("the other end would refuse the link: the bound must be {MESSAGE_BYTES_MIN} bytes or more");
        reader.mistake(section, "message_bytes_max", text);
    }
    LinkOptions { handshake_timeout, message_bytes_max }
}

/// The uplinks: one for each section of the file. If flags name hubs, there is one uplink for each of these instead;
/// its other settings are those of the file's first section.
pub(super) fn uplinks(reader: &mut ConfigReader<'_>) -> Vec<UplinkOptions> {
    let sections = reader.sections(reader.root(), "uplink");
    let first = sections.first().copied().unwrap_or(reader.no_section("uplink"));
    let before = reader.mistakes_len();
    let named: Vec<HostPort> = reader.flag_list(first, "hub");
    let is_misread = reader.mistakes_len() > before;
    let wanted: Vec<(Section<'_>, Option<HostPort>)> = if named.is_empty() {
        sections.into_iter().map(|section| (section, None)).collect()
    } else {
        named.into_iter().map(|hub| (first, Some(hub))).collect()
    };
    if wanted.is_empty()
        && !is_misread
        && let Some(flag) = reader.has_flags_in("uplink")
    {
        reader.mistake_in_flag(flag, "no hub is given to send to: add --uplink.hub".into());
    }
    let hubs_of_flags = wanted.iter().filter(|(_, hub)| hub.is_some()).count();
    if hubs_of_flags > 1 && reader.is_given(first, "addresses") {
        let text =
            "the addresses are of one hub, and --uplink.hub names several: write an [[uplink]] section for each hub";
        reader.mistake(first, "addresses", text.into());
    }
    let mut uplinks: Vec<UplinkOptions> = Vec::new();
    for (section, hub) in wanted {
        let Some(uplink) = uplink(reader, section, hub) else { continue };
        if uplinks.iter().any(|other| other.hub == uplink.hub) {
            reader.mistake(section, "hub", format!("the hub {} is given twice", uplink.hub));
        }
        uplinks.push(uplink);
    }
    uplinks
}

fn uplink<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>, named: Option<HostPort>) -> Option<UplinkOptions> {
    let default = DialOptions::default();
    let hub = match named {
        Some(hub) => {
            reader.note_value(section, "hub", hub.to_text());
            Some(hub)
        }
        None => reader.required(section, "hub"),
    };
    let addresses: Vec<HostPort> = reader.list(section, "addresses", Vec::new());
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) || hub.as_ref() == Some(address) {
            reader.mistake(section, "addresses", format!("{address} is given twice"));
        }
    }
    let labels = reader.labels(section, "labels");
    let dialling = DialOptions {
        connect_timeout: reader.value(section, "connect_timeout", default.connect_timeout),
        backoff_min: reader.value(section, "backoff_min", default.backoff_min),
        backoff_max: reader.value(section, "backoff_max", default.backoff_max),
    };
    if dialling.backoff_min > dialling.backoff_max {
        let text = format!("backoff_min must not be longer than backoff_max ({})", dialling.backoff_max.to_text());
        reader.mistake(section, "backoff_min", text);
    }
    let send_interval = reader.value(section, "send_interval", Pause(UplinkOptions::SEND_INTERVAL)).0;
    if send_interval > UplinkOptions::SEND_INTERVAL_MAX {
        let text = format!("the interval must be {} or less", UplinkOptions::SEND_INTERVAL_MAX.to_text());
        reader.mistake(section, "send_interval", text);
    }
    let verdicts = reader.value(section, "verdicts", VerdictRule::default());
    let proxy = proxy::proxy(reader, section);
    let path: String = reader.value(section, "path", websocket::PATH.into());
    if !path.starts_with('/') || path.contains(['?', '#', '%']) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.mistake(section, "path", format!("{path:?} must be a path like \"/relay{}\"", websocket::PATH));
    }
    let token_file = reader.maybe_file(section, "token_file");
    let tls = uplink_tls(reader, section, token_file.as_deref());
    if let Some(UplinkTls::Certificate(tls)) = &tls {
        reader.note_site(section, &labels, tls);
    }
    let files = reader.section(section, "uplink.tls");
    let renew = reader.value(files, "renew", UplinkOptions::RENEW);
    if renew && matches!(tls, Some(UplinkTls::Authorities(_) | UplinkTls::Off)) {
        reader.mistake(files, "renew", "there is no certificate to renew: a token has no end of validity".into());
    }
    let (hub, tls) = (hub?, tls?);
    Some(UplinkOptions {
        hub,
        addresses,
        labels,
        path,
        tls,
        token_file,
        renew,
        proxy,
        dialling,
        send_interval,
        verdicts,
    })
}

/// TLS of an uplink: an uplink with a token needs no certificate.
fn uplink_tls<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>, token_file: Option<&Path>) -> Option<UplinkTls> {
    let files = reader.section(section, "uplink.tls");
    let is_given = |reader: &ConfigReader<'a>, name: &str| reader.is_given(files, name);
    let has_own = is_given(reader, "cert_file") || is_given(reader, "key_file");
    let tls = if reader.value(section, "plaintext", UplinkOptions::PLAINTEXT) {
        if token_file.is_none() {
            let text = "an edge without TLS cannot show a certificate: it needs a token (token_file)";
            reader.mistake(section, "plaintext", text.into());
        }
        if has_own || is_given(reader, "ca_file") {
            reader.mistake_at(files, "[uplink.tls] has no use with plaintext = true: remove one of both".into());
        }
        Some(UplinkTls::Off)
    } else if token_file.is_some() && !has_own {
        reader.file(files, "ca_file").map(UplinkTls::Authorities)
    } else {
        tls(reader, files, "ca_file", CertificateUse::Edge).map(UplinkTls::Certificate)
    };
    if let (Some(token_file), Some(tls)) = (token_file, &tls) {
        reader.note_token((section, files), token_file, tls);
    }
    tls
}

/// Whether a host is a DNS name: one that clients may use too, where an address may be one of several.
fn is_name(host: &str) -> bool {
    !host.is_empty() && host != "localhost" && host.parse::<std::net::IpAddr>().is_err()
}

fn tls<'a>(
    reader: &mut ConfigReader<'a>,
    section: Section<'a>,
    ca_name: &'static str,
    used_by: CertificateUse,
) -> Option<TlsFiles> {
    // All three are read before any is reported missing, so that every mistake is found.
    let [ca, cert, key] = [ca_name, "cert_file", "key_file"].map(|name| reader.file(section, name));
    let crl_file = if used_by == CertificateUse::Hub { reader.maybe_file(section, "crl_file") } else { None };
    let (ca_file, cert_file, key_file): (PathBuf, PathBuf, PathBuf) = (ca?, cert?, key?);
    let files = TlsFiles { ca_file, cert_file, key_file, crl_file, anonymous: false, used_by };
    reader.note_files(section, ca_name, &files);
    Some(files)
}

/// Whether a section or a flag makes the node a hub.
pub(super) fn is_hub(reader: &ConfigReader<'_>) -> bool {
    reader.section(reader.root(), "hub").is_there() || reader.has_flags_in("hub").is_some()
}

const HEARTBEATS: std::ops::RangeInclusive<Duration> =
    Duration::from_nanos(HEARTBEAT_NS_MIN)..=Duration::from_nanos(HEARTBEAT_NS_MAX);

/// The options of a hub. A file of an edge is reported as such, instead of every key that it lacks.
pub(super) fn hub(reader: &mut ConfigReader<'_>, is_hub: bool) -> Option<HubOptions> {
    if !is_hub && reader.has_file() {
        reader.mistake_at(reader.root(), "there is no [hub]: add it, or run `pushrelay edge`".into());
        return None;
    }
    let section = reader.section(reader.root(), "hub");
    let web_link = reader.value(section, "web_link", HubOptions::WEB_LINK);
    let default = vec![ListenAddress::every_interface(HubOptions::PORT)];
    let listen_addresses = addresses(reader, section, (default, usize::from(!web_link)));
    let trust_edge_labels = reader.value(section, "trust_edge_labels", HubOptions::TRUST_EDGE_LABELS);
    let allow = reader.list(section, "allow", Vec::new());
    let required_labels: Vec<String> = reader.list(section, "required_labels", Vec::new());
    if let Some(bad) = required_labels.iter().find(|name| !is_legacy_label_name(name)) {
        let text = format!("{bad:?} is no name of a label: write it like \"IDC\"");
        reader.mistake(section, "required_labels", text);
    }
    let trusted_proxies: Vec<TrustedProxy> = reader.list(section, "trusted_proxies", Vec::new());
    let connections_max = reader.value(section, "connections_max", HubOptions::CONNECTIONS_MAX);
    let heartbeat_interval: Duration = reader.value(section, "heartbeat_interval", HubOptions::HEARTBEAT_INTERVAL);
    if !HEARTBEATS.contains(&heartbeat_interval) {
        reader.mistake(section, "heartbeat_interval", "the interval must be from 100ms to 1m".into());
    }
    let files = reader.section(section, "hub.tls");
    let hosts = listen_addresses.iter().map(|address| address.host().to_owned());
    reader.note_names(CertificateUse::Hub, hosts.filter(|host| is_name(host)).collect());
    let plaintext = plaintext(reader, section, &listen_addresses, &trusted_proxies);
    let ends_tls = !plaintext && !listen_addresses.is_empty();
    let mut tls = if ends_tls { tls(reader, files, "client_ca_file", CertificateUse::Hub) } else { None };
    if !ends_tls && files.is_there() {
        let text =
            "[hub.tls] has no use: the hub has no listener of its own with TLS (hub.listen_address, hub.plaintext)";
        reader.mistake_at(files, text.into());
    }
    let enrolment = enrolment(reader, section);
    if enrolment.is_some() && !ends_tls {
        let text = "certificates are issued over TLS with the hub itself: it needs a listener with [hub.tls]";
        reader.mistake(reader.section(section, "hub.enrol"), "dir", text.into());
    }
    let mut edges: Vec<EdgeOptions> = Vec::new();
    for section in reader.sections(section, "hub.edge") {
        let name: Option<EdgeName> = reader.required(section, "name");
        let labels = reader.labels(section, "labels");
        let tokens: Vec<TokenDigest> = reader.list(section, "token_sha256", Vec::new());
        let Some(name) = name else { continue };
        if let Some(other) = edges.iter().find(|edge| edge.tokens.iter().any(|token| tokens.contains(token))) {
            let text = format!("the edge {} has this token: each edge needs its own", other.name);
            reader.mistake(section, "token_sha256", text);
        }
        if labels.is_empty() {
            let text = format!("the edge {name} needs labels that say where it is, such as {{ IDC = \"SYQ\" }}");
            reader.mistake(section, "labels", text);
        }
        if edges.iter().any(|edge| edge.name == name) {
            reader.mistake(section, "name", format!("the edge {name} has a section already"));
        }
        edges.push(EdgeOptions { name, labels, tokens });
    }
    let has_tokens = edges.iter().any(|edge| !edge.tokens.is_empty());
    if let Some(tls) = &mut tls {
        tls.anonymous = enrolment.is_some() || has_tokens;
    }
    if !has_tokens && (plaintext || web_link) {
        let name = if plaintext { "plaintext" } else { "web_link" };
        let text = "no [[hub.edge]] has a token_sha256, so that no edge can connect there: `pushrelay pki token NAME` makes one";
        reader.doubt(section, name, text.into());
    }
    let tls = if ends_tls { Some(tls?) } else { None };
    Some(HubOptions {
        listen_addresses,
        tls,
        web_link,
        trust_edge_labels,
        allow,
        required_labels,
        trusted_proxies,
        connections_max,
        heartbeat_interval,
        enrolment,
        edges,
    })
}

/// Whether a hub's listeners take edges without TLS. They must not be open to everybody.
fn plaintext<'a>(
    reader: &mut ConfigReader<'a>,
    section: Section<'a>,
    listen_addresses: &[ListenAddress],
    trusted_proxies: &[TrustedProxy],
) -> bool {
    let plaintext = reader.value(section, "plaintext", HubOptions::PLAINTEXT);
    let is_loopback = |host: &str| host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let open = listen_addresses.iter().find(|address| !is_loopback(address.host()));
    if let (true, Some(address), true) = (plaintext, open, trusted_proxies.is_empty()) {
        let text = format!(
            "tokens would come to {address} without TLS from everywhere: listen on 127.0.0.1, or name the box in front of the \
             hub in trusted_proxies"
        );
        reader.mistake(section, "plaintext", text);
    }
    plaintext
}

/// Checks that gateway and edges have addresses of their own.
pub(super) fn ports(reader: &mut ConfigReader<'_>, web: &WebOptions, hub: &HubOptions) {
    let section = reader.section(reader.root(), "hub");
    let is_same = |a: &ListenAddress, b: &ListenAddress| {
        let is_every = |address: &ListenAddress| ["", "0.0.0.0", "::"].contains(&address.host());
        a.port() == b.port() && a.port() != 0 && (a.host() == b.host() || is_every(a) || is_every(b))
    };
    let taken = hub.listen_addresses.iter().find(|edges| web.listen_addresses.iter().any(|web| is_same(edges, web)));
    if let Some(address) = taken.filter(|_| !web.systemd_socket) {
        let port = HubOptions::PORT;
        let text = format!(
            "{address} is taken by web.listen_address: edges need a port of their own, such as :{port}; edges with tokens can \
             use the gateway's (hub.web_link = true, hub.listen_address = [])"
        );
        reader.mistake(section, "listen_address", text);
    }
}

/// The enrolment of a hub; `None` if it has none.
fn enrolment<'a>(reader: &mut ConfigReader<'a>, hub: Section<'a>) -> Option<EnrolmentOptions> {
    let section = reader.section(hub, "hub.enrol");
    let directory = reader.maybe_file(section, "dir");
    let certificate_lifetime: Duration =
        reader.value(section, "certificate_lifetime", EnrolmentOptions::CERTIFICATE_LIFETIME);
    if certificate_lifetime < EnrolmentOptions::CERTIFICATE_LIFETIME_MIN {
        let text = "an edge needs time to renew its certificate: the lifetime must be 1h or more, such as 24h";
        reader.mistake(section, "certificate_lifetime", text.into());
    }
    // The commented file shows both keys with their defaults.
    if !reader.is_given(section, "dir") && reader.is_given(section, "certificate_lifetime") {
        let text = "without dir this hub issues no certificates, and their lifetime has no use: add dir, or remove it";
        reader.mistake(section, "certificate_lifetime", text.into());
    }
    let directory = directory?;
    reader.note_authority(section, &directory);
    Some(EnrolmentOptions { directory, certificate_lifetime })
}

/// The node's role, by the command and the configuration.
pub(super) fn role(reader: &mut ConfigReader<'_>, asked: Option<NodeRole>, is_hub: bool) -> NodeRole {
    let hub = reader.section(reader.root(), "hub");
    if asked == Some(NodeRole::Edge) && is_hub {
        reader.mistake_at(hub, "[hub] makes a node a hub: run `pushrelay hub`".into());
    }
    asked.unwrap_or(if is_hub { NodeRole::Hub } else { NodeRole::Edge })
}
