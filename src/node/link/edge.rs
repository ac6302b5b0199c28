//! An edge's link to one hub: dials, converses, and tries again for as long as the node runs.

use std::collections::HashSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::backoff::Schedule;
use super::driver::{Context, End, Note, Rim, converse};
use super::hub::Downlinks;
use super::peer_info::{describe, explain};
use super::status::Uplink;
use crate::model::{LabelSet, Revision};
use crate::net::counted::Traffic;
use crate::net::dial::{DialError, DialLimits, Dialled, dial};
use crate::net::stop::Stop;
use crate::net::tls::Connector;
use crate::node::clock::Clock;
use crate::node::options::{LinkOptions, UplinkOptions};
use crate::node::writer::Writer;
use crate::session::{self, Admitted, Closed, Edge, EdgeConfig, Refused};
use crate::store::Scope;
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{CloseReason, ConflictReport, Hello};

/// The longest that a hub's word on when to come back is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Families that are complained of in one session, at most.
const COMPLAINTS_MAX: usize = 1_000;
/// Heartbeats after which a session counts as one that works, whatever was sent.
const HEARTBEATS_LASTED: u32 = 3;

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
    /// The links to the edges whose groups are sent on, where there are any.
    pub downlinks: Option<Arc<Downlinks>>,
}

/// How an attempt to be linked ended.
struct Ended {
    text: String,
    /// When the hub wants to see us again.
    retry_after: Option<Duration>,
    progress: Progress,
}

impl Ended {
    fn early(text: String) -> Self {
        Self { text, retry_after: None, progress: Progress::default() }
    }
}

impl UplinkTask {
    /// Runs until told to stop. A conversation ends itself then, with a farewell to the hub.
    pub async fn run(self, mut stop: Stop) {
        let mut schedule = Schedule::new(self.options.dialling.backoff_min, self.options.dialling.backoff_max);
        let mut heads = self.writer.subscribe(Scope::Shown);
        // Whether the hub holds what is there already is not known before it says so.
        let (head, now_ns) = (*heads.borrow_and_update(), self.clock.wall_ns());
        self.state.update(|link| link.lag.moved(head, now_ns));
        while !stop.is_stopped() {
            let Some(dialled) = self.meanwhile(self.dial(), &mut heads, &mut stop).await else { break };
            let ended = match dialled {
                Ok(dialled) => self.survive(self.converse(dialled, heads.clone(), stop.clone())).await,
                Err(error) => Ended::early(error.to_string()),
            };
            if ended.progress.is_made(Instant::now()) {
                schedule.reset();
            }
            let wait = match ended.retry_after {
                Some(asked) => schedule.next_wait_of(asked),
                None => schedule.next_wait(),
            };
            if stop.is_stopped() {
                break;
            }
            self.report(&ended.text, wait, ended.progress.since.is_some());
            if self.meanwhile(sleep(wait), &mut heads, &mut stop).await.is_none() {
                break;
            }
        }
    }

    /// A fault of this program ends one conversation, not the uplink: nobody would ever dial again.
    async fn survive(&self, conversation: impl Future<Output = Ended>) -> Ended {
        AssertUnwindSafe(conversation).catch_unwind().await.unwrap_or_else(|_| {
            error!(hub = %self.options.hub, "a conversation with the hub panicked: this is a bug");
            self.state.update(|link| link.connected = false);
            Ended::early("a fault of this program".into())
        })
    }

    async fn dial(&self) -> Result<Dialled, DialError> {
        let limits = DialLimits {
            connect_timeout: self.options.dialling.connect_timeout,
            handshake_timeout: self.link.handshake_timeout,
            message_bytes_max: self.link.message_bytes_max.max(PLAIN_BYTES_MAX),
        };
        dial(&self.options.hub, &self.connector, &limits).await
    }

    /// One conversation, until it is over.
    async fn converse(&self, dialled: Dialled, heads: watch::Receiver<Revision>, stop: Stop) -> Ended {
        let Dialled { connection, peer, wire } = dialled;
        debug!(hub = %self.options.hub, %peer, "connected");
        let volume = Arc::<Traffic>::default();
        self.state.update(|link| {
            link.wire.follow(wire.clone());
            link.messages.follow(volume.clone());
        });
        let Ok(mut info) = self.writer.info(None).await else {
            return Ended::early("the node is shutting down".into());
        };
        // A hub is told what is held of hubs: of the edges below there may be more than can be told.
        info.cursors.retain(|_, cursor| cursor.site.is_empty());
        let context = Context {
            writer: self.writer.clone(),
            clock: self.clock.clone(),
            message_bytes_max: self.link.message_bytes_max,
            volume,
            wire,
        };
        let mut rim = HubRim {
            task: self,
            head: info.head,
            progress: Progress::default(),
            untold: None,
            complaints: HashSet::new(),
        };
        let send_interval_ns = u64::try_from(self.options.send_interval.as_nanos()).unwrap_or(u64::MAX);
        let link = session::Config { send_interval_ns, ..self.link.session_config() };
        let (labels, lag) = (self.options.labels.clone(), self.state.get().lag);
        let config = EdgeConfig { link, labels, lag };
        let edge = Edge::new(config, describe(&self.name, info), context.now());
        let end = End::Edge(Box::new(edge));
        let closed = converse(end, connection, Some(heads), &mut rim, &context, stop, None).await;
        self.state.update(|link| link.connected = false);
        let retry_after = come_back_after(&closed, self.options.dialling.backoff_max);
        Ended { text: explain(&closed), retry_after, progress: rim.progress }
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

    /// Does something else than converse, and notes meanwhile since when changes wait. `None` if told to stop.
    async fn meanwhile<T>(
        &self,
        other: impl Future<Output = T>,
        heads: &mut watch::Receiver<Revision>,
        stop: &mut Stop,
    ) -> Option<T> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return Some(done),
                () = stop.stopped() => return None,
                Ok(()) = heads.changed() => {
                    let head = *heads.borrow_and_update();
                    self.state.update(|link| link.lag.moved(head, self.clock.wall_ns()));
                }
            }
        }
    }
}

/// What the hub, or the way in which it ended the conversation, asks for. A session that was replaced has a twin with the
/// same store: hurrying back would only throw that one out.
fn come_back_after(closed: &Closed, backoff_max: Duration) -> Option<Duration> {
    let asked = closed.retry_after_ms.map(|ms| Duration::from_millis(ms).min(RETRY_AFTER_MAX));
    match closed.reason {
        CloseReason::Replaced => Some(asked.unwrap_or_default().max(backoff_max)),
        _ => asked,
    }
}

/// Whether a conversation came to anything. One that is established and fails at once must not make the next one come
/// sooner.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Since when it is established, and how long it must last to count by that alone.
    since: Option<(Instant, Duration)>,
    /// What the hub held at its begin.
    held: Option<Revision>,
    /// Both tell each other all they have. Until that is done it counts for nothing: what fails in it begins anew.
    exchanging: bool,
    /// The hub came to hold more.
    advanced: bool,
}

impl Progress {
    fn established(&mut self, now: Instant, heartbeat_ns: u64, exchanging: bool) {
        self.exchanging = exchanging;
        self.since = Some((now, HEARTBEATS_LASTED * Duration::from_nanos(heartbeat_ns)));
    }

    fn exchanged(&mut self) {
        self.exchanging = false;
        self.advanced = true;
    }

    fn peer_holds(&mut self, revision: Revision) {
        self.advanced |= *self.held.get_or_insert(revision) < revision && !self.exchanging;
    }

    fn is_made(&self, now: Instant) -> bool {
        let lasted = self.since.is_some_and(|(since, least)| now.saturating_duration_since(since) >= least);
        self.advanced || (lasted && !self.exchanging)
    }
}

/// The edge's side of one conversation.
struct HubRim<'a> {
    task: &'a UplinkTask,
    /// The store's head at its begin.
    head: Revision,
    progress: Progress,
    /// What the hub holds and the writer has not been told yet.
    untold: Option<Revision>,
    /// Families that were complained of.
    complaints: HashSet<(Arc<LabelSet>, Arc<str>)>,
}

impl Rim for HubRim<'_> {
    async fn admit(&mut self, _: Hello) -> Result<(Admitted, watch::Receiver<Revision>), Refused> {
        let text = "an edge admits nobody".into();
        Err(Refused { reason: CloseReason::Protocol, text, retry_after_ms: None })
    }

    fn note(&mut self, note: Note) {
        let (task, head) = (self.task, self.head);
        let (now_ns, hub) = (task.clock.wall_ns(), &task.options.hub);
        match &note {
            Note::Established(established) => {
                self.progress.established(Instant::now(), established.heartbeat_ns, established.exchange);
                if let Some(downlinks) = &task.downlinks {
                    let above = [&[established.peer.store], &*established.above].concat();
                    downlinks.sends_to(task.number, above);
                }
            }
            Note::Exchanged => self.progress.exchanged(),
            Note::PeerHolds(revision) => {
                self.progress.peer_holds(*revision);
                self.untold = Some(*revision);
            }
            Note::HeldBack(reports) => self.complain(reports),
            _ => {}
        }
        task.state.update(|link| match note {
            Note::Established(established) => {
                link.connected = true;
                link.connected_since_ns = now_ns;
                link.sessions += 1;
                link.exchanges += u64::from(established.exchange);
                link.last_error.clear();
                let (site, exchange) = (&established.site, established.exchange);
                info!(%hub, peer = established.peer.node, %site, exchange, "linked to the hub");
            }
            Note::Exchanged => info!(%hub, "the exchange with the hub is complete"),
            Note::PeerHolds(revision) => {
                link.acknowledged = revision;
                link.lag.held(revision);
                // A hub that lost its disk holds less than before: all of it waits again.
                link.lag.moved(head, now_ns);
            }
            Note::Received(revision) => link.received = revision,
            Note::Head(revision) => link.lag.moved(revision, now_ns),
            Note::ClockOffset(offset_ns) => {
                link.clock_offset_ns = offset_ns;
                // One hub gives the time; the first configured, so that two do not pull at the stamps.
                if task.number == 0 {
                    task.clock.set_offset_ns(offset_ns);
                }
            }
            Note::HeldBack(reports) => link.held_back += reports.len() as u64,
            Note::PeerLag(_) => {}
            Note::Heard => link.last_seen_ns = now_ns,
        });
        // Where the writer's queue is full, it is told with what comes next, a heartbeat at the latest: if nothing is pushed
        // any more, no later acknowledgement would let its tombstones go.
        self.untold = self.untold.take_if(|revision| !task.writer.uplink_holds(task.number, *revision));
    }
}

impl HubRim<'_> {
    /// Says what the hub does not show, once a session for each family.
    fn complain(&mut self, reports: &[ConflictReport]) {
        let hub = &self.task.options.hub;
        for ConflictReport { key, family, text, .. } in reports {
            let known =
                self.complaints.len() >= COMPLAINTS_MAX || !self.complaints.insert((key.clone(), family.clone()));
            match known {
                true => {
                    debug!(%hub, group = %key, %family, reason = %text, "the hub keeps a family but does not show it")
                }
                false => {
                    warn!(%hub, group = %key, %family, reason = %text, "the hub keeps a family but does not show it")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn closed(reason: CloseReason, retry_after_ms: Option<u64>) -> Closed {
        Closed { reason, text: String::new(), by_peer: true, retry_after_ms }
    }

    #[test]
    fn a_session_that_fails_at_once_is_no_progress() {
        let begin = Instant::now();
        let mut progress = Progress::default();
        assert!(!progress.is_made(begin + 60 * SECOND), "never established");
        progress.established(begin, 1_000_000_000, false);
        progress.peer_holds(Revision(7));
        assert!(!progress.is_made(begin + SECOND), "the hub only said what it held before");
        assert!(progress.is_made(begin + 3 * SECOND), "it lasted");
        progress.peer_holds(Revision(8));
        assert!(progress.is_made(begin), "something arrived");
        let mut exchange = Progress::default();
        exchange.established(begin, 1_000_000_000, true);
        (7..9).for_each(|revision| exchange.peer_holds(Revision(revision)));
        assert!(!exchange.is_made(begin + 60 * SECOND), "half an exchange begins anew");
        exchange.exchanged();
        assert!(exchange.is_made(begin));
    }

    #[test]
    fn who_was_replaced_waits_longest() {
        let max = 30 * SECOND;
        assert_eq!(come_back_after(&closed(CloseReason::Replaced, None), max), Some(max));
        assert_eq!(come_back_after(&closed(CloseReason::Replaced, Some(60_000)), max), Some(60 * SECOND));
        assert_eq!(come_back_after(&closed(CloseReason::Storage, Some(5_000)), max), Some(5 * SECOND));
        assert_eq!(come_back_after(&closed(CloseReason::Storage, Some(u64::MAX)), max), Some(RETRY_AFTER_MAX));
        assert_eq!(come_back_after(&closed(CloseReason::Shutdown, None), max), None);
    }
}
