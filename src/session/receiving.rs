//! One direction of the link, at its receiver: what came, is being made durable, and is acknowledged.
//!
//! The cursor for the peer's store is written with what it covers. During an exchange it is the zero position: an exchange
//! that was not completed, both halves, is begun again, since what one end had not sent yet it may later take for what
//! came from the other.

use std::collections::VecDeque;

use crate::model::{Position, Revision, StoreId};
use crate::wire::{Ack, ConflictReport, Message, Update};

use super::event::{CommitId, SessionAction};
use super::pace::ACK_DELAY_NS;
use super::peer::Fault;
use super::sending::WINDOW;

/// How far an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// The peer has not sent all yet. At the end that receives last, its half completes the exchange.
    Coming { completes: bool },
    /// The peer has sent all; this end has yet to.
    Half,
    /// There is none, or it is complete.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Update { upto: Revision, last_of_exchange: bool, ack_may_wait: bool },
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
    exchange: Exchange,
    /// The epoch is the peer's present one.
    received: Position,
    /// What is, or will be, the cursor.
    cursor: Position,
    commits: u64,
    pending: VecDeque<(CommitId, Pending)>,
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
            exchange: if held.is_some() { Exchange::Over } else { Exchange::Coming { completes } },
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
    pub fn update(&mut self, update: Update, actions: &mut VecDeque<SessionAction>) -> Result<(), Fault> {
        let Update { upto, partial, last_of_exchange, ack_may_wait, deltas } = update;
        let received = self.received.revision;
        let pending = self.pending.iter().filter(|(_, pending)| matches!(pending, Pending::Update { .. })).count();
        if pending >= WINDOW {
            return Err(Fault::protocol(format!("more than {WINDOW} updates without waiting for an ack")));
        }
        if upto < received || (partial && upto != received) {
            return Err(Fault::protocol(format!("an update up to revision {upto} after one up to {received}")));
        }
        if last_of_exchange && (partial || !matches!(self.exchange, Exchange::Coming { .. })) {
            return Err(Fault::protocol("the end of an exchange where there is none".into()));
        }
        self.received.revision = upto;
        if last_of_exchange {
            let completes = self.exchange == Exchange::Coming { completes: true };
            self.exchange = if completes { Exchange::Over } else { Exchange::Half };
        }
        if self.exchange == Exchange::Over && !partial {
            self.cursor = self.received;
        }
        self.commit(deltas, Pending::Update { upto, last_of_exchange, ack_may_wait }, actions);
        Ok(())
    }

    /// The exchange is complete: from now on there is a cursor.
    pub fn complete(&mut self, actions: &mut VecDeque<SessionAction>) {
        self.exchange = Exchange::Over;
        self.cursor = self.received;
        self.commit(Vec::new(), Pending::Cursor, actions);
    }

    fn commit(&mut self, deltas: Vec<crate::wire::Delta>, pending: Pending, actions: &mut VecDeque<SessionAction>) {
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

    /// A commit is durable. Tells whether the peer's half of an exchange now is.
    pub fn committed(
        &mut self,
        id: CommitId,
        now_ns: u64,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<bool, Fault> {
        let Some((_, pending)) = self.pending.pop_front().filter(|(expected, _)| *expected == id) else {
            return Err(Fault::storage(format!("commit {} ended out of order", id.0)));
        };
        let Pending::Update { upto, last_of_exchange, ack_may_wait } = pending else {
            return Ok(false);
        };
        self.updates += 1;
        if ack_may_wait && !last_of_exchange && self.held_back.is_empty() {
            let due_ns = self.owed.map_or(now_ns.saturating_add(ACK_DELAY_NS), |owed| owed.due_ns);
            self.owed = Some(Owed { upto, due_ns });
        } else {
            self.acknowledge(upto, actions);
        }
        Ok(last_of_exchange)
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
