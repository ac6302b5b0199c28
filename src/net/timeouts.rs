//! Time limits on a connection to the HTTP server.
//!
//! There are three limits that hyper does not separate. A request's head, once begun, must arrive within one time, so
//! that no client occupies a connection by sending a byte now and then. Between requests, and before the first one, a
//! connection may be idle for another, longer time, or for ever: then it is closed when another connection needs the
//! room ([`super::slots`]). A peer that takes no bytes of a response is disconnected after a third. While a request is
//! handled, reading is not limited here: bodies have their own limit.
//!
//! If several requests share a connection (HTTP/2), it is idle when no request is in flight. Other frames that arrive
//! meanwhile, such as pings, do not begin a head and do not extend the time.
//!
//! The cost per request is small: no timer is set or moved while requests arrive whole. The one timer fires early and
//! is then moved to the right time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// The time for which a connection stays open beyond the idle time that clients are told. A request that a client sends
/// at the last moment is still answered.
pub const IDLE_GRACE: Duration = Duration::from_secs(5);

/// The time limits of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Time for a request's head, from its first byte.
    pub header_timeout: Duration,
    /// Time until the first or the next request on a connection; `None` for no limit. Clients are sent this time in a
    /// `Keep-Alive` header, and the connection is closed [`IDLE_GRACE`] later.
    pub idle_timeout: Option<Duration>,
    /// Time for the peer to take the next bytes of a response.
    pub write_timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    Idle = 0,
    Head = 1,
    InFlight = 2,
}

/// The phase that a connection is in, shared by its stream and its requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PhaseTracker {
    started: Instant,
    shared: Arc<PhaseState>,
}

#[derive(Debug)]
struct PhaseState {
    /// Milliseconds from `started` to the begin of the phase, times four, plus the phase. On a shared connection this
    /// is the phase between requests: while one is in flight, `requests` says so.
    phase: AtomicU64,
    /// Requests in flight; counted only on a shared connection.
    requests: AtomicU32,
    several: bool,
    /// Whether a request has arrived.
    served: AtomicBool,
    /// Whether the connection is to close while it is idle: one of [`STAY`], [`ASKED`] and [`CLOSE`].
    closing: AtomicU8,
    asked: Notify,
}

const STAY: u8 = 0;
/// Another connection needs the room, and the task of this one has not seen that yet.
const ASKED: u8 = 1;
/// The stream ends at the next read that finds no bytes.
const CLOSE: u8 = 2;

/// A request is in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight(PhaseTracker);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle();
    }
}

impl PhaseTracker {
    fn new(several: bool) -> Self {
        let shared = PhaseState {
            phase: AtomicU64::new(ConnectionPhase::Idle as u64),
            requests: AtomicU32::new(0),
            several,
            served: AtomicBool::new(false),
            closing: AtomicU8::new(STAY),
            asked: Notify::new(),
        };
        Self { started: Instant::now(), shared: Arc::new(shared) }
    }

    /// Marks a request as in flight until the returned value is dropped. Called when its head has arrived.
    pub fn in_flight(&self) -> InFlight {
        self.shared.served.store(true, Ordering::Relaxed);
        // A request that crossed the wish to close keeps the connection.
        if self.shared.closing.load(Ordering::Relaxed) != STAY {
            self.shared.closing.store(STAY, Ordering::Relaxed);
        }
        if self.shared.several {
            self.shared.requests.fetch_add(1, Ordering::SeqCst);
        } else {
            self.shared.phase.store(ConnectionPhase::InFlight as u64, Ordering::SeqCst);
        }
        InFlight(self.clone())
    }

    /// Whether a request has arrived on the connection.
    pub fn has_served(&self) -> bool {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Since when the connection is idle; `None` if it is not, or is about to close.
    pub fn idle_since(&self) -> Option<Instant> {
        let (phase, since) = self.phase();
        let stays = self.shared.closing.load(Ordering::Relaxed) == STAY;
        (phase == ConnectionPhase::Idle && stays).then_some(since)
    }

    /// Asks the connection to close, because another one needs the room.
    pub fn ask_to_close(&self) {
        self.shared.closing.store(ASKED, Ordering::Relaxed);
        self.shared.asked.notify_one();
    }

    /// Waits until [`Self::ask_to_close`]. Cancel-safe.
    pub async fn close_asked(&self) {
        self.shared.asked.notified().await;
    }

    /// Ends the stream at its next read, if no request has arrived until then. Whether the connection is idle.
    pub fn close_if_idle(&self) -> bool {
        let asked = self.shared.closing.load(Ordering::Relaxed) == ASKED;
        let closes = asked && self.phase().0 == ConnectionPhase::Idle;
        self.shared.closing.store(if closes { CLOSE } else { STAY }, Ordering::Relaxed);
        closes
    }

    /// Whether this end closes the connection, because another one needs the room.
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed) == CLOSE
    }

    fn idle(&self) {
        self.enter(ConnectionPhase::Idle);
        // The phase is stored first: a reader that sees no request left must see when the idle phase began.
        if self.shared.several {
            self.shared.requests.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn enter(&self, phase: ConnectionPhase) {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.shared.phase.store(elapsed_ms << 2 | phase as u64, Ordering::SeqCst);
    }

    fn phase(&self) -> (ConnectionPhase, Instant) {
        let in_flight = self.shared.requests.load(Ordering::SeqCst) > 0;
        let packed = self.shared.phase.load(Ordering::SeqCst);
        let phase = match packed & 3 {
            _ if in_flight => ConnectionPhase::InFlight,
            0 => ConnectionPhase::Idle,
            1 => ConnectionPhase::Head,
            _ => ConnectionPhase::InFlight,
        };
        (phase, self.started + Duration::from_millis(packed >> 2))
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when the peer exceeds a limit.
#[derive(Debug)]
pub struct TimeoutStream<S> {
    inner: S,
    timeouts: Timeouts,
    tracker: PhaseTracker,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> TimeoutStream<S> {
    /// Puts limits on `inner`, from now on.
    pub fn new(inner: S, timeouts: Timeouts) -> Self {
        Self { inner, timeouts, tracker: PhaseTracker::new(false), read_timer: None, write_timer: None }
    }

    /// Puts limits on a connection that several requests share.
    pub fn shared(inner: S, timeouts: Timeouts) -> Self {
        Self { tracker: PhaseTracker::new(true), ..Self::new(inner, timeouts) }
    }

    /// The phase of the connection, to be updated by its requests.
    pub fn tracker(&self) -> &PhaseTracker {
        &self.tracker
    }

    /// The end of the stream, if it is to close while idle, or the error if the peer has exceeded a limit on reading;
    /// otherwise the task is woken when it does.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (phase, since) = self.tracker.phase();
        let (wait, what) = match phase {
            ConnectionPhase::InFlight => return Poll::Pending,
            ConnectionPhase::Head => (self.timeouts.header_timeout, "the request's head did not arrive in time"),
            ConnectionPhase::Idle => {
                let shared = &self.tracker.shared;
                if shared.closing.load(Ordering::Relaxed) == CLOSE && !shared.several {
                    return Poll::Ready(Ok(()));
                }
                let Some(idle_timeout) = self.timeouts.idle_timeout else { return Poll::Pending };
                (idle_timeout.saturating_add(IDLE_GRACE), "no request came in time")
            }
        };
        let deadline = since + wait;
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// The outcome of a write, a flush or a shutdown, or an error if it has been pending for too long. In TLS a write
    /// only fills a buffer, and the flush waits for the peer.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let wait = self.timeouts.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer took nothing of the answer for too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, into) {
            Poll::Ready(result) => {
                let begins = into.filled().len() > before && !this.tracker.shared.several;
                if begins && this.tracker.phase().0 == ConnectionPhase::Idle {
                    this.tracker.enter(ConnectionPhase::Head);
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_waiting(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.poll_stalled(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let written = match (filled.next(), filled.next()) {
            // Most responses are one slice, which needs no vectored write.
            (Some(only), None) => Pin::new(&mut this.inner).poll_write(cx, only),
            _ => Pin::new(&mut this.inner).poll_write_vectored(cx, slices),
        };
        this.poll_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.poll_stalled(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.poll_stalled(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        header_timeout: Duration::from_secs(10),
        idle_timeout: Some(Duration::from_secs(95)),
        write_timeout: Duration::from_secs(30),
    };

    fn pair() -> (TimeoutStream<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(4);
        (TimeoutStream::new(near, TIMEOUTS), far)
    }

    async fn seconds_to_give_up(stream: &mut TimeoutStream<DuplexStream>) -> u64 {
        let begun = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        begun.elapsed().as_secs()
    }

    /// A pooled client may open a connection ahead of its use.
    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_idle_until_the_first_byte() {
        let (mut stream, mut far) = pair();
        assert_eq!(seconds_to_give_up(&mut stream).await, 100);
        far.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        assert_eq!(seconds_to_give_up(&mut stream).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_alive_connection_may_idle_but_its_next_request_may_not_be_slow() {
        let (mut stream, mut far) = pair();
        drop(stream.tracker().in_flight());
        tokio::time::sleep(Duration::from_secs(99)).await;
        far.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        far.write_all(b"E").await.unwrap();
        stream.read_u8().await.unwrap();
        // More bytes do not extend the time for the head.
        assert_eq!(seconds_to_give_up(&mut stream).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_moves_with_the_phase() {
        let (mut stream, mut far) = pair();
        far.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        let wait = tokio::time::timeout(Duration::from_secs(3), stream.read_u8());
        assert!(wait.await.is_err(), "a timer for the head is set");
        let in_flight = stream.tracker().in_flight();
        tokio::time::sleep(Duration::from_secs(50)).await;
        drop(in_flight);
        assert_eq!(seconds_to_give_up(&mut stream).await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_no_read_timeout_while_it_is_answered() {
        let (mut stream, mut far) = pair();
        let _busy = stream.tracker().in_flight();
        let late = async {
            tokio::time::sleep(Duration::from_secs(1_000)).await;
            far.write_all(b"!").await.unwrap();
        };
        let (read, ()) = tokio::join!(stream.read_u8(), late);
        assert_eq!(read.unwrap(), b'!');
    }

    #[tokio::test(start_paused = true)]
    async fn a_shared_connection_is_idle_when_its_last_request_is_answered() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut stream = TimeoutStream::shared(near, TIMEOUTS);
        let (first, second) = (stream.tracker().in_flight(), stream.tracker().in_flight());
        drop(first);
        assert!(tokio::time::timeout(Duration::from_secs(500), stream.read_u8()).await.is_err(), "one is left");
        drop(second);
        tokio::time::sleep(Duration::from_secs(50)).await;
        far.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!(seconds_to_give_up(&mut stream).await, 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_a_slow_one_is_not() {
        let (mut stream, mut far) = pair();
        let begun = Instant::now();
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(29)).await;
                far.read_exact(&mut [0; 4]).await.unwrap();
            }
            far
        };
        let (written, _far) = tokio::join!(stream.write_all(&[0; 16]), slow);
        written.unwrap();
        stream.write_all(&[0; 4]).await.unwrap();
        let begun_to_stall = begun.elapsed();
        let error = stream.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!((begun.elapsed() - begun_to_stall).as_secs(), 30);
    }

    /// A stream that accepts all bytes, as TLS does, and never flushes them.
    struct Clogged;

    impl AsyncWrite for Clogged {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_or_a_shutdown_does_not_wait_for_ever() {
        let begun = Instant::now();
        let mut stream = TimeoutStream::new(Clogged, TIMEOUTS);
        stream.write_all(&[0; 16]).await.unwrap();
        assert_eq!(stream.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 30);
        let mut stream = TimeoutStream::new(Clogged, TIMEOUTS);
        assert_eq!(stream.shutdown().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 60);
    }
}
