//! Which groups an update names: each once, and by one number. Naming one is few bytes, but work in proportion to what it is
//! known to have, here and in the store.

use std::sync::Arc;

use foldhash::HashSet;

use crate::model::LabelSet;

/// What a decoder remembers of that, beside its dictionary.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The keys that have a number, and those that lost it in this update.
    keys: HashSet<Arc<LabelSet>>,
    /// Those that did.
    lost: Vec<Arc<LabelSet>>,
    /// By a group's number, the last update that named it.
    updates: Vec<u64>,
    /// The number of this update.
    update: u64,
}

impl Named {
    /// An update begins: what lost its number in the one before may have another.
    pub fn begin(&mut self) {
        for key in self.lost.drain(..) {
            self.keys.remove(&key);
        }
        self.update += 1;
    }

    /// A key gets a number, which another may have had, be it in this update. Returns whether it may.
    pub fn add(&mut self, number: usize, key: Arc<LabelSet>) -> bool {
        if self.updates.len() <= number {
            self.updates.resize(number + 1, 0);
        }
        self.updates[number] = 0;
        self.keys.insert(key)
    }

    /// The update names the group of that number. Returns whether it may.
    pub fn name(&mut self, number: usize) -> bool {
        self.updates.get_mut(number).is_some_and(|last| std::mem::replace(last, self.update) < self.update)
    }

    /// A key has no number any more.
    pub fn lose(&mut self, key: Arc<LabelSet>) {
        self.lost.push(key);
    }
}
