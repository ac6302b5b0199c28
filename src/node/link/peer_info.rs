//! Conversions between the store, the handshake's [`PeerInfo`] and text for people.

use crate::commit::StoreInfo;
use crate::node::metrics::VERSION;
use crate::session::Closed;
use crate::wire::message::CURSORS_MAX;
use crate::wire::{CloseReason, EpochStart, PeerInfo, StoreCursor};

/// The peer info of this node's store, for the handshake.
pub fn peer_info(node: &str, info: StoreInfo) -> PeerInfo {
    let StoreInfo { store, epochs, head, gc_watermark, cursors } = info;
    PeerInfo {
        node: node.into(),
        software: format!("pushrelay {VERSION}"),
        store,
        epochs: epochs.into_iter().map(|p| EpochStart { epoch: p.epoch, revision: p.revision }).collect(),
        head,
        gc_watermark,
        cursors: cursors
            .into_iter()
            .map(|(store, cursor)| StoreCursor { store, position: cursor.position })
            .take(CURSORS_MAX)
            .collect(),
    }
}

/// The reason for which a session ended, for people.
pub fn close_text(closed: &Closed) -> String {
    match closed.reason {
        CloseReason::Other(0) => closed.text.clone(),
        reason if closed.by_peer => format!("{reason}: {} (said the peer)", closed.text),
        reason => format!("{reason}: {}", closed.text),
    }
}
