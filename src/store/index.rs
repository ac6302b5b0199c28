//! The index of the names, labels and series that are shown: it decides whether another family can be shown with them.
//!
//! The rules are those by which Pushgateway's gatherers accept metrics: one type for each name; no metric named like a
//! sample of a histogram or summary (`_count`, `_sum`, `_bucket`); no two series with the same name and labels. All
//! hold for each form of a scrape: names may be escaped ([`Escaping`]), and labels with an empty value are none. The
//! cost of a check depends on the family that is checked, not on the size of the store (see `docs/architecture.md` for
//! duplicates).
//!
//! Every change is written to a journal, so that a draft can be undone.

mod duplicates;
mod types;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use self::types::{PushedType, PushedTypes};
use super::conflict::Conflict;
use super::entry::{GroupEntry, drop_empty};
use crate::model::label::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::{AlikeNames, Escaping, Family, GroupId, LabelSet, MetricType, Schema, alike_labels};

/// The names of a group's labels, without those that have an empty value.
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
    /// Groups that show it with label names that are not legacy names.
    escapable: usize,
    /// The name is one of the node's own metrics: its type does not change.
    is_reserved: bool,
}

/// A live group, and its place in the order in which groups became live.
#[derive(Clone, Debug)]
struct LiveGroup {
    id: GroupId,
    place: u64,
}

/// The facts about a family that the index notes.
#[derive(Clone)]
struct Entered {
    name: Arc<str>,
    metric_type: MetricType,
    /// The labels of its group, none empty.
    key: Arc<LabelSet>,
    series: usize,
    is_escapable: bool,
}

enum JournalStep {
    Counted(PushedType),
    Uncounted(PushedType),
    Added(Entered),
    Removed(Entered),
    Suppressed { name: Arc<str>, id: GroupId },
    Released { name: Arc<str>, id: GroupId, needed: Option<usize> },
    KeyAdded { key: Arc<LabelSet>, id: GroupId },
    KeyRemoved { key: Arc<LabelSet>, group: LiveGroup },
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
    /// Names that are not legacy names, by each of their escaped forms.
    forms: HashMap<String, Vec<(Escaping, Arc<str>)>>,
    /// Live groups by their scraped labels ([`super::GroupEntry::scraped`]), in the order of their places. The first of
    /// each list is the one that is shown.
    keys: HashMap<Arc<LabelSet>, Vec<LiveGroup>>,
    /// Live groups with label names that are not legacy names, by each of the escaped forms of their scraped labels.
    escaped_keys: HashMap<(Escaping, Arc<LabelSet>), Vec<LiveGroup>>,
    /// The place of the next group.
    next_place: u64,
    /// Groups that have a suppressed family of that name. If the family waits for `limits.series_max`, with the number
    /// of its series.
    suppressed: HashMap<Arc<str>, BTreeMap<GroupId, Option<usize>>>,
    suppressed_len: usize,
    /// Names of suppressed families that are not legacy names, by each of their escaped forms.
    suppressed_forms: HashMap<String, BTreeSet<Arc<str>>>,
    /// The families that wait for `limits.series_max`, by the number of their series.
    waiting: BTreeSet<(usize, GroupId, Arc<str>)>,
    series: usize,
    /// The types under which sites push names; `None` at a node that has one site only.
    types: Option<PushedTypes>,
    journal: Vec<JournalStep>,
}

impl Index {
    /// Reserves a name for the node's own metrics.
    pub fn reserve(&mut self, name: &str, metric_type: MetricType) {
        let used = NameUse { metric_type, holders: 1, signatures: Vec::new(), escapable: 0, is_reserved: true };
        self.names.insert(name.into(), used);
    }

    /// Counts types by site from now on: the node has several sites. Nothing may have been counted before.
    pub fn count_types(&mut self) {
        self.types = Some(PushedTypes::default());
    }

    /// Counts the type of a family that a group of that site has, shown or suppressed.
    pub fn count_type(&mut self, family: &Family, site: &Arc<LabelSet>) {
        if let Some(types) = &mut self.types {
            let pushed = PushedType::new(family, site);
            types.add(&pushed);
            self.journal.push(JournalStep::Counted(pushed));
        }
    }

    /// Takes back [`Index::count_type`].
    pub fn uncount_type(&mut self, family: &Family, site: &Arc<LabelSet>) {
        if let Some(types) = &mut self.types {
            let pushed = PushedType::new(family, site);
            types.remove(&pushed);
            self.journal.push(JournalStep::Uncounted(pushed));
        }
    }

    /// The types under which sites push the name: that of most sites first.
    pub fn preferred_types(&self, name: &str) -> Vec<MetricType> {
        let types = self.types.iter().flat_map(|types| types.by_preference(name));
        types.map(|(metric_type, _)| metric_type).collect()
    }

    /// The number of names that sites push with several types.
    pub fn mixed_len(&self) -> usize {
        self.types.as_ref().map_or(0, |types| types.mixed().len())
    }

    /// The names that sites push with several types, each with the type that is shown, and with its types and the
    /// number of their sites, the preferred type first. Names of the node's own metrics, and names of which nothing is
    /// shown, are left out.
    pub fn mixed(&self) -> impl Iterator<Item = (&Arc<str>, MetricType, Vec<(MetricType, usize)>)> {
        let names = self.types.iter().flat_map(|types| types.mixed().iter().map(move |name| (types, name)));
        names.filter_map(|(types, name)| {
            let used = self.names.get(name).filter(|used| !used.is_reserved)?;
            Some((name, used.metric_type, types.by_preference(name)))
        })
    }

    /// Whether the name can be shown with that type, as far as other names are concerned.
    pub fn allows(&self, name: &Arc<str>, metric_type: MetricType) -> bool {
        self.check_suffixes(name, metric_type).and_then(|()| self.check_forms(name, metric_type)).is_ok()
    }

    /// Whether the node's own metrics use that name.
    pub fn is_reserved(&self, name: &str) -> bool {
        let of_groups = |used: &NameUse| used.signatures.iter().map(|(_, groups)| groups).sum::<usize>();
        self.names.get(name).is_some_and(|used| used.holders > of_groups(used))
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

    /// The live group with exactly these labels; if there are two, the one that is shown.
    pub fn find(&self, shown: &Arc<LabelSet>) -> Option<&GroupId> {
        let groups = self.keys.get(&drop_empty(shown))?;
        groups.iter().map(|group| &group.id).find(|id| id.shown() == *shown)
    }

    /// The group that is live for longer than this one, and has the same labels to a scraper.
    pub fn shadower(&self, scraped: &Arc<LabelSet>, id: &GroupId) -> Option<&GroupId> {
        if self.escaped_keys.is_empty() {
            return self.keys.get(scraped)?.first().map(|group| &group.id).filter(|first| *first != id);
        }
        let others = || self.same_keys(scraped);
        let place = others().find(|group| group.id == *id).map_or(u64::MAX, |group| group.place);
        others().filter(|group| group.place < place).min_by_key(|group| group.place).map(|group| &group.id)
    }

    /// The groups that have these labels to a scraper, with any escaping.
    fn same_keys<'a>(&'a self, scraped: &Arc<LabelSet>) -> impl Iterator<Item = &'a LiveGroup> + use<'a> {
        let groups = |escaping, form: &Arc<LabelSet>| self.escaped_keys.get(&(escaping, form.clone()));
        let escaped = escaped_forms(scraped);
        let mut lists: Vec<&Vec<LiveGroup>> = self.keys.get(scraped).into_iter().collect();
        match escaped {
            None => lists.extend(Escaping::CHANGING.iter().filter_map(|escaping| groups(*escaping, scraped))),
            Some(forms) => {
                for (escaping, form) in forms {
                    lists.extend(self.keys.get(&form));
                    lists.extend(groups(escaping, &form));
                }
            }
        }
        lists.into_iter().flatten()
    }

    /// Checks whether `family`, as shown, can be shown in the group. The caller has removed the group's present family
    /// of that name, if any.
    ///
    /// # Errors
    /// The first conflict found.
    pub fn check(&self, entry: &GroupEntry, family: &Family, groups: &impl Groups) -> Result<(), Conflict> {
        let (name, metric_type, shown) = (family.name(), family.schema().metric_type(), entry.shown());
        if let Some(owner) = self.shadower(entry.scraped(), entry.id()) {
            return Err(Conflict::Shadowed { labels: shown.clone(), by: owner.clone() });
        }
        self.check_suffixes(name, metric_type)?;
        self.check_forms(name, metric_type)?;
        let Some(used) = self.names.get(name) else { return Ok(()) };
        if used.metric_type != metric_type {
            return Err(Conflict::Type { name: name.clone(), pushed: metric_type, used: used.metric_type });
        }
        let is_escapable = used.escapable > 0 || is_escapable(shown, family.schema());
        let others = used.signatures.iter().filter(|(signature, _)| !same_names(signature, entry.scraped()));
        for (signature, _) in others {
            self.check_duplicates(signature, entry.scraped(), family.schema(), Escaping::AllowUtf8, groups)?;
            for escaping in Escaping::CHANGING.into_iter().filter(|_| is_escapable) {
                self.check_duplicates(signature, entry.scraped(), family.schema(), escaping, groups)?;
            }
        }
        Ok(())
    }

    /// Checks that no escaping makes the name, or one of the names of its samples, the same as another.
    fn check_forms(&self, name: &Arc<str>, metric_type: MetricType) -> Result<(), Conflict> {
        let is_legacy = is_legacy_metric_name(name);
        if is_legacy && self.forms.is_empty() {
            return Ok(());
        }
        for escaping in Escaping::CHANGING {
            let form = escaping.escape(name);
            // Other names that have that form. Two legacy names differ in every form.
            let others = |form: &str| {
                let escaped = self.forms.get(form).into_iter().flatten();
                let escaped = escaped.filter(|(of, other)| *of == escaping && *other != *name).map(|(_, other)| other);
                let legacy = self.names.get_key_value(form).filter(|_| !is_legacy).map(|(other, _)| other);
                escaped.chain(legacy).next().cloned()
            };
            let collides = |used: Arc<str>, own: &str, other: &str, form: &str| {
                let names = [format!("{name}{own}"), format!("{used}{other}")];
                let alike = AlikeNames::new([&names[0], &names[1]], form, escaping);
                Err(Conflict::AlikeName { name: name.clone(), used, alike })
            };
            if let Some(used) = others(&form) {
                return collides(used, "", "", &form);
            }
            for suffix in SUFFIXES {
                let sample = format!("{form}{suffix}");
                if owns(metric_type, suffix)
                    && let Some(used) = others(&sample)
                {
                    return collides(used, suffix, "", &sample);
                }
                let base = form.strip_suffix(suffix).and_then(others);
                if let Some(used) = base.filter(|base| owns(self.names[base].metric_type, suffix)) {
                    return collides(used, "", suffix, &form);
                }
            }
        }
        Ok(())
    }

    fn check_suffixes(&self, name: &Arc<str>, metric_type: MetricType) -> Result<(), Conflict> {
        let collides = |used: String| Err(Conflict::Suffix { name: name.clone(), used });
        for suffix in SUFFIXES {
            if let Some(base) = name.strip_suffix(suffix)
                && self.names.get(base).is_some_and(|used| owns(used.metric_type, suffix))
            {
                return collides(base.into());
            }
            if owns(metric_type, suffix) {
                let sample = format!("{name}{suffix}");
                if self.names.contains_key(&*sample) {
                    return collides(sample);
                }
            }
        }
        Ok(())
    }

    /// Enters a family that a group shows under the labels `shown`.
    pub fn add(&mut self, shown: &Arc<LabelSet>, family: &Family) {
        let entered = Entered::new(shown, family);
        self.enter(&entered);
        self.journal.push(JournalStep::Added(entered));
    }

    /// Removes a family that a group has shown under the labels `shown`.
    pub fn remove(&mut self, shown: &Arc<LabelSet>, family: &Family) {
        let entered = Entered::new(shown, family);
        self.leave(&entered);
        self.journal.push(JournalStep::Removed(entered));
    }

    fn enter(&mut self, Entered { name, metric_type, key, series, is_escapable }: &Entered) {
        let used = self.names.entry(name.clone()).or_insert_with(|| NameUse {
            metric_type: *metric_type,
            holders: 0,
            signatures: Vec::new(),
            escapable: 0,
            is_reserved: false,
        });
        used.holders += 1;
        used.escapable += usize::from(*is_escapable);
        match used.signatures.iter_mut().find(|(signature, _)| same_names(signature, key)) {
            Some((_, count)) => *count += 1,
            None => used.signatures.push((key.iter().map(|label| label.name.into()).collect(), 1)),
        }
        if used.holders == 1 && !is_legacy_metric_name(name) {
            for escaping in Escaping::CHANGING {
                let form = escaping.escape(name).into_owned();
                self.forms.entry(form).or_default().push((escaping, name.clone()));
            }
        }
        self.series += series;
    }

    fn leave(&mut self, Entered { name, key, series, is_escapable, .. }: &Entered) {
        let used = self.names.get_mut(name).expect("what leaves was entered");
        used.holders -= 1;
        used.escapable -= usize::from(*is_escapable);
        let at = used.signatures.iter().position(|(signature, _)| same_names(signature, key));
        let at = at.expect("what leaves was entered with its key");
        used.signatures[at].1 -= 1;
        if used.signatures[at].1 == 0 {
            used.signatures.swap_remove(at);
        }
        if used.holders == 0 {
            self.names.remove(name);
            for escaping in Escaping::CHANGING.into_iter().filter(|_| !is_legacy_metric_name(name)) {
                let form = escaping.escape(name);
                let names = self.forms.entry(form.into_owned());
                if let Entry::Occupied(mut names) = names {
                    names.get_mut().retain(|(_, other)| other != name);
                    if names.get().is_empty() {
                        names.remove();
                    }
                }
            }
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
        let ids = self.suppressed.entry(name.clone()).or_default();
        if ids.is_empty() && !is_legacy_metric_name(&name) {
            for escaping in Escaping::CHANGING {
                let form = escaping.escape(&name).into_owned();
                self.suppressed_forms.entry(form).or_default().insert(name.clone());
            }
        }
        ids.insert(id, needed);
        self.suppressed_len += 1;
    }

    fn leave_suppressed(&mut self, name: &Arc<str>, id: &GroupId) -> Option<Option<usize>> {
        let ids = self.suppressed.get_mut(name)?;
        let needed = ids.remove(id)?;
        if ids.is_empty() {
            self.suppressed.remove(name);
            for escaping in Escaping::CHANGING.into_iter().filter(|_| !is_legacy_metric_name(name)) {
                let form = escaping.escape(name);
                let names = self.suppressed_forms.get_mut(&*form);
                if names.is_some_and(|names| names.remove(name) && names.is_empty()) {
                    self.suppressed_forms.remove(&*form);
                }
            }
        }
        if let Some(series) = needed {
            self.waiting.remove(&(series, id.clone(), name.clone()));
        }
        self.suppressed_len -= 1;
        Some(needed)
    }

    /// Enters a group that became live. Of the groups that have the same labels to a scraper, the first is shown.
    pub fn add_key(&mut self, scraped: &Arc<LabelSet>, id: &GroupId) {
        let group = LiveGroup { id: id.clone(), place: self.next_place };
        self.next_place += 1;
        self.enter_key(scraped, &group);
        self.journal.push(JournalStep::KeyAdded { key: scraped.clone(), id: id.clone() });
    }

    /// Removes a group that is no longer live. Returns the groups that may be shown now.
    pub fn remove_key(&mut self, scraped: &Arc<LabelSet>, id: &GroupId) -> Vec<GroupId> {
        let Some(group) = self.leave_key(scraped, id) else { return Vec::new() };
        let mut later: Vec<(u64, GroupId)> = self
            .same_keys(scraped)
            .filter(|other| other.place > group.place)
            .map(|other| (other.place, other.id.clone()))
            .collect();
        later.sort_unstable_by_key(|(place, _)| *place);
        later.dedup_by_key(|(place, _)| *place);
        self.journal.push(JournalStep::KeyRemoved { key: scraped.clone(), group });
        later.into_iter().map(|(_, id)| id).collect()
    }

    fn enter_key(&mut self, scraped: &Arc<LabelSet>, group: &LiveGroup) {
        let enter = |list: &mut Vec<LiveGroup>| {
            list.insert(list.partition_point(|other| other.place < group.place), group.clone());
        };
        enter(self.keys.entry(scraped.clone()).or_default());
        for form in escaped_forms(scraped).into_iter().flatten() {
            enter(self.escaped_keys.entry(form).or_default());
        }
    }

    fn leave_key(&mut self, scraped: &Arc<LabelSet>, id: &GroupId) -> Option<LiveGroup> {
        let groups = self.keys.get_mut(scraped)?;
        let at = groups.iter().position(|group| group.id == *id)?;
        let group = groups.remove(at);
        if groups.is_empty() {
            self.keys.remove(scraped);
        }
        for form in escaped_forms(scraped).into_iter().flatten() {
            let groups = self.escaped_keys.get_mut(&form).expect("a group that leaves was entered with its forms");
            groups.retain(|other| other.place != group.place);
            if groups.is_empty() {
                self.escaped_keys.remove(&form);
            }
        }
        Some(group)
    }

    /// The names whose suppressed families may become admissible when `name` is removed: the name itself, its samples,
    /// the histogram or summary of which it could be a sample, and the names that escape like one of these.
    pub fn related(&self, name: &Arc<str>) -> Vec<Arc<str>> {
        let mut related = related(name);
        if !is_legacy_metric_name(name) {
            related.extend(Escaping::CHANGING.iter().flat_map(|escaping| self::related(&escaping.escape(name))));
        }
        let escaped = related.iter().filter_map(|form| self.suppressed_forms.get(&**form)).flatten();
        let escaped: Vec<Arc<str>> = escaped.cloned().collect();
        related.extend(escaped);
        related
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
                JournalStep::Counted(pushed) => self.types.iter_mut().for_each(|types| types.remove(&pushed)),
                JournalStep::Uncounted(pushed) => self.types.iter_mut().for_each(|types| types.add(&pushed)),
                JournalStep::Added(entered) => self.leave(&entered),
                JournalStep::Removed(entered) => self.enter(&entered),
                JournalStep::Suppressed { name, id } => {
                    self.leave_suppressed(&name, &id);
                }
                JournalStep::Released { name, id, needed } => self.enter_suppressed(name, id, needed),
                JournalStep::KeyAdded { key, id } => drop(self.leave_key(&key, &id)),
                JournalStep::KeyRemoved { key, group } => self.enter_key(&key, &group),
            }
        }
    }
}

impl Entered {
    fn new(shown: &Arc<LabelSet>, family: &Family) -> Self {
        let schema = family.schema();
        Self {
            name: schema.name().clone(),
            metric_type: schema.metric_type(),
            key: drop_empty(shown),
            series: schema.series_len(),
            is_escapable: is_escapable(shown, schema),
        }
    }
}

/// The suffixes of a histogram's and summary's samples.
const SUFFIXES: [&str; 3] = ["_count", "_sum", "_bucket"];

/// Whether a metric of that type has samples with that suffix.
fn owns(metric_type: MetricType, suffix: &str) -> bool {
    use MetricType::{Histogram, Summary};
    metric_type == Histogram || (metric_type == Summary && suffix != "_bucket")
}

/// Whether an escaping changes names of labels.
fn is_escapable(shown: &LabelSet, schema: &Schema) -> bool {
    let mut own = schema.layouts().iter().flat_map(|layout| &layout.names);
    shown.iter().any(|label| !is_legacy_label_name(label.name)) || own.any(|name| !is_legacy_label_name(name))
}

/// The labels with each escaping that changes names; `None` if all names are legacy names, or if two of them become
/// one: such a group is never shown, and hides no other.
fn escaped_forms(labels: &LabelSet) -> Option<[(Escaping, Arc<LabelSet>); 3]> {
    let names = labels.iter().map(|label| label.name);
    if names.clone().all(is_legacy_label_name) || alike_labels(names).is_some() {
        return None;
    }
    let escaped = |escaping: Escaping| {
        let labels = labels.iter().map(|label| (escaping.escape_label(label.name), label.value));
        (escaping, Arc::new(LabelSet::new(labels)))
    };
    Some(Escaping::CHANGING.map(escaped))
}

fn same_names(signature: &Signature, key: &LabelSet) -> bool {
    signature.len() == key.len() && signature.iter().zip(key).all(|(name, label)| **name == *label.name)
}

/// The name, its samples, and the histogram or summary of which it could be a sample.
fn related(name: &str) -> Vec<Arc<str>> {
    let samples = SUFFIXES.iter().map(|suffix| format!("{name}{suffix}").into());
    let bases = SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)).map(Arc::from);
    std::iter::once(name.into()).chain(samples).chain(bases).collect()
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
