//! Expiry: rules and pushes say how long a group lives after its newest accepted push.
//!
//! # Law
//!
//! An expiry is a delete. Its write timestamp is the next value after the newest write that the group has here, whenever
//! it is found. So all nodes make the same tombstone of the same group, an edge that comes back with an old push revives
//! nothing, and every newer push wins, wherever and whenever it arrives.
//!
//! - The time that counts is the write timestamp of the newest accepted push, by the node's corrected clock. A refused
//!   push does not count, unless none was ever accepted.
//! - The lifetime that the newest accepted push asked for goes before the rules. Of the rules, the first that matches
//!   decides.
//! - Writes of a clock that cannot be right do not expire. Writes whose timestamps are not confirmed yet expire by the
//!   monotonic clock.
//!
//! `expiry_rules` says when a group is due. [`ExpiryWalk`] finds the groups that are due, some at a time; [`Store::expire`] examines each again and deletes it.

use std::sync::Arc;

use super::conflict::ConflictPolicy;
use super::entry::GroupEntry;
use super::expiry_rules::{ExpiryRules, MS_NS};
use super::view::Published;
use super::writer::{Store, WriteTime};
use crate::model::{Group, GroupId, LabelSet, Revision};

/// Groups that one step of a walk examines, at most. The published state is locked while they are collected.
const STEP_GROUPS_MAX: usize = 4_096;

impl Published {
    /// The rules in force.
    pub fn expiry_rules(&self) -> ExpiryRules {
        self.shared_rules().lock().clone()
    }

    /// Replaces the rules.
    pub fn set_expiry_rules(&self, rules: ExpiryRules) {
        *self.shared_rules().lock() = rules;
    }

    /// The earliest time at which a group may be due; `u64::MAX` if none can be. `walked_ns` is
    /// [`ExpiryWalk::next_due_ns`] of the last walk with the same rules, or 0.
    pub fn expiry_due_ns(&self, walked_ns: u64) -> u64 {
        let of_rules = self.expiry_rules().shortest_ms().unwrap_or(u64::MAX);
        let watch = self.lock().expiry;
        match of_rules.min(watch.shortest_ms) {
            u64::MAX => u64::MAX,
            ms => walked_ns.min(watch.oldest_ns.saturating_add(ms.saturating_mul(MS_NS))),
        }
    }
}

/// A walk over all groups, in search of those that are due.
#[derive(Debug)]
pub struct ExpiryWalk {
    rules: ExpiryRules,
    now_ns: u64,
    /// The sites that are left, the present one last.
    sites: Vec<Arc<LabelSet>>,
    /// The groups of the present site are examined up to this revision.
    upto: Revision,
    next_due_ns: u64,
}

impl ExpiryWalk {
    /// Begins a walk at `now_ns` by the corrected clock.
    pub fn begin(published: &Published, now_ns: u64) -> Self {
        let rules = published.expiry_rules();
        let mut view = published.lock();
        view.expiry.oldest_ns = u64::MAX;
        let sites = view.changed.sites().cloned().collect();
        Self { rules, now_ns, sites, upto: Revision(0), next_due_ns: u64::MAX }
    }

    /// The groups that are due among the next ones; `None` at the end.
    pub fn step(&mut self, published: &Published) -> Option<Vec<GroupId>> {
        let site = self.sites.last()?;
        let entries = published.lock().changed.after(site, self.upto, STEP_GROUPS_MAX);
        match entries.last() {
            Some((revision, _)) => self.upto = *revision,
            None => (_, self.upto) = (self.sites.pop(), Revision(0)),
        }
        let mut due = Vec::new();
        for (revision, entry) in entries {
            // A group is listed once for each of its revisions.
            if revision != entry.header.revision {
                continue;
            }
            let Some(mut at_ns) = self.rules.earliest_ns(&entry.group) else { continue };
            if at_ns <= self.now_ns {
                let Some(exactly_ns) = self.rules.expires_at_ns(&entry) else { continue };
                at_ns = exactly_ns;
            }
            if at_ns <= self.now_ns {
                due.push(entry.id().clone());
            }
            self.next_due_ns = self.next_due_ns.min(at_ns);
        }
        Some(due)
    }

    /// The earliest time at which a group that was examined may be due.
    pub fn next_due_ns(&self) -> u64 {
        self.next_due_ns
    }
}

/// The time that groups have left, for people.
#[derive(Clone, Debug)]
pub struct ExpiryView {
    rules: ExpiryRules,
    now_ns: u64,
    is_used: bool,
}

impl ExpiryView {
    /// The rules in force, and the corrected clock.
    pub fn new(published: &Published, now_ns: u64) -> Self {
        let is_used = published.expiry_due_ns(0) != u64::MAX;
        Self { rules: published.expiry_rules(), now_ns, is_used }
    }

    /// Whether any group may ever expire.
    pub fn is_used(&self) -> bool {
        self.is_used
    }

    /// When a group expires, in nanoseconds since the Unix epoch; `None` if never.
    pub fn expires_at_ns(&self, entry: &GroupEntry) -> Option<u64> {
        self.rules.expires_at_ns(entry)
    }

    /// The time that a group has left, in nanoseconds: 0 if it is due.
    pub fn left_ns(&self, entry: &GroupEntry) -> Option<u64> {
        Some(self.expires_at_ns(entry)?.saturating_sub(self.now_ns))
    }
}

impl Store {
    /// The rules in force.
    pub fn expiry_rules(&self) -> ExpiryRules {
        self.published.expiry_rules()
    }

    /// Deletes a group if it is due. Returns whether it was.
    pub fn expire(&mut self, id: &GroupId, now: WriteTime) -> bool {
        let Some(entry) = self.staged.get_to_set(id) else { return false };
        let rules = self.published.expiry_rules();
        let is_due = rules.expires_at_ns(&entry).is_some_and(|at_ns| at_ns <= now.stamp_ns);
        if !is_due || !self.has_lived(&rules, &entry, now) {
            return false;
        }
        let Some(stamp) = entry.group.latest().next() else { return false };
        let change = Group::expire(stamp, now.stamp_ns);
        self.apply(&entry, change, None, ConflictPolicy::SuppressAll).expect("a delete has nothing to refuse");
        true
    }

    /// Whether a group has had its lifetime by the monotonic clock, if its timestamps are not confirmed: a clock that is
    /// set meanwhile makes no group old.
    fn has_lived(&self, rules: &ExpiryRules, entry: &GroupEntry, now: WriteTime) -> bool {
        if self.unconfirmed.is_doubted() {
            return false;
        }
        let Some(accepted_ns) = self.unconfirmed.accepted_ns(entry.id()) else { return true };
        let lifetime_ns =
            rules.lifetime_ms(&entry.group, entry.shown()).map_or(u64::MAX, |ms| ms.saturating_mul(MS_NS));
        now.monotonic_ns.saturating_sub(accepted_ns) >= lifetime_ns
    }
}
