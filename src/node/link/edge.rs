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
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::backoff::Schedule;
use super::driver::{End, LinkContext, Note, SessionObserver, drive};
use super::hub::HubLinks;
use super::peer_info::{close_text, peer_info};
use super::status::UplinkStatus;
use crate::model::{LabelSet, Revision};
use crate::net::counted::Traffic;
use crate::net::dial::{DialError, DialLimits, Dialled, dial};
use crate::net::tls::Connector;
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::node::options::{LinkOptions, UplinkOptions};
use crate::session::{self, Admitted, Closed, Edge, EdgeConfig, Refused};
use crate::store::Scope;
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{CloseReason, ConflictReport, Hello};

/// The longest that a hub's word on when to come back is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Families that are complained of in one session, at most.
const REPORTED_MAX: usize = 1_000;
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
    pub committer: Committer,
    /// The clocks.
    pub clock: Arc<Clock>,
    /// What is known of it, for all to see.
    pub state: Arc<UplinkStatus>,
    /// The links to the edges whose groups are sent on, where there are any.
    pub hub_links: Option<Arc<HubLinks>>,
}

/// How an attempt to be linked ended.
struct EndedAttempt {
    text: String,
    /// When the hub wants to see us again.
    retry_after: Option<Duration>,
    progress: LinkProgress,
}

impl EndedAttempt {
    fn early(text: String) -> Self {
        Self { text, retry_after: None, progress: LinkProgress::default() }
    }
}

impl UplinkTask {
    /// Runs until told to stop. A conversation ends itself then, with a farewell to the hub.
    pub async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule::new(self.options.dialling.backoff_min, self.options.dialling.backoff_max);
        let mut heads = self.committer.subscribe(Scope::Shown);
        // Whether the hub holds what is there already is not known before it says so.
        let (head, now_ns) = (*heads.borrow_and_update(), self.clock.wall_ns());
        self.state.update(|link| link.lag.moved(head, now_ns));
        while !stop.is_cancelled() {
            let Some(dialled) = self.tracking_lag(self.dial(), &mut heads, &stop).await else { break };
            let ended = match dialled {
                Ok(dialled) => self.catch_panic(self.drive(dialled, heads.clone(), stop.clone())).await,
                Err(error) => EndedAttempt::early(error.to_string()),
            };
            if ended.progress.is_made(Instant::now()) {
                schedule.reset();
            }
            let wait = match ended.retry_after {
                Some(asked) => schedule.next_wait_of(asked),
                None => schedule.next_wait(),
            };
            if stop.is_cancelled() {
                break;
            }
            self.report(&ended.text, wait, ended.progress.since.is_some());
            if self.tracking_lag(sleep(wait), &mut heads, &stop).await.is_none() {
                break;
            }
        }
    }

    /// A fault of this program ends one conversation, not the uplink: nobody would ever dial again.
    async fn catch_panic(&self, conversation: impl Future<Output = EndedAttempt>) -> EndedAttempt {
        AssertUnwindSafe(conversation).catch_unwind().await.unwrap_or_else(|_| {
            error!(hub = %self.options.hub, "a conversation with the hub panicked: this is a bug");
            self.state.update(|link| link.connected = false);
            EndedAttempt::early("a fault of this program".into())
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
    async fn drive(&self, dialled: Dialled, heads: watch::Receiver<Revision>, stop: CancellationToken) -> EndedAttempt {
        let Dialled { connection, peer, wire } = dialled;
        debug!(hub = %self.options.hub, %peer, "connected");
        let volume = Arc::<Traffic>::default();
        self.state.update(|link| {
            link.wire.follow(wire.clone());
            link.messages.follow(volume.clone());
        });
        let Ok(mut info) = self.committer.info(None).await else {
            return EndedAttempt::early("the node is shutting down".into());
        };
        // A hub is told what is held of hubs: of the edges below there may be more than can be told.
        info.cursors.retain(|_, cursor| cursor.site.is_empty());
        let context = LinkContext {
            committer: self.committer.clone(),
            clock: self.clock.clone(),
            message_bytes_max: self.link.message_bytes_max,
            volume,
            wire,
        };
        let mut observer = EdgeSession {
            task: self,
            head: info.head,
            progress: LinkProgress::default(),
            unsent_ack: None,
            reported: HashSet::new(),
        };
        let send_interval_ns = u64::try_from(self.options.send_interval.as_nanos()).unwrap_or(u64::MAX);
        let link = session::Config { send_interval_ns, ..self.link.session_config() };
        let (labels, lag) = (self.options.labels.clone(), self.state.get().lag);
        let config = EdgeConfig { link, labels, lag };
        let edge = Edge::new(config, peer_info(&self.name, info), context.now());
        let end = End::Edge(Box::new(edge));
        let closed = drive(end, connection, Some(heads), &mut observer, &context, stop, None).await;
        self.state.update(|link| link.connected = false);
        let retry_after = come_back_after(&closed, self.options.dialling.backoff_max);
        EndedAttempt { text: close_text(&closed), retry_after, progress: observer.progress }
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
    async fn tracking_lag<T>(
        &self,
        other: impl Future<Output = T>,
        heads: &mut watch::Receiver<Revision>,
        stop: &CancellationToken,
    ) -> Option<T> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return Some(done),
                () = stop.cancelled() => return None,
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
struct LinkProgress {
    /// Since when it is established, and how long it must last to count by that alone.
    since: Option<(Instant, Duration)>,
    /// What the hub held at its begin.
    held: Option<Revision>,
    /// Both tell each other all they have. Until that is done it counts for nothing: what fails in it begins anew.
    resyncing: bool,
    /// The hub came to hold more.
    advanced: bool,
}

impl LinkProgress {
    fn established(&mut self, now: Instant, heartbeat_ns: u64, resyncing: bool) {
        self.resyncing = resyncing;
        self.since = Some((now, HEARTBEATS_LASTED * Duration::from_nanos(heartbeat_ns)));
    }

    fn resync_completed(&mut self) {
        self.resyncing = false;
        self.advanced = true;
    }

    fn peer_holds(&mut self, revision: Revision) {
        self.advanced |= *self.held.get_or_insert(revision) < revision && !self.resyncing;
    }

    fn is_made(&self, now: Instant) -> bool {
        let lasted = self.since.is_some_and(|(since, least)| now.saturating_duration_since(since) >= least);
        self.advanced || (lasted && !self.resyncing)
    }
}

/// The edge's side of one conversation.
struct EdgeSession<'a> {
    task: &'a UplinkTask,
    /// The store's head at its begin.
    head: Revision,
    progress: LinkProgress,
    /// What the hub holds and the writer has not been told yet.
    unsent_ack: Option<Revision>,
    /// Families that were complained of.
    reported: HashSet<(Arc<LabelSet>, Arc<str>)>,
}

impl SessionObserver for EdgeSession<'_> {
    async fn admit(&mut self, _: Hello) -> Result<(Admitted, watch::Receiver<Revision>), Refused> {
        let text = "an edge admits nobody".into();
        Err(Refused { reason: CloseReason::Protocol, text, retry_after_ms: None })
    }

    fn note(&mut self, note: Note) {
        let (task, head) = (self.task, self.head);
        let (now_ns, hub) = (task.clock.wall_ns(), &task.options.hub);
        match &note {
            Note::Established(established) => {
                self.progress.established(Instant::now(), established.heartbeat_ns, established.resync);
                if let Some(hub_links) = &task.hub_links {
                    let upstream_stores = [&[established.peer.store], &*established.upstream_stores].concat();
                    hub_links.sends_to(task.number, upstream_stores);
                }
            }
            Note::ResyncCompleted => self.progress.resync_completed(),
            Note::PeerHolds(revision) => {
                self.progress.peer_holds(*revision);
                self.unsent_ack = Some(*revision);
            }
            Note::HeldBack(reports) => self.report_suppressed(reports),
            _ => {}
        }
        task.state.update(|link| match note {
            Note::Established(established) => {
                link.connected = true;
                link.connected_since_ns = now_ns;
                link.sessions += 1;
                link.resyncs += u64::from(established.resync);
                link.last_error.clear();
                let (site, resync) = (&established.site, established.resync);
                info!(%hub, peer = established.peer.node, %site, resync, "linked to the hub");
            }
            Note::ResyncCompleted => info!(%hub, "the resync with the hub is complete"),
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
        self.unsent_ack = self.unsent_ack.take_if(|revision| !task.committer.uplink_holds(task.number, *revision));
    }
}

impl EdgeSession<'_> {
    /// Says what the hub does not show, once a session for each family.
    fn report_suppressed(&mut self, reports: &[ConflictReport]) {
        let hub = &self.task.options.hub;
        for ConflictReport { key, family, text, .. } in reports {
            let known = self.reported.len() >= REPORTED_MAX || !self.reported.insert((key.clone(), family.clone()));
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
        let mut progress = LinkProgress::default();
        assert!(!progress.is_made(begin + 60 * SECOND), "never established");
        progress.established(begin, 1_000_000_000, false);
        progress.peer_holds(Revision(7));
        assert!(!progress.is_made(begin + SECOND), "the hub only said what it held before");
        assert!(progress.is_made(begin + 3 * SECOND), "it lasted");
        progress.peer_holds(Revision(8));
        assert!(progress.is_made(begin), "something arrived");
        let mut resync = LinkProgress::default();
        resync.established(begin, 1_000_000_000, true);
        (7..9).for_each(|revision| resync.peer_holds(Revision(revision)));
        assert!(!resync.is_made(begin + 60 * SECOND), "half a resync begins anew");
        resync.resync_completed();
        assert!(resync.is_made(begin));
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
