//! Receipts (`?wait=hub`) and verdicts (`uplink.verdicts = "reject"`): answers to pushes that a hub decides.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use pushrelay_testkit::{Node, Reply, Site, eventually};

fn send(node: &Node, method: &str, path: &str, body: &str) -> Reply {
    node.request(method, path, &[], body.as_bytes())
}

#[test]
fn an_answer_waits_until_the_hub_has_the_push_or_says_that_the_edge_has_it() {
    let (_site, mut hub, edge) = Site::with_one_edge();
    edge.push("job/first", "x 0\n");
    hub.shows("x", &[("job", "first")], 0.0);
    for (method, value) in [("POST", 1.0), ("PUT", 2.0)] {
        let reply = send(&edge, method, "/metrics/job/a?wait=hub", &format!("x {value}\n"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        // No waiting: the hub has it.
        assert_eq!(hub.page().values("x", &[("job", "a"), ("IDC", "SYQ")]), [value]);
    }
    let reply = send(&edge, "DELETE", "/metrics/job/a?wait=hub&timeout=10s", "");
    assert_eq!((reply.status, hub.page().values("x", &[("job", "a")])), (200, vec![]), "{}", reply.text());
    for (query, text) in
        [("wait=disk", "wait=\"disk\" is unknown"), ("wait=hub&timeout=2h", "is no time from 1ms to 60s")]
    {
        let reply = send(&edge, "PUT", &format!("/metrics/job/b?{query}"), "x 1\n");
        assert!(reply.status == 400 && reply.text().contains(text), "{}", reply.text());
        assert!(edge.page().values("x", &[("job", "b")]).is_empty(), "nothing was stored");
    }
    assert_eq!(
        send(&hub, "PUT", "/metrics/job/c?wait=hub", "x 1\n").status,
        200,
        "a hub has what it was pushed itself"
    );

    // The hub is away: the push is stored, and arrives later.
    hub.cut();
    let begun = Instant::now();
    let reply = send(&edge, "PUT", "/metrics/job/d?wait=hub&timeout=300ms", "x 4\n");
    assert!(reply.status == 504 && begun.elapsed() >= Duration::from_millis(300), "{}", reply.text());
    assert!(reply.text().contains("It is safe at this edge and will be delivered"), "{}", reply.text());
    hub.join();
    hub.shows("x", &[("job", "d")], 4.0);

    // The hub restarts while the answer waits.
    hub.stop();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| send(&edge, "PUT", "/metrics/job/e?wait=hub&timeout=30s", "x 5\n"));
        eventually("the push is stored", || (edge.page().values("x", &[("job", "e")]) == [5.0]).then_some(()));
        assert!(!waiting.is_finished());
        hub.start();
        let reply = waiting.join().unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    });
    assert_eq!(hub.page().values("x", &[("job", "e")]), [5.0]);
}

#[test]
fn a_push_into_a_conflict_at_the_hub_is_answered_400_for_as_long_as_it_lasts() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    let file = site.path().join("syq-1.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace("[[uplink]]\n", "[[uplink]]\nverdicts = \"reject\"\n")).unwrap();
    edge.start();
    hub.push("job/other", "# TYPE x counter\nx 1\n");
    edge.push("job/fine", "y 1\n");
    hub.shows("y", &[("job", "fine")], 1.0);
    // Nobody knows of the conflict yet.
    let push =
        |value: u32| send(&edge, "PUT", "/metrics/job/a", &format!("# TYPE x gauge\nx {value}\n# TYPE z gauge\nz 1\n"));
    assert_eq!(push(1).status, 200);
    edge.shows("pushrelay_uplink_held_back_families_total", &[], 1.0);
    for value in [2, 3] {
        let reply = push(value);
        assert_eq!(reply.status, 400, "{}", reply.text());
        let text = reply.text();
        assert!(text.contains("does not show them") && text.contains("counter"), "{text}");
    }
    // Other groups, and other families of the group, are none of its business.
    assert_eq!(send(&edge, "POST", "/metrics/job/a", "# TYPE z gauge\nz 2\n").status, 200);
    assert_eq!(send(&edge, "PUT", "/metrics/job/b", "y 1\n").status, 200);
    // Without its hub the edge knows what it knew.
    hub.cut();
    edge.shows("pushrelay_uplink_connected", &[], 0.0);
    let away = push(4);
    assert!(away.status == 400 && away.text().contains("as the hub last said"), "{}", away.text());
    hub.join();
    hub.delete("job/other");
    eventually("the conflict is over", || (push(5).status == 200).then_some(()));
    hub.shows("x", &[("job", "a"), ("IDC", "SYQ")], 5.0);
}
