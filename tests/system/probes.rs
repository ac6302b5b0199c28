//! Checks of balancers, scanners and refused peers at the listeners: routine is counted and not logged as a warning, a
//! refusal is a warning once.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Node, Site, eventually, http, skip, tls};

/// Connects and leaves, as a TCP check does.
fn check(address: SocketAddr) {
    drop(http::connect(address).unwrap());
}

/// Connects and resets the connection, as a half-open check does: bytes that were never read make the kernel reset it.
fn reset(address: SocketAddr, bytes: &[u8]) {
    let mut stream = http::connect(address).unwrap();
    let _ = stream.write_all(bytes);
    // The answer is there, and is not read.
    let _ = stream.peek(&mut [0; 1]);
}

/// Sends bytes that are no request, and reads until the node closes the connection.
fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = http::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// The beginning of a TLS 1.0 handshake, as a scanner for old servers sends it.
const OLD_TLS: &[u8] = &[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];

fn old_hello() -> Vec<u8> {
    // Random, no session, one cipher suite, no compression.
    [OLD_TLS, &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat()
}

/// Waits until the node shows these numbers of failed connections.
fn failed(mut page: impl FnMut() -> pushrelay_testkit::Page, face: &str, expected: &[(&str, f64)]) {
    let mut seen = Vec::new();
    let shown = || {
        let page = page();
        let count =
            |reason| page.value("pushrelay_connections_failed_total", &[("face", face), ("reason", reason)]).unwrap();
        seen = expected.iter().map(|(reason, _)| (*reason, count(reason))).collect();
        (seen == expected).then_some(())
    };
    eventually(&format!("{face}: {expected:?}"), shown);
}

fn warnings(node: &mut Node) -> Vec<String> {
    node.process().lines().into_iter().filter(|line| line.contains("level=WARN")).collect()
}

#[test]
fn routine_at_the_edges_listener_is_counted_and_no_warning() {
    let site = Site::new();
    let mut hub = site.hub().flags(&["--link.handshake-timeout=1s"]);
    hub.start();
    let address = hub.edge_listener();
    check(address);
    send(address, REQUEST);
    send(address, &old_hello());
    send(address, b"\0\0\0\0");
    // A check of the certificate's date: TLS without a certificate of the client.
    let mut stream = tls::connect(address, &site.cert("ca.pem"), b"http/1.1");
    let _ = stream.read(&mut [0]);
    // Nothing at all, and half a greeting.
    let silent = [http::connect(address).unwrap(), http::connect(address).unwrap()];
    (&silent[1]).write_all(&old_hello()[..9]).unwrap();
    let expected = [("closed", 1.0), ("silent", 2.0), ("protocol", 3.0), ("no_certificate", 1.0), ("refused", 0.0)];
    failed(|| hub.page(), "edge", &expected);
    assert_eq!(warnings(&mut hub), Vec::<String>::new());
}

#[test]
fn routine_at_a_gateway_is_counted_and_no_warning() {
    let site = Site::new();
    let mut node = site.hub().flags(&["--limits.header-timeout=1s"]);
    node.start();
    let address = node.web();
    check(address);
    reset(address, b"\x16\x03\x01\x02\x00nonsense\r\n\r\n");
    assert!(send(address, b"nonsense\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
    // Half a request is given up.
    assert_eq!(send(address, b"GET / HT"), b"");
    let expected = [("closed", 1.0), ("silent", 1.0), ("protocol", 2.0), ("refused", 0.0)];
    failed(|| node.page(), "web", &expected);
    // A request that was served is no failure, however the connection ends.
    reset(address, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    failed(|| node.page(), "web", &expected);
    assert_eq!(warnings(&mut node), Vec::<String>::new());
}

/// A gateway with TLS that asks for certificates.
fn gateway(site: &Site, more: &str) -> Node {
    let config = format!(
        "[web]\nlisten_address = '127.0.0.1:0'\n[web.tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n{more}\n\
         [limits]\nheader_timeout = '1s'\n[storage]\npath = ''\n",
        site.cert("hub.pem"),
        site.cert("hub.key"),
        site.cert("ca.pem")
    );
    let mut node = Node::new(Role::Edge, site.path(), "gateway", &config);
    node.start_listening();
    node
}

/// A scrape with TLS and, if given, a certificate.
fn scrape(site: &Site, node: &Node, certificate: Option<(&Path, &Path)>) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "30", "--cacert"]).arg(site.cert("ca.pem"));
    if let Some((cert, key)) = certificate {
        command.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    let output = command.arg(format!("https://{}/metrics", node.web())).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn at_a_gateway_with_tls_routine_is_counted_and_a_refused_certificate_is_a_warning_once() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skip("a gateway with client certificates is not tried with curl: it is not here");
    }
    let site = Site::new();
    let foreign = Site::new();
    for site in [&site, &foreign] {
        site.pki(&["edge", "client", "--label", "IDC=SYQ"]);
    }
    let mut node = gateway(&site, "client_auth_type = 'RequireAndVerifyClientCert'");
    let address = node.web();
    check(address);
    assert!(send(address, REQUEST).starts_with(b"HTTP/1.0 400 "));
    send(address, &old_hello());
    assert_eq!(send(address, b""), b"");
    // A client without TLS that keeps its connection open after the answer.
    let mut open = http::connect(address).unwrap();
    open.write_all(REQUEST).unwrap();
    open.read_to_end(&mut Vec::new()).unwrap();
    let scrape = |of: Option<&Site>| {
        let files = of.map(|site| (site.cert("client.pem"), site.cert("client.key")));
        scrape(&site, &node, files.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path())))
    };
    assert!(scrape(None).is_none());
    assert!(scrape(Some(&foreign)).is_none() && scrape(Some(&foreign)).is_none());
    let expected = [("closed", 1.0), ("silent", 1.0), ("protocol", 3.0), ("no_certificate", 1.0), ("refused", 2.0)];
    let page = || pushrelay_testkit::Page::parse(&scrape(Some(&site)).expect("its certificate is good")).unwrap();
    failed(page, "web", &expected);
    let warnings = warnings(&mut node);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let reason = "the other end's certificate is refused: it is not signed by an authority of this end's CA file";
    assert!(warnings[0].contains("incoming connection refused") && warnings[0].contains(reason), "{warnings:?}");
}

/// An edge whose certificate is refused tries again every few seconds.
#[test]
fn an_edge_that_is_refused_again_and_again_is_a_warning_once() {
    let (site, foreign) = (Site::new(), Site::new());
    let mut hub = site.hub();
    hub.start();
    foreign.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let mut edge = site.edge_with("syq-1", hub.line(), &foreign.cert("syq-1.pem"), &foreign.cert("syq-1.key"));
    edge.start();
    let refused = || hub.page().value("pushrelay_connections_failed_total", &[("face", "edge"), ("reason", "refused")]);
    eventually("the edge has tried some times", || (refused() >= Some(3.0)).then_some(()));
    let warnings = warnings(&mut hub);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}
