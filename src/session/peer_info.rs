//! The part of a store's state that a peer gets in the handshake.

use crate::model::{LabelSet, StoreId};
use crate::store::{PeerCursor, StoreInfo};
use crate::wire::message::CURSORS_MAX;
use crate::wire::{EpochStart, PeerInfo, StoreCursor};

/// The name and the software of a node, as its handshakes have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// The node's name.
    pub node: String,
    /// The software and its version.
    pub software: String,
}

impl NodeName {
    /// The peer info for a hub: the cursors for hubs. A relay has cursors for its edges too, perhaps more than a message can
    /// carry; those have a site.
    pub fn info_for_hub(&self, info: StoreInfo) -> PeerInfo {
        self.info(info, |_, cursor| cursor.site.is_empty())
    }

    /// The peer info for the edge that has the store `peer`, at a site: the cursor for that store. One of another site does
    /// not count: what it covers is not in this site's groups.
    pub fn info_for_edge(&self, info: StoreInfo, peer: StoreId, site: &LabelSet) -> PeerInfo {
        self.info(info, |store, cursor| store == peer && *cursor.site == *site)
    }

    fn info(&self, info: StoreInfo, is_for_peer: impl Fn(StoreId, &PeerCursor) -> bool) -> PeerInfo {
        let StoreInfo { store, epochs, head, gc_watermark, cursors } = info;
        let cursors = cursors.into_iter().filter(|(store, cursor)| is_for_peer(*store, cursor));
        let mut cursors: Vec<StoreCursor> =
            cursors.map(|(store, cursor)| StoreCursor { store, position: cursor.position }).collect();
        cursors.sort_by_key(|cursor| cursor.store);
        cursors.truncate(CURSORS_MAX);
        let epochs = epochs.into_iter().map(|p| EpochStart { epoch: p.epoch, revision: p.revision }).collect();
        let NodeName { node, software } = self.clone();
        PeerInfo { node, software, store, epochs, head, gc_watermark, cursors, identity: String::new() }
    }
}
