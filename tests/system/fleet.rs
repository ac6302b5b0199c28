//! The hub as the window on its edges: the roll survives restarts, every edge has its state and the reason, and links end
//! when their certificate does not verify any more.

use std::time::{Duration, SystemTime};

use pushrelay::net::credentials::{Directory, IssueOptions};
use pushrelay::net::identity::EdgeIdentity;
use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Node, Site, eventually};
use serde_json::Value;

/// The edge as `/api/v1/edges` has it; null if it is not on the roll.
fn edge(hub: &Node, name: &str) -> Value {
    let json = hub.get("/api/v1/edges").json();
    let edges = json["data"].as_array().unwrap();
    edges.iter().find(|edge| edge["name"] == name).cloned().unwrap_or_default()
}

/// Waits until the edge has that state.
fn becomes(hub: &Node, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), || Some(edge(hub, name)).filter(|edge| edge["state"] == state))
}

fn admin(method: &str, hub: &Node, path: &str) -> (u16, String) {
    let reply = hub.request(method, path, &[], b"");
    (reply.status, reply.text())
}

fn two_edges() -> (Site, Node, Node, Node) {
    let site = Site::new();
    let mut hub = site.hub().flags(&["--web.enable-admin-api"]);
    hub.start();
    let (mut syq, mut bj) = (site.edge("syq-1", "SYQ", &hub), site.edge("bj-1", "BJ", &hub));
    syq.start();
    bj.start();
    becomes(&hub, "syq-1", "connected");
    becomes(&hub, "bj-1", "connected");
    (site, hub, syq, bj)
}

#[test]
fn a_restart_of_the_hub_forgets_no_edge_until_it_is_told_to() {
    let (_site, mut hub, mut syq, _bj) = two_edges();
    syq.push("job/a", "x 1\n");
    hub.shows("x", &[("IDC", "SYQ")], 1.0);
    hub.shows("pushrelay_edge_groups", &[("edge", "syq-1")], 1.0);
    syq.kill();
    let away = becomes(&hub, "syq-1", "away");
    assert!(!away["troubles"][0]["text"].as_str().unwrap().is_empty(), "{away}");
    // The roll is written within a second.
    eventually("the roll is on disk", || {
        let roll = std::fs::read_to_string(hub.store().join("edges.json")).ok()?;
        (roll.contains("\"groups\":1") && roll.contains("closed the connection")).then_some(())
    });
    hub.restart();
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1"), ("IDC", "SYQ")], 0.0);
    hub.shows("pushrelay_edge_healthy", &[("edge", "syq-1")], 0.0);
    hub.shows("pushrelay_edge_trouble", &[("edge", "syq-1"), ("reason", "away")], 1.0);
    let away = edge(&hub, "syq-1");
    assert_eq!((&away["groups"], away["last_seen"].is_string()), (&1.into(), true), "{away}");
    becomes(&hub, "bj-1", "connected");

    let (status, text) = admin("DELETE", &hub, "/api/v1/edges/bj-1");
    assert_eq!(status, 409, "it is connected: {text}");
    assert_eq!(admin("DELETE", &hub, "/api/v1/edges/nobody").0, 404);
    assert_eq!(admin("DELETE", &hub, "/api/v1/edges/syq-1").0, 202);
    hub.lacks("pushrelay_edge_connected", &[("edge", "syq-1")]);
    hub.shows("x", &[("IDC", "SYQ")], 1.0);
    hub.restart();
    becomes(&hub, "bj-1", "connected");
    assert_eq!(edge(&hub, "syq-1"), Value::Null, "it is forgotten on disk too");
    syq.start();
    becomes(&hub, "syq-1", "connected");
}

#[test]
fn a_retired_edge_raises_no_alarm_and_is_refused_until_it_is_forgotten() {
    let (_site, mut hub, mut syq, bj) = two_edges();
    syq.push("job/a", "x 1\n");
    bj.push("job/a", "x 2\n");
    hub.shows("x", &[("IDC", "SYQ")], 1.0);
    hub.shows("x", &[("IDC", "BJ")], 2.0);
    let (status, text) = admin("PUT", &hub, "/api/v1/edges/syq-1/retire?groups=delete");
    assert_eq!(status, 202, "{text}");
    hub.lacks("x", &[("IDC", "SYQ")]);
    hub.shows("x", &[("IDC", "BJ")], 2.0);
    hub.lacks("pushrelay_edge_connected", &[("edge", "syq-1")]);
    syq.process().line("the reason", |line| line.contains("retired the edge at the hub").then_some(()));
    hub.restart();
    assert_eq!(edge(&hub, "syq-1")["state"], "retired");
    assert_eq!(edge(&hub, "syq-1")["troubles"], Value::Array(vec![]));
    syq.kill();
    assert_eq!(admin("DELETE", &hub, "/api/v1/edges/syq-1").0, 202);
    syq.start();
    becomes(&hub, "syq-1", "connected");
    assert_eq!(hub.page().values("x", &[("IDC", "SYQ")]), [0.0; 0], "the delete reached the edge");
}

#[test]
fn an_edge_without_a_site_is_refused_with_the_reason_and_without_zeros() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    site.pki(&["edge", "lost-1"]);
    let mut lost = site.edge_with("lost-1", hub.line(), &site.cert("lost-1.pem"), &site.cert("lost-1.key"));
    lost.start();
    let refused = becomes(&hub, "lost-1", "refused");
    assert!(refused["troubles"][0]["text"].as_str().unwrap().contains("has no site"), "{refused}");
    hub.shows("pushrelay_edge_trouble", &[("edge", "lost-1"), ("reason", "refused")], 1.0);
    hub.shows("pushrelay_edge_healthy", &[("edge", "lost-1")], 0.0);
    let page = hub.page();
    let shown: Vec<&str> =
        page.families().filter(|name| !page.values(name, &[("edge", "lost-1")]).is_empty()).collect();
    let expected = [
        "pushrelay_edge_connected",
        "pushrelay_edge_healthy",
        "pushrelay_edge_refused_total",
        "pushrelay_edge_trouble",
    ];
    assert_eq!(shown, expected);
    let index = hub.get("/").text();
    assert!(index.contains("refused") && index.contains("has no site"), "the page has the reason");
}

#[test]
fn a_stolen_edge_is_cut_off_when_its_authority_is_removed() {
    let (site, hub, syq, mut bj) = two_edges();
    // An authority of its own for bj-1, beside the site's.
    let folder = site.path().join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    for arguments in [&["pki", "init"][..], &["pki", "edge", "bj-1", "--label", "IDC=BJ"]] {
        assert_eq!(pushrelay_testkit::process::run(&folder, arguments).code, Some(0));
    }
    let ca = site.cert("ca.pem");
    let own = std::fs::read(&ca).unwrap();
    let both = [own.clone(), std::fs::read(folder.join("certs/ca.pem")).unwrap()].concat();
    // The edges trust the site's authority only; the hub both.
    let edge_ca = site.path().join("edge-ca.pem");
    std::fs::write(&edge_ca, &own).unwrap();
    bj.kill();
    std::fs::write(&ca, both).unwrap();
    hub.shows("pushrelay_credentials_last_read_successful", &[("used_by", "hub")], 1.0);
    let (cert, key) = (folder.join("certs/bj-1.pem"), folder.join("certs/bj-1.key"));
    let config = pushrelay_testkit::site::edge_config(&bj.store(), hub.line(), &edge_ca, &cert, &key);
    let mut stolen = Node::new(pushrelay_testkit::node::Role::Edge, site.path(), "bj-1", &config);
    stolen.start();
    becomes(&hub, "bj-1", "connected");
    std::fs::write(&ca, &own).unwrap();
    let refused = becomes(&hub, "bj-1", "refused");
    let text = refused["troubles"][0]["text"].as_str().unwrap();
    assert!(text.contains("not signed by an authority") && text.contains("bj-1"), "{text}");
    stolen.push("job/a", "stolen 1\n");
    syq.push("job/a", "honest 1\n");
    hub.shows("honest", &[("IDC", "SYQ")], 1.0);
    hub.lacks("stolen", &[]);
    assert_eq!(edge(&hub, "syq-1")["state"], "connected", "the other link lives");
    let refused =
        hub.page().values("pushrelay_edge_refused_total", &[("edge", "bj-1"), ("reason", "certificate refused")]);
    assert!(refused.first().is_some_and(|count| *count >= 1.0), "{refused:?}");
}

#[test]
fn a_link_ends_when_its_certificate_expires() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let day = Duration::from_secs(86_400);
    let issue = IssueOptions { now: SystemTime::now() - day + Duration::from_secs(20), days: Some(1), force: false };
    let identity = EdgeIdentity::from_uri("pushrelay://edge/brief-1?IDC=SYQ").unwrap();
    let issued = Directory::new(site.cert("")).edge(&identity, issue);
    issued.unwrap_or_else(|error| panic!("{error}"));
    let mut brief = site.edge_with("brief-1", hub.line(), &site.cert("brief-1.pem"), &site.cert("brief-1.key"));
    brief.start();
    let degraded = becomes(&hub, "brief-1", "degraded");
    assert_eq!(degraded["troubles"][0]["reason"], "certificate_expires");
    hub.shows("pushrelay_edge_connected", &[("edge", "brief-1")], 0.0);
    let over = edge(&hub, "brief-1");
    assert!(over["troubles"].to_string().contains("expired"), "{over}");
}

#[test]
fn links_move_to_the_hubs_renewed_certificate_and_lose_nothing() {
    let (site, hub, syq, _bj) = two_edges();
    let before = edge(&hub, "syq-1")["sessions"].clone();
    site.pki(&["hub", "127.0.0.1", "--force"]);
    eventually("the link is a new one", || (edge(&hub, "syq-1")["sessions"] != before).then_some(()));
    becomes(&hub, "syq-1", "connected");
    syq.push("job/a", "x 1\n");
    hub.shows("x", &[("IDC", "SYQ")], 1.0);
    hub.shows("pushrelay_edge_resyncs_total", &[("edge", "syq-1")], 1.0);
}

#[test]
fn an_edge_ends_its_link_when_it_trusts_the_hubs_authority_no_longer() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let ca = site.path().join("edge-ca.pem");
    std::fs::copy(site.cert("ca.pem"), &ca).unwrap();
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let config = pushrelay_testkit::site::edge_config(&site.path().join("syq-1"), hub.line(), &ca, &cert, &key);
    let mut syq = Node::new(pushrelay_testkit::node::Role::Edge, site.path(), "syq-1", &config);
    syq.start();
    becomes(&hub, "syq-1", "connected");
    let folder = site.path().display();
    bash(&format!(
        "mkdir '{folder}/other' && cd '{folder}/other' && openssl req -x509 -newkey ec -pkeyopt \
        ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -subj /CN=other -days 30 -out ca.pem 2>&1 && cp ca.pem '{}'",
        ca.display()
    ));
    let away = becomes(&hub, "syq-1", "away");
    assert!(away["last_error"].as_str().unwrap().contains("does not verify any more"), "{away}");
}

#[test]
fn a_delete_at_the_hub_and_a_restart_soon_after_resync_no_edge() {
    let (_site, mut hub, syq, bj) = two_edges();
    for edge in [&syq, &bj] {
        edge.push("job/a", "x 1\n");
        edge.push("job/b", "x 1\n");
    }
    hub.shows("x", &[("IDC", "SYQ"), ("job", "b")], 1.0);
    hub.shows("x", &[("IDC", "BJ"), ("job", "b")], 1.0);
    hub.put("job/own", "x 1\n");
    for path in ["job/a/IDC/SYQ", "job/own"] {
        hub.delete(path);
    }
    syq.lacks("x", &[("job", "a")]);
    for _ in 0..2 {
        hub.restart();
        becomes(&hub, "syq-1", "connected");
        becomes(&hub, "bj-1", "connected");
    }
    for edge in [&syq, &bj] {
        edge.shows("pushrelay_uplink_resyncs_total", &[], 1.0);
    }
}
