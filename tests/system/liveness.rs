//! No fault leaves a node stuck: it continues, or exits with a status and a message. The shutdown has a fixed order.

use std::io::Write;
use std::time::{Duration, Instant};

use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Node, Reply, Site, eventually, http};

/// Waits for a line of the node's log that contains `text`.
fn says(node: &mut Node, text: &str) -> String {
    node.process().line(text, |line| line.contains(text).then(|| line.to_owned()))
}

/// The order of shutdown: the HTTP server stops first, then pending changes go to the hub, then the link closes, then
/// the store.
#[test]
fn a_stopping_edge_answers_delivers_parts_and_closes() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    // This limit is long enough for the test on any machine.
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&["--limits.drain-timeout=50s"]);
    edge.start();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[], 1.0);
    // A push is in flight when the signal arrives: its body is incomplete.
    let mut stream = http::connect(edge.web()).unwrap();
    let head = "PUT /metrics/job/late HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 7\r\n\r\nlat";
    stream.write_all(head.as_bytes()).unwrap();
    // The node has accepted the connection as soon as it has answered a later one.
    edge.push("job/j", "v 2\n");
    edge.process().signal("TERM");
    says(&mut edge, "msg=stopping");
    eventually("nobody else gets in", || edge.try_get("/-/ready").is_err().then_some(()));
    assert_eq!(hub.page().values("pushrelay_edge_connected", &[]), [1.0], "the link lasts until all is delivered");
    stream.write_all(b"e 3\n").unwrap();
    let reply = Reply::receive("GET", &mut stream).unwrap();
    assert_eq!(reply.status, 200, "what was begun is answered");
    assert_eq!(edge.process().wait().code(), Some(0));
    assert_eq!(hub.page().values("late", &[]), [3.0], "and delivered before the edge is gone");
    assert_eq!(hub.page().values("v", &[]), [2.0]);
    let gone = says(&mut hub, "edge gone");
    assert!(gone.contains("shutting down"), "the reason in the close frame: {gone}");
    let said = edge.process().output();
    let (stopping, stopped) = (said.find("msg=stopping").unwrap(), said.find("msg=stopped").unwrap());
    assert!(stopping < stopped && !said.contains("level=ERROR"), "{said}");
}

#[test]
fn a_stopping_hub_tells_its_edges() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[], 1.0);
    assert_eq!(hub.stop().0, Some(0));
    let line = says(&mut edge, "no link to the hub");
    assert!(line.contains("shutting down"), "{line}");
    hub.start();
    edge.push("job/j", "v 2\n");
    hub.shows("v", &[], 2.0);
}

/// An unreachable hub does not keep an edge from stopping.
#[test]
fn an_edge_without_its_hub_stops_as_well() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    hub.kill();
    edge.push("job/j", "v 1\n");
    let (code, said) = edge.stop();
    assert_eq!(code, Some(0), "{said}");
    hub.start();
    edge.start();
    hub.shows("v", &[], 1.0);
}

#[test]
fn a_second_signal_ends_a_node_that_drains() {
    let (_site, _hub, mut edge) = Site::with_one_edge();
    let mut stream = http::connect(edge.web()).unwrap();
    stream.write_all(b"PUT /metrics/job/late HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\nlat").unwrap();
    edge.push("job/j", "v 2\n");
    edge.process().signal("TERM");
    says(&mut edge, "msg=stopping");
    // Signals within a second are one: GNU `timeout` sends two at once.
    let began = Instant::now();
    eventually("a later signal ends the node", || {
        if !edge.process().is_alive() {
            return Some(());
        }
        edge.process().signal("TERM");
        None
    });
    assert!(began.elapsed() > Duration::from_millis(900), "it drained for {:?}", began.elapsed());
    let status = edge.process().wait();
    assert_eq!(status.code(), Some(1));
    assert!(edge.process().output().contains("stopped at once"));
}

/// The store's file is a pipe that nobody reads or writes: a disk that does not respond.
#[test]
fn a_signal_ends_a_start_that_takes_long() {
    let site = Site::new();
    let mut hub = site.hub();
    std::fs::create_dir(hub.store()).unwrap();
    let file = hub.store().join("log-0000000001");
    bash(&format!("mkfifo '{}'", file.display()));
    let process = hub.spawn();
    let status = format!("/proc/{}/status", process.id());
    eventually("it catches SIGTERM", || {
        let status = std::fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        (u64::from_str_radix(caught.trim(), 16).ok()? & (1 << 14) != 0).then_some(())
    });
    hub.process().signal("TERM");
    let status = hub.process().wait();
    assert_eq!(status.code(), Some(0), "{}", hub.process().output());
    assert!(hub.process().output().contains("stopped by a signal while starting"), "{}", hub.process().output());
}

#[test]
fn a_reload_that_moves_an_edge_reconnects_it_at_the_new_site() {
    let (site, mut hub, mut edge) = Site::with_one_edge();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    let file = site.path().join("hub.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let moved = format!("{before}[[hub.edge]]\nname = \"syq-1\"\nlabels = {{ IDC = \"MOVED\" }}\n");
    std::fs::write(&file, moved).unwrap();
    hub.process().signal("HUP");
    says(&mut hub, "the edge's site labels changed: its session ends");
    hub.shows("v", &[("IDC", "MOVED")], 1.0);
    edge.push("job/j", "v 2\n");
    hub.shows("v", &[("IDC", "MOVED")], 2.0);
    assert_eq!(hub.page().values("v", &[("IDC", "SYQ")]), [1.0], "nothing but DELETE deletes");
    assert!(edge.process().is_alive());
    // A reload that changes no edge's site closes no session.
    let sessions = |hub: &Node| hub.page().values("pushrelay_edge_sessions_total", &[]);
    let count = sessions(&hub);
    hub.process().signal("HUP");
    eventually("both reloads are over", || {
        let said = hub.process().output();
        (said.matches("configuration and certificates read again").count() == 2).then_some(())
    });
    edge.push("job/j", "v 3\n");
    hub.shows("v", &[("IDC", "MOVED")], 3.0);
    assert_eq!(sessions(&hub), count);
}

/// Regression: a write that failed just when the connection broke ended the task of the link, and at a hub the edge's
/// name stayed in use for ever.
#[test]
fn a_line_that_breaks_again_and_again_leaves_neither_end_stuck() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    for round in 0..40 {
        let value = f64::from(round);
        edge.push("job/j", &format!("v {round}\n"));
        hub.shows("v", &[], value);
        edge.push("job/other", "w 1\n");
        hub.break_connections();
        edge.push("job/other", "w 2\n");
    }
    hub.shows("w", &[], 2.0);
    for node in [&mut hub, &mut edge] {
        let said = node.process().output();
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// Regression: during one large update no heartbeat of the edge was read, so the hub took it for dead, and it began
/// anew, for ever.
#[test]
fn an_update_that_takes_longer_than_three_heartbeats_arrives() {
    let site = Site::new();
    // Three heartbeats are more than any pause of a process on a busy machine, and less than the update takes.
    let mut hub = site.hub().flags(&["--hub.heartbeat-interval=500ms"]);
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    edge.start();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[], 1.0);
    hub.narrow(100_000);
    // About 480 KB when compressed, in few series: the time goes by on the line, and not in the processes.
    let mut random = 1_u64;
    let mut letter = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(random >> 58) as usize])
    };
    let mut line =
        |at: usize| format!("w{{i=\"{at}\",text=\"{}\"}} 1\n", (0..800).map(&mut letter).collect::<String>());
    let body: String = (0..800).map(&mut line).collect();
    edge.push("job/large", &(body + "last 1\n"));
    hub.shows("last", &[], 1.0);
    let said = hub.process().output();
    assert!(!said.contains("nothing heard"), "{said}");
}
