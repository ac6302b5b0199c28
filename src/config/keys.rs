//! All keys: the flag that sets each of them, its values, and its meaning.
//!
//! This list is the source of the command line's flags, of the check for unknown keys, and of the tables in
//! `docs/reference/configuration.md`; tests compare the documentation and the commented files with it. Defaults are
//! not here: they belong to the types that use them.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Sections and name, separated by dots: `web.listen_address`.
    pub path: &'static str,
    /// The flag that sets the key, without the leading dashes; `None` if only a file can set it.
    pub flag: Option<&'static str>,
    /// The name of its value in help and documentation; empty for a switch.
    pub value: &'static str,
    /// Whether it may be given several times.
    pub many: bool,
    /// The meaning, as half a sentence.
    pub meaning: &'static str,
}

/// Sections that may occur several times: `[[uplink]]`.
pub const LISTS: [&str; 6] = ["uplink", "hub.edge", "allow", "expire", "aggregate.rule", "remote_write"];

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
    many("web.listen_address", "web.listen-address", "HOST:PORT", "address of the gateway; without HOST every interface"),
    one("web.telemetry_path", "web.telemetry-path", "PATH", "path of the scrape"),
    one("web.external_url", "web.external-url", "URL", "URL of the node as clients see it; its path begins the links of the pages, and is the default of web.route_prefix"),
    one("web.route_prefix", "web.route-prefix", "PATH", "prefix of every path; by default the path of web.external_url"),
    one("web.enable_lifecycle", "web.enable-lifecycle", "", "enable /-/quit and /-/reload"),
    one("web.enable_admin_api", "web.enable-admin-api", "", "enable the request that deletes every group; at a hub it deletes them on the edges' disks too"),
    many("web.open_paths", "web.open-paths", "PATH", "paths that GET requests may have without a password, such as /-/healthy and /-/ready; without web.route_prefix"),
    one("web.systemd_socket", "web.systemd-socket", "", "listen on the sockets that systemd passes, instead of web.listen_address"),
    Key { path: "web.config_file", flag: Some("web.config.file"), value: "FILE", many: false, meaning: "exporter-toolkit's YAML file of TLS, users, headers and rate limit, instead of the sections here" },
    one("web.http2", "web.http2", "", "offer HTTP/2 over TLS"),
    file_only("web.headers", "{ NAME = \"VALUE\" }", "headers added to answers, except to requests over the rate limit: Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection, Content-Security-Policy"),
    file_only("web.basic_auth_users", "{ USER = \"HASH\" }", "users and their passwords as bcrypt hashes; if there are none, no password is required"),
    file_only("web.tokens", "{ NAME = \"SHA256\" }", "bearer tokens by name, each as the SHA-256 digest of its text; [[allow]] rules name them"),
    one("web.rate_limit.interval", "web.rate-limit.interval", "DURATION", "beyond the burst, one request of all clients together is accepted each interval; if not given, there is no limit"),
    one("web.rate_limit.burst", "web.rate-limit.burst", "N", "requests that are accepted at once"),
    one("web.tls.cert_file", "web.tls.cert-file", "FILE", "the gateway's certificate, PEM; with it the gateway accepts TLS only"),
    one("web.tls.key_file", "web.tls.key-file", "FILE", "the certificate's key, PEM"),
    one("web.tls.client_auth_type", "web.tls.client-auth-type", "NoClientCert|RequestClientCert|RequireAnyClientCert|VerifyClientCertIfGiven|RequireAndVerifyClientCert", "whether clients need a certificate: RequireAndVerifyClientCert accepts only those of client_ca_file, RequireAnyClientCert accepts any"),
    one("web.tls.client_ca_file", "web.tls.client-ca-file", "FILE", "authorities of clients' certificates, PEM"),
    many("web.tls.client_allowed_sans", "web.tls.client-allowed-sans", "NAME", "a client's certificate must have one of these names: a DNS name, an IP or e-mail address, or a URI"),
    one("web.tls.min_version", "web.tls.min-version", "TLS12|TLS13", "lowest version of TLS; TLS12 if not given"),
    one("web.tls.max_version", "web.tls.max-version", "TLS12|TLS13", "highest version of TLS; TLS13 if not given"),
    many("web.tls.cipher_suites", "web.tls.cipher-suites", "NAME", "cipher suites of TLS 1.2, best first; if not given, all that are secure"),
    one("web.tls.prefer_server_cipher_suites", "web.tls.prefer-server-cipher-suites", "", "use the order of suites here rather than the client's; true if not given"),
    many("web.tls.curve_preferences", "web.tls.curve-preferences", "CurveP256|CurveP384|X25519", "curves for the key exchange, best first; if not given, the library's choice"),
    file_only("web.tls.cert", "PEM", "the certificate itself, instead of its file"),
    file_only("web.tls.key", "PEM", "the key itself, instead of its file"),
    file_only("web.tls.client_ca", "PEM", "the authorities themselves, instead of their file"),
    one("push.disable_consistency_check", "push.disable-consistency-check", "", "answer pushes 202, without a check against other groups"),
    one("push.enable_utf8_names", "push.enable-utf8-names", "", "accept any UTF-8 in the names of metrics and labels"),
    one("push.timestamps", "push.timestamps", "refuse|strip", "refuse: answer 400 to a push of samples with timestamps; strip: store the samples without them"),
    one("push.openmetrics", "push.openmetrics", "", "read bodies of the type application/openmetrics-text, or with the last line # EOF, as OpenMetrics"),
    one("aggregate.idempotency_window", "aggregate.idempotency-window", "DURATION", "time for which a repeat of a push with the same Idempotency-Key adds nothing"),
    file_only("aggregate.rule.match", "SELECTOR", "groups to which the rule applies, as a PromQL selector of their labels; the first rule that matches counts"),
    file_only("aggregate.rule.gauge", "last|max|min|sum", "how gauges and untyped metrics of several pushes that add are combined"),
    file_only("aggregate.rule.every_path", "BOOL", "whether pushes to these groups add at every path, not only below /aggregate"),
    one("storage.path", "storage.path", "DIR", "directory of the store; empty for memory only"),
    one("storage.sync", "storage.sync", "always|never", "always: answer a push when it is on disk; never: when the operating system has it"),
    one("storage.tombstone_retention", "storage.tombstone-retention", "DURATION", "time for which a hub remembers a delete"),
    file_only("expire.match", "SELECTOR", "groups that the rule is for, as {job=\"ci\",IDC=\"SYQ\"}; the first rule that matches a group decides"),
    file_only("expire.after", "DURATION|never", "lifetime of these groups after the newest accepted push; never: they do not expire"),
    file_only("allow.user", "NAME", "user of basic authentication whom the rule is for"),
    file_only("allow.certificate", "NAME", "name in a client's certificate that the rule is for: its common name or a subject alternative name"),
    file_only("allow.token", "NAME", "token of web.tokens that the rule is for"),
    file_only("allow.anonymous", "BOOL", "whether the rule is for everybody, also without credentials"),
    file_only("allow.may", "[ \"RIGHT\" ]", "what the subject may do: push, delete, read, admin"),
    file_only("allow.match", "SELECTOR", "groups that the rule is for, as {team=\"a\"}; all if not given"),
    file_only("allow.groups_max", "N", "groups that match may select; a push of one more is refused"),
    file_only("allow.series_max", "N", "series in these groups; a push that adds more is refused"),
    file_only("allow.pushes_per_second", "N", "pushes and deletes by this rule in a second; as many are accepted at once"),
    one("limits.body_bytes_max", "limits.body-bytes-max", "SIZE", "size of a push's body, decompressed"),
    one("limits.compressed_body_bytes_max", "limits.compressed-body-bytes-max", "SIZE", "size of a compressed body, as it arrives"),
    one("limits.inflight_bytes_max", "limits.inflight-bytes-max", "SIZE", "size of all bodies in memory at once"),
    one("limits.line_bytes_max", "limits.line-bytes-max", "SIZE", "length of a line of the text format"),
    one("limits.series_labels_max", "limits.series-labels-max", "N", "labels of one series, without its group's"),
    one("limits.push_series_max", "limits.push-series-max", "N", "series in one push"),
    one("limits.push_families_max", "limits.push-families-max", "N", "metric names in one push"),
    one("limits.groups_max", "limits.groups-max", "N", "groups in the store; as many deleted ones may be remembered besides"),
    one("limits.series_max", "limits.series-max", "N", "series in the store, in all groups together"),
    one("limits.scrape_cache_bytes_max", "limits.scrape-cache-bytes-max", "SIZE", "compressed text cached between scrapes; 0 disables the cache"),
    one("limits.connections_max", "limits.connections-max", "N", "HTTP connections at once; the limit of open files may allow fewer"),
    one("limits.scrapes_max", "limits.scrapes-max", "N", "scrapes, pages and answers of the query API in progress at once"),
    one("limits.header_bytes_max", "limits.header-bytes-max", "SIZE", "size of a request's line and headers"),
    one("limits.header_timeout", "limits.header-timeout", "DURATION", "time for a request's headers to arrive"),
    one("limits.body_timeout", "limits.body-timeout", "DURATION", "time for a request's body to arrive"),
    one("limits.idle_timeout", "limits.idle-timeout", "DURATION", "time until the next request on an open connection; 0s: no limit, idle connections are closed when others need the room"),
    one("limits.write_timeout", "limits.write-timeout", "DURATION", "time for a client to take the next bytes of an answer"),
    one("limits.drain_timeout", "limits.drain-timeout", "DURATION", "time for requests and links to end when the node stops"),
    one("log.level", "log.level", "LEVEL", "lowest level that is logged: trace, debug, info, warn or error"),
    one("log.format", "log.format", "logfmt|json", "format of a log line"),
    one("link.handshake_timeout", "link.handshake-timeout", "DURATION", "time for TLS, then for the WebSocket, then for the hello of a link; at a hub for the first two together"),
    one("link.message_bytes_max", "link.message-bytes-max", "SIZE", "size of a message from the peer, decompressed"),
    many("uplink.hub", "uplink.hub", "HOST:PORT", "address of a hub"),
    many("uplink.addresses", "uplink.addresses", "HOST:PORT", "further addresses of the same hub, tried together with the one in hub; its certificate must be for the host in hub"),
    many("uplink.labels", "uplink.labels", "NAME=VALUE", "site labels that this node claims; a hub uses them only with hub.trust_edge_labels"),
    one("uplink.connect_timeout", "uplink.connect-timeout", "DURATION", "time for each name look-up, then for the TCP connection, over all addresses"),
    one("uplink.backoff_min", "uplink.backoff-min", "DURATION", "first wait before the next attempt to connect, at random up to twice this; each wait is twice as long as the one before"),
    one("uplink.backoff_max", "uplink.backoff-max", "DURATION", "longest wait before the next attempt"),
    one("uplink.send_interval", "uplink.send-interval", "DURATION", "shortest time between two updates: longer costs fewer bytes and less work, shorter shows pushes sooner"),
    one("uplink.verdicts", "uplink.verdicts", "mark|reject", "answer to a push of metrics that the hub does not show because of a conflict there; mark: 200, and push_failure_time_seconds moves; reject: 400 with the hub's reason while the conflict lasts"),
    one("uplink.proxy_url", "uplink.proxy-url", "URL", "proxy to the hub: http://, https://, socks5:// (names are resolved here) or socks5h:// (names are resolved by the proxy), HOST:PORT"),
    one("uplink.proxy_username", "uplink.proxy-username", "NAME", "user of the proxy"),
    one("uplink.proxy_password_file", "uplink.proxy-password-file", "FILE", "file that contains the user's password alone"),
    one("uplink.proxy_ca_file", "uplink.proxy-ca-file", "FILE", "authorities of the certificate of an https proxy, PEM"),
    file_only("uplink.proxy_connect_headers", "{ NAME = \"VALUE\" }", "headers added to the CONNECT of an http or https proxy; the values are not shown"),
    many("uplink.no_proxy", "uplink.no-proxy", "RULE", "targets that are dialled without the proxy: a host, .SUFFIX, an address, a network (CIDR) or *, each with or without :PORT"),
    one("uplink.proxy_from_environment", "uplink.proxy-from-environment", "", "take the proxy from https_proxy or all_proxy, and no_proxy, of the environment"),
    one("uplink.proxy_timeout", "uplink.proxy-timeout", "DURATION", "time for the proxy to open a tunnel"),
    one("uplink.path", "uplink.path", "PATH", "path at which the hub takes edges; a box in front of the hub, or its web.route_prefix, may put a prefix before it"),
    one("uplink.token_file", "uplink.token-file", "FILE", "file that contains this node's token alone, for a hub that has its token_sha256; with it uplink.tls needs no cert_file and key_file"),
    one("uplink.plaintext", "uplink.plaintext", "", "dial without TLS, and send the token so that everything in between can read it: only to a box on this host that adds TLS"),
    one("uplink.tls.ca_file", "uplink.tls.ca-file", "FILE", "authorities of the certificate of the hub, or of the box in front of it that ends TLS, PEM"),
    one("uplink.tls.cert_file", "uplink.tls.cert-file", "FILE", "this node's certificate for its hubs, PEM"),
    one("uplink.tls.key_file", "uplink.tls.key-file", "FILE", "the certificate's key, PEM"),
    one("uplink.tls.renew", "uplink.tls.renew", "", "let the hub renew the certificate before it expires: the files are replaced; `pushrelay join` sets this"),
    file_only("remote_write.url", "URL", "URL to which samples are posted, such as http://vm:8428/api/v1/write"),
    file_only("remote_write.name", "NAME", "name of the receiver in metrics and logs; by default host and port of the URL"),
    file_only("remote_write.interval", "DURATION", "time between two ticks, each of which writes all samples"),
    file_only("remote_write.mode", "interval|on-change", "interval: write all series each interval; on-change: write a series within a second of its push, and all each refresh"),
    file_only("remote_write.refresh", "DURATION", "time between two ticks that write all series in mode on-change"),
    file_only("remote_write.remote_timeout", "DURATION", "time for one request"),
    file_only("remote_write.match", "[ \"SELECTOR\" ]", "write only series that one of these selectors matches; all if there is none"),
    file_only("remote_write.headers", "{ NAME = \"VALUE\" }", "headers added to each request, such as X-Scope-OrgID; the values are not shown"),
    file_only("remote_write.external_labels", "{ NAME = \"VALUE\" }", "labels added to series that have no label of that name"),
    file_only("remote_write.job", "NAME", "label job of the node's own metrics, as the job_name of a scrape"),
    file_only("remote_write.instance", "NAME", "label instance of the node's own metrics; by default this host's name and the port of the gateway"),
    file_only("remote_write.escaping", "allow-utf-8|underscores|dots|values", "form of names that are not [a-zA-Z0-9_:], as a scrape's escaping= asks for it"),
    file_only("remote_write.protobuf_message", "prometheus.WriteRequest|io.prometheus.write.v2.Request", "version of messages: 1.0 or 2.0; 1.0 is used for a receiver that does not know 2.0"),
    file_only("remote_write.send_native_histograms", "", "write native histograms as such, and not their classic buckets"),
    file_only("remote_write.proxy_url", "URL", "proxy to the receiver, as uplink.proxy_url; a tunnel is opened also for http://"),
    file_only("remote_write.proxy_username", "NAME", "user of the proxy"),
    file_only("remote_write.proxy_password_file", "FILE", "file that contains the user's password alone"),
    file_only("remote_write.proxy_ca_file", "FILE", "authorities of the certificate of an https proxy, PEM"),
    file_only("remote_write.proxy_connect_headers", "{ NAME = \"VALUE\" }", "headers added to the CONNECT of an http or https proxy; the values are not shown"),
    file_only("remote_write.no_proxy", "[ \"RULE\" ]", "receivers that are reached without the proxy, as uplink.no_proxy"),
    file_only("remote_write.proxy_from_environment", "", "take the proxy from https_proxy or all_proxy, and no_proxy, of the environment"),
    file_only("remote_write.proxy_timeout", "DURATION", "time for the proxy to open a tunnel"),
    file_only("remote_write.basic_auth.username", "NAME", "user at the receiver"),
    file_only("remote_write.basic_auth.password_file", "FILE", "file that contains the user's password alone"),
    file_only("remote_write.authorization.type", "SCHEME", "scheme of the header Authorization"),
    file_only("remote_write.authorization.credentials_file", "FILE", "file that contains the token alone"),
    file_only("remote_write.tls_config.ca_file", "FILE", "authorities of the receiver's certificate, PEM; needed for https"),
    file_only("remote_write.tls_config.cert_file", "FILE", "this node's certificate for the receiver, PEM"),
    file_only("remote_write.tls_config.key_file", "FILE", "the certificate's key, PEM"),
    file_only("remote_write.tls_config.server_name", "NAME", "name in the receiver's certificate, if it is not the host of the URL"),
    file_only("remote_write.metadata_config.send", "", "write the types and help texts of metrics"),
    file_only("remote_write.metadata_config.send_interval", "DURATION", "time between two writes of them, with messages 1.0; messages 2.0 have them with each series"),
    file_only("remote_write.queue_config.max_samples_per_send", "N", "samples in one request"),
    file_only("remote_write.queue_config.max_shards", "N", "requests at once, each on a connection of its own"),
    file_only("remote_write.queue_config.min_backoff", "DURATION", "first pause before a request is sent again; each is twice as long as the one before"),
    file_only("remote_write.queue_config.max_backoff", "DURATION", "longest pause before a request is sent again"),
    many("hub.listen_address", "hub.listen-address", "HOST:PORT", "address for edges; without HOST every interface; none if they all connect by hub.web_link"),
    one("hub.plaintext", "hub.plaintext", "", "take edges without TLS, by their tokens, because a box in front of the hub ends it; only from loopback and hub.trusted_proxies"),
    one("hub.web_link", "hub.web-link", "", "take edges with a token at web.listen_address too, at /api/v1/relay below web.route_prefix; without web.tls only from loopback and hub.trusted_proxies"),
    one("hub.trust_edge_labels", "hub.trust-edge-labels", "", "use labels that an edge only claims"),
    many("hub.allow", "hub.allow", "NAME", "names of the edges that may connect; one that ends in * is the beginning of names; if not given, every edge with a certificate of the authority may"),
    many("hub.required_labels", "hub.required-labels", "NAME", "names of the site labels that every edge must have"),
    many("hub.trusted_proxies", "hub.trusted-proxies", "NETWORK", "addresses and networks of boxes in front of the hub, whose PROXY protocol header, X-Forwarded-For or Forwarded names the edge's address"),
    one("hub.connections_max", "hub.connections-max", "N", "edges connected at once"),
    one("hub.heartbeat_interval", "hub.heartbeat-interval", "DURATION", "time between two heartbeats, in both directions; after three without any the link ends"),
    one("hub.tls.cert_file", "hub.tls.cert-file", "FILE", "the hub's certificate, PEM"),
    one("hub.tls.key_file", "hub.tls.key-file", "FILE", "the certificate's key, PEM"),
    one("hub.tls.client_ca_file", "hub.tls.client-ca-file", "FILE", "authorities of edges' certificates, PEM"),
    one("hub.tls.crl_file", "hub.tls.crl-file", "FILE", "list of revoked certificates of edges, PEM, as `pushrelay pki revoke` writes it; a changed list is read within a second"),
    one("hub.enrol.dir", "hub.enrol.dir", "DIR", "directory of the authority (ca.pem, ca.key) and of the invitations of `pushrelay pki invite`; with it the hub issues and renews certificates"),
    one("hub.enrol.certificate_lifetime", "hub.enrol.certificate-lifetime", "DURATION", "time for which a certificate that the hub issues is valid; an edge renews it after two thirds of that"),
    file_only("hub.edge.name", "NAME", "name of an edge, as in its certificate if it has one"),
    file_only("hub.edge.labels", "{ NAME = \"VALUE\" }", "site labels of the edge, instead of those in its certificate"),
    file_only("hub.edge.token_sha256", "SHA256", "SHA-256 of the edge's token, or a list of two while one replaces the other, as `pushrelay pki token` prints it"),
];

/// The key at a path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names that may occur directly in a section (`""` for the file itself), sections included.
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
        // A flag of Pushgateway; its dots would be sections.
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
        let begin = ["aggregate", "allow", "expire", "hub", "limits", "link", "log", "push", "remote_write"];
        assert_eq!(names_in(""), [&begin[..], &["storage", "uplink", "web"]].concat());
        assert_eq!(names_in("hub.tls"), ["cert_file", "client_ca_file", "crl_file", "key_file"]);
    }
}
