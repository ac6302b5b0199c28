//! Whoever writes, every push is answered, and every answered push is there.

use futures_util::FutureExt;

use super::*;
use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupId, MetricType, NodeId, PushTime, ValueLayout, WriteTimestamp,
};
use crate::storage::{self, Fault, SimulatedDisk, begin, recover};
use crate::store::{Identity, Rules, Scope, StoreLimits};

fn writer(uplinks: usize) -> (Writer, JoinHandle<()>) {
    let mut store = Store::new(Rules { has_hubs: uplinks > 0, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let retention = Retention { uplinks, hub_ns: 0 };
    Writer::start(store, None, Arc::default(), Arc::default(), retention).unwrap()
}

fn key(group: usize) -> LabelSet {
    LabelSet::new([("job", group.to_string())])
}

fn family(values: usize, value: f64) -> Family {
    let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
    for series in 0..values {
        builder.series(&[("series", &format!("{series:06}"))], &ValueLayout::Single, &[value], None);
    }
    builder.finish().unwrap()
}

async fn join(thread: JoinHandle<()>) {
    tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_from_everywhere_are_all_answered_and_all_there() {
    let (writer, thread) = writer(0);
    let pushers = (0..16).map(|group| {
        let writer = writer.clone();
        tokio::spawn(async move {
            for push in 0..100 {
                // One in some is large enough for the thread.
                let values = if push % 25 == group { INLINE_VALUES_MAX + 1 } else { 1 };
                writer.write(key(group), WriteOp::Put(vec![family(values, push as f64)])).await.unwrap();
                let entry = writer.published().group(&GroupId::local(key(group))).unwrap();
                assert_eq!(entry.group.family("m").unwrap().family.values()[..], vec![push as f64; values]);
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    assert_eq!(writer.published().counts().groups, 16);
    writer.stop().await;
    join(thread).await;
    assert!(writer.is_over());
    assert_eq!(writer.write(key(0), WriteOp::Delete).await, Err(WriteError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_writes_while_the_store_is_closed_is_told() {
    let (writer, thread) = writer(0);
    let pushers: Vec<_> = (0..8)
        .map(|group| {
            let writer = writer.clone();
            tokio::spawn(async move {
                while writer.write(key(group), WriteOp::Put(vec![family(1, 1.0)])).await != Err(WriteError::Stopped) {}
            })
        })
        .collect();
    writer.stop().await;
    join(thread).await;
    for pusher in pushers {
        pusher.await.unwrap();
    }
}

#[tokio::test]
async fn pushes_that_come_at_the_same_time_share_a_sync() {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let (metrics, retention) = (Arc::<Metrics>::default(), Retention { uplinks: 0, hub_ns: 0 });
    let (writer, thread) = Writer::start(store, None, Arc::default(), metrics.clone(), retention).unwrap();
    let pushers = (0..16).map(|group| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.write(key(group), WriteOp::Put(vec![family(1, 1.0)])).await })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        assert_eq!(pusher.await.unwrap(), Ok(()));
    }
    assert_eq!((writer.published().counts().groups, metrics.commits.get()), (16, 1));
    writer.stop().await;
    join(thread).await;
}

/// A hub whose disk is slow would else fall behind with one merge a sync.
#[tokio::test]
async fn what_waits_in_the_queue_shares_a_sync_with_the_pushes() {
    let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let (metrics, retention) = (Arc::<Metrics>::default(), Retention { uplinks: 0, hub_ns: 1 });
    let (writer, mut queue) = Writer::without_thread(store, None, Arc::default(), metrics.clone(), retention);
    let mut merging = Vec::new();
    for group in 0..5 {
        let site = Scope::Site(Arc::new(LabelSet::new([("IDC", group.to_string())])));
        let stamp = WriteTimestamp { time_ns: 1, node: NodeId(9) };
        let change = Group::put(PushTime { stamp, wall_ns: 1 }, vec![family(1, 1.0)]);
        let deltas = vec![Delta { id: GroupId::local(key(group)), group: change }];
        let peer = StoreId(9 + group as u64);
        merging.push(writer.merge(site, deltas, peer, Position::default(), &Chain::default()).await.unwrap());
    }
    let put = |group: usize, values| {
        let (reply, answer) = oneshot::channel();
        let permit = writer.room.clone().try_acquire_owned().unwrap();
        let (shown, action) = (Arc::new(key(group)), WriteOp::Put(vec![family(1, 1.0)]));
        writer.desk.put(Write { shown, action, values, reply, permit });
        answer
    };
    let small = put(10, 1);
    writer.desk.sit().unwrap().as_mut().unwrap().turn(queue.try_recv().ok(), &mut queue, &writer.desk);
    assert_eq!((writer.published().counts().groups, metrics.commits.get()), (6, 1));
    assert_eq!(small.await.unwrap(), Ok(()));
    for merging in merging {
        assert_eq!(merging.done().await, Ok(Vec::new()));
    }
    // What is large goes by itself.
    let answers = [put(11, 1), put(12, INLINE_VALUES_MAX + 1), put(13, 1)];
    writer.desk.sit().unwrap().as_mut().unwrap().turn(None, &mut queue, &writer.desk);
    assert_eq!((writer.published().counts().groups, metrics.commits.get()), (9, 4));
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_push_is_written_though_nobody_waits_for_it_any_more() {
    let (writer, thread) = writer(0);
    let push = writer.write(key(1), WriteOp::Put(vec![family(1, 1.0)]));
    assert_eq!(push.now_or_never(), None, "others come first");
    writer.stop().await;
    join(thread).await;
    assert_eq!(writer.published().counts().groups, 1);
}

#[test]
fn what_would_keep_others_waiting_is_left_to_the_thread() {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let retention = Retention { uplinks: 0, hub_ns: 0 };
    // The queue of a thread that is not there: what is left stays.
    let (writer, _queue) = Writer::without_thread(store, None, Arc::default(), Arc::default(), retention);
    let put = |group, values| {
        let (reply, answer) = oneshot::channel();
        let permit = writer.room.clone().try_acquire_owned().unwrap();
        let (shown, action) = (Arc::new(key(group)), WriteOp::Put(vec![family(1, 1.0)]));
        writer.desk.put(Write { shown, action, values, reply, permit });
        answer
    };
    let (slow, fast) = (2 * desk::SLOW, desk::SLOW / 2);
    writer.desk.wrote(1, slow);
    let mut first = put(1, 1);
    assert_eq!(writer.desk.try_write(), Outcome::More, "the disk is slow");
    assert!(first.try_recv().is_err());
    writer.desk.wrote(1, fast);
    assert_eq!(writer.desk.try_write(), Outcome::Done);
    assert_eq!(first.try_recv(), Ok(Ok(())));
    let half = INLINE_VALUES_MAX / 2;
    let mut answers = [put(2, half), put(3, half), put(4, half)];
    assert_eq!(writer.desk.try_write(), Outcome::More, "that is a lot together");
    assert_eq!(answers.each_mut().map(|answer| answer.try_recv().is_ok()), [true, true, false]);
}

#[tokio::test]
async fn a_tombstone_goes_when_the_hub_holds_it() {
    let (writer, thread) = writer(1);
    writer.write(key(1), WriteOp::Put(vec![family(1, 1.0)])).await.unwrap();
    let mut head = writer.subscribe(Scope::Site(Arc::default()));
    writer.write(key(1), WriteOp::Delete).await.unwrap();
    assert_eq!(writer.published().counts().tombstones, 1);
    head.mark_unchanged();
    assert!(writer.uplink_holds(0, writer.published().head()));
    head.changed().await.unwrap();
    assert_eq!(writer.published().counts().tombstones, 0);
    writer.stop().await;
    join(thread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn merges_that_go_on_coming_keep_no_push_waiting() {
    let (writer, thread) = writer(0);
    let (peer, site) = (StoreId(9), Arc::new(LabelSet::new([("IDC", "SYQ")])));
    let merging = (0..4).map(|_| {
        let (writer, site) = (writer.clone(), site.clone());
        tokio::spawn(async move {
            while let Ok(merging) =
                writer.merge(Scope::Site(site.clone()), vec![], peer, Position::default(), &Chain::default()).await
            {
                drop(merging);
            }
        })
    });
    let merging: Vec<_> = merging.collect();
    for push in 0..50 {
        writer.write(key(push), WriteOp::Put(vec![family(1, 1.0)])).await.unwrap();
    }
    writer.stop().await;
    join(thread).await;
    for merges in merging {
        merges.await.unwrap();
    }
}

#[tokio::test]
async fn a_conflict_report_is_noted_in_the_group_of_its_site() {
    let (writer, thread) = writer(0);
    let site = Arc::new(LabelSet::new([("IDC", "SYQ")]));
    let id = GroupId { site: site.clone(), key: Arc::new(key(1)) };
    let stamp = WriteTimestamp { time_ns: 5, node: NodeId(7) };
    let group = Group::put(PushTime { stamp, wall_ns: 5 }, vec![family(1, 1.0)]);
    let delta = Delta { id: GroupId::local(key(1)), group };
    let scope = Scope::Site(site);
    let merging =
        writer.merge(scope.clone(), vec![delta], StoreId(9), Position::default(), &Chain::default()).await.unwrap();
    assert_eq!(merging.done().await, Ok(vec![]));
    let report = |stamp| ConflictReport { key: id.key.clone(), family: "m".into(), stamp, text: "no".into() };
    let failed = |writer: &Writer| writer.published().group(&id).unwrap().group.failed().is_some();
    writer.held_back(scope.clone(), vec![report(WriteTimestamp::ZERO)]).await;
    writer.info(None).await.unwrap();
    assert!(!failed(&writer), "another push is there by now");
    writer.held_back(scope, vec![report(stamp)]).await;
    writer.info(None).await.unwrap();
    assert!(failed(&writer));
    writer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn a_family_that_the_same_update_makes_room_for_is_not_reported() {
    let (writer, thread) = writer(0);
    let scope = Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")])));
    let put = |group: usize, time_ns: u64, families: Vec<Family>| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(7) }, wall_ns: time_ns };
        Delta { id: GroupId::local(key(group)), group: Group::put(moment, families) }
    };
    let mut counter = FamilyBuilder::new("m", MetricType::Counter);
    counter.series(&[], &ValueLayout::Single, &[1.0], None);
    let counter = counter.finish().unwrap();
    let chain = Chain::default();
    let merge = |deltas| writer.merge(scope.clone(), deltas, StoreId(9), Position::default(), &chain);
    let first = merge(vec![put(1, 1, vec![counter.clone()])]).await.unwrap();
    assert_eq!(first.done().await, Ok(vec![]));
    // The one group takes the name after the other has given it up, which was pushed to again since.
    let second = merge(vec![put(2, 3, vec![family(1, 1.0)]), put(1, 4, vec![])]).await.unwrap();
    assert_eq!(second.done().await, Ok(vec![]));
    let third = merge(vec![put(1, 5, vec![counter])]).await.unwrap();
    let told: Vec<_> = third.done().await.unwrap().into_iter().map(|report| (report.key, report.family)).collect();
    assert_eq!(told, [(Arc::new(key(1)), "m".into())]);
    writer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn no_cursor_covers_a_merge_that_failed() {
    let limits = StoreLimits { groups_max: 1, ..StoreLimits::default() };
    let mut store = Store::new(Rules { limits, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let retention = Retention { uplinks: 0, hub_ns: 0 };
    let (writer, thread) = Writer::start(store, None, Arc::default(), Arc::default(), retention).unwrap();
    let (scope, peer) = (Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")]))), StoreId(9));
    let put = |group: usize| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(7) }, wall_ns: 1 };
        Delta { id: GroupId::local(key(group)), group: Group::put(moment, vec![]) }
    };
    let at = |revision| Position { epoch: Epoch(5), revision: Revision(revision) };
    let chain = Chain::default();
    let merge = |deltas, revision, chain| writer.merge(scope.clone(), deltas, peer, at(revision), chain);
    let first = merge(vec![put(1)], 1, &chain).await.unwrap();
    // Both are queued before anybody hears that the first of them fails.
    let failing = merge(vec![put(2)], 2, &chain).await.unwrap();
    let later = merge(vec![], 3, &chain).await.unwrap();
    assert_eq!(first.done().await, Ok(vec![]));
    assert!(matches!(failing.done().await, Err(WriteError::Refused(_))));
    assert!(matches!(later.done().await, Err(WriteError::Storage(_))));
    assert_eq!(writer.info(None).await.unwrap().cursors[&peer].position, at(1));
    let another = merge(vec![], 3, &Chain::default()).await.unwrap();
    assert_eq!(another.done().await, Ok(vec![]));
    assert_eq!(writer.info(None).await.unwrap().cursors[&peer].position, at(3));
    writer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn no_merge_follows_one_that_could_not_be_made_durable_to_make_room_for_it() {
    let limits = StoreLimits { groups_max: 1, ..StoreLimits::default() };
    let disk = SimulatedDisk::new(1);
    let recovered = recover(Arc::new(disk.clone()), storage::Options::default(), &mut |_| {}).unwrap();
    let store = Store::new(Rules { limits, ..Rules::default() }, &[]);
    let (store, log) = begin(store, recovered, Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1)).unwrap();
    let retention = Retention { uplinks: 0, hub_ns: 0 };
    let (writer, thread) = Writer::start(store, Some(log), Arc::default(), Arc::default(), retention).unwrap();
    let (scope, peer, chain) = (Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")]))), StoreId(9), Chain::default());
    let put = |group: usize| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(7) }, wall_ns: 1 };
        Delta { id: GroupId::local(key(group)), group: Group::put(moment, vec![]) }
    };
    let at = |revision| Position { epoch: Epoch(5), revision: Revision(revision) };
    // Both are queued before the thread does anything, and the second has no room beside the first.
    let seat = writer.desk.sit().unwrap();
    let queue = |group, revision| {
        let merge = writer.merge(scope.clone(), vec![put(group)], peer, at(revision), &chain);
        merge.now_or_never().expect("the queue has room").unwrap()
    };
    let (first, second) = (queue(1, 1), queue(2, 2));
    disk.fail_at(disk.operations(), Fault::Broken);
    drop(seat);
    assert!(matches!(first.done().await, Err(WriteError::Storage(_))));
    assert_eq!(second.done().await, Err(WriteError::from(MergeError::Broken)));
    assert!(writer.info(None).await.unwrap().cursors.is_empty());
    // The disk works again.
    let again = writer.merge(scope, vec![put(1)], peer, at(1), &Chain::default()).await.unwrap();
    assert_eq!(again.done().await, Ok(vec![]));
    writer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn an_update_that_comes_alone_is_merged_where_it_came_and_one_behind_another_waits_for_it() {
    let (writer, thread) = writer(0);
    let (scope, peer, chain) = (Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")]))), StoreId(9), Chain::default());
    let at = |revision| Position { epoch: Epoch(5), revision: Revision(revision) };
    let merge = |revision| {
        let merge = writer.merge(scope.clone(), vec![], peer, at(revision), &chain);
        merge.now_or_never().expect("there is room").unwrap()
    };
    let is_done = |merging: &mut Merging| merging.answer.try_recv().is_ok();
    // With the first, others may move: the thread merges it, and then leaves its seat.
    assert_eq!(merge(0).done().await, Ok(vec![]));
    drop(writer.desk.sit());
    assert!(is_done(&mut merge(1)), "nobody had to be woken");
    let seat = writer.desk.sit().unwrap();
    let mut behind = merge(2);
    assert!(!is_done(&mut behind), "somebody writes");
    drop(seat);
    // Now the thread may take the second at any time, and it has to come before the third.
    let third = merge(3);
    assert_eq!(behind.done().await, Ok(vec![]));
    assert_eq!(third.done().await, Ok(vec![]));
    assert_eq!(writer.info(None).await.unwrap().cursors[&peer].position, at(3));
    assert!(chain.is_idle());
    writer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn tombstones_that_are_all_due_at_once_go_a_thousand_a_commit() {
    let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let now = |ns| crate::store::WriteTime { wall_ns: ns, stamp_ns: ns };
    for group in 0..2_500 {
        store.write(GroupId::local(key(group)), WriteOp::Put(vec![]), now(5)).unwrap();
        store.write(GroupId::local(key(group)), WriteOp::Delete, now(6)).unwrap();
    }
    store.commit();
    let metrics = Arc::<Metrics>::default();
    let retention = Retention { uplinks: 1, hub_ns: 0 };
    let (writer, thread) = Writer::start(store, None, Arc::default(), metrics.clone(), retention).unwrap();
    assert_eq!(writer.published().counts().tombstones, 2_500);
    assert!(writer.uplink_holds(0, writer.published().head()));
    let gone = async {
        while writer.published().counts().tombstones > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("they go, whoever pushes");
    writer.stop().await;
    join(thread).await;
    assert_eq!(metrics.commits.get(), 3);
}
