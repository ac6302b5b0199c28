//! The commit worker: passes commands to the engine, and performs what the engine asks for with the disk, the links and
//! the callers.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::command::{Channels, Command, WorkerMessage};
use super::notify::ChangeNotifier;
use super::waiting::WaitingWrites;
use crate::commit::command::SHARED_VALUES_MAX;
use crate::commit::{CommitFailure, DeletedAtPeer, Effect, Engine};
use crate::model::GroupId;
use crate::node::clock::Clock;
use crate::node::metrics::Metrics;
use crate::node::threads::lower_priority;
use crate::storage::{CheckpointError, CheckpointWriter, Log};
use crate::store::{AheadWrites, Record, Scope};

/// Groups that one log line names, at most.
const RETURNED_NAMED_MAX: usize = 5;

pub(super) struct CommitWorker {
    pub(super) engine: Engine<Channels>,
    /// `None` for a store in memory only.
    pub(super) log: Option<Log>,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) notifier: Arc<ChangeNotifier>,
    /// For messages to itself; weak, so that the channel closes when no handle is left.
    pub(super) messages: mpsc::WeakSender<WorkerMessage>,
    pub(super) checkpointing: bool,
    /// The duration of the last commit.
    pub(super) commit_took: Duration,
    /// Whether the last commit failed: a failure is logged once, not for every push.
    pub(super) failing: bool,
}

/// The size and duration of a transaction, for the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchStats {
    /// The number of commands that were answered.
    pub(super) replies: usize,
    /// The duration of the last commit to disk.
    pub(super) commit_took: Duration,
    pub(super) is_checkpoint_due: bool,
}

impl CommitWorker {
    /// Performs messages and commits the writes that wait, as one transaction where the engine allows it. Also returns
    /// whether to stop.
    pub(super) fn turn(
        &mut self,
        first: Option<WorkerMessage>,
        incoming: &mut mpsc::Receiver<WorkerMessage>,
        waiting: &WaitingWrites,
    ) -> (bool, BatchStats) {
        let (mut next, mut stopping) = (first, false);
        // Only messages that are queued by now: the writes are drafted last, and must not wait for ever new messages.
        let mut left = incoming.len();
        while let Some(message) = next {
            let mut committed = false;
            match message {
                WorkerMessage::Waiting => {}
                WorkerMessage::Perform(command) => committed = self.perform(command),
                WorkerMessage::Checkpointed(result) => self.checkpointed(result),
                WorkerMessage::Stop => stopping = true,
            }
            // Nor must the writes wait for many commands that each need a sync.
            let enough = stopping || left == 0 || self.engine.is_full() || (committed && !waiting.is_empty());
            next = if enough { None } else { incoming.try_recv().ok() };
            left = left.saturating_sub(1);
        }
        self.draft_waiting(waiting, usize::MAX);
        let batch = self.commit();
        self.checkpoint_if_due();
        (stopping, batch)
    }

    /// Performs a command, if there is one, and commits the writes that wait with it, up to the limit of inline
    /// commits.
    pub(super) fn commit_small(&mut self, command: Option<Command>, waiting: &WaitingWrites) -> BatchStats {
        if let Some(command) = command {
            self.perform(command);
        }
        self.draft_waiting(waiting, SHARED_VALUES_MAX);
        self.commit()
    }

    /// Drafts the writes that wait, up to `values_max` values together.
    fn draft_waiting(&mut self, waiting: &WaitingWrites, mut values_max: usize) {
        while !self.engine.is_full()
            && let Some(queued) = waiting.pop(values_max)
        {
            values_max -= queued.write.values;
            self.perform(Command::Write(queued.write));
            drop(queued.permit);
        }
    }

    /// Drafts a command, with the commits that the engine asks for before and after. Returns whether there were any.
    fn perform(&mut self, command: Command) -> bool {
        let mut committed = self.engine.must_commit_before(&command);
        if committed {
            self.commit();
        }
        self.engine.draft(command, self.clock.now());
        self.perform_effects();
        while self.engine.must_commit() {
            self.commit();
            committed = true;
        }
        committed
    }

    /// Makes the draft durable, and performs the effects.
    fn commit(&mut self) -> BatchStats {
        let (replies, records) = (self.engine.replies_len(), self.engine.records());
        let durable = match &mut self.log {
            Some(log) if !records.is_empty() => {
                let began = Instant::now();
                let durable = log.commit(records);
                self.commit_took = began.elapsed();
                durable
            }
            _ => Ok(()),
        };
        let durable = durable.map_err(|error| {
            self.metrics.commit_failures.inc();
            self.metrics.store_failed(error.to_string());
            if !std::mem::replace(&mut self.failing, true) {
                error!(%error, "the store cannot be written: pushes are refused with 503 until it can");
            }
            CommitFailure { text: error.to_string(), is_retryable: error.is_retryable() }
        });
        self.engine.finish(durable, self.clock.now());
        self.perform_effects();
        BatchStats { replies, commit_took: self.commit_took, is_checkpoint_due: self.is_checkpoint_due() }
    }

    fn perform_effects(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            // A caller that has gone needs no reply.
            match effect {
                Effect::Published(committed) => {
                    self.metrics.commits.inc();
                    self.notifier.notify(&committed);
                    if std::mem::take(&mut self.failing) {
                        self.metrics.store_works();
                        info!(revision = committed.head.0, "the store can be written again");
                    }
                }
                Effect::Returned(groups) => {
                    self.metrics.returned_groups.inc_by(groups.len() as u64);
                    let names: Vec<String> = groups.iter().take(RETURNED_NAMED_MAX).map(GroupId::to_string).collect();
                    warn!(
                        groups = groups.len() as u64,
                        first = names.join(" "),
                        reason = "their edge was away for longer than storage.tombstone_retention: the deletes are forgotten",
                        "groups are back that may have been deleted"
                    );
                }
                Effect::Expired(groups) => self.metrics.expired_groups.inc_by(groups as u64),
                Effect::DeletedAtPeer(DeletedAtPeer { scope: Scope::Site(site), groups, first }) => {
                    info!(%site, groups, %first, "groups were deleted at an edge");
                }
                Effect::DeletedAtPeer(DeletedAtPeer { scope: Scope::Shown, groups, first }) => {
                    info!(groups, %first, "groups were deleted at a hub");
                }
                Effect::ClockCorrected { groups, shift_ns } => {
                    let seconds = Duration::from_nanos(shift_ns).as_secs();
                    warn!(groups, seconds, "the clock was behind: pushes since the start got later write timestamps");
                }
                Effect::ClockAhead(AheadWrites { groups, ahead_ns }) => {
                    let seconds = Duration::from_nanos(ahead_ns).as_secs();
                    warn!(
                        groups,
                        seconds,
                        "the clock was ahead: pushes since the start may take the place of newer ones at other nodes"
                    );
                }
                Effect::SweepAgain => {
                    // If the channel is full, the next sweep goes on.
                    if let Some(messages) = self.messages.upgrade() {
                        let _ = messages.try_send(WorkerMessage::Perform(Command::Sweep));
                    }
                }
                Effect::MixedTypes(mixed) => warn!(
                    metric = &*mixed.name,
                    shown = mixed.shown.0.name(),
                    sites = mixed.shown.1,
                    not_shown = %mixed.hidden_text(),
                    "sites push this metric with several types: the type of most sites is shown"
                ),
                Effect::Written { reply, result } => drop(reply.send(result)),
                Effect::Merged { reply, result } => drop(reply.send(result)),
                Effect::Info { reply, info } => drop(reply.send(info)),
            }
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
        let records = self.engine.store().checkpoint();
        let messages = self.messages.clone();
        let run = move || {
            lower_priority();
            let result = write_checkpoint(checkpoint, records);
            if let Some(messages) = messages.upgrade() {
                let _ = messages.blocking_send(WorkerMessage::Checkpointed(result));
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

    /// Closes the log.
    pub(super) fn close(self) {
        // If that fails, the next start only reads the log more carefully.
        if let Some(Err(error)) = self.log.map(Log::close) {
            warn!(%error, "the store was not closed in order");
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
