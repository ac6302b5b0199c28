//! Every push is answered, and every answered push is in the store, whoever leads.

use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::FutureExt;
use pushrelay_testkit::disk::{DiskFault, SimulatedDisk};
use tokio::sync::oneshot;

use super::queue::{self, Lead};
use super::waiting::QueuedWrite;
use super::worker::BatchStats;
use super::{Committer, PendingMerge};
use crate::commit::command::SHARED_VALUES_MAX;
use crate::commit::{GroupWrite, MergeError, MergeSequence, Retention, WriteError};
use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, NodeId, Position, PushTime, Revision, StoreId,
    ValueLayout, WriteTimestamp,
};
use crate::node::metrics::Metrics;
use crate::storage::{self, recover};
use crate::store::{Identity, Rules, Scope, Store, StoreLimits, WriteOp};
use crate::wire::{ConflictReport, Delta};

fn committer(uplinks: usize) -> (Committer, JoinHandle<()>) {
    let mut store = Store::new(Rules { has_hubs: uplinks > 0, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let retention = Retention { uplinks, hub_ns: 0 };
    Committer::start(store, None, Arc::default(), Arc::default(), retention).unwrap()
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
async fn concurrent_pushes_are_all_answered_and_stored() {
    let (committer, thread) = committer(0);
    let pushers = (0..16).map(|group| {
        let committer = committer.clone();
        tokio::spawn(async move {
            for push in 0..100 {
                // Some are so large that the worker thread commits them.
                let values = if push % 25 == group { SHARED_VALUES_MAX + 1 } else { 1 };
                committer.write(key(group), WriteOp::Put(vec![family(values, push as f64)])).await.unwrap();
                let entry = committer.published().group(&GroupId::local(key(group))).unwrap();
                assert_eq!(entry.group.family("m").unwrap().family.values()[..], vec![push as f64; values]);
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    assert_eq!(committer.published().counts().groups, 16);
    committer.stop().await;
    join(thread).await;
    assert!(committer.is_over());
    assert_eq!(committer.write(key(0), WriteOp::Delete).await, Err(WriteError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_during_shutdown_gets_an_error() {
    let (committer, thread) = committer(0);
    let pushers: Vec<_> = (0..8)
        .map(|group| {
            let committer = committer.clone();
            tokio::spawn(async move {
                while committer.write(key(group), WriteOp::Put(vec![family(1, 1.0)])).await != Err(WriteError::Stopped)
                {
                }
            })
        })
        .collect();
    committer.stop().await;
    join(thread).await;
    for pusher in pushers {
        pusher.await.unwrap();
    }
}

#[tokio::test]
async fn pushes_that_arrive_together_share_a_sync() {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let (metrics, retention) = (Arc::<Metrics>::default(), Retention { uplinks: 0, hub_ns: 0 });
    let (committer, thread) = Committer::start(store, None, Arc::default(), metrics.clone(), retention).unwrap();
    let pushers = (0..16).map(|group| {
        let committer = committer.clone();
        tokio::spawn(async move { committer.write(key(group), WriteOp::Put(vec![family(1, 1.0)])).await })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        assert_eq!(pusher.await.unwrap(), Ok(()));
    }
    assert_eq!((committer.published().counts().groups, metrics.commits.get()), (16, 1));
    committer.stop().await;
    join(thread).await;
}

/// With one sync for each merge, a hub with a slow disk falls behind.
#[tokio::test]
async fn queued_merges_share_a_sync_with_queued_pushes() {
    let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let (metrics, retention) = (Arc::<Metrics>::default(), Retention { uplinks: 0, hub_ns: 1 });
    let (committer, mut incoming) = Committer::without_thread(store, None, Arc::default(), metrics.clone(), retention);
    let mut pending = Vec::new();
    for group in 0..5 {
        let site = Scope::Site(Arc::new(LabelSet::new([("IDC", group.to_string())])));
        let stamp = WriteTimestamp { time_ns: 1, node: NodeId(9) };
        let change = Group::put(PushTime { stamp, wall_ns: 1 }, vec![family(1, 1.0)]);
        let deltas = vec![Delta { id: GroupId::local(key(group)), group: change }];
        let peer = StoreId(9 + group as u64);
        pending
            .push(committer.merge(site, deltas, peer, Position::default(), &MergeSequence::default()).await.unwrap());
    }
    let put = |group: usize, values| {
        let (reply, answer) = oneshot::channel();
        let permit = committer.queue_slots.clone().try_acquire_owned().unwrap();
        let (shown, op) = (Arc::new(key(group)), WriteOp::Put(vec![family(1, 1.0)]));
        committer
            .queue
            .push(QueuedWrite { write: GroupWrite { shown, op, terms: Default::default(), values, reply }, permit });
        answer
    };
    let small = put(10, 1);
    committer.queue.turn(incoming.try_recv().ok(), &mut incoming);
    assert_eq!((committer.published().counts().groups, metrics.commits.get()), (6, 1));
    assert_eq!(small.await.unwrap(), Ok(()));
    for pending in pending {
        assert_eq!(pending.done().await, Ok(Vec::new()));
    }
    // A large write is committed alone.
    let answers = [put(11, 1), put(12, SHARED_VALUES_MAX + 1), put(13, 1)];
    committer.queue.turn(None, &mut incoming);
    assert_eq!((committer.published().counts().groups, metrics.commits.get()), (9, 4));
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_queued_push_is_committed_after_its_caller_is_dropped() {
    let (committer, thread) = committer(0);
    let push = committer.write(key(1), WriteOp::Put(vec![family(1, 1.0)]));
    assert_eq!(push.now_or_never(), None, "others come first");
    committer.stop().await;
    join(thread).await;
    assert_eq!(committer.published().counts().groups, 1);
}

#[test]
fn slow_disks_and_large_writes_are_left_to_the_worker_thread() {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let retention = Retention { uplinks: 0, hub_ns: 0 };
    // There is no worker thread: the writes that are left for it stay queued.
    let (committer, _queue) = Committer::without_thread(store, None, Arc::default(), Arc::default(), retention);
    let put = |group, values| {
        let (reply, answer) = oneshot::channel();
        let permit = committer.queue_slots.clone().try_acquire_owned().unwrap();
        let (shown, op) = (Arc::new(key(group)), WriteOp::Put(vec![family(1, 1.0)]));
        committer
            .queue
            .push(QueuedWrite { write: GroupWrite { shown, op, terms: Default::default(), values, reply }, permit });
        answer
    };
    let batch = |commit_took| BatchStats { replies: 1, commit_took, is_checkpoint_due: false };
    let (slow, fast) = (2 * queue::SLOW, queue::SLOW / 2);
    committer.queue.record_batch(batch(slow));
    let mut first = put(1, 1);
    assert_eq!(committer.queue.try_lead(), Lead::More, "the disk is slow");
    assert!(first.try_recv().is_err());
    committer.queue.record_batch(batch(fast));
    assert_eq!(committer.queue.try_lead(), Lead::Done);
    assert_eq!(first.try_recv(), Ok(Ok(())));
    let half = SHARED_VALUES_MAX / 2;
    let mut answers = [put(2, half), put(3, half), put(4, half)];
    assert_eq!(committer.queue.try_lead(), Lead::More, "that is a lot together");
    assert_eq!(answers.each_mut().map(|answer| answer.try_recv().is_ok()), [true, true, false]);
}

#[tokio::test]
async fn a_tombstone_is_dropped_once_the_hub_has_it() {
    let (committer, thread) = committer(1);
    committer.write(key(1), WriteOp::Put(vec![family(1, 1.0)])).await.unwrap();
    let mut head = committer.subscribe(Scope::Site(Arc::default()));
    committer.write(key(1), WriteOp::Delete).await.unwrap();
    assert_eq!(committer.published().counts().tombstones, 1);
    head.mark_unchanged();
    assert!(committer.uplink_acked(0, committer.published().head()));
    head.changed().await.unwrap();
    assert_eq!(committer.published().counts().tombstones, 0);
    committer.stop().await;
    join(thread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_of_merges_does_not_starve_pushes() {
    let (committer, thread) = committer(0);
    let (peer, site) = (StoreId(9), Arc::new(LabelSet::new([("IDC", "SYQ")])));
    let pending = (0..4).map(|_| {
        let (committer, site) = (committer.clone(), site.clone());
        tokio::spawn(async move {
            while let Ok(pending) = committer
                .merge(Scope::Site(site.clone()), vec![], peer, Position::default(), &MergeSequence::default())
                .await
            {
                drop(pending);
            }
        })
    });
    let pending: Vec<_> = pending.collect();
    for push in 0..50 {
        committer.write(key(push), WriteOp::Put(vec![family(1, 1.0)])).await.unwrap();
    }
    committer.stop().await;
    join(thread).await;
    for merges in pending {
        merges.await.unwrap();
    }
}

#[tokio::test]
async fn a_conflict_report_is_noted_in_the_group_of_its_site() {
    let (committer, thread) = committer(0);
    let site = Arc::new(LabelSet::new([("IDC", "SYQ")]));
    let id = GroupId { site: site.clone(), key: Arc::new(key(1)) };
    let stamp = WriteTimestamp { time_ns: 5, node: NodeId(7) };
    let group = Group::put(PushTime { stamp, wall_ns: 5 }, vec![family(1, 1.0)]);
    let delta = Delta { id: GroupId::local(key(1)), group };
    let scope = Scope::Site(site);
    let pending = committer
        .merge(scope.clone(), vec![delta], StoreId(9), Position::default(), &MergeSequence::default())
        .await
        .unwrap();
    assert_eq!(pending.done().await, Ok(vec![]));
    let report = |stamp| ConflictReport { key: id.key.clone(), family: "m".into(), stamp, text: "no".into() };
    let failed = |committer: &Committer| committer.published().group(&id).unwrap().group.failed().is_some();
    committer.note_conflicts(scope.clone(), vec![report(WriteTimestamp::ZERO)]).await;
    committer.info(None).await.unwrap();
    assert!(!failed(&committer), "another push is there by now");
    committer.note_conflicts(scope, vec![report(stamp)]).await;
    committer.info(None).await.unwrap();
    assert!(failed(&committer));
    committer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn a_conflict_that_the_same_update_ends_is_not_reported() {
    let (committer, thread) = committer(0);
    let scope = Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")])));
    let put = |group: usize, time_ns: u64, families: Vec<Family>| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(7) }, wall_ns: time_ns };
        Delta { id: GroupId::local(key(group)), group: Group::put(moment, families) }
    };
    let mut counter = FamilyBuilder::new("m", MetricType::Counter);
    counter.series(&[], &ValueLayout::Single, &[1.0], None);
    let counter = counter.finish().unwrap();
    let sequence = MergeSequence::default();
    let merge = |deltas| committer.merge(scope.clone(), deltas, StoreId(9), Position::default(), &sequence);
    let first = merge(vec![put(1, 1, vec![counter.clone()])]).await.unwrap();
    assert_eq!(first.done().await, Ok(vec![]));
    // One group takes the name in the update in which the other releases it.
    let second = merge(vec![put(2, 3, vec![family(1, 1.0)]), put(1, 4, vec![])]).await.unwrap();
    assert_eq!(second.done().await, Ok(vec![]));
    let third = merge(vec![put(1, 5, vec![counter])]).await.unwrap();
    let reported: Vec<_> = third.done().await.unwrap().into_iter().map(|report| (report.key, report.family)).collect();
    assert_eq!(reported, [(Arc::new(key(1)), "m".into())]);
    committer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn no_cursor_covers_a_merge_that_failed() {
    let limits = StoreLimits { groups_max: 1, ..StoreLimits::default() };
    let mut store = Store::new(Rules { limits, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let retention = Retention { uplinks: 0, hub_ns: 0 };
    let (committer, thread) = Committer::start(store, None, Arc::default(), Arc::default(), retention).unwrap();
    let (scope, peer) = (Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")]))), StoreId(9));
    let put = |group: usize| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(7) }, wall_ns: 1 };
        Delta { id: GroupId::local(key(group)), group: Group::put(moment, vec![]) }
    };
    let at = |revision| Position { epoch: Epoch(5), revision: Revision(revision) };
    let sequence = MergeSequence::default();
    let merge = |deltas, revision, sequence| committer.merge(scope.clone(), deltas, peer, at(revision), sequence);
    let first = merge(vec![put(1)], 1, &sequence).await.unwrap();
    // Both are queued before the first of them fails.
    let failing = merge(vec![put(2)], 2, &sequence).await.unwrap();
    let later = merge(vec![], 3, &sequence).await.unwrap();
    assert_eq!(first.done().await, Ok(vec![]));
    assert!(matches!(failing.done().await, Err(WriteError::Refused(_))));
    assert!(matches!(later.done().await, Err(WriteError::Storage(_))));
    assert_eq!(committer.info(None).await.unwrap().cursors[&peer].position, at(1));
    let another = merge(vec![], 3, &MergeSequence::default()).await.unwrap();
    assert_eq!(another.done().await, Ok(vec![]));
    assert_eq!(committer.info(None).await.unwrap().cursors[&peer].position, at(3));
    committer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn a_merge_fails_if_the_commit_that_makes_room_for_it_fails() {
    let limits = StoreLimits { groups_max: 1, ..StoreLimits::default() };
    let disk = SimulatedDisk::new(1);
    let recovered = recover(Arc::new(disk.clone()), storage::DiskOptions::default(), &mut |_| {}).unwrap();
    let store = Store::new(Rules { limits, ..Rules::default() }, &[]);
    let (store, log) =
        storage::open(store, recovered, Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1)).unwrap();
    let retention = Retention { uplinks: 0, hub_ns: 0 };
    let (committer, thread) = Committer::start(store, Some(log), Arc::default(), Arc::default(), retention).unwrap();
    let (scope, peer, sequence) =
        (Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")]))), StoreId(9), MergeSequence::default());
    let put = |group: usize| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(7) }, wall_ns: 1 };
        Delta { id: GroupId::local(key(group)), group: Group::put(moment, vec![]) }
    };
    let at = |revision| Position { epoch: Epoch(5), revision: Revision(revision) };
    // Both are queued before the worker drafts the first, and the second has no room beside it.
    let leader = committer.queue.lead().unwrap();
    let merge = |group, revision| {
        let merge = committer.merge(scope.clone(), vec![put(group)], peer, at(revision), &sequence);
        merge.now_or_never().expect("the queue has room").unwrap()
    };
    let (first, second) = (merge(1, 1), merge(2, 2));
    disk.fail_at(disk.operations(), DiskFault::Broken);
    drop(leader);
    assert!(matches!(first.done().await, Err(WriteError::Storage(_))));
    assert_eq!(second.done().await, Err(WriteError::from(MergeError::Broken)));
    assert!(committer.info(None).await.unwrap().cursors.is_empty());
    // The disk works again.
    let again = committer.merge(scope, vec![put(1)], peer, at(1), &MergeSequence::default()).await.unwrap();
    assert_eq!(again.done().await, Ok(vec![]));
    committer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn a_lone_update_is_merged_inline_and_later_ones_keep_their_order() {
    let (committer, thread) = committer(0);
    let (scope, peer, sequence) =
        (Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")]))), StoreId(9), MergeSequence::default());
    let at = |revision| Position { epoch: Epoch(5), revision: Revision(revision) };
    let merge = |revision| {
        let merge = committer.merge(scope.clone(), vec![], peer, at(revision), &sequence);
        merge.now_or_never().expect("there is room").unwrap()
    };
    let is_done = |pending: &mut PendingMerge| pending.0.try_recv().is_ok();
    // The first merge may move other groups, so the worker thread merges it. It releases the lock after the reply.
    assert_eq!(merge(0).done().await, Ok(vec![]));
    drop(committer.queue.lead());
    assert!(is_done(&mut merge(1)), "nobody had to be woken");
    let leader = committer.queue.lead().unwrap();
    let mut behind = merge(2);
    assert!(!is_done(&mut behind), "somebody writes");
    drop(leader);
    // The worker may take the second at any time, and has to merge it before the third.
    let third = merge(3);
    assert_eq!(behind.done().await, Ok(vec![]));
    assert_eq!(third.done().await, Ok(vec![]));
    assert_eq!(committer.info(None).await.unwrap().cursors[&peer].position, at(3));
    assert!(sequence.is_idle());
    committer.stop().await;
    join(thread).await;
}

#[tokio::test]
async fn many_due_tombstones_are_dropped_a_thousand_a_commit() {
    let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    let now = |ns| crate::store::WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns };
    for group in 0..2_500 {
        store.write(GroupId::local(key(group)), WriteOp::Put(vec![]), now(5)).unwrap();
        store.write(GroupId::local(key(group)), WriteOp::Delete, now(6)).unwrap();
    }
    store.commit();
    let metrics = Arc::<Metrics>::default();
    let retention = Retention { uplinks: 1, hub_ns: 0 };
    let (committer, thread) = Committer::start(store, None, Arc::default(), metrics.clone(), retention).unwrap();
    let mut head = committer.subscribe(Scope::Site(Arc::default()));
    assert_eq!(committer.published().counts().tombstones, 2_500);
    assert!(committer.uplink_acked(0, committer.published().head()));
    while committer.published().counts().tombstones > 0 {
        head.changed().await.unwrap();
    }
    committer.stop().await;
    join(thread).await;
    assert_eq!(metrics.commits.get(), 3);
}
