//! The changes that peers and time make to the store's draft: merges, conflict reports, dropped tombstones.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::{Contributor, Epoch, Group, GroupId, LabelSet, Position, Revision, StoreId};
use crate::store::{
    Committed, GroupEntry, PeerCursor, Scope, Store, StoreRefusal, SuppressedFamily, WriteOp, WriteTime,
};
use crate::wire::message::CONFLICT_REPORTS_MAX;
use crate::wire::{ConflictReport, Delta};

/// A tombstone whose timestamp is further ahead of the local clock than this is kept until that time.
const CLOCKS_APART_NS_MAX: u64 = 24 * 3_600 * 1_000_000_000;
/// Tombstones dropped in one transaction, at most.
const FORGET_MAX: usize = 1_024;

/// An update of a peer.
#[derive(Debug)]
pub struct Merge {
    /// The scope of the link: how the peer names the groups.
    pub scope: Scope,
    /// The changes.
    pub deltas: Vec<Delta>,
    /// The store that sent them.
    pub peer: StoreId,
    /// The position in the peer's store that the update reaches.
    pub position: Position,
    /// The sequence of the session.
    pub sequence: MergeSequence,
}

/// The merges of one session, in their order. After one that failed, no later one is merged: its position would cover
/// the changes of the failed one.
#[derive(Clone, Debug, Default)]
pub struct MergeSequence(Arc<SequenceState>);

#[derive(Debug, Default)]
struct SequenceState {
    begun: AtomicBool,
    broken: AtomicBool,
    resyncs: AtomicBool,
    /// The sequence resyncs with a peer whose changes this store had before.
    returns: AtomicBool,
}

impl MergeSequence {
    /// Whether no merge is in progress: each one has a clone of the sequence until it ends.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Whether a merge was drafted. The first one, however small, may move all groups that were named before their site
    /// was known.
    pub fn is_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Records that the session resyncs: its merges may bring groups back whose deletes are forgotten.
    pub fn resyncs(&self) {
        self.0.resyncs.store(true, Ordering::Relaxed);
    }

    fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// Begins a merge. `cursor` is the store's for the peer: the zero position if an earlier resync was interrupted.
    fn begin(&self, cursor: Option<&PeerCursor>) {
        let is_first = !self.0.begun.swap(true, Ordering::Relaxed);
        let is_known = cursor.is_some_and(|cursor| cursor.position.epoch != Epoch(0));
        if is_first && is_known && self.0.resyncs.load(Ordering::Relaxed) {
            self.0.returns.store(true, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.0.broken.store(true, Ordering::Relaxed);
    }
}

/// Why a merge was not drafted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeError {
    /// An earlier merge of the sequence failed.
    Broken,
    /// The store refused the update, and the whole draft is abandoned.
    Refused(StoreRefusal),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => f.write_str("what came before it from the same peer was not merged"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for MergeError {}

/// A transaction in progress: the sequences whose merges are in the store's draft, and the groups that they brought back.
#[derive(Debug, Default)]
pub struct Transaction {
    sequences: Vec<MergeSequence>,
    returned: Vec<GroupId>,
    expired: usize,
    deleted: PeerDeletes,
}

/// The groups that peers deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerDeletes(pub Vec<DeletedAtPeer>);

/// The groups that one peer deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedAtPeer {
    /// The scope of its link.
    pub scope: Scope,
    /// The number of groups.
    pub groups: usize,
    /// The first of them.
    pub first: GroupId,
}

impl PeerDeletes {
    fn add(&mut self, scope: &Scope, id: &GroupId) {
        match self.0.iter_mut().find(|deleted| deleted.scope == *scope) {
            Some(deleted) => deleted.groups += 1,
            None => self.0.push(DeletedAtPeer { scope: scope.clone(), groups: 1, first: id.clone() }),
        }
    }
}

/// A transaction that was published.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// What the store published.
    pub committed: Committed,
    /// The groups that may have been deleted before: a peer that was away for longer than this store keeps tombstones
    /// brought them back.
    pub returned: Vec<GroupId>,
    /// The number of groups that expired.
    pub expired: usize,
    /// The groups that peers deleted.
    pub deleted: PeerDeletes,
}

impl Transaction {
    /// Drafts an update together with the peer's cursor. Returns the families that are suppressed.
    ///
    /// The draft is merged as a whole or not at all. Unless [`Store::has_capacity_for`] rules a refusal out, the caller
    /// must commit the draft before.
    ///
    /// # Errors
    /// If an earlier merge of the sequence failed, or the store refuses the update; the draft is abandoned then.
    pub fn merge(
        &mut self,
        store: &mut Store,
        merge: Merge,
        now: WriteTime,
    ) -> Result<Vec<ConflictReport>, MergeError> {
        if merge.sequence.is_broken() {
            return Err(MergeError::Broken);
        }
        merge.sequence.begin(store.cursors().get(&merge.peer));
        self.sequences.push(merge.sequence.clone());
        self.merge_into(store, merge, now).map_err(|refusal| {
            self.abort(store);
            MergeError::Refused(refusal)
        })
    }

    /// Drafts the deletes of those of the groups that have expired.
    pub fn expire(&mut self, store: &mut Store, groups: &[GroupId], now: WriteTime) {
        self.expired += groups.iter().filter(|id| store.expire(id, now)).count();
    }

    /// Publishes the draft, whose records are durable; `None` if it has no records.
    pub fn publish(&mut self, store: &mut Store) -> Option<Publication> {
        self.sequences.clear();
        let (returned, expired) = (std::mem::take(&mut self.returned), std::mem::take(&mut self.expired));
        let deleted = std::mem::take(&mut self.deleted);
        (!store.records().is_empty()).then(|| Publication { committed: store.commit(), returned, expired, deleted })
    }

    fn merge_into(
        &mut self,
        store: &mut Store,
        merge: Merge,
        now: WriteTime,
    ) -> Result<Vec<ConflictReport>, StoreRefusal> {
        let Merge { scope, deltas, peer, position, sequence } = merge;
        let returns = sequence.0.returns.load(Ordering::Relaxed);
        let expiry = store.expiry_rules();
        let mut suppressed = Vec::new();
        let changes: Vec<(Arc<LabelSet>, Group)> = deltas.into_iter().map(attributed).collect();
        let ids: Vec<GroupId> = match &scope {
            Scope::Site(site) => {
                changes.iter().map(|(key, _)| GroupId { site: site.clone(), key: key.clone() }).collect()
            }
            // The id depends on the merges before it: resolved one by one below.
            Scope::Shown => Vec::new(),
        };
        store.look_up(&ids);
        for (at, (key, group)) in changes.into_iter().enumerate() {
            let id = ids.get(at).map_or_else(|| Cow::Owned(store.resolve(key.clone())), Cow::Borrowed);
            let is_returned = returns && store.may_be_deleted(&id, &group);
            let may_be_due = expiry.may_be_due(&group, now.stamp_ns);
            let is_delete = !group.is_live() && store.drafted(&id).is_some_and(|entry| entry.group.is_live());
            let families = store.merge_at(&id, group, peer, now.wall_ns)?;
            if is_delete && store.drafted(&id).is_some_and(|entry| !entry.group.is_live()) {
                self.deleted.add(&scope, &id);
            }
            // An edge that was away brings groups that have expired meanwhile: they are never shown.
            if may_be_due && store.expire(&id, now) {
                self.expired += 1;
                continue;
            }
            self.returned.extend(is_returned.then(|| GroupId::clone(&id)));
            suppressed.extend(families.into_iter().map(|family| (GroupId::clone(&id), key.clone(), family)));
        }
        // A later group of the same update may have made room for a family: it is shown by now.
        let still = suppressed.into_iter().filter(|(id, _, family)| store.is_suppressed(id, &family.name));
        let report = |(_, key, family): (GroupId, Arc<LabelSet>, SuppressedFamily)| {
            let text = family.reason();
            ConflictReport { key, family: family.name, stamp: family.stamp, text }
        };
        let reports = still.map(report).take(CONFLICT_REPORTS_MAX).collect();
        let site = match scope {
            Scope::Site(site) => site,
            Scope::Shown => Arc::default(),
        };
        store.set_cursor(peer, PeerCursor { position, site });
        Ok(reports)
    }

    /// Abandons the draft, and all later merges of its sequences.
    pub fn abort(&mut self, store: &mut Store) {
        store.abort();
        self.returned.clear();
        self.expired = 0;
        self.deleted.0.clear();
        self.sequences.drain(..).for_each(|sequence| sequence.end());
    }
}

/// The group and the change that a peer means. Contributions have a key of their own, and no header: a peer that does not
/// know them may have deleted them as a group.
fn attributed(Delta { id: GroupId { key, .. }, group }: Delta) -> (Arc<LabelSet>, Group) {
    match Contributor::split(&key) {
        Some((key, contributor)) => (Arc::new(key), group.contributed(&Arc::new(contributor))),
        None => (key, group),
    }
}

/// The group that a peer names `key` in a scope.
fn id_of(store: &Store, scope: &Scope, key: Arc<LabelSet>) -> GroupId {
    match scope {
        Scope::Site(site) => GroupId { site: site.clone(), key },
        Scope::Shown => store.resolve(key),
    }
}

/// Moves the failure times of the groups in a peer's conflict reports, if they still have the families as they were
/// sent. Returns the number of groups.
pub fn note_failures(store: &mut Store, scope: &Scope, reports: &[ConflictReport], now: WriteTime) -> usize {
    let mut noted = HashSet::new();
    for report in reports {
        let id = id_of(store, scope, report.key.clone());
        // The draft may have a delete or a later push of the group already.
        let entry = store.drafted(&id);
        // A family that is suppressed here too was reported when it was pushed.
        let is_as_sent = |entry: &GroupEntry| {
            let unit = entry.position(&report.family).map(|at| entry.group.unit(at)).unwrap_or_default();
            let mut sent = unit.filter(|at| entry.group.families()[*at].stamp == report.stamp);
            sent.next().is_some_and(|at| !entry.metas.get(at).suppressed)
        };
        if entry.is_some_and(|entry| is_as_sent(&entry)) && noted.insert(id.clone()) {
            // The group exists, so no limit refuses this.
            let _ = store.write(id, WriteOp::Refuse, now);
        }
    }
    noted.len()
}

/// Drops published tombstones that every hub has (`acked` has the revision of each uplink) and whose deletes are at
/// least `retention_ns` old. Without a retention, tombstones far ahead of the clock are kept. Returns whether more are
/// due than one transaction drops: they are dropped after these are published.
pub fn forget(store: &mut Store, acked: &[Revision], now_ns: u64, retention_ns: u64) -> bool {
    let before_ns = match retention_ns {
        // All later writes get timestamps after those of dropped tombstones: these must not be near the end of time.
        0 => now_ns.saturating_add(CLOCKS_APART_NS_MAX),
        retention_ns => now_ns.saturating_sub(retention_ns),
    };
    let upto = acked.iter().copied().min().unwrap_or(Revision(u64::MAX));
    let due = store.published().tombstones(upto, before_ns, FORGET_MAX);
    for entry in &due {
        store.forget(entry.id());
    }
    due.len() == FORGET_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Epoch, Family, FamilyBuilder, Group, Lifetime, MetricType, NodeId, PushTime, ValueLayout, WriteTimestamp,
    };
    use crate::store::{CLOCK_NS_MIN, Conflict, Identity, Rules};

    const EARLY: WriteTime = WriteTime { wall_ns: 5, stamp_ns: 5, monotonic_ns: 5 };

    fn family(name: &str) -> Family {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.series(&[], &ValueLayout::Single, &[1.0], None);
        builder.finish().unwrap()
    }

    fn merge(deltas: Vec<Delta>) -> Merge {
        let (scope, position) = (Scope::Shown, Position { epoch: Epoch(1), revision: Revision(1) });
        Merge { scope, deltas, peer: StoreId(9), position, sequence: MergeSequence::default() }
    }

    #[test]
    fn a_conflict_report_on_a_group_deleted_in_the_same_draft_revives_nothing() {
        let mut store = Store::new(Rules::default(), &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        let id = GroupId::local(LabelSet::new([("job", "a")]));
        store.write(id.clone(), WriteOp::Put(vec![family("m")]), EARLY).unwrap();
        store.commit();
        let stamp = store.published().group(&id).unwrap().group.family("m").unwrap().stamp;
        let report = ConflictReport { key: id.key.clone(), family: "m".into(), stamp, text: "no".into() };
        let (mut transaction, later) = (Transaction::default(), WriteTimestamp { time_ns: 9, node: NodeId(7) });
        let delta = Delta { id: id.clone(), group: Group::delete(later) };
        transaction.merge(&mut store, merge(vec![delta]), EARLY).unwrap();
        let now = WriteTime { wall_ns: 10, stamp_ns: 10, monotonic_ns: 10 };
        assert_eq!(note_failures(&mut store, &Scope::Shown, std::slice::from_ref(&report), now), 0);
        transaction.publish(&mut store).unwrap();
        assert!(!store.published().group(&id).unwrap().group.is_live());
    }

    #[test]
    fn groups_that_a_peer_deletes_are_named() {
        let mut store = Store::new(Rules::default(), &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        let id = |job: &str| GroupId::local(LabelSet::new([("job", job)]));
        for job in ["a", "b", "c"] {
            store.write(id(job), WriteOp::Put(vec![family("m")]), EARLY).unwrap();
        }
        store.commit();
        let (mut transaction, later) = (Transaction::default(), WriteTimestamp { time_ns: 9, node: NodeId(7) });
        let deltas = ["a", "b", "gone"].map(|job| Delta { id: id(job), group: Group::delete(later) });
        transaction.merge(&mut store, merge(deltas.into()), EARLY).unwrap();
        let published = transaction.publish(&mut store).unwrap();
        assert_eq!(published.deleted.0, [DeletedAtPeer { scope: Scope::Shown, groups: 2, first: id("a") }]);
        assert!(transaction.publish(&mut store).is_none());
    }

    #[test]
    fn a_group_that_has_expired_is_never_shown_when_a_peer_sends_it() {
        let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        store.commit();
        let second_ns = 1_000_000_000;
        let now_ns = CLOCK_NS_MIN + 100 * second_ns;
        let delta = |job: &str, age: u64, lifetime_ms: u64| {
            let stamp = WriteTimestamp { time_ns: now_ns - age * second_ns, node: NodeId(7) };
            let group = Group::put(PushTime { stamp, wall_ns: stamp.time_ns }, vec![family("m")]);
            let id = GroupId::local(LabelSet::new([("job", job)]));
            Delta { id, group: group.living(Lifetime::of_ms(lifetime_ms)) }
        };
        let now = WriteTime { wall_ns: now_ns, stamp_ns: now_ns, monotonic_ns: 1 };
        let mut transaction = Transaction::default();
        transaction.merge(&mut store, merge(vec![delta("old", 10, 10_000), delta("new", 10, 10_001)]), now).unwrap();
        let published = transaction.publish(&mut store).unwrap();
        assert_eq!((published.expired, published.returned.len()), (1, 0));
        let live: Vec<String> = store.published().groups().iter().map(|entry| entry.id().to_string()).collect();
        assert_eq!(live, [r#"{job="new"}"#]);
        assert_eq!(store.published().counts().tombstones, 1, "the peer is sent the delete");
    }

    /// All later writes get timestamps after those of dropped tombstones.
    #[test]
    fn a_tombstone_of_a_clock_far_ahead_is_kept_until_then() {
        let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        let (now_ns, day_ns) = (1_000_000_000, CLOCKS_APART_NS_MAX);
        for (job, ahead_ns) in [("near", day_ns - 1), ("far", day_ns + 1)] {
            let stamp = WriteTimestamp { time_ns: now_ns + ahead_ns, node: NodeId(7) };
            let delta = Delta { id: GroupId::local(LabelSet::new([("job", job)])), group: Group::delete(stamp) };
            let (mut transaction, peer) = (Transaction::default(), StoreId(9 + ahead_ns));
            transaction.merge(&mut store, Merge { peer, ..merge(vec![delta]) }, EARLY).unwrap();
            transaction.publish(&mut store).unwrap();
        }
        assert!(!forget(&mut store, &[], now_ns, 0));
        store.commit();
        let left: Vec<String> = store.published().entries().iter().map(|entry| entry.id().to_string()).collect();
        assert_eq!(left, [r#"{job="far"}"#]);
        assert!(!forget(&mut store, &[], now_ns + 2, 0));
        store.commit();
        assert!(store.published().entries().is_empty());
    }

    #[test]
    fn conflict_reports_are_limited_and_share_their_text() {
        let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        let stamp = WriteTimestamp { time_ns: 5, node: NodeId(7) };
        let put = |key: LabelSet, count: usize| {
            let mut families: Vec<Family> = (0..count).map(|i| family(&format!("m{i:03}"))).collect();
            families.sort_by(|a, b| a.name().cmp(b.name()));
            Delta { id: GroupId::local(key), group: Group::put(PushTime { stamp, wall_ns: 5 }, families) }
        };
        // Both are shown under the same labels.
        let site = Scope::Site(Arc::new(LabelSet::new([("IDC", "SYQ")])));
        let long = "x".repeat(60_000);
        let first = put(LabelSet::new([("job", "a"), ("x", &long)]), 1);
        let second = put(LabelSet::new([("job", "a"), ("x", &long), ("IDC", "SYQ")]), 200);
        let merge = Merge { scope: site.clone(), ..merge(vec![first, second]) };
        let reports = Transaction::default().merge(&mut store, merge, EARLY).unwrap();
        assert_eq!(reports.len(), CONFLICT_REPORTS_MAX);
        assert!(reports.iter().all(|report| report.text.contains("already shown under the labels")));
        let Scope::Site(site) = site else { unreachable!() };
        let key = Arc::new(LabelSet::new([("job", "a"), ("x", &long), ("IDC", "SYQ")]));
        let entry = store.drafted(&GroupId { site, key }).unwrap();
        let shared = entry.families().all(|(.., state)| match state.conflict.as_deref() {
            Some(Conflict::Shadowed { labels, .. }) => Arc::ptr_eq(labels, entry.shown()),
            other => panic!("{other:?}"),
        });
        assert!(shared, "what is kept of the reason is kept once, not once a family");
    }
}
