//! A check of the line between an edge and its hub, without a session: both ends.
//!
//! The subprotocol `pushrelay.check.v1` has the link's Hello and Welcome (or Close), each one uncompressed WebSocket
//! message. Afterwards the hub sends every message back as it came. The check joins nothing: the session of a running
//! edge goes on, and the store is neither read nor written. `docs/reference/protocol.md` specifies it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tracing::info;

use super::hub::HubLinks;
use super::peer::LinkPeer;
use crate::net::websocket::{WebSocket, WebSocketError};
use crate::session::offset::Offset;
use crate::session::{Refused, SessionTime};
use crate::wire::{Close, CloseReason, Decoder, Encoder, Hello, Message, VERSION, Welcome};

/// The longest message that a hub sends back, and the length of the long one of a check.
pub const PROBE_BYTES: usize = 64 << 10;
/// Messages that a hub sends back in one check, at most.
const PROBES_MAX: usize = 16;
/// The time for a whole check at the hub: a silence of 90 s, and slow lines.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// The time for an answer at the edge.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

impl HubLinks {
    /// Answers the check of an edge that was authenticated.
    pub(super) async fn answer_check<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut socket: WebSocket<S>,
        peer: &LinkPeer,
        address: SocketAddr,
    ) {
        let edge = peer.identity.name.as_str();
        let answered = timeout(CHECK_TIMEOUT, async {
            let frame = timeout(self.handshake_timeout, socket.receiver.receive()).await.ok()?.ok()??;
            let answer = self.checked(&frame, peer).await;
            let refusal = match &answer {
                Message::Close(close) => Some(close.text.clone()),
                _ => None,
            };
            socket.sender.send(encoded(&answer)).await.ok()?;
            for _ in 0..PROBES_MAX {
                match socket.receiver.receive().await {
                    Ok(Some(probe)) if refusal.is_none() => socket.sender.send(probe).await.ok()?,
                    _ => break,
                }
            }
            let _ = socket.sender.close().await;
            Some(refusal)
        });
        match answered.await.ok().flatten() {
            Some(None) => info!(edge, %address, "an edge checked its line"),
            Some(Some(reason)) => info!(edge, %address, reason, "an edge checked its line, and would be refused"),
            None => info!(edge, %address, "a check of a line did not end"),
        }
    }

    /// The answer to the hello of a check: what a session would get, as far as that is known without one.
    async fn checked(&self, frame: &[u8], peer: &LinkPeer) -> Message {
        let hello = match Decoder::decode_plain(frame) {
            Ok(Message::Hello(hello)) => hello,
            Ok(other) => return closing(CloseReason::Protocol, format!("a {} is no hello", other.name())),
            Err(error) => return closing(CloseReason::Malformed, error.to_string()),
        };
        if hello.version != VERSION {
            let text = format!("the edge speaks version {} of the protocol, this hub {VERSION}", hello.version);
            return closing(CloseReason::Version, text);
        }
        let mut offset = Offset::default();
        offset.read(hello.clock, self.now());
        let admitted = self.would_admit(&hello, peer).await;
        match admitted {
            Ok(admitted) if admitted.info.store == hello.info.store => {
                let text = format!("both ends have the store {}", hello.info.store);
                closing(CloseReason::SameStore, text)
            }
            Ok(admitted) => Message::Welcome(Welcome {
                version: VERSION,
                info: admitted.info,
                site: admitted.site,
                resync: false,
                heartbeat_ms: u32::try_from(self.session.heartbeat_ns / 1_000_000).unwrap_or(u32::MAX),
                message_bytes_max: self.session.link.message_bytes_max as u64,
                clock: offset.reading(self.now()),
                upstream_stores: admitted.upstream_stores,
                takes_early: true,
            }),
            Err(Refused { reason, text, .. }) => closing(reason, text),
        }
    }

    fn now(&self) -> SessionTime {
        SessionTime { monotonic_ns: self.clock.monotonic_ns(), wall_ns: self.clock.wall_ns() }
    }
}

fn closing(reason: CloseReason, text: String) -> Message {
    Message::Close(Close { reason, text, retry_after_ms: None })
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::new().encode(message, &mut bytes);
    bytes
}

/// The reasons for which a check fails after the line is open.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The hub would refuse a session.
    #[error("the hub would refuse this edge: {reason}: {text}")]
    Refused {
        /// The reason as the protocol has it.
        reason: CloseReason,
        /// The reason for people.
        text: String,
    },
    /// The line broke.
    #[error("the line broke: {0}")]
    Lost(WebSocketError),
    /// The hub closed the connection.
    #[error("the hub, or something before it, closed the connection and gave no reason: look at the hub's log")]
    Closed,
    /// No answer arrived in time.
    #[error("no answer to {bytes} bytes arrived within {} s: something in between holds them back", ANSWER_TIMEOUT.as_secs())]
    TimedOut {
        /// The length of the message.
        bytes: usize,
    },
    /// The answer is not what was asked for.
    #[error("the answer is another one than the hub gives: {0}")]
    Altered(String),
}

/// The hub's welcome, with the comparison of the clocks.
#[derive(Clone, Debug)]
pub struct CheckedHello {
    /// The hub's welcome.
    pub welcome: Welcome,
    /// The hub's clock minus this host's, in nanoseconds; `None` if it was not measured.
    pub clock_offset_ns: Option<i64>,
}

/// The edge's end of a check.
pub struct LineCheck<S> {
    socket: WebSocket<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LineCheck<S> {
    /// A check on a connection with the check's subprotocol.
    pub fn new(socket: WebSocket<S>) -> Self {
        Self { socket }
    }

    /// Asks whether the hub would admit this edge. `hello` has no reading of the clock; `now` gives the time.
    ///
    /// # Errors
    /// If the hub would not, or does not answer.
    pub async fn ask(&mut self, mut hello: Hello, now: impl Fn() -> SessionTime) -> Result<CheckedHello, CheckError> {
        let mut offset = Offset::default();
        hello.clock = offset.reading(now());
        let frame = self.exchange(encoded(&Message::Hello(hello)).into()).await?;
        match Decoder::decode_plain(&frame).map_err(|error| CheckError::Altered(error.to_string()))? {
            Message::Welcome(welcome) => {
                let clock_offset_ns = offset.read(welcome.clock, now());
                Ok(CheckedHello { welcome, clock_offset_ns })
            }
            Message::Close(Close { reason, text, .. }) => Err(CheckError::Refused { reason, text }),
            other => Err(CheckError::Altered(format!("a {}", other.name()))),
        }
    }

    /// Sends bytes that do not compress, and waits until they are back; returns the time that took.
    ///
    /// # Errors
    /// If they do not come back as they were sent.
    pub async fn probe(&mut self, bytes: Bytes) -> Result<Duration, CheckError> {
        let begun = Instant::now();
        if self.exchange(bytes.clone()).await? != bytes {
            return Err(CheckError::Altered("other bytes than were sent".into()));
        }
        Ok(begun.elapsed())
    }

    /// Ends the check.
    pub async fn end(mut self) {
        // The hub may be gone; the check is over either way.
        let _ = timeout(ANSWER_TIMEOUT, self.socket.sender.close()).await;
    }

    async fn exchange(&mut self, message: Bytes) -> Result<Bytes, CheckError> {
        let bytes = message.len();
        let exchanged = async {
            self.socket.sender.send(message).await.map_err(CheckError::Lost)?;
            self.socket.receiver.receive().await.map_err(CheckError::Lost)?.ok_or(CheckError::Closed)
        };
        timeout(ANSWER_TIMEOUT, exchanged).await.map_err(|_| CheckError::TimedOut { bytes })?
    }
}
