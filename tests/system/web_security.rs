//! TLS, passwords, headers and limits of the gateway, as users meet them with curl, and as attackers meet them.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::{Process, gives_up, logfmt, run};
use pushrelay_testkit::{Node, Site, eventually, http, skip, tls};

/// The outcome of a request with curl.
#[derive(Debug, PartialEq)]
struct Answer {
    /// The HTTP status; 0 without a response.
    status: u16,
    /// The HTTP version: `1.1` or `2`.
    version: String,
    body: String,
}

/// Runs curl on `SCHEME://ADDRESS/-/ready`, or on another path if an argument begins with a slash.
fn curl(site: &Site, node: &Node, scheme: &str, arguments: &[&str]) -> Answer {
    let path = arguments.iter().find(|argument| argument.starts_with("/-") || argument.starts_with("/m"));
    let url = format!("{scheme}://{}{}", node.web(), path.unwrap_or(&"/-/ready"));
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "30", "--write-out", "\n%{http_code} %{http_version}", "--cacert"]);
    command.arg(site.cert("ca.pem")).args(arguments.iter().filter(|argument| Some(*argument) != path)).arg(url);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let (body, received) = output.rsplit_once('\n').unwrap();
    let (status, version) = received.split_once(' ').unwrap();
    Answer { status: status.parse().unwrap(), version: version.into(), body: body.into() }
}

/// Runs curl and returns the status alone.
fn status(site: &Site, node: &Node, arguments: &[&str]) -> u16 {
    curl(site, node, "https", arguments).status
}

/// An edge without a hub, with additional configuration. `CERTS` means the site's folder `certs`.
fn gateway(site: &Site, name: &str, web: &str) -> Node {
    let certs = site.cert("").display().to_string();
    let web = web.replace("CERTS/", &certs);
    let config =
        format!("[web]\nlisten_address = '127.0.0.1:0'\nenable_lifecycle = true\n{web}\n[storage]\npath = ''\n");
    let mut node = Node::new(Role::Edge, site.path(), name, &config);
    node.start_listening();
    node
}

const TLS: &str = "[web.tls]\ncert_file = 'CERTS/hub.pem'\nkey_file = 'CERTS/hub.key'\n";

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn have_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        skip("TLS at the gateway is not tried with curl: it is not here");
    }
    found
}

#[test]
fn versions_suites_and_protocols_are_as_configured() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    let node = gateway(&site, "plain", TLS);
    assert_eq!(curl(&site, &node, "https", &[]), Answer { status: 200, version: "2".into(), body: "OK".into() });
    assert_eq!(curl(&site, &node, "https", &["--http1.1"]).version, "1.1");
    let pushed = ["--data-binary", "x 1\n", "/metrics/job/j"];
    assert_eq!(status(&site, &node, &pushed), 200);
    assert!(curl(&site, &node, "https", &["/metrics"]).body.contains("\nx{instance=\"\",job=\"j\"} 1\n"));
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "--http1.1"]] {
        assert_eq!(status(&site, &node, &version), 200, "{version:?}");
    }
    let refused = http::request(node.web(), "POST", "/metrics/job/j", &[], b"x 1\n").unwrap();
    assert_eq!((refused.status, &*refused.text()), (400, "Client sent an HTTP request to an HTTPS server.\n"));

    let node = gateway(&site, "new", &format!("http2 = false\n{TLS}min_version = 'TLS13'\n"));
    assert_eq!(curl(&site, &node, "https", &[]).version, "1.1");
    assert_eq!(status(&site, &node, &["--tls-max", "1.2"]), 0);

    let node = gateway(&site, "curves", &format!("{TLS}curve_preferences = ['CurveP384']\n"));
    let curve = |name| status(&site, &node, &["--tlsv1.3", "--curves", name]);
    assert_eq!((curve("P-384"), curve("P-256"), curve("P-256:P-384")), (200, 0, 200));

    let suites = "max_version = 'TLS12'\ncipher_suites = ['TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256', \
                  'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256']\n";
    let node = gateway(&site, "old", &format!("{TLS}{suites}"));
    assert_eq!(status(&site, &node, &["--tlsv1.3"]), 0);
    let suite = |name| status(&site, &node, &["--ciphers", name]);
    assert_eq!(suite("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"), 200);
    assert_eq!(suite("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"), 0);
}

/// A self-signed certificate.
fn foreign_certificate(site: &Site) -> (PathBuf, PathBuf) {
    let elsewhere = site.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    for arguments in [&["pki", "init"][..], &["pki", "edge", "stranger"]] {
        assert_eq!(run(&elsewhere, arguments).code, Some(0));
    }
    (elsewhere.join("certs/stranger.pem"), elsewhere.join("certs/stranger.key"))
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    site.pki(&["edge", "pusher"]);
    let path = |path: PathBuf| path.display().to_string();
    let ours = [path(site.cert("pusher.pem")), path(site.cert("pusher.key"))];
    let (cert, key) = foreign_certificate(&site);
    let other = [path(cert), path(key)];
    // The outcomes without a certificate, with the authority's, and with another authority's.
    let modes = [
        ("NoClientCert", "", [200, 200, 200]),
        ("RequestClientCert", "", [200, 200, 200]),
        ("RequireAnyClientCert", "", [0, 200, 200]),
        ("VerifyClientCertIfGiven", "client_ca_file = 'CERTS/ca.pem'\n", [200, 200, 0]),
        ("RequireAndVerifyClientCert", "client_ca_file = 'CERTS/ca.pem'\n", [0, 200, 0]),
        (
            "RequireAndVerifyClientCert",
            "client_ca_file = 'CERTS/ca.pem'\nclient_allowed_sans = ['pushrelay://edge/pusher', 'x.example.org']\n",
            [0, 200, 0],
        ),
        (
            "RequireAndVerifyClientCert",
            "client_ca_file = 'CERTS/ca.pem'\nclient_allowed_sans = ['x.example.org']\n",
            [0, 0, 0],
        ),
        (
            "VerifyClientCertIfGiven",
            "client_ca_file = 'CERTS/ca.pem'\nclient_allowed_sans = ['pushrelay://edge/pusher']\n",
            [0, 200, 0],
        ),
    ];
    for (number, (mode, more, expected)) in modes.into_iter().enumerate() {
        let node = gateway(&site, &format!("mode{number}"), &format!("{TLS}client_auth_type = '{mode}'\n{more}"));
        for version in ["1.2", "1.3"] {
            let with = |certificate: &[String; 2]| {
                status(&site, &node, &["--tls-max", version, "--cert", &certificate[0], "--key", &certificate[1]])
            };
            let seen = [status(&site, &node, &["--tls-max", version]), with(&ours), with(&other)];
            assert_eq!(seen, expected, "{mode} {more} TLS {version}");
        }
    }
}

#[test]
fn passwords_are_asked_for_everywhere() {
    let site = Site::new();
    let users = format!("[web.basic_auth_users]\nalice = '{}'\nbob = '{}'\n", hash("correct"), hash("höher:!"));
    let node = gateway(&site, "users", &users);
    let ask = |path: &str, authorization: Option<&str>| {
        let header = authorization.map(|value| [("Authorization", value)]);
        http::request(node.web(), "GET", path, header.as_ref().map_or(&[], |header| &header[..]), b"").unwrap()
    };
    let basic = |user: &str| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, user);
        format!("Basic {encoded}")
    };
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/status", "/api/v1/status", "/nowhere", "/static/x"] {
        let reply = ask(path, None);
        assert_eq!((reply.status, &*reply.text()), (401, "Unauthorized\n"), "{path}");
        assert_eq!(reply.header("www-authenticate"), Some("Basic"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
    for wrong in ["alice:wrong", "alice:", "carol:correct", ":", "alice", "alice:correct ", "bob:correct"] {
        for _ in 0..2 {
            assert_eq!(ask("/-/ready", Some(&basic(wrong))).status, 401, "{wrong}");
        }
    }
    let large = format!("x 1\n{}", "# a comment\n".repeat(200 << 10)[..200 << 10].to_owned());
    for _ in 0..5 {
        let refused = http::request(node.web(), "PUT", "/metrics/job/j", &[], large.as_bytes()).unwrap();
        assert_eq!(refused.status, 401, "the answer reaches who sent much");
    }
    for right in ["alice:correct", "bob:höher:!"] {
        for _ in 0..2 {
            assert_eq!(ask("/-/ready", Some(&basic(right))).status, 200, "{right}");
        }
    }
    let push = |authorization: &str| {
        let headers = [("Authorization", authorization)];
        http::request(node.web(), "PUT", "/metrics/job/j", &headers, b"x 1\n").unwrap().status
    };
    assert_eq!((push(&basic("alice:wrong")), push(&basic("alice:correct"))), (401, 200));
    for path in ["/status", "/api/v1/status"] {
        let page = ask(path, Some(&basic("alice:correct"))).text();
        assert!(page.contains("alice=") && page.contains("secret") && !page.contains("$2b$"), "{page}");
    }
}

#[test]
fn open_paths_need_no_password() {
    let site = Site::new();
    let users = format!("open_paths = ['/-/healthy', '/-/ready']\n[web.basic_auth_users]\nalice = '{}'\n", hash("x"));
    let node = gateway(&site, "open", &format!("route_prefix = '/pg'\n{users}"));
    let status = |method: &str, path: &str| node.request(method, path, &[], b"").status;
    for path in ["/pg/-/healthy", "/pg/-/ready", "/pg/-/ready?x=1"] {
        assert_eq!(status("GET", path), 200, "{path}");
        assert_eq!(status("PUT", path), 401, "{path}");
    }
    for path in
        ["/pg/metrics", "/-/ready", "/pg//-/ready", "/pg/-/ready/", "/pg/-/r%65ady", "/pg/-/ready/../../metrics"]
    {
        assert_eq!(status("GET", path), 401, "{path}");
    }
}

/// A web configuration file as Pushgateway's users have it.
fn web_file(site: &Site, text: &str) -> PathBuf {
    let file = site.path().join("web-config.yml");
    let draft = site.path().join("web-config.new");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, &file).unwrap();
    file
}

const YAML_TLS: &str = "tls_server_config:\n  cert_file: certs/hub.pem\n  key_file: certs/hub.key\n";

#[test]
fn a_pushgateways_own_file_is_taken_and_read_again_when_it_changes() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    let file = |password: &str| {
        let headers =
            "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=1\n";
        web_file(&site, &format!("{YAML_TLS}{headers}basic_auth_users:\n  alice: {}\n", hash(password)))
    };
    let yaml = file("first");
    let mut node =
        Node::new(Role::Edge, site.path(), "yaml", "[web]\nlisten_address = ['127.0.0.1:0']\n[storage]\npath = ''\n")
            .flags(&["--web.config.file", yaml.to_str().unwrap()]);
    node.start_listening();
    let with = |node: &Node, user: &str| status(&site, node, &["--user", user]);
    assert_eq!((with(&node, "alice:first"), with(&node, "alice:second"), status(&site, &node, &[])), (200, 401, 401));
    let head = curl(&site, &node, "https", &["--user", "alice:first", "--include"]).body.to_ascii_lowercase();
    assert!(head.contains("x-frame-options: deny") && head.contains("strict-transport-security: max-age=1"), "{head}");

    let mut kept = tls::connect(node.web(), &site.cert("ca.pem"), b"http/1.1");
    let first_certificate = {
        let request = "GET /-/ready HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YWxpY2U6Zmlyc3Q=\r\n\r\n";
        assert_eq!(tls::ask(&mut kept, request), 200);
        tls::certificate(&kept)
    };
    // Another password, and another certificate from the same authority.
    file("second");
    site.pki(&["hub", "127.0.0.1", "--force"]);
    eventually("the new password is taken", || (with(&node, "alice:second") == 200).then_some(()));
    assert_eq!(with(&node, "alice:first"), 401);
    let certificate = || tls::certificate(&connected(&node, &site));
    eventually("the new certificate is shown", || (certificate() != first_certificate).then_some(()));
    // The open connection continues, under the new rules.
    let request = "GET /-/ready HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YWxpY2U6c2Vjb25k\r\n\r\n";
    assert_eq!(tls::ask(&mut kept, request), 200);

    web_file(&site, "basic_auth_users: {alice: nonsense}\n");
    node.process().line("a word about the broken file", |line| {
        (line.contains("the old ones stay in force") && line.contains("bcrypt")).then_some(())
    });
    assert_eq!(with(&node, "alice:second"), 200, "a broken file changes nothing");
    std::fs::write(site.cert("hub.key"), "no key").unwrap();
    file("third");
    node.process().line("a word about the broken key", |line| {
        (line.contains("the old ones stay in force") && line.contains("hub.key")).then_some(())
    });
    assert_eq!(with(&node, "alice:second"), 200, "nothing is taken of what is wrong in part");
    site.pki(&["hub", "127.0.0.1", "--force"]);
    eventually("what is right again is taken", || (with(&node, "alice:third") == 200).then_some(()));
    assert!(node.process().is_alive());
}

/// A connection after its TLS handshake.
fn connected(node: &Node, site: &Site) -> tls::Connection {
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"http/1.1");
    tls::ask(&mut stream, "GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n");
    stream
}

#[test]
fn a_signal_reloads_the_passwords_of_the_configuration() {
    let site = Site::new();
    let users = |name: &str| format!("[web.basic_auth_users]\n{name} = '{}'\n", hash("pass"));
    let mut node = gateway(&site, "signal", &users("alice"));
    let toml = site.path().join("signal.toml");
    let before = std::fs::read_to_string(&toml).unwrap();
    let at = before.find("[web.basic").unwrap();
    let after = format!("{}{}[storage]\npath = ''\n", &before[..at], users("bob"));
    std::fs::write(&toml, after).unwrap();
    node.process().signal("HUP");
    let bob = [("Authorization", "Basic Ym9iOnBhc3M=")];
    let ready = || http::request(node.web(), "GET", "/-/ready", &bob, b"").ok().filter(|reply| reply.status == 200);
    eventually("bob may come in", ready);
    let alice = [("Authorization", "Basic YWxpY2U6cGFzcw==")];
    assert_eq!(http::request(node.web(), "GET", "/-/ready", &alice, b"").unwrap().status, 401);
}

#[test]
fn an_emptied_file_does_not_open_the_gateway() {
    let site = Site::new();
    let users = format!("basic_auth_users:\n  alice: {}\n", hash("pass"));
    for (name, text) in [("plain", users.clone()), ("tls", format!("{YAML_TLS}{users}"))] {
        let yaml = web_file(&site, &text);
        let config = "[web]\nlisten_address = ['127.0.0.1:0']\n[storage]\npath = ''\n";
        let mut node =
            Node::new(Role::Edge, site.path(), name, config).flags(&["--web.config.file", yaml.to_str().unwrap()]);
        node.start_listening();
        let ask = |node: &Node| match name {
            "tls" => connected_status(node, &site),
            _ => node.get("/-/ready").status,
        };
        assert_eq!(ask(&node), 401);
        std::fs::write(&yaml, "").unwrap();
        let refused = |line: &str| line.contains("the old ones stay in force").then_some(());
        node.process().line("a line about the empty file", refused);
        assert_eq!(ask(&node), 401, "{name}");
        // A reload that an operator requests may drop the passwords, but not TLS.
        node.process().signal("HUP");
        if name == "tls" {
            let refused = |line: &str| line.contains("the configuration was not read again").then_some(());
            node.process().line("a line about TLS", refused);
            assert_eq!(ask(&node), 401);
        } else {
            eventually("no password is required", || (ask(&node) == 200).then_some(()));
        }
    }
}

#[test]
fn passwords_stay_in_force_when_tls_cannot_be_turned_on() {
    let site = Site::new();
    let mut node = gateway(&site, "swap", &format!("[web.basic_auth_users]\nalice = '{}'\n", hash("pass")));
    let toml = site.path().join("swap.toml");
    let before = std::fs::read_to_string(&toml).unwrap();
    let certs = site.cert("").display().to_string();
    let verified = "client_auth_type = 'RequireAndVerifyClientCert'\nclient_ca_file = 'CERTS/ca.pem'\n";
    let tls = format!("{TLS}{verified}").replace("CERTS/", &certs);
    let after = format!("{}{tls}[storage]\npath = ''\n", &before[..before.find("[web.basic").unwrap()]);
    std::fs::write(&toml, after).unwrap();
    node.process().signal("HUP");
    node.process()
        .line("a line about TLS", |line| (line.contains("not read again") && line.contains("TLS")).then_some(()));
    assert_eq!(node.get("/-/ready").status, 401);
}

#[test]
fn head_gets_no_body() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    let users = format!("[web.basic_auth_users]\nalice = '{}'\n", hash("pass"));
    let node = gateway(&site, "head", &format!("{users}{TLS}"));
    for version in ["--http1.1", "--http2"] {
        let answer = curl(&site, &node, "https", &["--head", version]);
        let head = answer.body.to_ascii_lowercase();
        assert_eq!(answer.status, 401);
        assert!(head.contains("content-length: 13\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
    // A frame that ends the request, HEAD https://a/ in HPACK. The response must be a head and nothing else.
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(&frame(HEADERS, 5, 1, b"\x02\x04HEAD\x87\x84\x41\x01a")).unwrap();
    assert_eq!(kinds_until_end(&mut stream), [HEADERS]);
}

#[test]
fn the_rate_is_limited_before_anything_else() {
    let site = Site::new();
    let users = format!("[web.basic_auth_users]\nalice = '{}'\n", hash("x"));
    let node = gateway(&site, "rate", &format!("[web.rate_limit]\ninterval = '1h'\nburst = 3\n{users}"));
    let asked: Vec<u16> = (0..5).map(|_| node.get("/status").status).collect();
    assert_eq!(asked, [401, 401, 401, 429, 429]);
    let refused = node.get("/status");
    assert_eq!(refused.text(), "Too Many Requests\n");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&wait), "{wait}");
    for path in ["/-/ready", "/-/healthy", "/metrics"] {
        assert_eq!(node.get(path).status, 401, "{path} is not limited");
    }
}

#[test]
fn a_contradictory_configuration_does_not_start() {
    let site = Site::new();
    let yaml = web_file(&site, &format!("{YAML_TLS}  client_auth_type: RequireAndVerifyClientCert\n"));
    let sans = site.path().join("sans.yml");
    let any = "  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [a.example.org]\n";
    std::fs::write(&sans, format!("{YAML_TLS}{any}")).unwrap();
    let cases = [
        (vec!["--web.config.file", yaml.to_str().unwrap()], "client_ca_file"),
        (vec!["--web.tls.cert-file", "certs/hub.pem"], "key_file"),
        (vec!["--web.config.file", sans.to_str().unwrap()], "client_allowed_sans"),
        (vec!["--web.tls.cert-file=certs/hub.pem", "--web.tls.key-file=certs/ca.key"], "does not match"),
        (vec!["--web.config.file=nowhere.yml"], "nowhere.yml"),
        (vec!["--web.config.file", yaml.to_str().unwrap(), "--web.http2=true"], "keep one of them"),
        (vec!["--web.systemd-socket"], "LISTEN_FDS"),
    ];
    for (flags, wrong) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushrelay"));
        command
            .args(["edge", "--storage.path=", "--web.listen-address=127.0.0.1:0"])
            .args(flags)
            .current_dir(site.path());
        gives_up(&mut Process::spawn(&mut command), wrong);
    }
}

/// Listens on two sockets, and then executes the program in its arguments, as systemd does.
const SYSTEMD: &str = "import os, socket, sys
for fd in (3, 4):
    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); os.dup2(s.fileno(), 100 + fd); s.close()
for fd in (3, 4):
    os.dup2(100 + fd, fd)
os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])";

#[test]
fn sockets_that_systemd_passes_on_are_listened_on() {
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("sockets from systemd are not tried: no python3 here to stand in for it");
    }
    let site = Site::new();
    let mut command = Command::new("python3");
    command.args(["-c", SYSTEMD, env!("CARGO_BIN_EXE_pushrelay"), "edge", "--storage.path=", "--web.systemd-socket"]);
    let mut process = Process::spawn(command.current_dir(site.path()));
    let addresses = eventually("it listens on both", || {
        let said = process.lines();
        let addresses: Vec<_> = said.iter().flat_map(|line| logfmt(line)).filter(|(key, _)| key == "address").collect();
        (addresses.len() == 2).then_some(addresses)
    });
    for (_, address) in addresses {
        let reply = http::request(address.parse().unwrap(), "GET", "/-/ready", &[], b"").unwrap();
        assert_eq!(reply.status, 200);
    }
    assert!(process.is_alive());
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// `GET https://a/metrics`, by HPACK's static table.
const GET_METRICS: &[u8] = b"\x82\x87\x04\x08/metrics\x41\x01a";

/// Reads frames until one of that kind or the end; returns its stream and its payload.
fn next_of(stream: &mut impl Read, kind: u8) -> Option<(u32, Vec<u8>)> {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if head[3] == kind {
            return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        }
    }
    None
}

/// Whether the server has closed the connection. A server that only stopped reading has not.
fn is_closed(written: &io::Result<()>) -> bool {
    let stuck = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    written.as_ref().is_err_and(|error| {
        assert!(!stuck.contains(&error.kind()), "what is sent is neither read nor refused: {error}");
        true
    })
}

/// The kinds of the frames that answer the first request, until its end.
fn kinds_until_end(stream: &mut impl Read) -> Vec<u8> {
    let (mut kinds, mut head) = (Vec::new(), [0; 9]);
    loop {
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).unwrap();
        if head[5..] == 1u32.to_be_bytes() && head[3] != WINDOW_UPDATE {
            kinds.push(head[3]);
            if head[4] & 1 == 1 {
                return kinds;
            }
        }
    }
}

#[test]
fn requests_opened_to_be_reset_end_the_connection() {
    let site = Site::new();
    let mut node = gateway(&site, "reset", TLS);
    let memory_before = node.process().memory_bytes_max();
    for _ in 0..5 {
        let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        let mut ended = false;
        for round in 0..200u32 {
            let requests: Vec<u8> = (0..100)
                .flat_map(|i| {
                    let id = (round * 100 + i) * 2 + 1;
                    [frame(HEADERS, 5, id, GET_METRICS), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
                })
                .collect();
            ended = is_closed(&stream.write_all(&requests).and_then(|()| stream.flush()));
            if ended {
                break;
            }
        }
        assert!(ended || next_of(&mut stream, GOAWAY).is_some(), "20,000 requests that nobody wants are too many");
    }
    let memory = node.process().memory_bytes_max();
    assert!(memory < memory_before + (64 << 20), "{memory_before} bytes before, {memory} after");
    assert_eq!(connected_status(&node, &site), 200);
}

/// The response to an ordinary client.
fn connected_status(node: &Node, site: &Site) -> u16 {
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"http/1.1");
    tls::ask(&mut stream, "GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn an_answer_that_the_client_does_not_read_is_given_up() {
    let site = Site::new();
    let node = gateway(&site, "still", &format!("{TLS}[limits]\nbody_timeout = '1s'\nwrite_timeout = '1s'\n"));
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    // A client that opens no window for any response (SETTINGS_INITIAL_WINDOW_SIZE 0).
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    stream.write_all(&frame(HEADERS, 5, 1, GET_METRICS)).unwrap();
    let ended = next_of(&mut stream, RST_STREAM);
    assert_eq!(ended.map(|(id, _)| id), Some(1), "the request is ended, not the connection");
}

#[test]
fn an_idle_http2_connection_gets_goaway_when_another_needs_its_room() {
    let site = Site::new();
    let node = gateway(&site, "room", &format!("{TLS}[limits]\nconnections_max = 16\n"));
    let ask = |_| {
        let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        stream.write_all(&frame(HEADERS, 5, 1, GET_METRICS)).unwrap();
        assert_eq!(kinds_until_end(&mut stream)[0], HEADERS);
        stream
    };
    let mut idle: Vec<_> = (0..40).map(ask).collect();
    assert!(next_of(&mut idle[0], GOAWAY).is_some());
    assert_eq!(connected_status(&node, &site), 200);
}

#[test]
fn more_requests_at_once_than_allowed_and_huge_headers_are_refused() {
    let site = Site::new();
    let node = gateway(&site, "many", TLS);
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    let requests: Vec<u8> = (0..101).flat_map(|i| frame(HEADERS, 5, i * 2 + 1, GET_METRICS)).collect();
    stream.write_all(&requests).unwrap();
    let refused_stream = vec![0, 0, 0, 7];
    assert_eq!(next_of(&mut stream, RST_STREAM), Some((201, refused_stream)), "the last of 101 is refused");

    // A head without an end: CONTINUATION frames without END_HEADERS.
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(&frame(HEADERS, 1, 1, GET_METRICS)).unwrap();
    let more = [&b"\x00\x01x\x7f\x81\x7d"[..], &[b'y'; 16_000]].concat();
    let written = (0..5_000).try_for_each(|_| stream.write_all(&frame(9, 0, 1, &more)).and_then(|()| stream.flush()));
    assert!(is_closed(&written) || next_of(&mut stream, GOAWAY).is_some());
    assert_eq!(connected_status(&node, &site), 200);
}

#[test]
fn many_requests_on_one_connection_are_all_answered() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    let node = gateway(&site, "load", TLS);
    let folder: &Path = site.path();
    let mut command = Command::new("curl");
    command.args(["--silent", "--fail", "--parallel", "--parallel-max", "200", "--http2", "--cacert"]);
    command.arg(site.cert("ca.pem")).args(["--data-binary", "x 1\n", "--write-out", "%{http_code} %{http_version}\n"]);
    command.arg(format!("https://{}/metrics/job/j/n/[1-1000]", node.web())).current_dir(folder);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(output.lines().filter(|line| *line == "200 2").count(), 1_000, "{output}");
    let page = curl(&site, &node, "https", &["/metrics"]).body;
    assert_eq!(page.lines().filter(|line| line.starts_with("x{")).count(), 1_000);
}
