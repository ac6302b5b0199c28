//! A group as the store keeps it: its state, its bookkeeping, and what of it is shown.

use std::hint::black_box;
use std::ops::BitXor;
use std::sync::Arc;

use super::blocks::SlotHint;
use super::conflict::Conflict;
use super::record::{FamilyMeta, FamilyMetas, GroupRecord};
use crate::model::label;
use crate::model::{Family, Group, GroupFamily, GroupId, LabelSet, PushTime, Revision, WriteTimestamp};

/// One group of a store; immutable once published.
#[derive(Clone, Debug)]
pub struct GroupEntry {
    /// What it is called; never changes.
    pub(crate) names: Arc<GroupNames>,
    /// The state.
    pub group: Group,
    /// Bookkeeping of clear timestamp, deletion and times. Held: another group is shown under the same labels and was there first,
    /// so nothing of this one is shown.
    pub header: FamilyMeta,
    /// Bookkeeping of the families: when each came, and from whom. Held: it is kept, not shown.
    pub marks: FamilyMetas,
    /// How each of the families is shown, in their order.
    pub families: Vec<FamilyState>,
    /// Where the times of its pushes accepted and refused are shown.
    pub times_hints: [SlotHint; 2],
}

/// What a group is called, once for all versions of it: each takes one reference, and leaves the labels where they are.
#[derive(Debug)]
pub(crate) struct GroupNames {
    id: GroupId,
    shown: Arc<LabelSet>,
    full: Arc<LabelSet>,
}

/// How one family is shown.
#[derive(Clone, Debug, Default)]
pub struct FamilyState {
    /// The family as shown, where that differs from what was pushed.
    pub shown: Option<Box<Family>>,
    /// Why it is held back, if it is.
    pub conflict: Option<Arc<Conflict>>,
    /// Where it is shown.
    pub site: SlotHint,
}

/// A family that is kept but not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuppressedFamily {
    /// Its name.
    pub name: Arc<str>,
    /// When it was pushed.
    pub stamp: WriteTimestamp,
    /// Why it is not shown.
    pub conflict: Option<Arc<Conflict>>,
}

/// Bookkeeping of a group's families, and how each is shown.
pub(super) type AdmittedFamilies = (FamilyMetas, Vec<FamilyState>);

impl SuppressedFamily {
    /// Why it is not shown, in words. Made only for those who are told: a long update may hold back any number.
    pub fn reason(&self) -> Arc<str> {
        self.conflict.as_ref().map(|conflict| conflict.to_string().into()).unwrap_or_default()
    }
}

impl GroupEntry {
    /// A group that was never written to.
    pub fn new(id: GroupId) -> Self {
        let shown = id.shown();
        let full = fill(&shown);
        Self {
            names: Arc::new(GroupNames { id, shown, full }),
            group: Group::default(),
            header: FamilyMeta::default(),
            marks: FamilyMetas::default(),
            families: Vec::new(),
            times_hints: Default::default(),
        }
    }

    /// The next version of it: what it is called and where the times of its pushes are shown stays.
    pub(super) fn successor(&self, group: Group, header: FamilyMeta, (marks, families): AdmittedFamilies) -> Self {
        let (names, times_hints) = (self.names.clone(), self.times_hints.clone());
        Self { names, group, header, marks, families, times_hints }
    }

    /// Which group.
    pub fn id(&self) -> &GroupId {
        &self.names.id
    }

    /// Place and grouping key as one set: the labels that its series show.
    pub fn shown(&self) -> &Arc<LabelSet> {
        &self.names.shown
    }

    /// The same with the empty `instance` that its push times show where it has none: of groups with equal ones only one
    /// can be shown.
    pub fn full(&self) -> &Arc<LabelSet> {
        &self.names.full
    }

    /// Whether its labels have an `instance`: if so, nothing had to be filled in, and the two sets are one.
    pub(super) fn has_instance(&self) -> bool {
        Arc::ptr_eq(&self.names.shown, &self.names.full)
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.distinct_marks().map(|mark| mark.revision).fold(self.header.revision, Revision::max)
    }

    /// The revisions of the changes that left something of it as it is, in no order, each once.
    pub fn revisions(&self) -> impl Iterator<Item = Revision> + use<> {
        // Mostly all is of one change.
        let mut others = Vec::new();
        for revision in self.distinct_marks().map(|mark| mark.revision) {
            if revision != self.header.revision && others.last() != Some(&revision) {
                others.push(revision);
            }
        }
        others.sort_unstable();
        others.dedup();
        std::iter::once(self.header.revision).chain(others)
    }

    /// The marks that its families have: each, and where all have one, that once.
    pub fn distinct_marks(&self) -> impl Iterator<Item = FamilyMeta> {
        let len = match &self.marks {
            FamilyMetas::Same(_) => self.families.len().min(1),
            FamilyMetas::Each(marks) => marks.len(),
        };
        (0..len).map(|at| self.marks.get(at))
    }

    /// Whether something of it is held back.
    pub fn has_suppressed(&self) -> bool {
        self.distinct_marks().any(|mark| mark.suppressed)
    }

    /// Each family with its bookkeeping and how it is shown, in the order of names.
    pub fn families(&self) -> impl Iterator<Item = (&GroupFamily, FamilyMeta, &FamilyState)> {
        let pairs = self.group.families().iter().zip(&self.families).enumerate();
        pairs.map(|(at, (family, state))| (family, self.marks.get(at), state))
    }

    /// The families that came after that revision and are held back.
    pub fn suppressed_since(&self, revision: Revision) -> impl Iterator<Item = SuppressedFamily> {
        self.families().filter(move |(_, mark, _)| mark.suppressed && mark.revision > revision).map(|(f, _, state)| {
            let (name, conflict) = (f.family.name().clone(), state.conflict.clone());
            SuppressedFamily { name, stamp: f.stamp, conflict }
        })
    }

    /// The families that a scrape shows, as it shows them.
    pub fn shown_families(&self) -> impl Iterator<Item = &Family> {
        self.shown_hints().map(|(family, _)| family)
    }

    /// The same, each with where it is shown.
    pub(super) fn shown_hints(&self) -> impl Iterator<Item = (&Family, &SlotHint)> {
        let shown = self.families().filter(|(_, mark, _)| !mark.suppressed);
        shown.map(|(f, _, state)| (state.shown.as_deref().unwrap_or(&f.family), &state.site))
    }

    /// A family, given by its position, as a scrape shows it, if it does.
    pub(super) fn shown_at(&self, at: usize) -> Option<&Family> {
        let as_pushed = || &self.group.families()[at].family;
        (!self.marks.get(at).suppressed).then(|| self.families[at].shown.as_deref().unwrap_or_else(as_pushed))
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
        Some((&self.group.families()[at], self.marks.get(at)))
    }

    /// Where the family of that name stands among the group's.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.group.families().binary_search_by(|f| (**f.family.name()).cmp(name)).ok()
    }

    /// The family of that name as a scrape shows it, if it does.
    pub fn shown_family(&self, name: &str) -> Option<&Family> {
        self.shown_at(self.position(name)?)
    }

    /// The record that restores the families at which `keep` holds, and the header.
    pub fn record(&self, keep: impl Fn(usize) -> bool) -> GroupRecord {
        let families = (0..self.families.len()).filter(|at| keep(*at)).map(|at| self.marks.get(at)).collect();
        GroupRecord {
            id: self.names.id.clone(),
            group: self.group.part(|at, _| keep(at)),
            header: self.header,
            families,
        }
    }
}

/// Reads what whoever goes through groups looks at first. Reads that do not need each other wait for memory together; what is
/// done to group after group, or counts references, waits for each. So this is done a step at a time, for all groups.
pub(super) fn read_ahead<'a>(entries: impl Iterator<Item = &'a GroupEntry> + Clone) {
    fn step<'a>(entries: impl Iterator<Item = &'a GroupEntry>, read: impl Fn(&'a GroupEntry) -> u64) {
        // What is read matters to nobody, but the compiler must not know.
        black_box(entries.map(read).fold(0, BitXor::bitxor));
    }
    step(entries.clone(), |entry| entry.header.revision.0 ^ entry.families.len() as u64);
    step(entries, |entry| {
        let stamps = entry.group.families().iter().map(|family| family.stamp.time_ns);
        let states = entry.families.iter().map(|state| u64::from(state.conflict.is_some()));
        stamps.chain(states).fold(u64::from(entry.has_instance()), BitXor::bitxor)
    });
}

/// The labels with an empty `instance` if they have none.
pub(super) fn fill(shown: &Arc<LabelSet>) -> Arc<LabelSet> {
    if shown.contains(label::INSTANCE) {
        return shown.clone();
    }
    let labels = shown.iter().map(|label| (label.name, label.value));
    Arc::new(LabelSet::new(labels.chain([(label::INSTANCE, "")])))
}

fn seconds(push_time: Option<PushTime>) -> f64 {
    push_time.map_or(0.0, |push_time| push_time.wall_ns as f64 / 1e9)
}
