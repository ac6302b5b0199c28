//! One conversation on one connection: moves messages between a socket and a session, and carries out what the session
//! asks of the store. Both ends of the link are driven by this loop.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::compression::{Deflater, Inflater};
use crate::exposition::protobuf::is_raw_metric;
use crate::model::{GroupId, Position, Revision, StoreId};
use crate::net::counted::Traffic;
use crate::net::websocket::{Connection, Receiver, Sender, WebSocketError};
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::node::draft::MergeSequence;
use crate::session::{
    Admitted, Batch, Closed, CommitId, Edge, Established, Event, Hub, OriginFilter, Refused, SessionAction, SessionTime,
};
use crate::store::Scope;
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{CloseReason, ConflictReport, Decoder, Delta, Encoder, Hello, Message};

/// Messages waiting to be sent, at most. The session's window bounds updates; acks and heartbeats are few.
const OUTGOING_MAX: usize = 256;
/// For the last messages and the closing handshake.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

/// For what the peer said before it took nothing more.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// How hard messages are compressed. The fastest levels know fixed codes only, which lengthen what differs in every push;
/// higher ones look longer for repetitions, of which the encoder leaves few.
const DEFLATE_LEVEL: u32 = 3;

/// Bytes of a buffer that is kept for the next message.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// Either end.
pub enum End {
    /// The edge's.
    Edge(Box<Edge>),
    /// The hub's.
    Hub(Box<Hub>),
}

impl End {
    fn handle(&mut self, event: Event, now: SessionTime) {
        match self {
            Self::Edge(edge) => edge.handle(event, now),
            Self::Hub(hub) => hub.handle(event, now),
        }
    }

    fn listens(&self) -> bool {
        match self {
            Self::Edge(edge) => edge.listens(),
            Self::Hub(hub) => hub.listens(),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Edge(edge) => edge.is_open(),
            Self::Hub(hub) => hub.is_open(),
        }
    }

    fn poll_action(&mut self) -> Option<SessionAction> {
        match self {
            Self::Edge(edge) => edge.poll_action(),
            Self::Hub(hub) => hub.poll_action(),
        }
    }

    fn next_timeout(&self) -> Option<u64> {
        match self {
            Self::Edge(edge) => edge.next_timeout(),
            Self::Hub(hub) => hub.next_timeout(),
        }
    }
}

/// What became of a conversation, as it goes on.
#[derive(Clone, Debug)]
pub enum Note {
    /// The handshake is over.
    Established(Established),
    /// The resync is complete.
    ResyncCompleted,
    /// The peer holds our changes up to here.
    PeerHolds(Revision),
    /// We hold the peer's changes up to here.
    Received(Revision),
    /// The store moved to here.
    Head(Revision),
    /// The peer's clock minus ours, in nanoseconds.
    ClockOffset(i64),
    /// The age of the peer's oldest change that is not held here, as it says, in nanoseconds.
    PeerLag(u64),
    /// The peer keeps these families but does not show them.
    HeldBack(Vec<ConflictReport>),
    /// A message came.
    Heard,
}

/// What the two kinds of ends do differently.
pub trait SessionObserver: Send {
    /// Decides whether an edge may come in (hubs only), and where its groups are; with the revisions of that place.
    fn admit(
        &mut self,
        hello: Hello,
    ) -> impl Future<Output = Result<(Admitted, watch::Receiver<Revision>), Refused>> + Send;

    /// Takes note.
    fn note(&mut self, note: Note);
}

/// What every conversation needs.
#[derive(Clone)]
pub struct LinkContext {
    /// Who writes.
    pub committer: Committer,
    /// The clocks.
    pub clock: Arc<Clock>,
    /// Bytes of a message after decompression, at most.
    pub message_bytes_max: usize,
    /// Counts bytes of messages before compression.
    pub volume: Arc<Traffic>,
    /// Counts bytes on the wire.
    pub wire: Arc<Traffic>,
}

impl LinkContext {
    /// What time it is for a session.
    pub fn now(&self) -> SessionTime {
        SessionTime { monotonic_ns: self.clock.monotonic_ns(), wall_ns: self.clock.wall_ns() }
    }
}

/// Goes on until either side ends it. `heads` are the revisions of the place, where that is known already; `dropped` says
/// why, when this session alone is to end.
pub async fn drive<S: AsyncRead + AsyncWrite + Unpin + Send>(
    end: End,
    connection: Connection<S>,
    heads: Option<watch::Receiver<Revision>>,
    observer: &mut impl SessionObserver,
    context: &LinkContext,
    stop: CancellationToken,
    mut dropped: Option<watch::Receiver<Option<Refused>>>,
) -> Closed {
    let Connection { sender, mut receiver } = connection;
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let mut sending = pin!(send(sender, queue, context.volume.clone()));
    let mut driver = LinkDriver {
        end,
        heads,
        scope: Scope::Shown,
        outgoing,
        decoder: Decoder::new(context.message_bytes_max),
        inflater: Inflater::new(),
        inflated: Vec::new(),
        commits: FuturesOrdered::new(),
        sequence: MergeSequence::default(),
        context,
    };
    let mut heard_bytes = 0;
    let closed = loop {
        if let Some(closed) = driver.act(observer).await {
            break closed;
        }
        let deadline = driver.deadline();
        let event = tokio::select! {
            // It is over, and nothing more can be sent.
            error = &mut sending => {
                let last_word = timeout(LAST_WORD_TIMEOUT, driver.last_word(&mut receiver, observer)).await;
                return last_word.ok().flatten().unwrap_or_else(|| lost(error));
            }
            received = receiver.receive() => match driver.received(received, observer) {
                Ok(event) => event,
                Err(closed) => break closed,
            },
            head = changed(&mut driver.heads), if driver.end.listens() => {
                observer.note(Note::Head(head));
                Event::Head(head)
            }
            Some(done) = driver.commits.next() => match done {
                Done::Durable(id, revision, held_back) => {
                    observer.note(Note::Received(revision));
                    if !held_back.is_empty() {
                        driver.end.handle(Event::HeldBack(held_back), context.now());
                    }
                    Event::Committed(id)
                }
                Done::Failed(text) => Event::CommitFailed(text),
            },
            () = sleep_until(deadline) => Event::Tick,
            () = stop.cancelled() => Event::Stop(Refused {
                reason: CloseReason::Shutdown,
                text: "the node is shutting down".into(),
                retry_after_ms: None,
            }),
            refused = refusal(&mut dropped) => Event::Stop(refused),
        };
        if matches!(event, Event::Tick)
            && std::mem::replace(&mut heard_bytes, context.wire.received_bytes()) != heard_bytes
        {
            driver.end.handle(Event::Heard, context.now());
        }
        driver.end.handle(event, context.now());
    };
    // What was asked to be sent before the end is still sent, for as long as the peer takes it.
    drop(driver);
    let _ = timeout(CLOSING_TIMEOUT, &mut sending).await;
    closed
}

struct LinkDriver<'a> {
    end: End,
    heads: Option<watch::Receiver<Revision>>,
    scope: Scope,
    outgoing: mpsc::Sender<Message>,
    decoder: Decoder,
    inflater: Inflater,
    inflated: Vec<u8>,
    commits: FuturesOrdered<std::pin::Pin<Box<dyn Future<Output = Done> + Send>>>,
    sequence: MergeSequence,
    context: &'a LinkContext,
}

/// What came of a commit.
enum Done {
    Durable(CommitId, Revision, Vec<ConflictReport>),
    Failed(String),
}

impl LinkDriver<'_> {
    /// Does all that the session asks for; returns how it ended, if it did.
    async fn act(&mut self, observer: &mut impl SessionObserver) -> Option<Closed> {
        while let Some(action) = self.end.poll_action() {
            match action {
                SessionAction::Send(message) => {
                    if self.outgoing.try_send(message).is_err() {
                        return Some(lost_because("the peer takes no messages"));
                    }
                }
                SessionAction::Admit(hello) => {
                    let event = match observer.admit(hello).await {
                        Ok((admitted, heads)) => {
                            self.scope = Scope::Site(Arc::new(admitted.site.clone()));
                            self.heads = Some(heads);
                            Event::Admitted(admitted)
                        }
                        Err(refused) => Event::Refused(refused),
                    };
                    self.end.handle(event, self.context.now());
                }
                SessionAction::Read { since, skip, bytes_max } => {
                    let batch = self.read(since, skip, bytes_max);
                    self.end.handle(Event::Read(batch), self.context.now());
                }
                SessionAction::Commit { id, deltas, peer, position } => self.commit(id, deltas, peer, position).await,
                SessionAction::Unsendable { id, family: None, bytes, bytes_max } => {
                    warn!(group = %id, bytes, bytes_max, "a group's key is too large for the peer: it is not sent");
                }
                SessionAction::Unsendable { id, family: Some(family), bytes, bytes_max } => {
                    warn!(group = %id, %family, bytes, bytes_max, "a family is too large for the peer and is not sent");
                }
                SessionAction::HeldBack(reports) => {
                    observer.note(Note::HeldBack(reports.clone()));
                    self.context.committer.held_back(self.scope.clone(), reports).await;
                }
                SessionAction::PeerHolds(revision) => observer.note(Note::PeerHolds(revision)),
                SessionAction::ClockOffset(offset_ns) => observer.note(Note::ClockOffset(offset_ns)),
                SessionAction::PeerLag(lag_ns) => observer.note(Note::PeerLag(lag_ns)),
                SessionAction::Established(established) => observer.note(Note::Established(established)),
                SessionAction::ResyncCompleted => observer.note(Note::ResyncCompleted),
                SessionAction::Close(closed) => return Some(closed),
            }
        }
        None
    }

    /// What the peer said last, which may wait here though nothing can be sent any more: why it ended this, and when to come
    /// back. `None` if it said nothing of the kind.
    async fn last_word<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        receiver: &mut Receiver<S>,
        observer: &mut impl SessionObserver,
    ) -> Option<Closed> {
        loop {
            let event = self.received(receiver.receive().await, observer).ok()?;
            self.end.handle(event, self.context.now());
            while let Some(action) = self.end.poll_action() {
                if let SessionAction::Close(closed) = action {
                    return Some(closed);
                }
            }
        }
    }

    fn read(&self, since: Revision, skip: OriginFilter, bytes_max: usize) -> Batch {
        let published = self.context.committer.published();
        let set = published.changes(&self.scope, since, Some((skip.origin, skip.after)), bytes_max);
        let deltas = set
            .changes
            .into_iter()
            .map(|change| Delta { id: GroupId { site: Arc::default(), key: change.key }, group: change.group })
            .collect();
        Batch { deltas, upto: set.upto, more: set.more }
    }

    async fn commit(&mut self, id: CommitId, deltas: Vec<Delta>, peer: StoreId, position: Position) {
        let queued = self.context.committer.merge(self.scope.clone(), deltas, peer, position, &self.sequence).await;
        self.commits.push_back(Box::pin(async move {
            let merged = match queued {
                Ok(pending) => pending.done().await,
                Err(error) => Err(error),
            };
            match merged {
                Ok(held_back) => Done::Durable(id, position.revision, held_back),
                Err(error) => Done::Failed(error.to_string()),
            }
        }));
    }

    fn received(
        &mut self,
        received: Result<Option<Bytes>, WebSocketError>,
        observer: &mut impl SessionObserver,
    ) -> Result<Event, Closed> {
        let bytes = match received {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(lost_because("the peer closed the connection")),
            Err(error) => return Err(lost(error)),
        };
        trim(&mut self.inflated);
        // Who was not let in yet gets nothing large unpacked.
        let open = self.end.is_open();
        let bytes_max = if open { self.context.message_bytes_max.max(PLAIN_BYTES_MAX) } else { PLAIN_BYTES_MAX };
        let inflated = self.inflater.decompress(&bytes, &mut self.inflated, bytes_max);
        if let Err(error) = inflated {
            return Ok(Event::Malformed(error.to_string()));
        }
        self.context.volume.add_received(self.inflated.len());
        observer.note(Note::Heard);
        let bytes = &self.inflated[..];
        Ok(match if open { self.decoder.decode(bytes) } else { Decoder::decode_plain(bytes) } {
            Ok(Message::Update(update)) if !update.deltas.iter().all(is_showable) => {
                Event::Malformed("a raw metric that cannot be decoded, or one with labels or a timestamp".into())
            }
            Ok(message) => Event::Message(message),
            Err(error) => Event::Malformed(error.to_string()),
        })
    }

    fn deadline(&self) -> Instant {
        let now_ns = self.context.clock.monotonic_ns();
        let wait_ns = self.end.next_timeout().unwrap_or(now_ns).saturating_sub(now_ns);
        Instant::now() + Duration::from_nanos(wait_ns)
    }
}

/// The next revision; never, where there is nothing to wait for.
async fn changed(heads: &mut Option<watch::Receiver<Revision>>) -> Revision {
    if let Some(receiver) = heads
        && receiver.changed().await.is_ok()
    {
        return *receiver.borrow_and_update();
    }
    std::future::pending().await
}

/// Why this session alone is to end; never, where nothing can end it.
async fn refusal(dropped: &mut Option<watch::Receiver<Option<Refused>>>) -> Refused {
    if let Some(receiver) = dropped
        && let Ok(refused) = receiver.wait_for(Option::is_some).await
        && let Some(refused) = refused.clone()
    {
        return refused;
    }
    std::future::pending().await
}

/// Encodes, compresses and sends until nothing more comes, then closes. Returns early when that fails.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    mut sender: Sender<S>,
    mut queue: mpsc::Receiver<Message>,
    volume: Arc<Traffic>,
) -> WebSocketError {
    let (mut encoder, mut deflater, mut encoded) = (Encoder::new(), Deflater::new(DEFLATE_LEVEL), Vec::new());
    while let Some(message) = queue.recv().await {
        trim(&mut encoded);
        encoder.encode(&message, &mut encoded);
        volume.add_sent(encoded.len());
        let mut deflated = Vec::new();
        deflater.compress(&encoded, &mut deflated);
        if let Err(error) = sender.send(deflated).await {
            return error;
        }
    }
    match sender.close().await {
        Err(error) => error,
        Ok(()) => WebSocketError::Io(std::io::ErrorKind::NotConnected.into()),
    }
}

/// Whether what is shown of the delta as it was pushed can be: it is copied into the page.
fn is_showable(delta: &Delta) -> bool {
    let raw_metrics = delta.group.families().iter().filter_map(|family| family.family.raw_metrics());
    raw_metrics.flat_map(|raw_metrics| raw_metrics.iter()).all(|raw_metric| is_raw_metric(raw_metric))
}

/// Empties a buffer, and gives back what one large message made of it: a hub has thousands.
fn trim(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > BUFFER_BYTES_MAX {
        *buffer = Vec::new();
    }
}

fn lost(error: WebSocketError) -> Closed {
    lost_because(&error.to_string())
}

fn lost_because(text: &str) -> Closed {
    debug!(reason = text, "connection lost");
    Closed { reason: CloseReason::Other(0), text: text.into(), by_peer: true, retry_after_ms: None }
}

#[cfg(test)]
mod tests;
