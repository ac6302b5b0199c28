//! One end of one connection without its socket: frames, decoding and the endpoint.

use crate::compression::{Deflater, Inflater};
use crate::exposition::protobuf::is_raw_metric;
use crate::store::Scope;
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{Decoder, Delta, Encoder, Message, PeerInfo};

use super::edge::EdgeConfig;
use super::endpoint::Endpoint;
use super::event::{Closed, Event, HubConfig, SessionAction, SessionEvent, SessionTime};

/// The DEFLATE level of messages. The fastest levels use fixed codes only, which lengthen the values that differ in every
/// push; higher ones search longer for repetitions, of which the encoder leaves few.
pub const DEFLATE_LEVEL: u32 = 3;

/// A buffer of more bytes than this is freed after the message that needed it: a hub has thousands of connections.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// One end of one connection: what a driver moves between a socket, the store and the node. It performs no I/O, reads no
/// clock and awaits nothing, so that the node and the simulation drive the same code.
///
/// 1. [`Connection::edge`] or [`Connection::hub`] begins a session.
/// 2. Perform every action of [`Connection::poll_action`], in order, until there is none. Pass messages to send through one
///    [`FrameEncoder`], in order.
/// 3. Wait for the next input and pass it on: [`Connection::receive`] takes a frame from the peer;
///    [`Connection::handle`] takes the result of an action (a read, a commit, an admission), a new head of the store as long
///    as [`Connection::wants_heads`] is true, or the end of the node; [`Connection::tick`] is due at
///    [`Connection::next_timeout`]. Continue with step 2.
///
/// The session is over after [`SessionAction::Close`]. If the socket fails before, the driver ends it with [`Closed::lost`];
/// [`Connection::close_received`] says whether the peer's close message arrived nevertheless.
pub struct Connection {
    endpoint: Endpoint,
    scope: Scope,
    message_bytes_max: usize,
    inflater: Inflater,
    decoder: Decoder,
    inflated: Vec<u8>,
    /// Bytes received from the network at the last tick.
    received_bytes: u64,
}

impl Connection {
    /// Begins a session at an edge. `info` describes the store at this moment. No other session with the same hub may have
    /// commits under way.
    pub fn edge(config: EdgeConfig, info: PeerInfo, now: SessionTime) -> Self {
        let message_bytes_max = config.link.message_bytes_max;
        Self::new(Endpoint::edge(config, info, now), message_bytes_max)
    }

    /// Begins a session at a hub.
    pub fn hub(config: HubConfig, now: SessionTime) -> Self {
        Self::new(Endpoint::hub(config, now), config.link.message_bytes_max)
    }

    fn new(endpoint: Endpoint, message_bytes_max: usize) -> Self {
        Self {
            endpoint,
            scope: Scope::Shown,
            message_bytes_max,
            inflater: Inflater::new(),
            decoder: Decoder::new(message_bytes_max),
            inflated: Vec::new(),
            received_bytes: 0,
        }
    }

    /// The groups that the session is about, for reads and commits. At a hub this is the site of the edge, once admitted.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The next action to perform.
    pub fn poll_action(&mut self) -> Option<SessionAction> {
        self.endpoint.poll_action()
    }

    /// When [`Connection::tick`] is due, by the monotonic clock; `None` once the session is over.
    pub fn next_timeout(&self) -> Option<u64> {
        self.endpoint.next_timeout()
    }

    /// Whether [`Event::Head`] can change anything now. If not, the driver holds the newest head back until it can.
    pub fn wants_heads(&self) -> bool {
        self.endpoint.wants_heads()
    }

    /// Handles a frame from the peer: one compressed message. Returns the bytes of the message before compression; 0 if it
    /// cannot be decompressed, which ends the session.
    pub fn receive(&mut self, frame: &[u8], now: SessionTime) -> usize {
        reuse(&mut self.inflated);
        // Nothing large is decompressed for a peer that was not admitted yet.
        let open = self.endpoint.is_open();
        let bytes_max = if open { self.message_bytes_max.max(PLAIN_BYTES_MAX) } else { PLAIN_BYTES_MAX };
        if let Err(error) = self.inflater.decompress(frame, &mut self.inflated, bytes_max) {
            self.endpoint.handle(Event::Malformed(error.to_string()), now);
            return 0;
        }
        let bytes = &self.inflated[..];
        let event = match if open { self.decoder.decode(bytes) } else { Decoder::decode_plain(bytes) } {
            Ok(Message::Update(update)) if !update.deltas.iter().all(is_showable) => {
                Event::Malformed("a raw metric that cannot be decoded, or one with labels or a timestamp".into())
            }
            Ok(message) => Event::Message(message),
            Err(error) => Event::Malformed(error.to_string()),
        };
        self.endpoint.notify(SessionEvent::Heard);
        self.endpoint.handle(event, now);
        bytes.len()
    }

    /// Handles an event other than a frame.
    pub fn handle(&mut self, event: Event, now: SessionTime) {
        if let Event::Admitted(admitted) = &event {
            self.scope = Scope::Site(admitted.site.clone().into());
        }
        self.endpoint.handle(event, now);
    }

    /// The time of [`Connection::next_timeout`] has come. `received_bytes` is the number of bytes that the network has
    /// delivered to this connection so far: a peer whose message is only partly here is alive.
    pub fn tick(&mut self, received_bytes: u64, now: SessionTime) {
        if std::mem::replace(&mut self.received_bytes, received_bytes) != received_bytes {
            self.endpoint.handle(Event::Heard, now);
        }
        self.endpoint.handle(Event::Tick, now);
    }

    /// Discards the pending actions up to the end of the session, and returns how it ended; `None` if it did not. For a
    /// connection that can send nothing more: the peer's close message may have arrived before.
    pub fn close_received(&mut self) -> Option<Closed> {
        while let Some(action) = self.endpoint.poll_action() {
            if let SessionAction::Close(closed) = action {
                return Some(closed);
            }
        }
        None
    }
}

/// Whether a scrape can contain the raw metrics of a delta: they are copied into it unchanged.
fn is_showable(delta: &Delta) -> bool {
    let raw_metrics = delta.group.families().iter().filter_map(|family| family.family.raw_metrics());
    raw_metrics.flat_map(|raw_metrics| raw_metrics.iter()).all(|raw_metric| is_raw_metric(raw_metric))
}

/// Encodes and compresses the messages of one connection, in the order in which they are sent.
pub struct FrameEncoder {
    encoder: Encoder,
    deflater: Deflater,
    encoded: Vec<u8>,
}

impl FrameEncoder {
    /// An encoder for a new connection, at a DEFLATE level from 0 (stored) to 9.
    pub fn new(encoder: Encoder, level: u32) -> Self {
        Self { encoder, deflater: Deflater::new(level), encoded: Vec::new() }
    }

    /// Encodes a message as one frame. Returns the frame, and the bytes of the message before compression.
    pub fn encode(&mut self, message: &Message) -> (Vec<u8>, usize) {
        reuse(&mut self.encoded);
        self.encoder.encode(message, &mut self.encoded);
        let mut frame = Vec::new();
        self.deflater.compress(&self.encoded, &mut frame);
        (frame, self.encoded.len())
    }

    /// The encoder of messages, with its dictionary.
    pub fn into_encoder(self) -> Encoder {
        self.encoder
    }
}

/// Empties a buffer for the next message, and frees it if one large message made it large.
fn reuse(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > BUFFER_BYTES_MAX {
        *buffer = Vec::new();
    }
}
