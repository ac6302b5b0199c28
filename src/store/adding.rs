//! Groups that add up: increments become contributions, and the contributions of a name are shown as one sum.
//!
//! The families of one name in a group are a *unit*: one plain family, or the contributions to a sum. The first of a
//! unit has what is shown of all of it ([`FamilyState::shown`]), and all of a unit are shown or suppressed together. A
//! group may have a plain family and contributions of one name, if two nodes got pushes of both kinds before they heard
//! of each other. Then the sum is shown.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::admission::{histogram_fault, of_unit};
use super::conflict::AdmissionTerms;
use super::entry::{AdmittedFamilies, FamilyState, GroupEntry};
use super::increment::{CONTRIBUTORS_MAX, Increment};
use super::record::FamilyMeta;
use super::refusal::StoreRefusal;
use super::writer::Store;
use crate::model::site::shown_family;
use crate::model::sum::{added, folded};
use crate::model::{
    Changes, Contributor, Family, GaugeRule, Group, GroupFamily, MetricType, PushTime, RawMetrics, SumPart,
};

/// The treatment of a unit of the new version of a group.
enum Plan {
    /// Nothing of it changed: its index in the version before.
    Same(usize),
    /// Only values changed. It is shown in this way.
    Values { shown: Family, before: usize },
    /// It is checked and entered.
    Anew(Family),
}

impl Store {
    /// The change that an increment makes: the present contributions of this opening of the store.
    pub(super) fn increment(
        &self,
        entry: &GroupEntry,
        push_time: PushTime,
        Increment { families, gauges, .. }: &Increment,
    ) -> Result<Group, StoreRefusal> {
        let group = &entry.group;
        if !group.families().is_empty() && !group.is_adding() {
            return Err(StoreRefusal::PlainGroup { group: entry.shown().to_string() });
        }
        let contributor = self.own_contributor(entry, *gauges, push_time)?;
        let sum = |pushed: &Family| {
            let unit = group.position(pushed.name()).map(|at| group.unit(at)).unwrap_or_default();
            let contributions = || group.families()[unit.clone()].iter().filter(|f| f.contributor.is_some());
            let own = contributions().find(|f| f.contributor.as_ref() == Some(&contributor));
            match own.or_else(|| contributions().next()) {
                Some(total) => {
                    let sum = added(&total.family, pushed, *gauges, self.rules.sums.native)?;
                    // The sum with another's contribution is no more than a check that the two fit together.
                    Ok(if own.is_some() { sum } else { pushed.clone() })
                }
                None => Ok(pushed.clone()),
            }
        };
        let families: Result<Vec<Family>, _> = families.iter().map(sum).collect();
        Ok(Group::contribute(push_time, &contributor, families.map_err(StoreRefusal::Sum)?))
    }

    /// The contributor of this opening of the store. One that a delete has ended, or that another rule for gauges had, is
    /// not continued.
    fn own_contributor(
        &self,
        entry: &GroupEntry,
        gauges: GaugeRule,
        push_time: PushTime,
    ) -> Result<Arc<Contributor>, StoreRefusal> {
        let epoch = self.epochs.last().map(|opening| opening.epoch).unwrap_or_default();
        let contributors = entry.group.contributors();
        let is_own = |contributor: &&Arc<Contributor>| contributor.epoch == epoch && contributor.gauges == gauges;
        match contributors.iter().rev().find(is_own) {
            Some(contributor) => Ok(contributor.clone()),
            None if contributors.len() >= CONTRIBUTORS_MAX => {
                Err(StoreRefusal::Contributors { group: entry.shown().to_string() })
            }
            None => Ok(Arc::new(Contributor { birth: push_time.stamp, epoch, gauges })),
        }
    }

    /// The family that a unit of a group shows, without regard to labels of the site: the plain family or the sum.
    pub(super) fn whole(&mut self, group: &Group, unit: Range<usize>) -> Family {
        let families = &group.families()[unit];
        let mut contributions: Vec<(&Contributor, &GroupFamily)> =
            families.iter().filter_map(|f| Some((&**f.contributor.as_ref()?, f))).collect();
        contributions.sort_unstable_by_key(|(contributor, _)| *contributor);
        let Some((newest, _)) = contributions.last() else { return families[0].family.clone() };
        let parts: Vec<SumPart<'_>> =
            contributions.iter().map(|(_, f)| SumPart { family: &f.family, stamp: f.stamp }).collect();
        let sum = folded(&parts, newest.gauges, self.rules.sums.native);
        let sum = sum.unwrap_or_else(|| families[0].family.clone());
        let start_ns = contributions.first().map_or(0, |(oldest, _)| oldest.birth.time_ns);
        let dated = self.dated(sum, start_ns);
        self.schemas.intern(dated)
    }

    /// The sum with the time at which it began.
    fn dated(&self, sum: Family, start_ns: u64) -> Family {
        let (schema, metric_type) = (sum.schema(), sum.schema().metric_type());
        let counts = matches!(metric_type, MetricType::Counter | MetricType::Summary | MetricType::Histogram);
        let Some(date) = self.rules.sums.dated.filter(|_| counts) else { return sum };
        let raw_metrics: RawMetrics = schema
            .series()
            .enumerate()
            .map(|(at, series)| {
                let native = sum.raw_metrics().map_or(&[][..], |raw_metrics| &raw_metrics[at]);
                let (layout, values) = (&series.layout().values, &sum.values()[series.values()]);
                date(metric_type, layout, values, native, start_ns).into()
            })
            .collect();
        let dated = Family::new(schema.clone(), sum.values().clone(), Some(Arc::new(raw_metrics)));
        dated.unwrap_or(sum)
    }

    /// The same as [`Store::admit_families`] for a group that adds up before or after the change.
    ///
    /// # Errors
    /// As there.
    pub(super) fn admit_units(
        &mut self,
        entry: &GroupEntry,
        group: &Group,
        changes: &Changes,
        meta: FamilyMeta,
        terms: AdmissionTerms,
    ) -> Result<(AdmittedFamilies, Vec<Arc<str>>), StoreRefusal> {
        let name = |group: &Group, unit: &Range<usize>| group.families()[unit.start].family.name().clone();
        let mut before: HashMap<Arc<str>, Range<usize>> =
            entry.group.units().map(|unit| (name(&entry.group, &unit), unit)).collect();
        let mut plans = Vec::new();
        for unit in group.units() {
            let old = before.remove(&name(group, &unit));
            let plan = self.plan(entry, group, changes, unit.clone(), old.clone());
            plans.push((unit, plan, old));
        }
        let mut names = Vec::new();
        let replaced = plans.iter().filter(|(_, plan, _)| matches!(plan, Plan::Anew(_)));
        let replaced: Vec<Range<usize>> =
            replaced.filter_map(|(.., old)| old.clone()).chain(before.into_values()).collect();
        for unit in replaced {
            let whole = self.whole(&entry.group, unit.clone());
            self.leave(entry, unit.start, &whole, &mut names);
        }
        let mut metas = vec![FamilyMeta::default(); group.families().len()];
        let mut states = vec![FamilyState::default(); group.families().len()];
        let mut conflicts = None;
        for (unit, plan, _) in plans {
            let (suppressed, state) = match plan {
                Plan::Same(at) => (entry.metas.get(at).suppressed, entry.families[at].clone()),
                Plan::Values { shown, before } => {
                    let hint = entry.families[before].hint.clone();
                    (false, FamilyState { shown: Some(Box::new(shown)), conflict: None, hint })
                }
                Plan::Anew(whole) => match self.admit_or_collect(entry, &whole, terms, &mut conflicts)? {
                    Some((suppressed, mut state)) => {
                        state.shown = state.shown.or_else(|| Some(Box::new(whole)));
                        (suppressed, state)
                    }
                    None => continue,
                },
            };
            for at in unit.clone() {
                let source = changes.families[at];
                let was = source.before.filter(|_| !source.set).map(|before| entry.metas.get(before));
                metas[at] = FamilyMeta { suppressed, ..was.unwrap_or(meta) };
            }
            of_unit(unit, state).for_each(|(at, state)| states[at] = state);
        }
        match conflicts {
            Some(conflicts) => Err(StoreRefusal::Conflict(Box::new(conflicts))),
            None => Ok(((metas.into_iter().collect(), states), names)),
        }
    }

    fn plan(
        &mut self,
        entry: &GroupEntry,
        group: &Group,
        changes: &Changes,
        unit: Range<usize>,
        old: Option<Range<usize>>,
    ) -> Plan {
        let Some(old) = old else { return Plan::Anew(self.whole(group, unit)) };
        let sources = &changes.families[unit.clone()];
        if unit.len() == old.len() && sources.iter().all(|source| !source.set) {
            return Plan::Same(old.start);
        }
        let whole = self.whole(group, unit);
        let Some(was) = entry.shown_at(old.start) else { return Plan::Anew(whole) };
        let Ok(shown) = shown_family(entry.shown(), &whole) else { return Plan::Anew(whole) };
        let shown = shown.unwrap_or_else(|| whole.clone());
        // The gateway has checked the histograms of a push, but not their sum.
        match shown.schema().same(was.schema()) && histogram_fault(self.rules, &whole).is_none() {
            true => Plan::Values { shown: shown.with_schema(was.schema().clone()), before: old.start },
            false => Plan::Anew(whole),
        }
    }
}
