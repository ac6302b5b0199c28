//! The commit engine, for the commit worker: commands go in, records to make durable and effects come out.
//!
//! The order is the durability promise of the product. A command changes the draft only. When its records are durable,
//! the engine publishes the draft, and then releases the replies. If the records cannot be made durable, the engine
//! abandons the draft and every reply is an error.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::command::{Command, CommitFailure, GroupWrite, ReplyTokens, Retention, WriteError};
use super::transaction::{DeletedAtPeer, Merge, Publication, Transaction, forget, note_failures};
use crate::model::{GroupId, Revision};
use crate::store::{
    AheadWrites, ClockComparison, Committed, Correction, GroupEntry, MixedTypes, Record, Scope, Store, StoreInfo,
    WriteOp, WriteTime,
};
use crate::wire::ConflictReport;

/// Replies in one transaction, at most.
const TRANSACTION_REPLIES_MAX: usize = 512;
/// Groups changed in one transaction, at most. A single command may change more.
const TRANSACTION_RECORDS_MAX: usize = 4_096;
/// Approximate bytes of values and labels in one transaction, at most. A single command may have more.
const TRANSACTION_BYTES_MAX: usize = 16 << 20;
/// Names with several types that one sweep reports, at most. The next sweep reports further ones.
const MIXED_REPORTS_MAX: usize = 8;

/// An effect for the driver to perform, in the order in which the engine returns them.
pub enum Effect<R: ReplyTokens> {
    /// A transaction is durable and published: notify the links ([`changed_scopes`]).
    Published(Committed),
    /// The published transaction has groups that may have been deleted before: see [`Transaction::publish`].
    Returned(Vec<GroupId>),
    /// The published transaction deletes this many groups that have expired.
    Expired(usize),
    /// The published transaction has deletes of a peer.
    DeletedAtPeer(DeletedAtPeer),
    /// The clock was wrong: write timestamps of this many groups were corrected, by this much at most.
    ClockCorrected {
        /// The number of groups.
        groups: usize,
        /// The largest correction, in nanoseconds.
        shift_ns: u64,
    },
    /// The clock was ahead: these writes cannot be corrected.
    ClockAhead(AheadWrites),
    /// More tombstones are due than one transaction drops: send [`Command::Sweep`] after the commands that wait.
    SweepAgain,
    /// Report a name that sites push with several types: it is new, or another of its types is shown now.
    MixedTypes(MixedTypes),
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

/// Corrections of write timestamps in progress. Each transaction makes some.
#[derive(Default)]
struct Corrections {
    left: VecDeque<Correction>,
    /// Corrections in the draft, from the front of `left`.
    drafted: usize,
    /// Groups whose corrections are durable, and the largest correction.
    done: (usize, u64),
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
    corrections: Corrections,
    /// Whether the draft must be committed before the next command.
    is_complete: bool,
    /// Whether more tombstones are due than the draft drops.
    sweep_again: bool,
    /// Whether the draft is that of a sweep, which reports names with several types.
    is_sweep: bool,
    /// The names with several types as last reported.
    mixed_types: BTreeMap<Arc<str>, MixedTypes>,
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
            corrections: Corrections::default(),
            is_complete: false,
            sweep_again: false,
            is_sweep: false,
            mixed_types: BTreeMap::new(),
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
    /// - A sweep that may show another type of a name needs an empty draft.
    pub fn must_commit_before(&self, command: &Command<R>) -> bool {
        let alone = match command {
            Command::Write(write) => write.is_large(),
            Command::Merge { merge, .. } => !self.store.has_capacity_for(merge.deltas.len()),
            Command::Wipe { .. } | Command::Info { .. } | Command::ConfirmClock { .. } => true,
            Command::Sweep => self.store.has_mixed_types(),
            Command::NoteConflicts { .. } | Command::UplinkAcked { .. } | Command::Expire { .. } => false,
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
            Command::Wipe { scope, reply } => {
                let mut groups = self.store.published().groups();
                if let Scope::Site(site) = &scope {
                    groups.retain(|entry| entry.id().site == *site);
                }
                self.wipe = Some(Wipe { reply, groups, deleted: 0, drafted: 0 });
                self.go_on_wiping(now);
            }
            Command::Expire { groups, reply } => {
                self.transaction.expire(&mut self.store, &groups, now);
                self.replies.push(Effect::Written { reply, result: Ok(()) });
            }
            Command::Merge { merge, reply } => self.merge(merge, reply, now),
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
            Command::ConfirmClock { right_ns, monotonic_ns } => {
                let ClockComparison { corrections, ahead } = self.store.confirm_clock(right_ns, monotonic_ns);
                self.effects.extend((ahead.groups > 0).then_some(Effect::ClockAhead(ahead)));
                self.corrections.left.extend(corrections);
                self.go_on_correcting();
            }
            Command::Sweep => {
                self.store.settle_types();
                self.is_sweep = true;
                self.forget(now);
                // Those that a full disk refused.
                self.go_on_correcting();
            }
        }
    }

    /// Ends the transaction. With `Ok`, all of [`Engine::records`] are durable: the draft is published, and its replies
    /// are effects now. With an error none of them is: the draft is abandoned, and all its replies are errors. `now` is
    /// the time of further deletes, if a wipe is in progress.
    pub fn finish(&mut self, durable: Result<(), CommitFailure>, now: WriteTime) {
        self.is_complete = false;
        let (sweep_again, is_sweep) = (std::mem::take(&mut self.sweep_again), std::mem::take(&mut self.is_sweep));
        match durable {
            Ok(()) => {
                if let Some(published) = self.transaction.publish(&mut self.store) {
                    let Publication { committed, returned, expired, deleted } = published;
                    self.effects.push_back(Effect::Published(committed));
                    self.effects.extend((expired > 0).then_some(Effect::Expired(expired)));
                    self.effects.extend(deleted.0.into_iter().map(Effect::DeletedAtPeer));
                    self.effects.extend((!returned.is_empty()).then_some(Effect::Returned(returned)));
                    self.effects.extend(sweep_again.then_some(Effect::SweepAgain));
                }
                if is_sweep {
                    self.report_mixed_types();
                }
                self.effects.extend(self.replies.drain(..));
                self.corrected();
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
        let GroupWrite { shown, op, terms, reply, .. } = write;
        let id = self.store.resolve(shown);
        let result = self.store.write_within(id, op, terms, now).map_err(WriteError::from);
        self.replies.push(Effect::Written { reply, result });
    }

    fn merge(&mut self, merge: Merge, reply: R::Merge, now: WriteTime) {
        let result = self.transaction.merge(&mut self.store, merge, now).map_err(WriteError::from);
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

    /// Drafts the next corrections.
    fn go_on_correcting(&mut self) {
        if self.corrections.drafted > 0 {
            return;
        }
        let next = self.corrections.left.len().min(TRANSACTION_RECORDS_MAX);
        for correction in self.corrections.left.iter().take(next) {
            self.store.correct(correction);
        }
        self.corrections.drafted = next;
        self.is_complete |= next > 0;
    }

    /// The drafted corrections are durable.
    fn corrected(&mut self) {
        let drafted = std::mem::take(&mut self.corrections.drafted);
        if drafted == 0 {
            return;
        }
        for correction in self.corrections.left.drain(..drafted) {
            let (groups, shift_ns) = self.corrections.done;
            self.corrections.done = (groups + 1, shift_ns.max(correction.shift_ns()));
        }
        if self.corrections.left.is_empty() {
            let (groups, shift_ns) = std::mem::take(&mut self.corrections.done);
            self.effects.push_back(Effect::ClockCorrected { groups, shift_ns });
        }
        self.go_on_correcting();
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

    /// Reports the names with several types that changed since they were reported.
    fn report_mixed_types(&mut self) {
        let (mut reported, mut reports) = (BTreeMap::new(), 0);
        for mixed in self.store.mixed_types() {
            match self.mixed_types.remove(&mixed.name) {
                Some(old) if old.is_like(&mixed) || reports == MIXED_REPORTS_MAX => {
                    drop(reported.insert(mixed.name, old))
                }
                _ if reports == MIXED_REPORTS_MAX => {}
                _ => {
                    reports += 1;
                    reported.insert(mixed.name.clone(), mixed.clone());
                    self.effects.push_back(Effect::MixedTypes(mixed));
                }
            }
        }
        self.mixed_types = reported;
    }

    fn fail(&mut self, failure: CommitFailure) {
        self.transaction.abort(&mut self.store);
        self.corrections.drafted = 0;
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
    use crate::commit::MergeSequence;
    use crate::model::{
        Epoch, FamilyBuilder, Group, LabelSet, MetricType, NodeId, Position, PushTime, StoreId, ValueLayout,
        WriteTimestamp,
    };
    use crate::store::{Identity, Rules, WriteTerms};
    use crate::wire::Delta;

    /// Replies are numbers.
    enum Numbers {}

    impl ReplyTokens for Numbers {
        type Write = usize;
        type Merge = usize;
        type Info = usize;
    }

    const NOW: WriteTime = WriteTime { wall_ns: 5, stamp_ns: 5, monotonic_ns: 5 };

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
        let (shown, op, terms) = (Arc::new(key(reply)), WriteOp::Put(vec![]), WriteTerms::default());
        Command::Write(GroupWrite { shown, op, terms, values, reply })
    }

    fn failure(is_retryable: bool) -> Result<(), CommitFailure> {
        Err(CommitFailure { text: "planned".into(), is_retryable })
    }

    fn effects(engine: &mut Engine<Numbers>) -> Vec<String> {
        let text = |effect| match effect {
            Effect::Published(committed) => format!("published {}", committed.sites.len()),
            Effect::Returned(groups) => format!("returned {}", groups.len()),
            Effect::DeletedAtPeer(deleted) => format!("{} deleted at a peer", deleted.groups),
            Effect::Expired(groups) => format!("expired {groups}"),
            Effect::ClockCorrected { groups, shift_ns } => format!("corrected {groups} by {shift_ns}"),
            Effect::ClockAhead(ahead) => format!("{} ahead by {}", ahead.groups, ahead.ahead_ns),
            Effect::SweepAgain => "sweep again".into(),
            Effect::MixedTypes(mixed) => {
                format!("{} is {}, not {}", mixed.name, mixed.shown.0.name(), mixed.hidden_text())
            }
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
        assert!(engine.must_commit_before(&Command::Wipe { scope: Scope::Shown, reply: 2 }));
        engine.finish(Ok(()), NOW);
        assert_eq!(effects(&mut engine), ["published 1", "written 1"]);
        engine.draft(Command::Wipe { scope: Scope::Shown, reply: 2 }, NOW);
        assert!(engine.must_commit());
        engine.finish(Ok(()), NOW);
        assert_eq!((effects(&mut engine), engine.must_commit()), (vec!["published 1".into()], true));
        engine.finish(failure(true), NOW);
        let text = format!("written 2: {TRANSACTION_RECORDS_MAX} of {groups} groups are deleted");
        assert!(matches!(&effects(&mut engine)[..], [written] if written.starts_with(&text)));
        engine.draft(Command::Wipe { scope: Scope::Shown, reply: 3 }, NOW);
        engine.finish(Ok(()), NOW);
        assert_eq!(
            (effects(&mut engine), engine.must_commit()),
            (vec!["published 1".into(), "written 3".into()], false)
        );
        assert_eq!(engine.store().published().counts().groups, 0);
        engine.draft(Command::Wipe { scope: Scope::Shown, reply: 4 }, NOW);
        assert_eq!((effects(&mut engine), engine.must_commit()), (vec!["written 4".into()], false));
    }

    /// The effects of a sweep, after it is durable.
    fn sweep(engine: &mut Engine<Numbers>) -> Vec<String> {
        engine.draft(Command::Sweep, NOW);
        engine.finish(Ok(()), NOW);
        effects(engine)
    }

    #[test]
    fn a_name_with_several_types_is_reported_when_another_type_is_shown() {
        let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        store.commit();
        let mut engine: Engine<Numbers> = Engine::new(store, Retention { uplinks: 0, hub_ns: 1 });
        let merge = |idc: &str, metric_type: MetricType, time_ns: u64| {
            let mut builder = FamilyBuilder::new("m", metric_type);
            builder.series(&[], &ValueLayout::Single, &[1.0], None);
            let stamp = WriteTimestamp { time_ns, node: NodeId(7) };
            let group = Group::put(PushTime { stamp, wall_ns: time_ns }, vec![builder.finish().unwrap()]);
            let site = Arc::new(LabelSet::new([("IDC", idc)]));
            let delta = Delta { id: GroupId { site: site.clone(), key: Arc::new(key(1)) }, group };
            let position = Position { epoch: Epoch(1), revision: Revision(time_ns) };
            let (scope, sequence) = (Scope::Site(site), MergeSequence::default());
            let merge = Merge { scope, deltas: vec![delta], peer: StoreId(9), position, sequence };
            Command::Merge { merge, reply: 1 }
        };
        for (idc, metric_type, ns) in [("BJ", MetricType::Gauge, 1), ("SYQ", MetricType::Untyped, 2)] {
            engine.draft(merge(idc, metric_type, ns), NOW);
        }
        assert!(engine.must_commit_before(&Command::Sweep), "a sweep needs an empty draft");
        engine.finish(Ok(()), NOW);
        effects(&mut engine);
        assert_eq!(sweep(&mut engine), ["m is gauge, not untyped (1 site)"]);
        assert_eq!(sweep(&mut engine), Vec::<String>::new());
        engine.draft(merge("GZ", MetricType::Untyped, 3), NOW);
        engine.finish(Ok(()), NOW);
        effects(&mut engine);
        engine.draft(Command::Sweep, NOW);
        engine.finish(failure(true), NOW);
        assert_eq!(effects(&mut engine), Vec::<String>::new(), "nothing was changed");
        assert_eq!(sweep(&mut engine), ["published 3", "m is untyped, not gauge (1 site)"]);
        engine.draft(merge("BJ", MetricType::Untyped, 4), NOW);
        engine.finish(Ok(()), NOW);
        effects(&mut engine);
        assert_eq!((sweep(&mut engine), engine.mixed_types.len()), (vec![], 0));
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
