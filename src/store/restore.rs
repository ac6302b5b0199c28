//! Restoring a store from the records on its disk, and the checkpoint that writes all of it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::admission::of_unit;
use super::conflict::{AdmissionTerms, ConflictPolicy};
use super::entry::{FamilyState, GroupEntry};
use super::record::{FamilyMeta, FamilyMetasBuilder, GroupRecord, Identity, PeerCursor, Record};
use super::writer::Store;
use crate::model::{Epoch, GroupFamily, GroupId, LabelSet, Position, Revision, StoreId};

/// Epochs that a store remembers, so that it can tell peers where its history forked.
const LINEAGE_MAX: usize = 64;
/// Peers whose cursors a store remembers, at most.
const CURSORS_MAX: usize = 65_536;

impl Store {
    /// Applies one record of an earlier epoch, in the order written. Nothing is shown before [`Store::open`].
    pub fn restore(&mut self, record: Record) {
        match record {
            Record::Opened { epoch, revision } => self.begin_epoch(epoch, revision),
            Record::Cursor { peer, cursor } => self.keep_cursors([(peer, cursor)]),
            Record::Forgotten { id, stamp, revision } => {
                self.staged.forget(&id);
                self.dropped.add(stamp, revision);
                self.revision = self.revision.max(revision);
            }
            Record::Group(record) => self.restore_group(record),
            Record::Key(record) => {
                self.keys.restore(record);
                self.revision = self.revision.max(record.revision);
            }
        }
    }

    fn begin_epoch(&mut self, epoch: Epoch, revision: Revision) {
        // Damage may have taken the changes before it; later changes must have later revisions all the same.
        self.revision = self.revision.max(revision);
        self.epochs.push(Position { epoch, revision });
        if self.epochs.len() > LINEAGE_MAX {
            self.epochs.remove(0);
        }
    }

    fn restore_group(&mut self, record: GroupRecord) {
        let GroupRecord { id, mut group, header, families } = record;
        let mut entry = match self.staged.take(&id) {
            Some(entry) => Arc::unwrap_or_clone(entry),
            None => GroupEntry::new(id),
        };
        group.map_families(|family| Some(self.schemas.intern(family.clone())));
        let key = |f: &GroupFamily| (f.family.name().clone(), f.contributor.clone());
        let mut metas: HashMap<_, FamilyMeta> = entry.families().map(|(f, meta, _)| (key(f), meta)).collect();
        entry.group.merge(&group);
        for (at, new) in group.families().iter().enumerate() {
            let meta = families.get(at);
            if entry.group.namesake(new).is_some_and(|kept| kept.stamp == new.stamp) {
                metas.insert(key(new), meta);
            }
            self.revision = self.revision.max(meta.revision);
        }
        let meta = |f: &GroupFamily| metas.get(&key(f)).copied().unwrap_or_default();
        entry.metas = entry.group.families().iter().map(meta).collect();
        entry.families = vec![FamilyState::default(); entry.group.families().len()];
        entry.header = if header.revision >= entry.header.revision { header } else { entry.header };
        self.revision = self.revision.max(header.revision);
        let entry = Arc::new(entry);
        self.staged.set(entry.id(), Some(entry.clone()));
    }

    /// Ends the restoration: shows the families that were shown, tries the suppressed ones again, publishes all, and
    /// begins a new epoch. The caller makes the epoch's record durable and commits it.
    pub fn open(&mut self, identity: Identity, epoch: Epoch) {
        self.identity = identity;
        let mut entries: Vec<Arc<GroupEntry>> = self.staged.entries().cloned().collect();
        entries.sort_by_key(|entry| (entry.header.suppressed, entry.header.revision));
        for entry in entries.iter().filter(|entry| entry.group.is_live()) {
            self.index.add_key(entry.scraped(), entry.id());
        }
        for suppressed in [false, true] {
            for entry in &entries {
                self.admit_restored(entry.id(), suppressed);
            }
        }
        self.records.clear();
        self.commit();
        self.begin_epoch(epoch, self.revision);
        self.records.push(Record::Opened { epoch, revision: self.revision });
        self.merge_twins();
        self.begin_unconfirmed();
    }

    /// Resets the cursors after damage: the store no longer knows which changes of its peers it has. The reset is
    /// written together with the new epoch. A new store id alone is not enough: after a second loss, a peer that
    /// already knows the new id could resume past data that is gone.
    pub fn distrust_cursors(&mut self) {
        let mut cursors: Vec<(StoreId, PeerCursor)> = self.cursors.clone().into_iter().collect();
        cursors.sort_by_key(|(peer, _)| *peer);
        for (peer, PeerCursor { site, .. }) in cursors {
            self.set_cursor(peer, PeerCursor { position: Position::default(), site });
        }
    }

    /// Merges local groups into their twins at a site. A group that was named before its site was known has moved
    /// there; damage may have taken the record of the move and left both groups. A write to one of them would not reach
    /// the peers that have the other.
    fn merge_twins(&mut self) {
        let own: HashSet<Arc<LabelSet>> =
            self.published.groups_of(&Arc::default()).into_iter().map(|id| id.key).collect();
        if own.is_empty() {
            return;
        }
        let is_twin = |entry: &Arc<GroupEntry>| !entry.id().site.is_empty() && own.contains(entry.shown());
        let mut twins: Vec<Arc<GroupEntry>> = self.published.entries().into_iter().filter(is_twin).collect();
        twins.sort_by_key(|entry| entry.revision());
        for entry in twins {
            self.merge_local_twin(entry.id());
        }
    }

    /// Shows the families of a restored group that were (not) suppressed, as `suppressed` says, or suppresses them if
    /// they conflict. Families that were shown are shown even if the limit on series has been lowered since.
    fn admit_restored(&mut self, id: &GroupId, suppressed: bool) {
        let Some(entry) = self.staged.get(id) else { return };
        let is_due = |unit: &Range<usize>| {
            let newest = unit.clone().map(|at| entry.metas.get(at)).max_by_key(|meta| meta.revision);
            newest.is_some_and(|meta| meta.suppressed == suppressed) && entry.families[unit.start].conflict.is_none()
        };
        if !suppressed || entry.group.units().any(|unit| is_due(&unit)) {
            let series_max = if suppressed { self.rules.limits.series_max } else { usize::MAX };
            let terms = AdmissionTerms { policy: ConflictPolicy::SuppressAll, series_max };
            let mut new = (*entry).clone();
            new.header.suppressed = entry.group.is_live() && self.is_shadowed(&entry);
            let mut metas = FamilyMetasBuilder::default();
            for unit in entry.group.units() {
                let mut now = None;
                if is_due(&unit) {
                    let whole = self.whole(&entry.group, unit.clone());
                    let admitted = self.admit_family(&entry, &whole, terms);
                    let (suppressed, mut state) = admitted.expect("held back instead of refused");
                    if entry.group.families()[unit.end - 1].contributor.is_some() {
                        state.shown = state.shown.or_else(|| Some(Box::new(whole)));
                    }
                    of_unit(unit.clone(), state).for_each(|(at, state)| new.families[at] = state);
                    now = Some(suppressed);
                }
                for meta in unit.map(|at| entry.metas.get(at)) {
                    metas.push(FamilyMeta { suppressed: now.unwrap_or(meta.suppressed), ..meta });
                }
            }
            new.metas = metas.finish();
            self.staged.set(id, Some(Arc::new(new)));
        }
    }

    /// Stores cursors, and drops others beyond [`CURSORS_MAX`]: peers whose stores are created anew at each start would
    /// let them grow without bound. A dropped cursor costs a resync.
    pub(super) fn keep_cursors(&mut self, cursors: impl IntoIterator<Item = (StoreId, PeerCursor)>) {
        for (peer, cursor) in cursors {
            if self.cursors.len() >= CURSORS_MAX && !self.cursors.contains_key(&peer) {
                let any = self.cursors.keys().next().copied();
                any.map(|any| self.cursors.remove(&any));
            }
            self.cursors.insert(peer, cursor);
        }
    }

    /// The records that restore all published state, for a checkpoint.
    pub fn checkpoint(&self) -> impl Iterator<Item = Record> + Send + use<> {
        let epochs = self.epochs.clone().into_iter();
        let opened = epochs.map(|opening| Record::Opened { epoch: opening.epoch, revision: opening.revision });
        let cursors = self.cursors.clone().into_iter().map(|(peer, cursor)| Record::Cursor { peer, cursor });
        // No group has an empty grouping key, so this record forgets none.
        let none = GroupId::local(LabelSet::default());
        let dropped = self.published_dropped;
        let floor = Record::Forgotten { id: none, stamp: dropped.floor, revision: dropped.revision };
        let mut entries = self.published.entries();
        // Sorted by address, as any other order would miss the cache for each group. The sort runs on the thread that
        // writes the checkpoint.
        let groups = std::iter::once_with(move || {
            entries.sort_unstable_by_key(Arc::as_ptr);
            entries
        });
        let groups = groups.flatten().map(|entry| Record::Group(entry.record(|_| true)));
        let keys = self.keys.durable().into_iter().map(Record::Key);
        opened.chain(cursors).chain(std::iter::once(floor)).chain(keys).chain(groups)
    }
}
