//! The store's one writer. A batch of writes is drafted, made durable by the caller, and then published or aborted as a
//! whole.
//!
//! ```text
//! loop { write() or merge(), any number → records() made durable → commit() or abort() }
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::HashSet;

use super::conflict::{AdmissionTerms, ConflictPolicy};
use super::entry::GroupEntry;
use super::idempotency::{IDEMPOTENCY_WINDOW_NS, IdempotencyKey, IdempotencyKeys, KeyState, KeyTime};
use super::increment::{Increment, SumCodec};
use super::index::Index;
use super::quota::WriteTerms;
use super::record::{FamilyMeta, Identity, KeyRecord, PeerCursor, Record};
use super::refusal::StoreRefusal;
use super::schemas::Schemas;
use super::staged::Staged;
use super::unconfirmed::Unconfirmed;
use super::view::{PUSH_FAILURE_TIME, PUSH_TIME, Published};
use crate::model::{
    Contributor, Family, Group, GroupId, LabelSet, MetricType, Position, PushTime, Revision, StoreId, WriteTimestamp,
};

/// Limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Live groups; as many tombstones may be stored in addition.
    pub groups_max: usize,
    /// Series shown in all groups together.
    pub series_max: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { groups_max: 1_000_000, series_max: 20_000_000 }
    }
}

/// Checks a raw metric of a histogram. Returns the rule that it breaks.
pub type HistogramCheck = fn(&[u8]) -> Option<String>;

/// The behaviour of a store.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Its limits.
    pub limits: StoreLimits,
    /// Suppress conflicting families instead of refusing the push (`--push.disable-consistency-check`).
    pub unchecked: bool,
    /// The node has hubs. They may have groups that this store does not have, so tombstones of such groups are stored.
    pub has_hubs: bool,
    /// The node accepts edges. They may have groups that this store does not have; each edge has a site.
    pub has_edges: bool,
    /// Checks a raw metric of a histogram, and returns the rule that it breaks. Families with such a metric are not
    /// shown. The gateway refuses them, but an older store or the store of a peer may have some.
    pub histogram_fault: Option<HistogramCheck>,
    /// Adds native histograms, and dates sums.
    pub sums: SumCodec,
    /// How long the key of a push that adds is remembered, in nanoseconds.
    pub idempotency_window_ns: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            limits: StoreLimits::default(),
            unchecked: false,
            has_hubs: false,
            has_edges: false,
            histogram_fault: None,
            sums: SumCodec::default(),
            idempotency_window_ns: IDEMPOTENCY_WINDOW_NS,
        }
    }
}

/// The operation that a request asks for.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Replace the group.
    Put(Vec<Family>),
    /// Replace families of the group.
    Post(Vec<Family>),
    /// Add to the sums of the group.
    Add(Increment),
    /// Record that a push was refused before it reached the store.
    Refuse,
    /// Delete the group.
    Delete,
}

/// The clocks at the time of a write: two in nanoseconds since the Unix epoch, and a monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct WriteTime {
    /// This node's clock; push times show it.
    pub wall_ns: u64,
    /// This node's clock corrected by the offset to the hub; write timestamps are made from it.
    pub stamp_ns: u64,
    /// This node's monotonic clock, which no setting of the clock changes.
    pub monotonic_ns: u64,
}

/// The result of a commit.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The revision up to which everything is now published.
    pub head: Revision,
    /// The sites in which something changed.
    pub sites: HashSet<Arc<LabelSet>>,
}

/// The groups of a node. See the [module](super) for how its parts fit together, and [`crate::store::writer`] for the
/// order of calls.
pub struct Store {
    pub(super) identity: Identity,
    pub(super) epochs: Vec<Position>,
    pub(super) rules: Rules,
    pub(super) published: Published,
    pub(super) staged: Staged,
    pub(super) index: Index,
    pub(super) schemas: Schemas,
    pub(super) records: Vec<Record>,
    pub(super) drafted_bytes: usize,
    pub(super) revision: Revision,
    pub(super) cursors: HashMap<StoreId, PeerCursor>,
    pub(super) staged_cursors: HashMap<StoreId, PeerCursor>,
    pub(super) unconfirmed: Unconfirmed,
    pub(super) dropped: Dropped,
    /// `dropped` as of the last commit.
    pub(super) published_dropped: Dropped,
    /// The families that [`Store::settle_types`] may still suppress.
    pub(super) types_allowance: i64,
    pub(super) keys: IdempotencyKeys,
    /// The number of pushes in the draft that add.
    drafted_adds: u64,
}

/// A summary of all tombstones that were dropped.
#[derive(Clone, Copy, Default)]
pub(super) struct Dropped {
    /// Write timestamps stay after this: it is the latest of the dropped tombstones.
    pub(super) floor: WriteTimestamp,
    /// The newest revision of one of them.
    pub(super) revision: Revision,
}

impl Dropped {
    pub(super) fn add(&mut self, stamp: WriteTimestamp, revision: Revision) {
        self.floor = self.floor.max(stamp);
        self.revision = self.revision.max(revision);
    }
}

impl Store {
    /// An empty store. The caller passes it the records of its disk ([`Store::restore`]) and then opens it
    /// ([`Store::open`]). `reserved` are the names and types of the node's own metrics.
    pub fn new(rules: Rules, reserved: &[(&str, MetricType)]) -> Self {
        let published = Published::default();
        let mut index = Index::default();
        for (name, metric_type) in reserved {
            index.reserve(name, *metric_type);
        }
        for name in [PUSH_TIME, PUSH_FAILURE_TIME] {
            index.reserve(name, MetricType::Gauge);
        }
        if rules.has_edges {
            index.count_types();
        }
        Self {
            identity: Identity::default(),
            epochs: Vec::new(),
            rules,
            staged: Staged::over(published.clone()),
            index,
            schemas: Schemas::default(),
            records: Vec::new(),
            drafted_bytes: 0,
            revision: Revision(0),
            cursors: HashMap::new(),
            staged_cursors: HashMap::new(),
            unconfirmed: published.unconfirmed().clone(),
            published,
            dropped: Dropped::default(),
            published_dropped: Dropped::default(),
            types_allowance: 0,
            keys: IdempotencyKeys::new(rules.idempotency_window_ns),
            drafted_adds: 0,
        }
    }

    /// A handle to the published state.
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// The store's identity.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The epochs that the store remembers, each with the revision at which it began, oldest first.
    pub fn epochs(&self) -> &[Position] {
        &self.epochs
    }

    /// The newest revision of a dropped tombstone. A peer whose cursor is older cannot resume from it and must resync.
    pub fn gc_watermark(&self) -> Revision {
        self.published_dropped.revision
    }

    /// The cursors of peers: how far this store durably has their changes.
    pub fn cursors(&self) -> &HashMap<StoreId, PeerCursor> {
        &self.cursors
    }

    /// Applies a request to a group.
    ///
    /// # Errors
    /// The push is refused: a family conflicts with families that are shown, or the store is at one of its limits. The
    /// refusal itself is recorded in the group (`push_failure_time_seconds`), unless `limits.groups_max` forbids a new
    /// group.
    pub fn write(&mut self, id: GroupId, action: WriteOp, now: WriteTime) -> Result<(), StoreRefusal> {
        self.write_within(id, action, WriteTerms::default(), now)
    }

    /// The same, for a push that asks for a lifetime of its group, or has a quota.
    ///
    /// # Errors
    /// See [`Store::write`]; or the push exceeds its quota.
    pub fn write_within(
        &mut self,
        id: GroupId,
        action: WriteOp,
        WriteTerms { lifetime, quota }: WriteTerms,
        now: WriteTime,
    ) -> Result<(), StoreRefusal> {
        self.staged.settle_quotas();
        let key_time = KeyTime { wall_ns: now.wall_ns, monotonic_ns: now.monotonic_ns };
        let key = match &action {
            WriteOp::Add(Increment { key: Some(key), .. }) => match self.keys.look_up(*key, key_time) {
                KeyState::New => Some(*key),
                KeyState::Applied => {
                    self.published.lock().counts.repeated += 1;
                    return Ok(());
                }
                KeyState::OfAnotherBody => return Err(StoreRefusal::KeyReused),
                KeyState::Full => return Err(StoreRefusal::KeysFull),
            },
            _ => None,
        };
        if Contributor::split(&id.key).is_some() {
            return Err(StoreRefusal::Reserved);
        }
        let is_delete = matches!(action, WriteOp::Delete);
        let entry = match self.staged.get_to_set(&id) {
            Some(entry) => {
                self.check_revival(&entry, !is_delete)?;
                if let Some(quota) = quota.as_ref().filter(|_| !is_delete && !entry.group.is_live()) {
                    self.staged.quotas.check_new_group(quota)?;
                }
                entry
            }
            None => {
                let known_elsewhere = self.rules.has_hubs || (self.rules.has_edges && !id.site.is_empty());
                if is_delete && !known_elsewhere {
                    return Ok(());
                }
                self.check_group_limit(!is_delete)?;
                if let Some(quota) = quota.as_ref().filter(|_| !is_delete) {
                    self.staged.quotas.check_new_group(quota)?;
                }
                self.create(id)
            }
        };
        if is_delete && !entry.group.is_live() && !entry.group.deleted().is_zero() {
            return Ok(());
        }
        let stamp =
            WriteTimestamp::after(now.stamp_ns, entry.group.latest().max(self.dropped.floor), self.identity.node);
        let push_time = PushTime { stamp, wall_ns: now.wall_ns };
        self.unconfirmed.note(entry.id(), stamp.time_ns, now.stamp_ns, now.monotonic_ns);
        let is_add = matches!(action, WriteOp::Add(_));
        let is_push = is_add || matches!(action, WriteOp::Put(_) | WriteOp::Post(_));
        let change = match action {
            WriteOp::Put(_) | WriteOp::Post(_) if entry.group.is_adding() => {
                Err(StoreRefusal::AddingGroup { group: entry.shown().to_string() })
            }
            WriteOp::Put(families) => Ok(Group::put(push_time, families).living(lifetime)),
            WriteOp::Post(families) => Ok(Group::post(push_time, families).living(lifetime)),
            WriteOp::Add(increment) => {
                self.increment(&entry, push_time, &increment).map(|change| change.living(lifetime))
            }
            WriteOp::Refuse => Ok(Group::refused(push_time)),
            WriteOp::Delete => Ok(Group::delete(stamp)),
        };
        let point = self.index.point();
        let policy = if self.rules.unchecked { ConflictPolicy::Suppress } else { ConflictPolicy::Refuse };
        let free_series = quota.as_ref().and_then(|quota| self.staged.quotas.free_series(quota));
        let quota_max = free_series.map_or(usize::MAX, |free| self.index.series().saturating_add(free));
        let applied = change.and_then(|change| self.apply_within(&entry, change, None, policy, quota_max));
        if let Err(mut refusal) = applied {
            if let (StoreRefusal::Limit { .. }, Some(quota)) = (&refusal, &quota)
                && quota_max < self.rules.limits.series_max
            {
                refusal = quota.too_many_series();
            }
            self.index.undo(point);
            self.apply(&entry, Group::refused(push_time), None, ConflictPolicy::Suppress)
                .expect("nothing to refuse in a refusal");
            return Err(refusal);
        }
        self.drafted_adds += u64::from(is_add);
        if is_push {
            self.unconfirmed.note_accepted(entry.id(), now.monotonic_ns);
        }
        if let Some(IdempotencyKey { key, body }) = key {
            self.revision = self.revision.next();
            let record = KeyRecord { key, body, time_ns: now.wall_ns, revision: self.revision };
            self.keys.draft(record, now.monotonic_ns);
            self.records.push(Record::Key(record));
        }
        Ok(())
    }

    /// Looks up groups that are about to be written. It changes nothing, but makes many writes faster.
    pub fn look_up(&mut self, ids: &[GroupId]) {
        self.staged.look_up(ids);
    }

    /// The group as it is in the draft.
    pub fn drafted(&self, id: &GroupId) -> Option<Arc<GroupEntry>> {
        self.staged.get(id)
    }

    /// Whether the group has a suppressed family of that name.
    pub fn is_suppressed(&self, id: &GroupId, name: &str) -> bool {
        self.staged.get(id).and_then(|entry| Some(entry.family(name)?.1.suppressed)).unwrap_or_default()
    }

    /// Makes the tombstone a new change, so that the peer is sent the delete once more. The peer sent an older live
    /// state: it had seen the delete and dropped its tombstone, and then received the group again from a peer that was
    /// rolled back.
    pub(super) fn republish_tombstone(&mut self, entry: &GroupEntry) {
        let revision = self.revision.next();
        let header = FamilyMeta { revision, origin: None, ..entry.header };
        let new = GroupEntry { header, ..entry.clone() };
        self.records.push(Record::Group(new.record(|_| false)));
        self.revision = revision;
        self.staged.set(entry.id(), Some(Arc::new(new)));
    }

    /// Sets the cursor of a peer, together with the merges of this draft.
    pub fn set_cursor(&mut self, peer: StoreId, cursor: PeerCursor) {
        self.migrate_to_site(peer, &cursor.site);
        if self.staged_cursors.get(&peer).or(self.cursors.get(&peer)) != Some(&cursor) {
            self.staged_cursors.insert(peer, cursor.clone());
            self.records.push(Record::Cursor { peer, cursor });
        }
    }

    /// Drops a published tombstone that no peer needs any more. A tombstone that the draft has changed stays: no peer
    /// has seen that change.
    pub fn forget(&mut self, id: &GroupId) {
        if !self.staged.has_changed(id) {
            self.drop_tombstone(id);
        }
    }

    pub(super) fn drop_tombstone(&mut self, id: &GroupId) {
        let Some(entry) = self.staged.get(id).filter(|entry| !entry.group.is_live()) else { return };
        let (stamp, revision) = (entry.group.latest(), entry.revision());
        self.dropped.add(stamp, revision);
        self.records.push(Record::Forgotten { id: id.clone(), stamp, revision });
        self.staged.set(id, None);
    }

    /// A new group: empty, or with the state of its local twin.
    pub(super) fn create(&mut self, id: GroupId) -> Arc<GroupEntry> {
        let known = self.take_local_twin(&id);
        let entry = Arc::new(GroupEntry::new(id));
        let Some(known) = known else { return entry };
        self.apply(&entry, known, None, ConflictPolicy::SuppressAll).expect("what cannot be shown is held back");
        self.staged.get(entry.id()).unwrap_or(entry)
    }

    /// Whether this many groups can be merged within the limits, even if all are new.
    pub fn has_capacity_for(&self, groups: usize) -> bool {
        let (counts, max) = (self.published.counts(), self.rules.limits.groups_max);
        let live = counts.groups + self.staged.new_len() + groups;
        live <= max && live + counts.tombstones <= max.saturating_mul(2)
    }

    /// Checks that there is capacity for one more group, live or deleted. Tombstones do not block pushes until there
    /// are as many as live groups are allowed.
    pub(super) fn check_group_limit(&self, live: bool) -> Result<(), StoreRefusal> {
        let (counts, max) = (self.published.counts(), self.rules.limits.groups_max);
        let groups = counts.groups + self.staged.new_len();
        if (live && groups >= max) || groups + counts.tombstones >= max.saturating_mul(2) {
            return Err(StoreRefusal::Limit { name: "limits.groups_max", max });
        }
        Ok(())
    }

    /// Checks that the group, if it is a tombstone, may become live.
    pub(super) fn check_revival(&self, entry: &GroupEntry, live: bool) -> Result<(), StoreRefusal> {
        let max = self.rules.limits.groups_max;
        if live && !entry.group.is_live() && self.published.counts().groups + self.staged.new_len() >= max {
            return Err(StoreRefusal::Limit { name: "limits.groups_max", max });
        }
        Ok(())
    }

    /// Merges `change` into the entry and drafts the result.
    ///
    /// # Errors
    /// A conflict, if `policy` refuses it. The caller then undoes the changes to the index.
    pub(super) fn apply(
        &mut self,
        entry: &Arc<GroupEntry>,
        change: Group,
        origin: Option<StoreId>,
        policy: ConflictPolicy,
    ) -> Result<(), StoreRefusal> {
        self.apply_within(entry, change, origin, policy, usize::MAX)
    }

    /// The same, while all groups show `quota_max` series at most.
    fn apply_within(
        &mut self,
        entry: &Arc<GroupEntry>,
        mut change: Group,
        origin: Option<StoreId>,
        policy: ConflictPolicy,
        quota_max: usize,
    ) -> Result<(), StoreRefusal> {
        let mut current = entry.group.walk();
        change.map_families(|family| {
            // The group's present schema is shared already.
            let schema = current.find(family.name()).map(|at| entry.group.families()[at].family.schema());
            let shared = schema.is_some_and(|schema| Arc::ptr_eq(schema, family.schema()));
            (!shared).then(|| self.schemas.intern(family.clone()))
        });
        let bytes = change.bytes();
        let (group, changes) = entry.group.merged(&change);
        if changes.is_empty() {
            return Ok(());
        }
        let revision = self.revision.next();
        let meta = FamilyMeta { revision, origin, suppressed: false };
        let (was_live, is_live) = (entry.group.is_live(), group.is_live());
        // A peer that deletes a group and writes to it again sends both as one change. Another group may have been shown
        // under its labels in between.
        let is_deleted = || entry.group.deleted() < group.deleted() && entry.group.latest() <= group.deleted();
        let is_reborn = was_live && is_live && is_deleted();
        let mut released = Vec::new();
        if was_live && (!is_live || is_reborn) {
            released.extend(self.leave_key(entry));
        }
        if is_live && (!was_live || is_reborn) {
            self.index.add_key(entry.scraped(), entry.id());
        }
        // A store above its limit (which was lowered) may change, but not grow.
        let series_max = self.rules.limits.series_max.min(quota_max).max(self.index.series());
        let terms = AdmissionTerms { policy, series_max };
        let (admitted, gone) = match group.is_adding() || entry.group.is_adding() {
            true => self.admit_units(entry, &group, &changes, meta, terms)?,
            false => self.admit_families(entry, &group, &changes, meta, terms)?,
        };
        let mut header = if changes.header { meta } else { entry.header };
        if changes.header && group.header() != change.header() {
            header.origin = None;
        }
        // The group's `suppressed` is up to date if it was live before: other groups that come and go update it.
        header.suppressed =
            is_live && if was_live && !is_reborn { entry.header.suppressed } else { self.is_shadowed(entry) };
        debug_assert_eq!(header.suppressed, is_live && self.is_shadowed(entry));
        let new = entry.successor(group, header, admitted);
        self.drafted_bytes += bytes + entry.id().key.text_bytes();
        self.records.push(Record::Group(new.record(|at| new.metas.get(at).revision == revision)));
        self.revision = revision;
        self.staged.set(entry.id(), Some(Arc::new(new)));
        released.extend(self.released_by(&gone));
        self.retry_released(released);
        Ok(())
    }

    /// Whether the group shows nothing: another group is shown under its labels, or two of its labels become one.
    pub(super) fn is_shadowed(&self, entry: &GroupEntry) -> bool {
        entry.has_alike() || self.index.shadower(entry.scraped(), entry.id()).is_some()
    }

    /// Removes the group's labels from the index. Returns the suppressed families of groups that are shown now because
    /// of that.
    fn leave_key(&mut self, entry: &GroupEntry) -> Vec<(GroupId, Arc<str>)> {
        let mut released = Vec::new();
        for id in self.index.remove_key(entry.scraped(), entry.id()) {
            let Some(next) = self.staged.get(&id).filter(|next| !self.is_shadowed(next)) else { continue };
            let suppressed = next.families().filter(|(_, meta, _)| meta.suppressed);
            released.extend(suppressed.map(|(f, ..)| (id.clone(), f.family.name().clone())));
            let mut new = (*next).clone();
            new.header.suppressed = false;
            self.records.push(Record::Group(new.record(|_| false)));
            self.staged.set(&id, Some(Arc::new(new)));
        }
        released
    }

    /// The records to make durable before [`Store::commit`], as one transaction; empty if nothing changed.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The approximate number of bytes of values and labels in the draft.
    pub fn drafted_bytes(&self) -> usize {
        self.drafted_bytes
    }

    /// Publishes the draft.
    pub fn commit(&mut self) -> Committed {
        self.index.commit();
        self.unconfirmed.commit();
        self.keys.commit();
        self.published_dropped = self.dropped;
        self.records.clear();
        self.drafted_bytes = 0;
        let cursors: Vec<_> = self.staged_cursors.drain().collect();
        self.keep_cursors(cursors);
        self.staged.quotas.publish();
        let changes = self.staged.clear();
        let mut view = self.published.lock();
        let sites = view.publish(&changes, self.revision);
        view.counts.series = self.index.series();
        view.counts.suppressed = self.index.suppressed_len();
        view.counts.mixed_types = self.index.mixed_len();
        view.counts.added += std::mem::take(&mut self.drafted_adds);
        view.counts.keys = self.keys.len();
        // Replaced entries are freed after the lock is released, with `changes`.
        drop(view);
        Committed { head: self.revision, sites }
    }

    /// Discards the draft: it could not be made durable.
    pub fn abort(&mut self) {
        self.index.undo(0);
        self.unconfirmed.abort();
        self.keys.abort();
        self.drafted_adds = 0;
        self.records.clear();
        self.drafted_bytes = 0;
        self.staged_cursors.clear();
        self.staged.quotas.discard();
        self.staged.clear();
        self.dropped = self.published_dropped;
        self.revision = self.published.head();
    }
}
