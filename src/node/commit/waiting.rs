//! The writes that wait to be committed, in the order of their arrival.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::command::Responder;
use crate::commit::GroupWrite;

/// A write in the queue. It is committed even if its caller has gone.
pub(super) struct QueuedWrite {
    pub(super) write: GroupWrite<Responder<()>>,
    /// One of the queue's slots, occupied until the write is drafted.
    pub(super) permit: OwnedSemaphorePermit,
}

#[derive(Default)]
pub(super) struct WaitingWrites(Mutex<VecDeque<QueuedWrite>>);

impl WaitingWrites {
    fn lock(&self) -> MutexGuard<'_, VecDeque<QueuedWrite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, write: QueuedWrite) {
        self.lock().push_back(write);
    }

    /// Removes the oldest write, if it has at most `values_max` values.
    pub(super) fn pop(&self, values_max: usize) -> Option<QueuedWrite> {
        self.lock().pop_front_if(|queued| queued.write.values <= values_max)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Drops all writes; their callers receive [`crate::commit::WriteError::Stopped`].
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
