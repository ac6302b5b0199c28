//! Hubs that send to another hub: pushes at edges appear at the top, and deletes at the top reach the edges.

use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Node, Site, eventually, node::Role};

/// A hub that sends to `above` as an edge with the label `REGION=region`.
fn relay(site: &Site, name: &str, region: &str, above: &Node) -> Node {
    site.pki(&["edge", name, "--label", &format!("REGION={region}")]);
    let (cert, key) = (site.cert(&format!("{name}.pem")), site.cert(&format!("{name}.key")));
    let edge = edge_config(&site.path().join(name), above.line(), &site.cert("ca.pem"), &cert, &key);
    let (_, uplink) = edge.split_once("[[uplink]]").unwrap();
    let config = format!("{}[[uplink]]{uplink}", site.hub_config(name));
    Node::new(Role::Hub, site.path(), name, &config)
}

#[test]
fn a_tree_of_hubs_is_seen_at_the_top_and_heals() {
    let site = Site::new();
    let mut top = site.hub();
    top.start();
    let mut middle = relay(&site, "eu", "EU", &top);
    middle.start();
    let mut edge = site.edge("syq-1", "SYQ", &middle);
    edge.start();
    edge.push("job/a", "m 1\n");
    edge.push("job/b/IDC/elsewhere", "m 2\n");
    middle.push("job/own", "m 3\n");
    let a = [("REGION", "EU"), ("IDC", "SYQ"), ("job", "a")];
    let b = [("REGION", "EU"), ("IDC", "SYQ"), ("exported_IDC", "elsewhere"), ("job", "b")];
    top.shows("m", &a, 1.0);
    top.shows("m", &b, 2.0);
    top.shows("m", &[("REGION", "EU"), ("job", "own")], 3.0);
    // A delete at the top reaches the edge, also for a group whose edge is away.
    top.delete("job/a/IDC/SYQ/REGION/EU");
    edge.lacks("m", &[("job", "a")]);
    edge.kill();
    top.delete("job/b/IDC/SYQ/exported_IDC/elsewhere/REGION/EU");
    middle.lacks("m", &[("job", "b")]);
    // The middle hub loses its disk while its edge is away, so nothing there says which labels belong to its site.
    middle.kill();
    middle.wipe();
    middle.start();
    middle.shows("m", &[("job", "own")], 3.0);
    edge.start();
    edge.lacks("m", &[("job", "b")]);
    edge.push("job/a", "m 4\n");
    for (node, labels) in [(&middle, &a[1..]), (&top, &a[..])] {
        node.shows("m", labels, 4.0);
        node.lacks("m", &[("job", "b")]);
        let held_back = node.page().values("pushrelay_store_held_back_families", &[]);
        assert!(!held_back.is_empty() && held_back.iter().all(|families| *families == 0.0), "{held_back:?}");
    }
}

#[test]
fn links_that_go_around_are_ended() {
    let site = Site::new();
    let mut first = site.hub();
    let mut second = relay(&site, "second", "2", &first);
    // The first hub sends to the second, and the second to the first.
    let (cert, key) = {
        site.pki(&["edge", "first", "--label", "REGION=1"]);
        (site.cert("first.pem"), site.cert("first.key"))
    };
    let edge = edge_config(&site.path().join("hub"), second.line(), &site.cert("ca.pem"), &cert, &key);
    let (_, uplink) = edge.split_once("[[uplink]]").unwrap();
    std::fs::write(site.path().join("hub.toml"), format!("{}[[uplink]]{uplink}", site.hub_config("hub"))).unwrap();
    first.start();
    second.start();
    first.push("job/a", "m 1\n");
    eventually("the loop is found", || {
        let output = [first.process().output(), second.process().output()].concat();
        output.contains("the links form a loop").then_some(())
    });
    for node in [&first, &second] {
        assert!(node.page().values("m", &[]).len() <= 2, "{:?}", node.page().samples_with("job", "a"));
    }
}

/// A hub remembers a delete for a limited time. Whoever deletes the group must learn that it is back.
#[test]
fn a_group_that_comes_back_after_its_delete_is_forgotten_is_logged_and_counted() {
    let site = Site::new();
    let mut hub = site.hub().flags(&["--storage.tombstone-retention=1s"]);
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    edge.start();
    edge.push("job/gone", "m 1\n");
    edge.push("job/stays", "m 2\n");
    edge.push("job/again", "m 3\n");
    hub.shows("m", &[("job", "again")], 3.0);
    hub.cut();
    hub.delete("job/gone/IDC/SYQ");
    hub.delete("job/again/IDC/SYQ");
    eventually("the deletes are forgotten", || {
        (hub.page().value("pushrelay_store_tombstones", &[]) == Some(0.0)).then_some(())
    });
    edge.push("job/again", "m 4\n");
    edge.push("job/new", "m 5\n");
    assert_eq!(hub.page().value("pushrelay_store_returned_groups_total", &[]), Some(0.0));
    hub.join();
    for (job, value) in [("gone", 1.0), ("stays", 2.0), ("again", 4.0), ("new", 5.0)] {
        hub.shows("m", &[("job", job)], value);
    }
    assert_eq!(hub.page().value("pushrelay_store_returned_groups_total", &[]), Some(1.0));
    let lines: Vec<String> =
        hub.process().lines().into_iter().filter(|line| line.contains("groups are back")).collect();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("level=WARN") && line.contains("groups=1") && line.contains("gone"), "{line}");
    assert!(line.contains("storage.tombstone_retention"), "{line}");
}
