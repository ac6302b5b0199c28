//! The link driver: performs the actions of one [`Connection`] on a socket and the store. Both ends of a link use it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::commit::MergeSequence;
use crate::model::{Position, Revision, StoreId};
use crate::net::counted::Traffic;
use crate::net::websocket::{self, WebSocketError};
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::session::{
    Admitted, Closed, CommitId, Connection, DEFLATE_LEVEL, Event, FrameEncoder, Refused, SessionAction, SessionEvent,
    SessionTime,
};
use crate::wire::{Close, CloseReason, Delta, Encoder, Health, Hello, Message};

/// The number of messages that may wait to be sent. The session's window bounds updates; acks and heartbeats are few.
const OUTGOING_MAX: usize = 256;
/// The time limit for the last messages and the closing handshake of the WebSocket.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for the messages that a peer sent before its side of the connection failed.
const LAST_MESSAGES_TIMEOUT: Duration = Duration::from_secs(1);

/// The node's side of a session: the decisions and records in which the two ends differ.
pub trait SessionObserver: Send {
    /// Decides whether an edge may join (hubs only), and sets `heads` to the revisions of its site.
    ///
    /// # Errors
    /// The reason to refuse the edge.
    fn admit(
        &mut self,
        hello: Hello,
        heads: &mut Option<watch::Receiver<Revision>>,
    ) -> impl Future<Output = Result<Admitted, Refused>> + Send;

    /// Records an event of the session.
    fn observe(&mut self, event: &SessionEvent);
}

/// The parts of the node that every link uses.
#[derive(Clone)]
pub struct LinkContext {
    /// Commits the changes of the peer.
    pub committer: Committer,
    /// The node's clocks.
    pub clock: Arc<Clock>,
    /// Counts the bytes of messages before compression.
    pub messages: Arc<Traffic>,
    /// Counts the bytes on the wire.
    pub wire: Arc<Traffic>,
    /// This node's health, if the link reports it.
    pub health: Option<watch::Receiver<Arc<Health>>>,
}

impl LinkContext {
    /// The time as a session has it.
    pub fn now(&self) -> SessionTime {
        SessionTime { monotonic_ns: self.clock.monotonic_ns(), wall_ns: self.clock.wall_ns() }
    }
}

/// Drives one session until either end closes it.
///
/// `heads` are the revisions of the scope, if it is known already; a hub learns it at the admission. `dropped` receives a
/// reason if the node ends this session alone.
pub async fn drive<S: AsyncRead + AsyncWrite + Unpin + Send>(
    connection: Connection,
    socket: websocket::WebSocket<S>,
    heads: Option<watch::Receiver<Revision>>,
    observer: &mut impl SessionObserver,
    context: &LinkContext,
    stop: CancellationToken,
    mut dropped: Option<watch::Receiver<Option<Refused>>>,
) -> Closed {
    let websocket::WebSocket { sender, mut receiver } = socket;
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let mut sending = pin!(send(sender, queue, context.messages.clone()));
    let (commits, sequence) = (FuturesOrdered::new(), MergeSequence::default());
    let mut health = context.health.clone();
    if let Some(health) = &mut health {
        health.mark_changed();
    }
    let mut driver = LinkDriver { connection, heads, outgoing, commits, sequence, health, context };
    let closed = loop {
        if let Some(closed) = driver.perform(observer).await {
            break closed;
        }
        let deadline = driver.deadline();
        tokio::select! {
            // Nothing more can be sent.
            error = &mut sending => {
                let closed = timeout(LAST_MESSAGES_TIMEOUT, driver.receive_close(&mut receiver)).await;
                return closed.ok().flatten().unwrap_or_else(|| lost(error));
            }
            received = receiver.receive() => {
                if let Err(closed) = driver.received(received) {
                    break closed;
                }
            }
            head = changed(&mut driver.heads), if driver.connection.wants_heads() => {
                driver.connection.handle(Event::Head(head), context.now());
            }
            Some(event) = driver.commits.next() => driver.connection.handle(event, context.now()),
            () = sleep_until(deadline) => {
                // A thread that was busy is late: bytes of the peer may wait in the socket, and it is not silent.
                if let Some(received) = unconstrained(receiver.receive()).now_or_never()
                    && let Err(closed) = driver.received(received)
                {
                    break closed;
                }
                driver.report_health();
                driver.connection.tick(context.wire.received_bytes(), context.now());
            }
            () = stop.cancelled() => {
                let text = "the node is shutting down".into();
                let refused = Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None };
                driver.connection.handle(Event::Stop(refused), context.now());
            }
            refused = refusal(&mut dropped) => driver.connection.handle(Event::Stop(refused), context.now()),
        }
    };
    // Messages that were requested before the end are still sent, as long as the peer accepts them.
    drop(driver);
    let _ = timeout(CLOSING_TIMEOUT, &mut sending).await;
    closed
}

/// Ends a connection without a session, with the reason for the peer.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(socket: websocket::WebSocket<S>, refused: Refused) {
    let Refused { reason, text, retry_after_ms } = refused;
    let websocket::WebSocket { mut sender, mut receiver } = socket;
    let (frame, _) = FrameEncoder::new(Encoder::new(), DEFLATE_LEVEL).encode(&Message::Close(Close {
        reason,
        text,
        retry_after_ms,
    }));
    let ended = async {
        sender.send(frame).await?;
        sender.close().await?;
        // The peer reads the reason before it ends its side.
        while receiver.receive().await?.is_some() {}
        Ok::<(), WebSocketError>(())
    };
    let _ = timeout(CLOSING_TIMEOUT, ended).await;
}

struct LinkDriver<'a> {
    connection: Connection,
    heads: Option<watch::Receiver<Revision>>,
    outgoing: mpsc::Sender<Message>,
    commits: FuturesOrdered<Pin<Box<dyn Future<Output = Event> + Send>>>,
    sequence: MergeSequence,
    health: Option<watch::Receiver<Arc<Health>>>,
    context: &'a LinkContext,
}

impl LinkDriver<'_> {
    /// Performs all actions of the connection; returns the end of the session, if it ended.
    async fn perform(&mut self, observer: &mut impl SessionObserver) -> Option<Closed> {
        while let Some(action) = self.connection.poll_action() {
            match action {
                SessionAction::Send(message) => {
                    if self.outgoing.try_send(message).is_err() {
                        return Some(lost("the peer takes no messages"));
                    }
                }
                SessionAction::Admit(hello) => {
                    let event = match observer.admit(hello, &mut self.heads).await {
                        Ok(admitted) => Event::Admitted(admitted),
                        Err(refused) => Event::Refused(refused),
                    };
                    self.connection.handle(event, self.context.now());
                }
                SessionAction::Read { since, skip, bytes_max } => {
                    let (published, skip) = (self.context.committer.published(), Some((skip.origin, skip.after)));
                    let set = published.changes(self.connection.scope(), since, skip, bytes_max);
                    self.connection.handle(Event::Read(set.into()), self.context.now());
                }
                SessionAction::Commit { id, deltas, peer, position } => self.commit(id, deltas, peer, position).await,
                SessionAction::Notify(event) => self.notify(event, observer).await,
                SessionAction::Close(closed) => return Some(closed),
            }
        }
        None
    }

    async fn notify(&mut self, event: SessionEvent, observer: &mut impl SessionObserver) {
        observer.observe(&event);
        match event {
            SessionEvent::Established(established) if established.resync => self.sequence.resyncs(),
            SessionEvent::Suppressed(reports) => {
                self.context.committer.note_conflicts(self.connection.scope().clone(), reports).await;
            }
            SessionEvent::Unsendable { id, family: None, bytes, bytes_max } => {
                warn!(group = %id, bytes, bytes_max, "a group's key is too large for the peer: it is not sent");
            }
            SessionEvent::Unsendable { id, family: Some(family), bytes, bytes_max } => {
                warn!(group = %id, %family, bytes, bytes_max, "a family is too large for the peer and is not sent");
            }
            _ => {}
        }
    }

    /// Queues a commit. Its result is the next event of [`LinkDriver::commits`].
    async fn commit(&mut self, id: CommitId, deltas: Vec<Delta>, peer: StoreId, position: Position) {
        let scope = self.connection.scope().clone();
        let queued = self.context.committer.merge(scope, deltas, peer, position, &self.sequence).await;
        self.commits.push_back(Box::pin(async move {
            let merged = match queued {
                Ok(merging) => merging.done().await,
                Err(error) => Err(error),
            };
            match merged {
                Ok(suppressed) => Event::Committed { id, suppressed },
                Err(error) => Event::CommitFailed(error.to_string()),
            }
        }));
    }

    /// Handles the result of reading from the peer.
    ///
    /// # Errors
    /// The end of the session, if the connection is over.
    fn received(&mut self, received: Result<Option<Bytes>, WebSocketError>) -> Result<(), Closed> {
        match received {
            Ok(Some(frame)) => self.receive(&frame),
            Ok(None) => return Err(lost("the peer closed the connection and gave no reason: look at its log")),
            Err(error) if error.is_fault_of_peer() => {
                self.connection.handle(Event::Malformed(error.to_string()), self.context.now());
            }
            Err(error) => return Err(lost(error)),
        }
        Ok(())
    }

    fn receive(&mut self, frame: &[u8]) {
        let message_bytes = self.connection.receive(frame, self.context.now());
        self.context.messages.add_received(message_bytes);
    }

    /// Reads the frames that the peer sent before the connection failed, up to its close message: the reason of the end, and
    /// when to connect again. `None` if it sent none.
    async fn receive_close<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        receiver: &mut websocket::Receiver<S>,
    ) -> Option<Closed> {
        loop {
            let frame = receiver.receive().await.ok()??;
            self.receive(&frame);
            if let Some(closed) = self.connection.close_received() {
                return Some(closed);
            }
        }
    }

    /// Passes this node's health on, if it changed: the next heartbeat reports it.
    fn report_health(&mut self) {
        if let Some(health) = &mut self.health
            && health.has_changed().unwrap_or(false)
        {
            let health = health.borrow_and_update().clone();
            self.connection.handle(Event::Health(health), self.context.now());
        }
    }

    fn deadline(&self) -> Instant {
        let now_ns = self.context.clock.monotonic_ns();
        let wait_ns = self.connection.next_timeout().unwrap_or(now_ns).saturating_sub(now_ns);
        Instant::now() + Duration::from_nanos(wait_ns)
    }
}

/// The next revision of the scope; never, if the scope is not known.
async fn changed(heads: &mut Option<watch::Receiver<Revision>>) -> Revision {
    if let Some(receiver) = heads
        && receiver.changed().await.is_ok()
    {
        return *receiver.borrow_and_update();
    }
    std::future::pending().await
}

/// The reason to end this session alone; never, if nothing can end it.
async fn refusal(dropped: &mut Option<watch::Receiver<Option<Refused>>>) -> Refused {
    if let Some(receiver) = dropped
        && let Ok(refused) = receiver.wait_for(Option::is_some).await
        && let Some(refused) = refused.clone()
    {
        return refused;
    }
    std::future::pending().await
}

/// Encodes, compresses and sends messages until the queue is closed, then closes the WebSocket. Returns early if that
/// fails.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    mut sender: websocket::Sender<S>,
    mut queue: mpsc::Receiver<Message>,
    messages: Arc<Traffic>,
) -> WebSocketError {
    let mut encoder = FrameEncoder::new(Encoder::new(), DEFLATE_LEVEL);
    while let Some(message) = queue.recv().await {
        let (frame, message_bytes) = encoder.encode(&message);
        messages.add_sent(message_bytes);
        if let Err(error) = sender.send(frame).await {
            return error;
        }
    }
    match sender.close().await {
        Err(error) => error,
        Ok(()) => WebSocketError::Io(std::io::ErrorKind::NotConnected.into()),
    }
}

fn lost(reason: impl ToString) -> Closed {
    let text = reason.to_string();
    debug!(reason = text, "connection lost");
    Closed::lost(text)
}

#[cfg(test)]
mod tests;
