//! Suppressed families that a filtered scrape can show, because it does not show the families that they conflict with.
//!
//! Families that are shown everywhere stay. A suppressed family is added if it conflicts neither with them nor with one
//! that was added before. Of one name's types, that of most sites is tried first. Groups that are hidden by another group
//! with the same labels stay hidden, because a selector cannot tell them apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::filter::Snapshot;
use super::groups::{Picked, SelectedGroups};
use super::series::{self, FamilyPart};
use crate::model::label::is_legacy_metric_name;
use crate::model::site::shown_family;
use crate::model::{Escaping, Family, GroupId, LabelSet, MetricType, Schema};
use crate::selector::Selectors;
use crate::store::blocks::ShownFamily;
use crate::store::conflict::Conflict;
use crate::store::entry::GroupEntry;
use crate::store::index::{Groups, Index};
use crate::store::view::{PUSH_FAILURE_TIME, PUSH_TIME};

/// A suppressed family, as it would be shown.
struct RejudgedFamily {
    site: Arc<LabelSet>,
    shown: ShownFamily,
}

/// The families that were entered in the index, by group.
#[derive(Default)]
struct EnteredFamilies(HashMap<GroupId, BTreeMap<Arc<str>, Arc<Schema>>>);

impl Groups for EnteredFamilies {
    fn shown_schema(&self, id: &GroupId, name: &str) -> Option<Arc<Schema>> {
        self.0.get(id)?.get(name).cloned()
    }
}

/// An index of the families that could conflict with a candidate.
struct Judge {
    index: Index,
    entered: EnteredFamilies,
}

impl Judge {
    /// A version of the group by its labels alone.
    fn group(&mut self, labels: &Arc<LabelSet>) -> GroupEntry {
        let entry = GroupEntry::new(GroupId { site: Arc::default(), key: labels.clone() });
        if !self.entered.0.contains_key(entry.id()) {
            self.index.add_key(entry.scraped(), entry.id());
            self.entered.0.insert(entry.id().clone(), BTreeMap::new());
        }
        entry
    }

    fn enter(&mut self, entry: &GroupEntry, family: &Family) {
        self.index.add(entry.shown(), family);
        let families = self.entered.0.entry(entry.id().clone()).or_default();
        families.insert(family.name().clone(), family.schema().clone());
    }

    /// Adds a family unless it conflicts. Returns whether it was added.
    fn admit(&mut self, shown: &ShownFamily) -> bool {
        let entry = self.group(&shown.labels);
        let is_admitted = self.index.check(&entry, &shown.family, &self.entered).is_ok();
        if is_admitted {
            self.enter(&entry, &shown.family);
        }
        is_admitted
    }
}

/// The suppressed families that are shown here, by name and then by labels; none of groups outside `scope`.
pub(super) fn rejudge(
    snapshot: &Snapshot,
    groups: &mut SelectedGroups,
    selectors: &Selectors,
    scope: Option<&Selectors>,
    own: &[Family],
) -> BTreeMap<Arc<str>, Vec<ShownFamily>> {
    let candidates = candidates(snapshot, selectors, scope);
    let mut rejudged = BTreeMap::new();
    if candidates.is_empty() {
        return rejudged;
    }
    let mut judge = Judge { index: Index::default(), entered: EnteredFamilies::default() };
    judge.index.count_types();
    for name in [PUSH_TIME, PUSH_FAILURE_TIME] {
        judge.index.reserve(name, MetricType::Gauge);
    }
    for family in own {
        judge.index.reserve(family.name(), family.schema().metric_type());
    }
    let related = related_names(&judge.index, candidates.keys(), snapshot);
    for (name, block) in snapshot.blocks.iter().filter(|(name, _)| related.contains(name)) {
        for picked in groups.pick(name, block) {
            let families: &[ShownFamily] = match &picked {
                Picked::Chunk(chunk) | Picked::ShardOf(chunk) => chunk.entries(),
                Picked::Families(families) => families,
            };
            // The times of pushes conflict with no label, and their names are reserved.
            for shown in families.iter().filter(|_| ![PUSH_TIME, PUSH_FAILURE_TIME].contains(&&**name)) {
                let entry = judge.group(&shown.labels);
                judge.enter(&entry, &shown.family);
            }
        }
    }
    for (name, candidates) in candidates {
        candidates.iter().for_each(|candidate| judge.index.count_type(&candidate.shown.family, &candidate.site));
        for metric_type in judge.index.preferred_types(&name) {
            let of_type = candidates.iter().filter(|of| of.shown.family.schema().metric_type() == metric_type);
            for candidate in of_type {
                if judge.admit(&candidate.shown) {
                    rejudged.entry(name.clone()).or_insert_with(Vec::new).push(candidate.shown.clone());
                }
            }
        }
    }
    rejudged
}

/// The suppressed families that the selectors match, by name, those of a name in the order of their labels.
fn candidates(
    snapshot: &Snapshot,
    selectors: &Selectors,
    scope: Option<&Selectors>,
) -> BTreeMap<Arc<str>, Vec<RejudgedFamily>> {
    let mut candidates: BTreeMap<Arc<str>, Vec<RejudgedFamily>> = BTreeMap::new();
    let is_in_scope = |entry: &GroupEntry| scope.is_none_or(|scope| scope.matches(|name| entry.shown().get(name)));
    let live = snapshot.suppressed.iter().filter(|entry| entry.group.is_live() && !entry.header.suppressed);
    for entry in live.filter(|entry| is_in_scope(entry)) {
        let group = series::match_group(selectors, entry.shown());
        if group.possible == 0 {
            continue;
        }
        for (at, _, _, state) in entry.leaders() {
            if !state.conflict.as_deref().is_some_and(depends_on_others) {
                continue;
            }
            let whole = entry.whole(at);
            let Ok(shown) = shown_family(entry.shown(), whole) else { continue };
            let family = shown.unwrap_or_else(|| whole.clone());
            let family = match series::pick(selectors, &group, &family) {
                FamilyPart::Whole => family,
                FamilyPart::Nothing => continue,
                FamilyPart::Part(part) => part,
            };
            let site = entry.id().site.clone();
            let shown = ShownFamily { labels: entry.shown().clone(), family };
            candidates.entry(shown.family.name().clone()).or_default().push(RejudgedFamily { site, shown });
        }
    }
    candidates
}

/// Whether the family conflicts with families that may be left out here.
fn depends_on_others(conflict: &Conflict) -> bool {
    match conflict {
        Conflict::Type { .. } | Conflict::Suffix { .. } | Conflict::AlikeName { .. } => true,
        Conflict::Duplicate { group, .. } => group.is_some(),
        Conflict::OwnLabel { .. }
        | Conflict::AlikeLabels { .. }
        | Conflict::Histogram { .. }
        | Conflict::Shadowed { .. }
        | Conflict::Limit { .. } => false,
    }
}

/// The names of the snapshot that could conflict with these.
fn related_names<'a>(
    index: &Index,
    names: impl Iterator<Item = &'a Arc<str>>,
    snapshot: &Snapshot,
) -> BTreeSet<Arc<str>> {
    let mut related: BTreeSet<Arc<str>> = names.flat_map(|name| index.related(name)).collect();
    // All names that escaping changes, and names that equal one of their escaped forms or a sample of it.
    let escapable = snapshot.blocks.iter().map(|(name, _)| name).filter(|name| !is_legacy_metric_name(name));
    for name in escapable {
        related.insert(name.clone());
        related.extend(Escaping::CHANGING.iter().flat_map(|escaping| index.related(&escaping.escape(name).into())));
    }
    related
}
