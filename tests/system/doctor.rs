//! `pushrelay doctor` as a user runs it: each step is shown, a running edge is not disturbed, and the exit status says
//! whether a push would arrive.

use std::net::TcpListener;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::{Outcome, run};
use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Node, Site, eventually};

fn doctor(site: &Site, name: &str) -> Outcome {
    let outcome = run(site.path(), &["doctor", "--config.file", &format!("{name}.toml")]);
    assert!(!outcome.output.contains("panicked"), "{}", outcome.output);
    outcome
}

#[track_caller]
fn shows(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}", outcome.output);
    for text in texts {
        assert!(outcome.output.contains(text), "no {text:?} in\n{}", outcome.output);
    }
}

fn linked(edge: &Node) {
    eventually("the edge is linked", || (edge.page().values("pushrelay_uplink_connected", &[]) == [1.0]).then_some(()));
}

#[test]
fn a_good_line_is_shown_step_by_step_and_a_running_edge_is_not_disturbed() {
    let (site, mut hub, mut edge) = Site::with_one_edge();
    linked(&edge);
    let steps = [
        "an edge: pushes at 127.0.0.1:0",
        "  addresses  ",
        " answers\n",
        "  tls        ",
        "the hub's certificate is for 127.0.0.1, valid from 20",
        "the WebSocket is open",
        "(pushrelay 0.1.0) would admit \"syq-1\" with the site labels {IDC=\"SYQ\"}",
        "the hub's clock is 0.",
        "16 bytes pass both ways",
        "65536 bytes pass both ways",
        "OK: a push would arrive",
    ];
    shows(&doctor(&site, "syq-1"), 0, &steps);
    hub.process().line("the hub logs the check", |line| line.contains("an edge checked its line").then_some(()));
    let sessions = |name: &str, node: &Node| node.page().values(name, &[]);
    assert_eq!(sessions("pushrelay_uplink_sessions_total", &edge), [1.0], "the session goes on");
    assert_eq!(sessions("pushrelay_edge_sessions_total", &hub), [1.0], "a check is no session");
    edge.push("job/a", "after 1\n");
    hub.shows("after", &[("IDC", "SYQ")], 1.0);
    edge.stop();
    shows(&doctor(&site, "syq-1"), 0, &["OK: a push would arrive"]);
}

#[test]
fn a_check_says_why_no_push_would_arrive() {
    let (site, hub, edge) = Site::with_one_edge();
    linked(&edge);
    let ca = site.cert("ca.pem");
    let write = |name: &str, config: String| std::fs::write(site.path().join(name), config).unwrap();
    // Another store under the same name: its own edge would be refused.
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let mut copy = Node::new(
        Role::Edge,
        site.path(),
        "copy",
        &edge_config(&site.path().join("copy"), hub.line(), &ca, &cert, &key),
    );
    copy.start();
    copy.stop();
    let taken =
        "would refuse this edge: name taken by another store: the edge \"syq-1\" is connected with another store";
    shows(&doctor(&site, "copy"), 1, &["  hello   ", "FAILED: ", taken, "NOT OK: "]);
    // A certificate without site labels.
    site.pki(&["edge", "bare"]);
    let bare = |hub| edge_config(&site.path().join("bare"), hub, &ca, &site.cert("bare.pem"), &site.cert("bare.key"));
    write("bare.toml", bare(hub.line()));
    shows(&doctor(&site, "bare"), 1, &["not authorized: the edge \"bare\" has no site", "NOT OK: "]);
    // No hub listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    write("nobody.toml", bare(free));
    shows(&doctor(&site, "nobody"), 1, &["  addresses", "FAILED: ", "Connection refused", "set uplink.proxy_url"]);
    // Something else listens.
    write("other.toml", bare(hub.web()));
    shows(&doctor(&site, "other"), 1, &["  tls  ", "the other end does not speak TLS", "NOT OK: "]);
    // A hub of another authority.
    let foreign = Site::new();
    write("foreign.toml", bare(hub.line()).replace(&format!("{ca:?}"), &format!("{:?}", foreign.cert("ca.pem"))));
    let issuer = "it is not signed by an authority of this end's CA file";
    shows(&doctor(&site, "foreign"), 1, &[issuer, "if a proxy or firewall in between inspects TLS", "NOT OK: "]);
    // A mistake in the configuration, and one without a hub.
    write("wrong.toml", bare(hub.line()).replace("bare.key", "none.key"));
    shows(&doctor(&site, "wrong"), 1, &["wrong.toml:", "none.key"]);
    write("alone.toml", "[storage]\npath = ''\n".into());
    shows(&doctor(&site, "alone"), 1, &["there is no [[uplink]] and no [[remote_write]]"]);
}
