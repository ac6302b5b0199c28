//! The commands that requests and links give to the commit engine, and the errors of their replies.

use std::fmt;
use std::sync::Arc;

use super::transaction::{Merge, MergeError};
use crate::model::{GroupId, LabelSet, Revision, StoreId};
use crate::store::{Scope, StoreRefusal, WriteOp, WriteTerms};
use crate::wire::ConflictReport;

/// A write with more values than this is committed alone: if a transaction is too large, the error must reach the
/// client that caused it, and nobody else.
pub const SHARED_VALUES_MAX: usize = 16_384;

/// The types by which callers receive their replies: channels in a node, ids in a simulation.
pub trait ReplyTokens {
    /// Receives the outcome of a write or a wipe.
    type Write;
    /// Receives the outcome of a merge.
    type Merge;
    /// Receives a [`StoreInfo`](crate::store::StoreInfo).
    type Info;
}

/// A request to the engine.
pub enum Command<R: ReplyTokens> {
    /// Write to one group.
    Write(GroupWrite<R::Write>),
    /// Delete all groups of a scope.
    Wipe {
        /// The groups to delete.
        scope: Scope,
        /// Receives the outcome once all deletes are durable.
        reply: R::Write,
    },
    /// Delete those of the groups that have expired.
    Expire {
        /// The groups; at most some dozen, as they share a transaction with pushes.
        groups: Vec<GroupId>,
        /// Receives the outcome once all deletes are durable.
        reply: R::Write,
    },
    /// Merge an update of a peer.
    Merge {
        /// The update.
        merge: Merge,
        /// Receives the families that are suppressed.
        reply: R::Merge,
    },
    /// Record that a peer suppresses families: the last pushes of their groups failed there.
    NoteConflicts {
        /// The scope that the peer's link has.
        scope: Scope,
        /// The suppressed families.
        reports: Vec<ConflictReport>,
    },
    /// Record that the hub of an uplink has all changes up to a revision, durably.
    UplinkAcked {
        /// The number of the uplink.
        uplink: usize,
        /// The revision.
        revision: Revision,
    },
    /// The right time was `right_ns` when the monotonic clock showed `monotonic_ns`: correct the write timestamps that
    /// were made with a wrong clock.
    ConfirmClock {
        /// The right time, in nanoseconds since the Unix epoch.
        right_ns: u64,
        /// The monotonic clock at that time.
        monotonic_ns: u64,
    },
    /// Report the state of the store for a handshake.
    Info {
        /// Report the cursor of this peer only; of all peers if `None`.
        peer: Option<StoreId>,
        /// Receives the report.
        reply: R::Info,
    },
    /// Drop the tombstones that no peer needs any more.
    Sweep,
}

/// A write to one group.
#[derive(Debug)]
pub struct GroupWrite<T> {
    /// The labels under which the group is shown.
    pub shown: Arc<LabelSet>,
    /// The change.
    pub op: WriteOp,
    /// The lifetime and the quota of a push.
    pub terms: WriteTerms,
    /// The number of values in the change.
    pub values: usize,
    /// Receives the outcome.
    pub reply: T,
}

impl<T> GroupWrite<T> {
    /// Whether the write is committed alone.
    pub fn is_large(&self) -> bool {
        self.values > SHARED_VALUES_MAX
    }
}

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The store refused it. A retry cannot help.
    Refused(StoreRefusal),
    /// It could not be made durable, and the store is unchanged. A retry may help.
    Storage(String),
    /// It is larger than a transaction may be, and the store is unchanged. A retry cannot help.
    TooLarge(String),
    /// A wipe stopped early.
    Partly {
        /// The number of groups that are deleted.
        deleted: usize,
        /// The number of groups when the wipe began.
        of: usize,
        /// Why the wipe stopped.
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

/// Why a transaction could not be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFailure {
    /// The reason, for people.
    pub text: String,
    /// Whether the same transaction may succeed later.
    pub is_retryable: bool,
}

/// How long tombstones are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The number of uplinks whose hubs must have a tombstone before it is dropped.
    pub uplinks: usize,
    /// The age before which a hub keeps tombstones, in nanoseconds; 0 at a node that is no hub.
    pub hub_ns: u64,
}
