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
fn changes_conflate_while_one_update_is_on_its_way() {
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
fn updates_are_some_time_apart_where_that_is_asked_for() {
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
fn an_update_earns_a_pause_by_its_groups() {
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

/// Writes so many times, with so much time from one to the next, and looks each time whether the hub has it.
fn trickle(pair: &mut Pair, times: u64, gap_ns: u64) {
    for _ in 0..times {
        let at_ns = pair.now_ns;
        pair.write(EDGE, &key(0), &put(1_000 + at_ns, at_ns as f64));
        pair.settle();
        converged(pair);
        pair.pass(at_ns + gap_ns - pair.now_ns);
    }
}

#[test]
fn acknowledgements_come_together_where_updates_trickle() {
    let mut pair = acquainted(1);
    trickle(&mut pair, 1, 15 * MILLISECOND_NS);
    let (before, acked) = (updates(&pair), acks(&pair));
    trickle(&mut pair, 12, 15 * MILLISECOND_NS);
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (12, 3), "as many wait as there may be on their way");
    let (before, acked) = (updates(&pair), acks(&pair));
    trickle(&mut pair, 6, 90 * MILLISECOND_NS);
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (6, 2), "none waits for longer than 200 ms");
    pair.pass(200 * MILLISECOND_NS);
    assert_eq!(pair.side(EDGE).held, Some(pair.stores[EDGE].head()), "the edge knows in the end");
    let (before, acked) = (updates(&pair), acks(&pair));
    trickle(&mut pair, 6, 300 * MILLISECOND_NS);
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (6, 6), "where none comes meanwhile, none waits");
}

#[test]
fn an_acknowledgement_that_changes_wait_for_comes_at_once() {
    let mut pair = acquainted(1);
    trickle(&mut pair, 3, 15 * MILLISECOND_NS);
    assert!(pair.side(EDGE).held < Some(pair.stores[EDGE].head()));
    // So soon after the one before that it is acknowledged, and what changes meanwhile goes with the next.
    let (before, acked) = (updates(&pair), acks(&pair));
    trickle(&mut pair, 1, 5 * MILLISECOND_NS);
    for value in 0..10 {
        pair.write(EDGE, &key(0), &put(2 * SECOND_NS + value, value as f64));
        pair.read(EDGE);
    }
    assert_eq!(updates(&pair) - before, 2);
    pair.settle();
    assert_eq!((updates(&pair) - before, acks(&pair) - acked), (3, 2));
    converged(&pair);
}

#[test]
fn what_is_held_back_is_told_without_waiting() {
    let mut pair = acquainted(1);
    trickle(&mut pair, 2, 15 * MILLISECOND_NS);
    let verdict = HeldBack {
        key: key(0),
        family: "m".into(),
        stamp: Stamp { time_ns: 20, node: NodeId(1) },
        text: "metric \"m\" has another type elsewhere".into(),
    };
    pair.tell(HUB, Event::HeldBack(vec![verdict.clone()]));
    let acked = acks(&pair);
    trickle(&mut pair, 1, 15 * MILLISECOND_NS);
    assert_eq!((acks(&pair) - acked, &pair.side(EDGE).held_back), (1, &vec![verdict]));
    assert_eq!(pair.side(EDGE).held, Some(pair.stores[EDGE].head()));
}

#[test]
fn a_peer_that_lets_no_acknowledgement_wait_is_understood() {
    let mut pair = acquainted(1);
    trickle(&mut pair, 2, 15 * MILLISECOND_NS);
    let sent = updates(&pair);
    let revision = pair.stores[EDGE].head();
    let ack = |updates| Message::Ack(Ack { updates, revision, held_back: Vec::new() });
    pair.tell(EDGE, Event::Message(ack(sent as u64)));
    assert_eq!((&pair.side(EDGE).closed, pair.side(EDGE).held), (&None, Some(revision)));
}
