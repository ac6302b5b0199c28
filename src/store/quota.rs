//! Quotas: bounds on the number of groups that a selector matches, and on their series, for pushes of one subject.
//!
//! A quota counts the groups of the store, whoever pushed them. So its numbers need no record of their own: they are the
//! same after a restart. The writer counts them again when quotas are replaced, and then follows each change of a group.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::GroupEntry;
use super::refusal::StoreRefusal;
use crate::model::{LabelSet, Lifetime};
use crate::selector::Selector;

/// A bound on groups and their series.
#[derive(Debug, Default)]
pub struct Quota {
    /// The rule that has the bound, for the text of a refusal.
    pub rule: String,
    /// The groups, by the labels under which they are shown; all if there is none.
    pub selector: Option<Selector>,
    /// Live groups, at most.
    pub groups_max: Option<usize>,
    /// Series that these groups show, at most; without push times.
    pub series_max: Option<usize>,
    groups: AtomicUsize,
    series: AtomicUsize,
}

impl Quota {
    /// A quota whose groups are not counted yet.
    pub fn new(rule: String, selector: Option<Selector>, groups_max: Option<usize>, series_max: Option<usize>) -> Self {
        Self { rule, selector, groups_max, series_max, ..Self::default() }
    }

    /// The groups and series that are published, as of the last count.
    pub fn used(&self) -> (usize, usize) {
        (self.groups.load(Ordering::Relaxed), self.series.load(Ordering::Relaxed))
    }

    fn has(&self, shown: &LabelSet) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.matches(|name| shown.get(name)))
    }

    fn refusal(&self, name: &'static str, max: usize) -> StoreRefusal {
        StoreRefusal::Quota { rule: self.rule.clone(), name, max }
    }

    /// The refusal of a push that shows more series than the quota allows.
    pub(super) fn too_many_series(&self) -> StoreRefusal {
        self.refusal("series_max", self.series_max.unwrap_or_default())
    }
}

/// What a push asks for besides its change.
#[derive(Clone, Debug, Default)]
pub struct WriteTerms {
    /// The lifetime of the group.
    pub lifetime: Option<Lifetime>,
    /// The quota of the subject that pushes.
    pub quota: Option<Arc<Quota>>,
}

/// The quotas that the writer shall follow. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedQuotas(Arc<NextQuotas>);

#[derive(Debug, Default)]
struct NextQuotas {
    is_changed: AtomicBool,
    quotas: Mutex<Vec<Arc<Quota>>>,
}

impl SharedQuotas {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Quota>>> {
        self.0.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn replace(&self, quotas: Vec<Arc<Quota>>) {
        *self.lock() = quotas;
        self.0.is_changed.store(true, Ordering::Release);
    }

    /// The quotas, if they were replaced since the last call.
    fn take(&self) -> Option<Vec<Arc<Quota>>> {
        let is_changed = self.0.is_changed.load(Ordering::Acquire) && self.0.is_changed.swap(false, Ordering::AcqRel);
        is_changed.then(|| self.lock().clone())
    }
}

/// A quota with the groups and series of published state and draft together.
struct Followed {
    quota: Arc<Quota>,
    groups: usize,
    series: usize,
}

/// The quotas that the writer follows.
#[derive(Default)]
pub(super) struct Quotas {
    shared: SharedQuotas,
    followed: Vec<Followed>,
}

/// Groups and series of one version of a group.
fn size(entry: Option<&GroupEntry>) -> (usize, usize) {
    let Some(entry) = entry.filter(|entry| entry.group.is_live()) else { return (0, 0) };
    (1, entry.shown_families().map(|family| family.schema().series_len()).sum())
}

impl Quotas {
    pub(super) fn new(shared: SharedQuotas) -> Self {
        Self { shared, followed: Vec::new() }
    }

    /// Takes over quotas that were replaced. The draft must be empty.
    pub(super) fn settle(&mut self, published: impl FnOnce() -> Vec<Arc<GroupEntry>>) {
        let Some(quotas) = self.shared.take() else { return };
        self.followed = quotas.into_iter().map(|quota| Followed { quota, groups: 0, series: 0 }).collect();
        if self.followed.is_empty() {
            return;
        }
        published().iter().for_each(|entry| self.note(None, Some(entry)));
        self.publish();
    }

    /// Notes that the draft changes a group.
    pub(super) fn note(&mut self, before: Option<&GroupEntry>, after: Option<&GroupEntry>) {
        if self.followed.is_empty() {
            return;
        }
        let Some(shown) = before.or(after).map(GroupEntry::shown) else { return };
        let (was, is) = (size(before), size(after));
        if was == is {
            return;
        }
        for followed in self.followed.iter_mut().filter(|followed| followed.quota.has(shown)) {
            followed.groups = (followed.groups + is.0).saturating_sub(was.0);
            followed.series = (followed.series + is.1).saturating_sub(was.1);
        }
    }

    /// The draft is published.
    pub(super) fn publish(&mut self) {
        for Followed { quota, groups, series } in &self.followed {
            quota.groups.store(*groups, Ordering::Relaxed);
            quota.series.store(*series, Ordering::Relaxed);
        }
    }

    /// The draft is discarded.
    pub(super) fn discard(&mut self) {
        for followed in &mut self.followed {
            (followed.groups, followed.series) = followed.quota.used();
        }
    }

    /// The count of a quota. A push that began before the rules were replaced has one that is no longer followed: that of the
    /// same rule takes its place.
    fn find(&self, quota: &Arc<Quota>) -> Option<&Followed> {
        let same = |followed: &&Followed| Arc::ptr_eq(&followed.quota, quota);
        let alike = |followed: &&Followed| followed.quota.rule == quota.rule;
        self.followed.iter().find(same).or_else(|| self.followed.iter().find(alike))
    }

    /// Checks that there may be one more group.
    ///
    /// # Errors
    /// The quota is used up.
    pub(super) fn check_new_group(&self, quota: &Arc<Quota>) -> Result<(), StoreRefusal> {
        match quota.groups_max {
            Some(max) if self.find(quota).is_some_and(|followed| followed.groups >= max) => {
                Err(quota.refusal("groups_max", max))
            }
            _ => Ok(()),
        }
    }

    /// The number of series that may be added.
    pub(super) fn free_series(&self, quota: &Arc<Quota>) -> Option<usize> {
        Some(quota.series_max?.saturating_sub(self.find(quota)?.series))
    }
}
