//! Tombstones: how long they stay, and how they are dropped.

use super::*;

#[test]
fn a_forgotten_tombstone_is_gone_and_later_timestamps_follow_it() {
    let mut store = store(rules());
    let id = local(&[("job", "a")]);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(1_000)).unwrap();
    store.write(id.clone(), WriteOp::Delete, now(2_000)).unwrap();
    store.commit();
    assert_eq!(store.published().tombstones(store.published().head(), u64::MAX, 10).len(), 1);
    store.forget(&id);
    store.commit();
    assert_eq!(store.published().counts(), Counts::default());
    store.write(id.clone(), WriteOp::Put(vec![]), now(5)).unwrap();
    store.commit();
    assert!(store.published().group(&id).unwrap().group.latest().time_ns > 2_000);
}

#[test]
fn a_tombstone_that_the_draft_replaced_is_not_forgotten() {
    let mut store = store(rules());
    let id = local(&[("job", "a")]);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(1_000)).unwrap();
    store.write(id.clone(), WriteOp::Delete, now(2_000)).unwrap();
    store.commit();
    let due = store.published().tombstones(store.published().head(), u64::MAX, 10);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(3_000)).unwrap();
    store.write(id.clone(), WriteOp::Delete, now(4_000)).unwrap();
    due.iter().for_each(|entry| store.forget(entry.id()));
    store.commit();
    assert_eq!(store.published().group(&id).unwrap().group.deleted().time_ns, 4_000);
}

#[test]
fn a_peer_that_sends_a_deleted_group_is_sent_the_delete_again() {
    let mut store = store(rules());
    let (id, peer) = (at_site("S", &[("job", "a")]), StoreId(7));
    let old = pushed(1_000, vec![gauge("m")]);
    store.merge(&id, old.clone(), peer).unwrap();
    let stamp = crate::model::WriteTimestamp { time_ns: 2_000, node: NodeId(7) };
    store.merge(&id, Group::delete(stamp), peer).unwrap();
    let head = store.commit().head;
    let told = |store: &Store, since| {
        let changes = store.published().changes(
            &Scope::Site(id.site.clone()),
            since,
            Some((peer, crate::model::Revision(0))),
            1_000,
        );
        changes.changes.into_iter().map(|change| change.group.deleted()).collect::<Vec<_>>()
    };
    store.merge(&id, Group::delete(stamp), peer).unwrap();
    assert_eq!(store.commit().head, head, "the same is no news");
    store.merge(&id, old, peer).unwrap();
    store.commit();
    assert!(!store.published().group(&id).unwrap().group.is_live());
    assert_eq!(told(&store, head), [stamp]);
}

#[test]
fn tombstones_of_a_peer_are_merged_at_groups_max() {
    let limits = StoreLimits { groups_max: 1, series_max: 9 };
    let mut store = store(Rules { limits, ..rules() });
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    let refusal = store.merge(&at_site("S", &[("job", "b")]), pushed(2, vec![]), StoreId(7)).unwrap_err();
    assert_eq!(refusal, StoreRefusal::Limit { name: "limits.groups_max", max: 1 });
    let gone = || Group::delete(crate::model::WriteTimestamp { time_ns: 3, node: NodeId(7) });
    store.merge(&at_site("S", &[("job", "b")]), gone(), StoreId(7)).unwrap();
    store.merge(&at_site("S", &[("job", "c")]), gone(), StoreId(7)).unwrap_err();
    store.commit();
    assert_eq!(store.published().counts().tombstones, 1);
}

#[test]
fn tombstones_do_not_block_pushes() {
    let limits = StoreLimits { groups_max: 2, series_max: 9 };
    let mut store = store(Rules { limits, has_hubs: true, ..rules() });
    let group = |job: &str| local(&[("job", job)]);
    let full = Err(StoreRefusal::Limit { name: "limits.groups_max", max: 2 });
    let mut act = |job: &str, action: WriteOp, ns: u64| {
        let outcome = store.write(group(job), action, now(ns));
        store.commit();
        outcome
    };
    let push = || WriteOp::Put(vec![gauge("m")]);
    for (ns, job) in ["a", "b"].into_iter().enumerate() {
        act(job, push(), ns as u64 + 1).unwrap();
        act(job, WriteOp::Delete, ns as u64 + 11).unwrap();
    }
    act("c", push(), 21).unwrap();
    act("a", push(), 22).unwrap();
    assert_eq!(act("b", push(), 23), full, "two are live");
    act("c", WriteOp::Delete, 24).unwrap();
    act("a", WriteOp::Delete, 25).unwrap();
    act("d", push(), 26).unwrap();
    act("d", WriteOp::Delete, 27).unwrap();
    assert_eq!(act("e", push(), 28), full, "what is remembered is bounded too");
    act("a", push(), 29).unwrap();
    act("b", push(), 30).unwrap();
    assert_eq!((store.published().counts().groups, store.published().counts().tombstones), (2, 2));
}

#[test]
fn an_aborted_draft_drops_no_tombstone() {
    let mut store = store(rules());
    let id = local(&[("job", "a")]);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(1_000)).unwrap();
    store.write(id.clone(), WriteOp::Delete, now(2_000)).unwrap();
    store.commit();
    store.forget(&id);
    store.abort();
    assert_eq!(store.gc_watermark(), crate::model::Revision(0));
    let other = local(&[("job", "b")]);
    store.write(other.clone(), WriteOp::Put(vec![]), now(5)).unwrap();
    store.commit();
    assert_eq!(store.published().group(&other).unwrap().group.latest().time_ns, 5);
    assert!(store.published().group(&id).is_some());
}

#[test]
fn a_hub_stores_no_tombstone_of_a_group_unknown_to_edges() {
    let mut store = store(Rules { has_hubs: false, ..rules() });
    store.write(local(&[("job", "typo")]), WriteOp::Delete, now(1)).unwrap();
    store.write(at_site("S", &[("job", "a")]), WriteOp::Delete, now(1)).unwrap();
    store.commit();
    assert_eq!(store.published().counts().tombstones, 1);
    assert!(store.published().group(&at_site("S", &[("job", "a")])).is_some());
}
