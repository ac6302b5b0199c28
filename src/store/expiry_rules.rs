//! Which groups expire, and when: see `expiry` for the law.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::GroupEntry;
use super::unconfirmed::CLOCK_NS_MIN;
use crate::model::{Group, LabelSet, Lifetime, PushTime, WriteTimestamp};
use crate::selector::Selector;

/// Rules of a node, at most.
pub const EXPIRY_RULES_MAX: usize = 256;
pub(super) const MS_NS: u64 = 1_000_000;

/// How long the groups live that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryRule {
    /// The groups, by the labels under which they are shown.
    pub selector: Selector,
    /// Their lifetime after the newest accepted push.
    pub lifetime: Lifetime,
}

/// The rules of a node, in order: the first that matches a group decides. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryRules(Arc<[ExpiryRule]>);

impl Default for ExpiryRules {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl ExpiryRules {
    /// These rules.
    pub fn new(rules: Vec<ExpiryRule>) -> Self {
        Self(rules.into())
    }

    /// The rules, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, ExpiryRule> {
        self.0.iter()
    }

    /// The shortest lifetime of a rule, in milliseconds; `None` if no rule lets a group expire.
    pub(super) fn shortest_ms(&self) -> Option<u64> {
        self.0.iter().filter_map(|rule| rule.lifetime.ms()).min()
    }

    /// The lifetime of a group in milliseconds; `None` if it never expires.
    pub(super) fn lifetime_ms(&self, group: &Group, shown: &LabelSet) -> Option<u64> {
        let rule = || self.0.iter().find(|rule| rule.selector.matches(|name| shown.get(name)));
        group.lifetime().or_else(|| Some(rule()?.lifetime))?.ms()
    }

    /// The earliest time at which a group can expire, whatever its labels.
    pub(super) fn earliest_ns(&self, group: &Group) -> Option<u64> {
        let ms = group.lifetime().map_or(self.shortest_ms(), Lifetime::ms)?;
        Some(last_push(group)?.time_ns.saturating_add(ms.saturating_mul(MS_NS)))
    }

    /// When a group expires, in nanoseconds since the Unix epoch by the corrected clock; `None` if never.
    pub fn expires_at_ns(&self, entry: &GroupEntry) -> Option<u64> {
        let pushed_ns = last_push(&entry.group)?.time_ns;
        Some(pushed_ns.saturating_add(self.lifetime_ms(&entry.group, entry.shown())?.saturating_mul(MS_NS)))
    }

    /// Whether a change that arrives may be of a group that is due.
    pub fn may_be_due(&self, change: &Group, now_ns: u64) -> bool {
        change.is_live() && self.earliest_ns(change).is_some_and(|at_ns| at_ns <= now_ns)
    }
}

/// The timestamp from which a group's lifetime counts; `None` if it does not count.
fn last_push(group: &Group) -> Option<WriteTimestamp> {
    if !group.is_live() {
        return None;
    }
    let is_right = |time: &PushTime| time.stamp.time_ns >= CLOCK_NS_MIN && time.wall_ns >= CLOCK_NS_MIN;
    Some(group.pushed().or(group.failed()).filter(is_right)?.stamp)
}

/// The rules in force. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedRules(Arc<Mutex<ExpiryRules>>);

impl SharedRules {
    pub(super) fn lock(&self) -> MutexGuard<'_, ExpiryRules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Facts about the groups that were published since the last walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpiryWatch {
    /// The time of the oldest push among these groups.
    pub(super) oldest_ns: u64,
    /// The shortest lifetime that a push has ever asked for, in milliseconds.
    pub(super) shortest_ms: u64,
}

impl Default for ExpiryWatch {
    fn default() -> Self {
        Self { oldest_ns: u64::MAX, shortest_ms: u64::MAX }
    }
}

impl ExpiryWatch {
    pub(super) fn note(&mut self, group: &Group) {
        let Some(stamp) = last_push(group) else { return };
        self.oldest_ns = self.oldest_ns.min(stamp.time_ns);
        self.shortest_ms =
            group.lifetime().and_then(Lifetime::ms).map_or(self.shortest_ms, |ms| ms.min(self.shortest_ms));
    }
}
