//! The index of the names, labels and series that are shown: it decides whether another family can be shown with them.
//!
//! The rules are those by which Pushgateway's gatherers accept metrics: one type for each name; no metric named like a
//! sample of a histogram or summary (`_count`, `_sum`, `_bucket`); no two series with the same name and labels. The
//! cost of a check depends on the family that is checked, not on the size of the store (see `docs/architecture.md` for
//! duplicates).
//!
//! Every change is written to a journal, so that a draft can be undone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::conflict::Conflict;
use super::entry::{GroupEntry, fill_instance};
use crate::model::{Family, GroupId, LabelSet, MetricType, Schema, truncated};

/// The names of a grouping key's labels.
type Signature = Box<[Box<str>]>;

/// The journal's capacity is kept from one draft to the next up to this many steps. The first draft after a start
/// journals every group.
const JOURNAL_KEPT: usize = 65_536;

/// The use of one name by the families that are shown.
#[derive(Debug)]
struct NameUse {
    metric_type: MetricType,
    /// Groups that show the name; the node's own metrics count as one.
    holders: usize,
    /// For each set of label names in grouping keys, the number of those groups that have it.
    signatures: Vec<(Signature, usize)>,
}

enum JournalStep {
    Added { name: Arc<str>, key: Arc<LabelSet>, series: usize },
    Removed { name: Arc<str>, metric_type: MetricType, key: Arc<LabelSet>, series: usize },
    Suppressed { name: Arc<str>, id: GroupId },
    Released { name: Arc<str>, id: GroupId, needed: Option<usize> },
    KeyAdded { key: Arc<LabelSet> },
    KeyRemoved { key: Arc<LabelSet>, at: usize, id: GroupId },
}

/// Access to the families that groups show, by group and name.
pub trait Groups {
    /// The schema of that family, if the group is there and shows one.
    fn shown_schema(&self, id: &GroupId, name: &str) -> Option<Arc<Schema>>;
}

/// The index. It follows the draft; [`Index::undo`] takes changes back.
#[derive(Default)]
pub struct Index {
    names: HashMap<Arc<str>, NameUse>,
    /// Live groups by their full labels ([`super::GroupEntry::full`]). The first of each list is the one that is shown.
    keys: HashMap<Arc<LabelSet>, Vec<GroupId>>,
    /// Groups that have a suppressed family of that name. If the family waits for `limits.series_max`, with the number
    /// of its series.
    suppressed: HashMap<Arc<str>, BTreeMap<GroupId, Option<usize>>>,
    suppressed_len: usize,
    /// The families that wait for `limits.series_max`, by the number of their series.
    waiting: BTreeSet<(usize, GroupId, Arc<str>)>,
    series: usize,
    journal: Vec<JournalStep>,
}

impl Index {
    /// Reserves a name for the node's own metrics.
    pub fn reserve(&mut self, name: &str, metric_type: MetricType) {
        self.names.insert(name.into(), NameUse { metric_type, holders: 1, signatures: Vec::new() });
    }

    /// The number of series that are shown.
    pub fn series(&self) -> usize {
        self.series
    }

    /// The groups that have a suppressed family of that name.
    pub fn suppressed(&self, name: &str) -> Vec<GroupId> {
        self.suppressed.get(name).map(|ids| ids.keys().cloned().collect()).unwrap_or_default()
    }

    /// The number of suppressed families.
    pub fn suppressed_len(&self) -> usize {
        self.suppressed_len
    }

    /// The waiting family with the fewest series, and those after it of the same group, as many as fit into `free`
    /// series.
    pub fn waiting(&self, mut free: usize) -> Option<(GroupId, Vec<Arc<str>>)> {
        let (_, id, _) = self.waiting.first()?;
        let mut names = Vec::new();
        for (needed, _, name) in self.waiting.iter().take_while(|(_, of, _)| of == id) {
            let Some(left) = free.checked_sub(*needed) else { break };
            free = left;
            names.push(name.clone());
        }
        (!names.is_empty()).then(|| (id.clone(), names))
    }

    /// The live group that is shown under these full labels.
    pub fn owner(&self, full: &LabelSet) -> Option<&GroupId> {
        self.keys.get(full).and_then(|ids| ids.first())
    }

    /// The live group with exactly these labels; if there are two, the one that is shown.
    pub fn find(&self, shown: &Arc<LabelSet>) -> Option<&GroupId> {
        self.keys.get(&fill_instance(shown))?.iter().find(|id| id.shown() == *shown)
    }

    /// Checks whether `family`, as shown, can be shown in the group. The caller has removed the group's present family
    /// of that name, if any.
    ///
    /// # Errors
    /// The first conflict found.
    pub fn check(&self, entry: &GroupEntry, family: &Family, groups: &impl Groups) -> Result<(), Conflict> {
        let (name, metric_type, shown) = (family.name(), family.schema().metric_type(), entry.shown());
        if let Some(owner) = self.owner(entry.full()).filter(|owner| *owner != entry.id()) {
            return Err(Conflict::Shadowed { labels: shown.clone(), by: owner.clone() });
        }
        self.check_suffixes(name, metric_type)?;
        let Some(used) = self.names.get(name) else { return Ok(()) };
        if used.metric_type != metric_type {
            return Err(Conflict::Type { name: name.clone(), pushed: metric_type, used: used.metric_type });
        }
        let others = used.signatures.iter().filter(|(signature, _)| !same_names(signature, shown));
        for (signature, _) in others {
            self.check_duplicates(signature, shown, family.schema(), groups)?;
        }
        Ok(())
    }

    fn check_suffixes(&self, name: &Arc<str>, metric_type: MetricType) -> Result<(), Conflict> {
        use MetricType::{Histogram, Summary};
        let collides = |used: String| Err(Conflict::Suffix { name: name.clone(), used });
        for suffix in ["_count", "_sum", "_bucket"] {
            let owns = |t: MetricType| t == Histogram || (t == Summary && suffix != "_bucket");
            if let Some(base) = name.strip_suffix(suffix)
                && self.names.get(base).is_some_and(|used| owns(used.metric_type))
            {
                return collides(base.into());
            }
            if owns(metric_type) {
                let sample = format!("{name}{suffix}");
                if self.names.contains_key(&*sample) {
                    return collides(sample);
                }
            }
        }
        Ok(())
    }

    /// Looks for a series of `schema` that a group with the label names `signature` in its key shows too.
    fn check_duplicates(
        &self,
        signature: &Signature,
        shown: &LabelSet,
        schema: &Schema,
        groups: &impl Groups,
    ) -> Result<(), Conflict> {
        let in_layout = |names: &[Box<str>], name: &str| names.iter().any(|n| **n == *name);
        let possible: Vec<bool> = schema
            .layouts()
            .iter()
            .map(|layout| signature.iter().all(|name| shown.contains(name) || in_layout(&layout.names, name)))
            .collect();
        if !possible.contains(&true) {
            return Ok(());
        }
        let mut last: Option<(Arc<LabelSet>, Option<Arc<Schema>>)> = None;
        for series in schema.series().filter(|series| possible[series.layout_index]) {
            let own: Vec<(&str, std::borrow::Cow<str>)> = series.labels().collect();
            let value = |name: &str| {
                let pushed = own.iter().find(|label| label.0 == name).map(|label| &*label.1);
                shown.get(name).or(pushed).unwrap_or_default()
            };
            let key = Arc::new(LabelSet::new(signature.iter().map(|name| (name.clone(), value(name)))));
            if last.as_ref().is_none_or(|(last, _)| *last != key) {
                let other = self.find(&key).and_then(|other| groups.shown_schema(other, schema.name()));
                last = Some((key, other));
            }
            let Some((key, Some(other))) = &last else { continue };
            let pushed = own.iter().map(|(name, value)| (*name, &**value));
            let group = shown.iter().map(|label| (label.name, label.value));
            let mut rest: Vec<(&str, &str)> = pushed.chain(group).filter(|label| !key.contains(label.0)).collect();
            rest.sort();
            if other.contains(&rest) {
                let labels = LabelSet::new(rest.into_iter().chain(key.iter().map(|l| (l.name, l.value))));
                let (name, group) = (schema.name().clone(), Some(key.clone()));
                return Err(Conflict::Duplicate { name, labels: truncated(&labels.to_string()).to_string(), group });
            }
        }
        Ok(())
    }

    /// Enters a family that a group shows.
    pub fn add(&mut self, shown: &Arc<LabelSet>, family: &Family) {
        let schema = family.schema();
        let (name, metric_type, series) = (schema.name().clone(), schema.metric_type(), schema.series_len());
        self.enter(&name, metric_type, shown, series);
        self.journal.push(JournalStep::Added { name, key: shown.clone(), series });
    }

    /// Removes a family that a group has shown.
    pub fn remove(&mut self, shown: &Arc<LabelSet>, family: &Family) {
        let schema = family.schema();
        let (name, metric_type, series) = (schema.name().clone(), schema.metric_type(), schema.series_len());
        self.leave(&name, shown, series);
        self.journal.push(JournalStep::Removed { name, metric_type, key: shown.clone(), series });
    }

    fn enter(&mut self, name: &Arc<str>, metric_type: MetricType, key: &LabelSet, series: usize) {
        let used = self.names.entry(name.clone()).or_insert_with(|| NameUse {
            metric_type,
            holders: 0,
            signatures: Vec::new(),
        });
        used.holders += 1;
        match used.signatures.iter_mut().find(|(signature, _)| same_names(signature, key)) {
            Some((_, count)) => *count += 1,
            None => used.signatures.push((key.iter().map(|label| label.name.into()).collect(), 1)),
        }
        self.series += series;
    }

    fn leave(&mut self, name: &Arc<str>, key: &LabelSet, series: usize) {
        let used = self.names.get_mut(name).expect("what leaves was entered");
        used.holders -= 1;
        let at = used.signatures.iter().position(|(signature, _)| same_names(signature, key));
        let at = at.expect("what leaves was entered with its key");
        used.signatures[at].1 -= 1;
        if used.signatures[at].1 == 0 {
            used.signatures.swap_remove(at);
        }
        if used.holders == 0 {
            self.names.remove(name);
        }
        self.series -= series;
    }

    /// Notes that a family of the group is suppressed. `needed` is the number of its series if it waits for
    /// `limits.series_max`, else `None`.
    pub fn suppress(&mut self, name: &Arc<str>, id: &GroupId, needed: Option<usize>) {
        self.release(name, id);
        self.enter_suppressed(name.clone(), id.clone(), needed);
        self.journal.push(JournalStep::Suppressed { name: name.clone(), id: id.clone() });
    }

    /// Notes that the family of the group is no longer suppressed.
    pub fn release(&mut self, name: &Arc<str>, id: &GroupId) {
        if let Some(needed) = self.leave_suppressed(name, id) {
            self.journal.push(JournalStep::Released { name: name.clone(), id: id.clone(), needed });
        }
    }

    fn enter_suppressed(&mut self, name: Arc<str>, id: GroupId, needed: Option<usize>) {
        if let Some(series) = needed {
            self.waiting.insert((series, id.clone(), name.clone()));
        }
        self.suppressed.entry(name).or_default().insert(id, needed);
        self.suppressed_len += 1;
    }

    fn leave_suppressed(&mut self, name: &Arc<str>, id: &GroupId) -> Option<Option<usize>> {
        let ids = self.suppressed.get_mut(name)?;
        let needed = ids.remove(id)?;
        if ids.is_empty() {
            self.suppressed.remove(name);
        }
        if let Some(series) = needed {
            self.waiting.remove(&(series, id.clone(), name.clone()));
        }
        self.suppressed_len -= 1;
        Some(needed)
    }

    /// Enters a group that became live. The first group under its labels is the one that is shown.
    pub fn add_key(&mut self, full: &Arc<LabelSet>, id: &GroupId) {
        self.keys.entry(full.clone()).or_default().push(id.clone());
        self.journal.push(JournalStep::KeyAdded { key: full.clone() });
    }

    /// Removes a group that is no longer live. Returns the group that is now shown under these labels, if there is one
    /// and it was not shown before.
    pub fn remove_key(&mut self, full: &Arc<LabelSet>, id: &GroupId) -> Option<GroupId> {
        let ids = self.keys.get_mut(full)?;
        let at = ids.iter().position(|i| i == id)?;
        ids.remove(at);
        let next = ids.first().filter(|_| at == 0).cloned();
        if ids.is_empty() {
            self.keys.remove(full);
        }
        self.journal.push(JournalStep::KeyRemoved { key: full.clone(), at, id: id.clone() });
        next
    }

    /// The present length of the journal, for [`Index::undo`].
    pub fn point(&self) -> usize {
        self.journal.len()
    }

    /// Clears the journal: the draft was published.
    pub fn commit(&mut self) {
        self.journal.clear();
        self.journal.shrink_to(JOURNAL_KEPT);
    }

    /// Undoes every change since `point`.
    pub fn undo(&mut self, point: usize) {
        while self.journal.len() > point {
            match self.journal.pop().expect("longer than point") {
                JournalStep::Added { name, key, series } => self.leave(&name, &key, series),
                JournalStep::Removed { name, metric_type, key, series } => self.enter(&name, metric_type, &key, series),
                JournalStep::Suppressed { name, id } => {
                    self.leave_suppressed(&name, &id);
                }
                JournalStep::Released { name, id, needed } => self.enter_suppressed(name, id, needed),
                JournalStep::KeyAdded { key } => {
                    let ids = self.keys.get_mut(&key).expect("a key that was added is there");
                    ids.pop();
                    if ids.is_empty() {
                        self.keys.remove(&key);
                    }
                }
                JournalStep::KeyRemoved { key, at, id } => self.keys.entry(key).or_default().insert(at, id),
            }
        }
    }
}

fn same_names(signature: &Signature, key: &LabelSet) -> bool {
    signature.len() == key.len() && signature.iter().zip(key).all(|(name, label)| **name == *label.name)
}

/// The names whose suppressed families may become admissible when `name` is removed: the name itself, its samples, and
/// the histogram or summary of which it could be a sample.
pub fn related(name: &Arc<str>) -> Vec<Arc<str>> {
    let suffixes = ["_count", "_sum", "_bucket"];
    let samples = suffixes.iter().map(|suffix| format!("{name}{suffix}").into());
    let bases = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix)).map(Arc::from);
    std::iter::once(name.clone()).chain(samples).chain(bases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_draft_leaves_no_large_journal() {
        let mut index = Index::default();
        let id = GroupId::local(LabelSet::new([("job", "a")]));
        let name: Arc<str> = "m".into();
        for _ in 0..JOURNAL_KEPT {
            index.suppress(&name, &id, None);
        }
        assert!(index.point() > JOURNAL_KEPT && index.journal.capacity() > JOURNAL_KEPT);
        index.commit();
        assert_eq!((index.point(), index.journal.capacity()), (0, JOURNAL_KEPT));
    }
}
