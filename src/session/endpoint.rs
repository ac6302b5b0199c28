//! One endpoint of a session, edge or hub: the rules that hold in every state, around the handshakes of `edge` and `hub`.

use std::collections::VecDeque;

use crate::wire::{CloseReason, Message, PeerInfo};

use super::edge::{EdgeConfig, EdgeHandshake};
use super::event::{Event, HubConfig, SessionAction, SessionEvent, SessionTime};
use super::fault::{SessionFault, close, closed_by_peer};
use super::hub::HubHandshake;
use super::open::OpenSession;

/// The state machine of one end of one session. It performs no I/O and reads no clock.
///
/// - [`Endpoint::edge`] or [`Endpoint::hub`] begins a session on a new connection.
/// - [`Endpoint::handle`] takes an event with the time at which it happened.
/// - [`Endpoint::poll_action`] returns the actions that the event caused, one at a time. Perform all of them, in order,
///   before the next event.
/// - [`Endpoint::next_timeout`] says when to call `handle` with [`Event::Tick`].
///
/// [`super::Connection`] wraps an endpoint for a driver that has frames instead of decoded messages.
#[derive(Debug)]
pub struct Endpoint {
    state: EndpointState,
    actions: VecDeque<SessionAction>,
}

#[derive(Debug)]
enum EndpointState {
    Edge(Box<EdgeHandshake>),
    Hub(Box<HubHandshake>),
    Open(Box<OpenSession>),
    Closed,
}

impl Endpoint {
    /// Begins a session at an edge. `info` describes the store at this moment. No other session with the same hub may have
    /// commits under way.
    pub fn edge(config: EdgeConfig, info: PeerInfo, now: SessionTime) -> Self {
        let mut actions = VecDeque::new();
        let handshake = EdgeHandshake::begin(config, info, now, &mut actions);
        Self { state: EndpointState::Edge(Box::new(handshake)), actions }
    }

    /// Begins a session at a hub.
    pub fn hub(config: HubConfig, now: SessionTime) -> Self {
        Self { state: EndpointState::Hub(Box::new(HubHandshake::new(config, now))), actions: VecDeque::new() }
    }

    /// The next action to perform.
    pub fn poll_action(&mut self) -> Option<SessionAction> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due, by the monotonic clock; `None` once the session is over.
    pub fn next_timeout(&self) -> Option<u64> {
        match &self.state {
            EndpointState::Edge(handshake) => Some(handshake.deadline_ns()),
            EndpointState::Hub(handshake) => Some(handshake.deadline_ns()),
            EndpointState::Open(session) => Some(session.next_timeout()),
            EndpointState::Closed => None,
        }
    }

    /// Whether [`Event::Head`] can change anything now. If not, the driver holds the newest head back until it can.
    pub fn wants_heads(&self) -> bool {
        match &self.state {
            EndpointState::Open(session) => session.wants_heads(),
            _ => true,
        }
    }

    /// Whether the handshake is complete. Before that, a peer has no updates to send.
    pub fn is_open(&self) -> bool {
        matches!(self.state, EndpointState::Open(_))
    }

    /// Reports an event to the observer, after the actions requested before.
    pub(super) fn notify(&mut self, event: SessionEvent) {
        if !matches!(self.state, EndpointState::Closed) {
            self.actions.push_back(SessionAction::Notify(event));
        }
    }

    /// Handles an event. [`Endpoint::poll_action`] then returns the actions that it caused.
    pub fn handle(&mut self, event: Event, now: SessionTime) {
        if let Event::Head(head) = event {
            self.notify(SessionEvent::Head(head));
        }
        let result = match (&mut self.state, event) {
            (EndpointState::Closed, _) => return,
            (_, Event::Message(Message::Close(close))) => {
                closed_by_peer(close, &mut self.actions);
                self.state = EndpointState::Closed;
                return;
            }
            (_, Event::Malformed(text)) => Err(SessionFault::new(CloseReason::Malformed, text)),
            (_, Event::CommitFailed(text)) => Err(SessionFault::storage(text)),
            (EndpointState::Open(session), event) => session.handle(event, now, &mut self.actions).map(|()| None),
            (_, Event::Stop(refused) | Event::Refused(refused)) => Err(refused.into()),
            (EndpointState::Edge(handshake), event) => handshake.handle(event, now, &mut self.actions),
            (EndpointState::Hub(handshake), event) => handshake.handle(event, now, &mut self.actions),
        };
        match result {
            Ok(None) => {}
            Ok(Some(session)) => self.state = EndpointState::Open(session),
            Err(fault) => {
                close(fault, &mut self.actions);
                self.state = EndpointState::Closed;
            }
        }
    }
}
