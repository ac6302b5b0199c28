//! What goes into an end of the link, and what comes out.

use std::sync::Arc;

use crate::model::{GroupId, LabelSet, Position, Revision, StoreId};
use crate::wire::{CloseReason, ConflictReport, Delta, Hello, Message, PeerInfo};

/// What time it is. Timeouts go by the monotonic clock; the wall clock is only measured against the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTime {
    /// Nanoseconds since any fixed moment; never goes back.
    pub monotonic_ns: u64,
    /// Nanoseconds since the Unix epoch, uncorrected.
    pub wall_ns: u64,
}

/// Times and bounds that both ends have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long the handshake may take.
    pub handshake_ns: u64,
    /// Bytes of changes to read at once: how much is sent in one update, unless a single push is larger.
    pub batch_bytes_max: usize,
    /// Bytes (before compression) of the largest message taken here.
    pub message_bytes_max: usize,
    /// How often the peer is told of revisions that hold nothing for it, so that it need not look at them again.
    pub progress_ns: u64,
    /// The shortest time from one update to the next, unless to catch up: what changes meanwhile is sent together. With 0
    /// the next is sent when the one before is acknowledged, or should be, and its pause is over, 10 ms at most. The first
    /// change after a silence never waits.
    pub send_interval_ns: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_ns: 10 * SECOND_NS,
            batch_bytes_max: 1 << 20,
            message_bytes_max: 64 << 20,
            progress_ns: 60 * SECOND_NS,
            send_interval_ns: 0,
        }
    }
}

/// What a hub has to know besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Times and bounds.
    pub link: Config,
    /// How often both ends send a heartbeat; kept between 100 ms and 60 s. Three without one mean a dead peer.
    pub heartbeat_ns: u64,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self { link: Config::default(), heartbeat_ns: 5 * SECOND_NS }
    }
}

pub(super) const SECOND_NS: u64 = 1_000_000_000;
pub(super) const MILLISECOND_NS: u64 = 1_000_000;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came.
    Message(Message),
    /// Bytes have come, be they a part of a message only: a large one takes its time on a slow line.
    Heard,
    /// Bytes came that are no message: why.
    Malformed(String),
    /// The store has published, and holds durably, all its changes up to here.
    Head(Revision),
    /// The answer to [`SessionAction::Read`].
    Read(Batch),
    /// Families of the commit whose end is told next that are held back.
    HeldBack(Vec<ConflictReport>),
    /// A commit is durable. Commits end in the order in which they were asked for.
    Committed(CommitId),
    /// A commit failed, and nothing of it is in the store: why. The conversation ends; the peer will send it again.
    CommitFailed(String),
    /// The hub lets the edge in: the answer to [`SessionAction::Admit`].
    Admitted(Admitted),
    /// The hub does not let the edge in: the answer to [`SessionAction::Admit`].
    Refused(Refused),
    /// The node ends the conversation.
    Stop(Refused),
    /// [`super::Edge::next_timeout`] has come.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionAction {
    /// Send a message.
    Send(Message),
    /// Decide whether the edge that says this may come in (hub only); answered by [`Event::Admitted`] or
    /// [`Event::Refused`].
    ///
    /// If this session replaces one, that one's commits must be over before the facts of the answer are read.
    Admit(Hello),
    /// Read changes of the store, in the order of their revisions; answered by [`Event::Read`]. One is asked at a time.
    Read {
        /// Changes after this revision.
        since: Revision,
        /// Changes that the peer need not be sent.
        skip: OriginFilter,
        /// End the batch at the first revision with which this many bytes are reached.
        bytes_max: usize,
    },
    /// Merge the deltas and set the cursor for the peer's store, all in ONE transaction; answered by
    /// [`Event::Committed`]. Commits are performed in order.
    Commit {
        /// Names the commit in the answer.
        id: CommitId,
        /// What to merge; at a hub, under the place of the session.
        deltas: Vec<Delta>,
        /// The peer's store: the cursor's, and the origin of what changes by this merge.
        peer: StoreId,
        /// What is then held of the peer's store. The zero position means: nothing, until a resync is complete.
        position: Position,
    },
    /// The peer holds durably all of this store's changes up to here: tombstones up to here may go. The first one of a
    /// conversation may be less than the last one of the conversation before.
    PeerHolds(Revision),
    /// The peer keeps these families but does not show them.
    HeldBack(Vec<ConflictReport>),
    /// A family is too large for the peer and was left out; or a whole group, since its key alone is.
    Unsendable {
        /// The group.
        id: GroupId,
        /// The family's name; none if it is the group.
        family: Option<Arc<str>>,
        /// How many bytes it may take.
        bytes: usize,
        /// How many the peer takes.
        bytes_max: usize,
    },
    /// The peer's wall clock minus this node's, in nanoseconds.
    ClockOffset(i64),
    /// The age of the peer's oldest change that it knows not to be held here, in nanoseconds; 0 if there is none.
    PeerLag(u64),
    /// The handshake is over.
    Established(Established),
    /// The resync that [`Established`] announced is complete: both stores hold what either had.
    ResyncCompleted,
    /// The conversation is over: send what [`SessionAction::Send`] asked for before, close, and drop the session.
    Close(Closed),
}

/// Changes that a batch leaves out: those that came from store `origin`, and that this store applied after `after`.
///
/// A change counts as having come from a peer only if it left the family, or the header as a whole, exactly as that peer
/// sent it; a header in which fields of several writers were merged is the merging node's own.
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
    /// The changes. The place of their ids does not matter here.
    pub deltas: Vec<Delta>,
    /// All changes up to here, and no later ones, are in the batch (or were skipped).
    pub upto: Revision,
    /// Whether there are later ones already.
    pub more: bool,
}

/// Names a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub u64);

/// The hub's decision to let an edge in.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// The hub's facts now; `cursors` must contain what is held of the edge's store.
    pub info: PeerInfo,
    /// The place of the edge.
    pub site: LabelSet,
    /// Exchange even if the stores know each other: something else changed, such as the place of the edge.
    pub resync: bool,
    /// The stores of the hubs above this one.
    pub upstream_stores: Vec<StoreId>,
}

/// Why an edge is not let in, or a conversation is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: CloseReason,
    /// The same for people.
    pub text: String,
    /// When the peer shall come back, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What is known once the handshake is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Established {
    /// What the peer said of itself.
    pub peer: PeerInfo,
    /// The place of the edge.
    pub site: LabelSet,
    /// Whether the stores exchange all they have, rather than go on where they were.
    pub resync: bool,
    /// How often both ends send a heartbeat.
    pub heartbeat_ns: u64,
    /// The stores of the hubs above the hub.
    pub upstream_stores: Vec<StoreId>,
}

/// How a conversation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// The same for people.
    pub text: String,
    /// Whether the peer ended it.
    pub by_peer: bool,
    /// When to come back, in milliseconds, if the peer said so.
    pub retry_after_ms: Option<u64>,
}
