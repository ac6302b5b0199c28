//! Where pushes wait to be written, and the seat of whoever writes them: one at a time.
//!
//! Nothing that waits is forgotten: who wrote looks again after giving the seat free, and who came before that finds the
//! seat taken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::command::{Command, Responder};
use super::handle::INLINE_VALUES_MAX;
use super::worker::CommitWorker;
use crate::model::LabelSet;
use crate::store::WriteOp;

/// So many batches of one request in a row show that requests come one by one.
const QUIET_AFTER: usize = 4;
/// A disk that took longer than this for the last batch is left to the thread: all whose requests come by the thread of a
/// connection that writes wait for it.
pub(super) const SLOW: Duration = Duration::from_millis(2);

/// A push that waits, be there still somebody who waits for its answer or not.
pub(super) struct Write {
    pub(super) shown: Arc<LabelSet>,
    pub(super) action: WriteOp,
    /// How many values it has.
    pub(super) values: usize,
    pub(super) reply: Responder,
    /// Its place, of which there are so many: held until it is written.
    #[expect(dead_code, reason = "what counts is when it is dropped")]
    pub(super) permit: OwnedSemaphorePermit,
}

impl Write {
    /// Whether it takes long, and is left to the thread.
    pub(super) fn is_large(&self) -> bool {
        self.values > INLINE_VALUES_MAX
    }
}

/// What came of trying to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nothing waits that nobody takes care of.
    Done,
    /// Something waits that is left to the thread.
    More,
    /// Nobody can write any more: a writer failed, or the store is closed.
    Over,
}

/// See the module's documentation.
pub(super) struct CommitQueue {
    waiting: Mutex<VecDeque<Write>>,
    /// `None` once the store is closed.
    leader: Mutex<Option<CommitWorker>>,
    /// How many batches in a row were one request: after some, the next will hardly be joined by others while the thread wakes
    /// up.
    alone: AtomicUsize,
    /// Whether the disk was slow at the last batch.
    slow: AtomicBool,
}

impl CommitQueue {
    pub(super) fn new(worker: CommitWorker) -> Self {
        Self {
            waiting: Mutex::default(),
            leader: Mutex::new(Some(worker)),
            alone: AtomicUsize::new(QUIET_AFTER),
            slow: AtomicBool::new(false),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Write>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a push behind those that wait.
    pub(super) fn enqueue(&self, write: Write) {
        self.waiting().push_back(write);
    }

    /// Takes the push that waits longest, if it has no more values than that.
    pub(super) fn next(&self, values_max: usize) -> Option<Write> {
        self.waiting().pop_front_if(|write| write.values <= values_max)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Notes how many requests were answered as one batch, and how long the disk took for the last that had to be durable.
    pub(super) fn record_batch(&self, requests: usize, commit_took: Duration) {
        // Whoever sits at the desk alone changes these.
        self.slow.store(commit_took > SLOW, Ordering::Relaxed);
        match requests {
            0 => {}
            1 => self.alone.store(self.alone.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed),
            _ => self.alone.store(0, Ordering::Relaxed),
        }
    }

    /// Writes what waits, as one batch, if the seat is free and the disk is not slow. What takes long is left.
    pub(super) fn try_lead(&self) -> Lead {
        match self.leader.try_lock() {
            Ok(mut leader) => match leader.as_mut() {
                Some(worker) if !self.is_slow() => {
                    let more = worker.write_small(None, self);
                    drop(leader);
                    self.outcome(more)
                }
                Some(_) => {
                    drop(leader);
                    self.outcome(false)
                }
                None => self.abandon(),
            },
            Err(TryLockError::WouldBlock) => Lead::Done,
            Err(TryLockError::Poisoned(_)) => self.abandon(),
        }
    }

    /// The same, if requests mostly come alone, and with it a job that does not take long and waits for none that is queued.
    ///
    /// # Errors
    /// The job, if the thread has to do it: whoever has it again must send it there, and with that the thread looks at what
    /// waits here, too.
    pub(super) fn try_lead_with(&self, command: Command) -> Result<Lead, Command> {
        let Ok(mut leader) = self.leader.try_lock() else { return Err(command) };
        let Some(worker) = leader.as_mut().filter(|_| self.is_quiet() && !self.is_slow()) else { return Err(command) };
        let more = worker.write_small(Some(command), self);
        drop(leader);
        Ok(self.outcome(more))
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.alone.load(Ordering::Relaxed) >= QUIET_AFTER
    }

    /// To be asked once the seat is free: who came before that left what they brought to whoever had it.
    fn outcome(&self, more: bool) -> Lead {
        if self.is_empty() && !more { Lead::Done } else { Lead::More }
    }

    /// Waits for the seat; `None` if a writer failed in it.
    pub(super) fn lead(&self) -> Option<MutexGuard<'_, Option<CommitWorker>>> {
        self.leader.lock().ok()
    }

    /// Drops what waits: that tells who waits.
    pub(super) fn abandon(&self) -> Lead {
        self.waiting().clear();
        Lead::Over
    }
}
