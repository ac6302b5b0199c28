//! Who writes: whoever finds the store free applies all that waits as one batch, makes that durable with one sync, publishes
//! it, and only then answers.
//!
//! Of pushes that is a connection that one came by: all connections have one thread ([`super::threads`]), so that once each
//! that was woken had its turn, whatever came at the same time is at the desk, and shares the sync; and nobody has to be
//! woken, neither to write nor to answer, which takes as long as the sync. Of a link's updates, if they come one by one, it is the
//! link's own task. Where the disk is slow, and for all that may take long, it is the thread `committer`.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::yield_now;

use super::command::{Command, Retention, StoreInfo, WriteError};
use super::notify::ChangeNotifier;
use super::queue::{CommitQueue, Lead, Write};
use super::worker::{self, CommitWorker};
use crate::model::{Family, LabelSet, Position, Revision, StoreId};
use crate::node::clock::Clock;
use crate::node::draft::{Merge, MergeSequence, Transaction};
use crate::node::metrics::Metrics;
use crate::storage::Log;
use crate::store::{Published, Scope, Store, WriteOp};
use crate::wire::{ConflictReport, Delta};

/// Jobs waiting for the thread, at most.
const QUEUE_MAX: usize = 1_024;
/// Pushes waiting at the desk, at most; more wait at their sockets, where they count as bodies under way.
const WAITING_MAX: usize = 1_024;
/// A push or update of more values than this is not written by a connection, nor are pushes of more together: it has others'
/// requests on its thread.
pub(super) const INLINE_VALUES_MAX: usize = 16_384;
/// Nor is an update of more groups.
const INLINE_GROUPS_MAX: usize = 256;

/// A merge that is under way.
pub struct PendingMerge {
    pub(super) answer: oneshot::Receiver<Result<(), WriteError>>,
    held_back: oneshot::Receiver<Vec<ConflictReport>>,
}

impl PendingMerge {
    /// Waits until it is durable; returns which of its families are held back.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing of it was merged then.
    pub async fn done(mut self) -> Result<Vec<ConflictReport>, WriteError> {
        self.answer.await.unwrap_or(Err(WriteError::Stopped))?;
        Ok(self.held_back.try_recv().unwrap_or_default())
    }
}

/// The handle to desk and thread. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    commands: mpsc::Sender<Command>,
    pub(super) queue: Arc<CommitQueue>,
    /// Places at the desk.
    pub(super) queue_slots: Arc<Semaphore>,
    published: Published,
    notifier: Arc<ChangeNotifier>,
}

impl Committer {
    /// Starts the thread. `log` is `None` for a store in memory only. The thread ends after [`Committer::stop`].
    ///
    /// # Errors
    /// If the operating system has no thread to give.
    pub fn start(
        store: Store,
        log: Option<Log>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        retention: Retention,
    ) -> std::io::Result<(Committer, JoinHandle<()>)> {
        let (committer, incoming) = Self::without_thread(store, log, clock, metrics, retention);
        let queue = committer.queue.clone();
        let thread = thread::Builder::new().name("writer".into()).spawn(move || worker::run(&queue, incoming))?;
        Ok((committer, thread))
    }

    pub(super) fn without_thread(
        store: Store,
        log: Option<Log>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        retention: Retention,
    ) -> (Committer, mpsc::Receiver<Command>) {
        let (commands, incoming) = mpsc::channel(QUEUE_MAX);
        let (published, notifier) = (store.published(), Arc::<ChangeNotifier>::default());
        let worker = CommitWorker {
            store,
            log,
            clock,
            metrics,
            retention,
            notifier: notifier.clone(),
            held: vec![Revision(0); retention.uplinks],
            commands: commands.downgrade(),
            transaction: Transaction::default(),
            more_due: false,
            checkpointing: false,
            commit_took: Duration::ZERO,
            failing: false,
        };
        let (queue, queue_slots) = (Arc::new(CommitQueue::new(worker)), Arc::new(Semaphore::new(WAITING_MAX)));
        (Committer { commands, queue, queue_slots, published, notifier }, incoming)
    }

    /// What is published.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The revisions at which something changes in a scope, from now on.
    pub fn subscribe(&self, scope: Scope) -> watch::Receiver<Revision> {
        self.notifier.subscribe(scope, self.published.head())
    }

    /// Writes to the group that is addressed by `shown`; returns when that is durable and published.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, shown: impl Into<Arc<LabelSet>>, action: WriteOp) -> Result<(), WriteError> {
        let values = match &action {
            WriteOp::Put(families) | WriteOp::Post(families) => values_len(families),
            WriteOp::Refuse | WriteOp::Delete => 0,
        };
        let permit = self.queue_slots.clone().acquire_owned().await.map_err(|_| WriteError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let write = Write { shown: shown.into(), action, values, reply, permit };
        let large = write.is_large();
        self.queue.enqueue(write);
        if large {
            self.wake_worker(Lead::More);
        } else {
            let guard = HandoffGuard(self);
            // Others of this thread come first that were woken together with this. Those whom the yield's own look at the
            // sockets finds come later: they are read while answers are on their way.
            yield_now().await;
            guard.commit_now();
        }
        if self.is_over() {
            self.queue.abandon();
        }
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Leaves to the thread what a connection left at the desk.
    fn wake_worker(&self, outcome: Lead) {
        if outcome != Lead::Done {
            // It looks at the desk after whatever it does: where its queue is full, it will come to it.
            let _ = self.commands.try_send(Command::Waiting);
        }
    }

    /// Deletes all groups.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn wipe(&self) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Wipe { reply }).await.map_err(|_| WriteError::Stopped)?;
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Merges what a peer sent of `scope`, and notes in the same transaction what is held of the peer's store then.
    /// Returns when that is queued, behind what was queued before of the same chain, or done. Nothing is merged if one of the
    /// same chain failed.
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
        let (reply, answer) = oneshot::channel();
        let (reports, held_back) = oneshot::channel();
        let pending = PendingMerge { answer, held_back };
        let inline = sequence.is_begun() && sequence.is_idle() && is_small(&deltas);
        let merge = Merge { scope, deltas, peer, position, sequence: sequence.clone() };
        let mut command = Command::Merge { merge, reply, held_back: reports };
        if inline {
            command = match self.queue.try_lead_with(command) {
                Ok(outcome) => {
                    self.wake_worker(outcome);
                    return Ok(pending);
                }
                Err(command) => command,
            };
        }
        self.commands.send(command).await.map_err(|_| WriteError::Stopped)?;
        Ok(pending)
    }

    /// A peer keeps these families of a scope but does not show them: their groups' last pushes failed there.
    pub async fn held_back(&self, scope: Scope, reports: Vec<ConflictReport>) {
        let _ = self.commands.send(Command::HeldBack { scope, reports }).await;
    }

    /// What the store says of itself; of what it holds of others, all or that of one peer.
    ///
    /// # Errors
    /// If the node is shutting down.
    pub async fn info(&self, peer: Option<StoreId>) -> Result<StoreInfo, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::PeerInfo { peer, reply }).await.map_err(|_| WriteError::Stopped)?;
        answer.await.map_err(|_| WriteError::Stopped)
    }

    /// The hub of that uplink holds all changes up to `revision`. Heard behind what was queued before: what the hub sent
    /// before it said so may hold a group as it was before a delete, and must not come after the tombstone went. `false` if
    /// there is no place in the queue: then it is to be said again.
    pub fn uplink_holds(&self, uplink: usize, revision: Revision) -> bool {
        let tombstones = self.published.counts().tombstones;
        tombstones == 0 || self.commands.try_send(Command::Holds { uplink, revision }).is_ok()
    }

    /// Drops tombstones whose time has come; to be called now and then.
    pub async fn sweep(&self) {
        let _ = self.commands.send(Command::Sweep).await;
    }

    /// Whether the thread takes nothing any more: it was stopped, or it failed.
    pub fn is_over(&self) -> bool {
        self.commands.is_closed()
    }

    /// Waits until the thread takes nothing any more.
    pub async fn over(&self) {
        self.commands.closed().await;
    }

    /// Ends the thread after what was asked for before.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
    }
}

/// A push at the desk that nobody may be taking care of. Dropped, be it with who waits for the answer, it is left to the
/// thread.
struct HandoffGuard<'a>(&'a Committer);

impl HandoffGuard<'_> {
    /// Writes it, if nobody has yet, with all others that wait.
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

/// Whether a connection may merge an update.
fn is_small(deltas: &[Delta]) -> bool {
    let values = |delta: &Delta| values_len(delta.group.families().iter().map(|f| &f.family));
    deltas.len() <= INLINE_GROUPS_MAX && deltas.iter().map(values).sum::<usize>() <= INLINE_VALUES_MAX
}
