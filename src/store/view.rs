//! What is published: the durable state that scrapes, links and queries read.
//!
//! Behind one lock that is held for as long as it takes to copy pointers. The store's writer publishes a batch after it
//! was made durable; nobody else writes.

use std::cmp::Reverse;
use std::collections::btree_map::Range;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashSet};

use super::entry::Entry;
use super::pages::{Block, Pages, Shown};
use super::scope::Scope;
use super::staged::Version;
use crate::model::place::EXPORTED_PREFIX;
use crate::model::{
    Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, Points, Revision, StoreId, Values, label,
};

/// Name of the family that tells when a group's last push was accepted (Pushgateway's).
pub const PUSH_TIME: &str = "push_time_seconds";
/// Name of the family that tells when a group's last push was refused (Pushgateway's).
pub const PUSH_FAILURE_TIME: &str = "push_failure_time_seconds";
const PUSH_TIME_HELP: &str = "Last Unix time when changing this group in the Pushgateway succeeded.";
const PUSH_FAILURE_TIME_HELP: &str = "Last Unix time when changing this group in the Pushgateway failed.";

/// A handle to what is published. Cheap to clone.
#[derive(Clone, Default)]
pub struct Published(Arc<Mutex<View>>);

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live groups.
    pub groups: usize,
    /// Deleted groups that a peer may still have to hear of.
    pub tombstones: usize,
    /// Series shown, without those that tell the times of pushes.
    pub series: usize,
    /// Families held back.
    pub held: usize,
}

/// A change that a peer is to be told of.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which group: what the peer calls it.
    pub key: Arc<LabelSet>,
    /// What changed of it.
    pub group: Group,
}

/// Changes to be sent.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// The changes, in the order of their revisions.
    pub changes: Vec<Change>,
    /// With these, the peer holds all up to here.
    pub upto: Revision,
    /// Whether there is more after that.
    pub more: bool,
}

/// The groups that a scrape shows with the times of their pushes, as they were when it was made.
#[derive(Clone, Debug, Default)]
pub struct GroupTimes {
    pushed: Option<Arc<Block>>,
    failed: Option<Arc<Block>>,
}

impl GroupTimes {
    /// Each group's labels and the times, in seconds since the epoch, at which the last push was accepted and refused; 0
    /// if none was.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<LabelSet>, f64, f64)> {
        fn entries(block: &Option<Arc<Block>>) -> impl Iterator<Item = &Shown> {
            block.iter().flat_map(|block| block.entries())
        }
        // Both are shown of the same groups.
        let pairs = entries(&self.pushed).zip(entries(&self.failed));
        let value = |shown: &Shown| shown.family.values().first().copied().unwrap_or_default();
        pairs.map(move |(pushed, failed)| (&pushed.labels, value(pushed), value(failed)))
    }
}

/// Groups by the revisions of their changes.
type Changed = BTreeMap<Revision, Arc<Entry>>;

#[derive(Default)]
pub(super) struct View {
    pub(super) groups: HashMap<GroupId, Arc<Entry>>,
    /// Of each place, which group each change that still stands is of. A group is listed once for every change that left
    /// something of it as it is: under its last change alone, a batch that ends before that would leave out its older ones.
    changed: HashMap<Arc<LabelSet>, Changed>,
    tombstones: Changed,
    /// Groups of which something is held back.
    held: HashSet<GroupId>,
    pages: Pages,
    pub(super) revision: Revision,
    pub(super) counts: Counts,
}

impl Published {
    pub(super) fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision up to which everything is published.
    pub fn head(&self) -> Revision {
        self.lock().revision
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// All that a scrape shows, a block a metric name, in the order of names.
    pub fn snapshot(&self) -> Vec<(Arc<str>, Arc<Block>)> {
        self.lock().pages.snapshot()
    }

    /// The live groups that are shown, sorted by their labels.
    pub fn groups(&self) -> Vec<Arc<Entry>> {
        let live = |entry: &&Arc<Entry>| entry.group.is_live();
        let mut groups: Vec<Arc<Entry>> = self.lock().groups.values().filter(live).cloned().collect();
        groups.sort_by(|a, b| a.shown.cmp(&b.shown));
        groups
    }

    /// The groups that a scrape shows, sorted by their labels, with the times of their pushes: no copy, and no more than a
    /// pointer taken under the lock.
    pub fn times(&self) -> GroupTimes {
        let view = self.lock();
        GroupTimes { pushed: view.pages.block(PUSH_TIME), failed: view.pages.block(PUSH_FAILURE_TIME) }
    }

    /// What is shown under a metric name.
    pub fn block(&self, name: &str) -> Option<Arc<Block>> {
        self.lock().pages.block(name)
    }

    /// The live groups of which something is held back, sorted by their labels.
    pub fn held(&self) -> Vec<Arc<Entry>> {
        let view = self.lock();
        let mut held: Vec<Arc<Entry>> = view.held.iter().map(|id| view.groups[id].clone()).collect();
        drop(view);
        held.sort_by(|a, b| a.shown.cmp(&b.shown));
        held
    }

    /// The live group with exactly these labels; if there are two, the one that is shown.
    pub fn find(&self, shown: &LabelSet) -> Option<Arc<Entry>> {
        let view = self.lock();
        let is_it = |entry: &&Arc<Entry>| entry.group.is_live() && *entry.shown == *shown;
        let ids = view.changed.keys().filter_map(|place| GroupId::within(place, shown));
        let plain = ids.filter_map(|id| view.groups.get(&id)).filter(is_it).min_by_key(|entry| entry.header.held);
        if let Some(entry) = plain {
            return Some(entry.clone());
        }
        let times = view.pages.block(PUSH_TIME);
        drop(view);
        // Where a label looks like one that disagreed with the place, that was a guess. All groups are looked at only if one
        // is shown under these labels, and not under the lock.
        let renamed = shown.iter().any(|label| label.name.starts_with(EXPORTED_PREFIX));
        if !renamed || !times.is_some_and(|block| block.contains(shown)) {
            return None;
        }
        let entries = self.entries();
        entries.iter().filter(is_it).min_by_key(|entry| entry.header.held).cloned()
    }

    /// One group, live or a tombstone.
    pub fn group(&self, id: &GroupId) -> Option<Arc<Entry>> {
        self.lock().groups.get(id).cloned()
    }

    /// All groups, tombstones included, in no order.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().groups.values().cloned().collect()
    }

    /// What changed in a scope after `since`, up to about `bytes_max` of values and label text, at least one change: all of
    /// it up to [`ChangeSet::upto`], and of a group that changed later too, not that. Of what came from the store in `skip`
    /// after the revision named there, nothing is returned.
    pub fn changes(
        &self,
        scope: &Scope,
        since: Revision,
        skip: Option<(StoreId, Revision)>,
        bytes_max: usize,
    ) -> ChangeSet {
        let (entries, upto, more) = self.changed_entries(scope, since, bytes_max);
        let skipped = |origin: Option<StoreId>, revision: Revision| {
            skip.is_some_and(|(store, after)| origin == Some(store) && revision > after)
        };
        let mut changes = Vec::with_capacity(entries.len());
        for entry in entries {
            let wanted =
                |revision: Revision, origin| revision > since && revision <= upto && !skipped(origin, revision);
            let keep = |i: usize| wanted(entry.families[i].mark.revision, entry.families[i].mark.origin);
            let header = wanted(entry.header.revision, entry.header.origin);
            if header || (0..entry.families.len()).any(keep) {
                let key = match scope {
                    Scope::Place(_) => entry.id.key.clone(),
                    Scope::Shown => entry.shown.clone(),
                };
                changes.push(Change { key, group: entry.group.part(|i, _| keep(i)) });
            }
        }
        ChangeSet { changes, upto, more }
    }

    fn changed_entries(&self, scope: &Scope, since: Revision, bytes_max: usize) -> (Vec<Arc<Entry>>, Revision, bool) {
        let view = self.lock();
        let places: Vec<_> = match scope {
            Scope::Place(place) => view.changed.get(place).into_iter().collect(),
            // Of thousands of places few have changed.
            Scope::Shown => {
                let later = |changed: &&Changed| changed.last_key_value().is_some_and(|(last, _)| *last > since);
                view.changed.values().filter(later).collect()
            }
        };
        let mut places: Vec<_> = places.into_iter().map(|changed| changed.range(since.next()..).peekable()).collect();
        let mut oldest: BinaryHeap<_> = places.iter_mut().enumerate().filter_map(|(at, p)| next_of(at, p)).collect();
        let (mut entries, mut sizes, mut bytes) = (Vec::new(), Sizes::default(), 0);
        while let Some(Reverse((revision, at))) = oldest.pop() {
            if bytes >= bytes_max {
                return (entries, last_before(revision), true);
            }
            let Some((_, entry)) = places[at].next() else { continue };
            let (change_bytes, is_first) = sizes.of(entry, revision);
            bytes += change_bytes;
            if is_first {
                entries.push(entry.clone());
            }
            oldest.extend(next_of(at, &mut places[at]));
        }
        (entries, view.revision, false)
    }

    /// The places that groups were pushed in.
    pub fn places(&self) -> Vec<Arc<LabelSet>> {
        self.lock().changed.keys().cloned().collect()
    }

    /// The groups of one place, tombstones included, in no order, and one of several changes more than once.
    pub(super) fn groups_of(&self, place: &Arc<LabelSet>) -> Vec<GroupId> {
        let view = self.lock();
        let entries = view.changed.get(place).into_iter().flat_map(|changed| changed.values());
        entries.map(|entry| entry.id.clone()).collect()
    }

    /// Tombstones of changes up to `upto` and written before `before_ns`, at most `len_max`, of those that changed longest
    /// ago: what is behind sixteen times as many that are not due is not looked at.
    pub fn tombstones(&self, upto: Revision, before_ns: u64, len_max: usize) -> Vec<Arc<Entry>> {
        let view = self.lock();
        let oldest = view.tombstones.range(..=upto).take(16 * len_max);
        // By all that it says: what is dropped sets the time that all later writes come after.
        let due = oldest.filter(|(_, entry)| entry.group.latest().time_ns < before_ns);
        due.take(len_max).map(|(_, entry)| entry.clone()).collect()
    }
}

/// The changes of a place that are still to come, each with its group.
type Coming<'a> = Peekable<Range<'a, Revision, Arc<Entry>>>;

/// The next change of a place; the earlier, the greater.
fn next_of(at: usize, place: &mut Coming<'_>) -> Option<Reverse<(Revision, usize)>> {
    place.peek().map(|(revision, _)| Reverse((**revision, at)))
}

fn last_before(revision: Revision) -> Revision {
    Revision(revision.0 - 1)
}

/// About how large changes of groups are. Each group is looked through once, however many changes it has.
#[derive(Default)]
struct Sizes(HashMap<*const Entry, Vec<(Revision, usize)>>);

impl Sizes {
    /// The bytes of that change, and whether it is the first of its group that was asked for.
    fn of(&mut self, entry: &Arc<Entry>, revision: Revision) -> (usize, bool) {
        let (sizes, is_first) = match self.0.entry(Arc::as_ptr(entry)) {
            Occupied(sizes) => (sizes.into_mut(), false),
            Vacant(new) => (new.insert(change_bytes(entry)), true),
        };
        let at = sizes.binary_search_by_key(&revision, |(revision, _)| *revision);
        (64 + at.map_or(0, |at| sizes[at].1), is_first)
    }
}

/// Of each change that left something of the group as it is, in their order, about how many bytes that is.
fn change_bytes(entry: &Entry) -> Vec<(Revision, usize)> {
    let family_bytes =
        |family: &Family| 32 + 8 * family.values().len() + family.original_bytes() + family.shape().bytes() / 8;
    let families = entry.families().map(|(f, state)| (state.mark.revision, family_bytes(&f.family)));
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

impl View {
    /// Puts new versions of groups in the place of the old. Returns the places that changed.
    pub(super) fn publish(&mut self, versions: &[Version], revision: Revision) -> HashSet<Arc<LabelSet>> {
        let mut places = HashSet::default();
        for Version { was, is } in versions {
            self.unlist(was.as_deref());
            self.unshow(was.as_deref(), is.as_deref());
            let id = was.as_ref().or(is.as_ref()).map(|entry| &entry.id);
            if let Some(place) = id.map(|id| &id.place).filter(|place| !places.contains(*place)) {
                places.insert(place.clone());
            }
        }
        for Version { was, is } in versions {
            match (was, is) {
                (was, Some(entry)) => {
                    self.list(entry);
                    self.show(was.as_deref(), entry);
                    match self.groups.get_mut(&entry.id) {
                        Some(group) => *group = entry.clone(),
                        None => drop(self.groups.insert(entry.id.clone(), entry.clone())),
                    }
                }
                (Some(was), None) => drop(self.groups.remove(&was.id)),
                (None, None) => {}
            }
        }
        self.revision = revision;
        places
    }

    fn list(&mut self, entry: &Arc<Entry>) {
        let changed = match self.changed.get_mut(&entry.id.place) {
            Some(changed) => changed,
            None => self.changed.entry(entry.id.place.clone()).or_default(),
        };
        changed.extend(entry.revisions().map(|revision| (revision, entry.clone())));
        if entry.families.iter().any(|state| state.mark.held) {
            self.held.insert(entry.id.clone());
        }
        if entry.group.is_live() {
            self.counts.groups += 1;
        } else {
            self.counts.tombstones += 1;
            self.tombstones.insert(entry.revision(), entry.clone());
        }
    }

    fn unlist(&mut self, old: Option<&Entry>) {
        let Some(entry) = old else { return };
        self.held.remove(&entry.id);
        if let Some(changed) = self.changed.get_mut(&entry.id.place) {
            for revision in entry.revisions() {
                changed.remove(&revision);
            }
            if changed.is_empty() {
                self.changed.remove(&entry.id.place);
            }
        }
        if entry.group.is_live() {
            self.counts.groups -= 1;
        } else {
            self.counts.tombstones -= 1;
            self.tombstones.remove(&entry.revision());
        }
    }

    /// Takes out of the pages what the new version does not show.
    fn unshow(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let Some(old) = old else { return };
        let mut walk = new.map(|new| new.group.walk());
        let mut stays = |name: &Arc<str>| {
            let at = walk.as_mut().and_then(|walk| walk.find(name));
            at.is_some_and(|at| new.is_some_and(|new| new.shown_at(at).is_some()))
        };
        for family in old.shown_families().filter(|family| !stays(family.name())) {
            self.pages.remove(&old.shown, family.name());
        }
        if shows_times(old) && !new.is_some_and(shows_times) {
            self.pages.remove(&old.shown, PUSH_TIME);
            self.pages.remove(&old.shown, PUSH_FAILURE_TIME);
        }
    }

    fn show(&mut self, old: Option<&Entry>, new: &Entry) {
        let mut walk = old.map(|old| old.group.walk());
        for (family, place) in new.shown_places() {
            let at = walk.as_mut().and_then(|walk| walk.find(family.name()));
            if !at.and_then(|at| old?.shown_at(at)).is_some_and(|was| was.shares_all(family)) {
                self.pages.set(&new.shown, family, place);
            }
        }
        if !shows_times(new) {
            return;
        }
        let was = old.filter(|old| shows_times(old)).map(times);
        let instance = new.has_instance();
        for (i, seconds) in times(new).into_iter().enumerate() {
            if was.is_none_or(|was| was[i] != seconds) {
                self.pages.set(&new.shown, &TIMES.family(i, instance, seconds), &new.times_places[i]);
            }
        }
    }
}

fn shows_times(entry: &Entry) -> bool {
    entry.group.is_live() && !entry.header.held
}

/// The families that tell when pushes to the group were last accepted and refused.
pub fn time_families(entry: &Entry) -> [Family; 2] {
    let instance = entry.has_instance();
    let [pushed, failed] = times(entry);
    [TIMES.family(0, instance, pushed), TIMES.family(1, instance, failed)]
}

static TIMES: LazyLock<Times> = LazyLock::new(Times::default);

/// When pushes were last accepted and refused.
fn times(entry: &Entry) -> [f64; 2] {
    [entry.push_time_seconds(), entry.push_failure_time_seconds()]
}

/// Makes the families that tell the times of pushes.
struct Times {
    /// Accepted and refused; then whether the group has a label `instance`.
    shapes: [[Family; 2]; 2],
}

impl Default for Times {
    fn default() -> Self {
        let family = |name: &str, help: &str, instance: bool| {
            let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
            builder.help(Some(help));
            let own: &[(&str, &str)] = if instance { &[] } else { &[(label::INSTANCE, "")] };
            builder.series(own, &Points::Single, &[0.0], None);
            builder.finish().expect("one series has no duplicate")
        };
        let both = |name: &str, help: &str| [family(name, help, false), family(name, help, true)];
        Self { shapes: [both(PUSH_TIME, PUSH_TIME_HELP), both(PUSH_FAILURE_TIME, PUSH_FAILURE_TIME_HELP)] }
    }
}

impl Times {
    fn family(&self, which: usize, instance: bool, seconds: f64) -> Family {
        let shape = self.shapes[which][usize::from(instance)].shape();
        Family::new(shape.clone(), Values::from(&[seconds][..]), None).expect("one value for one series")
    }
}
