//! The edges that a hub knows, with the status of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::status::LinkStatus;
use crate::model::LabelSet;

/// The number of edges remembered. Beyond that, the edge that has been away longest is forgotten.
const EDGES_MAX: usize = 10_000;

/// The status of one edge at its hub.
#[derive(Clone, Debug, Default)]
pub struct EdgeStatus {
    /// Its site labels.
    pub site: Arc<LabelSet>,
    /// The status of its link.
    pub link: LinkStatus,
    /// The address from which it last connected.
    pub address: Option<SocketAddr>,
    /// When its certificate expires, in seconds since the epoch.
    pub certificate_expiry_seconds: u64,
    /// The age of its oldest change that the hub does not have, as the edge last reported it, in nanoseconds.
    pub reported_lag_ns: u64,
    /// Sessions refused under its name, by reason.
    pub refused: BTreeMap<String, u64>,
}

impl EdgeStatus {
    /// The age of the edge's oldest change that the hub does not have, in nanoseconds. A silent edge cannot report it; its
    /// changes are at most as old as its silence.
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        let silent_ns = now_ns.saturating_sub(self.link.last_seen_ns);
        if self.link.connected { self.reported_lag_ns } else { silent_ns }
    }
}

/// The status of all edges that a hub knows, by name.
#[derive(Default)]
pub struct EdgeRegistry(Mutex<BTreeMap<String, EdgeStatus>>);

impl EdgeRegistry {
    /// Changes the status of an edge, and adds the edge if it is new.
    pub fn update<T>(&self, name: &str, change: impl FnOnce(&mut EdgeStatus) -> T) -> T {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !edges.contains_key(name) && edges.len() >= EDGES_MAX {
            let gone = edges.iter().filter(|(_, edge)| !edge.link.connected);
            if let Some(oldest) = gone.min_by_key(|(_, edge)| edge.link.last_seen_ns).map(|(name, _)| name.clone()) {
                edges.remove(&oldest);
            }
        }
        change(edges.entry(name.to_string()).or_default())
    }

    /// Adds an edge that the configuration names, so that one that never connects is shown as missing.
    pub fn expect(&self, name: &str, site: &LabelSet) {
        self.update(name, |edge| {
            if !edge.link.connected {
                edge.site = Arc::new(site.clone());
            }
        });
    }

    /// A copy of the status of every edge.
    pub fn list(&self) -> Vec<(String, EdgeStatus)> {
        let edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().map(|(name, edge)| (name.clone(), edge.clone())).collect()
    }

    /// The number of edges known.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
