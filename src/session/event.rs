//! The inputs and outputs of an endpoint: events, actions, and the values that they carry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{GroupId, LabelSet, Position, Revision, StoreId};
use crate::store::{ChangeSet, PeerChange};
use crate::wire::{CloseReason, ConflictReport, Delta, Health, Hello, Message, PeerInfo};

use super::progress::PeerProgress;

/// The time at an endpoint. Timeouts use the monotonic clock; the wall clock is only compared with the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTime {
    /// Nanoseconds since any fixed moment; never decreases.
    pub monotonic_ns: u64,
    /// Nanoseconds since the Unix epoch, uncorrected.
    pub wall_ns: u64,
}

/// The batch size of nodes: [`Config::batch_bytes_max`].
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// The interval of nodes: [`Config::progress_ns`].
pub const PROGRESS_NS: u64 = 60 * SECOND_NS;

/// Times and bounds of a session, the same at both ends. `node/options.rs` has the defaults of those that an operator can
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The longest time that the handshake may take.
    pub handshake_ns: u64,
    /// Bytes of changes to read at once, and so to send in one update, unless a single push is larger.
    pub batch_bytes_max: usize,
    /// Bytes (before compression) of the largest message that this end accepts.
    pub message_bytes_max: usize,
    /// The interval at which the peer receives the revision reached, even if nothing since then concerns it. It then need not
    /// look at those revisions again.
    pub progress_ns: u64,
    /// The shortest time from one update to the next, except to catch up: changes made meanwhile are sent together. With 0,
    /// the next update goes when the previous one is acknowledged, or should be, and its pause of at most 10 ms is over. The
    /// first change after a silence never waits.
    pub send_interval_ns: u64,
}

/// The configuration of a hub's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Times and bounds that both ends have.
    pub link: Config,
    /// The interval at which both ends send a heartbeat, limited to 100 ms to 60 s. A peer is dead after three intervals
    /// without a byte.
    pub heartbeat_ns: u64,
}

pub(super) const SECOND_NS: u64 = 1_000_000_000;
pub(super) const MILLISECOND_NS: u64 = 1_000_000;

/// An input of an endpoint.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message arrived.
    Message(Message),
    /// Bytes arrived, perhaps only a part of a message: a large one takes its time on a slow line.
    Heard,
    /// Bytes arrived that are no message, with the reason.
    Malformed(String),
    /// The store has published, and made durable, all its changes up to here.
    Head(Revision),
    /// This node's health, which heartbeats report from now on. A hub reports none.
    Health(Arc<Health>),
    /// The answer to [`SessionAction::Read`].
    Read(Batch),
    /// A commit is durable. Commits end in the order in which they were requested.
    Committed {
        /// The commit.
        id: CommitId,
        /// The families of it that the store keeps but does not show, because they conflict.
        suppressed: Vec<ConflictReport>,
    },
    /// A commit failed, with the reason, and nothing of it is in the store. The session ends; the peer sends it again.
    CommitFailed(String),
    /// The hub admits the edge: the answer to [`SessionAction::Admit`].
    Admitted(Admitted),
    /// The hub refuses the edge: the answer to [`SessionAction::Admit`].
    Refused(Refused),
    /// The node ends the session.
    Stop(Refused),
    /// The time of [`super::Endpoint::next_timeout`] has come.
    Tick,
}

/// An output of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionAction {
    /// Send a message.
    Send(Message),
    /// Decide whether the edge with this hello may join (hub only); answered by [`Event::Admitted`] or
    /// [`Event::Refused`].
    ///
    /// If this session replaces another, the commits of that one must end before the peer info of the answer is read.
    Admit(Hello),
    /// Read changes of the store, in the order of their revisions; answered by [`Event::Read`]. At most one read is under
    /// way.
    Read {
        /// Read the changes after this revision.
        since: Revision,
        /// Changes that the peer has already.
        skip: OriginFilter,
        /// End the batch at the first revision that reaches this many bytes.
        bytes_max: usize,
    },
    /// Merge the deltas and set the cursor for the peer's store, all in ONE transaction; answered by
    /// [`Event::Committed`] or [`Event::CommitFailed`]. Commits are performed in order.
    Commit {
        /// Names the commit in the answer.
        id: CommitId,
        /// The changes to merge; at a hub, under the session's site.
        deltas: Vec<Delta>,
        /// The peer's store: the key of the cursor, and the origin of the changes.
        peer: StoreId,
        /// The new cursor for the peer's store. The zero position means: none until a resync is complete.
        position: Position,
    },
    /// Report an event of the session to its observer: status, metrics, logs.
    Notify(SessionEvent),
    /// The session is over: send the messages requested before, close the connection, and drop the endpoint.
    Close(Closed),
}

/// An event of a session that its observer should know: for the status of the link, metrics and logs.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// The handshake is complete.
    Established(Box<Established>),
    /// The resync that [`Established`] announced is complete: both stores have everything that either had.
    ResyncCompleted,
    /// The peer has durably all of this store's changes up to here. The first one of a session may be less than the last one
    /// of the session before.
    PeerAcked(Revision),
    /// The peer's durable cursor for this store is at least here, so tombstones up to here may be dropped. If they were
    /// dropped beyond it, the next session could not resume. The first one of a session may be less, as above.
    PeerCursor(Revision),
    /// This store has durably the peer's changes up to here.
    Received(Revision),
    /// This store has durably the peer's changes up to here, even where no cursor says so: during a resync.
    ReceivedUpto(Revision),
    /// This store has published its changes up to here.
    Head(Revision),
    /// The peer's wall clock minus this node's, in nanoseconds.
    ClockOffset(i64),
    /// The changes of the peer that it believes are missing here.
    PeerLag {
        /// The age of the oldest of them, in nanoseconds; 0 if there is none.
        lag_ns: u64,
        /// The revision of the peer's store, counting only changes for this node.
        head: Revision,
    },
    /// The peer's whole health as it reported it: with its first heartbeat of the session, even if it reports none, and after
    /// every change.
    PeerHealth(Arc<Health>),
    /// The peer keeps these families but does not show them.
    Suppressed(Vec<ConflictReport>),
    /// A family is too large for the peer and was left out; or a whole group was, because its key alone is too large.
    Unsendable {
        /// The group.
        id: GroupId,
        /// The family's name; `None` if it is the group.
        family: Option<Arc<str>>,
        /// The bytes that it may take.
        bytes: usize,
        /// The bytes that the peer accepts.
        bytes_max: usize,
    },
    /// A message arrived.
    Heard,
}

impl SessionEvent {
    /// Updates the progress of the exchange with the peer's store, which outlives the session.
    pub fn follow(&self, progress: &mut Option<PeerProgress>) {
        match (self, progress) {
            (Self::Established(established), progress) => *progress = Some(established.progress.clone()),
            (Self::PeerAcked(revision), Some(progress)) => progress.acked = progress.acked.max(*revision),
            (Self::ReceivedUpto(revision), Some(progress)) => progress.received = progress.received.max(*revision),
            _ => {}
        }
    }
}

/// A filter of a batch: it leaves out changes that came from store `origin` and that this store applied after `after`.
///
/// A change counts as the peer's only if the family, or the header as a whole, is exactly as that peer sent it. A header
/// that merges fields of several writers is the merging node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginFilter {
    /// The peer's store.
    pub origin: StoreId,
    /// A revision of this store.
    pub after: Revision,
}

/// Changes read from the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The changes. The site of their ids is not used.
    pub deltas: Vec<Delta>,
    /// The batch contains all changes up to here, except those left out by the filter, and no later ones.
    pub upto: Revision,
    /// Whether later changes exist already.
    pub more: bool,
}

impl From<ChangeSet> for Batch {
    fn from(set: ChangeSet) -> Self {
        let delta =
            |change: PeerChange| Delta { id: GroupId { site: Arc::default(), key: change.key }, group: change.group };
        Self { deltas: set.changes.into_iter().map(delta).collect(), upto: set.upto, more: set.more }
    }
}

/// Names a commit within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub u64);

/// The hub's decision to let an edge in.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// The hub's peer info at this moment; `cursors` must contain the one for the edge's store.
    pub info: PeerInfo,
    /// The site labels of the edge.
    pub site: LabelSet,
    /// The stores of the hubs above this one, directly or indirectly.
    pub upstream_stores: Vec<StoreId>,
    /// The progress of earlier sessions with the edge's store.
    pub progress: Option<PeerProgress>,
}

/// The reason for which an edge is refused, or a session is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason as the protocol has it.
    pub reason: CloseReason,
    /// The reason for people.
    pub text: String,
    /// The delay before the peer shall connect again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// The result of the handshake.
#[derive(Clone, Debug, PartialEq)]
pub struct Established {
    /// The peer info that the peer sent.
    pub peer: PeerInfo,
    /// The site labels of the edge.
    pub site: LabelSet,
    /// Whether the stores resync, instead of resuming.
    pub resync: bool,
    /// The interval at which both ends send a heartbeat.
    pub heartbeat_ns: u64,
    /// The stores of the hubs above the hub, directly or indirectly.
    pub upstream_stores: Vec<StoreId>,
    /// How far the stores have each other's changes at the start of the session.
    pub progress: PeerProgress,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The reason as the protocol has it.
    pub reason: CloseReason,
    /// The reason for people.
    pub text: String,
    /// Whether the peer ended it.
    pub by_peer: bool,
    /// The delay before connecting again that the peer asked for, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// The longest delay before connecting again that a peer can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// For people.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            CloseReason::Other(0) => f.write_str(&self.text),
            reason if self.by_peer => write!(f, "{reason}: {} (said the peer)", self.text),
            reason => write!(f, "{reason}: {}", self.text),
        }
    }
}

impl Closed {
    /// The connection was lost without a close message.
    pub fn lost(text: impl Into<String>) -> Self {
        Self { reason: CloseReason::Other(0), text: text.into(), by_peer: true, retry_after_ms: None }
    }

    /// The delay before connecting again that the peer, or the reason of the end, asks for; an hour at most.
    ///
    /// A session that was replaced has a twin with the same store. Connecting at once would only end the twin's session, so
    /// it waits as long as the backoff allows.
    pub fn retry_after(&self, backoff_max: Duration) -> Option<Duration> {
        let asked = self.retry_after_ms.map(|ms| Duration::from_millis(ms).min(RETRY_AFTER_MAX));
        match self.reason {
            CloseReason::Replaced => Some(asked.unwrap_or_default().max(backoff_max)),
            _ => asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_session_waits_for_the_longest_backoff() {
        let (second, max) = (Duration::from_secs(1), Duration::from_secs(30));
        let closed = |reason, retry_after_ms| Closed { reason, text: String::new(), by_peer: true, retry_after_ms };
        assert_eq!(closed(CloseReason::Replaced, None).retry_after(max), Some(max));
        assert_eq!(closed(CloseReason::Replaced, Some(60_000)).retry_after(max), Some(60 * second));
        assert_eq!(closed(CloseReason::Storage, Some(5_000)).retry_after(max), Some(5 * second));
        assert_eq!(closed(CloseReason::Storage, Some(u64::MAX)).retry_after(max), Some(RETRY_AFTER_MAX));
        assert_eq!(closed(CloseReason::Shutdown, None).retry_after(max), None);
    }
}
