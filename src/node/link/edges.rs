//! The roll: the edges that a hub knows, with the status of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::history::{EdgeHistories, EdgeReading};
use super::missing::MissingChanges;
use super::status::LinkStatus;
use crate::model::LabelSet;
use crate::net::identity::EdgeIdentity;
use crate::wire::Health;

/// The number of edges remembered. Beyond that, a retired edge is forgotten, or else the one that has been away longest.
pub(super) const EDGES_MAX: usize = 10_000;

/// The status of one edge at its hub.
#[derive(Clone, Debug, Default)]
pub struct EdgeStatus {
    /// Its site labels.
    pub site: Arc<LabelSet>,
    /// The status of its link.
    pub link: LinkStatus,
    /// The address from which it last connected.
    pub address: Option<SocketAddr>,
    /// The begin of the validity of that certificate, in the same way.
    pub certificate_start_seconds: u64,
    /// When the certificate of its last session expires, in seconds since the epoch; 0 if it had no session.
    pub certificate_expiry_seconds: u64,
    /// The identity in its own certificate, if it was known by another one in its last session: of a box in between.
    pub own_identity: Option<EdgeIdentity>,
    /// Whether it showed a token in its last session, and no certificate.
    pub has_token: bool,
    /// Its changes that are known to be missing here.
    pub missing: MissingChanges,
    /// Sessions refused under its name, by reason.
    pub refused: BTreeMap<String, u64>,
    /// The last refusal, if no session was established since.
    pub refusal: Option<Refusal>,
    /// Its software and version, as it last said.
    pub software: String,
    /// Its health, as it last reported it.
    pub health: Arc<Health>,
    /// When an operator took it out of service, in nanoseconds since the epoch; 0 if none did.
    pub retired_ns: u64,
}

/// The refusal of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason as the protocol has it.
    pub reason: String,
    /// The reason for people.
    pub text: String,
    /// When it happened, in nanoseconds since the epoch.
    pub at_ns: u64,
}

impl EdgeStatus {
    /// The age of the edge's oldest change that is known to be missing here, in nanoseconds; 0 if none is. Of an edge that
    /// is away this is what its last heartbeat said: pushes that it accepts meanwhile are not known.
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        self.missing.since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns))
    }

    /// Its state for a sample of its history.
    pub fn reading(&self, now_ns: u64) -> EdgeReading {
        EdgeReading { is_connected: self.link.connected, pushes: self.health.pushes, lag_ns: self.lag_ns(now_ns) }
    }
}

/// The status of all edges that a hub knows, by name: the roll. [`super::roll`] makes it durable.
#[derive(Default)]
pub struct EdgeRegistry {
    edges: Mutex<BTreeMap<String, EdgeStatus>>,
    /// Counts the changes that the roll on disk must have soon.
    changes: AtomicU64,
    /// The last hour of each.
    pub histories: EdgeHistories,
}

/// The reasons for which an edge cannot be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForgotten {
    /// There is no such edge.
    Unknown,
    /// The edge is connected.
    Connected,
}

impl EdgeRegistry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, EdgeStatus>> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the status of an edge, and adds the edge if it is new.
    pub fn update<T>(&self, name: &str, change: impl FnOnce(&mut EdgeStatus) -> T) -> T {
        let mut edges = self.lock();
        if !edges.contains_key(name) {
            self.changes.fetch_add(1, Ordering::Relaxed);
            if edges.len() >= EDGES_MAX {
                let gone = edges.iter().filter(|(_, edge)| !edge.link.connected);
                let oldest = gone.min_by_key(|(_, edge)| (edge.retired_ns == 0, edge.link.last_seen_ns));
                if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                    edges.remove(&oldest);
                }
            }
        }
        change(edges.entry(name.to_string()).or_default())
    }

    /// The same for a change that the roll on disk must have soon.
    pub fn record<T>(&self, name: &str, change: impl FnOnce(&mut EdgeStatus) -> T) -> T {
        let changed = self.update(name, change);
        self.changes.fetch_add(1, Ordering::Relaxed);
        changed
    }

    /// Changes the status of an edge if it is known.
    pub fn update_known<T>(&self, name: &str, change: impl FnOnce(&mut EdgeStatus) -> T) -> Option<T> {
        self.lock().get_mut(name).map(change)
    }

    /// The number of changes that the roll on disk must have.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Adds an edge that the configuration names, so that one that never connects is shown as missing.
    pub fn expect(&self, name: &str, site: &LabelSet) {
        self.update(name, |edge| {
            // The site of the last session stays: its groups have it.
            if edge.link.sessions == 0 {
                edge.site = Arc::new(site.clone());
            }
        });
    }

    /// Removes an edge from the roll. It is added again when it connects.
    ///
    /// # Errors
    /// If it is not known, or connected.
    pub fn forget(&self, name: &str) -> Result<(), NotForgotten> {
        let mut edges = self.lock();
        match edges.get(name) {
            None => return Err(NotForgotten::Unknown),
            Some(edge) if edge.link.connected => return Err(NotForgotten::Connected),
            Some(_) => drop(edges.remove(name)),
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether an operator took the edge out of service.
    pub fn is_retired(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|edge| edge.retired_ns > 0)
    }

    /// A copy of the status of one edge.
    pub fn get(&self, name: &str) -> Option<EdgeStatus> {
        self.lock().get(name).cloned()
    }

    /// A copy of the status of every edge.
    pub fn list(&self) -> Vec<(String, EdgeStatus)> {
        self.lock().iter().map(|(name, edge)| (name.clone(), edge.clone())).collect()
    }

    /// The number of edges known.
    pub fn count(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_roll_loses_the_retired_edge_and_then_the_one_away_longest() {
        let edges = EdgeRegistry::default();
        for at in 0..EDGES_MAX {
            edges.update(&format!("edge-{at}"), |edge| edge.link.last_seen_ns = at as u64 + 10);
        }
        edges.update("edge-7", |edge| edge.retired_ns = 1);
        edges.update("edge-0", |edge| edge.link.connected = true);
        let has = |name: &str| edges.list().iter().any(|(known, _)| known == name);
        edges.update("new-1", |_| ());
        assert!(!has("edge-7") && has("edge-1"));
        edges.update("new-2", |edge| edge.link.last_seen_ns = 99);
        assert!(has("edge-0"), "connected");
        assert_eq!(edges.count(), EDGES_MAX);
    }

    #[test]
    fn an_edge_is_forgotten_unless_it_is_connected() {
        let edges = EdgeRegistry::default();
        assert_eq!(edges.forget("syq-1"), Err(NotForgotten::Unknown));
        edges.update("syq-1", |edge| edge.link.connected = true);
        assert_eq!(edges.forget("syq-1"), Err(NotForgotten::Connected));
        edges.update("syq-1", |edge| edge.link.connected = false);
        let changes = edges.changes();
        assert_eq!(edges.forget("syq-1"), Ok(()));
        assert!(edges.changes() > changes && edges.count() == 0);
    }
}
