//! One direction of the link, at its receiver: what came, is being made durable, and is acknowledged.
//!
//! The cursor for the peer's store is written with what it covers. During a resync it is the zero position: a resync
//! that was not completed, both halves, is begun again, since what one end had not sent yet it may later take for what
//! came from the other.

use std::collections::VecDeque;

use crate::model::{Position, Revision, StoreId};
use crate::wire::{Ack, ConflictReport, Message, Update};

use super::event::{CommitId, SessionAction};
use super::pace::ACK_DELAY_NS;
use super::peer::SessionFault;
use super::sending::WINDOW;

/// How far a resync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResyncState {
    /// The peer has not sent all yet. At the end that receives last, its half completes the resync.
    Coming { completes: bool },
    /// The peer has sent all; this end has yet to.
    Half,
    /// There is none, or it is complete.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum PendingCommit {
    Update { upto: Revision, last_of_resync: bool, ack_may_wait: bool },
    Cursor,
}

/// An acknowledgement that waits.
#[derive(Clone, Copy, Debug)]
struct Owed {
    upto: Revision,
    /// Until then, by the monotonic clock.
    due_ns: u64,
}

/// The receiver's state.
#[derive(Debug)]
pub(super) struct Receiving {
    peer: StoreId,
    resync: ResyncState,
    /// The epoch is the peer's present one.
    received: Position,
    /// What is, or will be, the cursor.
    cursor: Position,
    commits: u64,
    pending: VecDeque<(CommitId, PendingCommit)>,
    /// Updates made durable.
    updates: u64,
    /// What of the next of them is held back.
    held_back: Vec<ConflictReport>,
    /// The acknowledgement of some of them that waits.
    owed: Option<Owed>,
}

impl Receiving {
    /// A receiver of store `peer`, now at `epoch`, of which `held` is held if the two go on.
    pub fn new(peer: StoreId, epoch: crate::model::Epoch, held: Option<Position>, completes: bool) -> Self {
        let cursor = held.unwrap_or_default();
        Self {
            peer,
            resync: if held.is_some() { ResyncState::Over } else { ResyncState::Coming { completes } },
            received: Position { epoch, revision: cursor.revision },
            cursor,
            commits: 0,
            pending: VecDeque::new(),
            updates: 0,
            held_back: Vec::new(),
            owed: None,
        }
    }

    /// Takes an update.
    pub fn update(&mut self, update: Update, actions: &mut VecDeque<SessionAction>) -> Result<(), SessionFault> {
        let Update { upto, partial, last_of_resync, ack_may_wait, deltas } = update;
        let received = self.received.revision;
        let pending =
            self.pending.iter().filter(|(_, pending)| matches!(pending, PendingCommit::Update { .. })).count();
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

    /// The resync is complete: from now on there is a cursor.
    pub fn complete(&mut self, actions: &mut VecDeque<SessionAction>) {
        self.resync = ResyncState::Over;
        self.cursor = self.received;
        self.commit(Vec::new(), PendingCommit::Cursor, actions);
    }

    fn commit(
        &mut self,
        deltas: Vec<crate::wire::Delta>,
        pending: PendingCommit,
        actions: &mut VecDeque<SessionAction>,
    ) {
        let id = CommitId(self.commits);
        self.commits += 1;
        self.pending.push_back((id, pending));
        actions.push_back(SessionAction::Commit { id, deltas, peer: self.peer, position: self.cursor });
    }

    /// How many commits were asked for, and how many of them are durable.
    pub fn commits(&self) -> (u64, u64) {
        (self.commits, self.commits - self.pending.len() as u64)
    }

    /// Families of the next commit to end are held back.
    pub fn held_back(&mut self, reports: Vec<ConflictReport>) {
        self.held_back = ConflictReport::sendable(reports);
    }

    /// A commit is durable. Tells whether the peer's half of a resync now is.
    pub fn committed(
        &mut self,
        id: CommitId,
        now_ns: u64,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<bool, SessionFault> {
        let Some((_, pending)) = self.pending.pop_front().filter(|(expected, _)| *expected == id) else {
            return Err(SessionFault::storage(format!("commit {} ended out of order", id.0)));
        };
        let PendingCommit::Update { upto, last_of_resync, ack_may_wait } = pending else {
            return Ok(false);
        };
        self.updates += 1;
        if ack_may_wait && !last_of_resync && self.held_back.is_empty() {
            let due_ns = self.owed.map_or(now_ns.saturating_add(ACK_DELAY_NS), |owed| owed.due_ns);
            self.owed = Some(Owed { upto, due_ns });
        } else {
            self.acknowledge(upto, actions);
        }
        Ok(last_of_resync)
    }

    /// Sends an acknowledgement of all that is durable, up to there.
    fn acknowledge(&mut self, upto: Revision, actions: &mut VecDeque<SessionAction>) {
        self.owed = None;
        let held_back = std::mem::take(&mut self.held_back);
        actions.push_back(SessionAction::Send(Message::Ack(Ack { updates: self.updates, revision: upto, held_back })));
    }

    /// Sends the acknowledgement that waits, if it has waited until now.
    pub fn step(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        if self.owed.is_some_and(|owed| owed.due_ns <= now_ns) {
            self.settle(actions);
        }
    }

    /// Sends the acknowledgement that waits, if there is one.
    pub fn settle(&mut self, actions: &mut VecDeque<SessionAction>) {
        if let Some(owed) = self.owed {
            self.acknowledge(owed.upto, actions);
        }
    }

    /// When [`Receiving::step`] has something to do.
    pub fn next_timeout(&self) -> Option<u64> {
        self.owed.map(|owed| owed.due_ns)
    }
}
