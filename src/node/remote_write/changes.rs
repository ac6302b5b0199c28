//! The families that changed between two snapshots, for `mode = "on-change"`.
//!
//! Snapshots share what no write has touched: chunks of families that are the same objects are passed over, so the cost
//! follows the changes.

use std::cmp::Ordering;
use std::sync::Arc;

use foldhash::HashSet;

use super::form::TickForm;
use super::names::{ShownSnapshot, TickFamilies, TickName, written_schema};
use super::shown::{FamilyIdentity, has_all};
use crate::store::ShownFamily;
use crate::store::selection::Picked;

/// The changes from one snapshot to the next.
#[derive(Default)]
pub(super) struct ShownChanges {
    /// The families that are new, or have other values, by name.
    pub names: Vec<TickName>,
    /// Families of which a series may be gone.
    pub gone: Vec<FamilyIdentity>,
}

impl ShownSnapshot {
    /// The changes from this snapshot to `now`.
    pub fn changes_to(&self, now: &Self, form: TickForm) -> ShownChanges {
        let mut changes = ShownChanges::default();
        let mut before = self.0.iter().peekable();
        for name in &now.0 {
            while let Some(vanished) = before.next_if(|other| other.name < name.name) {
                changes.compare(Some(vanished), None, form);
            }
            changes.compare(before.next_if(|other| other.name == name.name), Some(name), form);
        }
        before.for_each(|vanished| changes.compare(Some(vanished), None, form));
        changes
    }
}

impl ShownChanges {
    /// Compares the families of one name.
    fn compare(&mut self, before: Option<&TickName>, now: Option<&TickName>, form: TickForm) {
        if before.zip(now).is_some_and(|(before, now)| before.shares_all(now)) {
            return;
        }
        let old = differing(before, now);
        let new = differing(now, before);
        let mut changed = Vec::new();
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => cmp_labels(old, new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let of_old = old.next_if(|_| order.is_le());
            let of_new = new.next_if(|_| order.is_ge());
            if let (Some(old), Some(new)) = (of_old, of_new)
                && old.family.shares_all(&new.family)
            {
                continue;
            }
            changed.extend(of_new.cloned());
            let Some(old) = of_old else { continue };
            let schema = written_schema(&old.family, form);
            if !of_new.is_some_and(|new| has_all(&written_schema(&new.family, form), &schema)) {
                self.gone.push(FamilyIdentity { labels: old.labels.clone(), schema });
            }
        }
        if let Some(now) = now.filter(|_| !changed.is_empty()) {
            let pushed = TickFamilies::Picked([Picked::Families(changed)].into());
            self.names.push(TickName { name: now.name.clone(), own: None, pushed });
        }
    }
}

fn cmp_labels(a: &ShownFamily, b: &ShownFamily) -> Ordering {
    if Arc::ptr_eq(&a.labels, &b.labels) { Ordering::Equal } else { a.labels.cmp(&b.labels) }
}

/// The families of a name, sorted by their labels, without those in chunks that the other snapshot has too.
fn differing<'a>(name: Option<&'a TickName>, other: Option<&TickName>) -> Vec<&'a ShownFamily> {
    let shared: HashSet<*const ShownFamily> =
        other.into_iter().flat_map(TickName::pieces).map(<[ShownFamily]>::as_ptr).collect();
    let pieces = name.into_iter().flat_map(TickName::pieces).filter(|piece| !shared.contains(&piece.as_ptr()));
    let mut families: Vec<&ShownFamily> = pieces.flatten().collect();
    // Families that a selector shows though they are suppressed come after the others.
    if !families.is_sorted_by(|a, b| cmp_labels(a, b).is_le()) {
        families.sort_by(|a, b| cmp_labels(a, b));
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, FamilyBuilder, LabelSet, MetricType, Schema, ValueLayout};
    use crate::node::options::ProtobufMessage;

    const FORM: TickForm = TickForm { protobuf_message: ProtobufMessage::V1, has_natives: false };

    /// Families as a store has them: equal schemas are one object.
    #[derive(Default)]
    struct SharedSchemas(Vec<Arc<Schema>>);

    impl SharedSchemas {
        fn family(&mut self, name: &str, series: &str, value: f64) -> Family {
            let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
            builder.series(&[("a", series)], &ValueLayout::Single, &[value], None);
            let family = builder.finish().unwrap();
            let same = self.0.iter().find(|schema| schema.same(family.schema())).cloned();
            let schema = same.unwrap_or_else(|| family.schema().clone());
            self.0.push(schema.clone());
            family.with_schema(schema)
        }
    }

    /// Families given as name, group, series and value.
    fn snapshot(schemas: &mut SharedSchemas, families: &[(&str, &str, &str, f64)]) -> ShownSnapshot {
        let names = families.chunk_by(|a, b| a.0 == b.0).map(|of_name| {
            let shown = of_name.iter().map(|(name, job, series, value)| ShownFamily {
                labels: Arc::new(LabelSet::new([("job", job)])),
                family: schemas.family(name, series, *value),
            });
            let pushed = TickFamilies::Picked([Picked::Families(shown.collect())].into());
            TickName { name: of_name[0].0.into(), own: None, pushed }
        });
        ShownSnapshot(names.collect())
    }

    #[test]
    fn changes_are_new_values_and_series_that_are_gone() {
        let schemas = &mut SharedSchemas::default();
        let first = [("a", "1", "x", 1.0), ("a", "2", "x", 1.0), ("b", "1", "x", 1.0), ("c", "1", "x", 1.0)];
        let before = snapshot(schemas, &first);
        let list = |changes: &ShownChanges| {
            let changed = changes.names.iter().flat_map(|name| name.pieces().flatten());
            let changed = changed.map(|shown| format!("{}{}", shown.family.name(), shown.labels.get("job").unwrap()));
            let gone =
                changes.gone.iter().map(|gone| format!("-{}{}", gone.schema.name(), gone.labels.get("job").unwrap()));
            changed.chain(gone).collect::<Vec<_>>()
        };
        let now: &[(&str, &str, &str, f64)] = &[
            ("a", "1", "x", 1.0),
            ("a", "2", "x", 2.0),
            ("a", "3", "x", 1.0),
            ("aa", "1", "x", 1.0),
            ("c", "1", "y", 1.0),
        ];
        assert_eq!(list(&before.changes_to(&snapshot(schemas, now), FORM)), ["a2", "a3", "aa1", "c1", "-b1", "-c1"]);
        assert_eq!(list(&before.changes_to(&before, FORM)), Vec::<String>::new());
        assert_eq!(list(&before.changes_to(&ShownSnapshot::default(), FORM)), ["-a1", "-a2", "-b1", "-c1"]);
        assert_eq!(list(&ShownSnapshot::default().changes_to(&before, FORM)), ["a1", "a2", "b1", "c1"]);
    }
}
