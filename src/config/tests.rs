//! Files and flags as operators write them, each mistake with its message, and documentation compared with the list of
//! keys.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use tracing::level_filters::LevelFilter;

mod tokens;

use super::keys::KEYS;
use super::*;
use crate::exposition::Escaping;
use crate::exposition::TimestampRule;
use crate::model::LabelSet;
use crate::net::address::ListenAddress;
use crate::net::testing::TempDir;
use crate::node::options::RemoteWriteOptions;
use crate::node::options::{
    DialOptions, EdgeOptions, HubOptions, LimitOptions, LinkOptions, PushOptions, StorageOptions, UplinkOptions,
    WebOptions,
};

mod allow;

fn flags(arguments: &[&str]) -> Flags {
    let all = super::arguments(std::iter::once(&"pushrelay").chain(arguments).map(OsString::from));
    Flags::from_matches(&add_flags(Command::new("pushrelay"), NodeRole::Hub).try_get_matches_from(all).unwrap())
}

/// Options from a file's text and flags, or the mistakes as they are printed; the file is called `c.toml`.
fn read_text(role: Option<NodeRole>, text: &str, arguments: &[&str]) -> Result<Configuration, String> {
    let temp = TempDir::new();
    let file = temp.write("c.toml", text);
    let mut flags = flags(arguments);
    flags.config_file = Some(file);
    let directory = format!("{}/", temp.path().display());
    load(role, &flags).map_err(|mistakes| mistakes.to_string().replace(&directory, ""))
}

fn mistakes(text: &str) -> String {
    read_text(None, text, &[]).unwrap_err()
}

const TLS: &str = "ca_file = 'ca.pem'\ncert_file = '/etc/a.pem'\nkey_file = 'a.key'\n";
const HUB: &str = "[hub.tls]\nclient_ca_file = 'ca.pem'\ncert_file = 'hub.pem'\nkey_file = 'hub.key'\n";

fn edge(more: &str) -> String {
    format!("[[uplink]]\nhub = 'hub:9443'\n{more}\n[uplink.tls]\n{TLS}")
}

#[test]
fn an_empty_configuration_is_an_edge_that_stores_pushes() {
    let options = load(None, &Flags::default()).unwrap().node;
    assert_eq!(options.role, NodeRole::Edge);
    assert_eq!(options.web.listen_addresses[0].to_string(), ":9091");
    assert_eq!(options.storage.path, Some("data".into()));
    assert!(options.uplinks.is_empty() && options.hub.is_none());
    assert_eq!(summary(&options), "an edge: pushes at :9091, kept in data; no hub to send to");
}

#[test]
fn a_file_says_what_an_edge_is() {
    let text =
        edge("addresses = ['192.0.2.7:443']\nlabels = { IDC = 'SYQ' }\nbackoff_max = '1m'\nsend_interval = '1s'")
            + "[web]\nlisten_address = ['127.0.0.1:0', '[::1]:9091']\n";
    let options = read_text(Some(NodeRole::Edge), &text, &[]).unwrap().node;
    let uplink = &options.uplinks[0];
    assert_eq!((uplink.hub.to_string(), uplink.labels.to_string()), ("hub:9443".into(), r#"{IDC="SYQ"}"#.into()));
    assert_eq!(uplink.addresses, ["192.0.2.7:443".parse().unwrap()]);
    assert_eq!(uplink.dialling.backoff_max, Duration::from_secs(60));
    assert_eq!(uplink.send_interval, Duration::from_secs(1));
    let files = uplink.tls.certificate().unwrap();
    assert!(files.ca_file.is_absolute() && files.ca_file.ends_with("ca.pem"), "relative to the file");
    assert_eq!(files.cert_file, PathBuf::from("/etc/a.pem"));
    assert_eq!(options.web.listen_addresses.len(), 2);
}

#[test]
fn an_uplink_may_have_a_proxy() {
    let text = edge(
        "proxy_url = 'http://proxy:3128'\nproxy_username = 'alice'\nproxy_password_file = 'p'\n\
         proxy_connect_headers = { X-Zone = 'secret-zone' }\nno_proxy = ['.internal', '10.0.0.0/8']\nproxy_timeout = '5s'",
    );
    let options = read_text(None, &text, &[]).unwrap().node;
    assert!(summary(&options).ends_with("sends to hub:9443 through the proxy http://proxy:3128"));
    let proxy = options.uplinks[0].proxy.as_ref().unwrap();
    assert_eq!((proxy.url.to_string().as_str(), proxy.timeout), ("http://proxy:3128", Duration::from_secs(5)));
    assert!(proxy.files().all(|file| file.is_absolute()) && proxy.files().count() == 1);
    assert!(
        proxy.no_proxy.has(&"hub.internal:1".parse().unwrap()) && proxy.no_proxy.has(&"10.1.1.1:1".parse().unwrap())
    );
    let shown = format!("{options:?}");
    assert!(!shown.contains("secret-zone") && shown.contains("X-Zone"), "{shown}");
    let direct = read_text(None, &edge("proxy_url = 'http://proxy'\nno_proxy = ['hub:9443']"), &[]).unwrap().node;
    assert!(summary(&direct).ends_with("sends to hub:9443"));
}

#[test]
fn idle_connections_have_no_limit_unless_one_is_given() {
    let limit = |text| read_text(None, text, &[]).map(|options| options.node.limits.idle_timeout);
    assert_eq!(limit(""), Ok(None));
    assert_eq!(limit("[limits]\nidle_timeout = '0s'"), Ok(None));
    assert_eq!(limit("[limits]\nidle_timeout = '90s'"), Ok(Some(Duration::from_secs(90))));
    assert!(limit("[limits]\nidle_timeout = '-1s'").unwrap_err().contains("is not \"0s\" or a duration"));
}

#[test]
fn timestamps_are_refused_unless_they_are_to_be_stripped() {
    let rule = |text| read_text(None, text, &[]).unwrap().node.push.timestamps;
    assert_eq!(rule(""), TimestampRule::Refuse);
    assert_eq!(rule("[push]\ntimestamps = 'refuse'"), TimestampRule::Refuse);
    assert_eq!(rule("[push]\ntimestamps = 'strip'"), TimestampRule::Strip);
}

#[test]
fn rules_say_how_groups_add_up() {
    let text = "[aggregate]\nidempotency_window = '1m'\n[[aggregate.rule]]\nmatch = '{job=\"a\"}'\ngauge = 'max'\n";
    let options = read_text(None, &format!("{text}every_path = true\n"), &[]).unwrap().node.aggregate;
    assert_eq!(options.idempotency_window, Duration::from_secs(60));
    let rule = &options.rules[0];
    assert_eq!((options.rules.len(), rule.gauges, rule.every_path), (1, crate::model::GaugeRule::Max, true));
}

#[test]
fn openmetrics_is_read_only_if_the_file_or_a_flag_says_so() {
    let is_read = |text, arguments: &[&str]| read_text(None, text, arguments).unwrap().node.push.openmetrics;
    assert!(!is_read("", &[]));
    assert!(is_read("[push]\nopenmetrics = true", &[]) && is_read("", &["--push.openmetrics"]));
    assert!(!is_read("[push]\nopenmetrics = true", &["--no-push.openmetrics"]));
}

#[test]
fn groups_expire_by_rules_in_order() {
    let rule = |selector: &str, after: &str| format!("[[expire]]\nmatch = '{selector}'\nafter = '{after}'\n");
    let text = rule(r#"{job="kept"}"#, "never") + &rule(r#"{job=~"ci-.*"}"#, "1d12h");
    let options = read_text(None, &text, &[]).unwrap();
    let rules: Vec<(String, String)> =
        options.node.expiry.iter().map(|rule| (rule.selector.to_string(), rule.lifetime.to_string())).collect();
    let expected = [(r#"{job="kept"}"#, "never"), (r#"{job=~"ci-.*"}"#, "1d12h")];
    assert_eq!(rules, expected.map(|(selector, after)| (selector.to_owned(), after.to_owned())));
    assert_eq!(options.warnings, []);
    let wrong = mistakes(&(rule(r#"{job="a"}"#, "soon") + &rule(r#"{job="a""#, "1h") + &rule(r#"m{job="a"}"#, "1h")));
    let lines: Vec<&str> = wrong.lines().collect();
    assert!(lines[0].starts_with("c.toml:3:9: \"soon\" is neither a duration"), "{wrong}");
    assert!(lines[1].starts_with("c.toml:5:9: ") && lines[1].contains("column"), "{wrong}");
    assert!(lines[2].starts_with("c.toml:8:9: ") && lines[2].contains("the name of a metric"), "{wrong}");
    assert!(mistakes("[[expire]]\nmatch = '{job=\"a\"}'").contains("c.toml:1:1: expire.after is not given"));
}

#[test]
fn rules_without_effect_are_explained() {
    let rule = |selector: &str| format!("[[expire]]\nmatch = '{selector}'\nafter = '1h'\n");
    let text = rule(r#"{job=~"ci-.*"}"#) + &rule(r#"{job="ci-1",IDC="SYQ"}"#) + &rule(r#"{job="a",job="b"}"#);
    let warnings: Vec<String> =
        read_text(None, &text, &[]).unwrap().warnings.iter().map(|warning| warning.text.clone()).collect();
    let shadowed = "this rule has no effect: the rule {job=~\"ci-.*\"} in line 1 matches every group that \
                    {job=\"ci-1\",IDC=\"SYQ\"} matches, and comes first";
    let never = "{job=\"a\",job=\"b\"} matches no group: no value of job is accepted by all its comparisons";
    assert_eq!(warnings, [shadowed, never]);
}

#[test]
fn a_file_says_what_a_hub_is() {
    let edges =
        "[[hub.edge]]\nname = 'a'\nlabels = { IDC = 'SYQ' }\n[[hub.edge]]\nname = 'b'\nlabels = { IDC = 'BJ' }\n";
    let options = read_text(None, &format!("{HUB}{edges}"), &[]).unwrap().node;
    assert_eq!(options.role, NodeRole::Hub);
    let hub = options.hub.as_ref().unwrap();
    assert!(hub.trusted_proxies.is_empty());
    assert_eq!(hub.listen_addresses[0].to_string(), ":9443");
    let [EdgeOptions { name, labels, .. }, _] = &hub.edges[..] else { panic!("two edges") };
    assert_eq!((name.as_str(), labels.get("IDC")), ("a", Some("SYQ")));
    assert!(summary(&options).starts_with("a hub: "));
}

#[test]
fn a_hub_says_which_edges_it_admits() {
    let keys = "allow = ['syq-*', 'bj-1']\nrequired_labels = ['IDC']\n";
    let hub = read_text(None, &format!("[hub]\n{keys}{HUB}"), &[]).unwrap().node.hub.unwrap();
    assert_eq!(hub.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["syq-*", "bj-1"]);
    assert_eq!((hub.required_labels, hub.tls.unwrap().crl_file), (vec!["IDC".to_owned()], None));
    let keys = "allow = ['a*b']\nrequired_labels = ['a b']\n";
    let mistakes = read_text(None, &format!("[hub]\n{keys}{HUB}"), &[]).unwrap_err().to_string();
    assert!(
        mistakes.contains("\"a*b\" is no edge name") && mistakes.contains("\"a b\" is no name of a label"),
        "{mistakes}"
    );
}

#[test]
fn flags_win() {
    let arguments = [
        "--web.listen-address=:1",
        "--web.listen-address",
        ":2",
        "--web.enable-lifecycle",
        "--web.enable-admin-api=false",
        "--log.level=warn",
        "--log.level=debug",
        "--uplink.hub=other:1",
        "--uplink.hub=third:1",
        "--uplink.labels=a=b=c",
        "--uplink.tls.key-file=x.key",
        "--storage.path=",
    ];
    let file = edge("") + "[web]\nlisten_address = [':9']\nenable_admin_api = true\n";
    let Configuration { node, log, .. } = read_text(None, &file, &arguments).unwrap();
    let addresses: Vec<String> = node.web.listen_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, [":1", ":2"]);
    assert!(node.web.enable_lifecycle && !node.web.enable_admin_api);
    assert_eq!(log.level, LevelFilter::DEBUG, "the last counts");
    let hubs: Vec<String> = node.uplinks.iter().map(|uplink| uplink.hub.to_string()).collect();
    assert_eq!(hubs, ["other:1", "third:1"]);
    for uplink in &node.uplinks {
        assert_eq!(uplink.labels.get("a"), Some("b=c"));
        let files = uplink.tls.certificate().unwrap();
        assert_eq!(files.key_file, PathBuf::from("x.key"), "relative to where the command runs");
        assert!(files.ca_file.is_absolute(), "the rest is the file's");
    }
    assert_eq!(node.storage.path, None);
    let flag = |name: &str| node.flags.iter().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str());
    assert_eq!(flag("web.listen-address"), Some(":1,:2"));
    assert_eq!(flag("uplink.hub"), Some("other:1;third:1"));
    assert_eq!(flag("limits.body-bytes-max"), Some("64MiB"));
}

#[test]
fn a_prefix_comes_from_the_external_url_unless_given() {
    let prefix = |arguments: &[&str]| load(None, &flags(arguments)).unwrap().node.web.route_prefix;
    assert_eq!(prefix(&["--web.external-url=https://a.example/push/gate/"]), "/push/gate");
    assert_eq!(prefix(&["--web.external-url=http://a.example/push", "--web.route-prefix=/"]), "");
    assert_eq!(prefix(&["--web.external-url=/push/"]), "/push");
    assert_eq!(prefix(&["--web.route-prefix=x/"]), "/x");
    assert_eq!(prefix(&["--web.external-url=http://a.example/a%20b"]), "/a b");
}

#[test]
fn flags_are_read_as_pushgateway_reads_them() {
    let options =
        load(None, &flags(&["--log.level=WARN", "--web.telemetry-path=/m/", "--no-web.enable-lifecycle"])).unwrap();
    assert_eq!((options.log.level, &*options.node.web.telemetry_path), (LevelFilter::WARN, "/m"));
    assert!(!options.node.web.enable_lifecycle);
}

#[test]
fn missing_flags_of_pushgateway_say_what_to_do() {
    for (flag, advice) in [
        ("--persistence.file=/var/lib/pushgateway.data", "--storage.path"),
        ("--persistence.file=", "--storage.path"),
        ("--persistence.interval=5m", "before it is answered"),
        ("--web.local-assets=/usr/share", "part of the program"),
    ] {
        let error = add_flags(Command::new("edge"), NodeRole::Edge)
            .try_get_matches_from(["edge", flag])
            .unwrap_err()
            .to_string();
        assert!(error.contains(advice), "{error}");
    }
}

#[test]
fn every_mistake_is_reported_at_its_position() {
    let text =
        "[web]\nlisten_adress = ':1'\ntelemetry_path = 7\n\n[storrage]\n[limits]\nbody_timeout = '10'\nmetrics = 1\n";
    let shown = mistakes(&edge("").replace("hub:9443", "hub").replace("ca_file", "cafile").replace("[[", "  [["))
        + "\n"
        + &mistakes(text);
    let expected = [
        r#"c.toml:2:7: "hub" has no port: write HOST:PORT, like "127.0.0.1:9091""#,
        r#"c.toml:4:1: uplink.tls.ca_file is not given: add ca_file = …, or --uplink.tls.ca-file (authorities of the certificate of the hub, or of the box in front of it that ends TLS, PEM)"#,
        r#"c.toml:5:1: unknown key "cafile" in [uplink.tls]; did you mean "ca_file"?"#,
        r#"c.toml:2:1: unknown key "listen_adress" in [web]; did you mean "listen_address"?"#,
        r#"c.toml:3:18: this must be a string, not an integer"#,
        r#"c.toml:5:2: unknown key "storrage"; did you mean "storage"?"#,
        r#"c.toml:7:16: "10" is not a duration more than 0, like "10s" or "1h30m" (units ms, s, m, h, d, w, y)"#,
        r#"c.toml:8:1: unknown key "metrics" in [limits]"#,
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn each_mistake_has_its_message() {
    let hub_twice = format!("{}{}", edge(""), edge(""));
    let edge_twice = format!("{HUB}[[hub.edge]]\nname = 'a'\n[[hub.edge]]\nname = 'a'\n");
    let edge_without_labels = format!("{HUB}[[hub.edge]]\nname = 'a'\nlabels = {{}}\n");
    for (text, expected) in [
        ("[web]\n[web]\n", "c.toml:2:"),
        ("[web]\n[web]\n", "it is there already; put both parts into one"),
        ("[log]\nlevel = 'info'\nlevel = 'info'\n", "duplicate key"),
        ("[log\n", "c.toml:1:"),
        ("a = = 1\nb = = 2\n", "c.toml:2:"),
        ("web = 1\n", "web is a section: write [web]"),
        ("[uplink]\nhub = 'a:1'\n", "write [[uplink]] with two brackets"),
        ("[hub]\nedge = [1]\n", "write [[hub.edge]] sections"),
        ("listen_address = ':1'\n", r#"unknown key "listen_address"; did you mean web.listen_address?"#),
        ("[web]\ntelemetry_path = 'metrics'\n", "must begin with a slash"),
        ("[web]\nexternal_url = 'example.org'\n", "is no URL"),
        ("[web]\nlisten_address = []\n", "at least one address is needed"),
        ("[web]\nlisten_address = [':1', ':1']\n", ":1 is given twice"),
        ("[web]\nlisten_address = ['a:b']\n", "does not end in a port number"),
        ("[web]\nenable_lifecycle = 'yes'\n", "this must be true or false, not a string"),
        ("[limits]\ngroups_max = 0\n", "this must be a whole number from 1"),
        ("[limits]\ngroups_max = -1\n", "this must be a whole number from 1"),
        ("[limits]\ngroups_max = 99999999999999999999999999999999999999999\n", "too large"),
        ("[limits]\nbody_bytes_max = '2GiB'\n", "a push cannot be larger than 1GiB: split it"),
        ("[limits]\nbody_bytes_max = '64 MB'\n", r#""64 MB" is not a size in bytes from 1, like "64MiB""#),
        ("[storage]\nsync = 'often'\n", r#""often" is not "always" or "never""#),
        ("[push]\ntimestamps = 'keep'\n", r#""keep" is not "refuse" or "strip""#),
        ("[push]\nopenmetrics = 'yes'\n", "this must be true or false, not a string"),
        ("[aggregate]\nidempotency_window = '25h'\n", "the time must be 1d or less"),
        ("[[aggregate.rule]]\nmatch = 'up'\n", "a rule selects groups: leave the metric's name out"),
        ("[[aggregate.rule]]\nmatch = '{job='\n", "column 6: expected a value in quotes"),
        ("[[aggregate.rule]]\nmatch = '{job=\"a\"}'\ngauge = 'mean'\n", "is not \"last\", \"max\", \"min\" or \"sum\""),
        ("[log]\nlevel = 'loud'\n", r#""loud" is not one of "trace", "debug", "info", "warn" and "error""#),
        ("[hub]\n", "hub.tls.client_ca_file is not given"),
        ("[hub]\nheartbeat_interval = '2m'\n", "from 100ms to 1m"),
        ("[[uplink]]\n", "uplink.hub is not given: add hub = …, or --uplink.hub"),
        ("[[hub.edge]]\nname = 'a b'\n", "is no edge name"),
        ("[link]\nmessage_bytes_max = 65535\n", "the bound must be 65536 bytes or more"),
        ("[hub]\ntrusted_proxies = ['balancer']\n", "is neither an address like \"192.0.2.7\" nor a network"),
        (&edge_without_labels, "the edge a needs labels that say where it is"),
        (&hub_twice, "the hub hub:9443 is given twice"),
        (&edge_twice, "the edge a has a section already"),
        (&edge("labels = { job = 'a' }"), "cannot be a label of a place"),
        (&edge("labels = 'IDC=SYQ'"), "this must be a table like { IDC = \"SYQ\" }, not a string"),
        (&edge("addresses = ['a:1', 'a:1']"), "a:1 is given twice"),
        (&edge("addresses = ['hub:9443']"), "hub:9443 is given twice"),
        (&edge("proxy_url = 'proxy:3128'"), "a proxy's URL begins with http://, https://, socks5://"),
        (&edge("proxy_url = 'http://u:hunter2@proxy:3128'"), "c.toml:3:13: write the user into proxy_username"),
        (&edge("proxy_url = 'https://proxy:3128'"), "an https proxy needs proxy_ca_file"),
        (&edge("proxy_url = 'http://proxy'\nproxy_ca_file = 'a.pem'"), "proxy_ca_file has no use with http://"),
        (&edge("proxy_url = 'http://proxy'\nproxy_username = 'a'"), "a user needs a password"),
        (&edge("proxy_url = 'http://proxy'\nproxy_password_file = 'a'"), "a password needs a user"),
        (
            &edge("proxy_url = 'http://proxy'\nproxy_username = 'a:b'\nproxy_password_file = 'a'"),
            "a user's name has no colon in HTTP",
        ),
        (&edge("proxy_url = 'http://proxy'\nproxy_connect_headers = { Host = 'a' }"), "Host is not set here"),
        (&edge("proxy_url = 'socks5://proxy'\nproxy_connect_headers = { A = 'a' }"), "has no use with SOCKS5"),
        (&edge("proxy_url = 'http://proxy'\nproxy_from_environment = true"), "either proxy_url names the proxy"),
        (&edge("proxy_url = 'http://proxy'\nno_proxy = ['a b']"), "is neither a host"),
        (&edge("proxy_username = 'a'\nproxy_password_file = 'b'"), "proxy_username has no use without a proxy"),
        (&edge("send_interval = '11s'"), "the interval must be 10s or less"),
        (&edge("backoff_min = '1h'"), "backoff_min must not be longer than backoff_max (30s)"),
        (&edge("proxy = 'http://proxy:3128'"), r#"unknown key "proxy" in [uplink]"#),
    ] {
        let shown = mistakes(text);
        assert!(shown.contains(expected), "no {expected:?} in {shown:?}");
    }
    let shown = read_text(Some(NodeRole::Edge), HUB, &[]).unwrap_err();
    assert_eq!(shown, "c.toml:1:2: [hub] makes a node a hub: run `pushrelay hub`");
    let shown = read_text(Some(NodeRole::Hub), "[log]\nlevel = 'info'\n", &[]).unwrap_err();
    assert!(shown.ends_with("there is no [hub]: add it, or run `pushrelay edge`"), "{shown}");
    let shown =
        load(None, &flags(&["--web.listen-address=nowhere", "--uplink.hub=https://h:1"])).unwrap_err().to_string();
    assert!(
        shown.contains("without https://") && !shown.contains("at least one") && !shown.contains("no hub is"),
        "{shown}"
    );
    let shown =
        load(None, &flags(&["--web.listen-address=nowhere", "--uplink.backoff-min=1s"])).unwrap_err().to_string();
    assert!(shown.contains(r#"--web.listen-address: "nowhere" has no port"#), "{shown}");
    assert!(shown.contains("--uplink.backoff-min: no hub is given to send to: add --uplink.hub"), "{shown}");
    let several = ["--uplink.hub=a:1", "--uplink.hub=b:1"];
    let shown = read_text(None, &edge("addresses = ['c:1']"), &several).unwrap_err();
    assert!(shown.contains("c.toml:3:13: the addresses are of one hub, and --uplink.hub names several"), "{shown}");
    let shown = load(None, &Flags::of_file("nowhere.toml".into())).unwrap_err().to_string();
    assert!(shown.starts_with("nowhere.toml: cannot read the configuration: "), "{shown}");
}

#[test]
fn files_are_looked_into_even_if_something_else_is_wrong() {
    let temp = TempDir::new();
    let file = temp.write("c.toml", &(edge("").replace("hub:9443", "hub") + "[log]\nlevel = ''\n"));
    let shown = check(&Flags::of_file(file), SystemTime::now()).unwrap_err();
    let lines: Vec<&SourceSpan> = shown.0.iter().map(|mistake| &mistake.span).collect();
    let at = |line, column| SourceSpan::File { file: temp.path().join("c.toml").display().to_string(), line, column };
    assert_eq!(lines, [&at(2, 7), &at(5, 11), &at(6, 13), &at(7, 12), &at(9, 9)], "{shown}");
}

/// Together with the comparison of the documentation with what an empty file gives, this holds the documentation to the
/// one place of each default.
#[test]
fn a_key_that_is_not_given_has_the_default_of_its_option() {
    let Configuration { node, log, .. } = read_text(None, &(HUB.to_owned() + &edge("")), &[]).unwrap();
    assert_eq!(node.web, WebOptions::default());
    assert_eq!(node.push, PushOptions::default());
    assert_eq!(node.storage, StorageOptions::default());
    assert_eq!(node.limits, LimitOptions::default());
    assert_eq!(node.link, LinkOptions::default());
    assert_eq!(log, LogOptions::default());
    let uplink = &node.uplinks[0];
    assert_eq!((uplink.dialling, uplink.send_interval), (DialOptions::default(), UplinkOptions::SEND_INTERVAL));
    let hub = node.hub.unwrap();
    assert_eq!(hub.listen_addresses, [ListenAddress::every_interface(HubOptions::PORT)]);
    assert_eq!(
        (hub.trust_edge_labels, hub.connections_max, hub.heartbeat_interval),
        (HubOptions::TRUST_EDGE_LABELS, HubOptions::CONNECTIONS_MAX, HubOptions::HEARTBEAT_INTERVAL)
    );
}

/// The table of `docs/reference/configuration.md`.
fn table() -> String {
    let mut rows = String::new();
    let defaults = defaults();
    for key in KEYS {
        let default = &defaults.iter().find(|(read, _)| read.path == key.path).expect(key.path).1;
        let default = match default.as_str() {
            "" => "none".into(),
            "required" => default.clone(),
            value => format!("`{value}`"),
        };
        let flag = key.flag.map_or("none".into(), |flag| format!("`--{flag}`"));
        let value = if key.value.is_empty() {
            "`true`, `false`".into()
        } else {
            format!("`{}`", key.value.replace('|', "`, `"))
        };
        let many = if key.many { ", may be repeated" } else { "" };
        rows += &format!("| `{}` | {flag}{many} | {value} | {default} | {} |\n", key.path, key.meaning);
    }
    rows
}

#[test]
fn every_key_listed_is_read_and_every_key_read_is_documented() {
    let mut read: Vec<&str> = defaults().iter().map(|(key, _)| key.path).collect();
    let mut listed: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    read.sort();
    listed.sort();
    assert_eq!(read, listed);
    let documented: String = include_str!("../../docs/reference/configuration.md")
        .lines()
        .skip_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(documented == table(), "the tables of docs/reference/configuration.md must have these rows:\n{}", table());
}

/// The lines of a commented file, with every commented key made active.
fn uncommented(text: &str) -> String {
    fn key_line(line: &str) -> Option<&str> {
        line.strip_prefix("# ").filter(|line| line.starts_with('[') || line.contains(" = "))
    }
    text.lines().flat_map(|line| [key_line(line).unwrap_or(line), "\n"]).collect()
}

#[test]
fn the_commented_files_have_every_key_with_its_default() {
    let edge = include_str!("../../config/edge.toml");
    let hub = include_str!("../../config/hub.toml");
    let defaults = defaults();
    let mut seen = 0;
    for (text, other) in [(edge, "hub"), (hub, "uplink")] {
        let text = uncommented(text);
        read_text(None, &text, &[]).expect("it is right with everything in it");
        let parsed = DeTable::parse(&text).unwrap();
        for key in KEYS.iter().filter(|key| key.path.split('.').next() != Some(other)) {
            assert!(has(parsed.get_ref(), key.path), "no {} in the file", key.path);
            seen += 1;
            let default = &defaults.iter().find(|(read, _)| read.path == key.path).unwrap().1;
            let name = key.path.rsplit('.').next().unwrap();
            let start = format!("{name} = ");
            let shown: Vec<&str> = text.lines().filter(|line| line.starts_with(&start)).collect();
            let chosen = ["required", "data"].contains(&default.as_str()) || key.many || name == "labels";
            let is_shown = || shown.iter().any(|line| line.contains(default.as_str()));
            assert!(chosen || is_shown(), "{shown:?} does not show the default {default:?}");
        }
    }
    assert_eq!(seen, 2 * (30 + 46) + 58 + 47, "all keys but the hub's in one file, all but the uplink's in the other");
}

/// Whether a table has that key; in a list, any section counts.
fn has(table: &DeTable<'_>, path: &str) -> bool {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(value) = table.get(name) else { return false };
    let value = value.get_ref();
    let inner = value.as_array().map_or(vec![value], |array| array.iter().map(|item| item.get_ref()).collect());
    rest.is_empty() || inner.iter().any(|value| value.as_table().is_some_and(|table| has(table, rest)))
}

#[test]
fn receivers_of_remote_write_are_read() {
    let text = "[[remote_write]]\nurl = 'http://vm:8428/api/v1/write?token=secret'\nmatch = '{IDC=\"SYQ\"}'\n\
                external_labels = { cluster = 'a' }\n[remote_write.queue_config]\nmax_shards = 2\n\
                [[remote_write]]\nurl = 'https://mimir/api/v1/push'\njob = 'hub'\ninstance = 'i'\n\
                tls_config = { ca_file = 'ca.pem', server_name = 'm' }\n\
                authorization = { credentials_file = 'token' }\nescaping = 'underscores'\n";
    let Configuration { node, .. } = read_text(None, text, &[]).unwrap();
    let [vm, mimir] = &node.remote_writes[..] else { panic!("two") };
    assert_eq!((&*vm.name, vm.url.to_string()), ("vm:8428", "http://vm:8428/api/v1/write".into()));
    assert_eq!((vm.interval, vm.queue.max_shards), (RemoteWriteOptions::INTERVAL, 2));
    assert_eq!(vm.external_labels, LabelSet::new([("cluster", "a")]));
    assert_eq!(vm.selectors.as_ref().map(ToString::to_string).as_deref(), Some("{IDC=\"SYQ\"}"));
    assert_eq!((&*mimir.name, mimir.escaping), ("mimir:443", Escaping::Underscores));
    assert_eq!(mimir.target_labels, LabelSet::new([("job", "hub"), ("instance", "i")]));
    assert_eq!(mimir.sender.files().count(), 2);
    assert!(node.flags.iter().all(|(_, value)| !value.contains("secret")), "{:?}", node.flags);
}

#[test]
fn the_receivers_of_the_how_to_are_right() {
    let page = include_str!("../../docs/how-to/remote-write.md");
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let read = |block: &&str| read_text(None, block, &[]).unwrap_or_else(|error| panic!("{error}\n{block}"));
    let names: Vec<String> = blocks.iter().map(read).flat_map(|read| read.node.remote_writes).map(|r| r.name).collect();
    for name in ["prometheus", "victoria", "mimir", "thanos"] {
        assert!(names.iter().any(|other| other == name), "{name} is not among {names:?}");
    }
}

#[test]
fn mistakes_about_receivers_say_what_to_write() {
    for (keys, part) in [
        ("", "remote_write.url is not given: add url = …"),
        ("url = 'vm:8428'\n", "is no URL of a receiver"),
        ("url = 'http://u:secret@vm/'\n", "write them into basic_auth"),
        ("url = 'https://vm/'\n", "needs tls_config.ca_file"),
        ("url = 'http://vm/'\ninterval = '10m'\n", "from 100ms to 4m"),
        ("url = 'http://vm/'\nmode = 'on-change'\nrefresh = '10m'\n", "refresh must be from the interval (15s) to 4m"),
        ("url = 'http://vm/'\nmatch = '{job='\n", "expected a value in quotes"),
        ("url = 'http://vm/'\nheaders = { Authorization = 'secret' }\n", "basic_auth or authorization"),
        ("url = 'http://vm/'\nexternal_labels = { __name__ = 'x' }\n", "cannot be the name of a label"),
        ("url = 'http://vm/'\nbasic_auth = { username = 'u' }\n", "password_file"),
        (
            "url = 'http://vm/'\nbasic_auth = { username = 'u', password_file = 'p' }\nauthorization = { credentials_file = 't' }\n",
            "has one login",
        ),
        ("url = 'http://vm/'\ntls_config = { cert_file = 'c' }\n", "belong together"),
        ("url = 'http://vm/'\nqueue_config = { max_shards = 65 }\n", "max_shards must be 64 or less"),
        ("url = 'http://vm/'\nprotocol = 2\n", "unknown key"),
        ("url = 'http://vm/'\n[[remote_write]]\nname = 'b'\nurl = 'http://vm/'\n", "set another job"),
        ("url = 'http://vm/'\n[[remote_write]]\njob = 'b'\nurl = 'http://vm/'\n", "is named \"vm:80\" already"),
    ] {
        let mistakes = read_text(None, &format!("[[remote_write]]\n{keys}"), &[]).unwrap_err().to_string();
        assert!(mistakes.contains(part) && !mistakes.contains("secret"), "{keys}: {mistakes}");
    }
}

#[test]
fn passwords_in_urls_are_masked() {
    for (value, shown) in [
        ("http://user:p@ss@proxy:3128/a@b", "http://***@proxy:3128/a@b"),
        ("https://example.org/push?x=a@b", "https://example.org/push?x=a@b"),
        ("127.0.0.1:9091", "127.0.0.1:9091"),
    ] {
        assert_eq!(masked(value), shown);
    }
}

#[test]
fn flags_with_one_dash_and_switches_with_a_value_apart_get_a_hint() {
    let hint = |arguments: &[&str]| hint(&arguments.iter().map(OsString::from).collect::<Vec<_>>()).unwrap_or_default();
    assert_eq!(hint(&["edge", "-config.file", "x"]), "flags have two dashes: --config.file");
    assert_eq!(hint(&["hub", "-web.listen-address=:1"]), "flags have two dashes: --web.listen-address=:1");
    let apart = "a switch has its value behind an equals sign: --web.enable-lifecycle=true";
    assert_eq!(hint(&["edge", "--web.enable-lifecycle", "true"]), apart);
    for good in [&["edge", "--web.enable-lifecycle=true", "--config.file", "true"][..], &["edge", "-x"], &["true"]] {
        assert_eq!(hint(good), "");
    }
}

#[test]
fn gateway_and_edges_have_ports_of_their_own() {
    let ports = |web: &str, edges: &str| {
        mistakes_of(&format!("[web]\nlisten_address = ['{web}']\n[hub]\nlisten_address = ['{edges}']\n{HUB}"))
    };
    for (web, edges) in [(":9443", ":9443"), ("127.0.0.1:1", ":1"), ("0.0.0.0:1", "127.0.0.1:1"), ("a:1", "a:1")] {
        let text = ports(web, edges);
        assert!(
            text.contains("c.toml:4:18: ") && text.contains("edges need a port of their own"),
            "{web} {edges}: {text}"
        );
    }
    for (web, edges) in [(":9091", ":9443"), ("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:1", "127.0.0.2:1")] {
        assert_eq!(ports(web, edges), "", "{web} {edges}");
    }
}

fn mistakes_of(text: &str) -> String {
    read_text(None, text, &[]).err().unwrap_or_default()
}
