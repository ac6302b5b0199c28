//! Messages as bytes: a byte for the kind of message, then a protobuf message.
//!
//! The structs here take the place of a `.proto` file; `docs/reference/protocol.md` lists them field by field.
//! Decoding checks every bound that the types of [`super::message`] promise.

use std::sync::Arc;

use prost::Message as _;

use crate::model::{Epoch, LabelSet, NodeId, Position, Revision, StoreId, WriteTimestamp};

use super::error::DecodeError;
use super::health::Health;
use super::message::{
    self, Ack, ClockSample, Close, CloseReason, ConflictReport, Echo, EpochStart, Heartbeat, Hello, Message, PeerInfo,
    StoreCursor, Update, Welcome,
};

pub(super) const HELLO: u8 = 1;
pub(super) const WELCOME: u8 = 2;
pub(super) const UPDATE: u8 = 3;
pub(super) const ACK: u8 = 4;
pub(super) const HEARTBEAT: u8 = 5;
pub(super) const CLOSE: u8 = 6;

/// The columns of an update, as the dictionary makes them.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub reset: bool,
    pub schemas: Vec<u8>,
    pub keys: Vec<u8>,
    pub structure: Vec<u8>,
    pub times: Vec<u8>,
    pub runs: Vec<u8>,
    pub deltas: Vec<u8>,
    pub raws: Vec<u8>,
    pub raw_metrics: Vec<u8>,
    pub lifetimes: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeerInfoPb {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, tag = "2")]
    software: String,
    #[prost(fixed64, tag = "3")]
    store: u64,
    #[prost(message, repeated, tag = "4")]
    epochs: Vec<PositionPb>,
    #[prost(uint64, tag = "5")]
    head: u64,
    #[prost(message, repeated, tag = "6")]
    cursors: Vec<StoreCursorPb>,
    #[prost(uint64, tag = "7")]
    gc_watermark: u64,
    #[prost(string, tag = "8")]
    identity: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PositionPb {
    #[prost(fixed64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    revision: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StoreCursorPb {
    #[prost(fixed64, tag = "1")]
    store: u64,
    #[prost(fixed64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LabelPb {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ClockPb {
    #[prost(uint64, tag = "1")]
    sent_ns: u64,
    #[prost(uint64, optional, tag = "2")]
    echo_sent_ns: Option<u64>,
    #[prost(uint64, tag = "3")]
    echo_received_ns: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HelloPb {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    info: Option<PeerInfoPb>,
    #[prost(message, repeated, tag = "3")]
    labels: Vec<LabelPb>,
    #[prost(uint64, tag = "4")]
    message_bytes_max: u64,
    #[prost(message, optional, tag = "5")]
    clock: Option<ClockPb>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WelcomePb {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    info: Option<PeerInfoPb>,
    #[prost(message, repeated, tag = "3")]
    site: Vec<LabelPb>,
    #[prost(uint64, tag = "4")]
    message_bytes_max: u64,
    #[prost(message, optional, tag = "5")]
    clock: Option<ClockPb>,
    #[prost(bool, tag = "6")]
    resync: bool,
    #[prost(uint32, tag = "7")]
    heartbeat_ms: u32,
    #[prost(fixed64, repeated, tag = "8")]
    upstream_stores: Vec<u64>,
    #[prost(bool, tag = "9")]
    takes_early: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdatePb {
    #[prost(uint64, tag = "1")]
    upto: u64,
    #[prost(uint32, tag = "2")]
    flags: u32,
    #[prost(bytes = "vec", tag = "3")]
    schemas: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    keys: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    structure: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    times: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    runs: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    deltas: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    raws: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    raw_metrics: Vec<u8>,
    #[prost(bytes = "vec", tag = "11")]
    lifetimes: Vec<u8>,
}

const RESET: u32 = 1;
const PARTIAL: u32 = 2;
const LAST_OF_EXCHANGE: u32 = 4;
const ACK_MAY_WAIT: u32 = 8;

#[derive(Clone, PartialEq, prost::Message)]
struct AckPb {
    #[prost(uint64, tag = "1")]
    updates: u64,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(message, repeated, tag = "3")]
    held_back: Vec<ConflictReportPb>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ConflictReportPb {
    #[prost(message, repeated, tag = "1")]
    key: Vec<LabelPb>,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(uint64, tag = "3")]
    time_ns: u64,
    #[prost(fixed64, tag = "4")]
    node: u64,
    #[prost(string, tag = "5")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeartbeatPb {
    #[prost(message, optional, tag = "1")]
    clock: Option<ClockPb>,
    #[prost(uint64, tag = "2")]
    head: u64,
    #[prost(uint64, tag = "3")]
    lag_ns: u64,
    #[prost(message, optional, tag = "4")]
    health: Option<Health>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClosePb {
    #[prost(uint32, tag = "1")]
    reason: u32,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(uint64, optional, tag = "3")]
    retry_after_ms: Option<u64>,
}

/// Appends an update; `columns` has its deltas.
pub(super) fn encode_update(update: &Update, columns: Columns, into: &mut Vec<u8>) {
    let flag = |set, flag| if set { flag } else { 0 };
    let flags = flag(columns.reset, RESET)
        | flag(update.partial, PARTIAL)
        | flag(update.last_of_resync, LAST_OF_EXCHANGE)
        | flag(update.ack_may_wait, ACK_MAY_WAIT);
    let update = UpdatePb {
        upto: update.upto.0,
        flags,
        schemas: columns.schemas,
        keys: columns.keys,
        structure: columns.structure,
        times: columns.times,
        runs: columns.runs,
        deltas: columns.deltas,
        raws: columns.raws,
        raw_metrics: columns.raw_metrics,
        lifetimes: columns.lifetimes,
    };
    put(UPDATE, &update, into);
}

/// Decodes an update without its deltas, and the columns that have the deltas.
pub(super) fn decode_update(body: &[u8]) -> Result<(Update, Columns), DecodeError> {
    let pb = UpdatePb::decode(body).map_err(|error| DecodeError::protobuf("update", error))?;
    let update = Update {
        upto: Revision(pb.upto),
        partial: pb.flags & PARTIAL != 0,
        last_of_resync: pb.flags & LAST_OF_EXCHANGE != 0,
        ack_may_wait: pb.flags & ACK_MAY_WAIT != 0,
        deltas: Vec::new(),
    };
    let columns = Columns {
        reset: pb.flags & RESET != 0,
        schemas: pb.schemas,
        keys: pb.keys,
        structure: pb.structure,
        times: pb.times,
        runs: pb.runs,
        deltas: pb.deltas,
        raws: pb.raws,
        raw_metrics: pb.raw_metrics,
        lifetimes: pb.lifetimes,
    };
    Ok((update, columns))
}

/// Appends a message of any kind but an update.
pub(super) fn encode_plain(message: &Message, into: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => put(HELLO, &HelloPb::from(hello), into),
        Message::Welcome(welcome) => put(WELCOME, &WelcomePb::from(welcome), into),
        Message::Update(update) => encode_update(update, Columns::default(), into),
        Message::Ack(ack) => {
            let held_back =
                ack.held_back.iter().take(message::CONFLICT_REPORTS_MAX).map(ConflictReportPb::from).collect();
            put(ACK, &AckPb { updates: ack.updates, revision: ack.revision.0, held_back }, into);
        }
        Message::Heartbeat(heartbeat) => {
            let Heartbeat { clock, head, lag_ns, health } = heartbeat;
            let health = health.as_ref().map(|health| health.sendable());
            let pb = HeartbeatPb { clock: Some((*clock).into()), head: head.0, lag_ns: *lag_ns, health };
            put(HEARTBEAT, &pb, into);
        }
        Message::Close(close) => {
            let Close { reason, text, retry_after_ms } = close;
            let text = cut(text).into();
            put(CLOSE, &ClosePb { reason: reason.code(), text, retry_after_ms: *retry_after_ms }, into);
        }
    }
}

/// Decodes a message of any kind but an update.
pub(super) fn decode_plain(kind: u8, body: &[u8]) -> Result<Message, DecodeError> {
    fn of<M: prost::Message + Default>(name: &'static str, body: &[u8]) -> Result<M, DecodeError> {
        M::decode(body).map_err(|error| DecodeError::protobuf(name, error))
    }
    match kind {
        HELLO => of::<HelloPb>("hello", body)?.try_into().map(Message::Hello),
        WELCOME => of::<WelcomePb>("welcome", body)?.try_into().map(Message::Welcome),
        ACK => {
            let ack = of::<AckPb>("ack", body)?;
            bounded("families held back", ack.held_back.len(), message::CONFLICT_REPORTS_MAX)?;
            let held_back = ack.held_back.into_iter().map(ConflictReport::try_from).collect::<Result<_, _>>()?;
            Ok(Message::Ack(Ack { updates: ack.updates, revision: Revision(ack.revision), held_back }))
        }
        HEARTBEAT => {
            let HeartbeatPb { clock, head, lag_ns, health } = of("heartbeat", body)?;
            let clock = clock.unwrap_or_default().into();
            let health = health.map(Health::checked).transpose()?.map(Box::new);
            Ok(Message::Heartbeat(Heartbeat { clock, head: Revision(head), lag_ns, health }))
        }
        CLOSE => {
            let close = of::<ClosePb>("close", body)?;
            let text = cut(&close.text).into();
            let reason = CloseReason::from_code(close.reason);
            Ok(Message::Close(Close { reason, text, retry_after_ms: close.retry_after_ms }))
        }
        other => Err(DecodeError::UnknownMessage(other)),
    }
}

fn put(kind: u8, message: &impl prost::Message, into: &mut Vec<u8>) {
    into.push(kind);
    into.reserve(message.encoded_len());
    message.encode_raw(into);
}

/// A text, truncated to the length that may be sent.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(message::TEXT_BYTES_MAX)]
}

/// Bytes of each name and value of a site's labels, at most; the same as for a text.
fn labels_of(what: &'static str, labels: Vec<LabelPb>) -> Result<LabelSet, DecodeError> {
    bounded(what, labels.len(), message::PLACE_LABELS_MAX)?;
    for label in &labels {
        bounded(what, label.name.len().max(label.value.len()), message::TEXT_BYTES_MAX)?;
        if label.name.is_empty() {
            return Err(DecodeError::Rule("a label has no name"));
        }
    }
    Ok(LabelSet::new(labels.into_iter().map(|label| (label.name, label.value))))
}

fn labels_pb(labels: &LabelSet) -> Vec<LabelPb> {
    labels.iter().map(|label| LabelPb { name: label.name.to_string(), value: label.value.to_string() }).collect()
}

fn bounded(what: &'static str, value: usize, max: usize) -> Result<(), DecodeError> {
    if value > max { Err(DecodeError::Bound { what, value, max }) } else { Ok(()) }
}

impl From<&Hello> for HelloPb {
    fn from(hello: &Hello) -> Self {
        Self {
            version: hello.version,
            info: Some((&hello.info).into()),
            labels: labels_pb(&hello.labels),
            message_bytes_max: hello.message_bytes_max,
            clock: Some(hello.clock.into()),
        }
    }
}

impl TryFrom<HelloPb> for Hello {
    type Error = DecodeError;
    fn try_from(pb: HelloPb) -> Result<Self, DecodeError> {
        Ok(Self {
            version: pb.version,
            info: pb.info.unwrap_or_default().try_into()?,
            labels: labels_of("labels", pb.labels)?,
            message_bytes_max: pb.message_bytes_max,
            clock: pb.clock.unwrap_or_default().into(),
        })
    }
}

impl From<&Welcome> for WelcomePb {
    fn from(welcome: &Welcome) -> Self {
        Self {
            version: welcome.version,
            info: Some((&welcome.info).into()),
            site: labels_pb(&welcome.site),
            message_bytes_max: welcome.message_bytes_max,
            clock: Some(welcome.clock.into()),
            resync: welcome.resync,
            heartbeat_ms: welcome.heartbeat_ms,
            upstream_stores: welcome
                .upstream_stores
                .iter()
                .take(message::UPSTREAM_STORES_MAX)
                .map(|store| store.0)
                .collect(),
            takes_early: welcome.takes_early,
        }
    }
}

impl TryFrom<WelcomePb> for Welcome {
    type Error = DecodeError;
    fn try_from(pb: WelcomePb) -> Result<Self, DecodeError> {
        bounded("stores above the hub", pb.upstream_stores.len(), message::UPSTREAM_STORES_MAX)?;
        Ok(Self {
            version: pb.version,
            info: pb.info.unwrap_or_default().try_into()?,
            site: labels_of("place", pb.site)?,
            resync: pb.resync,
            heartbeat_ms: pb.heartbeat_ms,
            message_bytes_max: pb.message_bytes_max,
            clock: pb.clock.unwrap_or_default().into(),
            upstream_stores: pb.upstream_stores.into_iter().map(StoreId).collect(),
            takes_early: pb.takes_early,
        })
    }
}

impl From<&ConflictReport> for ConflictReportPb {
    fn from(report: &ConflictReport) -> Self {
        let ConflictReport { key, family, stamp, text } = report;
        let (family, text) = (family.to_string(), cut(text).into());
        Self { key: labels_pb(key), family, time_ns: stamp.time_ns, node: stamp.node.0, text }
    }
}

impl TryFrom<ConflictReportPb> for ConflictReport {
    type Error = DecodeError;
    fn try_from(pb: ConflictReportPb) -> Result<Self, DecodeError> {
        bounded("bytes of a family's name", pb.family.len(), message::TEXT_BYTES_MAX)?;
        Ok(Self {
            key: Arc::new(labels_of("labels of a group that is held back", pb.key)?),
            family: pb.family.into(),
            stamp: WriteTimestamp { time_ns: pb.time_ns, node: NodeId(pb.node) },
            text: cut(&pb.text).into(),
        })
    }
}

impl From<&PeerInfo> for PeerInfoPb {
    fn from(info: &PeerInfo) -> Self {
        let recent = info.epochs.len().saturating_sub(message::OPENINGS_MAX);
        let position = |o: &EpochStart| PositionPb { epoch: o.epoch.0, revision: o.revision.0 };
        let cursor = |h: &StoreCursor| StoreCursorPb {
            store: h.store.0,
            epoch: h.position.epoch.0,
            revision: h.position.revision.0,
        };
        Self {
            node: cut(&info.node).into(),
            software: cut(&info.software).into(),
            store: info.store.0,
            epochs: info.epochs[recent..].iter().map(position).collect(),
            head: info.head.0,
            gc_watermark: info.gc_watermark.0,
            cursors: info.cursors.iter().take(message::CURSORS_MAX).map(cursor).collect(),
            // Half of an identity would be another one.
            identity: Some(&info.identity)
                .filter(|uri| uri.len() <= message::TEXT_BYTES_MAX)
                .cloned()
                .unwrap_or_default(),
        }
    }
}

impl TryFrom<PeerInfoPb> for PeerInfo {
    type Error = DecodeError;
    fn try_from(pb: PeerInfoPb) -> Result<Self, DecodeError> {
        bounded("bytes of the node's name", pb.node.len(), message::TEXT_BYTES_MAX)?;
        bounded("bytes of the software's name", pb.software.len(), message::TEXT_BYTES_MAX)?;
        bounded("openings", pb.epochs.len(), message::OPENINGS_MAX)?;
        bounded("positions held", pb.cursors.len(), message::CURSORS_MAX)?;
        let rising = pb.epochs.is_sorted_by_key(|start| start.revision);
        let Some(last) = pb.epochs.last().filter(|_| rising && pb.epochs.iter().all(|o| o.epoch != 0)) else {
            return Err(DecodeError::Rule("a lineage names at least one opening, none of epoch 0, in their order"));
        };
        if last.revision > pb.head {
            return Err(DecodeError::Rule("the head is not before the last opening"));
        }
        let start = |p: &PositionPb| EpochStart { epoch: Epoch(p.epoch), revision: Revision(p.revision) };
        let cursor = |h: &StoreCursorPb| {
            let position = Position { epoch: Epoch(h.epoch), revision: Revision(h.revision) };
            StoreCursor { store: StoreId(h.store), position }
        };
        Ok(Self {
            node: pb.node,
            software: pb.software,
            store: StoreId(pb.store),
            epochs: pb.epochs.iter().map(start).collect(),
            head: Revision(pb.head),
            gc_watermark: Revision(pb.gc_watermark),
            cursors: pb.cursors.iter().map(cursor).collect(),
            identity: pb.identity,
        })
    }
}

impl From<ClockSample> for ClockPb {
    fn from(clock: ClockSample) -> Self {
        Self {
            sent_ns: clock.sent_ns,
            echo_sent_ns: clock.echo.map(|echo| echo.sent_ns),
            echo_received_ns: clock.echo.map_or(0, |echo| echo.received_ns),
        }
    }
}

impl From<ClockPb> for ClockSample {
    fn from(pb: ClockPb) -> Self {
        let echo = pb.echo_sent_ns.map(|sent_ns| Echo { sent_ns, received_ns: pb.echo_received_ns });
        Self { sent_ns: pb.sent_ns, echo }
    }
}
