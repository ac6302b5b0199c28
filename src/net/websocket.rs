//! The link's frames: binary messages over a WebSocket (RFC 6455) at `GET /api/v1/relay`, subprotocol `pushrelay.v1`.
//!
//! The link uses a WebSocket and not bare TLS because proxies and load balancers pass it. Pings are answered, but the
//! link's own heartbeats decide whether the peer is alive.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use thiserror::Error as ThisError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{self, HeaderValue};
use tokio_tungstenite::tungstenite::http::{StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async_with_config};

use super::address::HostPort;
use super::counted::Traffic;
use super::failures::FailureKind;
use super::tls;
pub use purpose::{CHECK_SUBPROTOCOL, ENROL_SUBPROTOCOL, LinkPurpose, SUBPROTOCOL};

mod purpose;

/// The path at which a hub accepts edges.
pub const PATH: &str = "/api/v1/relay";
/// Bytes of a connection's buffer, each way. They are small because most links are idle and a hub has many.
const BUFFER_BYTES: usize = 16 << 10;

/// The errors of a WebSocket connection and its handshake.
#[derive(Debug, ThisError)]
pub enum WebSocketError {
    /// The underlying stream failed.
    #[error("the connection failed: {}", tls::explain(.0))]
    Io(io::Error),
    /// The hub responded with a status other than 101.
    #[error("the hub answered {status} to GET {PATH}: {body:?}; is that address a hub's edge listener?")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the response body.
        body: String,
    },
    /// The hub knows the edge's request and refuses this edge.
    #[error("the hub refuses this edge: {0}")]
    Forbidden(String),
    /// The edge's request is not a request for the link. The hub responded with this status and text.
    #[error("not an edge: answered {status}, {reason}")]
    BadRequest {
        /// The HTTP status of the response.
        status: u16,
        /// The text of the response.
        reason: String,
    },
    /// The hub does not support the subprotocol.
    #[error("the hub does not speak the subprotocol {SUBPROTOCOL}")]
    NoSubprotocol,
    /// The peer sent a message that exceeds the limit.
    #[error("a message of {bytes} compressed bytes is larger than {bytes_max} (link.message_bytes_max, and some)")]
    TooLarge {
        /// The size of the message in bytes, as far as it is known.
        bytes: usize,
        /// The limit on the compressed size.
        bytes_max: usize,
    },
    /// The peer sent a text message; the link's messages are binary.
    #[error("the peer sent a text message: the link's are binary")]
    Text,
    /// The peer sent too many pings: each one takes memory until its pong is sent.
    #[error("the peer sent more than {PINGS_MAX} pings in {} s", PINGS_WINDOW.as_secs())]
    Pings,
    /// The peer violated the WebSocket protocol.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(String),
}

impl WebSocketError {
    /// The kind of a failed handshake with an incoming connection.
    pub fn failure(&self) -> FailureKind {
        match self {
            Self::Io(error) => FailureKind::of_io(error),
            _ => FailureKind::Refused,
        }
    }

    /// Whether the hub is too old to know checks: it refuses the subprotocol of one.
    pub fn is_without_checks(&self) -> bool {
        matches!(self, Self::Refused { status: 400, body } if body.starts_with(OTHER_SUBPROTOCOL))
    }

    /// Whether the peer sent something that it must not send. The connection itself works.
    pub fn is_fault_of_peer(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Text | Self::Pings | Self::Protocol(_))
    }
}

/// A link's connection in two halves, so that a task can wait for both directions at once.
#[derive(Debug)]
pub struct WebSocket<S> {
    /// The sending half.
    pub sender: Sender<S>,
    /// The receiving half.
    pub receiver: Receiver<S>,
}

/// The sending half of a connection.
#[derive(Debug)]
pub struct Sender<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    traffic: Arc<Traffic>,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver<S> {
    stream: SplitStream<WebSocketStream<S>>,
    traffic: Arc<Traffic>,
    /// The start of the current window in which pings are counted; pongs stay in memory until the peer reads them.
    since: Instant,
    pings: u32,
}

/// Pings that are answered within [`PINGS_WINDOW`], at most.
const PINGS_MAX: u32 = 256;
const PINGS_WINDOW: Duration = Duration::from_secs(256);

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn new(socket: WebSocketStream<S>) -> Self {
        let traffic = Arc::<Traffic>::default();
        let (sink, stream) = socket.split();
        Self {
            sender: Sender { sink, traffic: traffic.clone() },
            receiver: Receiver { stream, traffic, since: Instant::now(), pings: 0 },
        }
    }

    /// Bytes of messages in both directions, without frames and TLS.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.sender.traffic
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// Sends a message and waits until the operating system has it. Not cancel-safe: if the future is dropped, the
    /// connection cannot be used any more.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn send(&mut self, message: impl Into<Bytes>) -> Result<(), WebSocketError> {
        let message = message.into();
        self.traffic.add_sent(message.len());
        self.sink.send(Message::Binary(message)).await.map_err(explain)
    }

    /// Sends a close frame. The peer's close frame arrives at the receiver, which then returns `None`.
    ///
    /// # Errors
    /// If the connection fails; a connection that is closed already is no error.
    pub async fn close(&mut self) -> Result<(), WebSocketError> {
        match self.sink.close().await {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) | Ok(()) => Ok(()),
            Err(error) => Err(explain(error)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// Receives the next message; `None` after the peer's close frame. Cancel-safe.
    ///
    /// # Errors
    /// If the connection fails, or the peer violates the protocol or a limit.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, WebSocketError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(message))) => {
                    self.traffic.add_received(message.len());
                    return Ok(Some(message));
                }
                Some(Ok(Message::Text(_))) => return Err(WebSocketError::Text),
                Some(Ok(Message::Ping(_))) => {
                    if self.since.elapsed() > PINGS_WINDOW {
                        (self.since, self.pings) = (Instant::now(), 0);
                    }
                    self.pings += 1;
                    if self.pings > PINGS_MAX {
                        return Err(WebSocketError::Pings);
                    }
                }
                // The library answers a close frame at the next call of `next`, which ends the stream.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(explain(error)),
                None => return Ok(None),
            }
        }
    }
}

/// The beginning of a hub's answer to an unknown subprotocol.
const OTHER_SUBPROTOCOL: &str = "the subprotocol must be";

/// Requests the link from a hub, over an encrypted stream. `bytes_max` is the size of the largest message that is
/// accepted, before compression.
///
/// # Errors
/// If the connection fails or the hub refuses.
pub async fn connect<S>(
    stream: S,
    hub: &HostPort,
    purpose: LinkPurpose,
    bytes_max: usize,
) -> Result<WebSocket<S>, WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let uri = format!("wss://{hub}{PATH}").parse::<Uri>().map_err(|error| explain(Error::HttpFormat(error.into())))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(purpose.subprotocol());
    match client_async_with_config(request, stream, Some(config(purpose.bytes_max(bytes_max)))).await {
        Ok((socket, _)) => Ok(WebSocket::new(socket)),
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => Err(WebSocketError::NoSubprotocol),
        Err(error) => Err(explain(error)),
    }
}

/// Accepts an edge's request for one of the `purposes`. Any other request gets an HTTP error response. `bytes_max` as for
/// [`connect`].
///
/// # Errors
/// If the connection fails, or the request is not one for the link.
pub async fn accept<S>(
    mut stream: S,
    purposes: &[LinkPurpose],
    bytes_max: usize,
) -> Result<(WebSocket<S>, LinkPurpose), WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The handshake borrows the stream, so that this function can still respond to a request that the library rejects.
    // No data is lost: a client that sends before the response arrives is refused.
    let mut purpose = LinkPurpose::Session;
    // The library's trait requires this error type.
    #[allow(clippy::result_large_err)]
    let check = |request: &Request, response: Response| check_request(request, response, purposes, &mut purpose);
    let refusal = match accept_hdr_async(&mut stream, check).await {
        Ok(_) => {
            let config = config(purpose.bytes_max(bytes_max));
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            return Ok((WebSocket::new(socket), purpose));
        }
        Err(Error::Http(answer)) => {
            let reason = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).trim_end().to_owned();
            let _ = stream.shutdown().await;
            return Err(WebSocketError::BadRequest { status: answer.status().as_u16(), reason });
        }
        Err(Error::Io(error)) => return Err(WebSocketError::Io(error)),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => (StatusCode::METHOD_NOT_ALLOWED, "use GET".to_owned()),
        Err(
            error @ Error::Protocol(
                ProtocolError::MissingConnectionUpgradeHeader
                | ProtocolError::MissingUpgradeWebSocketHeader
                | ProtocolError::MissingSecWebSocketVersionHeader,
            ),
        ) => (StatusCode::UPGRADE_REQUIRED, format!("this is a pushrelay hub's listener for edges: {error}")),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let (status, reason) = refusal;
    let answer = format!(
        "HTTP/1.1 {status}\r\nAllow: GET\r\nUpgrade: websocket\r\nConnection: close\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    );
    // The peer may be gone; the reason is the same.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    Err(WebSocketError::BadRequest { status: status.as_u16(), reason })
}

/// The header of the response to an edge that is refused.
const REFUSED: &str = "pushrelay-refused";

/// Answers an edge's request for the link with 403 and the reason, for an edge that is known by its certificate to be
/// refused. Waits for the request as long as the caller does.
pub async fn refuse<S>(mut stream: S, reason: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The library's trait requires this error type.
    #[allow(clippy::result_large_err)]
    let answer = |_: &Request, _: Response| {
        let mut response = refusal(StatusCode::FORBIDDEN, reason.to_owned());
        response.headers_mut().insert(REFUSED, HeaderValue::from_static("1"));
        Err(response)
    };
    // The edge may send anything, or nothing; then it gets no answer.
    let _ = accept_hdr_async(&mut stream, answer).await;
    tls::linger(stream).await;
}

// The library's trait requires this error type.
#[allow(clippy::result_large_err)]
fn check_request(
    request: &Request,
    mut response: Response,
    purposes: &[LinkPurpose],
    purpose: &mut LinkPurpose,
) -> Result<Response, ErrorResponse> {
    if request.uri().path() != PATH {
        return Err(refusal(StatusCode::NOT_FOUND, format!("edges connect to {PATH}")));
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offers = |wanted: &LinkPurpose| {
        let has = |value: &HeaderValue| {
            value.to_str().is_ok_and(|value| value.split(',').any(|offer| offer.trim() == wanted.subprotocol()))
        };
        offered.iter().any(has)
    };
    match LinkPurpose::ALL.into_iter().find(offers) {
        Some(offered) if purposes.contains(&offered) => *purpose = offered,
        Some(offered) => {
            let mut response = refusal(StatusCode::FORBIDDEN, offered.refusal(purposes).into());
            response.headers_mut().insert(REFUSED, HeaderValue::from_static("1"));
            return Err(response);
        }
        None => return Err(refusal(StatusCode::BAD_REQUEST, format!("{OTHER_SUBPROTOCOL} {SUBPROTOCOL}"))),
    }
    let chosen = HeaderValue::from_static(purpose.subprotocol());
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    Ok(response)
}

fn refusal(status: StatusCode, reason: String) -> ErrorResponse {
    let body = format!("{reason}\n");
    let length = HeaderValue::from(body.len());
    let mut response = ErrorResponse::new(Some(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn config(bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        // Each send waits for the one before, so the buffer contains one message and the pongs, whose number is
        // limited.
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(compressed_bytes_max(bytes_max)))
        .max_frame_size(Some(compressed_bytes_max(bytes_max)))
}

/// The compressed size of an incompressible message of `bytes_max` bytes: deflate stores it in blocks of about 16 KiB
/// or more, with five bytes before each. The receiver checks the decompressed size itself.
fn compressed_bytes_max(bytes_max: usize) -> usize {
    const SLACK_BYTES: usize = 1 << 10;
    bytes_max.saturating_add(bytes_max / 1_024).saturating_add(SLACK_BYTES)
}

/// Characters of a hub's response that an error shows, at most.
const BODY_CHARS_MAX: usize = 500;

fn explain(error: Error) -> WebSocketError {
    match error {
        Error::Io(error) => WebSocketError::Io(error),
        Error::Http(answer) => {
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
            let body: String = body.trim().chars().take(BODY_CHARS_MAX).collect();
            if answer.headers().contains_key(REFUSED) {
                return WebSocketError::Forbidden(body);
            }
            WebSocketError::Refused { status: answer.status().as_u16(), body }
        }
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            WebSocketError::TooLarge { bytes: size, bytes_max: max_size }
        }
        Error::ConnectionClosed | Error::AlreadyClosed => {
            WebSocketError::Io(io::Error::new(io::ErrorKind::NotConnected, "the connection is closed"))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            WebSocketError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer went away"))
        }
        other => WebSocketError::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::compression::Deflater;

    fn hub() -> HostPort {
        "localhost:9443".parse().unwrap()
    }

    async fn pair(bytes_max: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 10);
        let hub = hub();
        let (edge, hub) = tokio::join!(
            connect(near, &hub, LinkPurpose::Session, bytes_max),
            accept(far, &LinkPurpose::ALL, bytes_max)
        );
        (edge.unwrap(), hub.unwrap().0)
    }

    #[test]
    fn the_http_reference_names_path_and_subprotocol() {
        let page = include_str!("../../docs/reference/http-api.md");
        assert!(page.contains(&format!("`GET` `{PATH}`")) && page.contains(SUBPROTOCOL));
    }

    #[tokio::test]
    async fn messages_pass_whole_both_ways_and_are_counted() {
        let (mut edge, mut hub) = pair(1 << 20).await;
        // The message is larger than the pipe: both ends must read while they write.
        let large = vec![7; 100_000];
        let (sent, received) = tokio::join!(edge.sender.send(large.clone()), hub.receiver.receive());
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap(), large);
        hub.sender.send(&b""[..]).await.unwrap();
        assert_eq!(edge.receiver.receive().await.unwrap().unwrap(), &b""[..]);
        assert_eq!((edge.traffic().sent_bytes(), hub.traffic().received_bytes()), (100_000, 100_000));
        edge.sender.close().await.unwrap();
        assert!(hub.receiver.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn both_ends_can_send_at_once_while_both_receive() {
        let (mut edge, mut hub) = pair(1 << 20).await;
        let large = vec![1; 100_000];
        let (a, b, c, d) = tokio::join!(
            edge.sender.send(large.clone()),
            hub.sender.send(large.clone()),
            edge.receiver.receive(),
            hub.receiver.receive()
        );
        a.and(b).unwrap();
        assert!(c.unwrap().unwrap() == large && d.unwrap().unwrap() == large);
    }

    #[tokio::test]
    async fn an_oversized_message_names_the_bound() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let address = hub();
        let (edge, hub) =
            tokio::join!(connect(near, &address, LinkPurpose::Session, 1 << 20), accept(far, &LinkPurpose::ALL, 1_000));
        let (mut edge, mut hub) = (edge.unwrap(), hub.unwrap().0);
        let (_, received) = tokio::join!(
            async {
                tokio::select! {
                    _ = edge.sender.send(vec![0; 3_000]) => {}
                    _ = tokio::task::yield_now() => {}
                }
            },
            hub.receiver.receive()
        );
        let error = received.unwrap_err();
        assert!(matches!(error, WebSocketError::TooLarge { bytes: 3_000, bytes_max: 2_024 }), "{error}");
    }

    #[tokio::test]
    async fn incompressible_messages_pass_up_to_the_limit() {
        for (bytes_max, level) in [(64 << 10, 3), (1 << 20, 3), (1 << 20, 0), (1 << 20, 9)] {
            let (mut edge, mut hub) = pair(bytes_max).await;
            let mut state = 1u64;
            let noise = (0..bytes_max).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
            let mut deflated = Vec::new();
            Deflater::new(level).compress(&noise.collect::<Vec<u8>>(), &mut deflated);
            assert!(deflated.len() > bytes_max, "it does not compress");
            let both = async { tokio::try_join!(edge.sender.send(deflated.clone()), hub.receiver.receive()) };
            assert_eq!(both.await.unwrap().1.unwrap(), deflated);
        }
    }

    /// A peer that reads nothing, so that all pongs stay in memory.
    #[tokio::test]
    async fn pings_that_nobody_needs_end_the_connection() {
        let (mut edge, mut hub) = pair(1_000).await;
        let ping = async { while edge.sender.sink.send(Message::Ping(Bytes::from_static(&[0; 125]))).await.is_ok() {} };
        let error = tokio::select! {
            () = ping => panic!("the hub is there"),
            received = hub.receiver.receive() => received.unwrap_err(),
        };
        assert!(matches!(error, WebSocketError::Pings), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn pings_far_apart_are_answered_for_ever() {
        let (mut edge, mut hub) = pair(1_000).await;
        for _ in 0..3 * PINGS_MAX {
            edge.sender.sink.send(Message::Ping(Bytes::new())).await.unwrap();
            edge.sender.send(&b"x"[..]).await.unwrap();
            assert_eq!(hub.receiver.receive().await.unwrap().unwrap(), &b"x"[..]);
            // The peer reads the pong; time passes meanwhile.
            let _ = tokio::time::timeout(Duration::from_secs(2), edge.receiver.receive()).await;
        }
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_is_an_error() {
        let (edge, mut hub) = pair(1_000).await;
        drop(edge);
        assert!(matches!(hub.receiver.receive().await, Err(WebSocketError::Io(_))));
    }

    /// Returns the hub's response to a request, and its error.
    async fn answer(request: &str) -> (String, WebSocketError) {
        let (mut near, far) = tokio::io::duplex(4 << 10);
        near.write_all(request.as_bytes()).await.unwrap();
        let error = accept(far, &LinkPurpose::ALL, 1_000).await.unwrap_err();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        (answer, error)
    }

    fn upgrade(path: &str, subprotocol: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        )
    }

    #[tokio::test]
    async fn requests_for_something_else_get_http_answers() {
        for (request, status, text) in [
            (upgrade("/metrics", SUBPROTOCOL), "404", "edges connect to /api/v1/relay"),
            (upgrade(PATH, "chat"), "400", "the subprotocol must be pushrelay.v1"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "426", "a pushrelay hub's listener for edges"),
            ("POST /metrics/job/a HTTP/1.1\r\nHost: a\r\n\r\n".into(), "405", "use GET"),
            ("nonsense\r\n\r\n".into(), "400", ""),
        ] {
            let (answer, error) = answer(&request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains(text), "{answer}");
            let length = answer.split("\r\n\r\n").nth(1).unwrap().len();
            assert!(answer.to_lowercase().contains(&format!("content-length: {length}\r\n")), "{answer}");
            assert!(matches!(error, WebSocketError::BadRequest { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn an_edge_that_is_refused_learns_the_reason() {
        let (near, far) = tokio::io::duplex(4 << 10);
        let address = hub();
        let reason = "a certificate without a name. ".repeat(10);
        let (connected, ()) = tokio::join!(connect(near, &address, LinkPurpose::Session, 1_000), refuse(far, &reason));
        let error = connected.unwrap_err().to_string();
        assert_eq!(error, format!("the hub refuses this edge: {}", reason.trim()));
    }

    #[tokio::test]
    async fn a_server_that_is_no_hub_is_recognized_by_its_answer() {
        let (near, mut far) = tokio::io::duplex(4 << 10);
        let address = hub();
        let serve = async {
            let mut request = [0; 1_024];
            let n = far.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /api/v1/relay HTTP/1.1\r\n"));
            far.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nwhat?").await.unwrap();
        };
        let (connected, ()) = tokio::join!(connect(near, &address, LinkPurpose::Session, 1_000), serve);
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("answered 404") && error.contains("what?"), "{error}");
    }
}
