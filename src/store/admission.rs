//! Admission: decides which families of a group are shown.
//!
//! Each new family is checked against the families that are shown, and then entered in the index or suppressed. Each
//! removed family is taken out of the index, and families that were suppressed because of it are tried again.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::conflict::{AdmissionTerms, Conflict, ConflictPolicy, PushConflicts};
use super::entry::{AdmittedFamilies, FamilyState, GroupEntry};
use super::record::{FamilyMeta, FamilyMetasBuilder, Record};
use super::refusal::StoreRefusal;
use super::writer::{Rules, Store};
use crate::model::label::LE;
use crate::model::site::shown_family;
use crate::model::{Changes, DuplicateSeries, Family, Group, GroupFamily, GroupId, alike_labels, truncated};

/// The state of a family of which only values changed: it needs no check.
fn same_schema(entry: &GroupEntry, new: &GroupFamily, old: &FamilyState) -> FamilyState {
    let shown = old.shown.as_ref().and_then(|was| {
        let shown = shown_family(entry.shown(), &new.family).ok()??;
        Some(Box::new(shown.with_schema(was.schema().clone())))
    });
    FamilyState { shown, conflict: None, hint: old.hint.clone() }
}

/// The states of the families of one name: the first has the sum.
pub(super) fn of_unit(unit: Range<usize>, leader: FamilyState) -> impl Iterator<Item = (usize, FamilyState)> {
    let follower = FamilyState { conflict: leader.conflict.clone(), ..FamilyState::default() };
    std::iter::once(leader)
        .chain(std::iter::repeat(follower))
        .enumerate()
        .map(move |(i, state)| (unit.start + i, state))
        .take(unit.len())
}

fn shown_as(shown: Option<Family>) -> FamilyState {
    FamilyState { shown: shown.map(Box::new), ..FamilyState::default() }
}

/// Whether the family's type counts among those of its name.
fn is_counted(state: &FamilyState) -> bool {
    state.conflict.as_ref().is_none_or(|conflict| !conflict.is_own_fault())
}

/// The rule that a native histogram of the family breaks, if one does.
pub(super) fn histogram_fault(rules: Rules, family: &Family) -> Option<String> {
    let fault = rules.histogram_fault.filter(|_| family.schema().metric_type().own_label() == Some(LE))?;
    family.raw_metrics()?.iter().filter(|raw_metric| !raw_metric.is_empty()).find_map(|raw_metric| fault(raw_metric))
}

impl Store {
    /// Updates the index for `group`, the new state of `entry`: removed families leave the index, new ones are checked
    /// and entered or suppressed. Returns the families' bookkeeping, and the names that left the index.
    ///
    /// # Errors
    /// All conflicts, if `terms` say that conflicts are refused, or a limit; the caller then undoes the changes to the
    /// index.
    pub(super) fn admit_families(
        &mut self,
        entry: &GroupEntry,
        group: &Group,
        changes: &Changes,
        meta: FamilyMeta,
        terms: AdmissionTerms,
    ) -> Result<(AdmittedFamilies, Vec<Arc<str>>), StoreRefusal> {
        let of_before = |at: usize| (&entry.group.families()[at], entry.metas.get(at), &entry.families[at]);
        let pairs = || std::iter::zip(&changes.families, group.families());
        // The gateway has checked the histograms of a push. A peer's store may be older.
        let is_checked = terms.policy != ConflictPolicy::SuppressAll;
        let stays = |new: &GroupFamily, old: &GroupFamily| {
            Arc::ptr_eq(new.family.schema(), old.family.schema())
                && (is_checked || histogram_fault(self.rules, &new.family).is_none())
        };
        let stay: Vec<bool> = pairs()
            .map(|(origin, new)| origin.set && origin.before.is_some_and(|at| stays(new, of_before(at).0)))
            .collect();
        let replaced = std::iter::zip(&changes.families, &stay).filter(|(origin, _)| origin.set);
        let replaced = replaced.filter_map(|(origin, stays)| Some((origin.before?, *stays)));
        let mut names = Vec::new();
        for (at, stays) in replaced.chain(changes.gone.iter().map(|at| (*at, false))) {
            let (gone, was, _) = of_before(at);
            if was.suppressed || !stays {
                self.leave(entry, at, &gone.family, &mut names);
            }
        }
        let (mut metas, mut states) = (FamilyMetasBuilder::default(), Vec::with_capacity(group.families().len()));
        let mut conflicts = None;
        for ((origin, new), stays) in pairs().zip(stay) {
            let (suppressed, state) = match origin.before.map(of_before) {
                Some((_, was, state)) if !origin.set => {
                    metas.push(was);
                    states.push(state.clone());
                    continue;
                }
                Some((_, was, state)) if !was.suppressed && stays => (false, same_schema(entry, new, state)),
                _ => match self.admit_or_collect(entry, &new.family, terms, &mut conflicts)? {
                    Some(admitted) => admitted,
                    None => continue,
                },
            };
            metas.push(FamilyMeta { suppressed, ..meta });
            states.push(state);
        }
        match conflicts {
            Some(conflicts) => Err(StoreRefusal::Conflict(Box::new(conflicts))),
            None => Ok(((metas.finish(), states), names)),
        }
    }

    /// Removes a family or a sum from the index: that at `at` of the version before, `whole` as it was pushed.
    pub(super) fn leave(&mut self, entry: &GroupEntry, at: usize, whole: &Family, names: &mut Vec<Arc<str>>) {
        let (was, state) = (entry.metas.get(at), &entry.families[at]);
        if was.suppressed {
            self.index.release(whole.name(), entry.id());
        } else {
            self.index.remove(entry.shown(), state.shown.as_deref().unwrap_or(whole));
            names.push(whole.name().clone());
        }
        if is_counted(state) {
            self.index.uncount_type(whole, &entry.id().site);
        }
    }

    /// The same as [`Store::admit_family`], but adds a conflict that is refused to the others of the push; `None` then.
    ///
    /// # Errors
    /// A limit, if no conflict came before it.
    pub(super) fn admit_or_collect(
        &mut self,
        entry: &GroupEntry,
        family: &Family,
        terms: AdmissionTerms,
        conflicts: &mut Option<PushConflicts>,
    ) -> Result<Option<(bool, FamilyState)>, StoreRefusal> {
        match self.admit_family(entry, family, terms) {
            Ok(admitted) => return Ok(Some(admitted)),
            Err(Conflict::Limit { name, max }) if conflicts.is_none() => {
                return Err(StoreRefusal::Limit { name, max });
            }
            Err(Conflict::Limit { .. }) => {}
            Err(conflict) => self.add_conflict(conflicts, entry, conflict),
        }
        Ok(None)
    }

    /// Shows a new family or suppresses it. Returns whether it is suppressed, and how it is shown.
    ///
    /// # Errors
    /// A conflict, if `terms` say that conflicts are refused.
    pub(super) fn admit_family(
        &mut self,
        entry: &GroupEntry,
        family: &Family,
        terms: AdmissionTerms,
    ) -> Result<(bool, FamilyState), Conflict> {
        let admitted = self.admit(entry, family, terms.series_max);
        if admitted.as_ref().err().is_none_or(|conflict| !conflict.is_own_fault()) {
            self.index.count_type(family, &entry.id().site);
        }
        match (admitted, terms.policy) {
            (Ok(shown), _) => Ok((false, shown_as(shown))),
            (Err(conflict @ Conflict::Limit { .. }), ConflictPolicy::Refuse | ConflictPolicy::Suppress) => {
                Err(conflict)
            }
            (Err(conflict), ConflictPolicy::Refuse) => Err(conflict),
            (Err(conflict), ConflictPolicy::Suppress | ConflictPolicy::SuppressAll) => {
                Ok((true, self.suppress(entry, family, conflict)))
            }
        }
    }

    pub(super) fn suppress(&mut self, entry: &GroupEntry, family: &Family, conflict: Conflict) -> FamilyState {
        let needed = matches!(conflict, Conflict::Limit { .. }).then(|| family.schema().series_len());
        self.index.suppress(family.name(), entry.id(), needed);
        let conflict = Some(Arc::new(conflict));
        FamilyState { conflict, ..FamilyState::default() }
    }

    /// Enters the family in the index if nothing conflicts. Returns it as shown, if that differs from how it was
    /// pushed.
    fn admit(&mut self, entry: &GroupEntry, family: &Family, series_max: usize) -> Result<Option<Family>, Conflict> {
        let has = |label: &str| {
            let layouts = family.schema().layouts();
            entry.shown().contains(label)
                || layouts.iter().any(|layout| layout.names.iter().any(|name| **name == *label))
        };
        // The gateway refuses such pushes, but a peer may send one, and a site may have such a label. A family without
        // series shows no labels.
        let own_label = family.schema().metric_type().own_label().filter(|_| family.schema().series_len() > 0);
        if let Some(label) = own_label.filter(|label| has(label)) {
            return Err(Conflict::OwnLabel { name: family.name().clone(), label });
        }
        if let Some(rule) = histogram_fault(self.rules, family) {
            return Err(Conflict::Histogram { name: family.name().clone(), rule });
        }
        let twice = |DuplicateSeries { name, labels }| {
            let labels = format!("{{{}}}", truncated(&labels));
            Conflict::Duplicate { name, labels, group: None }
        };
        if let Some(duplicate) = family.schema().repeated_sample() {
            return Err(twice(duplicate));
        }
        let shown = shown_family(entry.shown(), family).map_err(twice)?;
        let shown = shown.map(|family| self.schemas.intern(family));
        let as_shown = shown.as_ref().unwrap_or(family);
        let own = as_shown.schema().layouts().iter().map(|layout| &*layout.names);
        let alike = own.chain([&[][..]]).find_map(|names| {
            let group = entry.shown().iter().map(|label| label.name);
            alike_labels(group.chain(names.iter().map(|name| &**name)))
        });
        if let Some(alike) = alike {
            return Err(Conflict::AlikeLabels { name: family.name().clone(), alike });
        }
        if let Some(([other, series], _)) = as_shown.schema().scraped_twice() {
            let labels = format!("{{{}}} (as {{{}}})", truncated(&series), truncated(&other));
            return Err(Conflict::Duplicate { name: family.name().clone(), labels, group: None });
        }
        self.index.check(entry, as_shown, &self.staged)?;
        // The last check, so that a family that waits for the limit has no other conflict.
        if self.index.series() + family.schema().series_len() > series_max {
            return Err(Conflict::Limit { name: "limits.series_max", max: self.rules.limits.series_max });
        }
        self.index.add(entry.shown(), as_shown);
        Ok(shown)
    }

    /// The suppressed families that may be shown now that families with these names have left the index.
    pub(super) fn released_by(&self, gone: &[Arc<str>]) -> Vec<(GroupId, Arc<str>)> {
        if self.index.suppressed_len() == 0 {
            return Vec::new();
        }
        let names: HashSet<Arc<str>> = gone.iter().flat_map(|name| self.index.related(name)).collect();
        let mut released: Vec<_> = names
            .into_iter()
            .flat_map(|name| self.index.suppressed(&name).into_iter().map(move |id| (id, name.clone())))
            .collect();
        released.sort();
        released
    }

    /// Tries suppressed families again, and then those that wait for `limits.series_max`. The families of a group are
    /// neighbours in the list.
    pub(super) fn retry_released(&mut self, released: Vec<(GroupId, Arc<str>)>) {
        for of_group in released.chunk_by(|a, b| a.0 == b.0) {
            let names: Vec<_> = of_group.iter().map(|(_, name)| name.clone()).collect();
            self.retry_suppressed(&of_group[0].0, &names);
        }
        self.admit_waiting();
    }

    /// Tries suppressed families of a group again: each is shown, or gets its new conflict. All of a group are tried
    /// together, as each change copies the list of its families. If no conflict changed, no new entry is made: any
    /// number of groups may have suppressed families of one name.
    pub(super) fn retry_suppressed(&mut self, id: &GroupId, names: &[Arc<str>]) {
        let Some(entry) = self.staged.get(id) else {
            return names.iter().for_each(|name| self.index.release(name, id));
        };
        let (mut states, mut shown_now) = (Vec::new(), HashSet::new());
        let was_suppressed = |at: &usize| entry.metas.get(*at).suppressed;
        for name in names {
            let Some(at) = entry.position(name).filter(|at| was_suppressed(at) && !shown_now.contains(at)) else {
                self.index.release(name, id);
                continue;
            };
            // Of contributions, their sum.
            let family = entry.whole(at);
            let mut state = match self.admit(&entry, family, self.rules.limits.series_max) {
                Ok(shown) => {
                    self.index.release(name, id);
                    shown_now.extend(entry.group.unit(at));
                    shown_as(shown)
                }
                Err(conflict) => self.suppress(&entry, family, conflict),
            };
            if state.conflict != entry.families[at].conflict {
                state.shown = state.shown.or_else(|| entry.families[at].shown.clone());
                states.extend(of_unit(entry.group.unit(at), state));
            }
        }
        if states.is_empty() {
            return;
        }
        let mut new = (*entry).clone();
        for (at, state) in states {
            new.families[at] = state;
        }
        let meta =
            |at| FamilyMeta { suppressed: was_suppressed(&at) && !shown_now.contains(&at), ..entry.metas.get(at) };
        new.metas = (0..new.families.len()).map(meta).collect();
        if !shown_now.is_empty() {
            self.records.push(Record::Group(new.record(|at| shown_now.contains(&at))));
        }
        self.staged.set(id, Some(Arc::new(new)));
    }

    /// Shows families that wait for `limits.series_max` while there is capacity. Each family tried is shown or turns
    /// out to have another conflict, so the loop ends.
    pub(super) fn admit_waiting(&mut self) {
        let free = |store: &Self| store.rules.limits.series_max.checked_sub(store.index.series());
        while let Some((id, names)) = free(self).and_then(|free| self.index.waiting(free)) {
            self.retry_suppressed(&id, &names);
        }
    }
}
