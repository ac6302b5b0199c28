//! What both ends do once they know each other: send and receive, and notice when the other is gone.

use std::collections::VecDeque;

use crate::model::{Position, Revision};
use crate::wire::{ClockSample, Close, CloseReason, Heartbeat, Message, PeerInfo};

use super::event::{Closed, Config, Event, MILLISECOND_NS, OriginFilter, Refused, SessionAction, SessionTime};
use super::lag::Lag;
use super::offset::Offset;
use super::receiving::Receiving;
use super::sending::Sending;

/// Heartbeats missed by a peer that is taken for dead.
pub(super) const HEARTBEATS_MISSED_MAX: u64 = 3;
/// Heartbeats are between these apart.
pub const HEARTBEAT_NS_MIN: u64 = 100 * MILLISECOND_NS;
/// See [`HEARTBEAT_NS_MIN`].
pub const HEARTBEAT_NS_MAX: u64 = 60_000 * MILLISECOND_NS;
/// The smallest bound on messages that a peer may have.
pub const MESSAGE_BYTES_MIN: u64 = 64 << 10;
/// When a peer shall come back whose changes could not be made durable, in milliseconds: a full disk is not emptied by
/// trying.
const STORAGE_RETRY_MS: u64 = 5_000;

/// Why a conversation has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionFault {
    pub reason: CloseReason,
    pub text: String,
    pub retry_after_ms: Option<u64>,
}

impl SessionFault {
    pub fn new(reason: CloseReason, text: String) -> Self {
        Self { reason, text, retry_after_ms: None }
    }

    pub fn protocol(text: String) -> Self {
        Self::new(CloseReason::Protocol, text)
    }

    pub fn storage(text: String) -> Self {
        Self { retry_after_ms: Some(STORAGE_RETRY_MS), ..Self::new(CloseReason::Storage, text) }
    }

    pub fn unexpected(message: &Message) -> Self {
        Self::protocol(format!("a message {} where it is not expected", message.name()))
    }
}

impl From<Refused> for SessionFault {
    fn from(refused: Refused) -> Self {
        Self { reason: refused.reason, text: refused.text, retry_after_ms: refused.retry_after_ms }
    }
}

/// Asks for the actions that end a conversation from this side.
pub(super) fn close(fault: SessionFault, actions: &mut VecDeque<SessionAction>) {
    let SessionFault { reason, text, retry_after_ms } = fault;
    actions.push_back(SessionAction::Send(Message::Close(Close { reason, text: text.clone(), retry_after_ms })));
    actions.push_back(SessionAction::Close(Closed { reason, text, by_peer: false, retry_after_ms: None }));
}

/// Asks for the action that ends a conversation which the peer has ended.
pub(super) fn closed_by_peer(close: Close, actions: &mut VecDeque<SessionAction>) {
    let Close { reason, text, retry_after_ms } = close;
    actions.push_back(SessionAction::Close(Closed { reason, text, by_peer: true, retry_after_ms }));
}

/// Which end this is; it matters in a resync only, in which the hub sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEnd {
    Edge,
    Hub,
}

/// What the handshake has found out.
pub(super) struct Agreement<'a> {
    pub role: LinkEnd,
    pub config: Config,
    pub heartbeat_ns: u64,
    /// What is known of this end's store at the begin of the session.
    pub ours: &'a PeerInfo,
    pub theirs: &'a PeerInfo,
    /// The peer's bound on messages.
    pub message_bytes_max: u64,
    /// What (the peer holds of ours, we hold of the peer's), if they go on.
    pub resume: Option<(Revision, Position)>,
    pub offset: Offset,
    pub lag: Lag,
}

/// The state of an open conversation.
#[derive(Debug)]
pub(super) struct OpenSession {
    role: LinkEnd,
    sending: Sending,
    receiving: Receiving,
    /// Whether the peer may send updates: in a resync the hub's half comes first.
    turn_over: bool,
    offset: Offset,
    head: Revision,
    lag: Lag,
    heartbeat_ns: u64,
    heartbeat_due_ns: u64,
    heard_ns: u64,
    progress_ns: u64,
    progress_due_ns: u64,
    held: AckedReporter,
}

/// When the node is told what the peer holds: once all is durable that came before the peer said so. What came before may
/// hold a group as it was before a delete that the peer now has; were that committed after the tombstone went, it would
/// revive the group.
#[derive(Clone, Copy, Debug, Default)]
struct AckedReporter {
    told: Option<Revision>,
    /// To be told once so many commits are durable.
    due: Option<(Revision, u64)>,
}

impl OpenSession {
    /// Opens the conversation; `head` is what the store has published by now.
    pub fn open(
        agreement: Agreement<'_>,
        head: Revision,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Self {
        let Agreement { role, config, heartbeat_ns, ours, theirs, message_bytes_max, resume, offset, lag } = agreement;
        // Going on, the peer has all that came from it; in a resync, what came in this session only.
        let after = if resume.is_some() { Revision(0) } else { ours.head };
        let message_bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let held = resume.map(|(_, held)| held);
        let mut peer = Self {
            role,
            sending: Sending::new(OriginFilter { origin: theirs.store, after }, head, &config, message_bytes_max),
            receiving: Receiving::new(theirs.store, theirs.epoch(), held, role == LinkEnd::Hub),
            turn_over: resume.is_some() || role == LinkEnd::Edge,
            offset,
            head,
            lag,
            heartbeat_ns,
            heartbeat_due_ns: now.monotonic_ns.saturating_add(heartbeat_ns),
            heard_ns: now.monotonic_ns,
            progress_ns: config.progress_ns,
            progress_due_ns: now.monotonic_ns.saturating_add(config.progress_ns),
            held: AckedReporter::default(),
        };
        match resume {
            Some((held, _)) => peer.sending.go_on(held, now.monotonic_ns, actions),
            None if role == LinkEnd::Hub => peer.sending.resync(now.monotonic_ns, actions),
            None => {}
        }
        peer.lag.held(peer.sending.held());
        peer.lag.moved(head, now.wall_ns);
        peer.tell_held(actions);
        peer
    }

    /// When to be called with [`Event::Tick`].
    pub fn next_timeout(&self) -> u64 {
        let due_ns = self.heartbeat_due_ns.min(self.dead_ns()).min(self.progress_due_ns);
        let next = [self.sending.next_timeout(), self.receiving.next_timeout()];
        next.into_iter().flatten().fold(due_ns, u64::min)
    }

    /// Whether it makes a difference now what the store publishes.
    pub fn listens(&self) -> bool {
        self.sending.listens()
    }

    fn dead_ns(&self) -> u64 {
        self.heard_ns.saturating_add(HEARTBEATS_MISSED_MAX * self.heartbeat_ns)
    }

    /// Takes an event; all but those that end a conversation whatever its state.
    pub fn handle(
        &mut self,
        event: Event,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<(), SessionFault> {
        match event {
            Event::Message(message) => {
                self.heard_ns = now.monotonic_ns;
                self.message(message, now, actions)?;
            }
            Event::Heard => self.heard_ns = now.monotonic_ns,
            Event::Head(head) => {
                self.head = self.head.max(head);
                self.lag.moved(head, now.wall_ns);
                self.sending.publish(head, now.monotonic_ns, actions);
            }
            Event::Read(batch) => self.sending.read(batch, now.monotonic_ns, actions),
            Event::HeldBack(reports) => self.receiving.held_back(reports),
            Event::Committed(id) => {
                let half_done = self.receiving.committed(id, now.monotonic_ns, actions)?;
                if half_done {
                    self.peer_sent_all(now, actions);
                }
            }
            Event::Tick => self.tick(now, actions)?,
            Event::Stop(refused) => {
                self.receiving.settle(actions);
                return Err(refused.into());
            }
            // The rest is for the handshake, or was dealt with.
            _ => {}
        }
        self.lag.held(self.sending.held());
        self.tell_held(actions);
        Ok(())
    }

    fn tell_held(&mut self, actions: &mut VecDeque<SessionAction>) {
        let held = self.sending.held();
        let (asked, durable) = self.receiving.commits();
        if self.held.due.is_none() && self.held.told.is_none_or(|told| told < held) {
            self.held.due = Some((held, asked));
        }
        if let Some((revision, _)) = self.held.due.take_if(|(_, commits)| *commits <= durable) {
            self.held.told = Some(revision);
            actions.push_back(SessionAction::PeerHolds(revision));
            if revision < held {
                self.tell_held(actions);
            }
        }
    }

    fn message(
        &mut self,
        message: Message,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<(), SessionFault> {
        match message {
            Message::Update(update) if self.turn_over => self.receiving.update(update, actions),
            Message::Ack(mut ack) => {
                let held_back = std::mem::take(&mut ack.held_back);
                if !held_back.is_empty() {
                    actions.push_back(SessionAction::HeldBack(held_back));
                }
                if self.sending.ack(ack, now.monotonic_ns, actions)? {
                    self.sent_all(actions);
                }
                Ok(())
            }
            Message::Heartbeat(heartbeat) => {
                self.read_clock(heartbeat.clock, now, actions);
                actions.push_back(SessionAction::PeerLag(heartbeat.lag_ns));
                Ok(())
            }
            other => Err(SessionFault::unexpected(&other)),
        }
    }

    fn read_clock(&mut self, clock: ClockSample, now: SessionTime, actions: &mut VecDeque<SessionAction>) {
        actions.extend(self.offset.read(clock, now).map(SessionAction::ClockOffset));
    }

    /// The peer's half of a resync is durable here.
    fn peer_sent_all(&mut self, now: SessionTime, actions: &mut VecDeque<SessionAction>) {
        match self.role {
            LinkEnd::Edge => self.sending.resync(now.monotonic_ns, actions),
            LinkEnd::Hub => actions.push_back(SessionAction::ResyncCompleted),
        }
    }

    /// This end's half of a resync is durable at the peer.
    fn sent_all(&mut self, actions: &mut VecDeque<SessionAction>) {
        match self.role {
            LinkEnd::Hub => self.turn_over = true,
            LinkEnd::Edge => {
                self.receiving.complete(actions);
                actions.push_back(SessionAction::ResyncCompleted);
            }
        }
    }

    fn tick(&mut self, now: SessionTime, actions: &mut VecDeque<SessionAction>) -> Result<(), SessionFault> {
        if now.monotonic_ns >= self.dead_ns() {
            let silent_ms = (now.monotonic_ns - self.heard_ns) / MILLISECOND_NS;
            return Err(SessionFault::new(CloseReason::Silence, format!("nothing heard for {silent_ms} ms")));
        }
        if now.monotonic_ns >= self.heartbeat_due_ns {
            self.heartbeat_due_ns = now.monotonic_ns.saturating_add(self.heartbeat_ns);
            let (clock, lag_ns) = (self.offset.reading(now), self.lag.oldest_ns(now.wall_ns));
            actions.push_back(SessionAction::Send(Message::Heartbeat(Heartbeat { clock, head: self.head, lag_ns })));
        }
        if now.monotonic_ns >= self.progress_due_ns {
            self.progress_due_ns = now.monotonic_ns.saturating_add(self.progress_ns);
            self.sending.tell_progress(now.monotonic_ns, actions);
        }
        self.sending.step(now.monotonic_ns, actions);
        self.receiving.step(now.monotonic_ns, actions);
        Ok(())
    }
}
