//! Shapes shared by content: groups that push the same series hold one shape.

use std::sync::{Arc, Weak};

use foldhash::HashMap;

use crate::model::{Digest, Family, Shape};

/// Dead entries are swept when there are this many more than were alive at the last sweep.
const SWEEP_MIN: usize = 1_024;

/// The shapes that families of this store use.
#[derive(Default)]
pub struct Shapes {
    by_digest: HashMap<Digest, Weak<Shape>>,
    alive: usize,
}

impl Shapes {
    /// The family with its shape shared, if an equal one is in use.
    pub fn intern(&mut self, family: Family) -> Family {
        let known = self.by_digest.get(&family.shape().digest()).and_then(Weak::upgrade);
        match known {
            Some(shape) if shape.same(family.shape()) => family.with_shape(shape),
            Some(_) => family,
            None => {
                self.by_digest.insert(family.shape().digest(), Arc::downgrade(family.shape()));
                self.sweep();
                family
            }
        }
    }

    fn sweep(&mut self) {
        if self.by_digest.len() > 2 * self.alive + SWEEP_MIN {
            self.by_digest.retain(|_, shape| shape.strong_count() > 0);
            self.alive = self.by_digest.len();
        }
    }
}
