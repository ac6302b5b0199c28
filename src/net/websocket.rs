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
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::{self, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async_with_config};

use super::counted::Traffic;
use super::failures::FailureKind;
use super::tls;
use purpose::OTHER_SUBPROTOCOL;
pub use purpose::{CHECK_SUBPROTOCOL, ENROL_SUBPROTOCOL, LinkPurpose, PATH, SUBPROTOCOL};
pub use request::{LinkRequest, LinkTarget, NoLinkRequest, UpgradeRequest};

mod purpose;
mod request;

/// Bytes of a connection's buffer, each way. They are small because most links are idle and a hub has many.
const BUFFER_BYTES: usize = 16 << 10;

/// The errors of a WebSocket connection and its handshake.
#[derive(Debug, ThisError)]
pub enum WebSocketError {
    /// The underlying stream failed.
    #[error("the connection failed: {}", tls::explain(.0))]
    Io(io::Error),
    /// The hub responded with a status other than 101.
    #[error("the hub answered {status} to GET {path}: {body:?}; {}", advice(*.status))]
    Refused {
        /// The path of the request.
        path: String,
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
        matches!(self, Self::Refused { status: 400, body, .. } if body.starts_with(OTHER_SUBPROTOCOL))
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

/// The advice for an edge whose request got another status than 101, perhaps of a box in between.
fn advice(status: u16) -> &'static str {
    match status {
        400 | 426 | 505 => {
            "if a box in between answers, or asks the hub in its place, it does not pass the upgrade to a WebSocket: see \
             put-a-balancer-before-a-hub"
        }
        401 | 407 => "a box in between wants a login of its own: exempt the hub's path from that",
        502..=504 => "a box in between cannot reach the hub: look at its log",
        _ => "is that address, with uplink.path, a hub's listener for edges?",
    }
}

/// Requests the link from a hub, over a stream that is encrypted unless TLS is off. `bytes_max` is the size of the largest
/// message that is accepted, before compression.
///
/// # Errors
/// If the connection fails or the hub refuses.
pub async fn connect<S>(
    stream: S,
    target: LinkTarget<'_>,
    purpose: LinkPurpose,
    bytes_max: usize,
) -> Result<WebSocket<S>, WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = target.request(purpose).map_err(WebSocketError::Protocol)?;
    match client_async_with_config(request, stream, Some(config(purpose.bytes_max(bytes_max)))).await {
        Ok((socket, _)) => Ok(WebSocket::new(socket)),
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => Err(WebSocketError::NoSubprotocol),
        Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => Err(WebSocketError::Protocol(
            "the answer is no HTTP/1.1: something in between speaks HTTP/2 or another protocol in the hub's place"
                .into(),
        )),
        Err(error) => Err(explain_answer(error, target.path)),
    }
}

/// Accepts an edge's request for one of the `purposes`, as [`accept_if`] does.
///
/// # Errors
/// As [`accept_if`].
pub async fn accept<S>(
    stream: S,
    purposes: &[LinkPurpose],
    bytes_max: usize,
) -> Result<(WebSocket<S>, LinkPurpose), WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let is_offered = |request: &LinkRequest| match purposes.contains(&request.purpose) {
        true => Ok(()),
        false => Err(request.purpose.refusal().to_owned()),
    };
    accept_if(stream, bytes_max, is_offered).await
}

/// Accepts an edge's request for a link, unless `admit` gives a reason to refuse it. Any other request gets an HTTP error
/// response. `bytes_max` as for [`connect`].
///
/// # Errors
/// If the connection fails, or the request is not one for the link, or is refused.
pub async fn accept_if<S>(
    mut stream: S,
    bytes_max: usize,
    admit: impl FnOnce(&LinkRequest) -> Result<(), String> + Unpin,
) -> Result<(WebSocket<S>, LinkPurpose), WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The handshake borrows the stream, so that this function can still respond to a request that the library rejects.
    // No data is lost: a client that sends before the response arrives is refused.
    let mut purpose = LinkPurpose::Session;
    // The library's trait requires this error type.
    #[allow(clippy::result_large_err)]
    let check = |request: &Request, response: Response| {
        let link = check_request(request)?;
        purpose = link.purpose;
        accepted(response, &link, admit(&link))
    };
    let refusal = match accept_hdr_async(&mut stream, check).await {
        Ok(_) => return Ok((adopt(stream, purpose, bytes_max).await, purpose)),
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

/// The hub's end of a connection whose request was answered with 101 already.
pub async fn adopt<S>(stream: S, purpose: LinkPurpose, bytes_max: usize) -> WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = config(purpose.bytes_max(bytes_max));
    WebSocket::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
}

/// The header of the response to an edge that is refused: the status is the hub's own, and not of a box in between.
pub const REFUSED: &str = "pushrelay-refused";

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
fn check_request(request: &Request) -> Result<LinkRequest, ErrorResponse> {
    if !request::is_path(request.uri().path()) {
        return Err(refusal(StatusCode::NOT_FOUND, format!("edges connect to {PATH}")));
    }
    LinkRequest::of(request.headers()).map_err(|error| refusal(StatusCode::BAD_REQUEST, error.text))
}

// The library's trait requires this error type.
#[allow(clippy::result_large_err)]
fn accepted(
    mut response: Response,
    link: &LinkRequest,
    admitted: Result<(), String>,
) -> Result<Response, ErrorResponse> {
    if let Err(reason) = admitted {
        let mut response = refusal(StatusCode::FORBIDDEN, reason);
        response.headers_mut().insert(REFUSED, HeaderValue::from_static("1"));
        return Err(response);
    }
    let chosen = HeaderValue::from_static(link.purpose.subprotocol());
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

/// The error of a request for that path.
fn explain_answer(error: Error, path: &str) -> WebSocketError {
    let Error::Http(answer) = error else { return explain(error) };
    let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
    let body: String = body.trim().chars().take(BODY_CHARS_MAX).collect();
    if answer.headers().contains_key(REFUSED) {
        return WebSocketError::Forbidden(body);
    }
    WebSocketError::Refused { path: path.into(), status: answer.status().as_u16(), body }
}

fn explain(error: Error) -> WebSocketError {
    match error {
        Error::Io(error) => WebSocketError::Io(error),
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
mod tests;
