//! The handle to the group commit, for HTTP requests and links.
//!
//! A connection task commits pushes inline. All connections share one thread ([`crate::node::threads`]), so after one
//! yield every push that arrived together is queued and one sync covers them, with no wake-up of another thread: that
//! takes as long as the sync. A link's task commits its update inline if updates arrive one by one. The thread `writer`
//! commits when the disk is slow, and performs everything that may take long.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::yield_now;

use super::command::{Command, WorkerMessage};
use super::notify::ChangeNotifier;
use super::queue::{CommitQueue, Lead};
use super::waiting::QueuedWrite;
use super::worker::CommitWorker;
use crate::commit::command::SHARED_VALUES_MAX;
use crate::commit::{Engine, GroupWrite, Merge, MergeSequence, Retention, WriteError};
use crate::model::{Family, GroupId, LabelSet, Position, Revision, StoreId};
use crate::node::clock::Clock;
use crate::node::metrics::Metrics;
use crate::storage::Log;
use crate::store::{Increment, Published, Scope, Store, StoreInfo, WriteOp, WriteTerms};
use crate::wire::{ConflictReport, Delta};

/// Messages that wait for the worker thread, at most.
const MESSAGES_MAX: usize = 1_024;
/// Writes in the queue, at most. Further ones wait at their sockets, where they count as bodies in progress.
const WAITING_MAX: usize = 1_024;
/// An update of more values is left to the worker thread, because an inline commit delays the other requests of its
/// thread. For writes, and for writes that share a transaction, [`SHARED_VALUES_MAX`] is the limit.
const INLINE_VALUES_MAX: usize = SHARED_VALUES_MAX;
/// An update of more groups is left to the worker thread, too.
const INLINE_GROUPS_MAX: usize = 256;

/// A merge in progress.
pub struct PendingMerge(pub(super) oneshot::Receiver<Result<Vec<ConflictReport>, WriteError>>);

impl PendingMerge {
    /// Waits until the merge is durable, and returns its suppressed families.
    ///
    /// # Errors
    /// If nothing of the update was merged.
    pub async fn done(self) -> Result<Vec<ConflictReport>, WriteError> {
        self.0.await.unwrap_or(Err(WriteError::Stopped))
    }
}

/// Commits writes to the store. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    messages: mpsc::Sender<WorkerMessage>,
    pub(super) queue: Arc<CommitQueue>,
    /// A permit for each place in the queue.
    pub(super) queue_slots: Arc<Semaphore>,
    published: Published,
    notifier: Arc<ChangeNotifier>,
}

impl Committer {
    /// Starts the worker thread, which ends after [`Committer::stop`]. `log` is `None` for a store in memory only.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start(
        store: Store,
        log: Option<Log>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        retention: Retention,
    ) -> std::io::Result<(Committer, JoinHandle<()>)> {
        let (committer, incoming) = Self::without_thread(store, log, clock, metrics, retention);
        let queue = committer.queue.clone();
        let thread = thread::Builder::new().name("writer".into()).spawn(move || queue.serve(incoming))?;
        Ok((committer, thread))
    }

    pub(super) fn without_thread(
        store: Store,
        log: Option<Log>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        retention: Retention,
    ) -> (Committer, mpsc::Receiver<WorkerMessage>) {
        let (messages, incoming) = mpsc::channel(MESSAGES_MAX);
        let (published, notifier) = (store.published(), Arc::<ChangeNotifier>::default());
        let worker = CommitWorker {
            engine: Engine::new(store, retention),
            log,
            clock,
            metrics,
            notifier: notifier.clone(),
            messages: messages.downgrade(),
            checkpointing: false,
            commit_took: Duration::ZERO,
            failing: false,
        };
        let (queue, queue_slots) = (Arc::new(CommitQueue::new(worker)), Arc::new(Semaphore::new(WAITING_MAX)));
        (Committer { messages, queue, queue_slots, published, notifier }, incoming)
    }

    /// The durable state of the store.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Subscribes to the revisions that change a scope.
    pub fn subscribe(&self, scope: Scope) -> watch::Receiver<Revision> {
        self.notifier.subscribe(scope, self.published.head())
    }

    /// Writes to the group that is shown under the labels `shown`, and waits until the write is durable and published.
    ///
    /// # Errors
    /// If the write did not happen.
    pub async fn write(&self, shown: impl Into<Arc<LabelSet>>, op: WriteOp) -> Result<(), WriteError> {
        self.write_within(shown, op, WriteTerms::default()).await
    }

    /// The same, for a push that asks for a lifetime of its group, or has a quota.
    ///
    /// # Errors
    /// If the write did not happen.
    pub async fn write_within(
        &self,
        shown: impl Into<Arc<LabelSet>>,
        op: WriteOp,
        terms: WriteTerms,
    ) -> Result<(), WriteError> {
        let values = match &op {
            WriteOp::Put(families) | WriteOp::Post(families) | WriteOp::Add(Increment { families, .. }) => {
                values_len(families)
            }
            WriteOp::Refuse | WriteOp::Delete => 0,
        };
        let permit = self.queue_slots.clone().acquire_owned().await.map_err(|_| WriteError::Stopped)?;
        let (reply, result) = oneshot::channel();
        let write = GroupWrite { shown: shown.into(), op, terms, values, reply };
        let is_large = write.is_large();
        self.queue.push(QueuedWrite { write, permit });
        if is_large {
            self.wake_worker(Lead::More);
        } else {
            let guard = HandoffGuard(self);
            // Yield once so that tasks woken in the same poll can enqueue first. Connections that only the next I/O
            // poll finds ready go into the next transaction, and are read while the replies of this one are sent.
            yield_now().await;
            guard.commit_now();
        }
        if self.is_over() {
            self.queue.abandon();
        }
        result.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Leaves the rest of the queue to the worker thread.
    fn wake_worker(&self, lead: Lead) {
        if lead != Lead::Done {
            // The worker checks the queue after each message: if the channel is full, it will check anyway.
            let _ = self.messages.try_send(WorkerMessage::Waiting);
        }
    }

    async fn send(&self, command: Command) -> Result<(), WriteError> {
        self.messages.send(WorkerMessage::Perform(command)).await.map_err(|_| WriteError::Stopped)
    }

    /// Deletes all groups of a scope.
    ///
    /// # Errors
    /// If not all groups were deleted.
    pub async fn wipe(&self, scope: Scope) -> Result<(), WriteError> {
        let (reply, result) = oneshot::channel();
        self.send(Command::Wipe { scope, reply }).await?;
        result.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Deletes those of some dozen groups that have expired.
    ///
    /// # Errors
    /// If none was deleted.
    pub async fn expire(&self, groups: Vec<GroupId>) -> Result<(), WriteError> {
        let (reply, result) = oneshot::channel();
        self.send(Command::Expire { groups, reply }).await?;
        result.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Merges an update of a peer, and advances the cursor for the peer's store in the same transaction. Returns when
    /// the update is queued behind the earlier ones of the sequence, or is durable. After a merge that failed, no later
    /// one of the same sequence is merged.
    ///
    /// # Errors
    /// If the node is shutting down.
    pub async fn merge(
        &self,
        scope: Scope,
        deltas: Vec<Delta>,
        peer: StoreId,
        position: Position,
        sequence: &MergeSequence,
    ) -> Result<PendingMerge, WriteError> {
        let (reply, result) = oneshot::channel();
        let inline = sequence.is_begun() && sequence.is_idle() && is_small(&deltas);
        let merge = Merge { scope, deltas, peer, position, sequence: sequence.clone() };
        let mut command = Command::Merge { merge, reply };
        if inline {
            command = match self.queue.try_lead_with(command) {
                Ok(lead) => {
                    self.wake_worker(lead);
                    return Ok(PendingMerge(result));
                }
                Err(command) => command,
            };
        }
        self.send(command).await?;
        Ok(PendingMerge(result))
    }

    /// Records that a peer suppresses these families: the last pushes of their groups count as failed.
    pub async fn note_conflicts(&self, scope: Scope, reports: Vec<ConflictReport>) {
        let _ = self.send(Command::NoteConflicts { scope, reports }).await;
    }

    /// The state of the store for a handshake, with the cursor of one peer or of all.
    ///
    /// # Errors
    /// If the node is shutting down.
    pub async fn info(&self, peer: Option<StoreId>) -> Result<StoreInfo, WriteError> {
        let (reply, info) = oneshot::channel();
        self.send(Command::Info { peer, reply }).await?;
        info.await.map_err(|_| WriteError::Stopped)
    }

    /// Records that the hub of an uplink has all changes up to `revision`. `false` if the worker's channel is full: the
    /// caller must try again.
    ///
    /// The worker performs it after the updates that the hub sent before. They may have a group as it was before its
    /// delete, and must not be merged after the tombstone is dropped.
    pub fn uplink_acked(&self, uplink: usize, revision: Revision) -> bool {
        let acked = WorkerMessage::Perform(Command::UplinkAcked { uplink, revision });
        self.published.counts().tombstones == 0 || self.messages.try_send(acked).is_ok()
    }

    /// The right time was `right_ns` when the monotonic clock showed `monotonic_ns`. Corrects the write timestamps that
    /// were made with a wrong clock, before any later merge. `false` if the worker's channel is full: the caller must
    /// try again.
    pub fn confirm_clock(&self, right_ns: u64, monotonic_ns: u64) -> bool {
        let confirm = WorkerMessage::Perform(Command::ConfirmClock { right_ns, monotonic_ns });
        self.published.is_clock_confirmed() || self.messages.try_send(confirm).is_ok()
    }

    /// Drops tombstones that no peer needs any more; to be called periodically.
    pub async fn sweep(&self) {
        let _ = self.send(Command::Sweep).await;
    }

    /// Whether the worker thread has stopped or failed.
    pub fn is_over(&self) -> bool {
        self.messages.is_closed()
    }

    /// Waits until the worker thread has stopped or failed.
    pub async fn over(&self) {
        self.messages.closed().await;
    }

    /// Stops the worker thread after the messages that were sent before.
    pub async fn stop(&self) {
        let _ = self.messages.send(WorkerMessage::Stop).await;
    }
}

/// Guards a queued write. If the task that queued it is dropped before it can lead, the worker thread commits the
/// write.
struct HandoffGuard<'a>(&'a Committer);

impl HandoffGuard<'_> {
    /// Commits the write together with all that wait, unless another leader has.
    fn commit_now(self) {
        let committer = self.0;
        std::mem::forget(self);
        if !committer.queue.is_empty() {
            committer.wake_worker(committer.queue.try_lead());
        }
    }
}

impl Drop for HandoffGuard<'_> {
    fn drop(&mut self) {
        self.0.wake_worker(Lead::More);
    }
}

fn values_len<'a>(families: impl IntoIterator<Item = &'a Family>) -> usize {
    families.into_iter().map(|family| family.values().len()).sum()
}

/// Whether an update may be merged inline.
fn is_small(deltas: &[Delta]) -> bool {
    let values = |delta: &Delta| values_len(delta.group.families().iter().map(|f| &f.family));
    deltas.len() <= INLINE_GROUPS_MAX && deltas.iter().map(values).sum::<usize>() <= INLINE_VALUES_MAX
}
