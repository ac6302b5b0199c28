//! The stores above a hub that sends on to other hubs, from which an edge detects a loop of links.
//!
//! A hub tells its edges to which hubs it sends, and which stores those reported above themselves. An edge that finds its
//! own store in the list is part of a loop, in which every resync would add a copy of every group under one more site; it
//! ends that link.

use std::collections::BTreeMap;

use crate::model::StoreId;
use crate::wire::message::UPSTREAM_STORES_MAX;

use super::event::Established;

/// The stores above a hub, by the number of the uplink: the store of its hub, and those above that one, as last reported.
#[derive(Clone, Debug, Default)]
pub struct UpstreamStores(BTreeMap<usize, Vec<StoreId>>);

impl UpstreamStores {
    /// Records the stores of an uplink whose session is established. Returns whether the edges' list changes.
    pub fn established(&mut self, uplink: usize, established: &Established) -> bool {
        let before = self.stores();
        let stores = [&[established.peer.store], &*established.upstream_stores].concat();
        self.0.insert(uplink, stores);
        before != self.stores()
    }

    /// The list for edges: each store once, sorted, and no more than a message can carry.
    pub fn stores(&self) -> Vec<StoreId> {
        let mut stores: Vec<StoreId> = self.0.values().flatten().copied().collect();
        stores.sort_unstable();
        stores.dedup();
        stores.truncate(UPSTREAM_STORES_MAX);
        stores
    }
}
