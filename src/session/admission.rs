//! The sessions of a hub, by the name of the edge.
//!
//! One name has one live session. A new session of the same store replaces the old one, which most likely is a connection
//! that broke unnoticed. Another store under the same name (two machines with one certificate, or a copy of the store) is
//! refused while the first session lives, so that the two do not end each other's sessions in turns.

use std::collections::HashMap;

use crate::model::{Epoch, StoreId};
use crate::wire::{EpochStart, PeerInfo};

/// The id of a session of a hub; the caller draws it at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmittedSession {
    /// The session.
    pub session: SessionId,
    /// The edge's store.
    pub store: StoreId,
    /// The store's epoch.
    pub epoch: Epoch,
}

/// The decision about a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitDecision {
    /// The edge may join.
    Admit,
    /// The edge may join as soon as this older session is over: ended, and its commits done.
    Replace(SessionId),
    /// Another store has a live session under the name.
    Taken {
        /// The store of the live session.
        by: StoreId,
    },
    /// The table is full.
    Full {
        /// The limit.
        sessions_max: usize,
    },
}

/// The table of live sessions.
#[derive(Clone, Debug)]
pub struct Admission {
    sessions: HashMap<Box<str>, AdmittedSession>,
    sessions_max: usize,
}

impl Admission {
    /// An empty table of at most `sessions_max` sessions.
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions: HashMap::new(), sessions_max }
    }

    /// Decides about a new session of the edge `name`, and adds it to the table if the edge may join. `name` is the one that
    /// the hub authenticated.
    pub fn admit(&mut self, name: &str, info: &PeerInfo, session: SessionId) -> AdmitDecision {
        let entry = AdmittedSession { session, store: info.store, epoch: info.epoch() };
        let decision = match self.sessions.get(name) {
            Some(old) if succeeds(&info.epochs, info.store, old) => AdmitDecision::Replace(old.session),
            Some(old) => AdmitDecision::Taken { by: old.store },
            None if self.sessions.len() >= self.sessions_max => AdmitDecision::Full { sessions_max: self.sessions_max },
            None => AdmitDecision::Admit,
        };
        if matches!(decision, AdmitDecision::Admit | AdmitDecision::Replace(_)) {
            self.sessions.insert(name.into(), entry);
        }
        decision
    }

    /// The decision about a session of the edge `name` without adding one. An unknown store has the id 0, and fits every
    /// session.
    pub fn preview(&self, name: &str, store: StoreId) -> AdmitDecision {
        match self.sessions.get(name) {
            Some(old) if store == StoreId::default() || old.store == store => AdmitDecision::Replace(old.session),
            Some(old) => AdmitDecision::Taken { by: old.store },
            None if self.sessions.len() >= self.sessions_max => AdmitDecision::Full { sessions_max: self.sessions_max },
            None => AdmitDecision::Admit,
        }
    }

    /// Removes a session that is over, unless another one replaced it.
    pub fn leave(&mut self, name: &str, session: SessionId) {
        if self.sessions.get(name).is_some_and(|entry| entry.session == session) {
            self.sessions.remove(name);
        }
    }

    /// The live session of that name.
    pub fn session(&self, name: &str) -> Option<AdmittedSession> {
        self.sessions.get(name).copied()
    }

    /// The number of live sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no live session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// Whether a new session comes from the store of the old one, later: its lineage contains the old session's epoch. The
/// lineage of a copy opened elsewhere does not, nor does that of the store after a rollback; such a session waits until
/// the old one is found dead.
fn succeeds(epochs: &[EpochStart], store: StoreId, old: &AdmittedSession) -> bool {
    store == old.store && epochs.iter().any(|start| start.epoch == old.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;

    fn info(store: u64, epochs: &[u64]) -> PeerInfo {
        PeerInfo {
            node: "syq-1".into(),
            software: String::new(),
            store: StoreId(store),
            epochs: epochs.iter().map(|e| EpochStart { epoch: Epoch(*e), revision: Revision(*e) }).collect(),
            head: Revision(100),
            gc_watermark: Revision(0),
            cursors: vec![],
            identity: String::new(),
        }
    }

    #[test]
    fn a_new_session_of_the_store_replaces_the_old_one() {
        let mut table = Admission::new(10);
        assert_eq!(table.admit("a", &info(1, &[5]), SessionId(1)), AdmitDecision::Admit);
        assert_eq!(table.admit("a", &info(1, &[5]), SessionId(2)), AdmitDecision::Replace(SessionId(1)));
        assert_eq!(
            table.admit("a", &info(1, &[5, 6]), SessionId(3)),
            AdmitDecision::Replace(SessionId(2)),
            "restarted"
        );
        table.leave("a", SessionId(2));
        assert_eq!(table.session("a").map(|entry| entry.session), Some(SessionId(3)));
        table.leave("a", SessionId(3));
        assert!(table.is_empty());
    }

    #[test]
    fn another_store_under_the_name_is_refused_while_the_first_has_a_session() {
        let mut table = Admission::new(10);
        table.admit("a", &info(1, &[5, 6]), SessionId(1));
        let taken = AdmitDecision::Taken { by: StoreId(1) };
        assert_eq!(table.admit("a", &info(2, &[5, 6]), SessionId(2)), taken);
        assert_eq!(table.admit("a", &info(1, &[5, 7]), SessionId(3)), taken, "a copy");
        assert_eq!(table.len(), 1);
        assert_eq!(table.preview("a", StoreId(2)), taken);
        for store in [0, 1] {
            assert_eq!(table.preview("a", StoreId(store)), AdmitDecision::Replace(SessionId(1)));
        }
        assert_eq!(table.preview("b", StoreId(2)), AdmitDecision::Admit);
        assert_eq!(table.len(), 1, "a preview adds nothing");
        assert_eq!(table.admit("b", &info(2, &[5]), SessionId(4)), AdmitDecision::Admit);
        table.leave("a", SessionId(1));
        assert_eq!(table.admit("a", &info(2, &[5]), SessionId(5)), AdmitDecision::Admit);
    }

    #[test]
    fn the_session_table_is_bounded() {
        let mut table = Admission::new(1);
        table.admit("a", &info(1, &[5]), SessionId(1));
        assert_eq!(table.admit("b", &info(2, &[5]), SessionId(2)), AdmitDecision::Full { sessions_max: 1 });
        assert_eq!(table.preview("b", StoreId(2)), AdmitDecision::Full { sessions_max: 1 });
        assert_eq!(table.admit("a", &info(1, &[5]), SessionId(3)), AdmitDecision::Replace(SessionId(1)));
    }
}
