//! Which stores are above a hub that sends on to other hubs: so that links which lead around are found.
//!
//! A hub tells its edges which hubs it sends to, and what those told it. An edge that hears of its own store is part of a
//! loop, in which every resync would add a copy of every group under one more place; it ends that link.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::model::StoreId;
use crate::wire::message::UPSTREAM_STORES_MAX;

/// By the number of the uplink, its hub's store and those above that, as last heard.
#[derive(Default)]
pub struct UpstreamStores(Mutex<BTreeMap<usize, Vec<StoreId>>>);

impl UpstreamStores {
    /// Notes what an uplink leads to. Returns whether that makes a difference to what edges are told.
    pub fn set(&self, uplink: usize, stores: Vec<StoreId>) -> bool {
        let before = self.stores();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uplink, stores);
        before != self.stores()
    }

    /// All of them, each once, sorted; no more than a message takes.
    pub fn stores(&self) -> Vec<StoreId> {
        let uplinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stores: Vec<StoreId> = uplinks.values().flatten().copied().collect();
        stores.sort_unstable();
        stores.dedup();
        stores.truncate(UPSTREAM_STORES_MAX);
        stores
    }
}
