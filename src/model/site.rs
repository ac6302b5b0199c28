//! Site labels join the labels of a group: the labels under which a hub shows a group of an edge.
//!
//! A hub stores a group as it was sent, with the site labels beside its grouping key, so that it can be sent back. This
//! module is the rule by which the two become one set of labels when shown. Site labels win; a pushed label with the
//! same name and another value is renamed with the prefix `exported_`, as Prometheus renames labels that a scrape
//! overrides; a pushed label with the same value is shown once. No two labels get the same name.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::build::FamilyBuilder;
use super::family::Family;
use super::label::{Label, LabelSet};
use super::schema::DuplicateSeries;

/// Prefix of a pushed label whose value differs from that of the site label of the same name.
pub const EXPORTED_PREFIX: &str = "exported_";

/// A group's identity: the site where it was pushed, and its grouping key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId {
    /// The site labels; empty for groups pushed at this node.
    pub site: Arc<LabelSet>,
    /// The grouping key as pushed.
    pub key: Arc<LabelSet>,
}

impl GroupId {
    /// A group pushed at this node.
    pub fn local(key: LabelSet) -> Self {
        Self { site: Arc::default(), key: Arc::new(key) }
    }

    /// Site labels and grouping key as one set: the labels that a scrape shows and that the hub's API addresses.
    pub fn shown(&self) -> Arc<LabelSet> {
        if self.site.is_empty() {
            return self.key.clone();
        }
        let clashes = |label: &Label<'_>| self.site.contains(label.name);
        let disagrees = |label: &Label<'_>| self.site.get(label.name) != Some(label.value);
        let clashing = self.key.iter().filter(clashes).filter(disagrees).map(|label| (label.name, label.value));
        let renamed = add_prefixes(clashing, |name| self.site.contains(name) || self.key.contains(name));
        let renamed = renamed.into_iter().map(|(name, value)| (Cow::Owned(name), value));
        let kept = self.key.iter().filter(|label| !clashes(label)).chain(self.site.iter());
        Arc::new(LabelSet::new(renamed.chain(kept.map(|label| (Cow::Borrowed(label.name), label.value)))))
    }

    /// The group of this site that is shown under these labels: the inverse of [`GroupId::shown`]. `None` if no group
    /// of this site is shown so. A label with the prefix may have been renamed or pushed under that name: it is taken
    /// as renamed, which is more likely. If several labels may be the renamed one, the one with the most prefixes is
    /// taken, as each hub of a tree adds one.
    pub fn from_shown(site: &Arc<LabelSet>, shown: &LabelSet) -> Option<GroupId> {
        if !site.iter().all(|label| shown.get(label.name) == Some(label.value)) {
            return None;
        }
        let id = |key: LabelSet| GroupId { site: site.clone(), key: Arc::new(key) };
        let pushed = shown.iter().filter(|label| !site.contains(label.name));
        let pushed: BTreeMap<&str, &str> = pushed.map(|label| (label.name, label.value)).collect();
        let original = id(LabelSet::new(remove_prefixes(site, pushed.clone())));
        if *original.shown() == *shown {
            return Some(original);
        }
        Some(id(LabelSet::new(pushed)))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

/// Renames labels: each gets the first of `exported_NAME`, `exported_exported_NAME`, … that is not taken, also not by
/// another of them. Shorter names come first, and names of equal length in their order, as in Prometheus
/// (`resolveConflictingExposedLabels` in `scrape/scrape.go`).
fn add_prefixes<'a, V>(
    labels: impl Iterator<Item = (&'a str, V)>,
    taken: impl Fn(&str) -> bool,
) -> BTreeMap<String, V> {
    let mut labels: Vec<(&str, V)> = labels.collect();
    labels.sort_by_key(|(name, _)| (name.len(), *name));
    let mut renamed = BTreeMap::new();
    for (name, value) in labels {
        let mut name = format!("{EXPORTED_PREFIX}{name}");
        while taken(&name) || renamed.contains_key(&name) {
            name.insert_str(0, EXPORTED_PREFIX);
        }
        renamed.insert(name, value);
    }
    renamed
}

/// Restores pushed names: the inverse of [`add_prefixes`], from the last label to the first. `pushed` are the labels
/// shown besides those of the site. A renamed label had all shorter names taken, so it is the last of a sequence
/// without gaps.
fn remove_prefixes<'a>(site: &'a LabelSet, mut pushed: BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, &'a str> {
    let mut names: Vec<Label<'_>> = site.iter().collect();
    names.sort_by_key(|label| Reverse((label.name.len(), label.name)));
    let mut originals = BTreeMap::new();
    for label in names {
        let mut name = format!("{EXPORTED_PREFIX}{}", label.name);
        let mut last = None;
        loop {
            match pushed.get_key_value(&*name) {
                Some((name, value)) => last = Some((*name, *value)),
                None if site.contains(&name) => {}
                None => break,
            }
            name.insert_str(0, EXPORTED_PREFIX);
        }
        // A label that agrees is not renamed.
        if let Some((name, value)) = last.filter(|(_, value)| *value != label.value) {
            pushed.remove(name);
            originals.insert(label.name, value);
        }
    }
    pushed.extend(originals);
    pushed
}

/// The family as shown in a group with the labels `shown`; `None` if it is shown as pushed, because no series has a
/// label of the same name.
///
/// # Errors
/// Two of its series get the same labels.
pub fn shown_family(shown: &LabelSet, family: &Family) -> Result<Option<Family>, DuplicateSeries> {
    let schema = family.schema();
    let clashes = schema.layouts().iter().any(|layout| layout.names.iter().any(|name| shown.contains(name)));
    if !clashes {
        return Ok(None);
    }
    let mut builder = FamilyBuilder::new(schema.name().clone(), schema.metric_type());
    builder.help(schema.help()).unit(schema.unit());
    for (i, series) in schema.series().enumerate() {
        let labels: Vec<(&str, Cow<str>)> = series.labels().collect();
        let clashing = labels.iter().filter(|(name, value)| shown.get(name).is_some_and(|v| v != value));
        let clashing = clashing.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, &**value));
        // Sorted by name, as all labels of a series.
        let own = |new: &str| labels.binary_search_by(|(name, _)| (*name).cmp(new)).is_ok();
        let renamed = add_prefixes(clashing, |new| shown.contains(new) || own(new));
        let kept = labels.iter().filter(|(name, _)| !shown.contains(name)).map(|(name, value)| (*name, &**value));
        let mut borrowed: Vec<(&str, &str)> =
            renamed.iter().map(|(name, value)| (&**name, *value)).chain(kept).collect();
        borrowed.sort_unstable();
        let raw_metric =
            family.raw_metrics().map(|raw_metrics| &*raw_metrics[i]).filter(|raw_metric| !raw_metric.is_empty());
        builder.series(&borrowed, &series.layout().values, &family.values()[series.values()], raw_metric);
    }
    builder.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{MetricType, ValueLayout};

    fn id(site: &[(&str, &str)], key: &[(&str, &str)]) -> GroupId {
        let set = |labels: &[(&str, &str)]| Arc::new(LabelSet::new(labels.iter().copied()));
        GroupId { site: set(site), key: set(key) }
    }

    #[test]
    fn site_labels_join_the_key() {
        let shown = |key: &[(&str, &str)]| id(&[("IDC", "SYQ")], key).shown().to_string();
        assert_eq!(shown(&[("job", "a")]), r#"{IDC="SYQ",job="a"}"#);
        assert_eq!(shown(&[("job", "a"), ("IDC", "SYQ")]), r#"{IDC="SYQ",job="a"}"#);
        assert_eq!(shown(&[("job", "a"), ("IDC", "BJ")]), r#"{IDC="SYQ",exported_IDC="BJ",job="a"}"#);
        let twice = shown(&[("IDC", "BJ"), ("exported_IDC", "X")]);
        assert_eq!(twice, r#"{IDC="SYQ",exported_IDC="X",exported_exported_IDC="BJ"}"#);
        let both = id(&[("x", "1"), ("exported_x", "2")], &[("x", "3"), ("exported_x", "4")]);
        let expected = r#"{exported_exported_exported_x="4",exported_exported_x="3",exported_x="2",x="1"}"#;
        assert_eq!(both.shown().to_string(), expected, "the shorter name is renamed first");
        assert_eq!(GroupId::from_shown(&both.site, &both.shown()), Some(both));
    }

    #[test]
    fn labels_shown_by_a_tree_of_hubs_are_resolved_level_by_level() {
        let edge = id(&[("IDC", "SYQ")], &[("IDC", "BJ"), ("job", "a")]);
        let hub = GroupId { site: id(&[("IDC", "EU")], &[]).site, key: edge.shown() };
        let shown = r#"{IDC="EU",exported_IDC="BJ",exported_exported_IDC="SYQ",job="a"}"#;
        assert_eq!(hub.shown().to_string(), shown);
        assert_eq!(GroupId::from_shown(&hub.site, &hub.shown()), Some(hub.clone()));
        assert_eq!(GroupId::from_shown(&edge.site, &hub.key), Some(edge));
    }

    #[test]
    fn shown_labels_identify_the_group_of_the_site() {
        let site = id(&[("IDC", "SYQ")], &[]).site;
        let key = |shown: &[(&str, &str)]| {
            let shown = LabelSet::new(shown.iter().copied());
            let from_shown = GroupId::from_shown(&site, &shown)?;
            assert_eq!(*from_shown.shown(), shown);
            Some(from_shown.key.to_string())
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
            builder.series(labels, &ValueLayout::Single, &[i as f64], None);
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_pushed_label_that_disagrees_is_kept_as_exported() {
        let shown = id(&[("IDC", "SYQ")], &[("job", "a")]).shown();
        assert_eq!(shown_family(&shown, &family(&[&[("x", "1")]])).unwrap(), None);
        let changed = shown_family(&shown, &family(&[&[("IDC", "BJ")], &[("IDC", "SYQ")]])).unwrap().unwrap();
        let labels: Vec<Vec<_>> = changed.schema().series().map(|s| s.labels().collect()).collect();
        assert_eq!(labels, [vec![], vec![("exported_IDC", "BJ".into())]]);
        assert_eq!(changed.values()[..], [1.0, 0.0]);
    }

    #[test]
    fn no_two_labels_of_a_series_get_one_name() {
        let shown = id(&[("IDC", "EU")], &[("IDC", "SYQ"), ("job", "a")]).shown();
        let changed = shown_family(&shown, &family(&[&[("IDC", "BJ"), ("exported_IDC", "X")]])).unwrap().unwrap();
        let labels: Vec<Vec<_>> = changed.schema().series().map(|s| s.labels().collect()).collect();
        let expected = [("exported_exported_IDC", "BJ".into()), ("exported_exported_exported_IDC", "X".into())];
        assert_eq!(labels, [sorted(expected)]);
    }

    fn sorted<const N: usize>(
        mut labels: [(&'static str, Cow<'static, str>); N],
    ) -> Vec<(&'static str, Cow<'static, str>)> {
        labels.sort();
        labels.into()
    }

    /// Labels with few values and few names, many of them with prefixes.
    fn labels() -> impl Strategy<Value = Vec<(String, &'static str)>> {
        let name = (0..4usize, prop::sample::select(vec!["x", "y"]));
        let name = name.prop_map(|(prefixes, name)| format!("{}{name}", EXPORTED_PREFIX.repeat(prefixes)));
        prop::collection::btree_map(name, prop::sample::select(vec!["1", "2", "3"]), 0..6)
            .prop_map(|labels| labels.into_iter().collect())
    }

    /// Checks that `joined` is `site` joined by `own`: every label that does not agree is there, under its own name or
    /// with prefixes.
    fn is_joined(site: &LabelSet, own: &[(String, &str)], joined: &LabelSet) -> Result<(), TestCaseError> {
        for label in site {
            prop_assert_eq!(joined.get(label.name), Some(label.value));
        }
        let stays = |(name, value): &&(String, &str)| site.get(name) != Some(value);
        prop_assert_eq!(joined.len(), site.len() + own.iter().filter(stays).count());
        for (name, value) in own.iter().filter(stays).filter(|(name, _)| !site.contains(name)) {
            prop_assert_eq!(joined.get(name), Some(*value), "what does not clash keeps its name");
        }
        let mut expected: Vec<&str> = own.iter().filter(stays).map(|(_, value)| *value).collect();
        let rest = joined.iter().filter(|label| !site.contains(label.name));
        let mut values: Vec<&str> = rest.map(|label| label.value).collect();
        expected.sort_unstable();
        values.sort_unstable();
        prop_assert_eq!(values, expected);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_label_is_lost(site in labels(), own in labels()) {
            let site = Arc::new(LabelSet::new(site));
            let id = GroupId { site: site.clone(), key: Arc::new(LabelSet::new(own.clone())) };
            is_joined(&site, &own, &id.shown())?;
            prop_assert_eq!(id.shown(), id.shown());
            // Several groups may be shown under these labels; the one found is one of them.
            let from_shown = GroupId::from_shown(&site, &id.shown()).unwrap();
            prop_assert_eq!(from_shown.site.clone(), site.clone());
            prop_assert_eq!(from_shown.shown(), id.shown());
            // The labels of a series join those of its group by the same rule.
            let borrowed: Vec<(&str, &str)> = own.iter().map(|(name, value)| (&**name, *value)).collect();
            let pushed = family(&[&borrowed]);
            let changed = shown_family(&site, &pushed).unwrap();
            let shown = changed.as_ref().unwrap_or(&pushed);
            let series = shown.schema().series().next().unwrap();
            let names: Vec<_> = series.labels().map(|(name, _)| name).collect();
            prop_assert!(names.is_sorted_by(|a, b| a < b) && names.iter().all(|name| !site.contains(name)));
            let group = site.iter().map(|label| (label.name.to_owned(), label.value.to_owned()));
            let joined = series.labels().map(|(name, value)| (name.to_owned(), value.into_owned())).chain(group);
            prop_assert_eq!(&LabelSet::new(joined), &*id.shown());
            prop_assert_eq!(shown_family(&site, shown).unwrap(), None, "what is shown is shown so");
        }
    }

    #[test]
    fn series_that_become_one_are_an_error() {
        let shown = id(&[("IDC", "SYQ")], &[("job", "a")]).shown();
        assert!(shown_family(&shown, &family(&[&[("IDC", "SYQ")], &[]])).is_err());
    }
}
