//! The verdicts of a hub on what was pushed here: families that it does not show, because they conflict there.
//!
//! A hub reports a family with the acknowledgement of each push of it. So the next push of a known conflict shows whether
//! it lasts: if the hub acknowledges the push without a report, the conflict is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::LabelSet;
use crate::wire::ConflictReport;

/// Conflicts that are known at once, at most. Pushes into others are answered as if there were none.
const CONFLICTS_MAX: usize = 10_000;

/// A family of a group.
type FamilyKey = (Arc<LabelSet>, Arc<str>);

/// The conflicts that a hub reported.
#[derive(Debug, Default)]
pub struct Verdicts(Mutex<HashMap<FamilyKey, LastReport>>);

#[derive(Clone, Debug)]
struct LastReport {
    text: Arc<str>,
    /// The number of reports.
    count: u64,
}

/// A conflict that was known when a push of its family arrived.
#[derive(Clone, Debug)]
pub struct KnownConflict {
    key: FamilyKey,
    count: u64,
    /// The reason, as the hub reported it.
    pub text: Arc<str>,
}

impl Verdicts {
    fn lock(&self) -> MutexGuard<'_, HashMap<FamilyKey, LastReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records reports of the hub.
    pub fn record(&self, reports: &[ConflictReport]) {
        let mut known = self.lock();
        for ConflictReport { key, family, text, .. } in reports {
            let key = (key.clone(), family.clone());
            if known.len() >= CONFLICTS_MAX && !known.contains_key(&key) {
                continue;
            }
            let reported = known.entry(key).or_insert_with(|| LastReport { text: text.clone(), count: 0 });
            reported.count += 1;
            reported.text.clone_from(text);
        }
    }

    /// The first known conflict of one of the families that a push to a group has.
    pub fn known<'a>(
        &self,
        group: &Arc<LabelSet>,
        families: impl Iterator<Item = &'a Arc<str>>,
    ) -> Option<KnownConflict> {
        let known = self.lock();
        if known.is_empty() {
            return None;
        }
        families.into_iter().find_map(|family| {
            let key = (group.clone(), family.clone());
            let LastReport { text, count } = known.get(&key)?.clone();
            Some(KnownConflict { key, count, text })
        })
    }

    /// The reason of the conflict if it lasts, once the hub has acknowledged the push. Otherwise it is forgotten.
    pub fn lasting(&self, conflict: &KnownConflict) -> Option<Arc<str>> {
        let mut known = self.lock();
        let reported = known.get(&conflict.key)?;
        if reported.count > conflict.count {
            return Some(reported.text.clone());
        }
        known.remove(&conflict.key);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WriteTimestamp;

    fn report(group: &Arc<LabelSet>, family: &str, text: &str) -> ConflictReport {
        let (key, family, text, stamp) = (group.clone(), family.into(), text.into(), WriteTimestamp::default());
        ConflictReport { key, family, stamp, text }
    }

    #[test]
    fn a_conflict_lasts_for_as_long_as_each_push_is_reported() {
        let (verdicts, group) = (Verdicts::default(), Arc::new(LabelSet::new([("job", "a")])));
        let families: [Arc<str>; 2] = ["up".into(), "x".into()];
        let known = || verdicts.known(&group, families.iter());
        assert!(known().is_none());
        verdicts.record(&[report(&group, "x", "its type"), report(&group, "other", "no")]);
        let first = known().unwrap();
        assert_eq!(&*first.text, "its type");
        verdicts.record(&[report(&group, "x", "its type still")]);
        assert_eq!(verdicts.lasting(&first).as_deref(), Some("its type still"));
        let second = known().unwrap();
        assert_eq!(verdicts.lasting(&second), None, "acknowledged without a report");
        assert!(known().is_none() && verdicts.lasting(&second).is_none());
    }

    #[test]
    fn the_number_of_conflicts_is_bounded() {
        let verdicts = Verdicts::default();
        for number in 0..=CONFLICTS_MAX {
            let group = Arc::new(LabelSet::new([("job", number.to_string().as_str())]));
            verdicts.record(&[report(&group, "x", "")]);
        }
        assert_eq!(verdicts.lock().len(), CONFLICTS_MAX);
    }
}
