//! Faults: the reasons for which an endpoint ends a session.

use std::collections::VecDeque;

use crate::model::StoreId;
use crate::wire::{Close, CloseReason, Message};

use super::event::{Closed, Refused, SessionAction};

/// The delay that a peer is asked to wait after its changes could not be made durable, in milliseconds. Retrying does not
/// empty a full disk.
const STORAGE_RETRY_MS: u64 = 5_000;

/// A reason to end the session.
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

    /// The peer broke a rule of the protocol.
    pub fn protocol(text: String) -> Self {
        Self::new(CloseReason::Protocol, text)
    }

    /// This node could not commit; the peer shall wait before it tries again.
    pub fn storage(text: String) -> Self {
        Self { retry_after_ms: Some(STORAGE_RETRY_MS), ..Self::new(CloseReason::Storage, text) }
    }

    /// A message arrived in a state that does not allow it.
    pub fn unexpected(message: &Message) -> Self {
        Self::protocol(format!("a message {} where it is not expected", message.name()))
    }

    /// Both endpoints have the same store id.
    pub fn same_store(store: StoreId) -> Self {
        let text = format!(
            "both ends have store {store}: one is a copy of the other and needs a new identity, or this node dials itself"
        );
        Self::new(CloseReason::SameStore, text)
    }
}

impl From<Refused> for SessionFault {
    fn from(refused: Refused) -> Self {
        Self { reason: refused.reason, text: refused.text, retry_after_ms: refused.retry_after_ms }
    }
}

/// Ends the session from this side: a close message, then the end.
pub(super) fn close(fault: SessionFault, actions: &mut VecDeque<SessionAction>) {
    let SessionFault { reason, text, retry_after_ms } = fault;
    actions.push_back(SessionAction::Send(Message::Close(Close { reason, text: text.clone(), retry_after_ms })));
    actions.push_back(SessionAction::Close(Closed { reason, text, by_peer: false, retry_after_ms: None }));
}

/// Ends the session after the peer sent a close message.
pub(super) fn closed_by_peer(close: Close, actions: &mut VecDeque<SessionAction>) {
    let Close { reason, text, retry_after_ms } = close;
    actions.push_back(SessionAction::Close(Closed { reason, text, by_peer: true, retry_after_ms }));
}
