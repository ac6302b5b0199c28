//! Which groups changed when: what links read, by the revisions of the changes that still stand.

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

/// The groups of each place by their changes.
#[derive(Default)]
pub(super) struct Changed(HashMap<Arc<LabelSet>, SiteChanges>);

#[derive(Default)]
struct SiteChanges {
    /// Which group each change that still stands is of. A group is listed once for every change that left something of it as
    /// it is: under its last change alone, a batch that ends before that would leave out its older ones.
    groups: ByRevision,
    /// Where all changes after `mixed` came from: mostly a place has one edge, and that one need not be told of them.
    origin: Option<StoreId>,
    /// Up to here, changes may be of any store.
    mixed: Revision,
}

/// The store of the peer that is told, and the revision after which it knows what came from there.
pub(super) type PeerKnowledge = Option<(StoreId, Revision)>;

/// Whether the peer knows a change. What [`Changed::since`] leaves out of all of them follows from this.
pub(super) fn is_known_to_peer(known: PeerKnowledge, mark: FamilyMeta) -> bool {
    known.is_some_and(|(store, after)| mark.origin == Some(store) && mark.revision > after)
}

/// The groups of some changes.
pub(super) struct ChangeBatch {
    /// In the order of their first changes.
    pub(super) entries: Vec<Arc<GroupEntry>>,
    /// These are all up to here.
    pub(super) upto: Revision,
    /// Whether there is more after that.
    pub(super) more: bool,
}

impl Changed {
    /// Lists a group, which is published with all up to `upto`.
    pub(super) fn list(&mut self, entry: &Arc<GroupEntry>, upto: Revision) {
        let site = match self.0.get_mut(&entry.id().site) {
            Some(site) => site,
            None => self.0.entry(entry.id().site.clone()).or_default(),
        };
        site.groups.extend(entry.revisions().map(|revision| (revision, entry.clone())));
        for mark in std::iter::once(entry.header).chain(entry.distinct_marks()) {
            if mark.revision > site.mixed && mark.origin != site.origin {
                (site.origin, site.mixed) = (mark.origin, upto);
            }
        }
    }

    /// Lists a group no more. Its place stays until [`Changed::drop_empty`].
    pub(super) fn unlist(&mut self, entry: &GroupEntry) {
        if let Some(site) = self.0.get_mut(&entry.id().site) {
            for revision in entry.revisions() {
                site.groups.remove(&revision);
            }
        }
    }

    /// Forgets the place if no group is left there.
    pub(super) fn drop_empty(&mut self, site: &Arc<LabelSet>) {
        if self.0.get(site).is_some_and(|site| site.groups.is_empty()) {
            self.0.remove(site);
        }
    }

    /// The places that have groups.
    pub(super) fn sites(&self) -> impl Iterator<Item = &Arc<LabelSet>> {
        self.0.keys()
    }

    /// The groups of a place, one of several changes more than once.
    pub(super) fn groups_of(&self, site: &Arc<LabelSet>) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.0.get(site).into_iter().flat_map(|site| site.groups.values())
    }

    /// The groups that changed in a scope after `since`, up to about `bytes_max` of values and label text, at least one
    /// change. `head` is the last revision that is published. Places of which nothing would be left by [`is_known_to_peer`] are not
    /// looked through.
    pub(super) fn since(
        &self,
        scope: &Scope,
        since: Revision,
        known: PeerKnowledge,
        bytes_max: usize,
        head: Revision,
    ) -> ChangeBatch {
        // Of thousands of places few have changed.
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
    /// Whether nothing of the scope is looked through.
    pub(super) fn is_known(&self, scope: &Scope, since: Revision, known: PeerKnowledge) -> bool {
        let Scope::Site(site) = scope else { return false };
        self.0.get(site).is_none_or(|site| !site.concerns(since, known))
    }
}

impl SiteChanges {
    /// Whether there may be changes after `since` that [`is_known_to_peer`] leaves.
    fn concerns(&self, since: Revision, known: PeerKnowledge) -> bool {
        let knows_all =
            known.is_some_and(|(store, after)| self.origin == Some(store) && self.mixed.max(after) <= since);
        !knows_all && self.groups.last_key_value().is_some_and(|(last, _)| *last > since)
    }
}

/// The changes of a place that are still to come, each with its group.
type ChangesIter<'a> = Peekable<Range<'a, Revision, Arc<GroupEntry>>>;

/// The next change of a place; the earlier, the greater.
fn next_of(at: usize, site: &mut ChangesIter<'_>) -> Option<Reverse<(Revision, usize)>> {
    site.peek().map(|(revision, _)| Reverse((**revision, at)))
}

fn last_before(revision: Revision) -> Revision {
    Revision(revision.0 - 1)
}

/// About how large changes of groups are. Each group is looked through once, however many changes it has.
#[derive(Default)]
struct Sizes(HashMap<*const GroupEntry, Vec<(Revision, usize)>>);

impl Sizes {
    /// The bytes of that change, and whether it is the first of its group that was asked for.
    fn of(&mut self, entry: &Arc<GroupEntry>, revision: Revision) -> (usize, bool) {
        let (sizes, is_first) = match self.0.entry(Arc::as_ptr(entry)) {
            Occupied(sizes) => (sizes.into_mut(), false),
            Vacant(new) => (new.insert(change_bytes(entry)), true),
        };
        let at = sizes.binary_search_by_key(&revision, |(revision, _)| *revision);
        (64 + at.map_or(0, |at| sizes[at].1), is_first)
    }
}

/// Of each change that left something of the group as it is, in their order, about how many bytes that is.
fn change_bytes(entry: &GroupEntry) -> Vec<(Revision, usize)> {
    let family_bytes =
        |family: &Family| 32 + 8 * family.values().len() + family.raw_metrics_bytes() + family.schema().bytes() / 8;
    let families = entry.families().map(|(f, mark, _)| (mark.revision, family_bytes(&f.family)));
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
