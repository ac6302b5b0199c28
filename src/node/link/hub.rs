//! A hub's links to its edges: accepts connections, admits edges that have a certificate and a site, and drives sessions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::closing::{close_refused, close_retired};
use super::driver::{LinkContext, SessionObserver, drive, refuse};
use super::edges::{EdgeRegistry, EdgeStatus, Refusal};
use super::enrolment::issuer::Enrolment;
use super::incoming::{FailedIncoming, Handshaken};
use super::peer::LinkPeer;
use super::refusals::{RefusalCounts, RefusalKind};
use super::roll::Roll;
use super::site_rules::{SiteRefusal, SiteRules};
use crate::model::{LabelSet, Revision};
use crate::net::address::shown;
use crate::net::counted::Traffic;
use crate::net::failures::FailureKind;
use crate::net::identity::EdgeIdentity;
use crate::net::listen::{self, Accepting};
use crate::net::proxy_protocol::{TrustedProxy, read_source};
use crate::net::slots::Slots;
use crate::net::tls::Acceptor;
use crate::net::websocket::LinkPurpose;
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::node::random::random_id;
use crate::session::{
    Admitted, Connection, Established, HubConfig, HubSessions, JoinStep, NodeName, PeerProgress, REPLACE_NS_MAX,
    Refused, SessionEvent, SessionId, silence_max,
};
use crate::wire::{CloseReason, Hello};

/// The delay asked of an edge whose name another store uses, after the time at which that one's session would be found
/// dead.
const TAKEN_MARGIN: Duration = Duration::from_secs(1);

/// The reason of a refused certificate, beside those of the protocol.
const CERTIFICATE_REFUSED: &str = "certificate refused";

/// The reason for a connection whose handshakes take too long.
const TOO_SLOW: &str = "the handshakes did not end in time (link.handshake_timeout)";

/// The links of a hub to its edges: their shared state.
pub struct HubLinks {
    /// Commits the changes of edges.
    pub committer: Committer,
    /// The node's clocks.
    pub clock: Arc<Clock>,
    /// The status of the edges, for metrics and pages.
    pub edges: Arc<EdgeRegistry>,
    /// Issues certificates, if this hub does.
    pub enrolment: Option<Enrolment>,
    /// Counts refused edges by reason.
    pub refusals: Arc<RefusalCounts>,
    /// Makes it durable.
    pub roll: Arc<Roll>,
    /// The limit on connections, and the counters of those without a session.
    pub slots: Slots,
    /// The balancers in front of the hub that may name the address of an edge.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The hub's credentials, replaced on reload; `None` if its listeners take edges without TLS, or it has none.
    pub acceptor: Option<Acceptor>,
    /// Counts the times that all sessions were verified again.
    pub verifications: AtomicU64,
    /// The site rules of the configuration; replaced on reload.
    pub sites: Mutex<SiteRules>,
    /// The times and bounds of sessions.
    pub session: HubConfig,
    /// The time limit for the handshakes of TLS and the WebSocket together.
    pub handshake_timeout: Duration,
    /// The connections, and the sessions among them.
    pub sessions: Mutex<SessionTable>,
}

/// The connections of a hub, and the sessions among them that joined.
pub struct SessionTable {
    hub: HubSessions,
    pub(super) live: HashMap<SessionId, LiveSession>,
}

pub(super) struct LiveSession {
    /// Sends the reason when the node ends the session.
    pub(super) end: watch::Sender<Option<Refused>>,
    /// The edge, with its credential.
    pub(super) peer: LinkPeer,
    /// The edge that asked to join, the site labels that it claims, and those that it got.
    asked: Option<(EdgeIdentity, LabelSet, LabelSet)>,
    /// Closed when the session is over.
    over: watch::Receiver<()>,
}

impl SessionTable {
    /// An empty table of the hub `name`, for at most `sessions_max` sessions.
    pub fn new(name: NodeName, sessions_max: usize) -> Self {
        Self { hub: HubSessions::new(name, sessions_max), live: HashMap::new() }
    }
}

impl HubLinks {
    /// Accepts edges until the node stops.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, accepting: Accepting, stop: CancellationToken) {
        let serve_one = {
            let stop = stop.clone();
            move |stream, address, _| self.clone().connection(stream, address, stop.child_token())
        };
        listen::accept(listener, accepting, stop, serve_one).await;
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        let source = tokio::select! {
            source = timeout(self.handshake_timeout, read_source(&mut stream, peer, &self.trusted_proxies)) => source,
            () = stop.cancelled() => return debug!(address = %peer, "connection dropped: the node is shutting down"),
        };
        let hop = match source {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => return self.slots.failures().record(peer, error.failure(), &error.to_string()),
            Err(_) => return self.slots.failures().record(peer, FailureKind::Silent, TOO_SLOW),
        };
        let verifications = self.verifications.load(Ordering::Acquire);
        let handshaken = tokio::select! {
            handshaken = timeout(self.handshake_timeout, self.handshake(stream, (peer, hop))) => handshaken,
            () = stop.cancelled() => return debug!(address = %hop, "connection dropped: the node is shutting down"),
        };
        match handshaken {
            Ok(Ok((handshaken, wire))) => self.serve_socket(handshaken, wire, verifications, stop).await,
            Ok(Err(FailedIncoming { kind, reason, claimed_name, rest })) => {
                let reason = self.refused_name(hop, claimed_name, reason);
                self.slots.failures().record(hop, kind, &reason);
                // This is not within the time limit of the handshake: the failure is known.
                let rest = timeout(self.handshake_timeout, rest.end(&reason));
                let _ = tokio::select! {
                    ended = rest => ended,
                    () = stop.cancelled() => Ok(()),
                };
            }
            Err(_) => self.slots.failures().record(hop, FailureKind::Silent, TOO_SLOW),
        }
    }

    /// Serves a connection whose handshakes are over. `verifications` is their number from before the handshakes.
    pub(super) async fn serve_socket<S: AsyncRead + AsyncWrite + Unpin + Send>(
        self: Arc<Self>,
        handshaken: Handshaken<S>,
        wire: Arc<Traffic>,
        verifications: u64,
        stop: CancellationToken,
    ) {
        let Handshaken { socket, peer, purpose, address } = handshaken;
        let peer = match (peer, purpose) {
            (peer, LinkPurpose::Enrol) => {
                return tokio::select! {
                    () = self.answer_enrolment(socket, peer, address) => {}
                    () = stop.cancelled() => debug!(%address, "enrolment dropped: the node is shutting down"),
                };
            }
            (None, LinkPurpose::Session | LinkPurpose::Check) => return,
            (Some(peer), LinkPurpose::Session) => peer,
            (Some(peer), LinkPurpose::Check) => {
                return tokio::select! {
                    () = self.answer_check(socket, &peer, address) => {}
                    () = stop.cancelled() => debug!(%address, "check dropped: the node is shutting down"),
                };
            }
        };
        let name = peer.identity.name.as_str().to_string();
        let messages = Arc::<Traffic>::default();
        let RegisteredSession { session, dropped, over } = match self.register(&peer) {
            Ok(registered) => registered,
            Err(error) => {
                warn!(%address, %error, "no randomness for a session");
                let text = format!("the hub's system gives no random numbers: {error}");
                return refuse(socket, Refused { reason: CloseReason::Overloaded, text, retry_after_ms: None }).await;
            }
        };
        let mut guard = SessionGuard { hub: self.clone(), name, session, progress: None, _over: over };
        // A reload between the handshake and the registration has not ended this connection.
        if self.verifications.load(Ordering::Acquire) != verifications
            && let Err(reason) = self.verify(&peer)
        {
            return refuse(socket, reason).await;
        }
        let (committer, clock) = (self.committer.clone(), self.clock.clone());
        let context = LinkContext { committer, clock, messages: messages.clone(), wire: wire.clone(), health: None };
        let (hub, progress) = (self.clone(), None);
        let mut observer = HubSession { hub, peer, address, session, wire, messages, progress, established: false };
        let connection = Connection::hub(self.session, context.now());
        let closed = drive(connection, socket, None, &mut observer, &context, stop.clone(), Some(dropped)).await;
        guard.progress = observer.progress.take();
        observer.over(&closed.to_string(), stop.is_cancelled());
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, SessionTable> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the site rules. Ends the sessions of edges whose site labels change; they connect again and get the new ones.
    pub fn replace_site_rules(&self, sites: SiteRules) {
        for edge in &sites.configured {
            self.edges.expect(edge.name.as_str(), &edge.labels);
        }
        let sessions = self.sessions();
        for live in sessions.live.values() {
            let Some((identity, claimed, site)) = &live.asked else { continue };
            match sites.of(identity, claimed) {
                Ok(fresh) if fresh == *site => {}
                Ok(_) => {
                    info!(edge = identity.name.as_str(), "the edge's site labels changed: its session ends");
                    live.end.send_replace(Some(close_site_changed()));
                }
                Err(SiteRefusal { text, .. }) => {
                    let edge = identity.name.as_str();
                    warn!(edge, reason = text, "the edge may not connect any more: its session ends");
                    live.end.send_replace(Some(close_refused(text)));
                }
            }
        }
        // Before the sessions are free: one that begins now is judged by the new rules.
        *self.sites.lock().unwrap_or_else(PoisonError::into_inner) = sites;
        drop(sessions);
        self.end_removed_tokens();
    }

    /// The name of an edge whose certificate was refused, in the reason and at the edge, if it is known and away. Anybody
    /// can write a name into a certificate: it changes nothing else.
    fn refused_name(&self, address: SocketAddr, name: Option<String>, reason: String) -> String {
        let Some(name) = name else { return reason };
        let text = format!("{reason} (the certificate names the edge {name:?})");
        let (at_ns, from) = (self.clock.wall_ns(), address.ip());
        self.edges.update_known(&name, |edge| {
            *edge.refused.entry(CERTIFICATE_REFUSED.into()).or_default() += 1;
            if !edge.link.connected {
                let (reason, text) = (CERTIFICATE_REFUSED.into(), format!("{text}, from {from}"));
                edge.refusal = Some(Refusal { reason, text, at_ns });
            }
        });
        text
    }

    /// Checks that an edge of that name may connect.
    ///
    /// # Errors
    /// The text for the edge if it may not.
    pub(super) fn check_name(&self, identity: &EdgeIdentity) -> Result<(), String> {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.check_name(identity).map_err(|refusal| refusal.text)
    }

    /// Whether the configuration has a section for the edge.
    pub fn is_configured(&self, name: &str) -> bool {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.configured.iter().any(|edge| edge.name.as_str() == name)
    }

    /// The session of an uplink is established: ends the sessions with edges that must learn of it.
    pub fn uplink_established(&self, uplink: usize, established: &Established) {
        let mut sessions = self.sessions();
        for (session, reason) in sessions.hub.uplink_established(uplink, established) {
            if let Some(live) = sessions.live.get(&session) {
                live.end.send_replace(Some(reason));
            }
        }
    }

    /// An edge whose name another store uses shall return as soon as that one's session is found dead, if nothing more is
    /// heard of it.
    fn return_when_free(&self, name: &str, refused: Refused) -> Refused {
        if refused.reason != CloseReason::NameTaken {
            return refused;
        }
        let heard_ns = self.edges.update(name, |edge| edge.link.last_seen_ns);
        let silent = Duration::from_nanos(self.clock.wall_ns().saturating_sub(heard_ns));
        let wait = silence_max(self.session.heartbeat_ns).saturating_sub(silent) + TAKEN_MARGIN;
        Refused { retry_after_ms: u64::try_from(wait.as_millis()).ok(), ..refused }
    }

    /// Whether an edge would be admitted, without a session: the hub's info and the site labels.
    ///
    /// # Errors
    /// The reason to refuse it.
    pub(super) async fn would_admit(&self, hello: &Hello, peer: &LinkPeer) -> Result<Admitted, Refused> {
        if self.edges.is_retired(peer.identity.name.as_str()) {
            return Err(close_retired());
        }
        let site = self.sites.lock().unwrap_or_else(PoisonError::into_inner).of(&peer.identity, &hello.labels);
        let site = site.map_err(|refusal| refusal.text);
        let joining = self.sessions().hub.would_join(peer.identity.name.as_str(), hello, site)?;
        let Ok(info) = self.committer.info(None).await else {
            let text = "the hub is shutting down".into();
            return Err(Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None });
        };
        let mut admitted = joining.admitted(info, &self.sessions().hub);
        admitted.info.identity = peer.identity.to_uri();
        Ok(admitted)
    }

    /// Adds a connection to the table.
    ///
    /// # Errors
    /// If the operating system gives no randomness for the session's id.
    fn register(&self, peer: &LinkPeer) -> Result<RegisteredSession, getrandom::Error> {
        let session = SessionId(random_id()?);
        let (end, dropped) = watch::channel(None);
        let (over_sender, over) = watch::channel(());
        self.sessions().live.insert(session, LiveSession { end, peer: peer.clone(), asked: None, over });
        Ok(RegisteredSession { session, dropped, over: over_sender })
    }

    /// If this hub's clock was wrong at its start: confirms it as soon as it was set, or else by the clock of an edge,
    /// which is `offset_ns` ahead.
    fn confirm_doubted_clock(&self, offset_ns: i64) {
        if self.committer.published().is_clock_doubted() {
            let offset_ns = if self.clock.is_wrong() { offset_ns } else { 0 };
            if let Some((right_ns, monotonic_ns)) = self.clock.compared(offset_ns) {
                self.committer.confirm_clock(right_ns, monotonic_ns);
            }
        }
    }

    /// The site labels of an edge that asks to join. The table records them under the same lock, so that no change of the
    /// rules is missed.
    ///
    /// # Errors
    /// If it has none, or may not connect.
    fn site(&self, session: SessionId, identity: &EdgeIdentity, claimed: &LabelSet) -> Result<LabelSet, SiteRefusal> {
        let mut sessions = self.sessions();
        let site = self.sites.lock().unwrap_or_else(PoisonError::into_inner).of(identity, claimed)?;
        if let Some(live) = sessions.live.get_mut(&session) {
            live.asked = Some((identity.clone(), claimed.clone(), site.clone()));
        }
        Ok(site)
    }
}

/// A connection in the session table.
struct RegisteredSession {
    session: SessionId,
    /// Receives a reason when the node ends the session.
    dropped: watch::Receiver<Option<Refused>>,
    /// Dropped when the session is over.
    over: watch::Sender<()>,
}

/// Removes a connection from the session table when its task ends, even by a panic. A name that stayed in the table would
/// exclude its edge for ever.
struct SessionGuard {
    hub: Arc<HubLinks>,
    name: String,
    session: SessionId,
    /// The progress of the session, once it is over.
    progress: Option<PeerProgress>,
    /// Dropped after the removal: a session that waits for this one finds the name free.
    _over: watch::Sender<()>,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut sessions = self.hub.sessions();
        sessions.hub.leave(&self.name, self.session, self.progress.take());
        sessions.live.remove(&self.session);
    }
}

fn close_site_changed() -> Refused {
    let text = "the hub's configuration gives the edge other site labels: connect again to get them".into();
    Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None }
}

/// The hub's side of one session.
struct HubSession {
    hub: Arc<HubLinks>,
    peer: LinkPeer,
    address: SocketAddr,
    session: SessionId,
    wire: Arc<Traffic>,
    messages: Arc<Traffic>,
    /// The progress with the edge's store.
    progress: Option<PeerProgress>,
    established: bool,
}

impl HubSession {
    fn name(&self) -> &str {
        self.peer.identity.name.as_str()
    }

    /// Records that the edge is refused.
    fn refuse(&self, refused: Refused) -> Refused {
        let Refused { reason, text, .. } = &refused;
        // The edge tries again and again: once is enough for the operator.
        match self.hub.slots.failures().is_new(self.address, text) {
            true => warn!(edge = self.name(), address = shown(self.address), %reason, text, "edge refused"),
            false => debug!(edge = self.name(), address = shown(self.address), %reason, text, "edge refused again"),
        }
        let at_ns = self.hub.clock.wall_ns();
        let refusal = Refusal { reason: reason.to_string(), text: text.clone(), at_ns };
        self.hub.edges.record(self.name(), |edge| {
            *edge.refused.entry(refusal.reason.clone()).or_default() += 1;
            edge.refusal = Some(refusal);
        });
        refused
    }

    /// Ends the session that this one replaces, and waits until it is over.
    async fn replace(&self, old: SessionId, reason: Refused) {
        let over = self.hub.sessions().live.get(&old).map(|live| {
            live.end.send_replace(Some(reason));
            live.over.clone()
        });
        if let Some(mut over) = over {
            // The sender is dropped at the end; it never sends a value.
            let _ = timeout(Duration::from_nanos(REPLACE_NS_MAX), over.changed()).await;
        }
    }

    /// The session is over. If it ended because the hub stops, its end says nothing of the edge.
    fn over(&self, reason: &str, hub_stops: bool) {
        let is_current = self.hub.sessions().hub.is_current(self.name(), self.session);
        if is_current || self.established {
            self.hub.edges.record(self.name(), |edge| {
                // A session that fails before it is established may have replaced one that was.
                if is_current {
                    edge.link.connected = false;
                }
                edge.link.last_error = if hub_stops { String::new() } else { reason.to_string() };
            });
        }
        if self.established {
            info!(edge = self.name(), address = shown(self.address), reason, "edge gone");
        } else {
            debug!(edge = self.name(), address = shown(self.address), reason, "edge not linked");
        }
    }
}

impl SessionObserver for HubSession {
    async fn admit(
        &mut self,
        hello: Hello,
        heads: &mut Option<watch::Receiver<Revision>>,
    ) -> Result<Admitted, Refused> {
        let site = self.hub.site(self.session, &self.peer.identity, &hello.labels);
        // The session is in the table by now: an operator who retires the edge after this line ends it.
        if self.hub.edges.is_retired(self.name()) {
            self.hub.refusals.count(RefusalKind::Retired);
            return Err(self.refuse(close_retired()));
        }
        let site = site.map_err(|refusal| {
            self.hub.refusals.count(refusal.kind);
            refusal.text
        });
        let joining = self.hub.sessions().hub.join(self.name(), self.session, &hello, site);
        let mut joining = joining.map_err(|refused| self.refuse(self.hub.return_when_free(self.name(), refused)))?;
        loop {
            match joining.next_step() {
                JoinStep::Replace { session, reason } => self.replace(session, reason).await,
                JoinStep::Subscribe(scope) => *heads = Some(self.hub.committer.subscribe(scope)),
                JoinStep::Read { peer } => {
                    let Ok(info) = self.hub.committer.info(Some(peer)).await else {
                        let text = "the hub is shutting down".into();
                        return Err(Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None });
                    };
                    let mut admitted = joining.admitted(info, &self.hub.sessions().hub);
                    admitted.info.identity = self.peer.identity.to_uri();
                    return Ok(admitted);
                }
            }
        }
    }

    fn observe(&mut self, event: &SessionEvent) {
        event.follow(&mut self.progress);
        let (now_ns, address, name) = (self.hub.clock.wall_ns(), self.address, self.name());
        let mistaken = match event {
            SessionEvent::Established(established) => EdgeIdentity::from_uri(&established.peer.identity)
                .ok()
                .filter(|own| self.peer.identity.differs_from(own)),
            _ => None,
        };
        let change = |edge: &mut EdgeStatus| {
            edge.link.apply(event, now_ns);
            edge.missing.apply(event, now_ns);
            match event {
                SessionEvent::Established(established) => {
                    edge.link.wire.follow(self.wire.clone());
                    edge.link.messages.follow(self.messages.clone());
                    edge.address = Some(address);
                    edge.refusal = None;
                    edge.own_identity = mistaken.clone();
                    edge.software.clone_from(&established.peer.software);
                    edge.link.last_error.clear();
                    edge.site = Arc::new(established.site.clone());
                    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                    let validity = self.peer.validity().unwrap_or((UNIX_EPOCH, UNIX_EPOCH));
                    edge.certificate_start_seconds = seconds(validity.0);
                    edge.certificate_expiry_seconds = seconds(validity.1);
                    edge.has_token = self.peer.chain().is_none();
                }
                SessionEvent::PeerHealth(health) => edge.health = health.clone(),
                _ => {}
            }
        };
        match event {
            SessionEvent::Established(_) => self.hub.edges.record(name, change),
            _ => self.hub.edges.update(name, change),
        }
        match event {
            SessionEvent::Established(established) => {
                let (site, resync) = (&established.site, established.resync);
                info!(edge = name, address = shown(address), %site, resync, "edge linked");
                if let Some(EdgeIdentity { name: own, labels }) = &mistaken {
                    let (own, labels) = (own.as_str(), labels.to_string());
                    warn!(edge = name, own, labels, "an edge is known by the certificate of something in between");
                }
                self.established = true;
                self.hub.confirm_doubted_clock(0);
            }
            SessionEvent::ResyncCompleted => info!(edge = name, "the resync with the edge is complete"),
            SessionEvent::ClockOffset(offset_ns) => self.hub.confirm_doubted_clock(*offset_ns),
            _ => {}
        }
    }
}
