//! The commit engine, for the commit worker: commands go in, records to make durable and effects come out.
//!
//! The order is the durability promise of the product. A command changes the draft only. When its records are durable,
//! the engine publishes the draft, and then releases the replies. If the records cannot be made durable, the engine
//! abandons the draft and every reply is an error.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::{Command, CommitFailure, GroupWrite, ReplyTokens, Retention, WriteError};
use super::transaction::{Merge, Transaction, forget, note_failures};
use crate::model::{GroupId, Revision};
use crate::store::{Committed, GroupEntry, Record, Scope, Store, StoreInfo, WriteOp, WriteTime};
use crate::wire::ConflictReport;

/// Replies in one transaction, at most.
const TRANSACTION_REPLIES_MAX: usize = 512;
/// Groups changed in one transaction, at most. A single command may change more.
const TRANSACTION_RECORDS_MAX: usize = 4_096;
/// Approximate bytes of values and labels in one transaction, at most. A single command may have more.
const TRANSACTION_BYTES_MAX: usize = 16 << 20;

/// An effect for the driver to perform, in the order in which the engine returns them.
pub enum Effect<R: ReplyTokens> {
    /// A transaction is durable and published: notify the links ([`changed_scopes`]).
    Published(Committed),
    /// The published transaction has groups that may have been deleted before: see [`Transaction::publish`].
    Returned(Vec<GroupId>),
    /// More tombstones are due than one transaction drops: send [`Command::Sweep`] after the commands that wait.
    SweepAgain,
    /// Reply to a write or a wipe.
    Written {
        /// The caller.
        reply: R::Write,
        /// The outcome.
        result: Result<(), WriteError>,
    },
    /// Reply to a merge.
    Merged {
        /// The caller.
        reply: R::Merge,
        /// The families of the update that are suppressed, if the update is durable.
        result: Result<Vec<ConflictReport>, WriteError>,
    },
    /// Reply with the state of the store.
    Info {
        /// The caller.
        reply: R::Info,
        /// The state.
        info: StoreInfo,
    },
}

/// The scopes in which a transaction changed something.
pub fn changed_scopes(committed: &Committed) -> impl Iterator<Item = Scope> {
    let sites = committed.sites.iter().map(|site| Scope::Site(site.clone()));
    sites.chain((!committed.sites.is_empty()).then_some(Scope::Shown))
}

/// A wipe in progress. Each transaction deletes some groups.
struct Wipe<T> {
    reply: T,
    groups: Vec<Arc<GroupEntry>>,
    /// Groups whose deletes are durable.
    deleted: usize,
    /// Groups whose deletes are in the draft.
    drafted: usize,
}

/// Owner of a store: turns commands into transactions.
///
/// The driver calls [`Engine::must_commit_before`], [`Engine::draft`] and [`Engine::must_commit`] for each command. To
/// commit, it makes [`Engine::records`] durable, passes the result to [`Engine::finish`], and performs the effects that
/// [`Engine::poll_effect`] returns. Nothing may be drafted between `records` and `finish`.
pub struct Engine<R: ReplyTokens> {
    store: Store,
    retention: Retention,
    /// For each uplink, the revision up to which its hub has the changes.
    acked: Vec<Revision>,
    transaction: Transaction,
    /// The replies of the draft, as they are if it becomes durable.
    replies: Vec<Effect<R>>,
    effects: VecDeque<Effect<R>>,
    wipe: Option<Wipe<R::Write>>,
    /// Whether the draft must be committed before the next command.
    is_complete: bool,
    /// Whether more tombstones are due than the draft drops.
    sweep_again: bool,
}

impl<R: ReplyTokens> Engine<R> {
    /// Takes over a store whose records are all durable.
    pub fn new(store: Store, retention: Retention) -> Self {
        Self {
            store,
            retention,
            acked: vec![Revision(0); retention.uplinks],
            transaction: Transaction::default(),
            replies: Vec::new(),
            effects: VecDeque::new(),
            wipe: None,
            is_complete: false,
            sweep_again: false,
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The records of the draft.
    pub fn records(&self) -> &[Record] {
        self.store.records()
    }

    /// The number of replies that wait for the draft.
    pub fn replies_len(&self) -> usize {
        self.replies.len()
    }

    /// Whether the draft is as large as a transaction may be.
    pub fn is_full(&self) -> bool {
        self.replies.len() >= TRANSACTION_REPLIES_MAX
            || self.store.records().len() >= TRANSACTION_RECORDS_MAX
            || self.store.drafted_bytes() >= TRANSACTION_BYTES_MAX
    }

    /// Whether the draft must be committed before `command` is drafted.
    ///
    /// - A large write is committed alone, and so is a wipe.
    /// - A merge that the store may refuse takes the draft with it.
    /// - A handshake must see the store between two transactions.
    pub fn must_commit_before(&self, command: &Command<R>) -> bool {
        let alone = match command {
            Command::Write(write) => write.is_large(),
            Command::Merge { merge, .. } => !self.store.has_capacity_for(merge.deltas.len()),
            Command::Wipe { .. } | Command::Info { .. } => true,
            Command::NoteConflicts { .. } | Command::UplinkAcked { .. } | Command::Sweep => false,
        };
        alone && (!self.replies.is_empty() || !self.store.records().is_empty())
    }

    /// Whether the draft must be committed before any other command is drafted.
    pub fn must_commit(&self) -> bool {
        self.is_complete
    }

    /// Drafts a command. `now` is the time of the writes that it makes.
    pub fn draft(&mut self, command: Command<R>, now: WriteTime) {
        match command {
            Command::Write(write) => self.write(write, now),
            Command::Wipe { reply } => {
                let groups = self.store.published().groups();
                self.wipe = Some(Wipe { reply, groups, deleted: 0, drafted: 0 });
                self.go_on_wiping(now);
            }
            Command::Merge { merge, reply } => self.merge(merge, reply),
            Command::NoteConflicts { scope, reports } => {
                note_failures(&mut self.store, &scope, &reports, now);
            }
            Command::UplinkAcked { uplink, revision } => {
                if let Some(acked) = self.acked.get_mut(uplink) {
                    *acked = revision;
                }
                // A hub keeps tombstones for a time anyway: the next sweep is soon enough.
                if self.retention.hub_ns == 0 {
                    self.forget(now);
                }
            }
            Command::Info { peer, reply } => {
                let info = self.store.info(peer);
                self.effects.push_back(Effect::Info { reply, info });
            }
            Command::Sweep => self.forget(now),
        }
    }

    /// Ends the transaction. With `Ok`, all of [`Engine::records`] are durable: the draft is published, and its replies
    /// are effects now. With an error none of them is: the draft is abandoned, and all its replies are errors. `now` is
    /// the time of further deletes, if a wipe is in progress.
    pub fn finish(&mut self, durable: Result<(), CommitFailure>, now: WriteTime) {
        self.is_complete = false;
        let sweep_again = std::mem::take(&mut self.sweep_again);
        match durable {
            Ok(()) => {
                if let Some((committed, returned)) = self.transaction.publish(&mut self.store) {
                    self.effects.push_back(Effect::Published(committed));
                    self.effects.extend((!returned.is_empty()).then_some(Effect::Returned(returned)));
                    self.effects.extend(sweep_again.then_some(Effect::SweepAgain));
                }
                self.effects.extend(self.replies.drain(..));
                if let Some(wipe) = &mut self.wipe {
                    wipe.deleted += std::mem::take(&mut wipe.drafted);
                    self.go_on_wiping(now);
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// The next effect to perform.
    pub fn poll_effect(&mut self) -> Option<Effect<R>> {
        self.effects.pop_front()
    }

    fn write(&mut self, write: GroupWrite<R::Write>, now: WriteTime) {
        self.is_complete |= write.is_large();
        let GroupWrite { shown, op, reply, .. } = write;
        let id = self.store.resolve(shown);
        let result = self.store.write(id, op, now).map_err(WriteError::from);
        self.replies.push(Effect::Written { reply, result });
    }

    fn merge(&mut self, merge: Merge, reply: R::Merge) {
        let result = self.transaction.merge(&mut self.store, merge).map_err(WriteError::from);
        self.replies.push(Effect::Merged { reply, result });
    }

    /// Drafts the next deletes of a wipe, or ends it if all groups are deleted.
    fn go_on_wiping(&mut self, now: WriteTime) {
        let Some(wipe) = &mut self.wipe else { return };
        let left = &wipe.groups[wipe.deleted..];
        let next = &left[..left.len().min(TRANSACTION_RECORDS_MAX)];
        for entry in next {
            if let Err(refusal) = self.store.write(entry.id().clone(), WriteOp::Delete, now) {
                return self.end_wipe(Err(refusal.into()));
            }
        }
        wipe.drafted = next.len();
        self.is_complete = wipe.drafted > 0;
        if !self.is_complete {
            self.end_wipe(Ok(()));
        }
    }

    fn end_wipe(&mut self, result: Result<(), WriteError>) {
        let Some(Wipe { reply, groups, deleted, .. }) = self.wipe.take() else { return };
        let result = result.map_err(|error| match deleted {
            0 => error,
            deleted => WriteError::Partly { deleted, of: groups.len(), error: Box::new(error) },
        });
        self.effects.push_back(Effect::Written { reply, result });
    }

    /// Drops tombstones that every hub has and that are old enough.
    fn forget(&mut self, now: WriteTime) {
        self.sweep_again = forget(&mut self.store, &self.acked, now.stamp_ns, self.retention.hub_ns);
    }

    fn fail(&mut self, failure: CommitFailure) {
        self.transaction.abort(&mut self.store);
        let CommitFailure { text, is_retryable } = failure;
        // Each of several commands may fit, though they are too large together.
        let is_retryable = is_retryable || self.replies.len() > 1;
        let error = if is_retryable { WriteError::Storage(text) } else { WriteError::TooLarge(text) };
        let failed = self.replies.drain(..).map(|reply| match reply {
            Effect::Written { reply, .. } => Effect::Written { reply, result: Err(error.clone()) },
            Effect::Merged { reply, .. } => Effect::Merged { reply, result: Err(error.clone()) },
            other => other,
        });
        self.effects.extend(failed);
        self.end_wipe(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, LabelSet, NodeId, StoreId};
    use crate::store::{Identity, Rules};

    /// Replies are numbers.
    enum Numbers {}

    impl ReplyTokens for Numbers {
        type Write = usize;
        type Merge = usize;
        type Info = usize;
    }

    const NOW: WriteTime = WriteTime { wall_ns: 5, stamp_ns: 5 };

    fn engine(groups: usize) -> Engine<Numbers> {
        let mut store = Store::new(Rules::default(), &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        for group in 0..groups {
            store.write(GroupId::local(key(group)), WriteOp::Put(vec![]), NOW).unwrap();
        }
        store.commit();
        Engine::new(store, Retention { uplinks: 0, hub_ns: 0 })
    }

    fn key(group: usize) -> LabelSet {
        LabelSet::new([("job", group.to_string())])
    }

    fn write(reply: usize, values: usize) -> Command<Numbers> {
        Command::Write(GroupWrite { shown: Arc::new(key(reply)), op: WriteOp::Put(vec![]), values, reply })
    }

    fn failure(is_retryable: bool) -> Result<(), CommitFailure> {
        Err(CommitFailure { text: "planned".into(), is_retryable })
    }

    fn effects(engine: &mut Engine<Numbers>) -> Vec<String> {
        let text = |effect| match effect {
            Effect::Published(committed) => format!("published {}", committed.sites.len()),
            Effect::Returned(groups) => format!("returned {}", groups.len()),
            Effect::SweepAgain => "sweep again".into(),
            Effect::Written { reply, result: Ok(()) } => format!("written {reply}"),
            Effect::Written { reply, result: Err(error) } => format!("written {reply}: {error}"),
            Effect::Merged { reply, .. } => format!("merged {reply}"),
            Effect::Info { reply, info } => format!("info {reply} at {}", info.head.0),
        };
        std::iter::from_fn(|| engine.poll_effect()).map(text).collect()
    }

    #[test]
    fn replies_are_released_after_the_publication() {
        let mut engine = engine(0);
        engine.draft(write(1, 1), NOW);
        engine.draft(write(2, 1), NOW);
        assert_eq!((effects(&mut engine), engine.records().len(), engine.replies_len()), (vec![], 2, 2));
        engine.finish(Ok(()), NOW);
        assert_eq!(effects(&mut engine), ["published 1", "written 1", "written 2"]);
        assert_eq!(engine.store().published().counts().groups, 2);
    }

    #[test]
    fn only_a_lone_write_that_is_too_large_must_not_be_retried() {
        let mut engine = engine(0);
        engine.draft(write(1, 1), NOW);
        assert!(engine.must_commit_before(&write(2, SHARED + 1)) && !engine.must_commit_before(&write(2, SHARED)));
        engine.draft(write(2, 1), NOW);
        engine.finish(failure(false), NOW);
        let text = "the store cannot be written, nothing was changed, try again later: planned";
        assert_eq!(effects(&mut engine), [format!("written 1: {text}"), format!("written 2: {text}")]);
        engine.draft(write(3, SHARED + 1), NOW);
        assert!(engine.must_commit());
        engine.finish(failure(false), NOW);
        assert_eq!(effects(&mut engine), ["written 3: nothing was changed, do it in smaller parts: planned"]);
        assert_eq!((engine.store().published().counts().groups, engine.must_commit()), (0, false));
    }

    const SHARED: usize = crate::commit::command::SHARED_VALUES_MAX;

    #[test]
    fn a_wipe_that_stops_reports_the_groups_that_are_deleted() {
        let groups = TRANSACTION_RECORDS_MAX + 1;
        let mut engine = engine(groups);
        engine.draft(write(1, 1), NOW);
        assert!(engine.must_commit_before(&Command::Wipe { reply: 2 }));
        engine.finish(Ok(()), NOW);
        assert_eq!(effects(&mut engine), ["published 1", "written 1"]);
        engine.draft(Command::Wipe { reply: 2 }, NOW);
        assert!(engine.must_commit());
        engine.finish(Ok(()), NOW);
        assert_eq!((effects(&mut engine), engine.must_commit()), (vec!["published 1".into()], true));
        engine.finish(failure(true), NOW);
        let text = format!("written 2: {TRANSACTION_RECORDS_MAX} of {groups} groups are deleted");
        assert!(matches!(&effects(&mut engine)[..], [written] if written.starts_with(&text)));
        engine.draft(Command::Wipe { reply: 3 }, NOW);
        engine.finish(Ok(()), NOW);
        assert_eq!(
            (effects(&mut engine), engine.must_commit()),
            (vec!["published 1".into(), "written 3".into()], false)
        );
        assert_eq!(engine.store().published().counts().groups, 0);
        engine.draft(Command::Wipe { reply: 4 }, NOW);
        assert_eq!((effects(&mut engine), engine.must_commit()), (vec!["written 4".into()], false));
    }

    #[test]
    fn a_handshake_sees_the_store_between_two_transactions() {
        let mut engine = engine(1);
        let head = engine.store().published().head().0;
        engine.draft(write(7, 1), NOW);
        let info = Command::Info { peer: None, reply: 8 };
        assert!(engine.must_commit_before(&info));
        engine.finish(Ok(()), NOW);
        assert!(!engine.must_commit_before(&info));
        engine.draft(info, NOW);
        assert_eq!(effects(&mut engine)[2..], [format!("info 8 at {}", head + 1)]);
    }
}
