//! The messages that the two ends of a link exchange.
//!
//! The edge opens with [`Hello`], the hub answers with [`Welcome`]. Then both send [`Update`], [`Ack`] and
//! [`Heartbeat`] at any time, until one sends [`Close`] or the connection breaks.

use std::fmt;
use std::sync::Arc;

use crate::model::{Epoch, LabelSet, Position, Revision, StoreId, WriteTimestamp};

use super::delta::Delta;
use super::health::Health;

/// The protocol version of this program.
pub const VERSION: u32 = 1;

/// Bytes of any message but an update, at most, whatever the bound on updates: the sum of the bounds below.
pub const PLAIN_BYTES_MAX: usize = 256 << 10;
/// Bytes of a node's name, a software version or a close text, at most; longer ones are refused.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Epochs that a node lists, at most. Older ones are left out: a peer whose cursor is in an older epoch gets a resync.
pub const OPENINGS_MAX: usize = 64;
/// Cursors that a node sends, at most.
pub const CURSORS_MAX: usize = 64;
/// Conflict reports in one acknowledgement, at most.
pub const CONFLICT_REPORTS_MAX: usize = 64;
/// Bytes of these reports, at most; an estimate.
const CONFLICT_REPORTS_BYTES_MAX: usize = 128 << 10;
/// Stores upstream of a hub, at most.
pub const UPSTREAM_STORES_MAX: usize = 64;
/// Labels of a site, at most.
pub const PLACE_LABELS_MAX: usize = 64;

/// One message of the link.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The edge's first message.
    Hello(Hello),
    /// The hub's first message.
    Welcome(Welcome),
    /// Changes of the sender's store.
    Update(Update),
    /// Acknowledges updates that the sender of the acknowledgement has made durable.
    Ack(Ack),
    /// A sign of life, and a reading of the clock.
    Heartbeat(Heartbeat),
    /// The last message: the sender's reason for closing.
    Close(Close),
}

impl Message {
    /// The message's name, for errors and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome(_) => "welcome",
            Self::Update(_) => "update",
            Self::Ack(_) => "ack",
            Self::Heartbeat(_) => "heartbeat",
            Self::Close(_) => "close",
        }
    }
}

/// An epoch of a store, and the store's revision at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch; never zero.
    pub epoch: Epoch,
    /// The store's revision at that time; the first change in this epoch has the next one.
    pub revision: Revision,
}

/// The sender's position in another store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCursor {
    /// The other store.
    pub store: StoreId,
    /// The sender has all changes of that store up to here.
    pub position: Position,
}

/// Information about a node and its store.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerInfo {
    /// The node's name. A hub uses the name in the certificate instead.
    pub node: String,
    /// The software and its version, for logs.
    pub software: String,
    /// The store's id.
    pub store: StoreId,
    /// The most recent epochs of the store, oldest first; the last is the current one.
    pub epochs: Vec<EpochStart>,
    /// The store's current revision: all changes up to it are durable and readable.
    pub head: Revision,
    /// The newest revision of which the store has dropped a tombstone; zero if it has dropped none. A peer with a
    /// lower position may have missed a delete.
    pub gc_watermark: Revision,
    /// Positions in other stores. An edge sends all it has, a hub only its position in that edge's store.
    pub cursors: Vec<StoreCursor>,
    /// The identity of the edge as a URI: an edge sends the one of its own certificate, a hub the one under which it knows
    /// the edge. Empty if there is none. If they differ, something in between dials with a certificate of its own.
    pub identity: String,
}

impl PeerInfo {
    /// The position in `store`, if there is one.
    pub fn cursor_for(&self, store: StoreId) -> Option<Position> {
        self.cursors.iter().find(|cursor| cursor.store == store).map(|cursor| cursor.position)
    }

    /// The current epoch; zero if there is none, which no decoded message has.
    pub fn epoch(&self) -> Epoch {
        self.epochs.last().map(|start| start.epoch).unwrap_or_default()
    }
}

/// The edge's introduction.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// The protocol's version, [`VERSION`].
    pub version: u32,
    /// Information about the edge.
    pub info: PeerInfo,
    /// Labels that the edge claims as its site; the hub decides whether they count.
    pub labels: LabelSet,
    /// Bytes (before compression) of the largest message that the edge accepts.
    pub message_bytes_max: u64,
    /// The edge's clock.
    pub clock: ClockSample,
}

/// The hub's acceptance of an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The protocol's version, [`VERSION`].
    pub version: u32,
    /// Information about the hub.
    pub info: PeerInfo,
    /// The labels that the hub adds to everything that this edge sends.
    pub site: LabelSet,
    /// Whether the two stores must do a full resync instead of continuing at their cursors.
    pub resync: bool,
    /// The interval of heartbeats of both ends, in milliseconds. After three intervals of silence, an end counts as
    /// dead.
    pub heartbeat_ms: u32,
    /// Bytes (before compression) of the largest message that the hub accepts.
    pub message_bytes_max: u64,
    /// The hub's clock.
    pub clock: ClockSample,
    /// The stores of the hubs that this hub sends to, and of those upstream of them, as far as it knows.
    pub upstream_stores: Vec<StoreId>,
    /// Whether the hub takes new changes before its own half of a resync is acknowledged
    /// ([`Update::is_early`]).
    pub takes_early: bool,
}

/// Changes of the sender's store, merged as [`crate::model::group`] says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// With this update, the sender has sent all changes of its store up to here.
    pub upto: Revision,
    /// Whether more updates of an indivisible batch follow; `upto` is then that of the update before.
    pub partial: bool,
    /// Whether this update ends the sender's half of a resync.
    pub last_of_resync: bool,
    /// Whether its acknowledgement may wait briefly, so that one acknowledgement covers the next updates too.
    pub ack_may_wait: bool,
    /// The changes; no group occurs twice.
    pub deltas: Vec<Delta>,
}

impl Update {
    /// Whether the update says nothing of how far the receiver has come, and so may be sent at any time.
    pub fn is_early(&self) -> bool {
        self.upto == Revision(0) && !self.last_of_resync
    }
}

/// Acknowledges updates as durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Number of durable updates of this connection, counted from its beginning.
    pub updates: u64,
    /// `upto` of the last of them.
    pub revision: Revision,
    /// Families of these updates that are kept but not shown; at most [`CONFLICT_REPORTS_MAX`], more are not reported.
    pub held_back: Vec<ConflictReport>,
}

/// A family that the receiver of an update suppresses, because it conflicts with a family that is shown there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictReport {
    /// The group's key, as in the update.
    pub key: Arc<LabelSet>,
    /// The family's name.
    pub family: Arc<str>,
    /// The family's write timestamp, which tells the push.
    pub stamp: WriteTimestamp,
    /// The reason, for people.
    pub text: Arc<str>,
}

impl ConflictReport {
    /// The reports that one acknowledgement can carry.
    pub fn sendable(reports: Vec<ConflictReport>) -> Vec<ConflictReport> {
        let short = |text: &str| text.len() <= TEXT_BYTES_MAX;
        let small = |v: &ConflictReport| {
            let labels = v.key.len() <= PLACE_LABELS_MAX && v.key.iter().all(|l| short(l.name) && short(l.value));
            labels && short(&v.family)
        };
        let mut bytes = 0;
        let mut fits = |v: &ConflictReport| {
            let labels: usize = v.key.iter().map(|label| label.name.len() + label.value.len() + 8).sum();
            bytes += labels + v.family.len() + v.text.len().min(TEXT_BYTES_MAX) + 32;
            bytes <= CONFLICT_REPORTS_BYTES_MAX
        };
        reports.into_iter().filter(small).take_while(|v| fits(v)).take(CONFLICT_REPORTS_MAX).collect()
    }
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's clock.
    pub clock: ClockSample,
    /// The revision of the sender's store, counting only changes for the receiver.
    pub head: Revision,
    /// The age of the sender's oldest change that the receiver has not acknowledged, in nanoseconds; 0 if there is none.
    pub lag_ns: u64,
    /// The sender's health, as far as it changed since the last heartbeat of this connection; the first one has all of
    /// it. `None` if nothing changed, or if the sender does not report its health.
    pub health: Option<Box<Health>>,
}

/// A reading of the sender's wall clock, and an echo of the peer's last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSample {
    /// The sender's wall clock when it sent this, in nanoseconds since the Unix epoch.
    pub sent_ns: u64,
    /// Echo of the last clock reading from the peer, if there was one.
    pub echo: Option<Echo>,
}

/// The echo of a clock reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// [`ClockSample::sent_ns`] of the message that was received.
    pub sent_ns: u64,
    /// The receiver's wall clock when it received that message.
    pub received_ns: u64,
}

/// The end of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The reason, for programs.
    pub reason: CloseReason,
    /// The reason, for people: the event, and the value concerned.
    pub text: String,
    /// Milliseconds after which the peer should connect again; `None` leaves it to the peer's own schedule.
    pub retry_after_ms: Option<u64>,
}

/// Reasons for closing a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The protocol does not allow that message at that point.
    Protocol,
    /// This node does not support the peer's protocol version.
    Version,
    /// A message could not be decoded.
    Malformed,
    /// A message exceeds a bound.
    TooLarge,
    /// Nothing was heard for three heartbeats.
    Silence,
    /// The handshake took too long.
    Handshake,
    /// Another store has a live session under this name.
    NameTaken,
    /// A newer session of the same store took over.
    Replaced,
    /// The edge may not connect, or not under this name.
    Unauthorized,
    /// Both ends have the same store id: one is a copy of the other.
    SameStore,
    /// The store could not make an update durable.
    Storage,
    /// The node is shutting down, or an operator closed the link.
    Shutdown,
    /// The node has as many links as it may have.
    Overloaded,
    /// The hub itself sends to this edge, directly or not: the link would close a loop.
    Loop,
    /// A reason that this version does not know.
    Other(u32),
}

impl CloseReason {
    const KNOWN: [(CloseReason, u32, &'static str); 14] = [
        (Self::Protocol, 1, "protocol violation"),
        (Self::Version, 2, "protocol version not spoken"),
        (Self::Malformed, 3, "malformed message"),
        (Self::TooLarge, 4, "message too large"),
        (Self::Silence, 5, "peer silent"),
        (Self::Handshake, 6, "handshake timed out"),
        (Self::NameTaken, 7, "name taken by another store"),
        (Self::Replaced, 8, "replaced by a newer session"),
        (Self::Unauthorized, 9, "not authorized"),
        (Self::SameStore, 10, "both ends have the same store"),
        (Self::Storage, 11, "storage failed"),
        (Self::Shutdown, 12, "shutting down"),
        (Self::Overloaded, 13, "too many links"),
        (Self::Loop, 14, "the links go around"),
    ];

    /// The reason's number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Self::Other(code) => code,
            known => Self::KNOWN.iter().find(|(reason, ..)| *reason == known).map_or(0, |(_, code, _)| *code),
        }
    }

    /// The reason with that number on the wire.
    pub fn from_code(code: u32) -> Self {
        Self::KNOWN.iter().find(|(_, known, _)| *known == code).map_or(Self::Other(code), |(reason, ..)| *reason)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "reason {code}"),
            known => f.write_str(Self::KNOWN.iter().find(|(r, ..)| r == known).map_or("", |(.., name)| name)),
        }
    }
}
