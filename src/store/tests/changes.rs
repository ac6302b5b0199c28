//! What a link reads of a store.

use super::*;

/// Found by simulation seed 2: a group was listed under its last change only, so that a batch that ended before that left
/// out what had changed of it earlier, and the next batch took that for sent.
#[test]
fn a_batch_has_all_changes_up_to_where_it_ends() {
    let mut store = store(rules());
    for (at, (job, name)) in [("a", "m"), ("b", "m"), ("a", "n"), ("c", "m"), ("b", "o")].into_iter().enumerate() {
        store.write(local(&[("job", job)]), Action::Post(vec![gauge(name)]), now(at as u64 + 1)).unwrap();
    }
    store.commit();
    let (published, mut since, mut read) = (store.published(), Default::default(), BTreeMap::<_, Group>::new());
    loop {
        let set = published.changes(&Scope::Place(Arc::default()), since, None, 1);
        for change in set.changes {
            read.entry(change.key).or_default().merge(&change.group);
        }
        for entry in published.entries() {
            let sent = read.get(&entry.id().key);
            let due = entry.families().filter(|(_, mark, _)| mark.revision <= set.upto);
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
    let moment = crate::model::Moment { stamp: crate::model::Stamp { time_ns: 5, node: NodeId(7) }, wall_ns: 5 };
    let id = placed("SYQ", &[("job", "b")]);
    store.merge(id.clone(), Group::put(moment, vec![gauge("m"), gauge("n")]), StoreId(7)).unwrap();
    store.commit();
    let start = crate::model::Revision(0);
    let published = store.published();
    assert_eq!(published.changes(&Scope::Place(id.place.clone()), start, None, 1 << 20).changes.len(), 1);
    let skip = Some((StoreId(7), start));
    let none = published.changes(&Scope::Place(id.place.clone()), start, skip, 1 << 20);
    assert!(none.changes.is_empty());
    assert_eq!(none.upto, published.head());
    store.write(id.clone(), Action::Post(vec![gauge("n")]), now(9)).unwrap();
    store.write(local(&[("job", "b")]), Action::Post(vec![gauge("n")]), now(9)).unwrap();
    store.commit();
    let changes = published.changes(&Scope::Place(id.place.clone()), start, skip, 1 << 20);
    assert_eq!(changes.changes.len(), 1);
    let names: Vec<_> = changes.changes[0].group.families().iter().map(|f| f.family.name().to_string()).collect();
    assert_eq!(names, ["n"], "m came from the peer");
}

/// From whichever revision a link goes on, and in whatever order peers write to its place.
#[test]
fn what_others_changed_is_never_taken_for_the_peers_own() {
    let id = |group: u64| placed("SYQ", &[("job", &group.to_string())]);
    // The peer, another one, and this node, as the digits of a number.
    for order in 0..3_u64.pow(5) {
        let mut store = store(rules());
        for (step, writer) in (0..5).map(|step| (step, order / 3_u64.pow(step as u32) % 3)) {
            let stamp = crate::model::Stamp { time_ns: step + 1, node: NodeId(7) };
            let moment = crate::model::Moment { stamp, wall_ns: step };
            match writer {
                2 => store.write(id(step % 2), Action::Put(vec![gauge("m")]), now(step + 1)).unwrap(),
                peer => drop(store.merge(id(step % 2), Group::put(moment, vec![gauge("m")]), StoreId(peer)).unwrap()),
            }
            // Some steps are published together.
            if step % 3 != 1 {
                store.commit();
            }
        }
        let published = store.published();
        let entries = [id(0), id(1)].map(|id| published.group(&id).unwrap());
        for since in (0..=published.head().0).map(crate::model::Revision) {
            let set = published.changes(&Scope::Place(id(0).place), since, Some((StoreId(0), since)), 1 << 20);
            let due = |mark: Mark| mark.revision > since && mark.origin != Some(StoreId(0));
            let due = entries.iter().filter(|entry| due(entry.header) || entry.marks().any(due)).count();
            assert_eq!(
                (set.changes.len(), set.upto, set.more),
                (due, published.head(), false),
                "{order} after {since}"
            );
        }
    }
}

#[test]
fn changes_come_in_portions() {
    let mut store = store(rules());
    for i in 0..10 {
        store.write(local(&[("job", &i.to_string())]), Action::Put(vec![gauge("m")]), now(i)).unwrap();
    }
    store.commit();
    let (published, mut since, mut seen) = (store.published(), crate::model::Revision(0), 0);
    loop {
        let set = published.changes(&Scope::Place(Arc::default()), since, None, 1);
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
fn changes_of_one_group_are_cut_where_the_bytes_are() {
    let mut store = store(rules());
    for i in 0..100 {
        store.write(local(&[("job", "a")]), Action::Post(vec![gauge(&format!("m{i}"))]), now(i + 1)).unwrap();
    }
    store.commit();
    let (published, mut since, mut batches) = (store.published(), crate::model::Revision(0), Vec::new());
    loop {
        let set = published.changes(&Scope::Place(Arc::default()), since, None, 1_000);
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
