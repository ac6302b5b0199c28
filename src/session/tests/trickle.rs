//! When updates go that trickle, and when they are acknowledged.

use super::*;

const MILLISECOND_NS: u64 = event::MILLISECOND_NS;

/// Updates that the edge sent.
fn updates(pair: &Pair) -> usize {
    pair.side(EDGE).messages_sent.get("update").copied().unwrap_or(0)
}

/// Acknowledgements that the hub sent.
fn acks(pair: &Pair) -> usize {
    pair.side(HUB).messages_sent.get("ack").copied().unwrap_or(0)
}

#[test]
fn changes_are_combined_while_an_update_is_unacknowledged() {
    let mut pair = acquainted(1);
    let before = pair.side(EDGE).groups_sent;
    for time_ns in 100..200 {
        pair.write(EDGE, &key(0), &put(time_ns, time_ns as f64));
        pair.read(EDGE);
    }
    assert_eq!(pair.side(EDGE).groups_sent, before + 1);
    pair.settle();
    converged(&pair);
    assert_eq!(pair.side(EDGE).groups_sent, before + 2);
}

#[test]
fn updates_keep_the_send_interval() {
    let mut pair = acquainted(3);
    (pair.send_interval_ns, pair.marks_max) = (SECOND_NS, 100);
    pair.connect();
    pair.settle();
    pair.pass(2 * SECOND_NS);
    let write = |pair: &mut Pair, job, time_ns| pair.write(EDGE, &key(job), &put(time_ns, time_ns as f64));
    write(&mut pair, 0, 100);
    pair.settle();
    assert_eq!(updates(&pair), 1, "after a silence nothing waits");
    for time_ns in 101..111 {
        write(&mut pair, time_ns as usize % 3, time_ns);
        pair.pass(SECOND_NS / 20);
    }
    assert_eq!(updates(&pair), 1, "the interval is not over");
    pair.pass(SECOND_NS);
    assert_eq!((updates(&pair), pair.side(EDGE).groups_sent), (2, 1 + 3), "what came meanwhile is sent together");
    converged(&pair);
    for job in 0..3 {
        write(&mut pair, job, 200);
    }
    pair.cut();
    pair.connect();
    pair.settle();
    converged(&pair);
}

#[test]
fn the_pause_after_an_update_grows_with_its_groups() {
    let mut pair = acquainted(100);
    pair.marks_max = 400;
    let write = |pair: &mut Pair, jobs: std::ops::Range<usize>, time_ns: u64| {
        jobs.for_each(|job| pair.write(EDGE, &key(job), &put(time_ns + job as u64, 1.0)));
        pair.rest();
    };
    for (groups, pause_ns) in [(4, 1_000_000), (8, 2_000_000), (20, 5_000_000), (40, 10_000_000), (100, 10_000_000)] {
        pair.pass(SECOND_NS);
        let before = updates(&pair);
        write(&mut pair, 0..groups, groups as u64 * SECOND_NS);
        assert_eq!(updates(&pair), before + 1, "after a silence nothing waits");
        write(&mut pair, 0..groups, groups as u64 * SECOND_NS + 1_000);
        pair.pass(pause_ns - 1);
        assert_eq!(updates(&pair), before + 1, "after {groups} groups there is a pause");
        pair.pass(1);
        assert_eq!(updates(&pair), before + 2, "which is over in time");
        converged(&pair);
    }
    pair.pass(SECOND_NS);
    let before = updates(&pair);
    write(&mut pair, 0..3, 130 * SECOND_NS);
    write(&mut pair, 0..3, 140 * SECOND_NS);
    assert_eq!(updates(&pair), before + 2, "after few there is none");
}

/// Writes at an end so many times, with so much time from one to the next, and looks each time whether the other has it.
fn trickle(pair: &mut Pair, end: usize, times: usize, gap_ns: u64) {
    for _ in 0..times {
        let at_ns = pair.now_ns;
        pair.write(end, &key(0), &put(1_000 + at_ns, at_ns as f64));
        pair.settle();
        converged(pair);
        pair.pass(at_ns + gap_ns - pair.now_ns);
    }
}

/// Whether the end knows that its peer has all that it wrote.
fn knows(pair: &Pair, end: usize) -> bool {
    pair.side(end).acked == Some(pair.stores[end].head())
}

/// A pair in which so many updates of the edge wait to be acknowledged.
fn waiting(updates: usize) -> Pair {
    let mut pair = acquainted(1);
    trickle(&mut pair, EDGE, 1, 15 * MILLISECOND_NS);
    assert!(knows(&pair, EDGE), "the first after a silence does not wait");
    let acked = acks(&pair);
    trickle(&mut pair, EDGE, updates, 15 * MILLISECOND_NS);
    assert!(acks(&pair) == acked && knows(&pair, EDGE) == (updates == 0));
    pair
}

#[test]
fn updates_that_trickle_share_acknowledgements() {
    let mut pair = waiting(3);
    let (before, acked) = (updates(&pair), acks(&pair));
    trickle(&mut pair, EDGE, 1, 15 * MILLISECOND_NS);
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (1, 1), "more are not to be on their way");
    assert!(knows(&pair, EDGE));
    trickle(&mut pair, EDGE, 12, 15 * MILLISECOND_NS);
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (13, 4));
}

#[test]
fn a_hub_combines_acknowledgements_as_an_edge_does() {
    let mut pair = acquainted(1);
    trickle(&mut pair, HUB, 1, 15 * MILLISECOND_NS);
    let acks = |pair: &Pair| pair.side(EDGE).messages_sent["ack"];
    let acked = acks(&pair);
    trickle(&mut pair, HUB, 12, 15 * MILLISECOND_NS);
    assert_eq!(acks(&pair) - acked, 3);
}

#[test]
fn an_acknowledgement_is_delayed_by_200_ms_at_most() {
    let mut pair = waiting(0);
    let acked = acks(&pair);
    pair.write(EDGE, &key(0), &put(2 * SECOND_NS, 1.0));
    pair.settle();
    // That took a millisecond for each step.
    pair.pass(190 * MILLISECOND_NS);
    assert!(acks(&pair) == acked && !knows(&pair, EDGE));
    pair.pass(10 * MILLISECOND_NS);
    assert!(acks(&pair) == acked + 1 && knows(&pair, EDGE));
}

#[test]
fn updates_further_apart_than_the_delay_are_acknowledged_at_once() {
    let mut pair = waiting(1);
    pair.pass(SECOND_NS);
    for job in 0..3 {
        pair.write(EDGE, &key(job), &put(2 * SECOND_NS, 1.0));
        pair.settle();
        assert!(knows(&pair, EDGE));
        pair.pass(300 * MILLISECOND_NS);
    }
}

#[test]
fn an_update_that_further_changes_wait_for_is_acknowledged_at_once() {
    let mut pair = waiting(1);
    pair.write(EDGE, &key(0), &put(2 * SECOND_NS, 1.0));
    pair.settle();
    // So soon after the one before that it is waited for, and what changes meanwhile goes with the next.
    let (before, acked) = (updates(&pair), acks(&pair));
    for value in 0..10 {
        pair.write(EDGE, &key(0), &put(3 * SECOND_NS + value, value as f64));
        pair.read(EDGE);
    }
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (1, 0));
    pair.settle();
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (2, 2));
    assert!(knows(&pair, EDGE));
    converged(&pair);
}

#[test]
fn a_backlog_is_sent_while_acknowledgements_are_delayed() {
    let mut pair = waiting(3);
    for job in 0..40 {
        pair.stores[EDGE].merge(&key(job), &put(2 * SECOND_NS, job as f64), None);
    }
    pair.oracle = pair.stores[EDGE].groups().map(|(key, group)| (key.clone(), group.clone())).collect();
    pair.write(EDGE, &key(40), &put(2 * SECOND_NS, 1.0));
    pair.settle();
    converged(&pair);
    assert!(knows(&pair, EDGE));
}

#[test]
fn suppressed_families_are_reported_at_once() {
    let mut pair = waiting(1);
    let report = ConflictReport {
        key: key(0),
        family: "m".into(),
        stamp: WriteTimestamp { time_ns: 20, node: NodeId(1) },
        text: "metric \"m\" has another type elsewhere".into(),
    };
    pair.suppressed = vec![report.clone()];
    trickle(&mut pair, EDGE, 1, 15 * MILLISECOND_NS);
    assert_eq!(pair.side(EDGE).suppressed, [report]);
    assert!(knows(&pair, EDGE));
}

#[test]
fn delayed_acknowledgements_are_sent_before_a_shutdown() {
    let mut pair = waiting(2);
    let refused = Refused { reason: CloseReason::Shutdown, text: "stopping".into(), retry_after_ms: None };
    pair.tell(HUB, Event::Stop(refused));
    while pair.step(0) {}
    assert_eq!(pair.side(EDGE).closed.as_ref().unwrap().reason, CloseReason::Shutdown);
    assert!(knows(&pair, EDGE));
}

#[test]
fn updates_with_a_delayed_acknowledgement_are_not_sent_again() {
    for end in [EDGE, HUB] {
        let mut pair = waiting(2);
        pair.crash(end);
        pair.connect();
        pair.settle();
        converged(&pair);
        assert_eq!(pair.side(EDGE).groups_sent, 0);
        assert!(knows(&pair, EDGE));
    }
}

#[test]
fn a_peer_may_acknowledge_each_update_at_once() {
    let mut pair = acquainted(1);
    pair.acks_at_once = true;
    let acked = acks(&pair);
    trickle(&mut pair, EDGE, 9, 15 * MILLISECOND_NS);
    assert_eq!(acks(&pair) - acked, 9);
    assert!(knows(&pair, EDGE));
}
