//! The HTTP server below the gateway, with limits and graceful shutdown. Its interface shows no types of hyper.
//! [`serve`] serves HTTP/1.1, [`encrypted::serve`] serves HTTP/1.1 or HTTP/2 over TLS.
//!
//! A [`Handler`] receives an [`Incoming`] request, reads its body under a limit, and returns a [`Response`]: bytes, or
//! a stream of bytes if the body is too large for memory.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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
mod response;
pub mod sender;
mod upgrade;
mod whole_body;

pub use incoming::{Body, BodyError, Exhausted, Incoming};
pub use response::Response;
use response::{Content, ResponseBody};
use upgrade::Upgrade;
pub use upgrade::{PendingUpgrade, UpgradedStream};

/// The response to a connection beyond `limits.connections_max`.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nCache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
    too many connections (limits.connections_max)\n";

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
            let client = Client { peer, kind, is_encrypted: false, certificate: Arc::default() };
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
    is_encrypted: bool,
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
    let upgrade = Upgrade::default();
    let service = service_fn(|request| answer(request, &client, &handler, &limits, (&tracker, &upgrade)));
    let mut builder = http1::Builder::new();
    // `TimeoutStream` limits the time for a head, and distinguishes it from an idle connection, which hyper does not.
    builder.header_read_timeout(None).half_close(true);
    builder.max_header_size(limits.header_bytes_max).max_headers(headers_max(limits.header_bytes_max));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
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
    upgrade.run().await;
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
    (tracker, upgrade): (&PhaseTracker, &Upgrade),
) -> impl Future<Output = Result<hyper::Response<ResponseBody>, Infallible>> + Send + use<H> {
    let in_flight = tracker.in_flight();
    let reserved = client.kind == SlotKind::Reserved;
    if reserved {
        tracker.ask_to_close();
    }
    let idle_seconds = limits.timeouts.idle_timeout.map_or(0, |limit| limit.as_secs());
    let (parts, body) = request.into_parts();
    let (peer, is_encrypted, certificate) = (client.peer, client.is_encrypted, client.certificate.clone());
    let mut incoming = Incoming { parts, body: Some(body), peer, is_encrypted, certificate, limits: limits.clone() };
    let (handler, upgrade) = (handler.clone(), upgrade.clone());
    async move {
        let mut response = match refusal::refusal(&incoming.parts) {
            Some(response) => response.0,
            None if reserved && (!incoming.parts.method.is_safe() || incoming.asks_for_upgrade()) => {
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
        match response.body_mut().continuation.take() {
            Some(continuation) => upgrade.put(continuation, in_flight),
            None => response.body_mut().in_flight = Some(in_flight),
        }
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

#[cfg(test)]
mod tests;
