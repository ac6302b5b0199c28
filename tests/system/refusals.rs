//! Every end that refuses says why: both ends' logs have the reason, or say where to look.

use std::io::Read;

use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Node, Site, eventually, tls};

/// Waits until the log of a node contains each of the words in one line.
#[track_caller]
fn logs(node: &mut Node, words: &[&str]) {
    let said =
        |node: &mut Node| node.process().lines().into_iter().find(|line| words.iter().all(|word| line.contains(word)));
    eventually(&format!("a line with {words:?}"), || said(node).map(drop));
}

/// A certificate of the site's authority, made with openssl.
fn issue(site: &Site, name: &str, subject: &str, extensions: &str) -> Node {
    let certs = site.cert("").display().to_string();
    bash(&format!(
        "cd '{certs}' && openssl ecparam -name prime256v1 -genkey -noout -out {name}.key && \
         openssl req -new -key {name}.key -subj '{subject}' -out own.csr && printf '{extensions}' > own.ext && \
         openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile own.ext -out {name}.pem 2>&1"
    ));
    let hub = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    site.edge_with(name, hub, &site.cert(&format!("{name}.pem")), &site.cert(&format!("{name}.key")))
}

/// Sends an edge to another hub: its configuration names a port that nobody uses.
fn towards(edge: Node, site: &Site, name: &str, hub: &str) -> Node {
    let file = site.path().join(format!("{name}.toml"));
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, config.replace("127.0.0.1:9\"", &format!("{hub}\""))).unwrap();
    edge
}

#[test]
fn an_edge_whose_certificate_is_no_edges_learns_the_reason() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let line = hub.line().to_string();
    let client = "extendedKeyUsage=clientAuth\\n";
    let two = "subjectAltName=URI:pushrelay://edge/a,URI:pushrelay://edge/b\\n";
    for (name, subject, extensions, edge_says, hub_says) in [
        (
            "nobody",
            "/O=nobody",
            client.to_owned(),
            "the hub refuses this edge: the edge's certificate is refused: no subject alternative name begins with",
            "no subject alternative name begins with",
        ),
        (
            "spaced",
            "/CN=a b",
            client.to_owned(),
            "the hub refuses this edge: the edge's certificate is refused: the edge's identity cannot be read",
            "is no edge name",
        ),
        (
            "twice",
            "/CN=a",
            format!("{client}{two}"),
            "the hub refuses this edge: the edge's certificate is refused: two subject alternative names",
            "two subject alternative names",
        ),
        (
            "server",
            "/CN=server",
            "extendedKeyUsage=serverAuth\\n".into(),
            "not meant for this end of a connection (extendedKeyUsage)",
            "an edge needs clientAuth",
        ),
        ("nosite", "/CN=nosite", client.to_owned(), "has no site", "has no site"),
    ] {
        let mut edge = towards(issue(&site, name, subject, &extensions), &site, name, &line);
        edge.start();
        logs(&mut edge, &["no link to the hub", edge_says]);
        logs(&mut hub, &[hub_says]);
    }
}

/// The reason is known after the handshake of TLS, whatever the edge sends then.
#[test]
fn a_refusal_that_the_edge_never_asks_for_is_counted_with_its_reason() {
    let site = Site::new();
    let mut hub = site.hub().flags(&["--link.handshake-timeout=1s"]);
    hub.start();
    issue(&site, "nobody", "/O=nobody", "extendedKeyUsage=clientAuth\\n");
    let (cert, key) = (site.cert("nobody.pem"), site.cert("nobody.key"));
    let mut stream = tls::connect_as(hub.edge_listener(), &site.cert("ca.pem"), b"http/1.1", Some((&cert, &key)));
    let failed = |reason| [("face", "edge"), ("reason", reason)];
    hub.shows("pushrelay_connections_failed_total", &failed("refused"), 1.0);
    logs(&mut hub, &["incoming connection refused", "no subject alternative name begins with"]);
    // The hub waits for a request, and closes the connection when the time for one is over.
    let _ = stream.read(&mut [0]);
    hub.shows("pushrelay_connections_failed_total", &failed("silent"), 0.0);
}

#[test]
fn an_edge_that_finds_no_room_learns_the_reason() {
    let site = Site::new();
    let config = site.hub_config("hub").replacen("[hub]\n", "[hub]\nconnections_max = 1\n", 1);
    let mut hub = Node::new(pushrelay_testkit::node::Role::Hub, site.path(), "hub", &config);
    hub.start();
    let mut first = site.edge("syq-1", "SYQ", &hub);
    first.start();
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    let mut second = site.edge("syq-2", "SYQ", &hub);
    second.start();
    logs(&mut second, &["no link to the hub", "as many connections as it accepts (hub.connections_max)"]);
    logs(&mut hub, &["connections are short", "face=edge"]);
}

#[test]
fn an_edge_of_another_store_and_one_whose_hub_stops_learn_the_reason() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let mut first = site.edge("syq-1", "SYQ", &hub);
    first.start();
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    // The same certificate with another store.
    let mut second = site.edge_with("copy", hub.line(), &site.cert("syq-1.pem"), &site.cert("syq-1.key"));
    second.start();
    logs(&mut second, &["name taken by another store", "is connected with another store", "(said the peer)"]);
    logs(&mut hub, &["edge refused", "is connected with another store"]);
    let (code, said) = hub.stop();
    assert!(code == Some(0) && said.contains("the node is shutting down"), "{said}");
    logs(&mut first, &["no link to the hub", "shutting down", "(said the peer)"]);
}

#[test]
fn a_hub_by_another_name_and_a_server_that_is_no_hub_are_explained() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let port = hub.line().port();
    let web = hub.web().to_string();
    for (name, address, edge_says, hub_says) in [
        (
            "by-name",
            format!("localhost:{port}"),
            "it is for another host: for 127.0.0.1, not for \\\"localhost\\\"; dial one of these names",
            Some("the other end refused"),
        ),
        ("to-web", web, "does not speak TLS", None),
    ] {
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        let edge = site.edge_with(name, nowhere, &site.cert("syq-1.pem"), &site.cert("syq-1.key"));
        let mut edge = towards(edge, &site, name, &address);
        edge.start();
        logs(&mut edge, &["no link to the hub", edge_says]);
        if let Some(words) = hub_says {
            logs(&mut hub, &[words]);
        }
    }
}
