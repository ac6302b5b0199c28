//! Nodes that are killed and restarted: acknowledged writes survive, and both ends become equal again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pushrelay_testkit::process::{bash, gives_up};
use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Node, Process, Site, eventually, http, node::Role};

/// Waits until the hub shows for `idc` exactly the same as the edge.
fn equal(hub: &Node, edge: &Node, idc: &str) {
    eventually("hub and edge are equal", || {
        let mut at_hub = hub.page().samples_with("IDC", idc);
        at_hub.retain(|(_, labels), _| labels.get("job").is_some_and(|job| job == "j"));
        let at_edge = edge.page().samples_with("job", "j");
        let placed = at_edge.into_iter().map(|((name, mut labels), value)| {
            labels.insert("IDC".to_owned(), idc.to_owned());
            ((name, labels), value)
        });
        (placed.collect::<BTreeMap<_, _>>() == at_hub).then_some(())
    });
}

/// The state of a group as its pusher knows it: the last acknowledged write, and the writes tried since.
#[derive(Clone, Default)]
struct Known {
    acknowledged: Option<u64>,
    /// Values (or a delete, `None`) whose outcome is unknown. An older `acknowledged` value may still be shown.
    tried: Vec<Option<u64>>,
}

impl Known {
    fn allows(&self, shown: Option<u64>) -> bool {
        shown == self.acknowledged || self.tried.contains(&shown)
    }
}

/// Pushes growing values, and sometimes a delete, to ten groups until it is stopped.
struct Pusher {
    target: Arc<Mutex<SocketAddr>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Known>>,
}

impl Pusher {
    fn start(edge: &Node) -> Pusher {
        let (target, stop) = (Arc::new(Mutex::new(edge.web())), Arc::new(AtomicBool::new(false)));
        let (address, stopped) = (target.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut groups = vec![Known::default(); 10];
            let mut round = 0;
            while !stopped.load(Ordering::Relaxed) {
                round += 1;
                let number = (round % 10) as usize;
                let change = (round % 37 != 0).then_some(round);
                let address = *address.lock().unwrap();
                step(address, number, change, &mut groups[number]);
            }
            groups
        });
        Pusher { target, stop, thread }
    }

    /// Directs later pushes to that address.
    fn turn_to(&self, edge: &Node) {
        *self.target.lock().unwrap() = edge.web();
    }

    fn finish(self) -> Vec<Known> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn step(address: SocketAddr, number: usize, change: Option<u64>, known: &mut Known) {
    let path = format!("/metrics/job/j/group/{number}");
    let (method, body, accepted) = match change {
        Some(value) => ("PUT", format!("v {value}\n"), 200),
        None => ("DELETE", String::new(), 202),
    };
    match http::request(address, method, &path, &[], body.as_bytes()) {
        Ok(reply) => {
            assert_eq!(reply.status, accepted, "{}", reply.text());
            *known = Known { acknowledged: change, tried: Vec::new() };
        }
        Err(_) => {
            known.tried.push(change);
            // No node is listening: the pause leaves the processor to the node that starts.
            std::thread::yield_now();
        }
    }
}

/// Compares the scrape of `node` with the pusher's knowledge.
fn holds(node: &Node, groups: &[Known]) {
    let page = node.page();
    for (number, known) in groups.iter().enumerate() {
        let shown = page.values("v", &[("group", &number.to_string())]);
        assert!(shown.len() <= 1, "group {number} twice");
        let shown = shown.first().map(|value| *value as u64);
        let Known { acknowledged, tried } = known;
        assert!(known.allows(shown), "group {number}: {shown:?}; acknowledged {acknowledged:?}, tried {tried:?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whoever_is_killed() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    let pusher = Pusher::start(&edge);
    let progress = |edge: &Node| {
        let before = edge.page().values("v", &[]);
        eventually("pushes go on", || (edge.page().values("v", &[]) != before).then_some(()));
    };
    // Each round kills both roles four times.
    let rounds = std::env::var("PUSHRELAY_KILL_ROUNDS").map_or(2, |text| text.parse().expect("a number of rounds"));
    for _ in 0..rounds {
        progress(&edge);
        edge.restart();
        pusher.turn_to(&edge);
        progress(&edge);
        hub.restart();
        progress(&edge);
        // First the edge, then the hub, then back in that order; then the other way round.
        edge.kill();
        hub.kill();
        edge.start();
        pusher.turn_to(&edge);
        progress(&edge);
        hub.start();
        hub.kill();
        edge.kill();
        hub.start();
        edge.start();
        pusher.turn_to(&edge);
        hub.break_connections();
        progress(&edge);
        hub.restart();
        edge.restart();
        pusher.turn_to(&edge);
    }
    let groups = pusher.finish();
    holds(&edge, &groups);
    equal(&hub, &edge, "SYQ");
    holds(&hub, &groups);
}

#[test]
fn the_edge_goes_on_while_the_hub_is_away() {
    let (_site, mut hub, edge) = Site::with_one_edge();
    edge.push("job/j/group/kept", "v 1\n");
    edge.push("job/j/group/deleted", "v 1\n");
    hub.shows("v", &[("group", "deleted")], 1.0);
    hub.shows("v", &[("group", "kept")], 1.0);

    hub.kill();
    edge.push("job/j/group/kept", "v 2\n");
    edge.push("job/j/group/new", "v 3\n");
    edge.delete("job/j/group/deleted");
    hub.start();
    hub.shows("v", &[("group", "new"), ("IDC", "SYQ")], 3.0);
    hub.shows("v", &[("group", "kept")], 2.0);
    hub.lacks("v", &[("group", "deleted")]);
    equal(&hub, &edge, "SYQ");
}

#[test]
fn a_cut_line_is_caught_up_deletes_included() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    edge.push("job/j/group/a", "v 1\n");
    hub.shows("v", &[("group", "a")], 1.0);
    hub.cut();
    edge.delete("job/j/group/a");
    edge.push("job/j/group/b", "v 2\n");
    // The tombstone must survive a restart of its edge: the hub does not have it yet.
    edge.restart();
    assert_eq!(hub.page().values("v", &[]), [1.0], "a silent edge keeps its metrics");
    hub.join();
    hub.shows("v", &[("group", "b")], 2.0);
    hub.lacks("v", &[("group", "a")]);
}

#[test]
fn a_wiped_hub_gets_its_groups_back() {
    let (_site, mut hub, syq, bj) = Site::with_two_edges();
    syq.push("job/j", "v 1\n");
    bj.push("job/j", "v 2\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    hub.shows("v", &[("IDC", "BJ")], 2.0);
    hub.wipe();
    hub.start();
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    hub.shows("v", &[("IDC", "BJ")], 2.0);
    equal(&hub, &syq, "SYQ");
}

#[test]
fn a_wiped_edge_gets_its_groups_back() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    edge.push("job/j/group/a", "# TYPE v counter\nv{k=\"1\"} 1\n");
    edge.push("job/j/group/b", "# TYPE v counter\nv{k=\"1\"} 2\n");
    edge.delete("job/j/group/b");
    hub.shows("v", &[("group", "a")], 1.0);
    hub.lacks("v", &[("group", "b")]);
    edge.wipe();
    edge.start();
    edge.shows("v", &[("group", "a"), ("k", "1")], 1.0);
    assert!(edge.page().values("v", &[("group", "b")]).is_empty(), "no resync revives what was deleted");
    assert!(edge.page().values("v", &[("IDC", "SYQ")]).is_empty(), "groups come back as they were pushed");
    equal(&hub, &edge, "SYQ");
}

#[test]
fn a_delete_at_the_hub_reaches_the_edge() {
    let (_site, hub, edge) = Site::with_one_edge();
    edge.push("job/j/group/a", "v 1\n");
    edge.push("job/j/group/b", "v 2\n");
    hub.shows("v", &[("group", "a")], 1.0);
    hub.shows("v", &[("group", "b")], 2.0);
    hub.delete("job/j/IDC/SYQ/group/a");
    hub.lacks("v", &[("group", "a")]);
    edge.lacks("v", &[("group", "a")]);
    assert_eq!(edge.page().values("v", &[("group", "b")]), [2.0]);
}

#[test]
fn only_edges_of_the_authority_get_in() {
    let (site, hub, known) = Site::with_one_edge();
    let stranger_site = Site::new();
    stranger_site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let (cert, key) = (stranger_site.cert("syq-1.pem"), stranger_site.cert("syq-1.key"));
    let mut outsider = site.edge_with("stranger", hub.line(), &cert, &key);
    outsider.start();
    outsider.push("job/intruder", "v 666\n");
    let refused = |line: &str| (line.contains("level=WARN") || line.contains("level=ERROR")).then_some(());
    outsider.process().line("the edge says that it was refused", refused);

    // A connection without our own client: with no certificate, and for comparison with a valid one.
    let ask = |more: &str| {
        let url = format!("https://{}/api/v1/relay", hub.edge_listener());
        let ca = site.cert("ca.pem");
        bash(&format!(
            "curl -s --http1.1 -o /dev/null -w '%{{http_code}}' --cacert {} {more} {url} || true",
            ca.display()
        ))
    };
    assert_eq!(ask(""), "000", "no certificate, no answer");
    assert_eq!(ask(&format!("--cert {} --key {}", cert.display(), key.display())), "000", "a stranger's certificate");
    let good = format!("--cert {} --key {}", site.cert("syq-1.pem").display(), site.cert("syq-1.key").display());
    assert!(ask(&good).starts_with('4'), "a good certificate gets an answer, though this is no WebSocket");

    known.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    assert!(hub.page().values("v", &[("job", "intruder")]).is_empty());
}

#[test]
fn an_edge_trusts_only_hubs_of_its_authority() {
    let (site, hub, _edge) = Site::with_one_edge();
    let other = Site::new();
    let config = edge_config(
        &site.path().join("wary"),
        hub.line(),
        &other.cert("ca.pem"),
        &site.cert("syq-1.pem"),
        &site.cert("syq-1.key"),
    );
    let mut wary = Node::new(Role::Edge, site.path(), "wary", &config);
    wary.start();
    wary.push("job/secret", "v 1\n");
    let refused = |line: &str| (line.contains("level=WARN") || line.contains("level=ERROR")).then_some(());
    wary.process().line("the edge says that it does not trust the hub", refused);
    assert!(hub.page().values("v", &[("job", "secret")]).is_empty());
}

#[test]
fn no_edge_writes_under_anothers_idc() {
    let (_site, hub, syq, bj) = Site::with_two_edges();
    syq.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    // The label in the body, in the grouping key, and in a delete.
    bj.push("job/j", "v{IDC=\"SYQ\"} 2\n");
    bj.push("job/j/IDC/SYQ", "w 3\n");
    hub.shows("w", &[("IDC", "BJ"), ("exported_IDC", "SYQ")], 3.0);
    bj.delete("job/j/IDC/SYQ");
    hub.lacks("w", &[]);
    hub.shows("v", &[("IDC", "BJ"), ("exported_IDC", "SYQ")], 2.0);
    assert_eq!(hub.page().values("v", &[("IDC", "SYQ")]), [1.0]);
    assert_eq!(syq.page().values("v", &[]), [1.0]);
}

#[test]
fn an_occupied_port_is_named() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--web.listen-address", "--hub.listen-address"] {
        let mut hub = site.hub().flags(&[flag, &address]);
        gives_up(hub.spawn(), &address);
    }
}

#[test]
fn a_second_process_on_one_store_is_refused() {
    let (site, hub, mut edge) = Site::with_one_edge();
    let store = edge.store().display().to_string();
    let mut second = site.edge("syq-2", "SYQ", &hub).flags(&["--storage.path", &store]);
    gives_up(second.spawn(), &store);
    edge.push("job/j", "v 1\n");
    assert!(edge.process().is_alive());
}

#[test]
fn a_node_without_a_disk_relays_too() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&["--storage.path", ""]);
    edge.start();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    edge.restart();
    edge.shows("v", &[("job", "j")], 1.0);
}

#[test]
fn a_node_stops_when_asked() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    edge.push("job/j", "v 1\n");
    assert_eq!(edge.stop().0, Some(0));
    assert_eq!(hub.stop().0, Some(0));
    edge.start();
    assert_eq!(edge.page().values("v", &[]), [1.0]);
    let process: &mut Process = edge.process();
    process.signal("INT");
    assert_eq!(process.wait().code(), Some(0));
}
