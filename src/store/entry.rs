//! A version of a group as the store keeps it: its state, its bookkeeping, and how its families are shown.

use std::hint::black_box;
use std::net::IpAddr;
use std::ops::BitXor;
use std::sync::Arc;

use super::activity::{Activity, ActivityCounts};
use super::blocks::SlotHint;
use super::conflict::Conflict;
use super::record::{FamilyMeta, FamilyMetas, GroupRecord};
use crate::model::label;
use crate::model::{Family, Group, GroupFamily, GroupId, LabelSet, PushTime, Revision, WriteTimestamp, alike_labels};

/// One version of a group. It is immutable once published.
#[derive(Clone, Debug)]
pub struct GroupEntry {
    /// The group's identity; the same object in all its versions.
    pub(crate) names: Arc<GroupNames>,
    /// The state.
    pub group: Group,
    /// Bookkeeping of clear timestamp, deletion and push times. Suppressed: another group was first under the same
    /// labels, or two labels of the group become one with an escaping, so this group shows nothing.
    pub header: FamilyMeta,
    /// Bookkeeping of the families: revision and origin of each, and whether it is suppressed.
    pub metas: FamilyMetas,
    /// How each family is shown, in the order of the families.
    pub families: Vec<FamilyState>,
    /// The positions at which its two push times are shown.
    pub times_hints: [SlotHint; 2],
}

/// The labels that identify a group. All versions of the group share one object, so that a new version copies one
/// pointer.
#[derive(Debug)]
pub(crate) struct GroupNames {
    id: GroupId,
    shown: Arc<LabelSet>,
    scraped: Arc<LabelSet>,
    has_instance: bool,
    /// Two of its labels become one with an escaping, so it is never shown.
    has_alike: bool,
    activity: Activity,
}

/// How one family is shown.
#[derive(Clone, Debug, Default)]
pub struct FamilyState {
    /// The family as shown, if that differs from how it was pushed. The first of several contributions has their sum
    /// here, also while it is suppressed.
    pub shown: Option<Box<Family>>,
    /// The conflict, if the family is suppressed.
    pub conflict: Option<Arc<Conflict>>,
    /// The position at which it is shown.
    pub hint: SlotHint,
}

/// A family that is stored but not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuppressedFamily {
    /// Its name.
    pub name: Arc<str>,
    /// When it was pushed.
    pub stamp: WriteTimestamp,
    /// The reason for which it is not shown.
    pub conflict: Option<Arc<Conflict>>,
}

/// The bookkeeping of a group's families, and how each is shown.
pub(super) type AdmittedFamilies = (FamilyMetas, Vec<FamilyState>);

impl SuppressedFamily {
    /// The conflict as text. It is built only on request: a large update may suppress any number of families.
    pub fn reason(&self) -> Arc<str> {
        self.conflict.as_ref().map(|conflict| conflict.to_string().into()).unwrap_or_default()
    }
}

impl GroupEntry {
    /// A group that was never written to.
    pub fn new(id: GroupId) -> Self {
        let shown = id.shown();
        let scraped = drop_empty(&shown);
        let has_instance = shown.contains(label::INSTANCE);
        let has_alike = alike_labels(shown.iter().map(|label| label.name)).is_some();
        Self {
            names: Arc::new(GroupNames { id, shown, scraped, has_instance, has_alike, activity: Activity::default() }),
            group: Group::default(),
            header: FamilyMeta::default(),
            metas: FamilyMetas::default(),
            families: Vec::new(),
            times_hints: Default::default(),
        }
    }

    /// The next version of the group, with the same names and positions of its push times.
    pub(super) fn successor(&self, group: Group, header: FamilyMeta, (metas, families): AdmittedFamilies) -> Self {
        let (names, times_hints) = (self.names.clone(), self.times_hints.clone());
        Self { names, group, header, metas, families, times_hints }
    }

    /// The group's identity.
    pub fn id(&self) -> &GroupId {
        &self.names.id
    }

    /// Site labels and grouping key as one set: the labels that its series show.
    pub fn shown(&self) -> &Arc<LabelSet> {
        &self.names.shown
    }

    /// The labels of [`GroupEntry::shown`] without those that have an empty value, which are none to a scraper. Only
    /// one of several groups with equal scraped labels is shown.
    pub fn scraped(&self) -> &Arc<LabelSet> {
        &self.names.scraped
    }

    /// Whether its labels have an `instance`; if not, its push times have an empty one.
    pub(super) fn has_instance(&self) -> bool {
        self.names.has_instance
    }

    /// Whether two of its labels become one with an escaping.
    pub(super) fn has_alike(&self) -> bool {
        self.names.has_alike
    }

    /// The writes to the group since the node's start.
    pub fn activity(&self) -> ActivityCounts {
        self.names.activity.counts()
    }

    /// Counts a push that this node answered, with the bytes of its body as sent.
    pub fn count_push(&self, bytes: usize, is_refused: bool, peer: IpAddr, now_ns: u64) {
        self.names.activity.pushed(bytes, is_refused, peer, now_ns);
    }

    /// Counts a change that came over a link.
    pub(super) fn count_update(&self, now_ns: u64) {
        self.names.activity.updated(now_ns);
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.distinct_metas().map(|meta| meta.revision).fold(self.header.revision, Revision::max)
    }

    /// The revisions of the changes that still contribute to the group's state, each once, in no order.
    pub fn revisions(&self) -> impl Iterator<Item = Revision> + use<> {
        // Mostly one change wrote everything.
        let mut others = Vec::new();
        for revision in self.distinct_metas().map(|meta| meta.revision) {
            if revision != self.header.revision && others.last() != Some(&revision) {
                others.push(revision);
            }
        }
        others.sort_unstable();
        others.dedup();
        std::iter::once(self.header.revision).chain(others)
    }

    /// The bookkeeping of its families; if all families have the same, it is returned once.
    pub fn distinct_metas(&self) -> impl Iterator<Item = FamilyMeta> {
        let len = match &self.metas {
            FamilyMetas::Same(_) => self.families.len().min(1),
            FamilyMetas::Each(metas) => metas.len(),
        };
        (0..len).map(|at| self.metas.get(at))
    }

    /// Whether one of its families is suppressed.
    pub fn has_suppressed(&self) -> bool {
        self.distinct_metas().any(|meta| meta.suppressed)
    }

    /// The number of its names that are suppressed.
    pub fn suppressed_len(&self) -> usize {
        if self.has_suppressed() { self.leaders().filter(|(.., meta, _)| meta.suppressed).count() } else { 0 }
    }

    /// Each family with its bookkeeping and how it is shown, in the order of names.
    pub fn families(&self) -> impl Iterator<Item = (&GroupFamily, FamilyMeta, &FamilyState)> {
        let pairs = self.group.families().iter().zip(&self.families).enumerate();
        pairs.map(|(at, (family, state))| (family, self.metas.get(at), state))
    }

    /// Whether the family at that index is shown as a part of the one before it: both are contributions to one sum.
    pub fn is_follower(&self, at: usize) -> bool {
        let families = self.group.families();
        at > 0 && families[at].contributor.is_some() && families[at - 1].family.cmp_name(&families[at].family).is_eq()
    }

    /// Each name once: its index, the first family of that name, and the bookkeeping and the state of that.
    pub fn leaders(&self) -> impl Iterator<Item = (usize, &GroupFamily, FamilyMeta, &FamilyState)> {
        let families = self.families().enumerate().filter(|(at, _)| !self.is_follower(*at));
        families.map(|(at, (family, meta, state))| (at, family, meta, state))
    }

    /// The family at that index as it is shown, or would be if it were not suppressed: of contributions, their sum.
    pub fn whole(&self, at: usize) -> &Family {
        self.families[at].shown.as_deref().unwrap_or(&self.group.families()[at].family)
    }

    /// The suppressed families that arrived after that revision.
    pub fn suppressed_since(&self, revision: Revision) -> impl Iterator<Item = SuppressedFamily> {
        self.families().filter(move |(_, meta, _)| meta.suppressed && meta.revision > revision).map(|(f, _, state)| {
            let (name, conflict) = (f.family.name().clone(), state.conflict.clone());
            SuppressedFamily { name, stamp: f.stamp, conflict }
        })
    }

    /// The families that are shown, as a scrape shows them.
    pub fn shown_families(&self) -> impl Iterator<Item = &Family> {
        self.shown_hints().map(|(family, _)| family)
    }

    /// The families that are shown, each with its position.
    pub(super) fn shown_hints(&self) -> impl Iterator<Item = (&Family, &SlotHint)> {
        let shown = self.leaders().filter(|(.., meta, _)| !meta.suppressed);
        shown.map(|(_, f, _, state)| (state.shown.as_deref().unwrap_or(&f.family), &state.hint))
    }

    /// The family at that index as a scrape shows it; `None` if it is suppressed.
    pub(super) fn shown_at(&self, at: usize) -> Option<&Family> {
        (!self.metas.get(at).suppressed && !self.is_follower(at)).then(|| self.whole(at))
    }

    /// When the last push was accepted, in seconds since the epoch; 0 if none was.
    pub fn push_time_seconds(&self) -> f64 {
        seconds(self.group.pushed())
    }

    /// When the last push was refused, in seconds since the epoch; 0 if none was.
    pub fn push_failure_time_seconds(&self) -> f64 {
        seconds(self.group.failed())
    }

    /// The family of that name with its bookkeeping.
    pub fn family(&self, name: &str) -> Option<(&GroupFamily, FamilyMeta)> {
        let at = self.position(name)?;
        Some((&self.group.families()[at], self.metas.get(at)))
    }

    /// The index of the family of that name among the group's families.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.group.position(name)
    }

    /// The family of that name as a scrape shows it; `None` if there is none or it is suppressed.
    pub fn shown_family(&self, name: &str) -> Option<&Family> {
        self.shown_at(self.position(name)?)
    }

    /// The record that restores the header and the families at the indices for which `keep` holds.
    pub fn record(&self, keep: impl Fn(usize) -> bool) -> GroupRecord {
        let families = (0..self.families.len()).filter(|at| keep(*at)).map(|at| self.metas.get(at)).collect();
        GroupRecord {
            id: self.names.id.clone(),
            group: self.group.part(|at, _| keep(at)),
            header: self.header,
            families,
        }
    }
}

/// Software prefetch: touches the fields that a batch reads first, one level for all groups at a time, so that the
/// cache misses overlap. Work that goes through group after group, or counts references, would wait for each miss in
/// turn.
pub(super) fn read_ahead<'a>(entries: impl Iterator<Item = &'a GroupEntry> + Clone) {
    fn step<'a>(entries: impl Iterator<Item = &'a GroupEntry>, read: impl Fn(&'a GroupEntry) -> u64) {
        // The value read does not matter, but the compiler must not drop the reads.
        black_box(entries.map(read).fold(0, BitXor::bitxor));
    }
    step(entries.clone(), |entry| entry.header.revision.0 ^ entry.families.len() as u64);
    step(entries, |entry| {
        let stamps = entry.group.families().iter().map(|family| family.stamp.time_ns);
        let states = entry.families.iter().map(|state| u64::from(state.conflict.is_some()));
        stamps.chain(states).fold(u64::from(entry.has_instance()), BitXor::bitxor)
    });
}

/// The labels without those that have an empty value.
pub(super) fn drop_empty(shown: &Arc<LabelSet>) -> Arc<LabelSet> {
    if shown.iter().all(|label| !label.value.is_empty()) {
        return shown.clone();
    }
    let filled = shown.iter().filter(|label| !label.value.is_empty());
    Arc::new(LabelSet::new(filled.map(|label| (label.name, label.value))))
}

fn seconds(push_time: Option<PushTime>) -> f64 {
    push_time.map_or(0.0, |push_time| push_time.wall_ns as f64 / 1e9)
}
