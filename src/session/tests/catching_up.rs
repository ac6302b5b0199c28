//! Ends that catch up: a resync continues where it broke off, and the newest changes overtake a backlog.

use super::pair::{EDGE, HUB, Pair};
use super::store::{key, moment};
use super::{acquainted, converged, put, with_backlog};
use crate::model::{Group, Revision};

/// A pair whose hub has lost its own writes to `groups` groups, which the edge has.
///
/// Both ends have dropped a tombstone before.
fn pair_to_resync(groups: usize) -> Pair {
    let mut pair = acquainted(groups);
    pair.write(EDGE, &key(groups), &put(100, 1.0));
    pair.write(EDGE, &key(groups), &Group::delete(moment(101, 7).stamp));
    pair.settle();
    for end in [EDGE, HUB] {
        let head = pair.stores[end].head();
        pair.stores[end].forget_tombstones(head);
    }
    let copy = pair.stores[HUB].clone();
    for job in 0..groups {
        pair.write(HUB, &key(job), &put(300, 3.0));
    }
    pair.settle();
    pair.replace(HUB, copy);
    pair
}

/// Steps until the condition holds.
fn step_until(pair: &mut Pair, what: &str, holds: impl Fn(&Pair) -> bool) {
    for choice in 0.. {
        if holds(pair) {
            return;
        }
        assert!(pair.step(choice), "{what}: nothing is left to happen");
    }
}

#[test]
fn an_interrupted_resync_continues_with_what_was_not_acknowledged() {
    let mut pair = pair_to_resync(8);
    pair.connect();
    step_until(&mut pair, "half of it is sent", |pair| pair.side(EDGE).acked.is_some_and(|acked| acked >= Revision(9)));
    assert!(!pair.side(EDGE).resync_completed);
    let acked = pair.progress[EDGE].clone().unwrap().acked.0;
    pair.connect();
    pair.settle();
    assert!(pair.side(EDGE).established.as_ref().unwrap().resync && pair.side(EDGE).resync_completed);
    let (sent, head) = (pair.side(EDGE).groups_sent, pair.stores[EDGE].head().0);
    assert!(
        sent as u64 <= head - acked,
        "{sent} groups are sent again, and only {} revisions are not acknowledged",
        head - acked
    );
    assert_eq!(pair.side(HUB).groups_sent, 0, "the edge acknowledged the hub's half before");
    converged(&pair);
}

#[test]
fn an_interrupted_resync_starts_again_if_the_peer_was_opened_again() {
    let mut pair = pair_to_resync(8);
    pair.connect();
    step_until(&mut pair, "half of it is sent", |pair| pair.side(EDGE).acked.is_some_and(|acked| acked >= Revision(9)));
    pair.crash(HUB);
    pair.connect();
    pair.settle();
    assert!(pair.side(EDGE).resync_completed && pair.side(EDGE).groups_sent >= 8);
    converged(&pair);
}

#[test]
fn a_change_overtakes_a_resync() {
    let mut pair = pair_to_resync(40);
    pair.connect();
    step_until(&mut pair, "the edge sends its half", |pair| pair.side(EDGE).groups_sent > 4);
    pair.write(EDGE, &key(90), &put(1_000, 5.0));
    step_until(&mut pair, "the hub has the change", |pair| pair.stores[HUB].seen().contains_key(&key(90)));
    assert!(!pair.side(EDGE).resync_completed && pair.side(EDGE).groups_sent < 40);
    pair.settle();
    assert!(pair.side(EDGE).resync_completed);
    converged(&pair);
}

#[test]
fn a_change_need_not_wait_for_the_hubs_half_of_a_resync() {
    let mut pair = pair_to_resync(40);
    pair.connect();
    step_until(&mut pair, "the hub sends its half", |pair| pair.side(HUB).groups_sent > 4);
    pair.write(EDGE, &key(90), &put(1_000, 5.0));
    step_until(&mut pair, "the hub has the change", |pair| pair.stores[HUB].seen().contains_key(&key(90)));
    assert!(pair.side(HUB).groups_sent < 40, "the hub's half goes on");
    pair.settle();
    assert!(pair.side(EDGE).resync_completed);
    converged(&pair);
}

#[test]
fn a_change_overtakes_a_backlog() {
    let mut pair = with_backlog();
    pair.connect();
    step_until(&mut pair, "the edge catches up", |pair| pair.side(EDGE).groups_sent > 4);
    pair.write(EDGE, &key(90), &put(2_000, 5.0));
    step_until(&mut pair, "the hub has the change", |pair| pair.stores[HUB].seen().contains_key(&key(90)));
    assert!(pair.side(EDGE).groups_sent < 30);
    pair.settle();
    converged(&pair);
    assert_eq!(pair.side(EDGE).groups_sent, 41, "the change is sent once");
}
