//! Addressing: finds the group that a request or an upstream hub means by a set of labels.
//!
//! A node that accepts edges identifies a group by its site labels and its grouping key; requests and upstream hubs
//! name both as one set of labels. The store knows which of these are site labels once something has arrived from that
//! site. A group that is named earlier is created as a local group (one without a site), and moves to its site when the
//! site is known.

use std::sync::Arc;

use super::conflict::ConflictPolicy;
use super::entry::GroupEntry;
use super::writer::Store;
use crate::model::{Group, GroupId, LabelSet, StoreId};

impl Store {
    /// The group that `shown` means. In this order: the live group that is shown under these labels; a group of a known
    /// site, the site with the most labels first and then the first in order; a local group.
    pub fn resolve(&self, shown: impl Into<Arc<LabelSet>>) -> GroupId {
        let shown = shown.into();
        if let Some(id) = self.index.find(&shown) {
            return id.clone();
        }
        let sites = self.published.sites();
        // A site is known too if an edge of it is, even if it has no group.
        let cursors = self.cursors.values().chain(self.staged_cursors.values());
        let sites = sites.iter().chain(cursors.map(|cursor| &cursor.site));
        let named = sites.filter(|site| !site.is_empty()).filter_map(|site| GroupId::from_shown(site, &shown));
        let best = named.min_by(|a, b| b.site.len().cmp(&a.site.len()).then_with(|| a.site.cmp(&b.site)));
        best.unwrap_or(GroupId { site: Arc::default(), key: shown })
    }

    /// Notes that the store `peer` is at `site`. If that is new, local groups that mean groups of that site move there:
    /// an edge that lost its disk sends nothing by which its groups could be recognized, and must get them back. Other
    /// groups at the site do not prove that the move was done: damage may have taken the record of it.
    pub(super) fn migrate_to_site(&mut self, peer: StoreId, site: &Arc<LabelSet>) {
        let cursor = self.staged_cursors.get(&peer).or(self.cursors.get(&peer));
        if site.is_empty() || cursor.is_some_and(|cursor| cursor.site == *site) {
            return;
        }
        let mut own = self.published.groups_of(&Arc::default());
        let is_own = |entry: &&Arc<GroupEntry>| entry.id().site.is_empty();
        own.extend(self.staged.entries().filter(is_own).map(|entry| entry.id().clone()));
        let mut named: Vec<GroupId> = own.iter().filter_map(|id| GroupId::from_shown(site, &id.key)).collect();
        named.sort_unstable();
        named.dedup();
        for id in named {
            if self.staged.get(&id).is_none() {
                self.create(id);
            }
        }
    }

    /// Merges into the group `id` its local twin: the local group that is shown under the same labels, if there is one.
    pub(super) fn merge_local_twin(&mut self, id: &GroupId) {
        if let (Some(known), Some(entry)) = (self.take_local_twin(id), self.staged.get(id)) {
            self.apply(&entry, known, None, ConflictPolicy::SuppressAll).expect("what cannot be shown is held back");
        }
    }

    /// Deletes the local twin of `id` and returns its state, to be merged into `id`. A twin was created before the site
    /// of `id` was known.
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
