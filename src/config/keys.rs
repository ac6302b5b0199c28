//! Every key there is: what may stand in a file, which flag sets it, and what it means.
//!
//! The flags of the command line, the check for unknown keys and the table in `docs/reference/configuration.md` follow
//! from this one list; tests hold the documentation and the commented files to it. Defaults are not here: they live with the types
//! that use them.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Sections and name, with dots: `web.listen_address`.
    pub path: &'static str,
    /// The flag that sets it, without the dashes in front; `None` if it can be set in a file alone.
    pub flag: Option<&'static str>,
    /// What stands for its value in messages; empty for a switch.
    pub value: &'static str,
    /// Whether it may be given several times.
    pub many: bool,
    /// What it means: half a sentence.
    pub meaning: &'static str,
}

/// Sections that may be there several times: `[[uplink]]`.
pub const LISTS: [&str; 2] = ["uplink", "hub.edge"];

const fn one(path: &'static str, flag: &'static str, value: &'static str, meaning: &'static str) -> Key {
    Key { path, flag: Some(flag), value, many: false, meaning }
}

const fn many(path: &'static str, flag: &'static str, value: &'static str, meaning: &'static str) -> Key {
    Key { path, flag: Some(flag), value, many: true, meaning }
}

const fn file_only(path: &'static str, value: &'static str, meaning: &'static str) -> Key {
    Key { path, flag: None, value, many: false, meaning }
}

/// All keys, section by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    many("web.listen_address", "web.listen-address", "HOST:PORT", "where the gateway listens; without HOST on every interface"),
    one("web.telemetry_path", "web.telemetry-path", "PATH", "where the scrape is"),
    one("web.external_url", "web.external-url", "URL", "how the node is reached from outside: its path is the default of web.route_prefix"),
    one("web.route_prefix", "web.route-prefix", "PATH", "what every path begins with; by default the path of the external URL"),
    one("web.enable_lifecycle", "web.enable-lifecycle", "", "let requests stop the node and make it read its configuration again"),
    one("web.enable_admin_api", "web.enable-admin-api", "", "let one request wipe everything, at a hub on the disks of its edges, too"),
    one("web.systemd_socket", "web.systemd-socket", "", "listen on the sockets that systemd passes on, instead of web.listen_address"),
    Key { path: "web.config_file", flag: Some("web.config.file"), value: "FILE", many: false, meaning: "exporter-toolkit's YAML file of TLS, users, headers and rate limit, instead of the sections here" },
    one("web.http2", "web.http2", "", "offer HTTP/2 to those who come with TLS"),
    file_only("web.headers", "{ NAME = \"VALUE\" }", "headers of the answers to requests that the rate limit lets pass: Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection, Content-Security-Policy"),
    file_only("web.basic_auth_users", "{ USER = \"HASH\" }", "who may come in, with passwords hashed by bcrypt; everybody, if there is none"),
    one("web.rate_limit.interval", "web.rate-limit.interval", "DURATION", "between two requests of all clients together, beyond the burst; without it there is no limit"),
    one("web.rate_limit.burst", "web.rate-limit.burst", "N", "requests that may come at once nevertheless"),
    one("web.tls.cert_file", "web.tls.cert-file", "FILE", "the gateway's certificate, PEM; with it the gateway speaks TLS alone"),
    one("web.tls.key_file", "web.tls.key-file", "FILE", "the certificate's key, PEM"),
    one("web.tls.client_auth_type", "web.tls.client-auth-type", "NoClientCert|RequestClientCert|RequireAnyClientCert|VerifyClientCertIfGiven|RequireAndVerifyClientCert", "what is asked of clients' certificates; RequireAndVerifyClientCert keeps strangers out, RequireAnyClientCert only those without a certificate"),
    one("web.tls.client_ca_file", "web.tls.client-ca-file", "FILE", "the authorities of clients, PEM"),
    many("web.tls.client_allowed_sans", "web.tls.client-allowed-sans", "NAME", "a client's certificate must be for one of these: a DNS name, an IP or e-mail address, or a URI"),
    one("web.tls.min_version", "web.tls.min-version", "TLS12|TLS13", "the least version of TLS; TLS12 if not given"),
    one("web.tls.max_version", "web.tls.max-version", "TLS12|TLS13", "the greatest version of TLS; TLS13 if not given"),
    many("web.tls.cipher_suites", "web.tls.cipher-suites", "NAME", "the cipher suites of TLS 1.2, best first; if not given, all that are secure"),
    one("web.tls.prefer_server_cipher_suites", "web.tls.prefer-server-cipher-suites", "", "let the order of suites here count rather than the client's; true if not given"),
    many("web.tls.curve_preferences", "web.tls.curve-preferences", "CurveP256|CurveP384|X25519", "the curves for the exchange of keys, best first; if not given, the library's choice"),
    file_only("web.tls.cert", "PEM", "the certificate itself, instead of its file"),
    file_only("web.tls.key", "PEM", "the key itself, instead of its file"),
    file_only("web.tls.client_ca", "PEM", "the authorities themselves, instead of their file"),
    one("push.disable_consistency_check", "push.disable-consistency-check", "", "answer pushes 202, without checking them against what is held"),
    one("push.enable_utf8_names", "push.enable-utf8-names", "", "let metric and label names be any UTF-8"),
    one("storage.path", "storage.path", "DIR", "the directory that keeps what was pushed; empty for memory only"),
    one("storage.sync", "storage.sync", "always|never", "answer a push when it is on disk, or when the operating system has it"),
    one("storage.tombstone_retention", "storage.tombstone-retention", "DURATION", "how long a hub remembers a delete"),
    one("limits.body_bytes_max", "limits.body-bytes-max", "SIZE", "a push's body, decompressed"),
    one("limits.compressed_body_bytes_max", "limits.compressed-body-bytes-max", "SIZE", "a compressed body, as it arrives"),
    one("limits.inflight_bytes_max", "limits.inflight-bytes-max", "SIZE", "all bodies held at once"),
    one("limits.line_bytes_max", "limits.line-bytes-max", "SIZE", "a line of the text format"),
    one("limits.series_labels_max", "limits.series-labels-max", "N", "labels of one series, without its group's"),
    one("limits.push_series_max", "limits.push-series-max", "N", "series in one push"),
    one("limits.push_families_max", "limits.push-families-max", "N", "metric names in one push"),
    one("limits.groups_max", "limits.groups-max", "N", "groups held; as many deleted ones may be remembered besides"),
    one("limits.series_max", "limits.series-max", "N", "series held, in all groups together"),
    one("limits.scrape_cache_bytes_max", "limits.scrape-cache-bytes-max", "SIZE", "compressed text kept between scrapes; 0 keeps none"),
    one("limits.connections_max", "limits.connections-max", "N", "HTTP connections at once"),
    one("limits.scrapes_max", "limits.scrapes-max", "N", "scrapes and answers of the query API on their way at once"),
    one("limits.header_bytes_max", "limits.header-bytes-max", "SIZE", "a request's line and headers"),
    one("limits.header_timeout", "limits.header-timeout", "DURATION", "for a request's headers to arrive"),
    one("limits.body_timeout", "limits.body-timeout", "DURATION", "for a request's body to arrive"),
    one("limits.idle_timeout", "limits.idle-timeout", "DURATION", "for the next request on a connection kept alive"),
    one("limits.write_timeout", "limits.write-timeout", "DURATION", "for a client to take the next bytes of an answer"),
    one("limits.drain_timeout", "limits.drain-timeout", "DURATION", "for requests and links to end when the node stops"),
    one("log.level", "log.level", "LEVEL", "the least that is logged: trace, debug, info, warn or error"),
    one("log.format", "log.format", "logfmt|json", "how a line of the log is written"),
    one("link.handshake_timeout", "link.handshake-timeout", "DURATION", "for TLS and the greeting of a link"),
    one("link.message_bytes_max", "link.message-bytes-max", "SIZE", "a message taken from the other end, decompressed"),
    many("uplink.hub", "uplink.hub", "HOST:PORT", "a hub to send to"),
    many("uplink.labels", "uplink.labels", "NAME=VALUE", "labels to claim; they count where the hub trusts its edges"),
    one("uplink.connect_timeout", "uplink.connect-timeout", "DURATION", "for the TCP connection to the hub"),
    one("uplink.backoff_min", "uplink.backoff-min", "DURATION", "the first wait before dialling again is at random, up to twice this; the next are twice as long"),
    one("uplink.backoff_max", "uplink.backoff-max", "DURATION", "the longest wait before dialling again"),
    one("uplink.send_interval", "uplink.send-interval", "DURATION", "the shortest time from one update to the next: longer takes fewer bytes and less work, shorter shows pushes sooner"),
    one("uplink.tls.ca_file", "uplink.tls.ca-file", "FILE", "the authorities of hubs, PEM"),
    one("uplink.tls.cert_file", "uplink.tls.cert-file", "FILE", "this edge's certificate, PEM"),
    one("uplink.tls.key_file", "uplink.tls.key-file", "FILE", "the certificate's key, PEM"),
    many("hub.listen_address", "hub.listen-address", "HOST:PORT", "where edges connect to; without HOST on every interface"),
    one("hub.trust_edge_labels", "hub.trust-edge-labels", "", "let labels count that an edge merely claims"),
    one("hub.connections_max", "hub.connections-max", "N", "edges connected at once"),
    one("hub.heartbeat_interval", "hub.heartbeat-interval", "DURATION", "how often both ends of a link say that they are there; three in a row missing end it"),
    one("hub.tls.cert_file", "hub.tls.cert-file", "FILE", "the hub's certificate, PEM"),
    one("hub.tls.key_file", "hub.tls.key-file", "FILE", "the certificate's key, PEM"),
    one("hub.tls.client_ca_file", "hub.tls.client-ca-file", "FILE", "the authorities of edges, PEM"),
    file_only("hub.edge.name", "NAME", "an edge, as its certificate names it"),
    file_only("hub.edge.labels", "{ NAME = \"VALUE\" }", "the labels of its place, instead of its certificate's"),
];

/// The key at a path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names that may stand directly in a section (`""` for the file itself), sections included.
pub(super) fn names_in(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS.iter().filter_map(|key| rest_below(key.path, section)?.split('.').next()).collect();
    names.sort();
    names.dedup();
    names
}

fn rest_below<'a>(path: &'a str, section: &str) -> Option<&'a str> {
    if section.is_empty() { Some(path) } else { path.strip_prefix(section)?.strip_prefix('.') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_its_key_with_dashes() {
        // Pushgateway's own flag, whose dots would be sections.
        let special = |key: &Key| key.path == "web.config_file" && key.flag == Some("web.config.file");
        for key in KEYS {
            let same = key.flag.is_none_or(|flag| flag == key.path.replace('_', "-"));
            assert!(same || special(key), "{}", key.path);
        }
        let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
    }

    #[test]
    fn sections_know_their_names() {
        assert_eq!(names_in(""), ["hub", "limits", "link", "log", "push", "storage", "uplink", "web"]);
        assert_eq!(names_in("hub.tls"), ["cert_file", "client_ca_file", "key_file"]);
    }
}
