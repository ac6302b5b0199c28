//! Explains why a push is refused: for each family that conflicts, what shows the other family.

use super::conflict::{Conflict, PushConflicts};
use super::entry::GroupEntry;
use super::writer::Store;
use crate::model::{LabelSet, truncated};

/// The number of conflicts of a push that are explained.
const EXPLAINED_MAX: usize = 20;

/// The number of groups that are counted to explain a conflict.
const GROUPS_COUNTED_MAX: usize = 1_000;

impl Store {
    /// Adds a conflict of the push to that group.
    pub(super) fn add_conflict(&self, conflicts: &mut Option<PushConflicts>, entry: &GroupEntry, conflict: Conflict) {
        let has_room = conflicts.as_ref().is_none_or(|conflicts| conflicts.lines.len() < EXPLAINED_MAX);
        let line = has_room.then(|| self.explanation(entry, &conflict));
        let conflicts = conflicts.get_or_insert(PushConflicts { first: conflict, lines: Vec::new(), more: 0 });
        conflicts.more += usize::from(line.is_none());
        conflicts.lines.extend(line);
    }

    fn explanation(&self, entry: &GroupEntry, conflict: &Conflict) -> String {
        match conflict {
            Conflict::Type { name, pushed, used } => {
                let (place, remedy) = self.place(entry, name);
                let (pushed, used, line_name) = (pushed.name(), used.name(), truncated(name));
                format!(
                    "{:?} has type {pushed} in this push and {used} in {place}: push it as {used} (in text, the line \
                     `# TYPE {line_name} {used}` before its samples), or {remedy}",
                    truncated(name)
                )
            }
            Conflict::Suffix { name, used } => {
                let (place, remedy) = self.place(entry, used);
                let reason = "a histogram or summary owns its _count, _sum and _bucket";
                format!("{:?} collides with {:?} in {place}: {reason}; {remedy}", truncated(name), truncated(used))
            }
            Conflict::Duplicate { name, group: Some(group), .. } => {
                let group = self.group_text(group);
                format!("{:?}: {group} shows this series already: push it to one group only", truncated(name))
            }
            Conflict::Duplicate { name, .. } => {
                let labels = entry.shown().to_string();
                let text = "the group's labels replace the labels in which its samples differ";
                format!("{:?}: {text}: {}", truncated(name), truncated(&labels))
            }
            Conflict::Shadowed { by, .. } => {
                let (labels, site) = (by.shown().to_string(), by.site.to_string());
                let site =
                    if by.site.is_empty() { String::new() } else { format!(" of the site {}", truncated(&site)) };
                format!("the other group is {}{site}: push with another grouping key", truncated(&labels))
            }
            Conflict::OwnLabel { name, label } => {
                format!("{:?}: leave the label {label:?} out of the samples and of the grouping key", truncated(name))
            }
            Conflict::AlikeName { name, used, .. } => {
                let (place, remedy) = self.place(entry, used);
                format!("{:?} collides with {:?} in {place}: {remedy}", truncated(name), truncated(used))
            }
            Conflict::AlikeLabels { name, .. } => format!("{:?}: rename one of the labels", truncated(name)),
            Conflict::Histogram { name, .. } => format!("{:?}: mend the histogram, or leave it out", truncated(name)),
            Conflict::Limit { .. } => conflict.to_string(),
        }
    }

    /// The groups that show a metric of that name, besides the group of the push, and what to do against a conflict with
    /// them.
    fn place(&self, entry: &GroupEntry, name: &str) -> (String, &'static str) {
        if self.index.is_reserved(name) {
            return ("this gateway's own metrics".to_owned(), "rename it, or leave it out");
        }
        let remedy = "rename it, or remove the other one";
        let block = self.published.block(name);
        let shown = block.iter().flat_map(|block| block.entries()).map(|family| &family.labels);
        let mut others = shown.filter(|labels| **labels != *entry.shown());
        let Some(first) = others.next() else {
            return ("this push, or one at the same time".to_owned(), "rename it");
        };
        let first = self.group_text(first);
        let place = match others.take(GROUPS_COUNTED_MAX).count() {
            0 => first,
            1 => format!("{first} and 1 more group"),
            GROUPS_COUNTED_MAX => format!("{first} and at least {GROUPS_COUNTED_MAX} more groups"),
            more => format!("{first} and {more} more groups"),
        };
        (place, remedy)
    }

    /// A group by the labels that it is shown with, and its site.
    fn group_text(&self, labels: &LabelSet) -> String {
        let text = labels.to_string();
        let site = self.published.find(labels).map(|entry| entry.id().site.clone()).filter(|site| !site.is_empty());
        match site {
            Some(site) => format!("the group {} of the site {}", truncated(&text), truncated(&site.to_string())),
            None => format!("the group {}", truncated(&text)),
        }
    }
}
