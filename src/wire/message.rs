//! What the two ends of a link say to each other.
//!
//! The edge opens with [`Hello`], the hub answers with [`Welcome`]; then both send [`Update`], [`Ack`] and [`Heartbeat`]
//! as they please, until either sends [`Close`] or the connection breaks.

use std::fmt;
use std::sync::Arc;

use crate::model::{Epoch, LabelSet, Position, Revision, StoreId, WriteTimestamp};

use super::delta::Delta;

/// The version of the protocol that this code speaks.
pub const VERSION: u32 = 1;

/// Bytes of any message but an update, at most, whatever the bound on updates: what the bounds below come to.
pub const PLAIN_BYTES_MAX: usize = 256 << 10;
/// Bytes of a node's name, a software version or a closing text, at most; longer ones are refused.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Openings in a lineage, at most. Older ones are left out: who holds a position of such an opening gets a resync.
pub const OPENINGS_MAX: usize = 64;
/// Positions held of other stores, at most.
pub const CURSORS_MAX: usize = 64;
/// Verdicts of one acknowledgement, at most.
pub const CONFLICT_REPORTS_MAX: usize = 64;
/// Bytes of them, about, at most.
const CONFLICT_REPORTS_BYTES_MAX: usize = 128 << 10;
/// Stores above a hub, at most.
pub const UPSTREAM_STORES_MAX: usize = 64;
/// Labels of a place, at most.
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
    /// Updates that the sender of this has made durable.
    Ack(Ack),
    /// A sign of life, and a reading of the clock.
    Heartbeat(Heartbeat),
    /// The last message: why the sender ends the conversation.
    Close(Close),
}

impl Message {
    /// The name, for errors and logs.
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

/// One opening of a store: which revision it had when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The opening; never zero.
    pub epoch: Epoch,
    /// The store's revision then; its first change in this opening has the next one.
    pub revision: Revision,
}

/// What a node holds of another store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCursor {
    /// The other store.
    pub store: StoreId,
    /// All its changes up to here are held.
    pub position: Position,
}

/// What a node says of itself and its store.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerInfo {
    /// The node's name. What counts at a hub is the name in the certificate.
    pub node: String,
    /// The software and its version, for logs.
    pub software: String,
    /// The store.
    pub store: StoreId,
    /// The most recent openings of the store, oldest first; the last is the present one.
    pub epochs: Vec<EpochStart>,
    /// The store's revision now: what is durable and readable.
    pub head: Revision,
    /// The newest revision of which the store has dropped a tombstone; zero if of none. Who holds less than that may miss
    /// a delete.
    pub forgotten: Revision,
    /// What is held of others' stores. An edge names all it knows, a hub only that edge's.
    pub cursors: Vec<StoreCursor>,
}

impl PeerInfo {
    /// The position held of `store`, if any.
    pub fn held_of(&self, store: StoreId) -> Option<Position> {
        self.cursors.iter().find(|cursor| cursor.store == store).map(|cursor| cursor.position)
    }

    /// The present opening; zero if the lineage is empty, which no decoded message is.
    pub fn epoch(&self) -> Epoch {
        self.epochs.last().map(|start| start.epoch).unwrap_or_default()
    }
}

/// The edge introduces itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// The protocol's version, [`VERSION`].
    pub version: u32,
    /// The edge's facts.
    pub info: PeerInfo,
    /// Labels that the edge claims as its place; whether they count is for the hub to say.
    pub labels: LabelSet,
    /// Bytes (before compression) of the largest message that the edge takes.
    pub message_bytes_max: u64,
    /// The edge's clock.
    pub clock: Clock,
}

/// The hub accepts the edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The protocol's version, [`VERSION`].
    pub version: u32,
    /// The hub's facts.
    pub info: PeerInfo,
    /// The labels under which the hub shows what this edge sends.
    pub site: LabelSet,
    /// Whether the two stores must resync all they have, rather than go on where they were.
    pub resync: bool,
    /// How often both ends send a heartbeat, in milliseconds; an end silent for three of these is taken for dead.
    pub heartbeat_ms: u32,
    /// Bytes (before compression) of the largest message that the hub takes.
    pub message_bytes_max: u64,
    /// The hub's clock.
    pub clock: Clock,
    /// The stores of the hubs to which this hub sends in its turn, and of those above them, as far as it knows.
    pub upstream_stores: Vec<StoreId>,
}

/// Changes of the sender's store, merged by the law of [`crate::model::group`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// With this update, all changes of the sender's store up to here have been sent.
    pub upto: Revision,
    /// Whether more of one indivisible batch follows; `upto` is then that of the update before.
    pub partial: bool,
    /// Whether this update ends the sender's half of a resync.
    pub last_of_resync: bool,
    /// Whether its acknowledgement may wait a little for those of the next, to be one with them.
    pub ack_may_wait: bool,
    /// The changes; of no group twice.
    pub deltas: Vec<Delta>,
}

/// Updates are durable at the sender of this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// How many updates of this connection are durable, counted from its begin.
    pub updates: u64,
    /// `upto` of the last of them.
    pub revision: Revision,
    /// Families in these updates that are kept but not shown; at most [`CONFLICT_REPORTS_MAX`], the others are not told of.
    pub held_back: Vec<ConflictReport>,
}

/// A family that the receiver of an update holds back, since it cannot stand beside what is shown there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictReport {
    /// The group, as the update called it.
    pub key: Arc<LabelSet>,
    /// The family's name.
    pub family: Arc<str>,
    /// Which push it was: the family's stamp.
    pub stamp: WriteTimestamp,
    /// Why, for people.
    pub text: Arc<str>,
}

impl ConflictReport {
    /// Of these, those that an acknowledgement can carry.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's clock.
    pub clock: Clock,
    /// The revision of the sender's store, as far as it concerns the receiver.
    pub head: Revision,
    /// The age of the sender's oldest change that the receiver has not acknowledged, in nanoseconds; 0 if there is none.
    pub lag_ns: u64,
}

/// A reading of the sender's wall clock, and of when it last heard the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The sender's wall clock when it sent this, in nanoseconds since the Unix epoch.
    pub sent_ns: u64,
    /// The last clock received from the peer, if any.
    pub echo: Option<Echo>,
}

/// A clock reading given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// [`Clock::sent_ns`] of the message that was received.
    pub sent_ns: u64,
    /// The receiver's wall clock when it received that message.
    pub received_ns: u64,
}

/// The end of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub reason: CloseReason,
    /// The same for people: what happened, with which value.
    pub text: String,
    /// When to come back, in milliseconds from now; `None` leaves it to the other's own schedule.
    pub retry_after_ms: Option<u64>,
}

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// A message came that the protocol does not allow there.
    Protocol,
    /// The other's protocol version is not spoken here.
    Version,
    /// A message could not be decoded.
    Malformed,
    /// A message passes a bound.
    TooLarge,
    /// Nothing was heard for three heartbeats.
    Silence,
    /// The handshake took too long.
    Handshake,
    /// Another store has a live session under this name.
    NameTaken,
    /// A newer session of the same store took over.
    Replaced,
    /// The edge is not allowed in, or not under this name.
    Unauthorized,
    /// Both ends have the same store id: one is a copy of the other.
    SameStore,
    /// The store could not make an update durable.
    Storage,
    /// The node is shutting down or was told to drop the link.
    Shutdown,
    /// The node has as many links as it takes.
    Overloaded,
    /// The hub sends to this edge in its turn: what goes around would never end.
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

    /// The number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Self::Other(code) => code,
            known => Self::KNOWN.iter().find(|(reason, ..)| *reason == known).map_or(0, |(_, code, _)| *code),
        }
    }

    /// The reason with that number.
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
