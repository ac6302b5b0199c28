//! What the writer does: jobs performed on the draft, batches made durable, published and answered.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::command::{Command, Responder, Retention, StoreInfo, WriteError};
use super::handle::INLINE_VALUES_MAX;
use super::notify::ChangeNotifier;
use super::queue::{CommitQueue, Write};
use crate::model::{Revision, StoreId};
use crate::node::clock::Clock;
use crate::node::draft::{self, Transaction};
use crate::node::metrics::Metrics;
use crate::node::threads::lower_priority;
use crate::storage::{CheckpointError, CheckpointWriter, CommitError, Log};
use crate::store::{Record, Store, WriteOp};

/// Requests made durable with one sync, at most.
const BATCH_MAX: usize = 512;
/// Groups changed with one sync, at most (a single request may change more).
const BATCH_RECORDS_MAX: usize = 4_096;
/// Bytes that the requests of one sync hold in values and labels, about, at most (a single request may hold more).
const BATCH_BYTES_MAX: usize = 16 << 20;

pub(super) struct CommitWorker {
    pub(super) store: Store,
    pub(super) log: Option<Log>,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) retention: Retention,
    pub(super) notifier: Arc<ChangeNotifier>,
    /// Of each uplink, up to where its hub holds the changes.
    pub(super) held: Vec<Revision>,
    pub(super) transaction: Transaction,
    /// Whether more tombstones are due than were dropped in the draft.
    pub(super) more_due: bool,
    /// To hear of checkpoints; weak, so that the queue ends when nobody else asks.
    pub(super) commands: mpsc::WeakSender<Command>,
    pub(super) checkpointing: bool,
    /// How long the disk took for the last batch.
    pub(super) commit_took: Duration,
    /// Whether the last commit failed: that is logged once, not for every push.
    pub(super) failing: bool,
}

type Answers = Vec<(Responder, Result<(), WriteError>)>;

/// The thread: does what is asked for by jobs, and writes what waits at the desk, until told to stop.
pub(super) fn run(queue: &CommitQueue, mut incoming: mpsc::Receiver<Command>) {
    let mut stopping = false;
    while !stopping {
        let Some(first) = incoming.blocking_recv() else { break };
        let mut next = Some(first);
        while next.is_some() || !queue.is_empty() {
            let mut leader = queue.lead();
            let Some(worker) = leader.as_mut().and_then(|leader| leader.as_mut()) else {
                queue.abandon();
                return;
            };
            stopping |= worker.turn(next.take(), &mut incoming, queue);
            drop(leader);
            next = if stopping { None } else { incoming.try_recv().ok() };
        }
    }
    close(queue);
    // Who came meanwhile is told.
    incoming.close();
    queue.abandon();
}

fn close(queue: &CommitQueue) {
    let Some(worker) = queue.lead().and_then(|mut leader| leader.take()) else { return };
    // A store that was not closed in order is only read a little more carefully next time.
    if let Some(Err(error)) = worker.log.map(Log::close) {
        warn!(%error, "the store was not closed in order");
    }
}

impl CommitWorker {
    /// Does jobs and writes what waits, as one batch. Returns whether the last job was among them.
    pub(super) fn turn(
        &mut self,
        first: Option<Command>,
        incoming: &mut mpsc::Receiver<Command>,
        queue: &CommitQueue,
    ) -> bool {
        let (mut answers, mut stopping) = (Answers::new(), false);
        let mut next = first;
        // Those that came before: pushes, which go last, are not kept waiting by jobs that go on coming.
        let mut commands = incoming.len();
        while let Some(command) = next {
            let transaction = self.store.records().len();
            stopping |= self.perform(command, &mut answers);
            // Nor by many that each needed a sync.
            let synced = self.store.records().len() < transaction;
            let enough = stopping || self.is_full(&answers) || commands == 0 || (synced && !queue.is_empty());
            next = if enough { None } else { incoming.try_recv().ok() };
            commands = commands.saturating_sub(1);
        }
        self.take_waiting(queue, usize::MAX, &mut answers);
        self.end(answers, queue);
        self.checkpoint_if_due();
        stopping
    }

    /// Does a job, if there is one, and writes the small ones of what waits, as one batch. Returns whether there is something
    /// to do that takes long.
    pub(super) fn write_small(&mut self, command: Option<Command>, queue: &CommitQueue) -> bool {
        let mut answers = Answers::new();
        if let Some(command) = command {
            self.perform(command, &mut answers);
        }
        self.take_waiting(queue, INLINE_VALUES_MAX, &mut answers);
        self.end(answers, queue);
        self.is_checkpoint_due()
    }

    /// Finishes a batch, and tells the desk of it.
    fn end(&mut self, answers: Answers, queue: &CommitQueue) {
        let requests = answers.len();
        self.finish(answers);
        queue.record_batch(requests, self.commit_took);
    }

    /// Whether the batch is as large as it may be.
    fn is_full(&self, answers: &Answers) -> bool {
        answers.len() >= BATCH_MAX
            || self.store.records().len() >= BATCH_RECORDS_MAX
            || self.store.drafted_bytes() >= BATCH_BYTES_MAX
    }

    /// Drafts what waits, of no more values together than that.
    fn take_waiting(&mut self, queue: &CommitQueue, mut values_max: usize, answers: &mut Answers) {
        while !self.is_full(answers)
            && let Some(write) = queue.next(values_max)
        {
            // What is large goes by itself: who sent what is too large together could not be told.
            let large = write.is_large();
            if large {
                self.finish(std::mem::take(answers));
            }
            let Write { shown, action, values, reply, .. } = write;
            values_max -= values;
            let id = self.store.resolve(shown);
            let written = self.store.write(id, action, self.clock.now());
            answers.push((reply, written.map_err(WriteError::from)));
            if large {
                self.finish(std::mem::take(answers));
            }
        }
    }

    /// Performs one job on the draft. Returns whether it was the last.
    fn perform(&mut self, command: Command, answers: &mut Answers) -> bool {
        match command {
            Command::Waiting => {}
            Command::Wipe { reply } => {
                self.finish(std::mem::take(answers));
                answers.push((reply, self.wipe()));
            }
            Command::Merge { merge, reply, held_back } => {
                // If it may be refused, what is there goes first.
                if !self.store.has_capacity_for(merge.deltas.len()) {
                    self.finish(std::mem::take(answers));
                }
                let merged = self.transaction.merge(&mut self.store, merge).map(|reports| {
                    // Read once the answer is there.
                    let _ = held_back.send(reports);
                });
                answers.push((reply, merged.map_err(WriteError::from)));
            }
            Command::HeldBack { scope, reports } => {
                draft::note_failures(&mut self.store, &scope, &reports, self.clock.now());
            }
            Command::Holds { uplink, revision } => {
                if let Some(held) = self.held.get_mut(uplink) {
                    *held = revision;
                }
                // Where they have to be old besides, the sweep is soon enough.
                if self.retention.hub_ns == 0 {
                    self.forget();
                }
            }
            Command::PeerInfo { peer, reply } => {
                self.finish(std::mem::take(answers));
                let _ = reply.send(self.info(peer));
            }
            Command::Sweep => self.forget(),
            Command::Checkpointed(result) => self.checkpointed(result),
            Command::Stop => return true,
        }
        false
    }

    /// Deletes all groups, some with each sync.
    fn wipe(&mut self) -> Result<(), WriteError> {
        let live = self.store.published().groups();
        for (chunk, groups) in live.chunks(BATCH_RECORDS_MAX).enumerate() {
            for entry in groups {
                self.store.write(entry.id().clone(), WriteOp::Delete, self.clock.now())?;
            }
            let (reply, mut answer) = oneshot::channel();
            self.finish(vec![(reply, Ok(()))]);
            let done = answer.try_recv().unwrap_or(Err(WriteError::Stopped));
            done.map_err(|error| match chunk * BATCH_RECORDS_MAX {
                0 => error,
                deleted => WriteError::Partly { deleted, of: live.len(), error: Box::new(error) },
            })?;
        }
        Ok(())
    }

    fn info(&self, peer: Option<StoreId>) -> StoreInfo {
        let cursors = self.store.cursors();
        let cursors = match peer {
            Some(peer) => cursors.get(&peer).map(|cursor| (peer, cursor.clone())).into_iter().collect(),
            None => cursors.clone(),
        };
        StoreInfo {
            store: self.store.identity().store,
            epochs: self.store.epochs().to_vec(),
            head: self.store.published().head(),
            gc_watermark: self.store.forgotten(),
            cursors,
        }
    }

    /// Drops tombstones that every hub holds and that are old enough.
    fn forget(&mut self) {
        let now_ns = self.clock.now().stamp_ns;
        self.more_due = draft::forget(&mut self.store, &self.held, now_ns, self.retention.hub_ns);
    }

    /// Makes the draft durable, publishes it, and answers; or abandons it and says why.
    fn finish(&mut self, answers: Answers) {
        let (records, more_due) = (self.store.records(), std::mem::take(&mut self.more_due));
        let durable = match &mut self.log {
            Some(log) if !records.is_empty() => {
                let began = Instant::now();
                let durable = log.commit(records);
                self.commit_took = began.elapsed();
                durable
            }
            _ => Ok(()),
        };
        if let Err(error) = durable {
            return self.fail(answers, &error);
        }
        if let Some(committed) = self.transaction.publish(&mut self.store) {
            self.metrics.commits.inc();
            self.notifier.notify(&committed);
            if more_due && let Some(commands) = self.commands.upgrade() {
                // After what others wait for. Without a place in the queue, the next sweep goes on.
                let _ = commands.try_send(Command::Sweep);
            }
            if std::mem::take(&mut self.failing) {
                info!(revision = committed.head.0, "the store can be written again");
            }
        }
        for (reply, answer) in answers {
            // Who gave up waiting needs no answer.
            let _ = reply.send(answer);
        }
    }

    fn fail(&mut self, answers: Answers, error: &CommitError) {
        self.transaction.abort(&mut self.store);
        self.metrics.commit_failures.inc();
        if !std::mem::replace(&mut self.failing, true) {
            error!(%error, "the store cannot be written: pushes are refused with 503 until it can");
        }
        // Of several that were too large together, each may fit.
        let is_retryable = error.is_retryable() || answers.len() > 1;
        for (reply, _) in answers {
            let _ = reply.send(Err(match is_retryable {
                true => WriteError::Storage(error.to_string()),
                false => WriteError::TooLarge(error.to_string()),
            }));
        }
    }

    fn is_checkpoint_due(&mut self) -> bool {
        !self.checkpointing && self.log.as_mut().is_some_and(Log::wants_checkpoint)
    }

    fn checkpoint_if_due(&mut self) {
        let is_due = self.is_checkpoint_due();
        let Some(log) = self.log.as_mut().filter(|_| is_due) else { return };
        let checkpoint = match log.rotate() {
            Ok(checkpoint) => checkpoint,
            Err(error) => return warn!(%error, "no checkpoint can be begun: the log grows until one can"),
        };
        let records = self.store.checkpoint();
        let commands = self.commands.clone();
        let run = move || {
            lower_priority();
            let result = write_checkpoint(checkpoint, records);
            if let Some(commands) = commands.upgrade() {
                let _ = commands.blocking_send(Command::Checkpointed(result));
            }
        };
        match thread::Builder::new().name("checkpoint".into()).spawn(run) {
            Ok(_) => self.checkpointing = true,
            Err(error) => warn!(%error, "no thread for a checkpoint: the log grows until there is one"),
        }
    }

    fn checkpointed(&mut self, result: Result<(), CheckpointError>) {
        self.checkpointing = false;
        match result {
            Ok(()) => {
                self.metrics.checkpoints.inc();
                debug!("checkpoint written");
            }
            Err(error) => warn!(%error, "the checkpoint failed: the log grows until one succeeds"),
        }
    }
}

fn write_checkpoint(
    mut checkpoint: CheckpointWriter,
    records: impl Iterator<Item = Record>,
) -> Result<(), CheckpointError> {
    for record in records {
        checkpoint.write(&record)?;
    }
    checkpoint.finish()
}
