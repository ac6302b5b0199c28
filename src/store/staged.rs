//! The draft: changed groups over the published state.

use std::sync::Arc;

use foldhash::HashMap;

use super::entry::GroupEntry;
use super::group_change::GroupChange;
use super::index::Groups;
use super::quota::Quotas;
use super::view::Published;
use crate::model::{GroupId, Schema};

/// A table with capacity for more groups is not reused for the next draft: clearing it takes time in proportion to its
/// capacity, and the first draft after a start has every group.
const CAPACITY_KEPT: usize = 8_192;

/// The draft. Groups that it does not have are read from the published state.
pub(super) struct Staged {
    /// The changes, in the order in which groups were first set or looked up.
    changes: Vec<GroupChange>,
    /// The index of each group in `changes`.
    positions: HashMap<GroupId, usize>,
    /// The number of groups that the draft adds.
    new: usize,
    /// The quotas, whose numbers follow the draft.
    pub(super) quotas: Quotas,
    published: Published,
}

impl Staged {
    /// An empty draft.
    pub(super) fn over(published: Published) -> Self {
        let quotas = Quotas::new(published.shared_quotas().clone());
        Self { changes: Vec::new(), positions: HashMap::default(), new: 0, quotas, published }
    }

    fn change(&self, id: &GroupId) -> Option<&GroupChange> {
        self.positions.get(id).map(|at| &self.changes[*at])
    }

    /// The group as drafted, or else as published.
    pub(super) fn get(&self, id: &GroupId) -> Option<Arc<GroupEntry>> {
        match self.change(id) {
            Some(change) => change.after.clone(),
            None => self.published.group(id),
        }
    }

    /// The same, for a group that is likely to be set next: it is looked up only once.
    pub(super) fn get_to_set(&mut self, id: &GroupId) -> Option<Arc<GroupEntry>> {
        if let Some(change) = self.change(id) {
            return change.after.clone();
        }
        let entry = self.published.group(id)?;
        self.add(id.clone(), Some(entry.clone()));
        Some(entry)
    }

    /// Adds published groups to the draft unchanged, as they are about to be set.
    pub(super) fn look_up(&mut self, ids: &[GroupId]) {
        for (id, entry) in ids.iter().zip(self.published.groups_by_id(ids)) {
            if entry.is_some() && !self.positions.contains_key(id) {
                self.add(id.clone(), entry);
            }
        }
    }

    /// Adds a group that the draft lacks, as it is published. Returns its index.
    fn add(&mut self, id: GroupId, before: Option<Arc<GroupEntry>>) -> usize {
        let at = self.changes.len();
        self.positions.insert(id, at);
        self.changes.push(GroupChange { after: before.clone(), before });
        at
    }

    /// Drafts a new entry for the group; `None` removes the group.
    pub(super) fn set(&mut self, id: &GroupId, entry: Option<Arc<GroupEntry>>) {
        let at = match self.positions.get(id) {
            Some(at) => *at,
            None => self.add(id.clone(), self.published.group(id)),
        };
        let change = &mut self.changes[at];
        self.new -= usize::from(change.is_new());
        self.quotas.note(change.after.as_deref(), entry.as_deref());
        change.after = entry;
        self.new += usize::from(change.is_new());
    }

    /// Takes a group out to be changed and set again. Only for a draft over an empty store.
    pub(super) fn take(&mut self, id: &GroupId) -> Option<Arc<GroupEntry>> {
        let change = &mut self.changes[*self.positions.get(id)?];
        debug_assert!(change.before.is_none(), "what is published stays as it is until it is set");
        self.new -= usize::from(change.is_new());
        change.after.take()
    }

    /// Removes a group for good, as a log may name any number of groups that are gone. Only for a draft over an empty
    /// store.
    pub(super) fn forget(&mut self, id: &GroupId) {
        self.take(id);
        self.positions.remove(id);
    }

    /// Takes over quotas that were replaced, if the draft is empty.
    pub(super) fn settle_quotas(&mut self) {
        if self.changes.is_empty() {
            self.quotas.settle(|| self.published.entries());
        }
    }

    /// Whether the draft changes the group.
    pub(super) fn has_changed(&self, id: &GroupId) -> bool {
        self.change(id).is_some_and(GroupChange::differs)
    }

    /// The number of groups that the draft adds.
    pub(super) fn new_len(&self) -> usize {
        self.new
    }

    /// The groups in the draft. Others may be published.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.changes.iter().filter_map(|change| change.after.as_ref())
    }

    /// Ends the draft and returns its changes in order. Groups that changed together the last time mostly lie together
    /// in memory, and publishing visits them in this order.
    pub(super) fn clear(&mut self) -> Vec<GroupChange> {
        self.new = 0;
        if self.positions.capacity() > CAPACITY_KEPT {
            self.positions = HashMap::default();
        } else {
            self.positions.clear();
        }
        let mut changed = std::mem::take(&mut self.changes);
        changed.retain(GroupChange::differs);
        changed
    }
}

impl Groups for Staged {
    fn shown_schema(&self, id: &GroupId, name: &str) -> Option<Arc<Schema>> {
        self.get(id)?.shown_family(name).map(|family| family.schema().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LabelSet, Revision};
    use crate::store::FamilyMeta;

    fn version(id: &GroupId, revision: u64) -> Option<Arc<GroupEntry>> {
        let header = FamilyMeta { revision: Revision(revision), ..FamilyMeta::default() };
        Some(Arc::new(GroupEntry { header, ..GroupEntry::new(id.clone()) }))
    }

    #[test]
    fn a_draft_returns_its_changes_in_order() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|job| GroupId::local(LabelSet::new([("job", job)])));
        let published = Published::default();
        let mut staged = Staged::over(published.clone());
        for (id, revision) in [(&a, 1), (&b, 2), (&c, 3)] {
            staged.set(id, version(id, revision));
        }
        published.lock().publish(&staged.clear(), Revision(3));
        // One of them twice, and one that is nowhere.
        staged.look_up(&[&c, &d, &b, &c, &a].map(Clone::clone));
        assert_eq!((staged.entries().count(), staged.new_len()), (3, 0));
        for (id, revision) in [(&a, 4), (&d, 5), (&c, 6)] {
            staged.set(id, version(id, revision));
        }
        assert!([&a, &c, &d].map(|id| staged.has_changed(id)) == [true; 3] && !staged.has_changed(&b));
        assert_eq!(staged.new_len(), 1);
        let changed = staged.clear();
        let ids: Vec<&GroupId> =
            changed.iter().filter_map(|change| change.after.as_deref()).map(GroupEntry::id).collect();
        assert_eq!(ids, [&c, &a, &d]);
    }

    #[test]
    fn a_forgotten_group_can_be_set_again() {
        let id = GroupId::local(LabelSet::new([("job", "a")]));
        let mut staged = Staged::over(Published::default());
        staged.set(&id, version(&id, 1));
        staged.forget(&id);
        assert!(staged.get(&id).is_none() && staged.take(&id).is_none() && staged.positions.is_empty());
        assert_eq!((staged.new_len(), staged.entries().count()), (0, 0));
        staged.set(&id, version(&id, 2));
        assert_eq!((staged.new_len(), staged.clear().len()), (1, 1));
    }

    #[test]
    fn a_large_draft_leaves_no_large_table() {
        let mut staged = Staged::over(Published::default());
        let fill = |staged: &mut Staged, groups: usize| {
            for group in 0..groups {
                let id = GroupId::local(LabelSet::new([("job", group.to_string())]));
                staged.set(&id, Some(Arc::new(GroupEntry::new(id.clone()))));
            }
            assert_eq!((staged.new_len(), staged.clear().len(), staged.new_len()), (groups, groups, 0));
            staged.positions.capacity()
        };
        assert!(fill(&mut staged, 2 * CAPACITY_KEPT) <= CAPACITY_KEPT);
        assert!((100..=CAPACITY_KEPT).contains(&fill(&mut staged, 100)), "the capacity of an ordinary draft is kept");
    }
}
