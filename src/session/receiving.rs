//! The receiving direction of a session: updates arrive, become durable, and are acknowledged.
//!
//! The cursor for the peer's store is committed with the changes that it covers. During a resync the cursor is the zero
//! position, so that an interrupted resync is followed by another one. A real cursor would be wrong: the changes that one
//! end has not sent yet could later be mistaken for changes that came from the other end. What was acknowledged is not
//! sent again all the same, as long as both processes run: see [`super::progress`].

use std::collections::VecDeque;

use crate::model::{Epoch, Position, Revision, StoreId};
use crate::wire::{Ack, ConflictReport, Delta, Message, Update};

use super::batch_size::WINDOW;
use super::event::{CommitId, SessionAction, SessionEvent};
use super::fault::SessionFault;
use super::pace::ACK_DELAY_NS;

/// The progress of a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResyncState {
    /// The peer has not sent everything yet. At the end that receives last, this half completes the resync.
    Coming { completes: bool },
    /// The peer has sent everything; this end has not.
    Half,
    /// There is no resync, or it is complete.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum PendingCommit {
    Update {
        upto: Revision,
        last_of_resync: bool,
        ack_may_wait: bool,
    },
    /// The cursor alone, at the end of a resync.
    Cursor,
}

/// A delayed acknowledgement.
#[derive(Clone, Copy, Debug)]
struct DelayedAck {
    upto: Revision,
    /// When it must be sent, by the monotonic clock.
    due_ns: u64,
}

/// The state of the receiving direction.
#[derive(Debug)]
pub(super) struct Receiving {
    peer: StoreId,
    resync: ResyncState,
    /// The newest position received; its epoch is the peer's present one.
    received: Position,
    /// The cursor for the peer's store, after the commits under way.
    cursor: Position,
    /// The number of commits requested so far.
    commits: u64,
    pending: VecDeque<(CommitId, Position, PendingCommit)>,
    /// The number of updates that are durable.
    updates: u64,
    delayed_ack: Option<DelayedAck>,
}

impl Receiving {
    /// Receives from the store `peer`, now at `epoch`. `cursor` is our cursor for it if the session resumes. `completes` says
    /// whether the peer's half would complete a resync.
    pub fn new(peer: StoreId, epoch: Epoch, cursor: Option<Position>, completes: bool) -> Self {
        let resync = if cursor.is_some() { ResyncState::Over } else { ResyncState::Coming { completes } };
        let cursor = cursor.unwrap_or_default();
        Self {
            peer,
            resync,
            received: Position { epoch, revision: cursor.revision },
            cursor,
            commits: 0,
            pending: VecDeque::new(),
            updates: 0,
            delayed_ack: None,
        }
    }

    /// Checks an update and requests its commit.
    pub fn update(&mut self, update: Update, actions: &mut VecDeque<SessionAction>) -> Result<(), SessionFault> {
        let Update { upto, partial, last_of_resync, ack_may_wait, deltas } = update;
        let received = self.received.revision;
        let pending =
            self.pending.iter().filter(|(_, _, pending)| matches!(pending, PendingCommit::Update { .. })).count();
        if pending >= WINDOW {
            return Err(SessionFault::protocol(format!("more than {WINDOW} updates without waiting for an ack")));
        }
        if upto < received || (partial && upto != received) {
            return Err(SessionFault::protocol(format!("an update up to revision {upto} after one up to {received}")));
        }
        if last_of_resync && (partial || !matches!(self.resync, ResyncState::Coming { .. })) {
            return Err(SessionFault::protocol("the end of a resync where there is none".into()));
        }
        self.received.revision = upto;
        if last_of_resync {
            let completes = self.resync == ResyncState::Coming { completes: true };
            self.resync = if completes { ResyncState::Over } else { ResyncState::Half };
        }
        if self.resync == ResyncState::Over && !partial {
            self.cursor = self.received;
        }
        self.commit(deltas, PendingCommit::Update { upto, last_of_resync, ack_may_wait }, actions);
        Ok(())
    }

    /// The resync is complete: commits the real cursor.
    pub fn complete(&mut self, actions: &mut VecDeque<SessionAction>) {
        self.resync = ResyncState::Over;
        self.cursor = self.received;
        self.commit(Vec::new(), PendingCommit::Cursor, actions);
    }

    fn commit(&mut self, deltas: Vec<Delta>, pending: PendingCommit, actions: &mut VecDeque<SessionAction>) {
        let id = CommitId(self.commits);
        self.commits += 1;
        self.pending.push_back((id, self.cursor, pending));
        actions.push_back(SessionAction::Commit { id, deltas, peer: self.peer, position: self.cursor });
    }

    /// The number of commits requested, and of those that are durable.
    pub fn commits(&self) -> (u64, u64) {
        (self.commits, self.commits - self.pending.len() as u64)
    }

    /// A commit is durable, and the store suppresses these families of it. Returns whether the peer's half of a resync is
    /// now durable.
    ///
    /// # Errors
    /// If commits ended in another order than they were requested in.
    pub fn committed(
        &mut self,
        id: CommitId,
        suppressed: Vec<ConflictReport>,
        now_ns: u64,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<bool, SessionFault> {
        let Some((_, cursor, pending)) = self.pending.pop_front().filter(|(expected, ..)| *expected == id) else {
            return Err(SessionFault::storage(format!("commit {} ended out of order", id.0)));
        };
        actions.push_back(SessionAction::Notify(SessionEvent::Received(cursor.revision)));
        let PendingCommit::Update { upto, last_of_resync, ack_may_wait } = pending else {
            return Ok(false);
        };
        actions.push_back(SessionAction::Notify(SessionEvent::ReceivedUpto(upto)));
        self.updates += 1;
        let suppressed = ConflictReport::sendable(suppressed);
        if ack_may_wait && !last_of_resync && suppressed.is_empty() {
            let due_ns = self.delayed_ack.map_or(now_ns.saturating_add(ACK_DELAY_NS), |delayed| delayed.due_ns);
            self.delayed_ack = Some(DelayedAck { upto, due_ns });
        } else {
            self.acknowledge(upto, suppressed, actions);
        }
        Ok(last_of_resync)
    }

    /// Acknowledges every durable update, up to `upto`.
    fn acknowledge(&mut self, upto: Revision, held_back: Vec<ConflictReport>, actions: &mut VecDeque<SessionAction>) {
        self.delayed_ack = None;
        actions.push_back(SessionAction::Send(Message::Ack(Ack { updates: self.updates, revision: upto, held_back })));
    }

    /// Sends the delayed acknowledgement if it is due.
    pub fn step(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        if self.delayed_ack.is_some_and(|delayed| delayed.due_ns <= now_ns) {
            self.send_pending_ack(actions);
        }
    }

    /// Sends the delayed acknowledgement now, if there is one.
    pub fn send_pending_ack(&mut self, actions: &mut VecDeque<SessionAction>) {
        if let Some(delayed) = self.delayed_ack {
            self.acknowledge(delayed.upto, Vec::new(), actions);
        }
    }

    /// When [`Receiving::step`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        self.delayed_ack.map(|delayed| delayed.due_ns)
    }
}
