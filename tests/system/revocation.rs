//! Edges that a hub does not admit: by their certificate, by a list of revoked certificates, or by its configuration. Each
//! kind is logged, counted under its reason, and told to the edge.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::run;
use pushrelay_testkit::pushrelay::net::authority::{Authority, Issued, Validity};
use pushrelay_testkit::pushrelay::net::identity::EdgeIdentity;
use pushrelay_testkit::{Node, Site, eventually};

/// Waits for a line with all of these words.
#[track_caller]
fn logs(node: &mut Node, words: &[&str]) {
    node.process().line(&format!("{words:?}"), |line| words.iter().all(|word| line.contains(word)).then_some(()));
}

/// A hub with these keys in its section `[hub]`, and a list of revoked certificates.
fn hub(site: &Site, keys: &str) -> Node {
    let config = site.hub_config("hub").replace("[hub]\n", &format!("[hub]\n{keys}"));
    let mut hub = Node::new(Role::Hub, site.path(), "hub", &format!("{config}crl_file = {:?}\n", site.cert("crl.pem")));
    hub.start();
    hub
}

#[test]
fn a_revoked_edge_is_gone_within_a_second_and_returns_with_another_certificate() {
    let site = Site::new();
    let mut hub = hub(&site, "");
    let (mut syq, mut bj) = (site.edge("syq-1", "SYQ", &hub), site.edge("bj-1", "BJ", &hub));
    syq.start();
    bj.start();
    for edge in ["syq-1", "bj-1"] {
        hub.shows("pushrelay_edge_connected", &[("edge", edge)], 1.0);
    }
    // The list that the hub has is the empty one of `pki init`.
    site.pki(&["revoke", "syq-1"]);
    let revoked = Instant::now();
    logs(&mut hub, &["the edge's certificate does not verify any more: its link ends", "syq-1", "it is revoked"]);
    // A second is the promise; the rest is for a machine that runs many tests at once.
    assert!(revoked.elapsed() < Duration::from_secs(5), "it took {:?}", revoked.elapsed());
    logs(&mut syq, &["no link to the hub", "revoked"]);
    logs(&mut syq, &["no link to the hub", "this end's certificate is revoked"]);
    let refusals = |hub: &Node| hub.page().values("pushrelay_hub_refusals_total", &[("reason", "revoked")])[0];
    eventually("its attempts are counted", || (refusals(&hub) >= 2.0).then_some(()));
    hub.shows("pushrelay_edge_connected", &[("edge", "bj-1")], 1.0);
    assert_eq!(hub.page().values("pushrelay_edge_sessions_total", &[("edge", "bj-1")]), [1.0]);
    hub.shows("pushrelay_credentials_last_read_successful", &[("used_by", "revocations")], 1.0);

    // A damaged list keeps the old one.
    let list = fs::read_to_string(site.cert("crl.pem")).unwrap();
    fs::write(site.cert("crl.pem"), "no list\n").unwrap();
    logs(&mut hub, &["credentials have changed, but cannot be used", "revocations", "has no list of revoked"]);
    let before = refusals(&hub);
    eventually("the revoked edge is refused still", || (refusals(&hub) > before).then_some(()));
    fs::write(site.cert("crl.pem"), list).unwrap();
    hub.shows("pushrelay_credentials_last_read_successful", &[("used_by", "revocations")], 1.0);

    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ", "--force"]);
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    let unknown = run(site.path(), &["pki", "revoke", "nobody"]);
    assert!(unknown.code == Some(1) && unknown.output.contains("--certificate FILE"), "{}", unknown.output);
    // A list of another authority would have no effect.
    fs::create_dir(site.path().join("elsewhere")).unwrap();
    assert_eq!(run(&site.path().join("elsewhere"), &["pki", "init"]).code, Some(0));
    fs::copy(site.path().join("elsewhere/certs/crl.pem"), site.cert("crl.pem")).unwrap();
    let checked = run(site.path(), &["check-config", "hub.toml"]);
    assert!(
        checked.code == Some(1) && checked.output.contains("is no authority of client_ca_file"),
        "{}",
        checked.output
    );
}

/// An edge with an issued certificate, towards a hub.
fn edge(site: &Site, name: &str, hub: SocketAddr, issued: &Issued) -> Node {
    let [cert, key] = ["pem", "key"].map(|extension| site.path().join(format!("{name}.{extension}")));
    fs::write(&cert, &issued.certificate_pem).unwrap();
    fs::write(&key, &issued.key_pem).unwrap();
    let mut edge = site.edge_with(name, hub, &cert, &key);
    edge.start();
    edge
}

#[test]
fn each_wrong_kind_of_edge_is_refused_with_its_reason() {
    let site = Site::new();
    let mut hub = hub(&site, "allow = [\"syq-*\"]\nrequired_labels = [\"IDC\", \"room\"]\n");
    let read = |name: &str| fs::read_to_string(site.cert(name)).unwrap();
    let own = Authority::from_pem(&read("ca.pem"), &read("ca.key")).unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let good = Validity { not_before: now - day, not_after: now + day };
    let other = Authority::generate(good).unwrap();
    let past = Validity { not_before: now - 3 * day, not_after: now - day };
    let future = Validity { not_before: now + day, not_after: now + 3 * day };
    let issue = |authority: &Authority, uri: &str, validity| {
        authority.edge(&EdgeIdentity::from_uri(&format!("pushrelay://edge/{uri}")).unwrap(), validity).unwrap()
    };
    let edges = [
        ("wrong_authority", issue(&other, "syq-1?IDC=SYQ&room=1", good), "not signed by an authority"),
        ("expired", issue(&own, "syq-2?IDC=SYQ&room=1", past), "has expired"),
        ("not_yet_valid", issue(&own, "syq-3?IDC=SYQ&room=1", future), "is not yet valid"),
        ("wrong_purpose", own.hub(&["127.0.0.1".into()], good).unwrap(), "is not meant for this end"),
        ("not_allowed", issue(&own, "bj-1?IDC=BJ&room=1", good), "\"bj-1\" is not in hub.allow"),
        ("labels_missing", issue(&own, "syq-4?IDC=SYQ", good), "\"syq-4\" has no site label \"room\""),
    ];
    for (reason, issued, words) in edges {
        let words = words.replace('"', "\\\"");
        let mut edge = edge(&site, reason, hub.line(), &issued);
        let words_of_the_edge = match reason {
            "wrong_authority" => "this end's certificate is not signed by an authority that it trusts",
            "expired" | "not_yet_valid" => "has expired, or is not yet valid, by its clock",
            "wrong_purpose" => "is not meant for this end of a connection",
            _ => &words,
        };
        logs(&mut edge, &["no link to the hub", words_of_the_edge]);
        logs(&mut hub, &["level=WARN", &words]);
        let count = hub.page().values("pushrelay_hub_refusals_total", &[("reason", reason)])[0];
        assert!(count >= 1.0, "{reason}");
    }
    // The rules are read again, and end sessions.
    let mut good = edge(&site, "good", hub.line(), &issue(&own, "syq-5?IDC=SYQ&room=1", good));
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-5")], 1.0);
    let file = site.path().join("hub.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("syq-*", "syq-1")).unwrap();
    hub.process().signal("HUP");
    logs(&mut hub, &["the edge may not connect any more: its session ends", "syq-5", "hub.allow"]);
    logs(&mut good, &["no link to the hub", "hub.allow"]);
}
