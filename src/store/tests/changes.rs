//! The changes that a link reads from a store.

use std::collections::BTreeMap;

use super::*;
use crate::model::{PushTime, Revision, WriteTimestamp};

/// Found by simulation seed 2: a group was listed under its last change only. A batch that ended before it omitted the
/// group's earlier changes, and the next batch took them as sent.
#[test]
fn a_batch_has_all_changes_up_to_its_end() {
    let mut store = store(rules());
    for (at, (job, name)) in [("a", "m"), ("b", "m"), ("a", "n"), ("c", "m"), ("b", "o")].into_iter().enumerate() {
        store.write(local(&[("job", job)]), WriteOp::Post(vec![gauge(name)]), now(at as u64 + 1)).unwrap();
    }
    store.commit();
    let (published, mut since, mut read) = (store.published(), Default::default(), BTreeMap::<_, Group>::new());
    loop {
        let set = published.changes(&Scope::Site(Arc::default()), since, None, 1);
        for change in set.changes {
            read.entry(change.key).or_default().merge(&change.group);
        }
        for entry in published.entries() {
            let sent = read.get(&entry.id().key);
            let due = entry.families().filter(|(_, meta, _)| meta.revision <= set.upto);
            due.for_each(|(f, ..)| assert!(sent.unwrap().family(f.family.name()).is_some(), "{}", entry.id()));
        }
        since = set.upto;
        if !set.more {
            break;
        }
    }
    assert_eq!(read.values().map(|group| group.families().len()).sum::<usize>(), 5);
}

#[test]
fn changes_go_out_once_and_not_back_to_where_they_came_from() {
    let mut store = store(rules());
    let push_time = PushTime { stamp: WriteTimestamp { time_ns: 5, node: NodeId(7) }, wall_ns: 5 };
    let id = at_site("SYQ", &[("job", "b")]);
    store.merge(&id, Group::put(push_time, vec![gauge("m"), gauge("n")]), StoreId(7)).unwrap();
    store.commit();
    let start = Revision(0);
    let published = store.published();
    assert_eq!(published.changes(&Scope::Site(id.site.clone()), start, None, 1 << 20).changes.len(), 1);
    let skip = Some((StoreId(7), start));
    let none = published.changes(&Scope::Site(id.site.clone()), start, skip, 1 << 20);
    assert!(none.changes.is_empty());
    assert_eq!(none.upto, published.head());
    store.write(id.clone(), WriteOp::Post(vec![gauge("n")]), now(9)).unwrap();
    store.write(local(&[("job", "b")]), WriteOp::Post(vec![gauge("n")]), now(9)).unwrap();
    store.commit();
    let changes = published.changes(&Scope::Site(id.site.clone()), start, skip, 1 << 20);
    assert_eq!(changes.changes.len(), 1);
    let names: Vec<_> = changes.changes[0].group.families().iter().map(|f| f.family.name().to_string()).collect();
    assert_eq!(names, ["n"], "m came from the peer");
}

/// From any revision, with any knowledge of the peer, and with writes of others in any order.
#[test]
fn changes_of_others_are_never_taken_for_the_peers_own() {
    let site = |name| Scope::Site(at_site(name, &[("job", "0")]).site);
    for order in 0..4_u64.pow(6) {
        let mut store = store(rules());
        for (step, writer) in (0..6_u64).map(|step| (step, order / 4_u64.pow(step as u32) % 4)) {
            let id = at_site(if step == 4 { "BJ" } else { "SYQ" }, &[("job", &(step.div_ceil(2) % 2).to_string())]);
            let stamp = WriteTimestamp { time_ns: step + 1, node: NodeId(7) };
            let push_time = PushTime { stamp, wall_ns: step };
            match writer {
                // This node, the peer, and another one.
                0 => store.write(id, WriteOp::Post(vec![gauge("n")]), now(step + 1)).unwrap(),
                1 => drop(store.merge(&id, Group::post(push_time, vec![gauge("m")]), StoreId(1)).unwrap()),
                2 => drop(store.merge(&id, Group::post(push_time, vec![gauge("o")]), StoreId(2)).unwrap()),
                _ => store.write(id, WriteOp::Delete, now(step + 1)).unwrap(),
            }
            // Some steps are published together, and some tombstones are dropped.
            if step % 3 != 1 {
                store.commit();
                store.published().tombstones(Revision(1), u64::MAX, 1).iter().for_each(|gone| store.forget(gone.id()));
            }
        }
        store.commit();
        let published = store.published();
        let points = || (0..=published.head().0).map(Revision);
        for (since, after) in points().flat_map(|since| points().map(move |after| (since, after))) {
            for scope in [site("SYQ"), site("BJ"), Scope::Shown] {
                let due = |meta: FamilyMeta| {
                    meta.revision > since && !(meta.origin == Some(StoreId(1)) && meta.revision > after)
                };
                let concerned = |entry: &&Arc<GroupEntry>| match &scope {
                    Scope::Site(site) => entry.id().site == *site,
                    Scope::Shown => true,
                };
                let entries = published.entries();
                let expected: BTreeMap<_, _> = entries
                    .iter()
                    .filter(concerned)
                    .filter(|entry| due(entry.header) || entry.distinct_metas().any(due))
                    .map(|entry| (entry.shown().clone(), entry.group.part(|at, _| due(entry.metas.get(at)))))
                    .collect();
                let set = published.changes(&scope, since, Some((StoreId(1), after)), 1 << 20);
                let shown = |key: Arc<LabelSet>| match &scope {
                    Scope::Site(site) => GroupId { site: site.clone(), key }.shown(),
                    Scope::Shown => key,
                };
                let read = set.changes.into_iter().map(|change| (shown(change.key), change.group)).collect();
                assert_eq!((expected, set.upto, set.more), (read, published.head(), false), "{order} after {since}");
            }
        }
    }
}

/// After others have written once, a link must not look through all later changes of its own peer.
#[test]
fn old_changes_of_others_do_not_count_again() {
    let mut store = store(rules());
    let id = at_site("SYQ", &[("job", "a")]);
    let scope = Scope::Site(id.site.clone());
    store.write(id.clone(), WriteOp::Post(vec![gauge("m")]), now(1)).unwrap();
    store.commit();
    let mut push = |time_ns| {
        let stamp = WriteTimestamp { time_ns, node: NodeId(7) };
        let change = Group::post(PushTime { stamp, wall_ns: 5 }, vec![gauge("n")]);
        store.merge(&id, change, StoreId(7)).unwrap();
        store.commit();
        store.published()
    };
    let before = push(5).head();
    let published = push(6);
    let view = published.lock();
    assert!(view.changed.is_known(&scope, before, Some((StoreId(7), before))));
    assert!(!view.changed.is_known(&scope, Revision(0), Some((StoreId(7), before))));
}

#[test]
fn changes_are_read_in_batches() {
    let mut store = store(rules());
    for i in 0..10 {
        store.write(local(&[("job", &i.to_string())]), WriteOp::Put(vec![gauge("m")]), now(i)).unwrap();
    }
    store.commit();
    let (published, mut since, mut seen) = (store.published(), Revision(0), 0);
    loop {
        let set = published.changes(&Scope::Site(Arc::default()), since, None, 1);
        assert_eq!(set.changes.len(), 1);
        seen += 1;
        since = set.upto;
        if !set.more {
            break;
        }
    }
    assert_eq!((seen, since), (10, published.head()));
}

#[test]
fn batches_are_cut_within_a_group_by_bytes() {
    let mut store = store(rules());
    for i in 0..100 {
        store.write(local(&[("job", "a")]), WriteOp::Post(vec![gauge(&format!("m{i}"))]), now(i + 1)).unwrap();
    }
    store.commit();
    let (published, mut since, mut batches) = (store.published(), Revision(0), Vec::new());
    loop {
        let set = published.changes(&Scope::Site(Arc::default()), since, None, 1_000);
        batches.push(set.changes.iter().map(|change| change.group.families().len()).sum::<usize>());
        since = set.upto;
        if !set.more {
            break;
        }
    }
    assert_eq!(batches.iter().sum::<usize>(), 100, "each family once");
    let each = batches[0];
    assert!((5..15).contains(&each), "{each} families of some hundred bytes");
    assert!(batches[..batches.len() - 1].iter().all(|families| *families == each), "{batches:?}");
}
