//! Lines that carry little, and lines that break before a resync is over.

use std::thread::sleep;
use std::time::{Duration, Instant};

use pushrelay_testkit::{Node, Site};

/// Groups of the first contact.
const GROUPS: usize = 60;
/// Series of each of them.
const SERIES: usize = 250;

/// An edge that has some 300 kB to send, and a hub that it has not reached yet.
fn before_first_contact(bytes_per_second: usize) -> (Site, Node, Node) {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    hub.cut();
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&["--uplink.backoff-max=500ms"]);
    edge.start();
    // Letters that do not compress well: the time goes by on the line.
    let mut random = 1_u64;
    let mut letter = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(random >> 58) as usize])
    };
    for group in 0..GROUPS {
        let mut line = |_| format!("w{{text=\"{}\"}} 1\n", (0..24).map(&mut letter).collect::<String>());
        let body: String = (0..SERIES).map(&mut line).collect();
        edge.push(&format!("job/bulk/at/{group}"), &format!("{body}done {group}\n"));
    }
    hub.narrow(bytes_per_second);
    (site, hub, edge)
}

/// The number of groups of the first contact that the hub shows.
fn arrived(hub: &Node) -> usize {
    hub.page().values("done", &[("job", "bulk")]).len()
}

#[test]
fn a_push_overtakes_a_first_contact() {
    let (_site, hub, edge) = before_first_contact(15_000);
    hub.join();
    for round in 0..2 {
        pushrelay_testkit::eventually("a part of the backlog is there", || (arrived(&hub) > round).then_some(()));
        edge.push("job/probe", &format!("probe {round}\n"));
        hub.shows("probe", &[], round as f64);
        let there = arrived(&hub);
        assert!(there < GROUPS, "round {round}: the whole backlog was sent first");
    }
    hub.shows("done", &[("at", "59")], 59.0);
    assert_eq!(arrived(&hub), GROUPS);
}

#[test]
fn a_resync_is_completed_over_a_line_that_breaks_all_the_time() {
    let (_site, mut hub, edge) = before_first_contact(40_000);
    hub.join();
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut breaks = 0;
    while arrived(&hub) < GROUPS {
        assert!(Instant::now() < deadline, "{} of {GROUPS} groups after {breaks} breaks", arrived(&hub));
        // The line lives for much less than the whole takes.
        sleep(Duration::from_secs(2));
        hub.break_connections();
        breaks += 1;
    }
    assert!(breaks > 1, "the line never broke while something was missing");
    edge.push("job/probe", "probe 1\n");
    hub.shows("probe", &[], 1.0);
    let said = hub.process().output();
    assert!(!said.contains("panicked"), "{said}");
}
