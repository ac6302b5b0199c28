//! Two endpoints against each other in virtual time and without sockets, through real messages.

mod catching_up;
mod heartbeat;
mod pair;
mod store;
mod trickle;

pub(super) use pair::config;
use pair::{EDGE, HUB, Pair};
use proptest::prelude::*;
use store::{Store, family, key, moment};

use super::*;
use crate::model::{Group, LabelSet, NodeId, Revision, WriteTimestamp};
use crate::wire::message::CONFLICT_REPORTS_MAX;
use crate::wire::{Ack, CloseReason, ConflictReport, Health, Heartbeat, Message, Update};

const SECOND_NS: u64 = event::SECOND_NS;

fn put(time_ns: u64, value: f64) -> Group {
    Group::put(moment(time_ns, 7), vec![family(0, &[value, 1.0]), family(1, &[value / 4.0])])
}

fn converged(pair: &Pair) {
    let [edge, hub, oracle] = pair.seen();
    assert_eq!(edge, oracle, "the edge");
    assert_eq!(hub, oracle, "the hub");
}

/// A pair that knows each other and has `groups` groups.
fn acquainted(groups: usize) -> Pair {
    let mut pair = Pair::new();
    for job in 0..groups {
        pair.write(EDGE, &key(job), &put(10 + job as u64, 1.5));
    }
    pair.connect();
    pair.settle();
    converged(&pair);
    pair
}

/// A pair that knows each other, whose edge has changed all of 40 groups while there was no connection.
fn with_backlog() -> Pair {
    let mut pair = acquainted(40);
    pair.cut();
    for job in 0..40 {
        pair.write(EDGE, &key(job), &put(1_000 + job as u64, 9.0));
    }
    pair
}

#[test]
fn unknown_stores_resync_and_later_resume() {
    let mut pair = acquainted(5);
    assert!(pair.side(EDGE).established.as_ref().unwrap().resync && pair.side(EDGE).resync_completed);
    assert_eq!(pair.side(HUB).established.as_ref().unwrap().site, LabelSet::new([("IDC", "SYQ")]));
    pair.connect();
    pair.settle();
    assert!(!pair.side(EDGE).established.as_ref().unwrap().resync);
    assert_eq!((pair.side(EDGE).groups_sent, pair.side(HUB).groups_sent), (0, 0));
    pair.cut();
    pair.write(EDGE, &key(3), &put(100, 2.5));
    pair.write(HUB, &key(1), &Group::delete(moment(101, 8).stamp));
    pair.connect();
    pair.settle();
    converged(&pair);
    assert_eq!((pair.side(EDGE).groups_sent, pair.side(HUB).groups_sent), (1, 1), "nothing comes back");
}

#[test]
fn a_backlog_does_not_wait_for_the_send_interval() {
    let mut pair = with_backlog();
    pair.send_interval_ns = 60 * SECOND_NS;
    pair.connect();
    pair.settle();
    converged(&pair);
}

#[test]
fn catching_up_leaves_at_most_four_updates_unacknowledged() {
    let mut pair = with_backlog();
    pair.connect();
    let mut unacknowledged = Vec::new();
    for committed in 0..20 {
        while pair.deliver(HUB) || pair.deliver(EDGE) || pair.read(EDGE) {}
        unacknowledged.push(pair.side(EDGE).messages_sent["update"] - committed);
        pair.commit(HUB);
    }
    assert_eq!((unacknowledged[0], unacknowledged.iter().max()), (2, Some(&4)), "more as acks return at once");
    pair.settle();
    converged(&pair);
}

#[test]
fn a_wiped_edge_gets_its_groups_back() {
    let mut pair = acquainted(6);
    pair.replace(EDGE, Store::create(201, 21));
    pair.write(EDGE, &key(0), &put(500, 7.0));
    pair.connect();
    pair.settle();
    converged(&pair);
    assert_eq!(pair.stores[EDGE].seen().len(), 6);
}

#[test]
fn a_wiped_hub_gets_its_groups_back() {
    let mut pair = acquainted(6);
    pair.replace(HUB, Store::create(202, 22));
    pair.connect();
    pair.settle();
    converged(&pair);
    assert_eq!(pair.stores[HUB].seen().len(), 6);
}

#[test]
fn a_rolled_back_edge_revives_no_deleted_group() {
    let mut pair = acquainted(2);
    let copy = pair.stores[EDGE].clone();
    pair.write(EDGE, &key(0), &Group::delete(moment(50, 7).stamp));
    pair.settle();
    pair.replace(EDGE, copy);
    pair.connect();
    pair.settle();
    assert!(pair.side(HUB).established.as_ref().unwrap().resync);
    converged(&pair);
    assert_eq!(pair.stores[EDGE].seen().len(), 1);
}

#[test]
fn a_tombstone_is_kept_until_the_peer_has_acknowledged_it() {
    let mut pair = acquainted(3);
    pair.forget_tombstones = true;
    pair.write(EDGE, &key(0), &Group::delete(moment(50, 7).stamp));
    while pair.read(EDGE) || pair.deliver(HUB) {}
    assert_eq!(pair.stores[EDGE].tombstones(), 1, "sent, not durable");
    pair.commit(HUB);
    assert_eq!(pair.stores[EDGE].tombstones(), 1, "durable, not acknowledged");
    pair.deliver(EDGE);
    assert_eq!(pair.stores[EDGE].tombstones(), 0);
    pair.settle();
    converged(&pair);
}

/// Found by `all_converge`: an older version of the group, sent before the peer acknowledged the tombstone, was still being
/// committed when the tombstone went.
#[test]
fn a_tombstone_is_kept_while_older_changes_are_being_committed() {
    let mut pair = acquainted(1);
    pair.forget_tombstones = true;
    pair.write(HUB, &key(0), &put(40, 4.0));
    while pair.read(HUB) || pair.deliver(EDGE) {}
    pair.write(EDGE, &key(0), &Group::delete(moment(50, 7).stamp));
    while pair.read(EDGE) || pair.deliver(HUB) || pair.commit(HUB) || pair.deliver(EDGE) {}
    assert_eq!(pair.stores[EDGE].tombstones(), 1);
    pair.settle();
    converged(&pair);
    assert_eq!((pair.stores[EDGE].seen().len(), pair.stores[EDGE].tombstones()), (0, 0));
}

/// Found by `all_converge`: the edge had dropped the tombstone, and the hub took the group for known to it.
#[test]
fn a_hub_rolled_back_behind_a_dropped_tombstone_resyncs() {
    let mut pair = acquainted(1);
    pair.forget_tombstones = true;
    let copy = pair.stores[HUB].clone();
    pair.write(EDGE, &key(0), &Group::delete(moment(50, 7).stamp));
    pair.settle();
    pair.replace(HUB, copy);
    pair.connect();
    pair.settle();
    assert!(pair.side(EDGE).resync_completed);
    converged(&pair);
}

#[test]
fn a_progress_update_advances_the_cursor_without_changes() {
    let mut pair = acquainted(1);
    pair.write(EDGE, &key(0), &put(400, 4.0));
    pair.settle();
    let (edge, hub) = (pair.stores[EDGE].id, pair.stores[HUB].id);
    assert!(pair.stores[EDGE].cursor(hub).revision < pair.stores[HUB].head());
    assert_eq!(pair.side(HUB).acked, Some(pair.stores[HUB].head()), "it came from there");
    pair.pass(61 * SECOND_NS);
    assert_eq!(pair.stores[EDGE].cursor(hub).revision, pair.stores[HUB].head());
    assert_eq!(pair.stores[HUB].cursor(edge).revision, pair.stores[EDGE].head());
}

#[test]
fn a_session_resumes_soon_after_a_delete_at_the_hub() {
    let mut pair = acquainted(3);
    pair.forget_tombstones = true;
    pair.write(HUB, &key(0), &Group::delete(moment(100, 8).stamp));
    pair.settle();
    pair.connect();
    pair.settle();
    converged(&pair);
    assert!(!pair.side(EDGE).established.as_ref().unwrap().resync, "the hub's cursor is behind the tombstone");
    pair.pass(61 * SECOND_NS);
    pair.connect();
    pair.settle();
    assert!(!pair.side(EDGE).established.as_ref().unwrap().resync, "the tombstone is dropped by now");
    assert_eq!(pair.stores[EDGE].groups().filter(|(_, group)| !group.is_live()).count(), 0);
}

#[test]
fn heartbeats_keep_a_link_alive_and_measure_the_clocks() {
    let mut pair = Pair::new();
    pair.ahead_ns = 3_600 * SECOND_NS;
    pair.connect();
    pair.settle();
    pair.pass(600 * SECOND_NS);
    assert_eq!((&pair.side(EDGE).closed, &pair.side(HUB).closed), (&None, &None));
    let wrong = |end: usize, ahead_ns: i64| (pair.side(end).offset_ns.unwrap() - ahead_ns).unsigned_abs();
    assert!(wrong(EDGE, 3_600 * SECOND_NS as i64) < SECOND_NS / 10);
    assert!(wrong(HUB, -3_600 * SECOND_NS as i64) < SECOND_NS / 10);
}

#[test]
fn heartbeats_carry_the_age_of_the_oldest_waiting_change() {
    let mut pair = acquainted(1);
    pair.write(EDGE, &key(0), &put(100, 2.0));
    pair.now_ns += 5 * SECOND_NS;
    pair.tell(EDGE, Event::Tick);
    while pair.deliver(HUB) {}
    assert!(pair.side(HUB).peer_lag_ns.unwrap() >= 5 * SECOND_NS, "nothing is durable at the hub");
    pair.settle();
    pair.now_ns += 5 * SECOND_NS;
    pair.tell(EDGE, Event::Tick);
    while pair.deliver(HUB) {}
    assert_eq!(pair.side(HUB).peer_lag_ns, Some(0));
}

#[test]
fn heartbeats_report_the_health_of_the_edge_and_later_only_its_changes() {
    let mut pair = acquainted(1);
    let healthy = Health { pushes: Some(7), groups: Some(1), ..Health::default() };
    pair.tell(EDGE, Event::Health(healthy.clone().into()));
    pair.pass(5 * SECOND_NS);
    let known = |pair: &Pair| Health::clone(pair.side(HUB).peer_health.as_ref().unwrap());
    assert_eq!(known(&pair), healthy);
    assert_eq!(pair.side(EDGE).peer_health.as_deref(), Some(&Health::default()), "a hub reports none");
    let full = Health { store_failing: Some(1), store_failure: Some("no space".into()), ..healthy.clone() };
    pair.tell(EDGE, Event::Health(full.clone().into()));
    pair.pass(5 * SECOND_NS);
    assert_eq!(known(&pair), full);
    pair.connect();
    pair.settle();
    pair.pass(5 * SECOND_NS);
    assert_eq!(known(&pair), Health::default(), "the process that connected reports no health");
}

#[test]
fn a_peer_silent_for_three_heartbeats_is_closed() {
    let mut pair = acquainted(1);
    pair.now_ns += 14 * SECOND_NS;
    pair.tell(EDGE, Event::Tick);
    assert_eq!(pair.side(EDGE).closed, None);
    pair.now_ns += 2 * SECOND_NS;
    pair.tell(EDGE, Event::Tick);
    assert_eq!(pair.side(EDGE).closed.as_ref().unwrap().reason, CloseReason::Silence);
}

#[test]
fn a_handshake_without_an_answer_times_out() {
    let mut pair = Pair::new();
    pair.connect();
    pair.now_ns += 11 * SECOND_NS;
    pair.tell(EDGE, Event::Tick);
    pair.tell(HUB, Event::Tick);
    for end in [EDGE, HUB] {
        assert_eq!(pair.side(end).closed.as_ref().unwrap().reason, CloseReason::Handshake);
    }
}

#[test]
fn two_ends_with_the_same_store_are_refused() {
    let mut pair = acquainted(1);
    let copy = pair.stores[EDGE].clone();
    pair.replace(HUB, copy);
    pair.connect();
    while pair.step(0) {}
    assert_eq!(pair.side(HUB).closed.as_ref().unwrap().reason, CloseReason::SameStore);
    let closed = pair.side(EDGE).closed.as_ref().unwrap();
    assert!(closed.by_peer && closed.reason == CloseReason::SameStore);
}

#[test]
fn suppressed_families_are_reported_with_the_ack_that_covers_them_and_block_nothing() {
    let mut pair = acquainted(1);
    let report = |job: usize| ConflictReport {
        key: key(job),
        family: "m".into(),
        stamp: WriteTimestamp { time_ns: 20, node: NodeId(1) },
        text: "metric \"m\" has another type elsewhere".into(),
    };
    pair.write(EDGE, &key(1), &put(20, 2.0));
    pair.suppressed = (0..100).map(report).collect();
    pair.settle();
    let reported = pair.side(EDGE).suppressed.clone();
    assert_eq!(reported, (0..CONFLICT_REPORTS_MAX).map(report).collect::<Vec<_>>(), "as many as a message can carry");
    pair.write(EDGE, &key(1), &put(30, 3.0));
    pair.settle();
    assert_eq!(pair.side(EDGE).suppressed.len(), CONFLICT_REPORTS_MAX, "each is reported once");
    converged(&pair);
}

#[test]
fn a_protocol_violation_closes_the_session_with_its_reason() {
    let update = |upto, partial, last_of_resync| {
        Message::Update(Update { upto: Revision(upto), partial, last_of_resync, ..Update::default() })
    };
    let ack = |updates, revision| Message::Ack(Ack { updates, revision: Revision(revision), held_back: Vec::new() });
    let welcome = |pair: &mut Pair| {
        let info = pair.stores[HUB].info();
        let site = LabelSet::default();
        let clock = Default::default();
        Message::Welcome(crate::wire::Welcome {
            version: 1,
            info,
            site,
            resync: false,
            heartbeat_ms: 5_000,
            message_bytes_max: 1 << 20,
            clock,
            upstream_stores: Vec::new(),
            takes_early: false,
        })
    };
    let again = welcome(&mut Pair::new());
    let cases = [
        (update(0, false, false), "after one up to"),
        (update(900, true, false), "after one up to"),
        (update(900, false, true), "end of a resync"),
        (ack(99, 900), "an ack of 99 updates"),
        (ack(0, 0), "an ack of 0 updates"),
        (again, "a message welcome where"),
    ];
    for (message, text) in cases {
        let mut pair = acquainted(1);
        pair.write(HUB, &key(1), &put(20, 2.0));
        pair.settle();
        pair.tell(EDGE, Event::Message(message));
        let closed = pair.side(EDGE).closed.clone().unwrap();
        assert_eq!(closed.reason, CloseReason::Protocol);
        assert!(closed.text.contains(text), "{}", closed.text);
        pair.tell(EDGE, Event::Message(Message::Heartbeat(Heartbeat::default())));
    }
    let mut pair = acquainted(1);
    for upto in 900..906 {
        pair.tell(EDGE, Event::Message(update(upto, false, false)));
    }
    assert!(pair.side(EDGE).closed.as_ref().unwrap().text.contains("more than 4 updates"));
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        end: usize,
        job: usize,
        kind: usize,
        value: u8,
    },
    Step(usize),
    Steps(usize),
    Connect,
    Cut,
    Crash(usize),
    Save(usize),
    Restore {
        end: usize,
        image: usize,
    },
    Wipe(usize),
    /// A second machine with a copy of the edge's store; from then on the two take turns.
    Copy,
    Turn,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..2usize, 0..3usize, 0..5usize, 0..9u8)
            .prop_map(|(end, job, kind, value)| Op::Write { end, job, kind, value }),
        12 => (0..6usize).prop_map(Op::Step),
        6 => (0..30usize).prop_map(Op::Steps),
        3 => Just(Op::Connect),
        1 => Just(Op::Cut),
        1 => (0..2usize).prop_map(Op::Crash),
        1 => (0..2usize).prop_map(Op::Save),
        1 => (0..2usize, 0..4usize).prop_map(|(end, image)| Op::Restore { end, image }),
        1 => (0..2usize).prop_map(Op::Wipe),
        1 => Just(Op::Copy),
        1 => Just(Op::Turn),
        1 => (0..20u64).prop_map(Op::Pass),
    ]
}

struct World {
    pair: Pair,
    images: [Vec<Store>; 2],
    other_edge: Option<Store>,
}

impl World {
    fn perform(&mut self, op: Op) {
        let pair = &mut self.pair;
        match op {
            Op::Write { end, job, kind, value } => {
                let moment = moment(pair.fresh(), 70 + end as u64);
                let (a, b) = (family(0, &[value.into(), 0.5]), family(1, &[f64::from(value) / 4.0]));
                let change = match kind {
                    0 => Group::put(moment, vec![a, b]),
                    1 => Group::post(moment, vec![b]),
                    2 => Group::post(moment, vec![a, family(2, &[1.0; 3])]),
                    3 => Group::refused(moment),
                    _ => Group::delete(moment.stamp),
                };
                pair.write(end, &key(job), &change);
            }
            Op::Step(choice) => {
                pair.step(choice);
            }
            Op::Steps(count) => (0..count).for_each(|at| {
                pair.step(at);
            }),
            Op::Connect => pair.connect(),
            Op::Cut => pair.cut(),
            Op::Crash(end) => pair.crash(end),
            Op::Save(end) => self.images[end].push(pair.stores[end].clone()),
            Op::Restore { end, image } => {
                if let Some(store) = self.images[end].get(image).cloned() {
                    self.replace(end, store);
                }
            }
            Op::Wipe(end) => {
                let (id, epoch) = (pair.fresh(), pair.fresh());
                self.replace(end, Store::create(id, epoch));
            }
            Op::Copy => {
                pair.cut();
                let epoch = pair.fresh();
                let copy = pair.stores[EDGE].clone().open(epoch);
                let epoch = pair.fresh();
                pair.stores[EDGE] = pair.stores[EDGE].clone().open(epoch);
                // Both go on as new processes.
                pair.progress[EDGE] = None;
                if self.other_edge.is_none() {
                    self.other_edge = Some(copy);
                }
            }
            Op::Turn => self.turn(),
            Op::Pass(seconds) => pair.pass(seconds * SECOND_NS),
        }
    }

    fn replace(&mut self, end: usize, store: Store) {
        self.pair.replace(end, store);
        // The other machine's groups are not lost either.
        for (key, group) in self.other_edge.iter().flat_map(Store::groups) {
            self.pair.oracle.entry(key.clone()).or_default().merge(group);
        }
    }

    fn turn(&mut self) {
        self.pair.cut();
        self.pair.progress[EDGE] = None;
        if let Some(other) = &mut self.other_edge {
            std::mem::swap(other, &mut self.pair.stores[EDGE]);
        }
    }

    /// All machines talk until they have told each other everything.
    fn finish(&mut self) {
        for _ in 0..3 {
            self.pair.connect();
            self.pair.settle();
            self.pair.pass(120 * SECOND_NS);
            self.pair.settle();
            self.turn();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever was cut, crashed, rolled back, copied or wiped: once the two have talked, both hold the merge of all
    /// writes that any of them still had.
    #[test]
    fn all_converge(
        ops in proptest::collection::vec(op(), 0..120),
        marks_max in 1..6usize,
        forget_tombstones in any::<bool>(),
        send_interval_ns in prop::sample::select(vec![0, 5_000_000, SECOND_NS]),
    ) {
        let mut world = World { pair: Pair::new(), images: Default::default(), other_edge: None };
        world.pair.marks_max = marks_max;
        world.pair.send_interval_ns = send_interval_ns;
        // A copy of the edge may be behind by more than a tombstone's life; the hub keeps its tombstones.
        world.pair.forget_tombstones = forget_tombstones;
        for op in ops {
            world.perform(op);
        }
        world.finish();
        let [edge, hub, oracle] = world.pair.seen();
        prop_assert_eq!(&edge, &oracle, "the edge");
        prop_assert_eq!(&hub, &oracle, "the hub");
        if let Some(other) = &world.other_edge {
            prop_assert_eq!(&other.seen(), &oracle, "the copied edge");
        }
    }
}
