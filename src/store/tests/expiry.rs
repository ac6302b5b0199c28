//! Groups whose lifetime has ended.

use super::*;
use crate::model::{Lifetime, PushTime, WriteTimestamp};
use crate::selector::Selector;
use crate::store::CLOCK_NS_MIN;

const HOUR_NS: u64 = 3_600_000_000_000;
const START_NS: u64 = CLOCK_NS_MIN + 1_000 * HOUR_NS;

/// Some hours after the start.
fn hour(hours: u64) -> WriteTime {
    let ns = START_NS + hours * HOUR_NS;
    WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: hours * HOUR_NS }
}

fn rule(selector: &str, lifetime: &str) -> ExpiryRule {
    ExpiryRule { selector: Selector::parse(selector).unwrap(), lifetime: lifetime.parse().unwrap() }
}

/// A node without peers.
fn node(number: u64, expiry: &[(&str, &str)]) -> Store {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(identity(number), Epoch(number));
    store.commit();
    let rules = expiry.iter().map(|(selector, lifetime)| rule(selector, lifetime)).collect();
    store.published().set_expiry_rules(ExpiryRules::new(rules));
    store
}

fn job(name: &str) -> GroupId {
    local(&[("job", name)])
}

fn put(store: &mut Store, name: &str, lifetime: Option<&str>, now: WriteTime) {
    let lifetime = lifetime.map(|text| text.parse().unwrap());
    let terms = WriteTerms { lifetime, ..WriteTerms::default() };
    store.write_within(job(name), WriteOp::Put(vec![gauge("m")]), terms, now).unwrap();
    store.commit();
}

/// Deletes what is due, and returns the names.
fn sweep(store: &mut Store, now: WriteTime) -> Vec<String> {
    let (published, mut found) = (store.published(), Vec::new());
    let mut walk = ExpiryWalk::begin(&published, now.stamp_ns);
    while let Some(due) = walk.step(&published) {
        found.extend(due.into_iter().filter(|id| store.expire(id, now)));
    }
    store.commit();
    let mut names: Vec<String> = found.iter().map(|id| id.key.get("job").unwrap().to_owned()).collect();
    names.sort();
    names
}

fn group(store: &Store, name: &str) -> Group {
    store.published().group(&job(name)).unwrap().group.clone()
}

const ALL: (&str, &str) = ("{job=~\".+\"}", "10h");

#[test]
fn the_first_rule_that_matches_decides_and_the_newest_push_before_it() {
    let mut store = node(1, &[("{job=\"kept\"}", "never"), ("{job=~\"ci.*\"}", "2h"), ALL]);
    for (name, lifetime) in
        [("kept", None), ("ci", None), ("other", None), ("ci-short", Some("1h")), ("ci-kept", Some("never"))]
    {
        put(&mut store, name, lifetime, hour(0));
    }
    // A newer push without the header asks for nothing.
    put(&mut store, "again", Some("1h"), hour(0));
    put(&mut store, "again", None, hour(0));
    let early = WriteTime { stamp_ns: hour(1).stamp_ns - 1, ..hour(1) };
    assert_eq!(sweep(&mut store, early), Vec::<String>::new());
    assert_eq!(sweep(&mut store, hour(1)), ["ci-short"]);
    assert_eq!(sweep(&mut store, hour(2)), ["ci"]);
    assert_eq!(sweep(&mut store, hour(11)), ["again", "other"]);
    assert_eq!(sweep(&mut store, hour(1_000)), Vec::<String>::new());
    assert_eq!(store.published().counts().groups, 2);
    let view = ExpiryView::new(&store.published(), hour(0).stamp_ns);
    assert_eq!(view.left_ns(&store.published().group(&job("kept")).unwrap()), None);
}

#[test]
fn all_nodes_make_the_same_tombstone_and_every_newer_push_wins() {
    let (mut early, mut late) = (node(1, &[ALL]), node(2, &[ALL]));
    put(&mut early, "a", None, hour(0));
    let old = group(&early, "a");
    late.merge(&job("a"), old.clone(), StoreId(1)).unwrap();
    late.commit();
    assert_eq!(sweep(&mut early, hour(10)), ["a"]);
    assert_eq!(sweep(&mut late, hour(500)), ["a"]);
    let [one, other] = [&early, &late].map(|store| group(store, "a"));
    assert_eq!((one.deleted(), one.cleared_at()), (other.deleted(), other.cleared_at()));
    assert_eq!(Some(one.deleted()), old.latest().next(), "not the time of the sweep");
    // The same old push revives nothing.
    early.merge(&job("a"), old.clone(), StoreId(9)).unwrap();
    assert!(!early.drafted(&job("a")).unwrap().group.is_live());
    // A push that nobody here had seen, older than both sweeps but newer than the push that expired.
    let stamp = WriteTimestamp { time_ns: hour(0).stamp_ns + 1, node: NodeId(0) };
    let unseen = Group::post(PushTime { stamp, wall_ns: stamp.time_ns }, vec![gauge("n")]);
    for store in [&mut early, &mut late] {
        store.merge(&job("a"), unseen.clone(), StoreId(9)).unwrap();
        store.commit();
        assert!(group(store, "a").is_live());
        let names: Vec<String> = group(store, "a").families().iter().map(|f| f.family.name().to_string()).collect();
        assert_eq!(names, ["n"]);
    }
}

#[test]
fn a_refused_push_prolongs_nothing() {
    let mut store = node(1, &[ALL]);
    put(&mut store, "a", None, hour(0));
    store.write(job("a"), WriteOp::Refuse, hour(9)).unwrap();
    store.write(job("never accepted"), WriteOp::Refuse, hour(9)).unwrap();
    store.commit();
    assert_eq!(sweep(&mut store, hour(10)), ["a"]);
    assert!(!group(&store, "a").is_live(), "the time of the refused push goes, too");
    assert_eq!(sweep(&mut store, hour(19)), ["never accepted"]);
}

#[test]
fn a_clock_that_is_set_makes_no_group_old() {
    let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
    store.open(identity(1), Epoch(1));
    store.published().set_expiry_rules(ExpiryRules::new(vec![rule(ALL.0, ALL.1)]));
    store.commit();
    put(&mut store, "a", None, hour(0));
    // Two hours later the clock is set forward by a month.
    let set = WriteTime { monotonic_ns: 2 * HOUR_NS, ..hour(720) };
    assert_eq!(sweep(&mut store, set), Vec::<String>::new());
    store.write(job("a"), WriteOp::Refuse, set).unwrap();
    store.commit();
    assert_eq!(sweep(&mut store, WriteTime { monotonic_ns: 10 * HOUR_NS, ..set }), ["a"], "counted from the push");
    // A clock that cannot be right makes no timestamp that expires.
    let mut store = node(2, &[ALL]);
    put(&mut store, "a", None, now(5));
    assert_eq!(sweep(&mut store, hour(0)), Vec::<String>::new());
    // A clock that is known to be wrong lets nothing expire.
    let mut store = node(3, &[ALL]);
    put(&mut store, "a", None, hour(0));
    store.doubt_clock();
    assert_eq!(sweep(&mut store, hour(100)), Vec::<String>::new());
}

#[test]
fn the_tombstone_of_an_expiry_is_kept_from_the_time_it_was_found() {
    let mut store = node(1, &[ALL]);
    put(&mut store, "a", None, hour(0));
    assert_eq!(sweep(&mut store, hour(1_000)), ["a"]);
    let kept = |before: WriteTime| store.published().tombstones(store.published().head(), before.stamp_ns, 10).len();
    assert_eq!((kept(hour(1_000)), kept(hour(1_002))), (0, 1));
}

#[test]
fn a_walk_says_when_the_next_one_is_due() {
    let mut store = node(1, &[("{job=\"b\"}", "5h")]);
    let published = store.published();
    assert_eq!(published.expiry_due_ns(u64::MAX), u64::MAX, "there is no group");
    put(&mut store, "a", None, hour(0));
    put(&mut store, "b", None, hour(1));
    assert_eq!(published.expiry_due_ns(u64::MAX), hour(5).stamp_ns, "at the earliest");
    let walk = |now: WriteTime| {
        let mut walk = ExpiryWalk::begin(&published, now.stamp_ns);
        let due: usize = std::iter::from_fn(|| walk.step(&published)).map(|due| due.len()).sum();
        (due, walk.next_due_ns())
    };
    assert_eq!(walk(hour(5)), (0, hour(6).stamp_ns));
    assert_eq!(published.expiry_due_ns(hour(6).stamp_ns), hour(6).stamp_ns);
    assert_eq!(walk(hour(6)), (1, hour(6).stamp_ns));
    put(&mut store, "c", Some("1h"), hour(2));
    assert_eq!(published.expiry_due_ns(u64::MAX), hour(3).stamp_ns);
    published.set_expiry_rules(ExpiryRules::default());
    assert_eq!(walk(hour(4)), (1, hour(3).stamp_ns), "a header needs no rule");
    assert_eq!(Lifetime::NEVER.ms(), None);
}
