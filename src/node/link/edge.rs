//! An edge's link to one hub: dials, drives a session, and dials again for as long as the node runs.

use std::collections::HashSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::backoff::Schedule;
use super::closing::close_unverified;
use super::driver::{LinkContext, SessionObserver, drive, refuse};
use super::hub::HubLinks;
use super::status::UplinkStatus;
use super::uplink_credentials::{UplinkCredentials, mismatch};
use crate::model::{LabelSet, Revision};
use crate::net::counted::Traffic;
use crate::net::dial::{DialError, DialLimits, DialStep, Dialled, Dialler};
use crate::net::identity::EdgeIdentity;
use crate::net::proxy::{Proxy, ProxyKeys};
use crate::net::tls::{PeerChain, Renewals, TlsError};
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::node::options::{LinkOptions, UplinkOptions};
use crate::session::{
    self, Admitted, Connection, EdgeConfig, NodeName, PeerProgress, Refused, SessionEvent, UplinkDuties, UplinkDuty,
};
use crate::store::Scope;
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{CloseReason, ConflictReport, Health, Hello, PeerInfo};

/// The number of suppressed families that are logged as warnings in one session.
const REPORTED_MAX: usize = 1_000;
/// The time between two looks whether the hub's certificate still verifies.
const VERIFY_INTERVAL: Duration = Duration::from_secs(5);
/// A session counts as progress after this many heartbeat intervals, even if nothing was sent.
const HEARTBEATS_LASTED: u32 = 3;

/// One uplink: its options, and the parts of the node that it uses.
pub struct UplinkTask {
    /// Its index among the node's uplinks.
    pub number: usize,
    /// The node's name, for the hub's logs; the hub uses the name in the certificate.
    pub name: NodeName,
    /// The `[[uplink]]` section of the configuration.
    pub options: UplinkOptions,
    /// The identity in its certificate, if it has one. A renewed certificate has the same.
    pub identity: Option<EdgeIdentity>,
    /// The times and bounds of links.
    pub link: LinkOptions,
    /// Dials the hub; its credentials are replaced on reload.
    pub dialler: Arc<Dialler>,
    /// Commits the changes of the hub.
    pub committer: Committer,
    /// The node's clocks.
    pub clock: Arc<Clock>,
    /// The status of the link, for metrics and pages.
    pub state: Arc<UplinkStatus>,
    /// The health of this node, for the hub.
    pub health: watch::Receiver<Arc<Health>>,
    /// At a relay, its links to edges.
    pub hub_links: Option<Arc<HubLinks>>,
}

/// The dialler of an uplink; `keys` are those of its proxy.
///
/// # Errors
/// If the credentials cannot be used for a client.
pub fn dialler(
    uplink: &UplinkOptions,
    link: &LinkOptions,
    credentials: &UplinkCredentials,
    keys: Option<ProxyKeys>,
) -> Result<Dialler, TlsError> {
    let limits = DialLimits {
        connect_timeout: uplink.dialling.connect_timeout,
        handshake_timeout: link.handshake_timeout,
        message_bytes_max: link.message_bytes_max.max(PLAIN_BYTES_MAX),
    };
    let proxy = uplink.proxy.clone().zip(keys).map(|(options, keys)| Proxy::new(options, keys));
    let dialler = Dialler::new(uplink.hub.clone(), &uplink.addresses, limits, credentials.connector()?, proxy);
    Ok(dialler.at(uplink.path.clone()))
}

/// The end of one attempt to link.
struct EndedAttempt {
    text: String,
    /// The delay that the hub asked for.
    retry_after: Option<Duration>,
    progress: LinkProgress,
}

impl EndedAttempt {
    fn early(text: String) -> Self {
        Self { text, retry_after: None, progress: LinkProgress::default() }
    }
}

impl UplinkTask {
    /// Runs until the node stops. A session then ends itself with a close message to the hub.
    pub async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule::new(self.options.dialling.backoff_min, self.options.dialling.backoff_max);
        let mut heads = self.committer.subscribe(Scope::Shown);
        let mut renewals = self.dialler.connector().renewals();
        // The progress with the hub's store, from one session to the next.
        let progress = Mutex::new(None);
        // A connection with renewed credentials, which takes the place of the one that ended.
        let mut renewed = None;
        // Existing changes count as waiting until the hub reports that it has them.
        let (head, now_ns) = (*heads.borrow_and_update(), self.clock.wall_ns());
        self.state.update(|link| link.lag.moved(head, now_ns));
        while !stop.is_cancelled() {
            let dialled = match renewed.take() {
                Some(dialled) => Ok(dialled),
                None => {
                    renewals.skip_to_now();
                    let Some(dialled) = self.tracking_lag(self.dial(), &mut heads, &stop).await else { break };
                    dialled
                }
            };
            let dialled_well = dialled.is_ok();
            let ended = match dialled {
                Ok(dialled) => {
                    let (end, dropped) = watch::channel(None);
                    let hub_chain = dialled.hub_chain.clone();
                    let session = self.run_session(dialled, heads.clone(), &progress, dropped, stop.clone());
                    let mut session = pin!(self.catch_panic(session));
                    tokio::select! {
                        ended = &mut session => ended,
                        dialled = self.renew(&mut renewals) => {
                            renewed = Some(dialled);
                            end.send_replace(Some(close_renewed()));
                            session.await
                        }
                        error = self.unverified(hub_chain) => {
                            warn!(hub = %self.options.hub, %error, "the hub's certificate does not verify any more: the link ends");
                            end.send_replace(Some(close_unverified(&error)));
                            session.await
                        }
                    }
                }
                Err(error) => EndedAttempt::early(error.to_string()),
            };
            if ended.progress.is_made(Instant::now()) {
                schedule.reset();
            }
            if dialled_well && ended.progress.since.is_none() && !stop.is_cancelled() {
                self.count_failure(DialStep::Hello);
            }
            if renewed.is_some() && !stop.is_cancelled() {
                info!(hub = %self.options.hub, "the link moves to a connection with the renewed certificate");
                continue;
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

    /// Waits for renewed credentials, and connects with them. The present session goes on until then, and so a
    /// certificate that the hub refuses ends no link.
    async fn renew(&self, renewals: &mut Renewals) -> Dialled {
        renewals.next().await;
        let mut schedule = Schedule::new(self.options.dialling.backoff_min, self.options.dialling.backoff_max);
        let mut reported = String::new();
        loop {
            renewals.skip_to_now();
            let text = match self.dial().await {
                Ok(dialled) => return dialled,
                Err(error) => error.to_string(),
            };
            if text != reported {
                warn!(hub = %self.options.hub, reason = text, "no link with the renewed certificate; the present link goes on");
                reported = text;
            }
            tokio::select! {
                () = sleep(schedule.next_wait()) => {}
                () = renewals.next() => {}
            }
        }
    }

    /// Waits until the hub's certificate does not verify any more: it expired, or its authority was removed.
    async fn unverified(&self, hub_chain: Option<PeerChain>) -> TlsError {
        let Some(hub_chain) = hub_chain else { return std::future::pending().await };
        let mut renewals = self.dialler.connector().renewals();
        loop {
            renewals.skip_to_now();
            if let Err(error) = self.dialler.connector().verify(self.options.hub.host(), &hub_chain, SystemTime::now())
            {
                return error;
            }
            tokio::select! {
                () = sleep(VERIFY_INTERVAL) => {}
                () = renewals.next() => {}
            }
        }
    }

    /// Limits a panic to one session: without this the uplink's task would end, and nothing would dial again.
    async fn catch_panic(&self, session: impl Future<Output = EndedAttempt>) -> EndedAttempt {
        AssertUnwindSafe(session).catch_unwind().await.unwrap_or_else(|_| {
            error!(hub = %self.options.hub, "a session with the hub panicked: this is a bug");
            self.state.update(|link| link.connected = false);
            EndedAttempt::early("a fault of this program".into())
        })
    }

    async fn dial(&self) -> Result<Dialled, DialError> {
        self.dialler.dial(&mut ()).await.inspect_err(|error| self.count_failure(error.step()))
    }

    fn count_failure(&self, step: DialStep) {
        self.state.update(|link| link.dial_failures.add(step));
    }

    /// Runs one session until it is over.
    async fn run_session(
        &self,
        dialled: Dialled,
        heads: watch::Receiver<Revision>,
        progress: &Mutex<Option<PeerProgress>>,
        dropped: watch::Receiver<Option<Refused>>,
        stop: CancellationToken,
    ) -> EndedAttempt {
        let Dialled { connection: socket, peer, wire, .. } = dialled;
        debug!(hub = %self.options.hub, %peer, "connected");
        let messages = Arc::<Traffic>::default();
        self.state.update(|link| {
            link.wire.follow(wire.clone());
            link.messages.follow(messages.clone());
        });
        // The caller subscribed to `heads` before: a change after this read wakes the session.
        let Ok(info) = self.committer.info(None).await else {
            let text = "the edge is shutting down".to_string();
            refuse(socket, Refused { reason: CloseReason::Shutdown, text: text.clone(), retry_after_ms: None }).await;
            return EndedAttempt::early(text);
        };
        let (committer, clock) = (self.committer.clone(), self.clock.clone());
        let context = LinkContext { committer, clock, messages, wire, health: Some(self.health.clone()) };
        let mut observer = EdgeSession {
            task: self,
            head: info.head,
            progress: LinkProgress::default(),
            peer_progress: progress,
            duties: UplinkDuties::new(self.number),
            reported: HashSet::new(),
        };
        let send_interval_ns = u64::try_from(self.options.send_interval.as_nanos()).unwrap_or(u64::MAX);
        let link = session::Config { send_interval_ns, ..self.link.session_config() };
        let (labels, lag) = (self.options.labels.clone(), self.state.get().lag);
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let config = EdgeConfig { link, labels, lag, progress };
        let identity = self.identity.as_ref().map(EdgeIdentity::to_uri).unwrap_or_default();
        let info = PeerInfo { identity, ..self.name.info_for_hub(info) };
        let connection = Connection::edge(config, info, context.now());
        let closed = drive(connection, socket, Some(heads), &mut observer, &context, stop, Some(dropped)).await;
        self.state.update(|link| link.connected = false);
        let retry_after = closed.retry_after(self.options.dialling.backoff_max);
        EndedAttempt { text: closed.to_string(), retry_after, progress: observer.progress }
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

    /// Awaits `other`, and meanwhile records the age of changes that wait. `None` if the node stops.
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

fn close_renewed() -> Refused {
    let text = "the edge's certificate was renewed: it connects again with the new one".into();
    Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None }
}

/// The progress of one session. A session that fails soon after the handshake must not reset the backoff.
#[derive(Clone, Copy, Debug, Default)]
struct LinkProgress {
    /// The time of the handshake, and the duration after which the session counts as progress by that alone.
    since: Option<(Instant, Duration)>,
    /// The revision that the hub had at the start.
    acked_first: Option<Revision>,
    /// A resync is under way. It is progress only as far as the hub acknowledges it.
    resyncing: bool,
    /// The hub acknowledged further changes.
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

    fn peer_acked(&mut self, revision: Revision) {
        self.advanced |= *self.acked_first.get_or_insert(revision) < revision;
    }

    fn is_made(&self, now: Instant) -> bool {
        let lasted = self.since.is_some_and(|(since, least)| now.saturating_duration_since(since) >= least);
        self.advanced || (lasted && !self.resyncing)
    }
}

/// The edge's side of one session.
struct EdgeSession<'a> {
    task: &'a UplinkTask,
    /// The store's head at the start.
    head: Revision,
    progress: LinkProgress,
    /// The progress with the hub's store, which outlives the session.
    peer_progress: &'a Mutex<Option<PeerProgress>>,
    duties: UplinkDuties,
    /// Suppressed families that were logged as warnings.
    reported: HashSet<(Arc<LabelSet>, Arc<str>)>,
}

impl SessionObserver for EdgeSession<'_> {
    async fn admit(&mut self, _: Hello, _: &mut Option<watch::Receiver<Revision>>) -> Result<Admitted, Refused> {
        let text = "an edge admits nobody".into();
        Err(Refused { reason: CloseReason::Protocol, text, retry_after_ms: None })
    }

    fn observe(&mut self, event: &SessionEvent) {
        let (task, head) = (self.task, self.head);
        let (now_ns, hub) = (task.clock.wall_ns(), &task.options.hub);
        event.follow(&mut self.peer_progress.lock().unwrap_or_else(PoisonError::into_inner));
        if let (SessionEvent::Suppressed(reports), Some(verdicts)) = (event, &task.state.verdicts) {
            // Before the acknowledgement wakes those that wait for the verdict.
            verdicts.record(reports);
        }
        task.state.update(|link| {
            link.apply(event, now_ns);
            match event {
                SessionEvent::Established(_) => link.last_error.clear(),
                SessionEvent::PeerAcked(revision) => {
                    link.lag.acked(*revision);
                    // A hub that lost its disk has less than before: all of it waits again.
                    link.lag.moved(head, now_ns);
                }
                SessionEvent::Head(revision) => link.lag.moved(*revision, now_ns),
                _ => {}
            }
        });
        match event {
            SessionEvent::Established(established) => {
                self.progress.established(Instant::now(), established.heartbeat_ns, established.resync);
                let (site, resync) = (&established.site, established.resync);
                info!(%hub, peer = established.peer.node, %site, resync, "linked to the hub");
                let known_as = &established.peer.identity;
                let mismatch = task.identity.as_ref().and_then(|own| mismatch(own, known_as));
                if let Some(reason) = &mismatch {
                    error!(%hub, reason, "the hub knows this edge by another certificate");
                }
                task.state.update(|link| link.is_mistaken = mismatch.is_some());
                if let Some(hub_links) = &task.hub_links {
                    hub_links.uplink_established(task.number, established);
                }
            }
            SessionEvent::ResyncCompleted => {
                self.progress.resync_completed();
                info!(%hub, "the resync with the hub is complete");
            }
            SessionEvent::PeerAcked(revision) => self.progress.peer_acked(*revision),
            SessionEvent::Suppressed(reports) => self.report_suppressed(reports),
            _ => {}
        }
        match self.duties.of(event, || task.committer.published().is_clock_confirmed()) {
            Some(UplinkDuty::SetClockOffset(offset_ns)) => {
                if let Some((right_ns, monotonic_ns)) = task.clock.compared(offset_ns) {
                    task.clock.set_offset_ns(offset_ns);
                    // If the worker's channel is full, the next heartbeat confirms it.
                    task.committer.confirm_clock(right_ns, monotonic_ns);
                }
            }
            Some(UplinkDuty::ReportAck(revision)) if task.committer.uplink_acked(task.number, revision) => {
                self.duties.ack_reported();
            }
            _ => {}
        }
    }
}

impl EdgeSession<'_> {
    /// Logs the families that the hub does not show: a warning once a session for each family.
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

    #[test]
    fn a_session_that_fails_early_does_not_reset_the_backoff() {
        let begin = Instant::now();
        let mut progress = LinkProgress::default();
        assert!(!progress.is_made(begin + 60 * SECOND), "never established");
        progress.established(begin, 1_000_000_000, false);
        progress.peer_acked(Revision(7));
        assert!(!progress.is_made(begin + SECOND), "the hub only acknowledged what it had before");
        assert!(progress.is_made(begin + 3 * SECOND), "it lasted");
        progress.peer_acked(Revision(8));
        assert!(progress.is_made(begin), "something arrived");
        let mut resync = LinkProgress::default();
        resync.established(begin, 1_000_000_000, true);
        resync.peer_acked(Revision(7));
        assert!(!resync.is_made(begin + 60 * SECOND), "nothing was acknowledged");
        resync.peer_acked(Revision(8));
        assert!(resync.is_made(begin), "the next session continues there");
        let mut resync = LinkProgress { advanced: false, ..resync };
        resync.resync_completed();
        assert!(resync.is_made(begin));
    }
}
