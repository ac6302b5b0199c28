//! Commands to the commit worker, and their errors.

use std::collections::HashMap;
use std::fmt;

use tokio::sync::oneshot;

use crate::model::{Position, Revision, StoreId};
use crate::node::draft::{Merge, MergeError};
use crate::storage::CheckpointError;
use crate::store::{PeerCursor, Scope, StoreRefusal};
use crate::wire::ConflictReport;

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The store refused it; trying the same again cannot help.
    Refused(StoreRefusal),
    /// It could not be made durable; nothing of it is in the store, and trying again may help.
    Storage(String),
    /// It is more than can be made durable at once; nothing of it is in the store, and the same can never be.
    TooLarge(String),
    /// A wipe went so far and no further.
    Partly {
        /// Groups that are deleted,
        deleted: usize,
        /// of so many.
        of: usize,
        /// Why not all.
        error: Box<WriteError>,
    },
    /// The node is shutting down.
    Stopped,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Storage(text) => {
                write!(f, "the store cannot be written, nothing was changed, try again later: {text}")
            }
            Self::TooLarge(text) => write!(f, "nothing was changed, do it in smaller parts: {text}"),
            Self::Partly { deleted, of, error } => {
                write!(f, "{deleted} of {of} groups are deleted, of the others: {error}")
            }
            Self::Stopped => f.write_str("the node is shutting down, nothing was changed, try again later"),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<MergeError> for WriteError {
    fn from(error: MergeError) -> Self {
        match error {
            MergeError::Refused(refusal) => Self::Refused(refusal),
            MergeError::Broken => Self::Storage(error.to_string()),
        }
    }
}

impl From<StoreRefusal> for WriteError {
    fn from(refusal: StoreRefusal) -> Self {
        Self::Refused(refusal)
    }
}

pub(super) type Responder = oneshot::Sender<Result<(), WriteError>>;

pub(super) enum Command {
    /// Pushes wait at the desk.
    Waiting,
    Wipe {
        reply: Responder,
    },
    Merge {
        merge: Merge,
        reply: Responder,
        held_back: oneshot::Sender<Vec<ConflictReport>>,
    },
    HeldBack {
        scope: Scope,
        reports: Vec<ConflictReport>,
    },
    /// The hub of that uplink holds all changes up to there.
    Holds {
        uplink: usize,
        revision: Revision,
    },
    PeerInfo {
        peer: Option<StoreId>,
        reply: oneshot::Sender<StoreInfo>,
    },
    Sweep,
    Checkpointed(Result<(), CheckpointError>),
    Stop,
}

/// What a store says of itself to a peer, at one moment between two batches.
#[derive(Clone, Debug)]
pub struct StoreInfo {
    /// The store.
    pub store: StoreId,
    /// Its openings, oldest first.
    pub epochs: Vec<Position>,
    /// Up to where it is published.
    pub head: Revision,
    /// The newest revision of which a tombstone was dropped.
    pub gc_watermark: Revision,
    /// What it holds of others.
    pub cursors: HashMap<StoreId, PeerCursor>,
}

/// How long tombstones are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How many uplinks must hold a tombstone before it goes.
    pub uplinks: usize,
    /// A hub keeps tombstones for as long as this after the delete; 0 at a node that is no hub.
    pub hub_ns: u64,
}
