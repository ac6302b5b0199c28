//! Groups that a node shows although it would refuse their names in a push: each can be shown and deleted.

use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Node, Site, eventually};

/// The paths of the pages of all groups, as the page of groups links them.
fn linked(node: &Node) -> Vec<String> {
    let page = node.get("/?tab=groups").text();
    let links = page.split("href=\"status/group/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    links.collect()
}

/// The path that the button of a page deletes.
fn deleted_by_button(page: &str) -> String {
    page.split("data-delete=\"").nth(1).expect("a button").split('"').next().unwrap().to_owned()
}

#[test]
fn a_hub_deletes_every_group_that_it_shows() {
    let site = Site::new();
    for (edge_utf8, hub_utf8) in [(true, false), (false, true), (true, true)] {
        let flag = |is_on: bool| if is_on { &["--push.enable-utf8-names"][..] } else { &[] };
        let name = format!("e-{edge_utf8}-{hub_utf8}");
        let store = format!("hub-of-{name}");
        let hub = Node::new(Role::Hub, site.path(), &store, &site.hub_config(&store));
        let mut hub = hub.flags(flag(hub_utf8));
        hub.start();
        let mut edge = site.edge(&name, "SYQ", &hub).flags(flag(edge_utf8));
        edge.start();
        // The key as it is pushed, and other paths that delete the group at the hub.
        let keys: &[(&str, &[&str])] = match edge_utf8 {
            true => &[
                ("job/a/label.name/1", &["job/a/IDC/SYQ/U__label_2e_name/1"]),
                ("job/a/U__label_2e_name/1", &["job/a/IDC/SYQ/label.name/1"]),
                ("job/a/U__x_2f_y/1", &["job/a/IDC/SYQ/U__x_2f_y/1", "job/a/IDC/SYQ/U__x_2F_y/1"]),
                ("job/a/%E5%90%8D/1", &["job/a/IDC/SYQ/%E5%90%8D/1", "job/a/IDC/SYQ/U___540d_/1"]),
                ("job/a/a:b/x/c/d", &[]),
            ],
            false => &[("job/a/U__label_2e_name/1", &["job/a/IDC/SYQ/U__label_2e_name/1"])],
        };
        for (key, paths) in keys {
            // The link of the page comes first.
            for path in [None].into_iter().chain(paths.iter().map(Some)) {
                edge.push(key, "m 1\n");
                let link = eventually("the hub shows the group", || linked(&hub).pop());
                let shown = hub.get(&format!("/status/group/{link}"));
                assert_eq!(shown.status, 200, "{link}: {}", shown.text());
                let button = deleted_by_button(&shown.text());
                assert_eq!(button, link);
                let path = path.map_or(&*button, |path| *path);
                let other = hub.get(&format!("/status/group/{path}"));
                assert_eq!(other.status, 200, "{path}: {}", other.text());
                hub.delete(path);
                assert_eq!(linked(&hub), Vec::<String>::new(), "{key} is deleted by {path}");
                eventually("the delete reaches the edge", || linked(&edge).is_empty().then_some(()));
            }
        }
    }
}

/// As Pushgateway answers.
#[test]
fn a_group_that_does_not_exist_is_not_deleted() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    hub.push("job/a/U__x_2e_y/1", "m 1\n");
    let answer = |path: &str| hub.request("DELETE", &format!("/metrics/{path}"), &[], b"").status;
    assert_eq!(answer("job/a/x.y/1"), 400);
    assert_eq!(answer("job/a/U__x_2e_z/1"), 202);
    assert_eq!(linked(&hub), ["job/a/U__x_2e_y/1"]);
}

#[test]
fn a_key_with_the_most_labels_can_be_deleted_at_a_hub() {
    let (_site, hub, edge) = Site::with_one_edge();
    let key: String = (0..1_000).map(|i| format!("/l{i}/1")).collect();
    edge.push(&format!("job/a{key}"), "m 1\n");
    let link = eventually("the hub shows the group", || linked(&hub).pop());
    assert_eq!(hub.get(&format!("/status/group/{link}")).status, 200);
    hub.delete(&link);
    eventually("the delete reaches the edge", || linked(&edge).is_empty().then_some(()));
}
