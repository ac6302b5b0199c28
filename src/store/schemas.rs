//! The schemas of a store, shared by content: groups that push the same series share one schema.

use std::sync::{Arc, Weak};

use foldhash::HashMap;

use crate::model::{Digest, Family, Schema};

/// Dead entries are removed when the table has grown by this many since the last sweep, beyond doubling.
const SWEEP_MIN: usize = 1_024;

/// The schemas that families of this store use, held weakly.
#[derive(Default)]
pub struct Schemas {
    by_digest: HashMap<Digest, Weak<Schema>>,
    alive: usize,
}

impl Schemas {
    /// The family with its schema replaced by an equal one in use, if there is one.
    pub fn intern(&mut self, family: Family) -> Family {
        let known = self.by_digest.get(&family.schema().digest()).and_then(Weak::upgrade);
        match known {
            Some(schema) if schema.same(family.schema()) => family.with_schema(schema),
            Some(_) => family,
            None => {
                self.by_digest.insert(family.schema().digest(), Arc::downgrade(family.schema()));
                self.sweep();
                family
            }
        }
    }

    fn sweep(&mut self) {
        if self.by_digest.len() > 2 * self.alive + SWEEP_MIN {
            self.by_digest.retain(|_, schema| schema.strong_count() > 0);
            self.alive = self.by_digest.len();
        }
    }
}
