//! The groups that an update names: each once, and by one number. To name a group takes few bytes, but the work for
//! it, here and in the store, is proportional to the group's known size; so repetitions are refused.

use std::sync::Arc;

use foldhash::HashSet;

use crate::model::LabelSet;

/// The keys and numbers that the current update has used; the dictionary does not know them.
#[derive(Debug, Default)]
pub(super) struct NamedGroups {
    /// The keys that have a number, and those that lost it in this update.
    keys: HashSet<Arc<LabelSet>>,
    /// The keys that lost their number in this update.
    lost: Vec<Arc<LabelSet>>,
    /// For each group number, the last update that named it.
    updates: Vec<u64>,
    /// The number of the current update.
    update: u64,
}

impl NamedGroups {
    /// Begins an update: a key that lost its number in the update before may get another.
    pub fn begin(&mut self) {
        for key in self.lost.drain(..) {
            self.keys.remove(&key);
        }
        self.update += 1;
    }

    /// Gives a key a number, possibly one that another key had, even in this update. Returns whether that is allowed.
    pub fn add(&mut self, number: usize, key: Arc<LabelSet>) -> bool {
        if self.updates.len() <= number {
            self.updates.resize(number + 1, 0);
        }
        self.updates[number] = 0;
        self.keys.insert(key)
    }

    /// Names the group with that number in this update. Returns whether that is allowed.
    pub fn name(&mut self, number: usize) -> bool {
        self.updates.get_mut(number).is_some_and(|last| std::mem::replace(last, self.update) < self.update)
    }

    /// Takes a key's number from it.
    pub fn lose(&mut self, key: Arc<LabelSet>) {
        self.lost.push(key);
    }
}
