//! Which group is meant: from the labels that a request or a hub names to a group of this store.
//!
//! A node that takes edges knows a group by its place and its key, everybody else by the two as one set of labels. Which
//! of these are the place's is known once something came from that place; a group that was named before is taken for one
//! of this node, and moves to its place when that is known.

use std::sync::Arc;

use super::conflict::ConflictPolicy;
use super::entry::GroupEntry;
use super::writer::Store;
use crate::model::{Group, GroupId, LabelSet, StoreId};

impl Store {
    /// The group that is meant by `shown`: the one shown under these labels; else one in the known place with the most of
    /// them, of several the first in their order; else one of this node.
    pub fn resolve(&self, shown: impl Into<Arc<LabelSet>>) -> GroupId {
        let shown = shown.into();
        if let Some(id) = self.index.find(&shown) {
            return id.clone();
        }
        let sites = self.published.sites();
        // An edge that has nothing is somewhere too.
        let cursors = self.cursors.values().chain(self.staged_cursors.values());
        let sites = sites.iter().chain(cursors.map(|cursor| &cursor.site));
        let within = sites.filter(|site| !site.is_empty()).filter_map(|site| GroupId::within(site, &shown));
        let best = within.min_by(|a, b| b.site.len().cmp(&a.site.len()).then_with(|| a.site.cmp(&b.site)));
        best.unwrap_or(GroupId { site: Arc::default(), key: shown })
    }

    /// The store `peer` is at `site`. If that was not known, what was taken for groups of this node moves there: an edge
    /// that has lost all it had sends nothing by which its groups would be found, and is to get them back. That the place has
    /// other groups says nothing: damage may have taken the record by which one moved.
    pub(super) fn migrate_to_site(&mut self, peer: StoreId, site: &Arc<LabelSet>) {
        let cursor = self.staged_cursors.get(&peer).or(self.cursors.get(&peer));
        if site.is_empty() || cursor.is_some_and(|cursor| cursor.site == *site) {
            return;
        }
        let mut own = self.published.groups_of(&Arc::default());
        let is_own = |entry: &&Arc<GroupEntry>| entry.id().site.is_empty();
        own.extend(self.staged.entries().filter(is_own).map(|entry| entry.id().clone()));
        let mut named: Vec<GroupId> = own.iter().filter_map(|id| GroupId::within(site, &id.key)).collect();
        named.sort_unstable();
        named.dedup();
        for id in named {
            if self.staged.get(&id).is_none() {
                self.create(id);
            }
        }
    }

    /// Merges into a group what was taken for one of this node, if there is such a group.
    pub(super) fn merge_local_twin(&mut self, id: &GroupId) {
        if let (Some(known), Some(entry)) = (self.take_local_twin(id), self.staged.get(id)) {
            self.apply(&entry, known, None, ConflictPolicy::SuppressAll).expect("what cannot be shown is held back");
        }
    }

    /// Takes out what was taken for a group of this node before anything of the place of `id` was here, and is to be part
    /// of `id` now.
    pub(super) fn take_local_twin(&mut self, id: &GroupId) -> Option<Group> {
        if id.site.is_empty() {
            return None;
        }
        let twin = GroupId { site: Arc::default(), key: id.shown() };
        let entry = self.staged.get(&twin)?;
        if entry.group.is_live() {
            let gone = Group::delete(entry.group.latest());
            self.apply(&entry, gone, None, ConflictPolicy::SuppressAll).expect("nothing to refuse in a delete");
        }
        self.drop_tombstone(&twin);
        Some(entry.group.clone())
    }
}
