//! Notifies links when a commit changes their scope.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::commit::engine::changed_scopes;
use crate::model::Revision;
use crate::store::{Committed, Scope};

/// A channel for each scope that a link follows. It carries the newest revision that changed the scope.
#[derive(Default)]
pub(super) struct ChangeNotifier(Mutex<HashMap<Scope, watch::Sender<Revision>>>);

impl ChangeNotifier {
    /// Subscribes to a scope whose newest revision is `head`.
    pub(super) fn subscribe(&self, scope: Scope, head: Revision) -> watch::Receiver<Revision> {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, sender| sender.receiver_count() > 0);
        senders.entry(scope).or_insert_with(|| watch::Sender::new(head)).subscribe()
    }

    /// Notifies the links whose scope a commit changed.
    pub(super) fn notify(&self, committed: &Committed) {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in changed_scopes(committed).filter_map(|scope| senders.get(&scope)) {
            sender.send_replace(committed.head);
        }
    }
}
