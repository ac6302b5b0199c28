//! The queue of a group commit, and its leader lock: one task or thread at a time commits for all.
//!
//! No queued write is lost: the leader checks the queue again after it releases the lock, and a write that was queued
//! before finds the lock held.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::command::{Command, WorkerMessage};
use super::waiting::{QueuedWrite, WaitingWrites};
use super::worker::{BatchStats, CommitWorker};

/// After this many transactions in a row with one command each, commands are taken to arrive one by one.
const QUIET_AFTER: usize = 4;
/// If the last commit took longer than this, the worker thread does the next one: an inline commit would stall every
/// connection of its thread.
pub(super) const SLOW: Duration = Duration::from_millis(2);

/// The result of an attempt to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// No write waits, or the leader takes care of those that do.
    Done,
    /// Work is left for the worker thread.
    More,
    /// The store is closed, or a leader panicked.
    Over,
}

pub(super) struct CommitQueue {
    waiting: WaitingWrites,
    /// The leader lock. `None` once the store is closed.
    leader: Mutex<Option<CommitWorker>>,
    /// The number of transactions in a row that had one command. After some, others will hardly join the next one while
    /// the worker thread wakes up.
    alone: AtomicUsize,
    /// Whether the last commit was slow.
    slow: AtomicBool,
}

impl CommitQueue {
    pub(super) fn new(worker: CommitWorker) -> Self {
        Self {
            waiting: WaitingWrites::default(),
            leader: Mutex::new(Some(worker)),
            alone: AtomicUsize::new(QUIET_AFTER),
            slow: AtomicBool::new(false),
        }
    }

    /// Appends a write.
    pub(super) fn push(&self, write: QueuedWrite) {
        self.waiting.push(write);
    }

    /// Whether no write waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Records the size and duration of a transaction. Only the leader calls this.
    pub(super) fn record_batch(&self, batch: BatchStats) {
        self.slow.store(batch.commit_took > SLOW, Ordering::Relaxed);
        match batch.replies {
            0 => {}
            1 => self.alone.store(self.alone.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed),
            _ => self.alone.store(0, Ordering::Relaxed),
        }
    }

    /// Commits the writes that wait as one transaction, if no one else leads and the disk is not slow. Large writes are
    /// left for the worker thread.
    pub(super) fn try_lead(&self) -> Lead {
        match self.leader.try_lock() {
            Ok(mut leader) => match leader.as_mut() {
                Some(worker) if !self.is_slow() => {
                    let batch = worker.commit_small(None, &self.waiting);
                    self.record_batch(batch);
                    drop(leader);
                    self.lead_after(batch.is_checkpoint_due)
                }
                Some(_) => {
                    drop(leader);
                    self.lead_after(false)
                }
                None => self.abandon(),
            },
            Err(TryLockError::WouldBlock) => Lead::Done,
            Err(TryLockError::Poisoned(_)) => self.abandon(),
        }
    }

    /// The same together with a small command, if commands arrive one by one.
    ///
    /// # Errors
    /// The command, if the worker thread has to perform it. The caller must send it there; the thread then commits the
    /// writes that wait, too.
    #[expect(
        clippy::result_large_err,
        reason = "the caller sends the command on; a box would cost each merge an allocation"
    )]
    pub(super) fn try_lead_with(&self, command: Command) -> Result<Lead, Command> {
        let Ok(mut leader) = self.leader.try_lock() else { return Err(command) };
        let Some(worker) = leader.as_mut().filter(|_| self.is_quiet() && !self.is_slow()) else { return Err(command) };
        let batch = worker.commit_small(Some(command), &self.waiting);
        self.record_batch(batch);
        drop(leader);
        Ok(self.lead_after(batch.is_checkpoint_due))
    }

    /// The worker thread: performs messages and commits the writes that wait, until it is stopped.
    pub(super) fn serve(&self, mut incoming: mpsc::Receiver<WorkerMessage>) {
        let mut stopping = false;
        while !stopping {
            let Some(first) = incoming.blocking_recv() else { break };
            let mut next = Some(first);
            while next.is_some() || !self.is_empty() {
                let mut leader = self.lead();
                let Some(worker) = leader.as_mut().and_then(|leader| leader.as_mut()) else {
                    self.abandon();
                    return;
                };
                let (stop, batch) = worker.turn(next.take(), &mut incoming, &self.waiting);
                stopping |= stop;
                self.record_batch(batch);
                drop(leader);
                next = if stopping { None } else { incoming.try_recv().ok() };
            }
        }
        if let Some(worker) = self.lead().and_then(|mut leader| leader.take()) {
            worker.close();
        }
        // Callers that arrived in the meantime receive an error.
        incoming.close();
        self.abandon();
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.alone.load(Ordering::Relaxed) >= QUIET_AFTER
    }

    /// To be called after the lock is released: a write that arrived before that found the lock held.
    fn lead_after(&self, more: bool) -> Lead {
        if self.is_empty() && !more { Lead::Done } else { Lead::More }
    }

    /// Waits for the leader lock; `None` if a leader panicked.
    pub(super) fn lead(&self) -> Option<MutexGuard<'_, Option<CommitWorker>>> {
        self.leader.lock().ok()
    }

    /// Drops the writes that wait, which tells their callers.
    pub(super) fn abandon(&self) -> Lead {
        self.waiting.clear();
        Lead::Over
    }
}

#[cfg(test)]
impl CommitQueue {
    /// Performs one turn of the worker thread.
    pub(super) fn turn(&self, first: Option<WorkerMessage>, incoming: &mut mpsc::Receiver<WorkerMessage>) {
        let (_, batch) = self.lead().unwrap().as_mut().unwrap().turn(first, incoming, &self.waiting);
        self.record_batch(batch);
    }
}
