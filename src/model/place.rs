//! The labels of a place joining a group: what a hub shows of what an edge sent.
//!
//! A hub keeps groups as they were sent, under the labels of their place beside their grouping key, so that they can be
//! given back. This module is the rule by which the two become one set of labels when shown: the place's labels are
//! true, and a pushed label that disagrees is kept under the prefix `exported_`, Prometheus's own convention for labels
//! that a scrape overrides; one that agrees is shown once.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::build::{DuplicateSeries, FamilyBuilder};
use super::family::Family;
use super::label::LabelSet;

/// Prefix of a pushed label that disagrees with a label of the place.
pub const EXPORTED_PREFIX: &str = "exported_";

/// A group's identity: where it was pushed and under which grouping key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId {
    /// The labels of the edge (`IDC`); empty for groups pushed at this very node.
    pub place: Arc<LabelSet>,
    /// The grouping key as pushed.
    pub key: Arc<LabelSet>,
}

impl GroupId {
    /// A group pushed at this very node.
    pub fn local(key: LabelSet) -> Self {
        Self { place: Arc::default(), key: Arc::new(key) }
    }

    /// Place and key as one set: what a scrape shows and what the hub's API addresses.
    pub fn shown(&self) -> Arc<LabelSet> {
        if self.place.is_empty() {
            return self.key.clone();
        }
        let kept = self.key.iter().filter(|label| self.place.get(&label.name) != Some(&*label.value));
        let renamed = kept.map(|label| {
            let taken = |name: &str| self.place.contains(name) || (*name != *label.name && self.key.contains(name));
            (exported(&label.name, taken), &*label.value)
        });
        let place = self.place.iter().map(|label| (Cow::Borrowed(&*label.name), &*label.value));
        Arc::new(LabelSet::new(renamed.chain(place)))
    }

    /// The group of this place that is shown under these labels: what [`GroupId::shown`] does, undone. `None` if no group
    /// of this place is shown so. Of a label that was kept as exported and one that was pushed under that very name, the
    /// first is taken for the likelier.
    pub fn within(place: &Arc<LabelSet>, shown: &LabelSet) -> Option<GroupId> {
        if !place.iter().all(|label| shown.get(&label.name) == Some(&*label.value)) {
            return None;
        }
        let id = |key: LabelSet| GroupId { place: place.clone(), key: Arc::new(key) };
        let pushed = || shown.iter().filter(|label| !place.contains(&label.name));
        let original = pushed().map(|label| match label.name.strip_prefix(EXPORTED_PREFIX) {
            Some(name) if place.contains(name) => (name, &*label.value),
            _ => (&*label.name, &*label.value),
        });
        let original = id(LabelSet::new(original));
        if *original.shown() == *shown {
            return Some(original);
        }
        Some(id(LabelSet::new(pushed().map(|label| (&*label.name, &*label.value)))))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

/// `name`, or the first of `exported_name`, `exported_exported_name`, … that is not taken.
fn exported(name: &str, taken: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let mut name = Cow::Borrowed(name);
    while taken(&name) {
        name = Cow::Owned(format!("{EXPORTED_PREFIX}{name}"));
    }
    name
}

/// The family as it is shown in a group whose labels are `shown`: `None` if that is how it is already (no series has a
/// label of the same name). An error if two of its series become one.
pub fn shown_family(shown: &LabelSet, family: &Family) -> Result<Option<Family>, DuplicateSeries> {
    let shape = family.shape();
    let clashes = shape.layouts().iter().any(|layout| layout.names.iter().any(|name| shown.contains(name)));
    if !clashes {
        return Ok(None);
    }
    let mut builder = FamilyBuilder::new(shape.name().clone(), shape.metric_type());
    builder.help(shape.help()).unit(shape.unit());
    for (i, series) in shape.series().enumerate() {
        let labels: Vec<(&str, Cow<str>)> = series.labels().collect();
        let kept =
            labels.iter().filter(|(name, value)| shown.get(name).is_none_or(|v| v != value && !value.is_empty()));
        let mut renamed: Vec<(Cow<str>, &str)> = kept
            .map(|(name, value)| {
                let taken = |new: &str| shown.contains(new) || (new != *name && labels.iter().any(|l| l.0 == new));
                (exported(name, taken), &**value)
            })
            .collect();
        renamed.sort();
        let borrowed: Vec<(&str, &str)> = renamed.iter().map(|(name, value)| (&**name, *value)).collect();
        let original = family.originals().map(|originals| &*originals[i]).filter(|original| !original.is_empty());
        builder.series(&borrowed, &series.layout().points, &family.values()[series.values()], original);
    }
    builder.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MetricType, Points};

    fn id(place: &[(&str, &str)], key: &[(&str, &str)]) -> GroupId {
        let set = |labels: &[(&str, &str)]| Arc::new(LabelSet::new(labels.iter().copied()));
        GroupId { place: set(place), key: set(key) }
    }

    #[test]
    fn the_place_joins_the_key() {
        let shown = |key: &[(&str, &str)]| id(&[("IDC", "SYQ")], key).shown().to_string();
        assert_eq!(shown(&[("job", "a")]), r#"{IDC="SYQ",job="a"}"#);
        assert_eq!(shown(&[("job", "a"), ("IDC", "SYQ")]), r#"{IDC="SYQ",job="a"}"#);
        assert_eq!(shown(&[("job", "a"), ("IDC", "BJ")]), r#"{IDC="SYQ",exported_IDC="BJ",job="a"}"#);
        let twice = shown(&[("IDC", "BJ"), ("exported_IDC", "X")]);
        assert_eq!(twice, r#"{IDC="SYQ",exported_IDC="X",exported_exported_IDC="BJ"}"#);
    }

    #[test]
    fn what_is_shown_names_the_group_of_the_place() {
        let place = id(&[("IDC", "SYQ")], &[]).place;
        let key = |shown: &[(&str, &str)]| {
            let shown = LabelSet::new(shown.iter().copied());
            let within = GroupId::within(&place, &shown)?;
            assert_eq!(*within.shown(), shown);
            Some(within.key.to_string())
        };
        assert_eq!(key(&[("IDC", "SYQ"), ("job", "a")]).as_deref(), Some(r#"{job="a"}"#));
        assert_eq!(key(&[("IDC", "BJ"), ("job", "a")]), None);
        assert_eq!(key(&[("job", "a")]), None);
        let disagreed = key(&[("IDC", "SYQ"), ("exported_IDC", "BJ"), ("job", "a")]);
        assert_eq!(disagreed.as_deref(), Some(r#"{IDC="BJ",job="a"}"#));
        let agreed = key(&[("IDC", "SYQ"), ("exported_IDC", "SYQ")]);
        assert_eq!(agreed.as_deref(), Some(r#"{exported_IDC="SYQ"}"#), "a label that agrees is not exported");
    }

    fn family(values: &[&[(&str, &str)]]) -> Family {
        let mut builder = FamilyBuilder::new("m", MetricType::Untyped);
        for (i, labels) in values.iter().enumerate() {
            builder.series(labels, &Points::Single, &[i as f64], None);
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_pushed_label_that_disagrees_is_kept_as_exported() {
        let shown = id(&[("IDC", "SYQ")], &[("job", "a")]).shown();
        assert_eq!(shown_family(&shown, &family(&[&[("x", "1")]])).unwrap(), None);
        let changed = shown_family(&shown, &family(&[&[("IDC", "BJ")], &[("IDC", "SYQ")]])).unwrap().unwrap();
        let labels: Vec<Vec<_>> = changed.shape().series().map(|s| s.labels().collect()).collect();
        assert_eq!(labels, [vec![], vec![("exported_IDC", "BJ".into())]]);
        assert_eq!(changed.values()[..], [1.0, 0.0]);
    }

    #[test]
    fn series_that_become_one_are_an_error() {
        let shown = id(&[("IDC", "SYQ")], &[("job", "a")]).shown();
        assert!(shown_family(&shown, &family(&[&[("IDC", "SYQ")], &[]])).is_err());
    }
}
