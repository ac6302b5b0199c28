//! Who writes: whoever finds the store free applies all that waits as one batch, makes that durable with one sync, publishes
//! it, and only then answers.
//!
//! Of pushes that is a connection that one came by: all connections have one thread ([`super::threads`]), so that once each
//! that was woken had its turn, whatever came at the same time is at the desk, and shares the sync; and nobody has to be
//! woken, neither to write nor to answer, which takes as long as the sync. Of a link's updates, if they come one by one, it is the
//! link's own task. Where the disk is slow, and for all that may take long, it is the thread `writer`.

mod desk;
mod task;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::yield_now;

use self::desk::{Desk, Outcome, Write};
use self::task::Task;
use super::clock::Clock;
use super::draft::{Chain, Drafted, Merge, MergeError};
use super::metrics::Metrics;
use crate::model::{Family, LabelSet, Position, Revision, StoreId};
use crate::storage::{CheckpointError, Log};
use crate::store::{Committed, PeerCursor, Published, Scope, Store, StoreRefusal, WriteOp};
use crate::wire::{ConflictReport, Delta};

/// Jobs waiting for the thread, at most.
const QUEUE_MAX: usize = 1_024;
/// Pushes waiting at the desk, at most; more wait at their sockets, where they count as bodies under way.
const WAITING_MAX: usize = 1_024;
/// A push or update of more values than this is not written by a connection, nor are pushes of more together: it has others'
/// requests on its thread.
const INLINE_VALUES_MAX: usize = 16_384;
/// Nor is an update of more groups.
const INLINE_GROUPS_MAX: usize = 256;

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The store refused it; trying the same again cannot help.
    Refused(StoreRefusal),
    /// It could not be made durable; nothing of it is in the store, and trying again may help.
    Storage(String),
    /// It is more than can be made durable at once; nothing of it is in the store, and the same can never be.
    TooLarge(String),
    /// A wipe went so far and no further.
    Partly {
        /// Groups that are deleted,
        deleted: usize,
        /// of so many.
        of: usize,
        /// Why not all.
        error: Box<WriteError>,
    },
    /// The node is shutting down.
    Stopped,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Storage(text) => {
                write!(f, "the store cannot be written, nothing was changed, try again later: {text}")
            }
            Self::TooLarge(text) => write!(f, "nothing was changed, do it in smaller parts: {text}"),
            Self::Partly { deleted, of, error } => {
                write!(f, "{deleted} of {of} groups are deleted, of the others: {error}")
            }
            Self::Stopped => f.write_str("the node is shutting down, nothing was changed, try again later"),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<MergeError> for WriteError {
    fn from(error: MergeError) -> Self {
        match error {
            MergeError::Refused(refusal) => Self::Refused(refusal),
            MergeError::Broken => Self::Storage(error.to_string()),
        }
    }
}

impl From<StoreRefusal> for WriteError {
    fn from(refusal: StoreRefusal) -> Self {
        Self::Refused(refusal)
    }
}

type Reply = oneshot::Sender<Result<(), WriteError>>;

enum Job {
    /// Pushes wait at the desk.
    Waiting,
    Wipe {
        reply: Reply,
    },
    Merge {
        merge: Merge,
        reply: Reply,
        held_back: oneshot::Sender<Vec<ConflictReport>>,
    },
    HeldBack {
        scope: Scope,
        reports: Vec<ConflictReport>,
    },
    /// The hub of that uplink holds all changes up to there.
    Holds {
        uplink: usize,
        revision: Revision,
    },
    PeerInfo {
        peer: Option<StoreId>,
        reply: oneshot::Sender<StoreInfo>,
    },
    Sweep,
    Checkpointed(Result<(), CheckpointError>),
    Stop,
}

/// A merge that is under way.
pub struct Merging {
    answer: oneshot::Receiver<Result<(), WriteError>>,
    held_back: oneshot::Receiver<Vec<ConflictReport>>,
}

impl Merging {
    /// Waits until it is durable; returns which of its families are held back.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing of it was merged then.
    pub async fn done(mut self) -> Result<Vec<ConflictReport>, WriteError> {
        self.answer.await.unwrap_or(Err(WriteError::Stopped))?;
        Ok(self.held_back.try_recv().unwrap_or_default())
    }
}

/// What a store says of itself to a peer, at one moment between two batches.
#[derive(Clone, Debug)]
pub struct StoreInfo {
    /// The store.
    pub store: StoreId,
    /// Its openings, oldest first.
    pub epochs: Vec<Position>,
    /// Up to where it is published.
    pub head: Revision,
    /// The newest revision of which a tombstone was dropped.
    pub forgotten: Revision,
    /// What it holds of others.
    pub cursors: HashMap<StoreId, PeerCursor>,
}

/// How long tombstones are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How many uplinks must hold a tombstone before it goes.
    pub uplinks: usize,
    /// A hub keeps tombstones for as long as this after the delete; 0 at a node that is no hub.
    pub hub_ns: u64,
}

/// The handle to desk and thread. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    desk: Arc<Desk>,
    /// Places at the desk.
    room: Arc<Semaphore>,
    published: Published,
    heads: Arc<Heads>,
}

/// Tells those who wait for changes in a scope.
#[derive(Default)]
struct Heads(Mutex<HashMap<Scope, watch::Sender<Revision>>>);

impl Heads {
    fn subscribe(&self, scope: Scope, head: Revision) -> watch::Receiver<Revision> {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.retain(|_, sender| sender.receiver_count() > 0);
        heads.entry(scope).or_insert_with(|| watch::Sender::new(head)).subscribe()
    }

    fn tell(&self, committed: &Committed) {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sites = committed.sites.iter().map(|site| Scope::Site(site.clone()));
        let shown = (!committed.sites.is_empty()).then_some(Scope::Shown);
        for sender in sites.chain(shown).filter_map(|scope| heads.get(&scope)) {
            sender.send_replace(committed.head);
        }
    }
}

impl Writer {
    /// Starts the thread. `log` is `None` for a store in memory only. The thread ends after [`Writer::stop`].
    ///
    /// # Errors
    /// If the operating system has no thread to give.
    pub fn start(
        store: Store,
        log: Option<Log>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        retention: Retention,
    ) -> std::io::Result<(Writer, JoinHandle<()>)> {
        let (writer, queue) = Self::without_thread(store, log, clock, metrics, retention);
        let desk = writer.desk.clone();
        let thread = thread::Builder::new().name("writer".into()).spawn(move || task::run(&desk, queue))?;
        Ok((writer, thread))
    }

    fn without_thread(
        store: Store,
        log: Option<Log>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        retention: Retention,
    ) -> (Writer, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (published, heads) = (store.published(), Arc::<Heads>::default());
        let task = Task {
            store,
            log,
            clock,
            metrics,
            retention,
            heads: heads.clone(),
            held: vec![Revision(0); retention.uplinks],
            jobs: jobs.downgrade(),
            drafted: Drafted::default(),
            more_due: false,
            checkpointing: false,
            commit_took: Duration::ZERO,
            failing: false,
        };
        let (desk, room) = (Arc::new(Desk::new(task)), Arc::new(Semaphore::new(WAITING_MAX)));
        (Writer { jobs, desk, room, published, heads }, queue)
    }

    /// What is published.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The revisions at which something changes in a scope, from now on.
    pub fn subscribe(&self, scope: Scope) -> watch::Receiver<Revision> {
        self.heads.subscribe(scope, self.published.head())
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
        let permit = self.room.clone().acquire_owned().await.map_err(|_| WriteError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let write = Write { shown: shown.into(), action, values, reply, permit };
        let large = write.is_large();
        self.desk.put(write);
        if large {
            self.leave(Outcome::More);
        } else {
            let unattended = Unattended(self);
            // Others of this thread come first that were woken together with this. Those whom the yield's own look at the
            // sockets finds come later: they are read while answers are on their way.
            yield_now().await;
            unattended.attend();
        }
        if self.is_over() {
            self.desk.give_up();
        }
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Leaves to the thread what a connection left at the desk.
    fn leave(&self, outcome: Outcome) {
        if outcome != Outcome::Done {
            // It looks at the desk after whatever it does: where its queue is full, it will come to it.
            let _ = self.jobs.try_send(Job::Waiting);
        }
    }

    /// Deletes all groups.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn wipe(&self) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Wipe { reply }).await.map_err(|_| WriteError::Stopped)?;
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
        chain: &Chain,
    ) -> Result<Merging, WriteError> {
        let (reply, answer) = oneshot::channel();
        let (reports, held_back) = oneshot::channel();
        let merging = Merging { answer, held_back };
        let inline = chain.is_begun() && chain.is_idle() && is_small(&deltas);
        let merge = Merge { scope, deltas, peer, position, chain: chain.clone() };
        let mut job = Job::Merge { merge, reply, held_back: reports };
        if inline {
            job = match self.desk.try_perform(job) {
                Ok(outcome) => {
                    self.leave(outcome);
                    return Ok(merging);
                }
                Err(job) => job,
            };
        }
        self.jobs.send(job).await.map_err(|_| WriteError::Stopped)?;
        Ok(merging)
    }

    /// A peer keeps these families of a scope but does not show them: their groups' last pushes failed there.
    pub async fn held_back(&self, scope: Scope, reports: Vec<ConflictReport>) {
        let _ = self.jobs.send(Job::HeldBack { scope, reports }).await;
    }

    /// What the store says of itself; of what it holds of others, all or that of one peer.
    ///
    /// # Errors
    /// If the node is shutting down.
    pub async fn info(&self, peer: Option<StoreId>) -> Result<StoreInfo, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::PeerInfo { peer, reply }).await.map_err(|_| WriteError::Stopped)?;
        answer.await.map_err(|_| WriteError::Stopped)
    }

    /// The hub of that uplink holds all changes up to `revision`. Heard behind what was queued before: what the hub sent
    /// before it said so may hold a group as it was before a delete, and must not come after the tombstone went. `false` if
    /// there is no place in the queue: then it is to be said again.
    pub fn uplink_holds(&self, uplink: usize, revision: Revision) -> bool {
        let tombstones = self.published.counts().tombstones;
        tombstones == 0 || self.jobs.try_send(Job::Holds { uplink, revision }).is_ok()
    }

    /// Drops tombstones whose time has come; to be called now and then.
    pub async fn sweep(&self) {
        let _ = self.jobs.send(Job::Sweep).await;
    }

    /// Whether the thread takes nothing any more: it was stopped, or it failed.
    pub fn is_over(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Waits until the thread takes nothing any more.
    pub async fn over(&self) {
        self.jobs.closed().await;
    }

    /// Ends the thread after what was asked for before.
    pub async fn stop(&self) {
        let _ = self.jobs.send(Job::Stop).await;
    }
}

/// A push at the desk that nobody may be taking care of. Dropped, be it with who waits for the answer, it is left to the
/// thread.
struct Unattended<'a>(&'a Writer);

impl Unattended<'_> {
    /// Writes it, if nobody has yet, with all others that wait.
    fn attend(self) {
        let writer = self.0;
        std::mem::forget(self);
        if !writer.desk.is_clear() {
            writer.leave(writer.desk.try_write());
        }
    }
}

impl Drop for Unattended<'_> {
    fn drop(&mut self) {
        self.0.leave(Outcome::More);
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

#[cfg(test)]
mod tests;
