//! The times after which a node is back, for each combination of role, disk and end. `docs/how-to/troubleshoot.md`
//! promises them for the default intervals; these tests use shorter ones, and add time for a busy machine.

use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Node, Site};

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// By `SIGTERM`.
    Stop,
    /// By `kill -9`: the operating system closes its connections.
    Kill,
    /// Its machine lost its power: the peer is sent nothing any more.
    Power,
}

/// What is left of its store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Disk {
    Kept,
    Lost,
    /// The store is in memory (`storage.path = ""`).
    None,
}

/// `hub.heartbeat_interval` in these tests; 5 s by default.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A peer is dead after three heartbeats.
const SILENCE: Duration = Duration::from_secs(3);
/// An edge that was refused because its former session is not found dead yet waits until then and a second longer, and
/// up to half as long again.
const TAKEN: Duration = Duration::from_millis((3_000 + 1_000) * 3 / 2);
/// The first waits of an edge that has lost its hub: up to 1 s, then up to 2 s, while the hub starts.
const BACKOFF: Duration = Duration::from_secs(3);
/// Time for starts, syncs and other tests on a busy machine.
const BUSY: Duration = Duration::from_secs(15);

/// The time from the start of a node until it is linked and both nodes show everything.
fn promised(role: Role, disk: Disk, end: End) -> Duration {
    match (role, disk, end) {
        // The hub does not know the new store, and holds the name for the old one.
        (Role::Edge, Disk::Lost | Disk::None, End::Power) => TAKEN,
        (Role::Edge, ..) => Duration::ZERO,
        (Role::Hub, _, End::Power) => SILENCE + BACKOFF,
        (Role::Hub, ..) => BACKOFF,
    }
}

fn time_to_return(role: Role, disk: Disk, end: End) -> Duration {
    let site = Site::new();
    let in_memory = |config: String, is_it: bool| match is_it && disk == Disk::None {
        true => {
            let at = config.find("path = ").unwrap();
            let line_end = at + config[at..].find('\n').unwrap();
            format!("{}path = ''{}", &config[..at], &config[line_end..])
        }
        false => config,
    };
    let config = in_memory(site.hub_config("hub"), role == Role::Hub);
    let config = config.replacen("[hub]\n", "[hub]\nheartbeat_interval = '1s'\n", 1);
    let mut hub = Node::new(Role::Hub, site.path(), "hub", &config);
    hub.start();
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let config = edge_config(&site.path().join("syq-1"), hub.line(), &site.cert("ca.pem"), &cert, &key);
    // The intervals of connecting are the defaults.
    let config = config.replace("backoff_min = \"20ms\"\nbackoff_max = \"500ms\"\n", "");
    let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &in_memory(config, role == Role::Edge));
    edge.start();
    edge.push("job/a", "x 1\n");
    hub.push("job/h", "y 1\n");
    hub.shows("x", &[("job", "a")], 1.0);

    if end == End::Power {
        hub.swallow();
    }
    let node = if role == Role::Edge { &mut edge } else { &mut hub };
    match end {
        End::Stop => assert_eq!(node.stop().0, Some(0)),
        End::Kill | End::Power => node.kill(),
    }
    let node = if role == Role::Edge { &mut edge } else { &mut hub };
    if disk == Disk::Lost {
        std::fs::remove_dir_all(node.store()).unwrap();
    }
    let started = Instant::now();
    node.start();
    // The edge's next push arrives, so both are linked again; a hub without its disk has the edge's groups again.
    edge.push("job/b", "x 2\n");
    hub.shows("x", &[("job", "b")], 2.0);
    hub.shows("x", &[("job", "a")], 1.0);
    edge.shows("x", &[("job", "a")], 1.0);
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    started.elapsed()
}

fn returns_in_time(role: Role) {
    let name = if role == Role::Edge { "edge" } else { "hub" };
    for disk in [Disk::Kept, Disk::Lost, Disk::None] {
        for end in [End::Stop, End::Kill, End::Power] {
            let (took, promised) = (time_to_return(role, disk, end), promised(role, disk, end));
            eprintln!("an {name} with its disk {disk:?}, ended by {end:?}: back after {took:?}, promised {promised:?}");
            assert!(took <= promised + BUSY, "{name}, {disk:?}, {end:?}: {took:?}, promised is {promised:?}");
        }
    }
}

#[test]
fn an_edge_is_back_in_the_time_that_is_promised() {
    assert_eq!(SILENCE, 3 * HEARTBEAT);
    returns_in_time(Role::Edge);
}

#[test]
fn a_hub_is_back_in_the_time_that_is_promised() {
    returns_in_time(Role::Hub);
}
