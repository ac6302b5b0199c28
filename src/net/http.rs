//! The HTTP server below the gateway, with limits and graceful shutdown. Its interface shows no types of hyper.
//! [`serve`] serves HTTP/1.1, [`encrypted::serve`] serves HTTP/1.1 or HTTP/2 over TLS.
//!
//! A [`Handler`] receives an [`Incoming`] request, reads its body under a limit, and returns a [`Response`]: bytes, or
//! a stream of bytes if the body is too large for memory.

use std::any::Any;
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Version};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::failures::FailureKind;
use super::listen::{self, Accepting};
use super::slots::{SlotKind, Slots};
use super::timeouts::{InFlight, PhaseTracker, TimeoutStream, Timeouts};
use crate::model::{ByteBudget, ByteReservation};

pub mod client;
pub mod encrypted;
mod refusal;
pub mod sender;
mod whole_body;

/// The response to a connection beyond `limits.connections_max`.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nCache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
    too many connections (limits.connections_max)\n";

/// Bytes of a response that hyper gets at once, at most. A response counts as sent when hyper has its last frame.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// Bytes of a refused request that are read and dropped, at most, and the time for it.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The header that names the time for which an idle connection stays open.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The limits of the server. `docs/reference/configuration.md` has the defaults.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections at once, over all listeners that share these slots.
    pub slots: Slots,
    /// Bytes of a request's head, at most; see also `headers_max`.
    pub header_bytes_max: usize,
    /// Time limits for the peer: see [`Timeouts`].
    pub timeouts: Timeouts,
    /// Time for a request's whole body to arrive.
    pub body_timeout: Duration,
    /// Bytes of all bodies in memory together.
    pub budget: ByteBudget,
    /// Time for open requests to finish when the server shuts down.
    pub drain_timeout: Duration,
}

/// Handles requests.
pub trait Handler: Send + Sync + 'static {
    /// Handles one request. The future is dropped when the client disconnects.
    fn handle(&self, request: &mut Incoming) -> impl Future<Output = Response> + Send;
}

/// Serves connections until `stop`, then finishes the open requests.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    limits: Arc<HttpLimits>,
    stop: CancellationToken,
) {
    let accepting = Accepting { slots: limits.slots.clone(), refusal: REFUSAL, drain_timeout: limits.drain_timeout };
    let serve_one = {
        let stop = stop.clone();
        move |stream, peer, kind| {
            let client = Client { peer, kind };
            serve_connection(stream, client, handler.clone(), limits.clone(), stop.clone())
        }
    };
    listen::accept(listener, accepting, stop, serve_one).await;
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Client {
    peer: SocketAddr,
    kind: SlotKind,
}

async fn serve_connection<S, H>(
    stream: S,
    client: Client,
    handler: Arc<H>,
    limits: Arc<HttpLimits>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let stream = TimeoutStream::new(stream, limits.timeouts);
    let tracker = stream.tracker().clone();
    let _registration = limits.slots.register(tracker.clone());
    let service = service_fn(|request| answer(request, client, &handler, &limits, &tracker));
    let mut builder = http1::Builder::new();
    // `TimeoutStream` limits the time for a head, and distinguishes it from an idle connection, which hyper does not.
    builder.header_read_timeout(None).half_close(true);
    builder.max_header_size(limits.header_bytes_max).max_headers(headers_max(limits.header_bytes_max));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = tracker.close_asked() => {
                // The runtime looks for bytes that have arrived: a request that crosses the close is answered.
                tokio::task::yield_now().await;
                tracker.close_if_idle();
            }
        }
    };
    report(ended, client, &limits, &tracker, &stop);
}

/// Counts and logs the end of a connection.
fn report(
    ended: hyper::Result<()>,
    client: Client,
    limits: &HttpLimits,
    tracker: &PhaseTracker,
    stop: &CancellationToken,
) {
    let peer = client.peer;
    let is_own_end = stop.is_cancelled() || tracker.is_closing();
    match ended {
        Err(error) if tracker.has_served() || is_own_end => {
            debug!(%peer, error = %ErrorChain(&error), "connection ended");
        }
        Err(error) => limits.slots.failures().record(peer, kind(&error), &ErrorChain(&error).to_string()),
        Ok(()) if tracker.has_served() || is_own_end => {}
        Ok(()) => limits.slots.failures().record(peer, FailureKind::Closed, "closed without a request"),
    }
}

fn kind(error: &hyper::Error) -> FailureKind {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return FailureKind::of_io(error);
        }
        cause = error.source();
    }
    if error.is_incomplete_message() { FailureKind::Closed } else { FailureKind::Protocol }
}

/// The most headers of a request: as many as fit into `header_bytes_max`, because a header has three bytes at least. A
/// proxy adds headers of its own, so a small number would refuse requests that their client has sent before.
///
/// hyper reserves memory for that many at each request, 32 bytes each in two lists, without touching it. That takes
/// 0.2 µs up to 16,000 headers, but 3 µs from 512 KiB a list on, which the allocator serves from the system.
fn headers_max(header_bytes_max: usize) -> usize {
    (header_bytes_max / 3).min(16_000)
}

/// Passes a request to the handler, and the response to hyper.
fn answer<H: Handler>(
    request: hyper::Request<hyper::body::Incoming>,
    client: Client,
    handler: &Arc<H>,
    limits: &Arc<HttpLimits>,
    tracker: &PhaseTracker,
) -> impl Future<Output = Result<hyper::Response<ResponseBody>, Infallible>> + Send + use<H> {
    let in_flight = tracker.in_flight();
    let reserved = client.kind == SlotKind::Reserved;
    if reserved {
        tracker.ask_to_close();
    }
    let idle_seconds = limits.timeouts.idle_timeout.map_or(0, |limit| limit.as_secs());
    let (parts, body) = request.into_parts();
    let mut incoming = Incoming { parts, body: Some(body), peer: client.peer, limits: limits.clone() };
    let handler = handler.clone();
    async move {
        let mut response = match refusal::refusal(&incoming.parts) {
            Some(response) => response.0,
            None if reserved && !incoming.parts.method.is_safe() => {
                incoming.limits.slots.count_refused();
                incoming.discard().await;
                refusal::no_slot().0
            }
            None => handler.handle(&mut incoming).await.0,
        };
        if matches!(incoming.parts.method, Method::GET | Method::HEAD) {
            // Caches keep an answer without this header for as long as they like: varnish serves a scrape, and a 404,
            // for two minutes. Answers to other methods are not cached.
            response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        }
        if incoming.parts.method == Method::HEAD {
            strip(&mut response);
        }
        if reserved && incoming.parts.version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if idle_seconds > 0 && incoming.parts.version <= Version::HTTP_11 {
            // Clients that keep connections read this, and do not send a request on one that is about to close.
            let timeout = format!("timeout={idle_seconds}");
            response.headers_mut().extend(HeaderValue::try_from(timeout).ok().map(|timeout| (KEEP_ALIVE, timeout)));
        }
        response.body_mut().in_flight = Some(in_flight);
        Ok(response)
    }
}

/// Makes a response to HEAD: with the length of the body but without the body, which hyper would send over HTTP/2.
fn strip(response: &mut hyper::Response<ResponseBody>) {
    let reply = response.body_mut();
    let content = std::mem::replace(&mut reply.content, Content::Bytes(Bytes::new()));
    if let Content::Bytes(bytes) = content {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
}

/// An error with its causes: hyper's own message gives only the kind.
struct ErrorChain<'a>(&'a dyn std::error::Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A request whose head has arrived.
#[derive(Debug)]
pub struct Incoming {
    parts: Parts,
    body: Option<hyper::body::Incoming>,
    peer: SocketAddr,
    limits: Arc<HttpLimits>,
}

impl Incoming {
    /// The method as received; standard methods are in upper case.
    pub fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    /// The path, still percent-encoded.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The query after the question mark, still percent-encoded.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// The first header of that name (in lower case), if it exists and is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// The bytes of the first header of that name (in lower case).
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.parts.headers.get(name).map(|value| value.as_bytes())
    }

    /// All headers of that name (in lower case) that are visible ASCII.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// All headers of that name (in lower case) as text: bytes that are no UTF-8 are replaced.
    pub fn headers_lossy(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    /// Host and port as the client names them: of the `Host` header, or with HTTP/2 of `:authority`.
    pub fn authority(&self) -> Option<&str> {
        self.parts.uri.authority().map(|authority| authority.as_str()).or_else(|| self.header("host"))
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads and drops the body of a refused request, up to a limit. If the connection closed while the client is still
    /// sending, the client would lose the response.
    pub async fn discard(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        // The client waits for `100 Continue` before it sends the body. Reading would send it.
        if self.parts.headers.contains_key("expect") {
            return;
        }
        let discarding = async {
            let mut bytes = 0;
            while bytes < DISCARDED_BYTES_MAX
                && let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // After the time limit the client gets the response, whatever it has sent.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT.min(self.limits.body_timeout), discarding).await;
    }

    /// Reads the body, of at most `bytes_max` bytes as they arrive. `key` is the option that sets the limit, for the
    /// error text. A second call returns an empty body.
    ///
    /// # Errors
    /// If the body exceeds a limit or the time limit, or the connection fails.
    pub async fn body(&mut self, bytes_max: usize, key: &'static str) -> Result<Body, BodyError> {
        let empty = || Ok(Body { bytes: Bytes::new(), reservation: None });
        let Some(body) = self.body.take() else { return empty() };
        if body.is_end_stream() {
            return empty();
        }
        let (mut body, timeout) = (body, self.limits.body_timeout);
        let reading = read_body(&mut body, bytes_max, key, &self.limits.budget);
        let read = tokio::time::timeout(timeout, reading).await.unwrap_or(Err(BodyError::TimedOut { after: timeout }));
        if let Err(BodyError::TooLarge { .. } | BodyError::Exhausted(_)) = read {
            // The rest of the body is still to be dropped.
            self.body = Some(body);
        }
        read
    }
}

/// A request's body. Its bytes are reserved in [`HttpLimits::budget`] until it is dropped.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    reservation: Option<ByteReservation>,
}

impl Body {
    /// Reserves more bytes along with the body, such as those of its decompressed form.
    ///
    /// # Errors
    /// If the budget has too few bytes left.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reserve(reservation, bytes))
    }
}

fn reserve(reservation: &mut ByteReservation, bytes: u64) -> Result<(), Exhausted> {
    let bytes_max = reservation.budget().bytes_max();
    if reservation.grow(bytes) { Ok(()) } else { Err(Exhausted { bytes_max }) }
}

impl std::ops::Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// All requests together exceed [`HttpLimits::budget`] at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all requests together already hold {bytes_max} bytes (limits.inflight_bytes_max): try again later")]
pub struct Exhausted {
    /// The limit.
    pub bytes_max: u64,
}

/// The reasons for which a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It exceeds the limit, or its `Content-Length` does.
    #[error("the body is larger than {bytes_max} bytes ({key})")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
        /// The option that sets the limit.
        key: &'static str,
    },
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s (limits.body_timeout)", .after.as_secs_f64())]
    TimedOut {
        /// The time limit.
        after: Duration,
    },
    /// All bodies together exceed the budget at the moment.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The client disconnected, or violated the protocol.
    #[error("the body could not be read: {0}")]
    Broken(String),
}

impl BodyError {
    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::TimedOut { .. } => 408,
            Self::Exhausted(_) => 503,
            Self::Broken(_) => 400,
        }
    }
}

async fn read_body(
    body: &mut hyper::body::Incoming,
    bytes_max: usize,
    key: &'static str,
    budget: &ByteBudget,
) -> Result<Body, BodyError> {
    let too_large = BodyError::TooLarge { bytes_max, key };
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large);
    }
    // Bytes are reserved when they arrive, not when they are announced: an announcement costs a hostile client nothing.
    let mut reservation = budget.empty_reservation();
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| BodyError::Broken(ErrorChain(&error).to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        reserve(&mut reservation, data.len() as u64)?;
        if reservation.bytes() > bytes_max as u64 {
            return Err(too_large);
        }
        // Most bodies are one frame, and are passed on without a copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.into() };
    Ok(Body { bytes, reservation: Some(reservation) })
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response(hyper::Response<ResponseBody>);

impl Response {
    /// A response with that status, no headers and no body. A number outside 100–999 becomes 500.
    pub fn new(status: u16) -> Self {
        let mut response =
            hyper::Response::new(ResponseBody { content: Content::Bytes(Bytes::new()), in_flight: None, guard: None });
        *response.status_mut() =
            hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        Self(response)
    }

    /// Adds a header. A name or value that HTTP does not allow is ignored.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_ref()));
        if let (Ok(name), Ok(value)) = pair {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    /// Adds a header unless one of that name is set.
    pub fn header_if_missing(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if self.0.headers().contains_key(name) { self } else { self.header(name, value) }
    }

    /// Sets the body.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.0.body_mut().content = Content::Bytes(bytes.into());
        self
    }

    /// Makes the body a stream of `parts`. If the client takes no bytes for too long, the connection is closed. If a
    /// part fails, the connection is aborted, so that the client notices.
    pub fn parts(mut self, parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        self.0.body_mut().content = Content::Parts(StreamedBody { parts: Box::pin(parts), left: Bytes::new() });
        self
    }

    /// Keeps `guard` until the response is sent or the client disconnects, and drops it then.
    pub fn with_guard(mut self, guard: impl Send + 'static) -> Self {
        self.0.body_mut().guard = Some(Box::new(guard));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }
}

#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    Parts(StreamedBody),
    Ended,
}

/// A body that is generated while it is sent, and the rest of its last part that hyper does not have yet.
struct StreamedBody {
    parts: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    left: Bytes,
}

impl StreamedBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        while self.left.is_empty() {
            match ready!(self.parts.as_mut().poll_next(cx)) {
                Some(Ok(part)) => self.left = part,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(Ok(frame(&mut self.left))))
    }
}

/// Splits the next frame off the front.
fn frame(left: &mut Bytes) -> Bytes {
    left.split_to(left.len().min(FRAME_BYTES_MAX))
}

impl fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamedBody")
    }
}

/// A response's body in the form that hyper reads. When hyper drops it, the connection is idle again.
#[derive(Debug)]
struct ResponseBody {
    content: Content,
    in_flight: Option<InFlight>,
    /// Dropped with the body.
    guard: Option<Box<dyn Any + Send>>,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.content {
            Content::Bytes(bytes) if bytes.is_empty() => None,
            Content::Bytes(bytes) => Some(Ok(Frame::data(frame(bytes)))),
            Content::Parts(made) => ready!(made.poll_next(cx)).map(|frame| frame.map(Frame::data)),
            Content::Ended => None,
        };
        if piece.is_none() {
            self.content = Content::Ended;
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.is_empty(),
            Content::Parts(_) => false,
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Parts(_) => SizeHint::default(),
            Content::Ended => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests;
