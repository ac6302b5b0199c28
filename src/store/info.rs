//! The state of a store between two transactions, as the handshake of a link needs it.

use std::collections::HashMap;

use crate::model::{Position, Revision, StoreId};

use super::record::PeerCursor;
use super::writer::Store;

/// The state of a store between two transactions, as a handshake needs it.
#[derive(Clone, Debug)]
pub struct StoreInfo {
    /// The store.
    pub store: StoreId,
    /// Its epochs, oldest first.
    pub epochs: Vec<Position>,
    /// The newest published revision.
    pub head: Revision,
    /// The newest revision of a tombstone that was dropped.
    pub gc_watermark: Revision,
    /// The positions in the stores of peers up to which their changes are durable here.
    pub cursors: HashMap<StoreId, PeerCursor>,
}

impl Store {
    /// The published state, with the cursor of one peer or of all.
    pub fn info(&self, peer: Option<StoreId>) -> StoreInfo {
        let cursors = match peer {
            Some(peer) => self.cursors().get(&peer).map(|cursor| (peer, cursor.clone())).into_iter().collect(),
            None => self.cursors().clone(),
        };
        StoreInfo {
            store: self.identity().store,
            epochs: self.epochs().to_vec(),
            head: self.published().head(),
            gc_watermark: self.gc_watermark(),
            cursors,
        }
    }
}
