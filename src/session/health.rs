//! The health of both ends of a session: this end's, as far as the peer has it, and the peer's, as it reported it.

use std::sync::Arc;

use crate::wire::Health;

/// The reports of one session. Each session begins with a whole report, because the peer may be another process than
/// before.
#[derive(Debug, Default)]
pub(super) struct HealthReports {
    own: Arc<Health>,
    sent: Health,
    peer: Health,
    /// Whether a heartbeat of the peer arrived.
    heard: bool,
}

impl HealthReports {
    /// This end's health is now `own`.
    pub fn set(&mut self, own: Arc<Health>) {
        self.own = own;
    }

    /// The changes for the next heartbeat, which must be sent; `None` if there are none.
    pub fn take_changes(&mut self) -> Option<Box<Health>> {
        let changes = self.own.since(&self.sent);
        self.sent.apply(&changes);
        (!changes.is_empty()).then(|| Box::new(changes))
    }

    /// Records the changes of a heartbeat from the peer. Returns the peer's whole health, if it changed or is the first one
    /// of this session.
    pub fn received(&mut self, changes: Option<Box<Health>>) -> Option<Arc<Health>> {
        let is_news = changes.is_some() || !self.heard;
        self.heard = true;
        self.peer.apply(&changes.unwrap_or_default());
        is_news.then(|| Arc::new(self.peer.clone()))
    }
}
