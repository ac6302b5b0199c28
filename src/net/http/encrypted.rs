//! The server in TLS: HTTP/1.1 or HTTP/2, as the client chooses; and a plain word for those who forget the encryption.
//!
//! HTTP/2 lets one connection carry many requests, so what bounds a connection elsewhere is bounded for each of them here:
//! how many there are, how much of what they send is buffered, how long one may stand still. Streams that are opened only to
//! be reset are counted by the library, which ends the connection.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::*;
use crate::net::tls::web::{Protocol, WebAcceptor};
use crate::net::tls::{Stream, TlsError};

/// Requests at once on one connection. RFC 9113 advises against fewer.
const STREAMS_MAX: u32 = 100;
/// What a client may send ahead of what is read, for one request and for all of a connection: as much as a connection's
/// own buffers hold.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// What is buffered of an answer.
const SEND_BYTES_MAX: usize = 128 << 10;
/// Streams reset by the client that were not looked at yet, and by us for the client's mistakes.
const RESETS_PENDING_MAX: usize = 20;
const RESETS_FOR_MISTAKES_MAX: usize = 256;
/// A client that answers no ping for so long is gone, even if requests of it are under way.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What Go's server says to HTTP where TLS should be.
const NOT_ENCRYPTED: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// How much of such a request is read so that its sender gets to see the answer.
const NOT_ENCRYPTED_BYTES_MAX: u64 = 64 << 10;

/// Serves until told to stop, then answers what was begun.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    acceptor: Arc<WebAcceptor>,
    limits: Arc<HttpLimits>,
    stop: Stop,
) {
    // Who connects beyond the bound expects TLS, and is closed without a word.
    let accepting = Accepting { slots: limits.slots.clone(), refusal: b"", drain_timeout: limits.drain_timeout };
    let serve_one = {
        let stop = stop.clone();
        move |stream, peer| {
            let (handler, acceptor, limits) = (handler.clone(), acceptor.clone(), limits.clone());
            serve_encrypted(stream, peer, handler, acceptor, limits, stop.clone())
        }
    };
    listen::accept(listener, accepting, stop, serve_one).await;
}

async fn serve_encrypted<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    handler: Arc<H>,
    acceptor: Arc<WebAcceptor>,
    limits: Arc<HttpLimits>,
    mut stop: Stop,
) {
    let accepted = tokio::select! {
        biased;
        accepted = tokio::time::timeout(limits.timeouts.header_timeout, handshake(stream, &acceptor)) => accepted,
        () = stop.stopped() => return,
    };
    match accepted {
        Ok(Ok(Some((stream, Protocol::Http1)))) => serve_connection(stream, peer, handler, limits, stop).await,
        Ok(Ok(Some((stream, Protocol::Http2)))) => serve_http2(stream, peer, handler, limits, stop).await,
        Ok(Ok(None)) => debug!(%peer, "HTTP without TLS"),
        Ok(Err(error)) => debug!(%peer, %error, "no connection"),
        Err(_) => debug!(%peer, "no connection: the TLS handshake did not end in time (limits.header_timeout)"),
    }
}

/// Shakes hands; `None` if the client spoke plain HTTP, and was told.
async fn handshake(
    mut stream: TcpStream,
    acceptor: &WebAcceptor,
) -> Result<Option<(Stream<TcpStream>, Protocol)>, TlsError> {
    let mut first = [0];
    let seen = stream.peek(&mut first).await.map_err(TlsError::Handshake)?;
    // A method begins with a letter, TLS with 22.
    if seen == 0 || !first[0].is_ascii_alphabetic() {
        return acceptor.accept(stream).await.map(Some);
    }
    let told = async {
        stream.write_all(NOT_ENCRYPTED).await?;
        stream.shutdown().await?;
        // Closing on what is not read would take the answer away from whoever sent it.
        tokio::io::copy(&mut stream.take(NOT_ENCRYPTED_BYTES_MAX), &mut tokio::io::sink()).await
    };
    told.await.map_err(TlsError::Handshake)?;
    Ok(None)
}

pub(super) async fn serve_http2<S, H>(
    stream: S,
    peer: SocketAddr,
    handler: Arc<H>,
    limits: Arc<HttpLimits>,
    mut stop: Stop,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let stream = TimeoutStream::shared(stream, limits.timeouts);
    let tracker = stream.tracker().clone();
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let still_max = limits.body_timeout.max(limits.timeouts.write_timeout);
    let streams = Streams { tasks: Arc::downgrade(&tasks), still_max };
    let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    let service = service_fn(|request| answer(request, peer, &handler, &limits, &tracker));
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
    // What is still under way has nobody to be answered to.
    let mut tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
    tasks.shutdown().await;
}

/// Starts the tasks of a connection's requests, which are the connection's: each of them has one of these.
#[derive(Clone, Debug)]
struct Streams {
    tasks: Weak<Mutex<JoinSet<()>>>,
    /// How long one may stand still: a body that does not come, an answer that is not taken.
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

/// Drives a future to its end, or gives it up when nothing has woken it for too long. A client that opens no window for an
/// answer would hold what is answered for ever otherwise: nothing is written then, and so no write is late.
async fn moving(future: impl Future<Output = ()>, still_max: Duration) {
    let (mut future, mut timer) = (pin!(future), pin!(sleep(still_max)));
    poll_fn(|cx| {
        let done = future.as_mut().poll(cx);
        if done.is_pending() {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + still_max);
            // Registers the timer anew.
            let _ = timer.as_mut().poll(cx);
        }
        done
    })
    .await;
}
