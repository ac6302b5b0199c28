//! The server over TLS: HTTP/1.1 or HTTP/2, as the client chooses. A client that forgot TLS gets a plain response.
//!
//! With HTTP/2 one connection carries many requests, so the limits on a connection apply to each request here: their
//! number, the bytes buffered for each, the time for which one may stall. The library counts streams that are opened
//! only to be reset, and closes the connection.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::*;
use crate::net::tls::web::{Protocol, WebAcceptor, WebConnection};
use crate::net::tls::{self, TlsError};

/// Requests at once on one connection. RFC 9113 advises against a lower limit.
const STREAMS_MAX: u32 = 100;
/// Bytes that a client may send ahead, for one request and for a whole connection: as many as the buffers of an
/// HTTP/1.1 connection take.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes of a response that are buffered.
const SEND_BYTES_MAX: usize = 128 << 10;
/// Streams that the client reset and the server has not handled yet, and streams that the server reset for the client's
/// errors.
const RESETS_PENDING_MAX: usize = 20;
const RESETS_FOR_MISTAKES_MAX: usize = 256;
/// A client that does not answer a ping in time is gone, even if it has requests in flight.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The time for a client to acknowledge that an idle connection is closed for another one.
const GOAWAY_TIMEOUT: Duration = Duration::from_millis(250);

/// The response of Go's server to plain HTTP on a TLS port.
const NOT_ENCRYPTED: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Serves connections until `stop`, then finishes the open requests.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    acceptor: Arc<WebAcceptor>,
    limits: Arc<HttpLimits>,
    stop: CancellationToken,
) {
    // A client beyond the limit expects TLS, so its connection is closed without a response.
    let accepting = Accepting { slots: limits.slots.clone(), refusal: b"", drain_timeout: limits.drain_timeout };
    let serve_one = {
        let stop = stop.clone();
        move |stream, peer, kind| {
            let (handler, acceptor, limits) = (handler.clone(), acceptor.clone(), limits.clone());
            let client = Client { peer, kind, is_encrypted: true, certificate: Arc::default() };
            serve_encrypted(stream, client, handler, acceptor, limits, stop.clone())
        }
    };
    listen::accept(listener, accepting, stop, serve_one).await;
}

async fn serve_encrypted<H: Handler>(
    stream: TcpStream,
    mut client: Client,
    handler: Arc<H>,
    acceptor: Arc<WebAcceptor>,
    limits: Arc<HttpLimits>,
    stop: CancellationToken,
) {
    let accepted = tokio::select! {
        biased;
        accepted = tokio::time::timeout(limits.timeouts.header_timeout, handshake(stream, &acceptor)) => accepted,
        () = stop.cancelled() => return,
    };
    let peer = client.peer;
    let failed = |kind, reason: &str| limits.slots.failures().record(peer, kind, reason);
    let rest = match accepted {
        Ok(Ok(WebConnection { stream, protocol, certificate })) => {
            client.certificate = certificate.into();
            return match protocol {
                Protocol::Http1 => serve_connection(stream, client, handler, limits, stop).await,
                Protocol::Http2 => serve_http2(stream, client, handler, limits, stop).await,
            };
        }
        Ok(Err(FailedHandshake::Plain(mut stream))) => {
            failed(FailureKind::Protocol, "HTTP without TLS");
            // The client may be gone. The buffer of a new connection takes the response at once.
            let _ = stream.write_all(NOT_ENCRYPTED).await;
            stream
        }
        Ok(Err(FailedHandshake::Tls(error, stream))) => {
            failed(error.failure(), &error.to_string());
            stream
        }
        Err(_) => return failed(FailureKind::Silent, "the TLS handshake did not end in time (limits.header_timeout)"),
    };
    // This is not within the time limit of the handshake: the failure is known.
    tokio::select! {
        () = tls::linger(rest) => {}
        () = stop.cancelled() => {}
    }
}

/// A connection without TLS.
enum FailedHandshake {
    /// The client sent plain HTTP.
    Plain(TcpStream),
    /// The handshake failed. The client was sent an alert.
    Tls(TlsError, TcpStream),
}

/// Performs the TLS handshake.
async fn handshake(stream: TcpStream, acceptor: &WebAcceptor) -> Result<WebConnection<TcpStream>, FailedHandshake> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Err(error) => Err(FailedHandshake::Tls(TlsError::Handshake(error), stream)),
        // An HTTP method begins with a letter, a TLS record with 22.
        Ok(seen) if seen > 0 && first[0].is_ascii_alphabetic() => Err(FailedHandshake::Plain(stream)),
        Ok(_) => acceptor.accept(stream).await.map_err(|(error, stream)| FailedHandshake::Tls(error, stream)),
    }
}

pub(super) async fn serve_http2<S, H>(
    stream: S,
    client: Client,
    handler: Arc<H>,
    limits: Arc<HttpLimits>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let stream = TimeoutStream::shared(stream, limits.timeouts);
    let tracker = stream.tracker().clone();
    let _registration = limits.slots.register(tracker.clone());
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let still_max = limits.body_timeout.max(limits.timeouts.write_timeout);
    let streams = Streams { tasks: Arc::downgrade(&tasks), still_max };
    let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    // A connection of HTTP/2 is never upgraded.
    let upgrade = Upgrade::default();
    let service = service_fn(|request| answer(request, &client, &handler, &limits, (&tracker, &upgrade)));
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(header_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_FOR_MISTAKES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
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
                if client.kind == SlotKind::Reserved {
                    connection.as_mut().graceful_shutdown();
                    break connection.await;
                }
                tokio::task::yield_now().await;
                if tracker.close_if_idle() {
                    // GOAWAY: requests that crossed it are answered, and the client sends no others.
                    connection.as_mut().graceful_shutdown();
                    break timeout(GOAWAY_TIMEOUT, connection).await.unwrap_or(Ok(()));
                }
            }
        }
    };
    report(ended, &client, &limits, &tracker, &stop);
    // The connection is gone: the remaining requests cannot be answered.
    let mut tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
    tasks.shutdown().await;
}

/// Spawns the tasks of a connection's requests. They belong to the connection: when it ends, they are aborted.
#[derive(Clone, Debug)]
struct Streams {
    tasks: Weak<Mutex<JoinSet<()>>>,
    /// Time for which a request may stall: its body does not arrive, or its response is not taken.
    still_max: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Some(tasks) = self.tasks.upgrade() else { return };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                error!(%error, "a request's task panicked: this is a bug");
            }
        }
        tasks.spawn(moving(stream, self.still_max));
    }
}

/// Drives a future to its end, or drops it if nothing has woken it for too long. Otherwise a client that opens no
/// window for a response would keep the response in memory for ever: nothing is written, so no write times out.
async fn moving(future: impl Future<Output = ()>, still_max: Duration) {
    let (mut future, mut timer) = (pin!(future), pin!(sleep(still_max)));
    poll_fn(|cx| {
        let done = future.as_mut().poll(cx);
        if done.is_pending() {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + still_max);
            // This registers the timer again.
            let _ = timer.as_mut().poll(cx);
        }
        done
    })
    .await;
}
