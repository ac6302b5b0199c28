//! The families that were written, so that the next tick can end those that are gone.
//!
//! A family is remembered by its group's labels and its schema, which are shared with the store: 16 bytes a family.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::{LabelSet, Schema};

/// A family of a group, without its values.
#[derive(Clone, Debug)]
pub(super) struct FamilyIdentity {
    pub labels: Arc<LabelSet>,
    pub schema: Arc<Schema>,
}

/// All families that a tick shows: by name, and those of a name by their labels.
#[derive(Debug, Default)]
pub(super) struct ShownFamilies(Vec<(Arc<str>, Vec<FamilyIdentity>)>);

impl ShownFamilies {
    /// Adds the families of the next name.
    pub fn add(&mut self, name: Arc<str>, mut families: Vec<FamilyIdentity>) {
        let order = |a: &FamilyIdentity, b: &FamilyIdentity| match Arc::ptr_eq(&a.labels, &b.labels) {
            true => Ordering::Equal,
            false => a.labels.cmp(&b.labels),
        };
        if !families.is_sorted_by(|a, b| order(a, b).is_le()) {
            families.sort_by(order);
        }
        if !families.is_empty() {
            families.shrink_to_fit();
            self.0.push((name, families));
        }
    }

    /// The families here of which a series may be gone in `now`.
    pub fn gone_in(&self, now: &Self) -> Vec<FamilyIdentity> {
        let mut gone = Vec::new();
        let mut names = now.0.iter().peekable();
        for (name, before) in &self.0 {
            while names.next_if(|(other, _)| other < name).is_some() {}
            let after = names.peek().filter(|(other, _)| other == name).map_or(&[][..], |(_, families)| families);
            add_gone(before, after, &mut gone);
        }
        gone
    }
}

fn add_gone(before: &[FamilyIdentity], after: &[FamilyIdentity], gone: &mut Vec<FamilyIdentity>) {
    let mut at = 0;
    for family in before {
        let is_same_group = |other: &FamilyIdentity| Arc::ptr_eq(&other.labels, &family.labels);
        while after.get(at).is_some_and(|other| !is_same_group(other) && other.labels < family.labels) {
            at += 1;
        }
        // The node's own family and a pushed one may have the same labels.
        let equals = after[at..].iter().take_while(|other| is_same_group(other) || other.labels == family.labels);
        if !equals.into_iter().any(|other| has_all(&other.schema, &family.schema)) {
            gone.push(family.clone());
        }
    }
}

/// Whether certainly all samples of `before` are samples of `after`.
pub(super) fn has_all(after: &Arc<Schema>, before: &Arc<Schema>) -> bool {
    if Arc::ptr_eq(after, before) || after.same(before) {
        return true;
    }
    let ([new], [old]) = (after.layouts(), before.layouts()) else { return false };
    let is_alike = after.metric_type() == before.metric_type() && new.values == old.values && new.names == old.names;
    is_alike
        && before.series().all(|series| {
            let labels: Vec<_> = series.labels().collect();
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
            after.contains(&labels)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FamilyBuilder, MetricType, Num, ValueLayout};

    fn schema(name: &str, series: &[&str], layout: &ValueLayout) -> Arc<Schema> {
        let metric_type = if layout.len() == 1 { MetricType::Gauge } else { MetricType::Histogram };
        let mut builder = FamilyBuilder::new(name, metric_type);
        for value in series {
            builder.series(&[("a", value)], layout, &vec![0.0; layout.len()], None);
        }
        builder.finish().unwrap().schema().clone()
    }

    /// Families given as name, group and series.
    fn shown(families: &[(&str, &str, &[&str])]) -> ShownFamilies {
        let mut shown = ShownFamilies::default();
        for group in families.chunk_by(|a, b| a.0 == b.0) {
            let of = |(name, job, series): &(&str, &str, &[&str])| FamilyIdentity {
                labels: Arc::new(LabelSet::new([("job", job)])),
                schema: schema(name, series, &ValueLayout::Single),
            };
            shown.add(group[0].0.into(), group.iter().map(of).collect());
        }
        shown
    }

    #[test]
    fn families_that_lack_a_series_are_gone() {
        let before = shown(&[
            ("a", "1", &["x"]),
            ("a", "2", &["x", "y"]),
            ("b", "1", &["x"]),
            ("c", "1", &["x"]),
            ("c", "2", &["x"]),
        ]);
        let gone = |now: &[(&str, &str, &[&str])]| {
            let gone = before.gone_in(&shown(now)).into_iter();
            gone.map(|family| format!("{}{}", family.schema.name(), family.labels.get("job").unwrap()))
                .collect::<Vec<_>>()
        };
        let all: &[(&str, &str, &[&str])] =
            &[("a", "1", &["x"]), ("a", "2", &["x", "y"]), ("b", "1", &["x"]), ("c", "1", &["x"]), ("c", "2", &["x"])];
        assert_eq!(gone(all), Vec::<String>::new());
        assert_eq!(gone(&[]), ["a1", "a2", "b1", "c1", "c2"]);
        let fewer: &[(&str, &str, &[&str])] = &[
            ("a", "0", &["x"]),
            ("a", "2", &["y", "z"]),
            ("aa", "1", &["x"]),
            ("c", "1", &["w", "x"]),
            ("c", "2", &["x"]),
        ];
        assert_eq!(gone(fewer), ["a1", "a2", "b1"]);
    }

    #[test]
    fn other_buckets_are_other_samples() {
        let layout = |bound| ValueLayout::Histogram {
            bounds: [Num(bound)].into(),
            has_sum: true,
            has_count: true,
            float: false,
        };
        let [one, two] = [1.0, 2.0].map(|bound| schema("h", &["x"], &layout(bound)));
        assert!(has_all(&one, &schema("h", &["x"], &layout(1.0))) && !has_all(&two, &one));
    }
}
