//! Write timestamps of a clock that is behind.

use super::*;
use crate::model::{Contributor, GaugeRule, NodeId, PushTime, STAMP_NS_MAX, WriteTimestamp};
use crate::store::CLOCK_NS_MIN;

const HOUR_NS: u64 = 3_600_000_000_000;
/// The right time at the start of the monotonic clock.
const START_NS: u64 = CLOCK_NS_MIN + 1_000 * HOUR_NS;

/// A time by a clock that is `behind_ns` behind, `monotonic_ns` after the start.
fn behind(behind_ns: u64, monotonic_ns: u64) -> WriteTime {
    let ns = START_NS + monotonic_ns - behind_ns;
    WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns }
}

/// The change that another node made at the right time `time_ns`.
fn of_peer(time_ns: u64, families: Vec<Family>) -> Group {
    let stamp = WriteTimestamp { time_ns, node: NodeId(99) };
    Group::put(PushTime { stamp, wall_ns: time_ns }, families)
}

fn valued(name: &str, value: f64) -> Family {
    let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
    builder.series(&[], &ValueLayout::Single, &[value], None);
    builder.finish().unwrap()
}

/// An increment of the counter `c`.
fn add(value: f64) -> WriteOp {
    let mut builder = FamilyBuilder::new("c", MetricType::Counter);
    builder.series(&[], &ValueLayout::Single, &[value], None);
    let families = vec![builder.finish().unwrap()];
    WriteOp::Add(Increment { families, gauges: GaugeRule::Last, key: None })
}

/// Sends a peer all that a store has.
fn send(store: &Store, peer: &mut Store) {
    for change in store.published().changes(&Scope::Shown, crate::model::Revision(0), None, usize::MAX).changes {
        let (key, group) = match Contributor::split(&change.key) {
            Some((key, contributor)) => (Arc::new(key), change.group.contributed(&Arc::new(contributor))),
            None => (change.key, change.group),
        };
        peer.merge(&GroupId { site: Arc::default(), key }, group, StoreId(7)).unwrap();
    }
    peer.commit();
}

/// The sum of the counter `c`, as it is shown.
fn sum(store: &Store) -> Option<f64> {
    let block = store.published().block("c")?;
    block.entries().map(|shown| shown.family.values()[0]).reduce(|a, b| a + b)
}

fn job(name: &str) -> GroupId {
    local(&[("job", name)])
}

fn edge() -> Store {
    let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    store.commit();
    store
}

fn confirm(store: &mut Store, monotonic_ns: u64) -> usize {
    let corrections = store.confirm_clock(START_NS + monotonic_ns, monotonic_ns).corrections;
    let corrected = corrections.iter().filter(|correction| store.correct(correction)).count();
    store.commit();
    corrected
}

fn value(store: &Store, id: &GroupId, name: &str) -> Option<f64> {
    let entry = store.published().group(id)?;
    entry.group.family(name).map(|f| f.family.values()[0])
}

#[test]
fn a_push_of_a_clock_far_behind_wins_over_an_older_one_once_the_clock_is_known() {
    let (mut store, id) = (edge(), job("a"));
    store.write(id.clone(), WriteOp::Put(vec![valued("m", 2.0)]), behind(START_NS, 10)).unwrap();
    store.commit();
    assert!(store.published().is_unconfirmed(&id) && !store.published().is_clock_confirmed());
    assert_eq!(confirm(&mut store, HOUR_NS), 1);
    // The hub's push is of an hour before, by its right clock.
    store.merge(&id, of_peer(START_NS - HOUR_NS, vec![valued("m", 1.0)]), StoreId(9)).unwrap();
    store.commit();
    assert_eq!(value(&store, &id, "m"), Some(2.0));
    assert_eq!(store.published().group(&id).unwrap().group.latest().time_ns, START_NS + 10, "when it was pushed");
    // A push that is really newer wins.
    store.merge(&id, of_peer(START_NS + 20, vec![valued("m", 3.0)]), StoreId(9)).unwrap();
    store.commit();
    assert_eq!(value(&store, &id, "m"), Some(3.0));
    assert_eq!((store.published().unconfirmed_len(), store.published().corrected()), (0, 1));
}

#[test]
fn a_correction_keeps_the_order_of_writes_and_the_times_that_are_shown() {
    let (mut store, id) = (edge(), job("a"));
    let at = |monotonic_ns| behind(HOUR_NS, monotonic_ns);
    store.write(id.clone(), WriteOp::Delete, at(1_000)).unwrap();
    store.write(id.clone(), WriteOp::Put(vec![valued("x", 1.0), valued("y", 1.0)]), at(2_000)).unwrap();
    store.write(id.clone(), WriteOp::Post(vec![valued("y", 2.0)]), at(3_000)).unwrap();
    store.write(id.clone(), WriteOp::Refuse, at(4_000)).unwrap();
    store.commit();
    let before = store.published().group(&id).unwrap();
    assert_eq!(confirm(&mut store, HOUR_NS), 1);
    let after = store.published().group(&id).unwrap();
    assert_eq!((value(&store, &id, "x"), value(&store, &id, "y")), (Some(1.0), Some(2.0)));
    let shown = |entry: &GroupEntry| (entry.group.pushed().unwrap().wall_ns, entry.group.failed().unwrap().wall_ns);
    assert_eq!(shown(&before), shown(&after));
    assert_eq!(after.group.latest().time_ns, before.group.latest().time_ns + HOUR_NS);
    assert!(after.revision() > before.revision(), "peers are sent it again");
}

#[test]
fn a_clock_that_is_right_or_ahead_corrects_nothing() {
    for ahead_ns in [0, HOUR_NS] {
        let (mut store, id) = (edge(), job("a"));
        let ns = START_NS + 10 + ahead_ns;
        let now = WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: 10 };
        store.write(id.clone(), WriteOp::Put(vec![valued("m", 2.0)]), now).unwrap();
        store.commit();
        let head = store.published().head();
        assert_eq!((confirm(&mut store, HOUR_NS), store.published().head()), (0, head));
        assert_eq!(store.published().clock_ahead(), u64::from(ahead_ns > 0), "counted");
    }
}

#[test]
fn a_group_that_another_clock_wrote_ahead_is_not_counted() {
    let (mut store, id) = (edge(), job("a"));
    store.merge(&id, of_peer(START_NS + HOUR_NS, vec![valued("m", 1.0)]), StoreId(9)).unwrap();
    store.write(id.clone(), WriteOp::Put(vec![valued("m", 2.0)]), behind(0, 10)).unwrap();
    store.commit();
    assert!(store.published().group(&id).unwrap().group.latest().time_ns > START_NS + HOUR_NS);
    assert_eq!((confirm(&mut store, HOUR_NS), store.published().clock_ahead()), (0, 0));
}

#[test]
fn what_a_clock_behind_wrote_before_a_restart_is_corrected_too() {
    for is_known in [false, true] {
        let (mut store, id) = (edge(), job("a"));
        if is_known {
            // Written with a right clock: the next timestamps are just after it.
            let day_ns = 24 * HOUR_NS;
            store.write(id.clone(), WriteOp::Put(vec![valued("m", 0.0)]), behind(day_ns, 0)).unwrap();
        }
        for value in [1.5, 2.0] {
            store.write(id.clone(), WriteOp::Post(vec![valued("m", value)]), behind(START_NS, 10)).unwrap();
        }
        store.commit();
        let records: Vec<Record> = store.checkpoint().collect();
        let mut again = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
        records.into_iter().for_each(|record| again.restore(record));
        again.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(2));
        again.commit();
        assert_eq!(confirm(&mut again, HOUR_NS), 1, "{is_known}");
        again.merge(&id, of_peer(START_NS - HOUR_NS, vec![valued("m", 1.0)]), StoreId(9)).unwrap();
        again.commit();
        assert_eq!(value(&again, &id, "m"), Some(2.0), "{is_known}");
    }
}

#[test]
fn while_a_clock_is_doubted_no_peer_takes_an_answered_push_away() {
    // A hub without uplinks: nobody confirms its clock before its edges send.
    let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    store.commit();
    store.doubt_clock();
    let (id, other) = (job("a"), job("b"));
    store.write(id.clone(), WriteOp::Post(vec![valued("m", 2.0)]), behind(START_NS, 10)).unwrap();
    store.commit();
    let older = of_peer(START_NS - HOUR_NS, vec![valued("m", 1.0), valued("n", 1.0)]);
    store.merge(&id, older.clone(), StoreId(9)).unwrap();
    store.merge(&other, older, StoreId(9)).unwrap();
    let deleted = Group::delete(WriteTimestamp { time_ns: START_NS, node: NodeId(98) });
    store.merge(&id, deleted, StoreId(9)).unwrap();
    store.commit();
    assert_eq!(value(&store, &id, "m"), Some(2.0));
    assert_eq!(value(&store, &other, "m"), Some(1.0), "a group that was not pushed to here");
    let latest = store.published().group(&id).unwrap().group.latest();
    assert!(latest.time_ns > START_NS && latest.time_ns < STAMP_NS_MAX);
}

#[test]
fn a_correction_that_could_not_be_made_durable_is_made_again() {
    let (mut store, id) = (edge(), job("a"));
    store.doubt_clock();
    store.write(id.clone(), WriteOp::Put(vec![valued("m", 2.0)]), behind(START_NS, 10)).unwrap();
    store.commit();
    let older = of_peer(START_NS - HOUR_NS, vec![valued("m", 1.0)]);
    for is_durable in [false, false, true] {
        store.merge(&id, older.clone(), StoreId(9)).unwrap();
        match is_durable {
            true => drop(store.commit()),
            false => store.abort(),
        }
        assert_eq!(value(&store, &id, "m"), Some(2.0), "{is_durable}");
        assert_eq!(store.published().corrected(), u64::from(is_durable), "{is_durable}");
    }
}

#[test]
fn increments_after_a_delete_outlive_its_correction() {
    let (mut store, mut peer, id) = (edge(), edge(), job("a"));
    let steps = [add(1.0), WriteOp::Delete, add(2.0), add(5.0)];
    for (at, op) in steps.into_iter().enumerate() {
        store.write(id.clone(), op, behind(HOUR_NS, 1_000 * at as u64)).unwrap();
        store.commit();
    }
    // The peer gets them before the correction, too: they count once.
    send(&store, &mut peer);
    assert_eq!((confirm(&mut store, HOUR_NS), sum(&store)), (1, Some(7.0)));
    store.write(id.clone(), add(10.0), behind(0, 2 * HOUR_NS)).unwrap();
    store.commit();
    assert_eq!(store.published().group(&id).unwrap().group.contributors().len(), 1, "it goes on");
    for _ in 0..2 {
        send(&store, &mut peer);
        assert_eq!((sum(&store), sum(&peer)), (Some(17.0), Some(17.0)));
    }
    let records: Vec<Record> = store.checkpoint().collect();
    let mut again = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
    records.into_iter().for_each(|record| again.restore(record));
    again.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(2));
    again.commit();
    assert_eq!(sum(&again), Some(17.0));
    store.merge(&id, Group::delete(WriteTimestamp { time_ns: START_NS, node: NodeId(9) }), StoreId(9)).unwrap();
    store.commit();
    assert_eq!(sum(&store), Some(17.0), "the peer's delete is older");
}

#[test]
fn increments_of_a_clock_behind_outlive_an_older_delete_of_a_peer() {
    let (mut store, mut peer, id) = (edge(), edge(), job("a"));
    store.write(id.clone(), add(2.0), behind(HOUR_NS, 10)).unwrap();
    store.commit();
    send(&store, &mut peer);
    assert_eq!((confirm(&mut store, HOUR_NS), sum(&store)), (1, Some(2.0)));
    let deleted = |time_ns| Group::delete(WriteTimestamp { time_ns, node: NodeId(9) });
    for store in [&mut store, &mut peer] {
        store.merge(&id, deleted(START_NS - HOUR_NS / 2), StoreId(9)).unwrap();
        store.commit();
    }
    assert_eq!((sum(&store), sum(&peer)), (Some(2.0), None));
    send(&store, &mut peer);
    assert_eq!(sum(&peer), Some(2.0));
    store.merge(&id, deleted(START_NS + HOUR_NS / 2), StoreId(9)).unwrap();
    store.commit();
    assert_eq!(sum(&store), None, "a newer delete ends them");
}

#[test]
fn while_a_clock_is_doubted_no_peer_takes_an_answered_increment_away() {
    let (mut store, id) = (edge(), job("a"));
    store.doubt_clock();
    store.write(id.clone(), add(2.0), behind(START_NS, 10)).unwrap();
    store.commit();
    store.merge(&id, Group::delete(WriteTimestamp { time_ns: START_NS, node: NodeId(9) }), StoreId(9)).unwrap();
    store.commit();
    assert_eq!(sum(&store), Some(2.0));
}
