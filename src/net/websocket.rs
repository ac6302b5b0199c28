//! The link's frames: binary messages over a WebSocket (RFC 6455) at `GET /api/v1/relay`, subprotocol `pushrelay.v1`.
//!
//! A WebSocket rather than bare TLS because proxies and load balancers pass it. Pings are answered; whether the peer is
//! alive is for the link's own heartbeats to say.

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
use super::tls;

/// Where a hub takes edges.
pub const PATH: &str = "/api/v1/relay";
/// The subprotocol that both ends must name.
pub const SUBPROTOCOL: &str = "pushrelay.v1";

/// Buffers of a connection, each way: a link is often idle, and a hub has many.
const BUFFER_BYTES: usize = 16 << 10;

/// What ended a connection or kept it from being made.
#[derive(Debug, ThisError)]
pub enum WebSocketError {
    /// The stream below failed.
    #[error("the connection failed: {}", tls::explain(.0))]
    Io(io::Error),
    /// The hub answered with another status than 101.
    #[error("the hub answered {status} to GET {PATH}: {body:?}; is that address a hub's edge listener?")]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of what it said.
        body: String,
    },
    /// The edge's request was no request for the link; it was answered with this status and text.
    #[error("not an edge: answered {status}, {reason}")]
    BadRequest {
        /// The status.
        status: u16,
        /// The text.
        reason: String,
    },
    /// The hub did not agree to the subprotocol.
    #[error("the hub does not speak the subprotocol {SUBPROTOCOL}")]
    NoSubprotocol,
    /// The peer sent a message larger than the bound.
    #[error("a message of {bytes} compressed bytes is larger than {bytes_max} (link.message_bytes_max, and some)")]
    TooLarge {
        /// The size, as far as it is known.
        bytes: usize,
        /// The bound on what is compressed.
        bytes_max: usize,
    },
    /// The peer sent text: messages are binary.
    #[error("the peer sent a text message: the link's are binary")]
    Text,
    /// The peer asked for more answers than anybody needs.
    #[error("the peer sent more than {PINGS_MAX} pings in {} s", PINGS_WINDOW.as_secs())]
    Pings,
    /// The peer broke the WebSocket protocol.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(String),
}

/// A link's connection: two halves, so that both directions can be waited for at once.
#[derive(Debug)]
pub struct Connection<S> {
    /// The half that sends.
    pub sender: Sender<S>,
    /// The half that receives.
    pub receiver: Receiver<S>,
}

/// The half of a connection that sends.
#[derive(Debug)]
pub struct Sender<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    traffic: Arc<Traffic>,
}

/// The half of a connection that receives.
#[derive(Debug)]
pub struct Receiver<S> {
    stream: SplitStream<WebSocketStream<S>>,
    traffic: Arc<Traffic>,
    /// Since when pings are counted, and how many came: an answer waits until the peer takes it.
    since: Instant,
    pings: u32,
}

/// Pings that are answered in [`PINGS_WINDOW`], at most.
const PINGS_MAX: u32 = 256;
const PINGS_WINDOW: Duration = Duration::from_secs(256);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(socket: WebSocketStream<S>) -> Self {
        let traffic = Arc::<Traffic>::default();
        let (sink, stream) = socket.split();
        Self {
            sender: Sender { sink, traffic: traffic.clone() },
            receiver: Receiver { stream, traffic, since: Instant::now(), pings: 0 },
        }
    }

    /// Bytes of messages, both ways, without frames and TLS.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.sender.traffic
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// Sends a message and waits until the system has it. Not cancel-safe: after a send that was dropped, the connection
    /// is of no use.
    pub async fn send(&mut self, message: impl Into<Bytes>) -> Result<(), WebSocketError> {
        let message = message.into();
        self.traffic.add_sent(message.len());
        self.sink.send(Message::Binary(message)).await.map_err(explain)
    }

    /// Tells the peer that no more comes. The peer's own end of it is the receiver's `None`.
    pub async fn close(&mut self) -> Result<(), WebSocketError> {
        match self.sink.close().await {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) | Ok(()) => Ok(()),
            Err(error) => Err(explain(error)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// The next message; `None` when the peer has closed. Cancel-safe.
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
                // Close frames are answered by the next turn, which ends the stream.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(explain(error)),
                None => return Ok(None),
            }
        }
    }
}

/// Asks a hub for the link, over a stream that is encrypted already. `bytes_max` is the size of the largest message taken,
/// before compression.
pub async fn connect<S>(stream: S, hub: &HostPort, bytes_max: usize) -> Result<Connection<S>, WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let uri = format!("wss://{hub}{PATH}").parse::<Uri>().map_err(|error| explain(Error::HttpFormat(error.into())))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    match client_async_with_config(request, stream, Some(config(bytes_max))).await {
        Ok((socket, _)) => Ok(Connection::new(socket)),
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => Err(WebSocketError::NoSubprotocol),
        Err(error) => Err(explain(error)),
    }
}

/// Takes an edge's request for the link. One that is none is answered as HTTP would. `bytes_max` as for [`connect`].
pub async fn accept<S>(mut stream: S, bytes_max: usize) -> Result<Connection<S>, WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The handshake borrows the stream, so that a request which the library gives up on can still be answered. Nothing
    // read ahead is lost: a client that sends before it is answered is refused.
    let refusal = match accept_hdr_async(&mut stream, check_request).await {
        Ok(_) => {
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(bytes_max))).await;
            return Ok(Connection::new(socket));
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
    stream.write_all(answer.as_bytes()).await.map_err(WebSocketError::Io)?;
    let _ = stream.shutdown().await;
    Err(WebSocketError::BadRequest { status: status.as_u16(), reason })
}

// The library's trait asks for this very error type.
#[allow(clippy::result_large_err)]
fn check_request(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() != PATH {
        return Err(refusal(StatusCode::NOT_FOUND, format!("edges connect to {PATH}")));
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offers = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.split(',').any(|p| p.trim() == SUBPROTOCOL));
    if !offered.iter().any(offers) {
        return Err(refusal(StatusCode::BAD_REQUEST, format!("the subprotocol must be {SUBPROTOCOL}")));
    }
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
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
        // Every send waits for the one before, so what waits is one message and the answers to pings, which are counted.
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(compressed_bytes_max(bytes_max)))
        .max_frame_size(Some(compressed_bytes_max(bytes_max)))
}

/// Bytes of a message of `bytes_max` bytes that nothing makes smaller: deflate stores it in blocks of some 16 KiB or more,
/// each with five bytes before it. Whether it is too large after decompression is for the receiver to see.
fn compressed_bytes_max(bytes_max: usize) -> usize {
    const SLACK_BYTES: usize = 1 << 10;
    bytes_max.saturating_add(bytes_max / 1_024).saturating_add(SLACK_BYTES)
}

/// Characters of a hub's answer that are worth showing.
const BODY_CHARS_MAX: usize = 200;

fn explain(error: Error) -> WebSocketError {
    match error {
        Error::Io(error) => WebSocketError::Io(error),
        Error::Http(answer) => {
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
            let body = body.trim().chars().take(BODY_CHARS_MAX).collect();
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

    async fn pair(bytes_max: usize) -> (Connection<DuplexStream>, Connection<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 10);
        let hub = hub();
        let (edge, hub) = tokio::join!(connect(near, &hub, bytes_max), accept(far, bytes_max));
        (edge.unwrap(), hub.unwrap())
    }

    #[test]
    fn the_http_reference_names_path_and_subprotocol() {
        let page = include_str!("../../docs/reference/http-api.md");
        assert!(page.contains(&format!("`GET` `{PATH}`")) && page.contains(SUBPROTOCOL));
    }

    #[tokio::test]
    async fn messages_pass_whole_both_ways_and_are_counted() {
        let (mut edge, mut hub) = pair(1 << 20).await;
        // Larger than the pipe: both ends must read while they write.
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
        let (edge, hub) = tokio::join!(connect(near, &address, 1 << 20), accept(far, 1_000));
        let (mut edge, mut hub) = (edge.unwrap(), hub.unwrap());
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
    async fn what_does_not_compress_passes_up_to_the_bound() {
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

    /// A peer that reads nothing is owed every answer.
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
            // The answer is taken; time passes meanwhile.
            let _ = tokio::time::timeout(Duration::from_secs(2), edge.receiver.receive()).await;
        }
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_is_an_error() {
        let (edge, mut hub) = pair(1_000).await;
        drop(edge);
        assert!(matches!(hub.receiver.receive().await, Err(WebSocketError::Io(_))));
    }

    /// What the hub answers to a request, and what it says of it.
    async fn answer(request: &str) -> (String, WebSocketError) {
        let (mut near, far) = tokio::io::duplex(4 << 10);
        near.write_all(request.as_bytes()).await.unwrap();
        let error = accept(far, 1_000).await.unwrap_err();
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
    async fn a_hub_that_is_none_is_told_by_its_answer() {
        let (near, mut far) = tokio::io::duplex(4 << 10);
        let address = hub();
        let serve = async {
            let mut request = [0; 1_024];
            let n = far.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /api/v1/relay HTTP/1.1\r\n"));
            far.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nwhat?").await.unwrap();
        };
        let (connected, ()) = tokio::join!(connect(near, &address, 1_000), serve);
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("answered 404") && error.contains("what?"), "{error}");
    }
}
