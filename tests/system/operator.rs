//! `pushrelay status`, `edges`, `backup` and `hash-password` as an operator runs them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use pushrelay_testkit::process::run;
use pushrelay_testkit::{Node, Site, eventually};

fn ask(node: &Node, arguments: &[&str]) -> Output {
    let url = format!("http://{}", node.web());
    Command::new(env!("CARGO_BIN_EXE_pushrelay")).args(arguments).args(["--node", &url]).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn status_and_edges_tell_health_by_their_exit_status() {
    let (_site, mut hub, edge) = Site::with_one_edge();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    eventually("hub and edge are healthy", || {
        let both = [&hub, &edge].map(|node| ask(node, &["status"]).status.code());
        (both == [Some(0); 2]).then_some(())
    });
    let status = json(&ask(&hub, &["status"]));
    assert_eq!((&status["healthy"], &status["edges"]["connected"]), (&true.into(), &1.into()), "{status}");
    assert_eq!((&status["health"]["groups"], &status["build"]["role"]), (&1.into(), &"hub".into()), "{status}");
    assert_eq!(ask(&hub, &["edges"]).status.code(), Some(0));
    assert_eq!(json(&ask(&hub, &["edges"]))[0]["name"], "syq-1");

    hub.cut();
    eventually("both notice the cut line", || {
        let both = [&hub, &edge].map(|node| ask(node, &["status"]).status.code());
        (both == [Some(1); 2]).then_some(())
    });
    assert_eq!(json(&ask(&edge, &["status"]))["health"]["uplinks"][0]["connected"], false);
    assert_eq!(
        (ask(&hub, &["edges"]).status.code(), ask(&edge, &["status", "--ready"]).status.code()),
        (Some(1), Some(0))
    );
    let address = hub.web();
    hub.stop();
    for command in ["status", "edges"] {
        let output = Command::new(env!("CARGO_BIN_EXE_pushrelay"))
            .args([command, "--node", &format!("http://{address}")])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_backup_of_a_node_that_is_pushed_to_is_a_store_of_one_moment() {
    let (site, hub, edge) = Site::with_one_edge();
    hub.cut();
    let target = site.path().join("backup").display().to_string();
    let store = edge.store().display().to_string();
    std::thread::scope(|scope| {
        // Each push has the number of the one before it too: a store of one moment has no gap.
        let pusher = scope.spawn(|| (0..300).for_each(|n| edge.push(&format!("job/j/n/{n}"), &format!("v {n}\n"))));
        eventually("some pushes", || (edge.page().values("v", &[]).len() > 50).then_some(()));
        // The target is relative to the working directory.
        let made = run(site.path(), &["backup", &store, "backup"]);
        assert_eq!(made.code, Some(0), "{}", made.output);
        assert!(made.output.contains("backup: ") && made.output.contains(" groups, "), "{}", made.output);
        pusher.join().unwrap();
    });
    let dump = run(site.path(), &["store", "dump", &target]);
    assert_eq!(dump.code, Some(0), "{}", dump.output);
    let groups = dump.output.lines().filter(|line| line.starts_with("# PUT ")).count();
    assert!((50..=300).contains(&groups), "{groups}");
    assert!((0..groups).all(|n| dump.output.contains(&format!("# PUT /metrics/job/j/n/{n}\n"))), "without a gap");
    let again = run(site.path(), &["backup", &store, &target]);
    assert!(again.code == Some(2) && again.output.contains("exists already"), "{}", again.output);
}

#[test]
fn a_hashed_password_is_accepted_by_a_node() {
    let site = Site::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushrelay"));
    let mut child =
        command.args(["hash-password", "--user", "ann"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"pass word\n").unwrap();
    let line = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let hub = site.hub_config("hub").replacen("[storage]", &format!("[web.basic_auth_users]\n{line}[storage]"), 1);
    let mut hub = Node::new(pushrelay_testkit::node::Role::Hub, site.path(), "hub", &hub);
    hub.start_listening();
    let password = site.path().join("password");
    std::fs::write(&password, "pass word\n").unwrap();
    let user = ["status", "--user", "ann", "--password-file", password.to_str().unwrap()];
    assert_eq!(ask(&hub, &user).status.code(), Some(0));
    assert_eq!(ask(&hub, &["status"]).status.code(), Some(2), "without a password");
}

#[test]
fn pushes_are_counted_by_group_and_every_delete_names_its_client() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    for _ in 0..4 {
        edge.push("job/noisy", "v 1\nw 2\n");
    }
    edge.push("job/calm", "v 1\n");
    assert_eq!(edge.request("PUT", "/metrics/job/noisy", &[], b"v 1 5\n").status, 400);
    let first = |node: &Node, sort: &str| {
        let listed = node.get(&format!("/api/v1/groups?sort={sort}&limit=1")).json();
        listed["data"]["groups"][0].clone()
    };
    for sort in ["pushes", "rate", "bytes", "series", "refused"] {
        assert_eq!(first(&edge, sort)["labels"]["job"], "noisy", "{sort}");
    }
    let noisy = first(&edge, "pushes");
    let counts = ["pushes", "pushes_refused", "push_bytes", "updates"].map(|name| noisy[name].as_u64().unwrap());
    assert_eq!(counts, [5, 1, 4 * 8 + 6, 0], "{noisy}");
    assert_eq!(noisy["last_peer"], "127.0.0.1");
    hub.shows("v", &[("IDC", "SYQ"), ("job", "calm")], 1.0);
    let at_hub = first(&hub, "rate");
    assert!(at_hub["updates"].as_u64().unwrap() >= 1 && at_hub["pushes"] == 0, "{at_hub}");

    assert_eq!(hub.request("DELETE", "/metrics/job/calm/IDC/SYQ", &[], b"").status, 202);
    let found = |line: &str, parts: &[&str]| parts.iter().all(|part| line.contains(part)).then_some(());
    hub.process().line("the delete at the hub", |line| {
        found(line, &["a group was deleted", "peer=127.0.0.1:", "calm", "series=1"])
    });
    edge.process().line("the delete at the edge", |line| found(line, &["groups were deleted at a hub", "calm"]));
    assert_eq!(edge.request("DELETE", "/metrics/job/noisy", &[], b"").status, 202);
    hub.process()
        .line("the delete of the edge", |line| found(line, &["groups were deleted at an edge", "SYQ", "noisy"]));
    let deletes = &hub.get("/api/v1/status").json()["data"]["health"]["deletes"];
    assert!(deletes[0]["what"].as_str().unwrap().contains("calm") && deletes[0]["peer"] == "127.0.0.1", "{deletes}");
}
