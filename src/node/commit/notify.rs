//! Notifies links when a commit changes their scope.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::model::Revision;
use crate::store::{Committed, Scope};

/// Tells those who wait for changes in a scope.
#[derive(Default)]
pub(super) struct ChangeNotifier(Mutex<HashMap<Scope, watch::Sender<Revision>>>);

impl ChangeNotifier {
    pub(super) fn subscribe(&self, scope: Scope, head: Revision) -> watch::Receiver<Revision> {
        let mut notifier = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notifier.retain(|_, sender| sender.receiver_count() > 0);
        notifier.entry(scope).or_insert_with(|| watch::Sender::new(head)).subscribe()
    }

    pub(super) fn notify(&self, committed: &Committed) {
        let notifier = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sites = committed.sites.iter().map(|site| Scope::Site(site.clone()));
        let shown = (!committed.sites.is_empty()).then_some(Scope::Shown);
        for sender in sites.chain(shown).filter_map(|scope| notifier.get(&scope)) {
            sender.send_replace(committed.head);
        }
    }
}
