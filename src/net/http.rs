//! The HTTP server under the gateway: bounded, gently stopped, and nothing of hyper shown to those above. [`serve`] speaks
//! HTTP/1.1, [`encrypted::serve`] that or HTTP/2 in TLS.
//!
//! A [`Handler`] gets an [`Incoming`] request, whose body it may read under a bound, and gives a [`Response`]: bytes, or a
//! stream of them for what is too large to hold.

use std::any::Any;
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
use hyper::Method;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tracing::debug;

use super::budget::{Budget, Exhausted, Reservation};
use super::listen::{self, Accepting, Slots};
use super::stop::Stop;
use super::timeouts::{InFlight, PhaseTracker, TimeoutStream, Timeouts};

pub mod encrypted;
mod refusal;

/// What a connection beyond the bound is told.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nRetry-After: 1\r\nConnection: close\r\n\r\ntoo many connections (limits.connections_max)\n";

/// How much of an answer hyper is given at once: when it has all of it, the answer counts as sent.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// How much is read of a request that is refused, and for how long.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The bounds of the server. See `docs/reference/configuration.md` for the defaults.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections at once, of all listeners that share them.
    pub slots: Slots,
    /// Bytes of a request's head. (Of headers there may be 100: hyper keeps no more without an allocation a request.)
    pub header_bytes_max: usize,
    /// How long peers may keep us waiting.
    pub timeouts: Timeouts,
    /// For a request's whole body to arrive.
    pub body_timeout: Duration,
    /// Bytes of all bodies together.
    pub budget: Budget,
    /// For the requests being answered when the server is told to stop.
    pub drain_timeout: Duration,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one. Dropped half-way when the client goes away.
    fn handle(&self, request: &mut Incoming) -> impl Future<Output = Response> + Send;
}

/// Serves until told to stop, then answers what was begun.
pub async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, limits: Arc<HttpLimits>, stop: Stop) {
    let accepting = Accepting { slots: limits.slots.clone(), refusal: REFUSAL, drain_timeout: limits.drain_timeout };
    let serve_one = {
        let stop = stop.clone();
        move |stream, peer| serve_connection(stream, peer, handler.clone(), limits.clone(), stop.clone())
    };
    listen::accept(listener, accepting, stop, serve_one).await;
}

async fn serve_connection<S, H>(stream: S, peer: SocketAddr, handler: Arc<H>, limits: Arc<HttpLimits>, mut stop: Stop)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let stream = TimeoutStream::new(stream, limits.timeouts);
    let tracker = stream.tracker().clone();
    let service = service_fn(|request| answer(request, peer, &handler, &limits, &tracker));
    let mut builder = http1::Builder::new();
    // `TimeoutStream` bounds the wait for a head, and tells it from an idle connection.
    builder.header_read_timeout(None).max_header_size(limits.header_bytes_max).half_close(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, error = %ErrorChain(&error), "connection ended");
    }
}

/// Has a request answered.
fn answer<H: Handler>(
    request: hyper::Request<hyper::body::Incoming>,
    peer: SocketAddr,
    handler: &Arc<H>,
    limits: &Arc<HttpLimits>,
    tracker: &PhaseTracker,
) -> impl Future<Output = Result<hyper::Response<ResponseBody>, Infallible>> + Send + use<H> {
    let in_flight = tracker.in_flight();
    let (parts, body) = request.into_parts();
    let mut incoming = Incoming { parts, body: Some(body), peer, limits: limits.clone() };
    let handler = handler.clone();
    async move {
        let mut response = match refusal::refusal(&incoming.parts) {
            Some(response) => response.0,
            None => handler.handle(&mut incoming).await.0,
        };
        if incoming.parts.method == Method::HEAD {
            strip(&mut response);
        }
        response.body_mut().in_flight = Some(in_flight);
        Ok(response)
    }
}

/// What HEAD is answered: how long the body would be, and none. HTTP/2 would carry it.
fn strip(response: &mut hyper::Response<ResponseBody>) {
    let reply = response.body_mut();
    let content = std::mem::replace(&mut reply.content, Content::Bytes(Bytes::new()));
    if let Content::Bytes(bytes) = content {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
}

/// An error with its causes: hyper's own message names the kind alone.
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

/// A request whose head is here.
#[derive(Debug)]
pub struct Incoming {
    parts: Parts,
    body: Option<hyper::body::Incoming>,
    peer: SocketAddr,
    limits: Arc<HttpLimits>,
}

impl Incoming {
    /// The method, upper case as it came.
    pub fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    /// The path, not decoded.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// What stands behind the question mark, not decoded.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// The first header of that name (lower case), if it is there and is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// All headers of that name that are visible ASCII.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Who asks.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads and forgets the body of a request that is refused, as far as that costs little: who is still sending when the
    /// connection closes loses the answer.
    pub async fn discard(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        // Who waits for a word before sending is not to hear it.
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
        // Who is not done by then gets the answer as things stand.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT.min(self.limits.body_timeout), discarding).await;
    }

    /// Reads the body, of at most `bytes_max` bytes as they arrive; `key` is the option that sets that bound. A second
    /// call gives an empty one.
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
            // There is more of it, to be discarded.
            self.body = Some(body);
        }
        read
    }
}

/// A request's body, counted in the [`Budget`] while it is held.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    reservation: Option<Reservation>,
}

impl Body {
    /// Counts more bytes with it, such as those that it decompresses to.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reservation.grow(bytes))
    }
}

impl std::ops::Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It is, or says that it will be, larger than the bound.
    #[error("the body is larger than {bytes_max} bytes ({key})")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
        /// The option that sets it.
        key: &'static str,
    },
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s (limits.body_timeout)", .after.as_secs_f64())]
    TimedOut {
        /// The bound.
        after: Duration,
    },
    /// All bodies together are too large just now.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The client broke off, or broke the protocol.
    #[error("the body could not be read: {0}")]
    Broken(String),
}

impl BodyError {
    /// The status to answer with.
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
    budget: &Budget,
) -> Result<Body, BodyError> {
    let too_large = BodyError::TooLarge { bytes_max, key };
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large);
    }
    // Counted as they arrive, not as they are announced: announcing costs a hostile client nothing.
    let mut reservation = budget.reserve(0).map_err(BodyError::Exhausted)?;
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| BodyError::Broken(ErrorChain(&error).to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        reservation.grow(data.len() as u64).map_err(BodyError::Exhausted)?;
        if reservation.bytes() > bytes_max as u64 {
            return Err(too_large);
        }
        // Most bodies are one frame, and are handed on without a copy.
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

/// An answer.
#[derive(Debug)]
pub struct Response(hyper::Response<ResponseBody>);

impl Response {
    /// An answer with that status and nothing else. A number that is no status (100–999) becomes 500.
    pub fn new(status: u16) -> Self {
        let mut response =
            hyper::Response::new(ResponseBody { content: Content::Bytes(Bytes::new()), in_flight: None, guard: None });
        *response.status_mut() =
            hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        Self(response)
    }

    /// Adds a header. A name or value that HTTP cannot carry is left out.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_ref()));
        if let (Ok(name), Ok(value)) = pair {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    /// Adds a header unless it is there.
    pub fn header_if_missing(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if self.0.headers().contains_key(name) { self } else { self.header(name, value) }
    }

    /// Sets the body.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.0.body_mut().content = Content::Bytes(bytes.into());
        self
    }

    /// Makes the body a stream of what `parts` gives. The connection is ended if a client takes none for too long, and
    /// broken off, so that the client notices, if a part cannot be had.
    pub fn parts(mut self, parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        self.0.body_mut().content = Content::Parts(StreamedBody { parts: Box::pin(parts), left: Bytes::new() });
        self
    }

    /// Drops `guard` when the answer was sent, or its client is gone.
    pub fn with_guard(mut self, guard: impl Send + 'static) -> Self {
        self.0.body_mut().guard = Some(Box::new(guard));
        self
    }

    /// The status.
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

/// A body that is made while it is sent, and what of its last part hyper was not given yet.
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

/// The next frame of what is left.
fn frame(left: &mut Bytes) -> Bytes {
    left.split_to(left.len().min(FRAME_BYTES_MAX))
}

impl fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Made")
    }
}

/// A response's body as hyper takes it. The connection is idle again when hyper drops it.
#[derive(Debug)]
struct ResponseBody {
    content: Content,
    in_flight: Option<InFlight>,
    /// What ends with the answer.
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
