//! Names that sites push with several types: a scrape has one type a name, so the families of the others are
//! suppressed.
//!
//! The first type that arrives is shown at once. [`Store::settle_types`], which runs now and then, changes to the type
//! that most sites push, so that in the end every node that has the same groups shows the same type, whatever the order
//! in which they arrived. The change takes time in proportion to the groups that show the name, and one site can cause
//! it again and again; so it runs within an allowance, apart from pushes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use super::admission::of_unit;
use super::conflict::Conflict;
use super::record::{FamilyMeta, Record};
use super::writer::Store;
use crate::model::{GroupId, MetricType};

/// The allowance that each call of [`Store::settle_types`] adds, and at the most has: families that change from shown
/// to suppressed. A name is changed as a whole, so that the allowance may become negative.
const ALLOWANCE: i64 = if cfg!(test) { 64 } else { 16_384 };

/// A name that sites push with several types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixedTypes {
    /// The metric's name.
    pub name: Arc<str>,
    /// The type that is shown, and the number of sites that push it.
    pub shown: (MetricType, usize),
    /// The types that are not shown, each with the number of sites that push it.
    pub hidden: Vec<(MetricType, usize)>,
}

impl MixedTypes {
    /// Whether the same types are shown and hidden, whatever the numbers of their sites.
    pub fn is_like(&self, other: &MixedTypes) -> bool {
        let hidden = |of: &Self| of.hidden.iter().map(|(hidden, _)| *hidden as i32).collect::<BTreeSet<_>>();
        self.shown.0 == other.shown.0 && hidden(self) == hidden(other)
    }

    /// The types that are not shown, as text.
    pub fn hidden_text(&self) -> impl fmt::Display {
        let text = |(metric_type, sites): &(MetricType, usize)| {
            format!("{} ({sites} {})", metric_type.name(), if *sites == 1 { "site" } else { "sites" })
        };
        self.hidden.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

impl Store {
    /// The names that sites push with several types, in order.
    pub fn mixed_types(&self) -> impl Iterator<Item = MixedTypes> {
        self.index.mixed().map(|(name, shown, types)| {
            let sites = types.iter().find(|(of, _)| *of == shown).map_or(0, |(_, sites)| *sites);
            let hidden = types.into_iter().filter(|(of, _)| *of != shown).collect();
            MixedTypes { name: name.clone(), shown: (shown, sites), hidden }
        })
    }

    /// Whether [`Store::settle_types`] may have something to do. The draft must be empty then.
    pub fn has_mixed_types(&self) -> bool {
        self.index.mixed_len() > 0
    }

    /// Shows each name with the type that most sites push; among types of equally many sites, with the most precise
    /// one. A type all of whose families conflict with other names is passed over. The draft must be empty before.
    pub fn settle_types(&mut self) {
        let mut allowance = ALLOWANCE.min(self.types_allowance.saturating_add(ALLOWANCE));
        let mut changes: Vec<(Arc<str>, MetricType)> = Vec::new();
        let mut demoted: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        let mut promoted: BTreeMap<GroupId, Vec<Arc<str>>> = BTreeMap::new();
        for (name, shown, types) in self.index.mixed() {
            if allowance <= 0 {
                break;
            }
            let better = types.iter().map(|(of, _)| *of).take_while(|of| *of != shown);
            let found = better.filter(|of| self.index.allows(name, *of)).find_map(|of| {
                let groups = self.waiting_for_type(name, of);
                (!groups.is_empty()).then_some((of, groups))
            });
            let Some((better, groups)) = found else { continue };
            groups.into_iter().for_each(|id| promoted.entry(id).or_default().push(name.clone()));
            for shown in self.published.block(name).iter().flat_map(|block| block.entries()) {
                let Some(id) = self.index.find(&shown.labels) else { continue };
                let at = self.staged.get(id).and_then(|entry| entry.position(name));
                demoted.entry(id.clone()).or_default().extend(at);
                allowance -= 1;
            }
            changes.push((name.clone(), better));
        }
        self.types_allowance = allowance;
        for (id, families) in demoted {
            self.demote(&id, &families, &changes);
        }
        for (id, names) in promoted {
            self.retry_suppressed(&id, &names);
        }
        let gone: Vec<Arc<str>> = changes.into_iter().map(|(name, _)| name).collect();
        self.retry_released(self.released_by(&gone));
    }

    /// The groups whose family of that name is suppressed because it has this type.
    fn waiting_for_type(&self, name: &Arc<str>, metric_type: MetricType) -> Vec<GroupId> {
        let waits = |id: &GroupId| {
            let Some(entry) = self.staged.get(id) else { return false };
            let conflict = entry.position(name).and_then(|at| entry.families[at].conflict.clone());
            matches!(conflict.as_deref(), Some(Conflict::Type { pushed, .. }) if *pushed == metric_type)
        };
        self.index.suppressed(name).into_iter().filter(waits).collect()
    }

    /// Suppresses families of a group, as their names change to other types.
    fn demote(&mut self, id: &GroupId, families: &[usize], changes: &[(Arc<str>, MetricType)]) {
        let Some(entry) = self.staged.get(id) else { return };
        let mut new = (*entry).clone();
        let mut demoted = HashSet::new();
        for at in families {
            let unit = entry.group.unit(*at);
            let (Some(shown), pushed) = (entry.shown_at(*at), self.whole(&entry.group, unit.clone())) else { continue };
            let Ok(change) = changes.binary_search_by(|(name, _)| name.cmp(pushed.name())) else { continue };
            let (pushed_type, used) = (pushed.schema().metric_type(), changes[change].1);
            self.index.remove(entry.shown(), shown);
            let conflict = Conflict::Type { name: pushed.name().clone(), pushed: pushed_type, used };
            let mut state = self.suppress(&entry, &pushed, conflict);
            state.shown = entry.group.families()[unit.end - 1].contributor.is_some().then(|| Box::new(pushed));
            of_unit(unit.clone(), state).for_each(|(at, state)| new.families[at] = state);
            demoted.extend(unit);
        }
        let meta = |at: usize| {
            let meta = entry.metas.get(at);
            FamilyMeta { suppressed: meta.suppressed || demoted.contains(&at), ..meta }
        };
        new.metas = (0..new.families.len()).map(meta).collect();
        self.records.push(Record::Group(new.record(|at| demoted.contains(&at))));
        self.staged.set(id, Some(Arc::new(new)));
    }
}
