//! TLS, passwords, headers and limits of the gateway, as users meet them with curl, and as attackers meet them.

use std::path::PathBuf;
use std::process::Command;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::{Process, gives_up, logfmt, run};
use pushrelay_testkit::{Node, Site, eventually, http, skip, tls};

/// The outcome of a request with curl.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status; 0 without a response.
    pub status: u16,
    /// The HTTP version: `1.1` or `2`.
    pub version: String,
    pub body: String,
}

/// Runs curl on `SCHEME://ADDRESS/-/ready`, or on another path if an argument begins with a slash.
pub fn curl(site: &Site, node: &Node, scheme: &str, arguments: &[&str]) -> Answer {
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
pub fn gateway(site: &Site, name: &str, web: &str) -> Node {
    let certs = site.cert("").display().to_string();
    let web = web.replace("CERTS/", &certs);
    let config =
        format!("[web]\nlisten_address = '127.0.0.1:0'\nenable_lifecycle = true\n{web}\n[storage]\npath = ''\n");
    let mut node = Node::new(Role::Edge, site.path(), name, &config);
    node.start_listening();
    node
}

pub const TLS: &str = "[web.tls]\ncert_file = 'CERTS/hub.pem'\nkey_file = 'CERTS/hub.key'\n";

pub fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

pub fn have_curl() -> bool {
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

/// The response to an ordinary client.
pub fn connected_status(node: &Node, site: &Site) -> u16 {
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"http/1.1");
    tls::ask(&mut stream, "GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")
}
