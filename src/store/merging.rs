//! Merging the changes of peers into the draft.

use super::conflict::ConflictPolicy;
use super::entry::SuppressedFamily;
use super::refusal::StoreRefusal;
use super::view::{PUSH_FAILURE_TIME, PUSH_TIME};
use super::writer::Store;
use crate::model::{Group, GroupFamily, GroupId, StoreId};

impl Store {
    /// Merges a change that a peer's store sent, and returns the families of it that are suppressed. A conflict never
    /// refuses the change, as the peer would send it again forever; neither does `limits.series_max`: such families are
    /// suppressed until others are removed. The families of push times are left out, because each node shows its own.
    ///
    /// # Errors
    /// The group is not live here and the store is at `limits.groups_max`. Tombstones have a limit of the same size of
    /// their own.
    pub fn merge(
        &mut self,
        id: &GroupId,
        change: Group,
        origin: StoreId,
    ) -> Result<Vec<SuppressedFamily>, StoreRefusal> {
        self.merge_at(id, change, origin, 0)
    }

    /// The same at a time, in nanoseconds since the Unix epoch, for the count of writes to the group.
    ///
    /// # Errors
    /// See [`Store::merge`].
    pub fn merge_at(
        &mut self,
        id: &GroupId,
        change: Group,
        origin: StoreId,
        now_ns: u64,
    ) -> Result<Vec<SuppressedFamily>, StoreRefusal> {
        // A push in the same draft must find its quota counted.
        self.staged.settle_quotas();
        let shows_times = |f: &GroupFamily| [PUSH_TIME, PUSH_FAILURE_TIME].contains(&&**f.family.name());
        let change =
            if change.families().iter().any(shows_times) { change.part(|_, f| !shows_times(f)) } else { change };
        self.outlive(id, change.latest());
        let entry = match self.staged.get_to_set(id) {
            Some(entry) => {
                self.check_revival(&entry, change.is_live())?;
                entry
            }
            None => {
                self.check_group_limit(change.is_live())?;
                self.create(id.clone())
            }
        };
        let (point, before, is_live) = (self.index.point(), self.revision, change.is_live());
        self.apply(&entry, change, Some(origin), ConflictPolicy::SuppressAll)
            .inspect_err(|_| self.index.undo(point))?;
        if self.revision == before && is_live && !entry.group.is_live() {
            self.republish_tombstone(&entry);
        }
        if self.revision != before {
            entry.count_update(now_ns);
        }
        if self.revision == before || self.index.suppressed_len() == 0 {
            return Ok(Vec::new());
        }
        Ok(self.staged.get(entry.id()).map(|entry| entry.suppressed_since(before).collect()).unwrap_or_default())
    }

    /// Whether a peer's group may have been deleted here: the store does not have it, and it was last pushed before a
    /// delete whose tombstone is dropped.
    pub fn may_be_deleted(&self, id: &GroupId, change: &Group) -> bool {
        let pushed = change.pushed().map_or_else(|| change.latest(), |push_time| push_time.stamp);
        change.is_live() && pushed <= self.dropped.floor && self.staged.get(id).is_none()
    }
}
