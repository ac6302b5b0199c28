//! The published state: the durable data that scrapes, links and queries read.
//!
//! One mutex guards it. Readers hold it while cloning `Arc`s, the writer while it applies one durable batch.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashSet};

use super::blocks::{Block, Blocks, ShownFamily};
use super::changed::{ByRevision, ChangeBatch, Changed, is_known_to_peer};
use super::entry::{self, GroupEntry};
use super::expiry_rules::{ExpiryWatch, SharedRules};
use super::group_change::GroupChange;
use super::quota::{Quota, SharedQuotas};
use super::record::FamilyMeta;
use super::scope::Scope;
use super::unconfirmed::Unconfirmed;
use crate::model::site::EXPORTED_PREFIX;
use crate::model::{
    Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, Revision, StoreId, ValueLayout, Values, label,
};

/// The family with the time of a group's last accepted push (Pushgateway's name).
pub const PUSH_TIME: &str = "push_time_seconds";
/// The family with the time of a group's last refused push (Pushgateway's name).
pub const PUSH_FAILURE_TIME: &str = "push_failure_time_seconds";
const PUSH_TIME_HELP: &str = "Last Unix time when changing this group in the Pushgateway succeeded.";
const PUSH_FAILURE_TIME_HELP: &str = "Last Unix time when changing this group in the Pushgateway failed.";

/// A block for each metric name, in the order of names.
pub type ScrapeSnapshot = Vec<(Arc<str>, Arc<Block>)>;

/// A handle to the published state. Cheap to clone.
#[derive(Clone, Default)]
pub struct Published(Arc<Mutex<View>>, Unconfirmed, SharedRules, SharedQuotas);

/// The size of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live groups.
    pub groups: usize,
    /// Deleted groups that are remembered for peers.
    pub tombstones: usize,
    /// Series shown, without the push times.
    pub series: usize,
    /// Suppressed families.
    pub suppressed: usize,
    /// Names that sites push with several types.
    pub mixed_types: usize,
    /// Pushes that were added since the start.
    pub added: u64,
    /// Pushes that added nothing, since they repeated one with the same `Idempotency-Key`.
    pub repeated: u64,
    /// Keys that are remembered.
    pub keys: usize,
}

/// A change to send to a peer.
#[derive(Clone, Debug)]
pub struct PeerChange {
    /// The labels by which the peer identifies the group.
    pub key: Arc<LabelSet>,
    /// The changed part of the group.
    pub group: Group,
}

/// Changes to send to a peer.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// The changes, in the order of their revisions.
    pub changes: Vec<PeerChange>,
    /// With these changes, the peer has everything up to this revision.
    pub upto: Revision,
    /// Whether there are changes after that.
    pub more: bool,
}

/// The groups that a scrape shows, with their push times: a snapshot.
#[derive(Clone, Debug, Default)]
pub struct GroupTimes {
    pushed: Option<Arc<Block>>,
    failed: Option<Arc<Block>>,
}

impl GroupTimes {
    /// The labels of each group and the times, in seconds since the Unix epoch, of its last accepted and last refused
    /// push; 0 if there was none.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<LabelSet>, f64, f64)> {
        fn entries(block: &Option<Arc<Block>>) -> impl Iterator<Item = &ShownFamily> {
            block.iter().flat_map(|block| block.entries())
        }
        // Both families are shown by the same groups.
        let pairs = entries(&self.pushed).zip(entries(&self.failed));
        let value = |shown: &ShownFamily| shown.family.values().first().copied().unwrap_or_default();
        pairs.map(move |(pushed, failed)| (&pushed.labels, value(pushed), value(failed)))
    }
}

#[derive(Default)]
pub(super) struct View {
    pub(super) groups: HashMap<GroupId, Arc<GroupEntry>>,
    pub(super) changed: Changed,
    tombstones: ByRevision,
    /// Groups that have a suppressed family.
    suppressed: HashSet<GroupId>,
    /// The suppressed families of each site that has some.
    suppressed_by_site: HashMap<Arc<LabelSet>, usize>,
    blocks: Blocks,
    pub(super) revision: Revision,
    pub(super) counts: Counts,
    pub(super) expiry: ExpiryWatch,
}

impl Published {
    pub(super) fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unconfirmed(&self) -> &Unconfirmed {
        &self.1
    }

    pub(super) fn shared_rules(&self) -> &SharedRules {
        &self.2
    }

    pub(super) fn shared_quotas(&self) -> &SharedQuotas {
        &self.3
    }

    /// Replaces the quotas. The writer counts their groups before its next write.
    pub fn set_quotas(&self, quotas: Vec<Arc<Quota>>) {
        self.3.replace(quotas);
    }

    /// Whether the group's last write has a timestamp of a clock that is not confirmed yet.
    pub fn is_unconfirmed(&self, id: &GroupId) -> bool {
        self.1.contains(id)
    }

    /// Whether the clock is confirmed, or the store has no peers that could confirm it.
    pub fn is_clock_confirmed(&self) -> bool {
        self.1.is_confirmed()
    }

    /// Whether the clock was known to be wrong, and is not confirmed since.
    pub fn is_clock_doubted(&self) -> bool {
        self.1.is_doubted()
    }

    /// The number of groups whose last write has a timestamp of a clock that is not confirmed yet.
    pub fn unconfirmed_len(&self) -> usize {
        self.1.len()
    }

    /// The number of times that a group's write timestamps were corrected.
    pub fn corrected(&self) -> u64 {
        self.1.corrected()
    }

    /// The number of groups with writes of a clock that was ahead.
    pub fn clock_ahead(&self) -> u64 {
        self.1.ahead()
    }

    /// The revision up to which everything is published.
    pub fn head(&self) -> Revision {
        self.lock().revision
    }

    /// The size of the store.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Everything that a scrape shows: a block for each metric name, in the order of names.
    pub fn snapshot(&self) -> ScrapeSnapshot {
        self.lock().blocks.snapshot()
    }

    /// The same, and the live groups that have a suppressed family if they are asked for, sorted by their labels.
    pub(super) fn snapshot_with_suppressed(&self, suppressed: bool) -> (ScrapeSnapshot, Vec<Arc<GroupEntry>>) {
        let view = self.lock();
        let entries = view.suppressed.iter().filter(|_| suppressed).map(|id| view.groups[id].clone());
        let (blocks, mut suppressed) = (view.blocks.snapshot(), entries.collect::<Vec<_>>());
        drop(view);
        suppressed.sort_by(|a, b| a.shown().cmp(b.shown()));
        (blocks, suppressed)
    }

    /// The live groups, sorted by their labels.
    pub fn groups(&self) -> Vec<Arc<GroupEntry>> {
        self.groups_where(|_| true)
    }

    /// The live groups whose labels `is_wanted` accepts, sorted by them. It is called outside of the lock.
    pub fn groups_where(&self, is_wanted: impl Fn(&LabelSet) -> bool) -> Vec<Arc<GroupEntry>> {
        let live = |entry: &&Arc<GroupEntry>| entry.group.is_live();
        let mut groups: Vec<Arc<GroupEntry>> = self.lock().groups.values().filter(live).cloned().collect();
        groups.retain(|entry| is_wanted(entry.shown()));
        groups.sort_by(|a, b| a.shown().cmp(b.shown()));
        groups
    }

    /// The groups that a scrape shows, sorted by their labels, with their push times. Only two pointers are cloned
    /// under the lock.
    pub fn times(&self) -> GroupTimes {
        let view = self.lock();
        GroupTimes { pushed: view.blocks.block(PUSH_TIME), failed: view.blocks.block(PUSH_FAILURE_TIME) }
    }

    /// The families that are shown under a metric name.
    pub fn block(&self, name: &str) -> Option<Arc<Block>> {
        self.lock().blocks.block(name)
    }

    /// The live groups that have a suppressed family, sorted by their labels.
    pub fn suppressed(&self) -> Vec<Arc<GroupEntry>> {
        self.snapshot_with_suppressed(true).1
    }

    /// The number of suppressed families of each site that has groups, sorted by the site's labels. The first is that of
    /// groups without a site, which were pushed at this node; it is always there.
    pub fn suppressed_by_site(&self) -> Vec<(Arc<LabelSet>, usize)> {
        let view = self.lock();
        let count = |site: &Arc<LabelSet>| view.suppressed_by_site.get(site).copied().unwrap_or_default();
        let sites = view.changed.sites().filter(|site| !site.is_empty()).cloned();
        let mut counts: Vec<_> = [Arc::default()].into_iter().chain(sites).map(|site| (count(&site), site)).collect();
        drop(view);
        counts.sort_by(|a, b| a.1.cmp(&b.1));
        counts.into_iter().map(|(count, site)| (site, count)).collect()
    }

    /// The live group with exactly these labels; if there are two, the one that is shown.
    pub fn find(&self, shown: &LabelSet) -> Option<Arc<GroupEntry>> {
        let view = self.lock();
        let is_it = |entry: &&Arc<GroupEntry>| entry.group.is_live() && **entry.shown() == *shown;
        let ids = view.changed.sites().filter_map(|site| GroupId::from_shown(site, shown));
        let plain = ids.filter_map(|id| view.groups.get(&id)).filter(is_it).min_by_key(|entry| entry.header.suppressed);
        if let Some(entry) = plain {
            return Some(entry.clone());
        }
        let times = view.blocks.block(PUSH_TIME);
        drop(view);
        // For labels with the prefix `exported_`, [`GroupId::from_shown`] has guessed which were renamed. All groups
        // are searched only if one is shown under these labels, and outside the lock.
        let renamed = shown.iter().any(|label| label.name.starts_with(EXPORTED_PREFIX));
        if !renamed || !times.is_some_and(|block| block.contains(shown)) {
            return None;
        }
        let entries = self.entries();
        entries.iter().filter(is_it).min_by_key(|entry| entry.header.suppressed).cloned()
    }

    /// One group, live or a tombstone.
    pub fn group(&self, id: &GroupId) -> Option<Arc<GroupEntry>> {
        self.lock().groups.get(id).cloned()
    }

    /// The same for many groups, faster than one by one.
    pub(super) fn groups_by_id(&self, ids: &[GroupId]) -> Vec<Option<Arc<GroupEntry>>> {
        let view = self.lock();
        let found: Vec<Option<&Arc<GroupEntry>>> = ids.iter().map(|id| view.groups.get(id)).collect();
        entry::read_ahead(found.iter().flatten().map(|entry| &***entry));
        found.into_iter().map(Option::<&_>::cloned).collect()
    }

    /// All groups, tombstones included, in no order.
    pub fn entries(&self) -> Vec<Arc<GroupEntry>> {
        self.lock().groups.values().cloned().collect()
    }

    /// The changes in a scope after `since`: at least one, and then up to about `bytes_max` of values and label text.
    /// The set is complete up to [`ChangeSet::upto`]; parts of a group that changed after that are left out. Changes
    /// that came from the store in `known` after the revision there are left out too: the peer has them.
    pub fn changes(
        &self,
        scope: &Scope,
        since: Revision,
        known: Option<(StoreId, Revision)>,
        bytes_max: usize,
    ) -> ChangeSet {
        let batch = {
            let view = self.lock();
            view.changed.since(scope, since, known, bytes_max, view.revision)
        };
        let ChangeBatch { entries, upto, more } = batch;
        let mut changes = Vec::with_capacity(entries.len());
        for entry in entries {
            let wanted =
                |meta: FamilyMeta| meta.revision > since && meta.revision <= upto && !is_known_to_peer(known, meta);
            let keep = |i: usize| wanted(entry.metas.get(i));
            if wanted(entry.header) || (0..entry.families.len()).any(keep) {
                let key = match scope {
                    Scope::Site(_) => entry.id().key.clone(),
                    Scope::Shown => entry.shown().clone(),
                };
                push_parts(key, entry.group.part(|i, _| keep(i)), &mut changes);
            }
        }
        ChangeSet { changes, upto, more }
    }

    /// The sites that have groups.
    pub fn sites(&self) -> Vec<Arc<LabelSet>> {
        self.lock().changed.sites().cloned().collect()
    }

    /// The groups of one site, tombstones included, in no order; a group appears once for each of its changes.
    pub(super) fn groups_of(&self, site: &Arc<LabelSet>) -> Vec<GroupId> {
        let view = self.lock();
        view.changed.groups_of(site).map(|entry| entry.id().clone()).collect()
    }

    /// Tombstones of changes up to `upto` that are kept from before `before_ns`, at most `len_max`, oldest changes first. The
    /// search ends after `16 * len_max` tombstones that are not due.
    pub fn tombstones(&self, upto: Revision, before_ns: u64, len_max: usize) -> Vec<Arc<GroupEntry>> {
        let view = self.lock();
        let oldest = view.tombstones.range(..=upto).take(16 * len_max);
        // Not before its latest timestamp: dropping it raises the time after which all later writes are stamped.
        let due = oldest.filter(|(_, entry)| entry.group.kept_from_ns() < before_ns);
        due.take(len_max).map(|(_, entry)| entry.clone()).collect()
    }
}

impl View {
    /// Replaces groups by their drafted entries. Returns the sites that changed.
    pub(super) fn publish(&mut self, changes: &[GroupChange], revision: Revision) -> HashSet<Arc<LabelSet>> {
        let mut sites = HashSet::default();
        for GroupChange { before, after } in changes {
            self.unlist(before.as_deref());
            self.unshow(before.as_deref(), after.as_deref());
            let id = before.as_ref().or(after.as_ref()).map(|entry| entry.id());
            if let Some(site) = id.map(|id| &id.site).filter(|site| !sites.contains(*site)) {
                sites.insert(site.clone());
            }
        }
        for GroupChange { before, after } in changes {
            match (before, after) {
                (before, Some(entry)) => {
                    self.list(entry, revision);
                    self.show(before.as_deref(), entry);
                    match self.groups.get_mut(entry.id()) {
                        Some(group) => *group = entry.clone(),
                        None => drop(self.groups.insert(entry.id().clone(), entry.clone())),
                    }
                }
                (Some(before), None) => drop(self.groups.remove(before.id())),
                (None, None) => {}
            }
        }
        sites.iter().for_each(|site| self.changed.drop_empty(site));
        self.revision = revision;
        sites
    }

    fn list(&mut self, entry: &Arc<GroupEntry>, upto: Revision) {
        self.changed.list(entry, upto);
        let suppressed = entry.suppressed_len();
        if suppressed > 0 {
            self.suppressed.insert(entry.id().clone());
            *self.suppressed_by_site.entry(entry.id().site.clone()).or_default() += suppressed;
        }
        if entry.group.is_live() {
            self.expiry.note(&entry.group);
            self.counts.groups += 1;
        } else {
            self.counts.tombstones += 1;
            self.tombstones.insert(entry.revision(), entry.clone());
        }
    }

    fn unlist(&mut self, old: Option<&GroupEntry>) {
        let Some(entry) = old else { return };
        if self.suppressed.remove(entry.id())
            && let Some(count) = self.suppressed_by_site.get_mut(&entry.id().site)
        {
            *count = count.saturating_sub(entry.suppressed_len());
            if *count == 0 {
                self.suppressed_by_site.remove(&entry.id().site);
            }
        }
        self.changed.unlist(entry);
        if entry.group.is_live() {
            self.counts.groups -= 1;
        } else {
            self.counts.tombstones -= 1;
            self.tombstones.remove(&entry.revision());
        }
    }

    /// Removes from the blocks the families that the new entry does not show.
    fn unshow(&mut self, old: Option<&GroupEntry>, new: Option<&GroupEntry>) {
        let Some(old) = old else { return };
        let mut walk = new.map(|new| new.group.walk());
        let mut stays = |name: &Arc<str>| {
            let at = walk.as_mut().and_then(|walk| walk.find(name));
            at.is_some_and(|at| new.is_some_and(|new| new.shown_at(at).is_some()))
        };
        for family in old.shown_families().filter(|family| !stays(family.name())) {
            self.blocks.remove(old.shown(), family.name());
        }
        if shows_times(old) && !new.is_some_and(shows_times) {
            self.blocks.remove(old.shown(), PUSH_TIME);
            self.blocks.remove(old.shown(), PUSH_FAILURE_TIME);
        }
    }

    fn show(&mut self, old: Option<&GroupEntry>, new: &GroupEntry) {
        let mut walk = old.map(|old| old.group.walk());
        for (family, hint) in new.shown_hints() {
            let at = walk.as_mut().and_then(|walk| walk.find(family.name()));
            if !at.and_then(|at| old?.shown_at(at)).is_some_and(|was| was.shares_all(family)) {
                self.blocks.set(new.shown(), family, hint);
            }
        }
        if !shows_times(new) {
            return;
        }
        let was = old.filter(|old| shows_times(old)).map(times);
        let instance = new.has_instance();
        for (i, seconds) in times(new).into_iter().enumerate() {
            if was.is_none_or(|was| was[i] != seconds) {
                self.blocks.set(new.shown(), &TIMES.family(i, instance, seconds), &new.times_hints[i]);
            }
        }
    }
}

/// Adds a change of a group: its header and plain families, and the contributions of each contributor under a key of
/// their own ([`crate::model::contribution`]).
fn push_parts(key: Arc<LabelSet>, group: Group, changes: &mut Vec<PeerChange>) {
    if !group.is_adding() {
        return changes.push(PeerChange { key, group });
    }
    let contributions = group.contributors().into_iter().map(|contributor| {
        let group = group.contributions(&contributor);
        PeerChange { key: Arc::new(contributor.join(&key)), group }
    });
    let contributions: Vec<PeerChange> = contributions.collect();
    changes.push(PeerChange { key, group: group.without_contributions() });
    changes.extend(contributions);
}

fn shows_times(entry: &GroupEntry) -> bool {
    entry.group.is_live() && !entry.header.suppressed
}

/// The families with the times of the group's last accepted and last refused push.
pub fn time_families(entry: &GroupEntry) -> [Family; 2] {
    let instance = entry.has_instance();
    let [pushed, failed] = times(entry);
    [TIMES.family(0, instance, pushed), TIMES.family(1, instance, failed)]
}

static TIMES: LazyLock<Times> = LazyLock::new(Times::default);

/// The times of the last accepted and the last refused push, in seconds.
fn times(entry: &GroupEntry) -> [f64; 2] {
    [entry.push_time_seconds(), entry.push_failure_time_seconds()]
}

/// Makes the families of push times.
struct Times {
    /// First index: accepted, refused. Second: without and with a label `instance` in the group.
    schemas: [[Family; 2]; 2],
}

impl Default for Times {
    fn default() -> Self {
        let family = |name: &str, help: &str, instance: bool| {
            let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
            builder.help(Some(help));
            let own: &[(&str, &str)] = if instance { &[] } else { &[(label::INSTANCE, "")] };
            builder.series(own, &ValueLayout::Single, &[0.0], None);
            builder.finish().expect("one series has no duplicate")
        };
        let both = |name: &str, help: &str| [family(name, help, false), family(name, help, true)];
        Self { schemas: [both(PUSH_TIME, PUSH_TIME_HELP), both(PUSH_FAILURE_TIME, PUSH_FAILURE_TIME_HELP)] }
    }
}

impl Times {
    fn family(&self, which: usize, instance: bool, seconds: f64) -> Family {
        let schema = self.schemas[which][usize::from(instance)].schema();
        Family::new(schema.clone(), Values::from(&[seconds][..]), None).expect("one value for one series")
    }
}
