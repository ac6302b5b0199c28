//! The HTTP server below the gateway, with limits and graceful shutdown. Its interface shows no types of hyper.
//! [`serve`] serves HTTP/1.1, [`encrypted::serve`] serves HTTP/1.1 or HTTP/2 over TLS.
//!
//! A [`Handler`] receives an [`Incoming`] request, reads its body under a limit, and returns a [`Response`]: bytes, or
//! a stream of bytes if the body is too large for memory.

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
use hyper::body::{Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::failures::FailureKind;
use super::listen::{self, Accepting};
use super::slots::{SlotKind, Slots};
use super::timeouts::{InFlight, PhaseTracker, TimeoutStream, Timeouts};
use crate::model::ByteBudget;

pub mod client;
pub mod encrypted;
mod incoming;
mod refusal;
pub mod sender;
mod whole_body;

pub use incoming::{Body, BodyError, Exhausted, Incoming};

/// The response to a connection beyond `limits.connections_max`.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nCache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
    too many connections (limits.connections_max)\n";

/// Bytes of a response that hyper gets at once, at most. A response counts as sent when hyper has its last frame.
const FRAME_BYTES_MAX: usize = 64 << 10;

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
            let client = Client { peer, kind, certificate: Arc::default() };
            serve_connection(stream, client, handler.clone(), limits.clone(), stop.clone())
        }
    };
    listen::accept(listener, accepting, stop, serve_one).await;
}

/// The other end of a connection.
#[derive(Clone, Debug)]
struct Client {
    peer: SocketAddr,
    kind: SlotKind,
    /// The names of its certificate, if an authority of the gateway's has signed it.
    certificate: Arc<[String]>,
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
    let service = service_fn(|request| answer(request, &client, &handler, &limits, &tracker));
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
    report(ended, &client, &limits, &tracker, &stop);
}

/// Counts and logs the end of a connection.
fn report(
    ended: hyper::Result<()>,
    client: &Client,
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
    client: &Client,
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
    let (peer, certificate) = (client.peer, client.certificate.clone());
    let mut incoming = Incoming { parts, body: Some(body), peer, certificate, limits: limits.clone() };
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
