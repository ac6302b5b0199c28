//! An edge's link to one hub: dials, converses, and tries again for as long as the node runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::Schedule;
use super::clock::Clock;
use super::link::{Context, End, Note, Rim, converse};
use super::links::Uplink;
use super::metrics::VERSION;
use super::options::{LinkOptions, UplinkOptions};
use super::writer::{StoreFacts, Writer};
use crate::model::Revision;
use crate::net::counted::Traffic;
use crate::net::dial::{DialLimits, Dialled, dial};
use crate::net::stop::Stop;
use crate::net::tls::Connector;
use crate::session::{Admitted, Closed, Config, Edge, EdgeConfig, Refused};
use crate::wire::message::HOLDS_MAX;
use crate::wire::{CloseReason, Facts, Hello, Hold, Opening};

/// The longest that a hub's word on when to come back is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What an uplink works with.
pub struct UplinkTask {
    /// Its number among the node's.
    pub number: usize,
    /// What this edge is called; what counts at the hub is its certificate.
    pub name: String,
    /// Its options.
    pub options: UplinkOptions,
    /// Times and bounds of links.
    pub link: LinkOptions,
    /// Its credentials, replaced on reload.
    pub connector: Arc<Connector>,
    /// Who writes.
    pub writer: Writer,
    /// The clocks.
    pub clock: Arc<Clock>,
    /// What is known of it, for all to see.
    pub state: Arc<Uplink>,
}

impl UplinkTask {
    /// Runs until told to stop.
    pub async fn run(mut self, mut stop: Stop) {
        let mut schedule = Schedule::new(self.options.dialling.backoff_min, self.options.dialling.backoff_max);
        let mut heads = self.writer.subscribe(Arc::default());
        // Whether the hub holds what is there already is not known before it says so.
        let (head, now_ns) = (*heads.borrow_and_update(), self.clock.wall_ns());
        self.state.update(|link| {
            if head > Revision(0) {
                link.lag.moved(head, now_ns)
            }
        });
        while !stop.is_stopped() {
            let established_before = self.state.get().sessions;
            let (text, retry_after) = tokio::select! {
                ended = self.connect(stop.clone()) => ended,
                () = stop.stopped() => break,
            };
            let established = self.state.get().sessions > established_before;
            if established {
                schedule.reset();
            }
            let wait = retry_after.unwrap_or_else(|| schedule.next_wait());
            self.report(&text, wait, established);
            self.wait(wait, &mut heads, &mut stop).await;
        }
    }

    /// One connection. Returns why it ended, and when the hub wants to see us again.
    async fn connect(&mut self, stop: Stop) -> (String, Option<Duration>) {
        let hub = &self.options.hub;
        let limits = DialLimits {
            connect_timeout: self.options.dialling.connect_timeout,
            handshake_timeout: self.link.handshake_timeout,
            message_bytes_max: self.link.message_bytes_max,
        };
        let Dialled { connection, peer, wire } = match dial(hub, &self.connector, &limits).await {
            Ok(dialled) => dialled,
            Err(error) => return (error.to_string(), None),
        };
        debug!(%hub, %peer, "connected");
        let volume = Arc::<Traffic>::default();
        self.state.update(|link| {
            link.wire.follow(wire);
            link.messages.follow(volume.clone());
        });
        let heads = self.writer.subscribe(Arc::default());
        let Ok(facts) = self.writer.facts(None).await else { return ("the node is shutting down".into(), None) };
        let context = Context {
            writer: self.writer.clone(),
            clock: self.clock.clone(),
            message_bytes_max: self.link.message_bytes_max,
            volume,
        };
        let link = Config { message_bytes_max: self.link.message_bytes_max, ..Config::default() };
        let config = EdgeConfig { link, labels: self.options.labels.clone() };
        let edge = Edge::new(config, describe(&self.name, facts), context.now());
        let closed = converse(End::Edge(Box::new(edge)), connection, Some(heads), self, &context, stop, None).await;
        self.state.update(|link| link.connected = false);
        let retry_after = closed.retry_after_ms.map(|ms| Duration::from_millis(ms).min(RETRY_AFTER_MAX));
        (explain(&closed), retry_after)
    }

    fn report(&self, text: &str, wait: Duration, established: bool) {
        let hub = &self.options.hub;
        let again = self.state.update(|link| std::mem::replace(&mut link.last_error, text.to_string()) == text);
        let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        if again && !established {
            debug!(%hub, reason = text, retry_in_ms, "still no link to the hub");
        } else {
            warn!(%hub, reason = text, retry_in_ms, "no link to the hub; pushes are kept and sent when there is one");
        }
    }

    /// Waits, and notes meanwhile since when changes wait.
    async fn wait(&self, wait: Duration, heads: &mut watch::Receiver<Revision>, stop: &mut Stop) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = stop.stopped() => return,
                Ok(()) = heads.changed() => {
                    let head = *heads.borrow_and_update();
                    self.state.update(|link| link.lag.moved(head, self.clock.wall_ns()));
                }
            }
        }
    }
}

impl Rim for UplinkTask {
    async fn admit(&mut self, _: Hello) -> Result<(Admitted, watch::Receiver<Revision>), Refused> {
        let text = "an edge admits nobody".into();
        Err(Refused { reason: CloseReason::Protocol, text, retry_after_ms: None })
    }

    fn note(&mut self, note: Note) {
        let (now_ns, hub) = (self.clock.wall_ns(), &self.options.hub);
        self.state.update(|link| match note {
            Note::Established(established) => {
                link.connected = true;
                link.connected_since_ns = now_ns;
                link.sessions += 1;
                link.exchanges += u64::from(established.exchange);
                link.last_error.clear();
                let (place, exchange) = (&established.place, established.exchange);
                info!(%hub, peer = established.peer.node, %place, exchange, "linked to the hub");
            }
            Note::Exchanged => info!(%hub, "the exchange with the hub is complete"),
            Note::PeerHolds(revision) => {
                link.acknowledged = revision;
                link.lag.held(revision);
                // Without a place in the queue, the next acknowledgement tells the writer as much.
                self.writer.uplink_holds(self.number, revision);
            }
            Note::Received(revision) => link.received = revision,
            Note::Head(revision) => link.lag.moved(revision, now_ns),
            Note::ClockOffset(offset_ns) => {
                link.clock_offset_ns = offset_ns;
                // One hub gives the time; the first configured, so that two do not pull at the stamps.
                if self.number == 0 {
                    self.clock.set_offset_ns(offset_ns);
                }
            }
            Note::Heard => link.last_seen_ns = now_ns,
        });
    }
}

/// What the store says of itself, as the link's messages have it.
pub fn describe(node: &str, facts: StoreFacts) -> Facts {
    let StoreFacts { store, lineage, head, forgotten, cursors } = facts;
    Facts {
        node: node.into(),
        software: format!("pushrelay {VERSION}"),
        store,
        lineage: lineage.into_iter().map(|p| Opening { epoch: p.epoch, revision: p.revision }).collect(),
        head,
        forgotten,
        holds: cursors
            .into_iter()
            .map(|(store, cursor)| Hold { store, position: cursor.position })
            .take(HOLDS_MAX)
            .collect(),
    }
}

/// Why a conversation ended, for people.
pub fn explain(closed: &Closed) -> String {
    match closed.reason {
        CloseReason::Other(0) => closed.text.clone(),
        reason if closed.by_peer => format!("{reason}: {} (said the peer)", closed.text),
        reason => format!("{reason}: {}", closed.text),
    }
}
