//! The thread that writes: it owns the store and its log, gathers what arrives together into one batch, makes that
//! durable with one sync, publishes it, and only then answers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use super::metrics::Metrics;
use super::priority::give_way;
use crate::model::{GroupId, LabelSet, Position, Revision, StoreId};
use crate::storage::{CheckpointError, CheckpointWriter, CommitError, Log};
use crate::store::{Action, Committed, Cursor, Published, Record, Refusal, Scope, Store};
use crate::wire::message::VERDICTS_MAX;
use crate::wire::{Delta, Verdict};

/// Requests waiting for the writer, at most; more wait at their sockets.
const QUEUE_MAX: usize = 1_024;
/// Requests made durable with one sync, at most.
const BATCH_MAX: usize = 512;
/// Groups changed with one sync, at most (a single request may change more).
const BATCH_RECORDS_MAX: usize = 4_096;
/// Bytes that the requests of one sync hold in values and labels, about, at most (a single request may hold more).
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Tombstones dropped at once.
const FORGET_MAX: usize = 1_024;

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The store refused it; trying the same again cannot help.
    Refused(Refusal),
    /// It could not be made durable; nothing of it is in the store, and trying again may help.
    Storage(String),
    /// It is more than can be made durable at once; nothing of it is in the store, and the same can never be.
    TooLarge(String),
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
            Self::Stopped => f.write_str("the node is shutting down, nothing was changed, try again later"),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<Refusal> for WriteError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

type Reply = oneshot::Sender<Result<(), WriteError>>;

enum Job {
    Write { shown: LabelSet, action: Action, reply: Reply },
    Wipe { reply: Reply },
    Merge { merge: Merge, reply: Reply, held_back: oneshot::Sender<Vec<Verdict>> },
    HeldBack(Vec<Verdict>),
    Facts { peer: Option<StoreId>, reply: oneshot::Sender<StoreFacts> },
    UplinkHolds { uplink: usize, revision: Revision },
    Sweep,
    Checkpointed(Result<(), CheckpointError>),
    Stop,
}

/// What a peer sent.
struct Merge {
    scope: Scope,
    deltas: Vec<Delta>,
    peer: StoreId,
    position: Position,
}

/// A merge that is under way.
pub struct Merging {
    answer: oneshot::Receiver<Result<(), WriteError>>,
    held_back: oneshot::Receiver<Vec<Verdict>>,
}

impl Merging {
    /// Waits until it is durable; returns which of its families are held back.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing of it was merged then.
    pub async fn done(mut self) -> Result<Vec<Verdict>, WriteError> {
        self.answer.await.unwrap_or(Err(WriteError::Stopped))?;
        Ok(self.held_back.try_recv().unwrap_or_default())
    }
}

/// What a store says of itself to a peer, at one moment between two batches.
#[derive(Clone, Debug)]
pub struct StoreFacts {
    /// The store.
    pub store: StoreId,
    /// Its openings, oldest first.
    pub lineage: Vec<Position>,
    /// Up to where it is published.
    pub head: Revision,
    /// The newest revision of which a tombstone was dropped.
    pub forgotten: Revision,
    /// What it holds of others.
    pub cursors: HashMap<StoreId, Cursor>,
}

/// How long tombstones are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How many uplinks must hold a tombstone before it goes.
    pub uplinks: usize,
    /// A hub keeps tombstones for as long as this after the delete; 0 at a node that is no hub.
    pub hub_ns: u64,
}

/// The handle to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
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
        let places = committed.places.iter().map(|place| Scope::Place(place.clone()));
        let shown = (!committed.places.is_empty()).then_some(Scope::Shown);
        for sender in places.chain(shown).filter_map(|scope| heads.get(&scope)) {
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
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { jobs: jobs.clone(), published: store.published(), heads: Arc::default() };
        let heads = writer.heads.clone();
        let held = vec![Revision(0); retention.uplinks];
        let task = Task {
            store,
            log,
            clock,
            metrics,
            retention,
            heads,
            held,
            jobs: jobs.downgrade(),
            checkpointing: false,
            failing: false,
        };
        let thread = thread::Builder::new().name("writer".into()).spawn(move || task.run(queue))?;
        Ok((writer, thread))
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
    pub async fn write(&self, shown: LabelSet, action: Action) -> Result<(), WriteError> {
        self.ask(|reply| Job::Write { shown, action, reply }).await
    }

    /// Deletes all groups.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn wipe(&self) -> Result<(), WriteError> {
        self.ask(|reply| Job::Wipe { reply }).await
    }

    /// Merges what a peer sent of `scope`, and notes in the same transaction what is held of the peer's store then.
    /// Returns when that is queued, behind what was queued before.
    ///
    /// # Errors
    /// If the node is shutting down.
    pub async fn merge(
        &self,
        scope: Scope,
        deltas: Vec<Delta>,
        peer: StoreId,
        position: Position,
    ) -> Result<Merging, WriteError> {
        let (reply, answer) = oneshot::channel();
        let (verdicts, held_back) = oneshot::channel();
        let job = Job::Merge { merge: Merge { scope, deltas, peer, position }, reply, held_back: verdicts };
        self.jobs.send(job).await.map_err(|_| WriteError::Stopped)?;
        Ok(Merging { answer, held_back })
    }

    /// A peer keeps these families but does not show them: their groups' last pushes failed there.
    pub async fn held_back(&self, verdicts: Vec<Verdict>) {
        let _ = self.jobs.send(Job::HeldBack(verdicts)).await;
    }

    async fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| WriteError::Stopped)?;
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// What the store says of itself; of what it holds of others, all or that of one peer.
    ///
    /// # Errors
    /// If the node is shutting down.
    pub async fn facts(&self, peer: Option<StoreId>) -> Result<StoreFacts, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Facts { peer, reply }).await.map_err(|_| WriteError::Stopped)?;
        answer.await.map_err(|_| WriteError::Stopped)
    }

    /// The hub of that uplink holds all changes up to `revision`. Lost if the queue is full: a later one says as much.
    pub fn uplink_holds(&self, uplink: usize, revision: Revision) {
        let _ = self.jobs.try_send(Job::UplinkHolds { uplink, revision });
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

struct Task {
    store: Store,
    log: Option<Log>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    retention: Retention,
    heads: Arc<Heads>,
    /// Of each uplink, up to where its hub holds the changes.
    held: Vec<Revision>,
    /// To hear of checkpoints; weak, so that the queue ends when nobody else asks.
    jobs: mpsc::WeakSender<Job>,
    checkpointing: bool,
    /// Whether the last commit failed: that is logged once, not for every push.
    failing: bool,
}

impl Task {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut stopping = false;
        while !stopping {
            let Some(first) = queue.blocking_recv() else { break };
            let mut answers = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next {
                stopping |= self.perform(job, &mut answers);
                let full = answers.len() >= BATCH_MAX
                    || self.store.records().len() >= BATCH_RECORDS_MAX
                    || self.store.drafted_bytes() >= BATCH_BYTES_MAX;
                next = if full { None } else { queue.try_recv().ok() };
            }
            self.finish(answers);
        }
        // A store that was not closed in order is only read a little more carefully next time.
        if let Some(Err(error)) = self.log.take().map(Log::close) {
            warn!(%error, "the store was not closed in order");
        }
    }

    /// Performs one job on the draft. Returns whether it was the last.
    fn perform(&mut self, job: Job, answers: &mut Vec<(Reply, Result<(), WriteError>)>) -> bool {
        match job {
            Job::Write { shown, action, reply } => {
                let id = self.store.resolve(shown);
                let written = self.store.write(id, action, self.clock.now());
                answers.push((reply, written.map_err(WriteError::from)));
            }
            Job::Wipe { reply } => {
                self.finish(std::mem::take(answers));
                answers.push((reply, self.wipe()));
            }
            Job::Merge { merge, reply, held_back } => {
                // A merge is whole or not at all, and so is a draft: what is there goes first.
                self.finish(std::mem::take(answers));
                let merged = self.merge(merge).map(|verdicts| {
                    // Read once the answer is there.
                    let _ = held_back.send(verdicts);
                });
                if merged.is_err() {
                    self.store.abort();
                }
                answers.push((reply, merged.map_err(WriteError::from)));
            }
            Job::HeldBack(verdicts) => self.note_failures(&verdicts),
            Job::Facts { peer, reply } => {
                self.finish(std::mem::take(answers));
                let _ = reply.send(self.facts(peer));
            }
            Job::UplinkHolds { uplink, revision } => {
                if let Some(held) = self.held.get_mut(uplink) {
                    *held = revision;
                }
                self.forget();
            }
            Job::Sweep => self.forget(),
            Job::Checkpointed(result) => self.checkpointed(result),
            Job::Stop => return true,
        }
        false
    }

    /// Returns what is held back.
    fn merge(&mut self, merge: Merge) -> Result<Vec<Verdict>, Refusal> {
        let Merge { scope, deltas, peer, position } = merge;
        let mut verdicts = Vec::new();
        for delta in deltas {
            let key = delta.id.key;
            let id = match &scope {
                Scope::Place(place) => GroupId { place: place.clone(), key: key.clone() },
                Scope::Shown => self.store.resolve((*key).clone()),
            };
            let held_back = self.store.merge(id, delta.group, peer)?;
            let room = VERDICTS_MAX.saturating_sub(verdicts.len());
            verdicts.extend(held_back.into_iter().take(room).map(|held| Verdict {
                key: key.clone(),
                family: held.name,
                stamp: held.stamp,
                text: held.conflict,
            }));
        }
        let place = match scope {
            Scope::Place(place) => place,
            Scope::Shown => Arc::default(),
        };
        self.store.set_cursor(peer, Cursor { position, place });
        Ok(verdicts)
    }

    /// Moves the failure times of groups of which a peer holds back what they still have.
    fn note_failures(&mut self, verdicts: &[Verdict]) {
        let mut noted = HashSet::new();
        for verdict in verdicts {
            let id = self.store.resolve((*verdict.key).clone());
            let entry = self.store.published().group(&id);
            let pushed = entry.and_then(|entry| Some(entry.group.family(&verdict.family)?.stamp));
            if pushed == Some(verdict.stamp) && noted.insert(id.clone()) {
                // The group is there, so there is no bound that this could cross.
                let _ = self.store.write(id, Action::Refuse, self.clock.now());
            }
        }
    }

    /// Deletes all groups, some with each sync; the last ones are left to be finished with the answer.
    fn wipe(&mut self) -> Result<(), WriteError> {
        let live = self.store.published().groups();
        for groups in live.chunks(BATCH_RECORDS_MAX) {
            for entry in groups {
                self.store.write(entry.id.clone(), Action::Delete, self.clock.now())?;
            }
            let (reply, mut answer) = oneshot::channel();
            self.finish(vec![(reply, Ok(()))]);
            answer.try_recv().unwrap_or(Err(WriteError::Stopped))?;
        }
        Ok(())
    }

    fn facts(&self, peer: Option<StoreId>) -> StoreFacts {
        let cursors = self.store.cursors();
        let cursors = match peer {
            Some(peer) => cursors.get(&peer).map(|cursor| (peer, cursor.clone())).into_iter().collect(),
            None => cursors.clone(),
        };
        StoreFacts {
            store: self.store.identity().store,
            lineage: self.store.lineage().to_vec(),
            head: self.store.published().head(),
            forgotten: self.store.forgotten(),
            cursors,
        }
    }

    /// Drops tombstones that every hub holds and that are old enough.
    fn forget(&mut self) {
        let upto = self.held.iter().copied().min().unwrap_or(Revision(u64::MAX));
        let before_ns = match self.retention.hub_ns {
            0 => u64::MAX,
            hub_ns => self.clock.now().stamp_ns.saturating_sub(hub_ns),
        };
        let due = self.store.published().tombstones(upto, before_ns, FORGET_MAX);
        for entry in &due {
            self.store.forget(&entry.id);
        }
        if due.len() == FORGET_MAX
            && let Some(jobs) = self.jobs.upgrade()
        {
            // There are more: after what others wait for. Without a place in the queue, the next sweep goes on.
            let _ = jobs.try_send(Job::Sweep);
        }
    }

    /// Makes the draft durable, publishes it, and answers; or abandons it and says why.
    fn finish(&mut self, answers: Vec<(Reply, Result<(), WriteError>)>) {
        let records = self.store.records();
        let durable = match &mut self.log {
            Some(log) if !records.is_empty() => log.commit(records),
            _ => Ok(()),
        };
        if let Err(error) = durable {
            return self.fail(answers, &error);
        }
        if !records.is_empty() {
            self.metrics.commits.inc();
            let committed = self.store.commit();
            self.heads.tell(&committed);
            if std::mem::take(&mut self.failing) {
                info!(revision = committed.head.0, "the store can be written again");
            }
        }
        for (reply, answer) in answers {
            // Who gave up waiting needs no answer.
            let _ = reply.send(answer);
        }
        self.checkpoint_if_due();
    }

    fn fail(&mut self, answers: Vec<(Reply, Result<(), WriteError>)>, error: &CommitError) {
        self.store.abort();
        self.metrics.commit_failures.inc();
        if !std::mem::replace(&mut self.failing, true) {
            error!(%error, "the store cannot be written: pushes are refused with 503 until it can");
        }
        for (reply, _) in answers {
            let _ = reply.send(Err(match error.is_retryable() {
                true => WriteError::Storage(error.to_string()),
                false => WriteError::TooLarge(error.to_string()),
            }));
        }
    }

    fn checkpoint_if_due(&mut self) {
        let Some(log) = &mut self.log else { return };
        if self.checkpointing || !log.wants_checkpoint() {
            return;
        }
        let checkpoint = match log.rotate() {
            Ok(checkpoint) => checkpoint,
            Err(error) => return warn!(%error, "no checkpoint can be begun: the log grows until one can"),
        };
        let records = self.store.checkpoint();
        let jobs = self.jobs.clone();
        let run = move || {
            give_way();
            let result = write_checkpoint(checkpoint, records);
            if let Some(jobs) = jobs.upgrade() {
                let _ = jobs.blocking_send(Job::Checkpointed(result));
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
