//! Tokens and certificates side by side at a hub's own listener.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::run;
use pushrelay_testkit::{Node, Site, tls};

/// Makes a token of `bj-1` in that file; returns the hub's table.
fn token(site: &Site, file: &str) -> String {
    let made = run(site.path(), &["pki", "token", "bj-1", "--label", "IDC=BJ", "--out", file]);
    assert_eq!(made.code, Some(0), "{}", made.output);
    made.output
}

fn digest(table: &str) -> &str {
    table.split("token_sha256 = ").nth(1).unwrap().trim()
}

/// A request for a session of the link, with further headers.
fn request(more: &str) -> String {
    format!(
        "GET /api/v1/relay HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: pushrelay.v1\r\n{more}\r\n"
    )
}

fn answer(stream: &mut (impl Read + Write), request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok();
    answer
}

fn refusals(hub: &Node, reason: &str) -> f64 {
    hub.page().values("pushrelay_hub_refusals_total", &[("reason", reason)])[0]
}

fn reload(hub: &mut Node, site: &Site, config: &str) {
    fs::write(site.path().join("hub.toml"), config).unwrap();
    let before = hub.process().output().matches("configuration and certificates read again").count();
    hub.process().signal("HUP");
    let process = hub.process();
    pushrelay_testkit::eventually("the reload", || {
        let now = process.output().matches("configuration and certificates read again").count();
        (now > before).then_some(())
    });
}

#[test]
fn an_edge_with_a_token_links_beside_one_with_a_certificate_and_each_other_client_is_refused() {
    let site = Site::new();
    let without = site.hub_config("hub");
    let first = token(&site, "bj-1.token");
    let mut hub = Node::new(Role::Hub, site.path(), "hub", &format!("{without}{first}"));
    hub.start();
    let mut syq = site.edge("syq-1", "SYQ", &hub);
    syq.start();
    let store = site.path().join("bj-1");
    let config = format!(
        "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = {store:?}\n[[uplink]]\nhub = \"{}\"\n\
         token_file = \"bj-1.token\"\nbackoff_min = \"20ms\"\nbackoff_max = \"300ms\"\n[uplink.tls]\nca_file = {:?}\n",
        hub.line(),
        site.cert("ca.pem"),
    );
    let mut bj = Node::new(Role::Edge, site.path(), "bj-1", &config);
    bj.start();
    syq.push("job/a", "x 1\n");
    bj.push("job/a", "x 2\n");
    hub.shows("x", &[("job", "a"), ("IDC", "SYQ")], 1.0);
    hub.shows("x", &[("job", "a"), ("IDC", "BJ")], 2.0);
    let doctor = run(site.path(), &["doctor", "--config.file", "bj-1.toml"]);
    assert!(doctor.code == Some(0) && doctor.output.contains("the token in"), "{}", doctor.output);

    // Neither a certificate nor a token; a wrong token; a token without TLS.
    let ca = site.cert("ca.pem");
    let connect = || tls::connect(hub.edge_listener(), &ca, b"http/1.1");
    let none = answer(&mut connect(), &request(""));
    assert!(none.starts_with("HTTP/1.1 403") && none.contains("a link needs a certificate or a token"), "{none}");
    let wrong = answer(&mut connect(), &request("Authorization: Bearer 0123456789012345678901234567890123\r\n"));
    assert!(wrong.starts_with("HTTP/1.1 403") && wrong.contains("the hub knows no such token"), "{wrong}");
    let secret = fs::read_to_string(site.path().join("bj-1.token")).unwrap();
    let bearer = request(&format!("Authorization: Bearer {}\r\n", secret.trim()));
    let clear = answer(&mut TcpStream::connect(hub.edge_listener()).unwrap(), &bearer);
    assert!(clear.starts_with("HTTP/1.1 403") && clear.contains("make another token"), "{clear}");
    for reason in ["no_credentials", "unknown_token", "token_in_the_clear"] {
        assert_eq!(refusals(&hub, reason), 1.0, "{reason}");
    }
    for text in
        ["a link needs a certificate or a token", "the hub knows no such token", "this hub takes edges over TLS"]
    {
        hub.process().line("the refusal", |line| {
            (line.contains("incoming connection refused") && line.contains(text)).then_some(())
        });
    }

    // A new token takes the place of the old one, and the link moves to it.
    let second = token(&site, "second.token");
    let both = first.replace(digest(&first), &format!("[{}, {}]", digest(&first), digest(&second)));
    reload(&mut hub, &site, &format!("{without}{both}"));
    fs::rename(site.path().join("second.token"), site.path().join("bj-1.token")).unwrap();
    bj.process().line("the link moves", |line| line.contains("the link moves to a connection with").then_some(()));
    reload(&mut hub, &site, &format!("{without}{second}"));
    bj.push("job/a", "x 3\n");
    hub.shows("x", &[("job", "a"), ("IDC", "BJ")], 3.0);
    assert_eq!(refusals(&hub, "unknown_token"), 1.0, "the link moved before the old token was removed");

    // A removed token ends its link, and the edge learns why.
    reload(&mut hub, &site, &format!("{without}{first}"));
    hub.process()
        .line("the link ends", |line| line.contains("the edge's token was removed: its link ends").then_some(()));
    bj.process().line("the reason", |line| line.contains("the hub knows no such token").then_some(()));
    bj.push("job/a", "x 4\n");
    reload(&mut hub, &site, &format!("{without}{second}"));
    hub.shows("x", &[("job", "a"), ("IDC", "BJ")], 4.0);
}
