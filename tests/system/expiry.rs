//! Groups expire by rules and by the header of a push, at edges and hubs.

use pushrelay_testkit::{Node, Site, eventually};
use serde_json::Value;

/// A push that asks for a lifetime.
fn push_living(node: &Node, group: &str, after: &str, body: &str) -> (u16, String) {
    let headers = [("Pushrelay-Expire-After", after)];
    let reply = node.request("PUT", &format!("/metrics/{group}"), &headers, body.as_bytes());
    (reply.status, reply.text())
}

/// The group of that job in the listing.
fn listed(node: &Node, job: &str) -> Option<Value> {
    let groups = node.get("/api/v1/groups?limit=1000").json()["data"]["groups"].take();
    groups.as_array().unwrap().iter().find(|group| group["labels"]["job"] == job).cloned()
}

fn expired(node: &Node) -> Option<f64> {
    node.page().value("pushrelay_store_expired_groups_total", &[])
}

const RULES: &str = "[[expire]]\nmatch = '{job=\"kept\"}'\nafter = \"never\"\n\
                     [[expire]]\nmatch = '{job=~\"ruled|kept|returns\",IDC=\"SYQ\"}'\nafter = \"1s\"\n";

#[test]
fn groups_expire_by_rule_and_by_header_wherever_they_are() {
    let (site, mut hub, mut syq, bj) = Site::with_two_edges();
    for (after, part) in [("2x", "\"2x\" is neither a duration"), ("0s", "neither"), ("", "neither")] {
        let (status, text) = push_living(&syq, "job/bad", after, "m 1\n");
        assert!(status == 400 && text.contains("Pushrelay-Expire-After") && text.contains(part), "{text}");
    }
    assert_eq!(listed(&syq, "bad"), None, "nothing was changed");
    for job in ["ruled", "kept", "returns", "stays"] {
        syq.push(&format!("job/{job}"), "m 1\n");
        bj.push(&format!("job/{job}"), "m 1\n");
    }
    assert_eq!(push_living(&syq, "job/durable", "1h", "m 1\n").0, 200);
    assert_eq!(push_living(&syq, "job/again", "1s", "m 1\n").0, 200);
    syq.push("job/again", "m 2\n");
    assert_eq!(push_living(&bj, "job/short", "1s", "m 1\n").0, 200);
    hub.shows("m", &[("job", "durable")], 1.0);
    hub.shows("m", &[("job", "again")], 2.0);

    // A lifetime is replicated, survives kill -9, and is shown.
    syq.restart();
    for node in [&syq, &hub] {
        let durable = listed(node, "durable").unwrap();
        let left = durable["seconds_left"].as_u64().unwrap();
        assert!((3_500..=3_600).contains(&left) && durable["expire_time"].is_string(), "{durable}");
        assert_eq!(listed(node, "again").unwrap()["seconds_left"], Value::Null, "the newest push asks for nothing");
        assert!(node.get("/?q=durable").text().contains("expires in 59 min"));
    }
    assert!(syq.get("/status/group/job/durable").text().contains("expires in 59 min"));
    // The header needs no rule, and the group is gone at both nodes.
    bj.lacks("m", &[("job", "short")]);
    hub.lacks("m", &[("job", "short")]);

    // The hub's rules come with a reload. An edge without rules is away meanwhile.
    let before = expired(&hub).unwrap();
    let config = format!("{}{RULES}", site.hub_config("hub"));
    std::fs::write(site.path().join("hub.toml"), config).unwrap();
    hub.cut();
    hub.process().signal("HUP");
    for job in ["ruled", "returns"] {
        hub.lacks("m", &[("job", job), ("IDC", "SYQ")]);
    }
    assert_eq!(syq.page().values("m", &[("job", "returns")]), [1.0]);
    assert_eq!(expired(&hub), Some(before + 2.0));
    let line = hub.process().line("the sweep", |line| line.contains("have expired").then(|| line.to_owned()));
    assert!(line.contains("level=INFO") && line.contains("groups="), "{line}");
    // A newer push of the edge wins over the expiry; the old one revives nothing, and the edge learns of it.
    assert_eq!(push_living(&syq, "job/returns", "never", "m 5\n").0, 200);
    hub.join();
    hub.shows("m", &[("job", "returns"), ("IDC", "SYQ")], 5.0);
    syq.lacks("m", &[("job", "ruled")]);
    eventually("the group of the rule is gone for good", || {
        (hub.page().values("m", &[("job", "ruled")]) == [1.0]).then_some(())
    });
    for (job, sites) in [("ruled", 1), ("kept", 2), ("returns", 2), ("stays", 2), ("again", 1), ("durable", 1)] {
        assert_eq!(hub.page().values("m", &[("job", job)]).len(), sites, "{job}");
    }
}
