//! The groups of each site by the revisions of their changes: the order in which links send them.

use std::cmp::Reverse;
use std::collections::btree_map::Range;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;
use std::sync::Arc;

use foldhash::HashMap;

use super::entry::GroupEntry;
use super::record::FamilyMeta;
use super::scope::Scope;
use crate::model::{Family, LabelSet, Revision, StoreId};

/// Groups by the revisions of their changes.
pub(super) type ByRevision = BTreeMap<Revision, Arc<GroupEntry>>;

/// The changes of each site.
#[derive(Default)]
pub(super) struct Changed(HashMap<Arc<LabelSet>, SiteChanges>);

#[derive(Default)]
struct SiteChanges {
    /// Maps each revision that still contributes state to its group. A group appears once for each such revision: if
    /// only its newest were listed, a batch that ends earlier would omit older parts.
    groups: ByRevision,
    /// The store that all changes after `mixed` came from. A site mostly has one edge, and that edge needs none of its
    /// own changes back.
    origin: Option<StoreId>,
    /// Up to this revision, changes may have come from any store.
    mixed: Revision,
}

/// The store of the peer that is sent changes, and a revision: the peer knows all changes after it that came from that
/// store.
pub(super) type PeerKnowledge = Option<(StoreId, Revision)>;

/// Whether the peer knows a change. [`Changed::since`] skips the sites all of whose changes are known.
pub(super) fn is_known_to_peer(known: PeerKnowledge, meta: FamilyMeta) -> bool {
    known.is_some_and(|(store, after)| meta.origin == Some(store) && meta.revision > after)
}

/// The groups of some changes.
pub(super) struct ChangeBatch {
    /// The groups, in the order of their first changes.
    pub(super) entries: Vec<Arc<GroupEntry>>,
    /// The batch is complete up to this revision.
    pub(super) upto: Revision,
    /// Whether there are changes after that.
    pub(super) more: bool,
}

impl Changed {
    /// Lists a group that is published together with everything up to `upto`.
    pub(super) fn list(&mut self, entry: &Arc<GroupEntry>, upto: Revision) {
        let site = match self.0.get_mut(&entry.id().site) {
            Some(site) => site,
            None => self.0.entry(entry.id().site.clone()).or_default(),
        };
        site.groups.extend(entry.revisions().map(|revision| (revision, entry.clone())));
        for meta in std::iter::once(entry.header).chain(entry.distinct_metas()) {
            if meta.revision > site.mixed && meta.origin != site.origin {
                (site.origin, site.mixed) = (meta.origin, upto);
            }
        }
    }

    /// Removes a group. Its site stays until [`Changed::drop_empty`].
    pub(super) fn unlist(&mut self, entry: &GroupEntry) {
        if let Some(site) = self.0.get_mut(&entry.id().site) {
            for revision in entry.revisions() {
                site.groups.remove(&revision);
            }
        }
    }

    /// Removes the site if it has no group.
    pub(super) fn drop_empty(&mut self, site: &Arc<LabelSet>) {
        if self.0.get(site).is_some_and(|site| site.groups.is_empty()) {
            self.0.remove(site);
        }
    }

    /// The sites that have groups.
    pub(super) fn sites(&self) -> impl Iterator<Item = &Arc<LabelSet>> {
        self.0.keys()
    }

    /// The groups of a site; a group appears once for each of its changes.
    pub(super) fn groups_of(&self, site: &Arc<LabelSet>) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.0.get(site).into_iter().flat_map(|site| site.groups.values())
    }

    /// The next changes of a site after a revision, at most `len_max`, each with its group.
    pub(super) fn after(
        &self,
        site: &Arc<LabelSet>,
        after: Revision,
        len_max: usize,
    ) -> Vec<(Revision, Arc<GroupEntry>)> {
        let groups = self.0.get(site).map(|site| site.groups.range(after.next()..));
        groups.into_iter().flatten().take(len_max).map(|(revision, entry)| (*revision, entry.clone())).collect()
    }

    /// The groups of a scope that changed after `since`: at least one change, and then up to about `bytes_max` of
    /// values and label text. `head` is the last published revision. Sites all of whose changes the peer knows
    /// ([`is_known_to_peer`]) are skipped.
    pub(super) fn since(
        &self,
        scope: &Scope,
        since: Revision,
        known: PeerKnowledge,
        bytes_max: usize,
        head: Revision,
    ) -> ChangeBatch {
        // Few of thousands of sites have changed.
        let concerns = |site: &&SiteChanges| site.concerns(since, known);
        let sites: Vec<_> = match scope {
            Scope::Site(site) => self.0.get(site).into_iter().filter(concerns).collect(),
            Scope::Shown => self.0.values().filter(concerns).collect(),
        };
        let mut sites: Vec<_> = sites.into_iter().map(|site| site.groups.range(since.next()..).peekable()).collect();
        let mut oldest: BinaryHeap<_> = sites.iter_mut().enumerate().filter_map(|(at, p)| next_of(at, p)).collect();
        let (mut entries, mut sizes, mut bytes) = (Vec::new(), Sizes::default(), 0);
        while let Some(Reverse((revision, at))) = oldest.pop() {
            if bytes >= bytes_max {
                return ChangeBatch { entries, upto: last_before(revision), more: true };
            }
            let Some((_, entry)) = sites[at].next() else { continue };
            let (change_bytes, is_first) = sizes.of(entry, revision);
            bytes += change_bytes;
            if is_first {
                entries.push(entry.clone());
            }
            oldest.extend(next_of(at, &mut sites[at]));
        }
        ChangeBatch { entries, upto: head, more: false }
    }
}

#[cfg(test)]
impl Changed {
    /// Whether the site of the scope is skipped.
    pub(super) fn is_known(&self, scope: &Scope, since: Revision, known: PeerKnowledge) -> bool {
        let Scope::Site(site) = scope else { return false };
        self.0.get(site).is_none_or(|site| !site.concerns(since, known))
    }
}

impl SiteChanges {
    /// Whether there may be changes after `since` that the peer does not know ([`is_known_to_peer`]).
    fn concerns(&self, since: Revision, known: PeerKnowledge) -> bool {
        let knows_all =
            known.is_some_and(|(store, after)| self.origin == Some(store) && self.mixed.max(after) <= since);
        !knows_all && self.groups.last_key_value().is_some_and(|(last, _)| *last > since)
    }
}

/// The remaining changes of a site, each with its group.
type ChangesIter<'a> = Peekable<Range<'a, Revision, Arc<GroupEntry>>>;

/// The next change of a site, ordered so that a heap pops the earliest first.
fn next_of(at: usize, site: &mut ChangesIter<'_>) -> Option<Reverse<(Revision, usize)>> {
    site.peek().map(|(revision, _)| Reverse((**revision, at)))
}

fn last_before(revision: Revision) -> Revision {
    Revision(revision.0 - 1)
}

/// Approximate sizes of changes. Each group is measured once, however many changes it has.
#[derive(Default)]
struct Sizes(HashMap<*const GroupEntry, Vec<(Revision, usize)>>);

impl Sizes {
    /// The bytes of that change, and whether the group is asked for the first time.
    fn of(&mut self, entry: &Arc<GroupEntry>, revision: Revision) -> (usize, bool) {
        let (sizes, is_first) = match self.0.entry(Arc::as_ptr(entry)) {
            Occupied(sizes) => (sizes.into_mut(), false),
            Vacant(new) => (new.insert(change_bytes(entry)), true),
        };
        let at = sizes.binary_search_by_key(&revision, |(revision, _)| *revision);
        (64 + at.map_or(0, |at| sizes[at].1), is_first)
    }
}

/// The changes that still contribute state to the group, in order, each with its approximate bytes.
fn change_bytes(entry: &GroupEntry) -> Vec<(Revision, usize)> {
    let family_bytes =
        |family: &Family| 32 + 8 * family.values().len() + family.raw_metrics_bytes() + family.schema().bytes() / 8;
    let families = entry.families().map(|(f, meta, _)| (meta.revision, family_bytes(&f.family)));
    let mut sizes: Vec<_> = std::iter::once((entry.header.revision, 0)).chain(families).collect();
    sizes.sort_unstable_by_key(|(revision, _)| *revision);
    sizes.dedup_by(|later, kept| {
        later.0 == kept.0 && {
            kept.1 += later.1;
            true
        }
    });
    sizes
}
