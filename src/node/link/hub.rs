//! A hub's links to its edges: lets in who has a certificate and a place, and converses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::driver::{End, LinkContext, Note, SessionObserver, drive};
use super::peer_info::{close_text, peer_info};
use super::status::EdgeRegistry;
use super::upstream::UpstreamStores;
use crate::model::{LabelSet, Revision, StoreId};
use crate::net::counted::{Counted, Traffic};
use crate::net::identity::{EdgeIdentity, site_labels};
use crate::net::listen::{self, Accepting};
use crate::net::tls::{Acceptor, TlsPeer};
use crate::net::websocket;
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::node::options::EdgeOptions;
use crate::node::random::random_id;
use crate::session::{Admission, AdmitDecision, Admitted, Hub, HubConfig, Refused, SessionId};
use crate::store::Scope;
use crate::wire::message::PLAIN_BYTES_MAX;
use crate::wire::{CloseReason, Hello};

/// When an edge shall come back whose name another store has.
const TAKEN_RETRY: Duration = Duration::from_secs(15);
/// When an edge shall come back that has no place.
const UNPLACED_RETRY: Duration = Duration::from_secs(60);
/// How long a session that is replaced may take to end.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the links of a hub share.
pub struct HubLinks {
    /// What is shown as this node's name.
    pub name: String,
    /// Who writes.
    pub committer: Committer,
    /// The clocks.
    pub clock: Arc<Clock>,
    /// What is known of the edges, for all to see.
    pub edges: Arc<EdgeRegistry>,
    /// The hub's credentials, replaced on reload.
    pub acceptor: Arc<Acceptor>,
    /// What the configuration says of edges; replaced on reload.
    pub sites: Mutex<SiteRules>,
    /// Times and bounds of conversations.
    pub session: HubConfig,
    /// For TLS and the WebSocket's handshake.
    pub handshake_timeout: Duration,
    /// The live sessions.
    pub sessions: Mutex<SessionTable>,
    /// The stores of the hubs that this one sends to.
    pub upstream_stores: UpstreamStores,
}

/// Who says where an edge is.
#[derive(Clone, Debug, Default)]
pub struct SiteRules {
    /// Labels by the name of the edge; these win over its certificate's.
    pub configured: Vec<EdgeOptions>,
    /// Whether labels count that an edge merely claims.
    pub trust_claims: bool,
}

impl SiteRules {
    /// The place of an edge: as configured, else as certified, else as claimed if claims are trusted. Says what is wrong
    /// if there is none.
    fn of(&self, identity: &EdgeIdentity, claimed: &LabelSet) -> Result<LabelSet, String> {
        let configured = self.configured.iter().find(|edge| edge.name == identity.name);
        match configured {
            Some(edge) => Ok(edge.labels.clone()),
            None if !identity.labels.is_empty() => Ok(identity.labels.clone()),
            None if self.trust_claims && !claimed.is_empty() => {
                let pairs = claimed.iter().map(|label| (label.name.to_string(), label.value.to_string()));
                site_labels(pairs.collect()).map_err(|error| {
                    let name = &identity.name;
                    format!("the labels that the edge \"{name}\" claims (uplink.labels) are no place: {error}")
                })
            }
            None => Err(format!(
                "the edge \"{}\" has no place: issue its certificate with labels (pushrelay pki edge NAME --label IDC=…) or \
                 give it [[hub.edge]] labels at the hub",
                identity.name
            )),
        }
    }
}

/// The live sessions, and how to end them.
pub struct SessionTable {
    admission: Admission,
    live: HashMap<SessionId, LiveSession>,
}

struct LiveSession {
    /// Says why, when the session is to end.
    end: watch::Sender<Option<Refused>>,
    /// Who was let in, what place it claims, and which it got.
    at_site: Option<(EdgeIdentity, LabelSet, LabelSet)>,
    /// Closed when the session is over.
    over: watch::Receiver<()>,
}

impl SessionTable {
    /// None yet, and at most so many.
    pub fn new(sessions_max: usize) -> Self {
        Self { admission: Admission::new(sessions_max), live: HashMap::new() }
    }
}

impl HubLinks {
    /// Takes edges until told to stop.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, accepting: Accepting, stop: CancellationToken) {
        let serve_one = {
            let stop = stop.clone();
            move |stream, address| self.clone().connection(stream, address, stop.child_token())
        };
        listen::accept(listener, accepting, stop, serve_one).await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, stop: CancellationToken) {
        let stream = Counted::new(stream);
        let wire = stream.traffic().clone();
        let handshaken = tokio::select! {
            handshaken = timeout(self.handshake_timeout, self.handshake(stream)) => handshaken,
            () = stop.cancelled() => return debug!(%address, "connection dropped: the node is shutting down"),
        };
        let (connection, peer) = match handshaken {
            Ok(Ok(handshaken)) => handshaken,
            Ok(Err(text)) => return warn!(%address, reason = text, "connection to the edges' listener refused"),
            Err(_) => return debug!(%address, "connection to the edges' listener sent no handshake in time"),
        };
        let name = peer.identity.name.as_str().to_string();
        let volume = Arc::<Traffic>::default();
        let RegisteredSession { session, dropped, over } = match self.enter() {
            Ok(entered) => entered,
            Err(error) => return warn!(%address, %error, "no randomness for a session"),
        };
        let _entry = SessionGuard { hub: self.clone(), name, session, _over: over };
        let context = LinkContext {
            committer: self.committer.clone(),
            clock: self.clock.clone(),
            message_bytes_max: self.session.link.message_bytes_max,
            volume: volume.clone(),
            wire: wire.clone(),
        };
        let mut observer = HubSession { hub: self.clone(), peer, address, session, wire, volume, established: false };
        let hub = Hub::new(self.session, context.now());
        let closed =
            drive(End::Hub(Box::new(hub)), connection, None, &mut observer, &context, stop, Some(dropped)).await;
        observer.over(&close_text(&closed));
    }

    async fn handshake(
        &self,
        stream: Counted<TcpStream>,
    ) -> Result<(websocket::Connection<crate::net::dial::LinkStream>, TlsPeer), String> {
        let (stream, peer) = self.acceptor.accept(stream).await.map_err(|error| error.to_string())?;
        let bytes_max = self.session.link.message_bytes_max.max(PLAIN_BYTES_MAX);
        let connection = websocket::accept(stream, bytes_max).await.map_err(|error| error.to_string())?;
        Ok((connection, peer))
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, SessionTable> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what another configuration says of edges. Sessions whose place is another now are ended, and come back there.
    pub fn replace_places(&self, sites: SiteRules) {
        for edge in &sites.configured {
            self.edges.expect(edge.name.as_str(), &edge.labels);
        }
        let sessions = self.sessions();
        for live in sessions.live.values() {
            let Some((identity, claimed, site)) = &live.at_site else { continue };
            if sites.of(identity, claimed).as_ref() != Ok(site) {
                info!(edge = identity.name.as_str(), "the edge's place is another now: its session ends");
                live.end.send_replace(Some(close_site_changed()));
            }
        }
        *self.sites.lock().unwrap_or_else(PoisonError::into_inner) = sites;
    }

    /// The hub of an uplink is known now, and which are above that. Sessions that were told otherwise are ended: the edges
    /// come back and hear it, and whoever finds itself in a loop ends it.
    pub fn sends_to(&self, uplink: usize, stores: Vec<StoreId>) {
        let sessions = self.sessions();
        if self.upstream_stores.set(uplink, stores) {
            for live in sessions.live.values().filter(|live| live.at_site.is_some()) {
                live.end.send_replace(Some(close_topology_changed()));
            }
        }
    }

    /// Enters a connection among the sessions; the receiver says when and why it is to end.
    fn enter(&self) -> Result<RegisteredSession, getrandom::Error> {
        let session = SessionId(random_id()?);
        let (end, dropped) = watch::channel(None);
        let (over_sender, over) = watch::channel(());
        self.sessions().live.insert(session, LiveSession { end, at_site: None, over });
        Ok(RegisteredSession { session, dropped, over: over_sender })
    }

    /// The place of an edge that wants in. Noted in one step with looking it up, so that no change of places is missed.
    fn site(&self, session: SessionId, identity: &EdgeIdentity, claimed: &LabelSet) -> Result<LabelSet, String> {
        let mut sessions = self.sessions();
        let site = self.sites.lock().unwrap_or_else(PoisonError::into_inner).of(identity, claimed)?;
        if let Some(live) = sessions.live.get_mut(&session) {
            live.at_site = Some((identity.clone(), claimed.clone(), site.clone()));
        }
        Ok(site)
    }
}

/// A connection that is among the sessions.
struct RegisteredSession {
    session: SessionId,
    /// Why it is to end, once it is.
    dropped: watch::Receiver<Option<Refused>>,
    /// Dropped when it is over.
    over: watch::Sender<()>,
}

/// A connection's place among the sessions. Given back however the connection's task ends: a name that stayed taken
/// would keep its edge out for ever.
struct SessionGuard {
    hub: Arc<HubLinks>,
    name: String,
    session: SessionId,
    /// Dropped after the rest: who waits for the end finds the place free.
    _over: watch::Sender<()>,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut sessions = self.hub.sessions();
        sessions.admission.leave(&self.name, self.session);
        sessions.live.remove(&self.session);
    }
}

fn close_replaced() -> Refused {
    let text = "a newer session of the same store took over".into();
    Refused { reason: CloseReason::Replaced, text, retry_after_ms: None }
}

fn close_site_changed() -> Refused {
    let text = "the hub's configuration gives the edge another place: come back for it".into();
    Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None }
}

fn close_topology_changed() -> Refused {
    let text = "the hub sends to other hubs than it said: come back to hear of them".into();
    Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None }
}

/// The hub's side of one session.
struct HubSession {
    hub: Arc<HubLinks>,
    peer: TlsPeer,
    address: SocketAddr,
    session: SessionId,
    wire: Arc<Traffic>,
    volume: Arc<Traffic>,
    established: bool,
}

impl HubSession {
    fn name(&self) -> &str {
        self.peer.identity.name.as_str()
    }

    fn refuse(&self, reason: CloseReason, text: String, retry_after: Option<Duration>) -> Refused {
        warn!(edge = self.name(), address = %self.address, %reason, text, "edge refused");
        self.hub.edges.update(self.name(), |edge| *edge.refused.entry(reason.to_string()).or_default() += 1);
        let retry_after_ms = retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok());
        Refused { reason, text, retry_after_ms }
    }

    /// Waits until the session that this one replaces is over.
    async fn end(&self, old: SessionId) {
        let over = self.hub.sessions().live.get(&old).map(|live| {
            live.end.send_replace(Some(close_replaced()));
            live.over.clone()
        });
        if let Some(mut over) = over {
            // Its sender is dropped at the end; nothing is ever sent.
            let _ = timeout(REPLACE_TIMEOUT, over.changed()).await;
        }
    }

    fn over(&self, reason: &str) {
        let is_live =
            self.hub.sessions().admission.session(self.name()).is_some_and(|live| live.session == self.session);
        if is_live || self.established {
            self.hub.edges.update(self.name(), |edge| {
                // One that fails before it is established may have replaced one that was.
                if is_live {
                    edge.link.connected = false;
                }
                edge.link.last_error = reason.to_string();
            });
        }
        if self.established {
            info!(edge = self.name(), address = %self.address, reason, "edge gone");
        } else {
            debug!(edge = self.name(), address = %self.address, reason, "edge not linked");
        }
    }
}

impl SessionObserver for HubSession {
    async fn admit(&mut self, hello: Hello) -> Result<(Admitted, watch::Receiver<Revision>), Refused> {
        let at_site = self.hub.site(self.session, &self.peer.identity, &hello.labels);
        let site = at_site.map_err(|text| self.refuse(CloseReason::Unauthorized, text, Some(UNPLACED_RETRY)))?;
        let report = self.hub.sessions().admission.admit(self.name(), &hello.info, self.session);
        match report {
            AdmitDecision::Admit => {}
            AdmitDecision::Replace(old) => self.end(old).await,
            AdmitDecision::Taken { by } => {
                let text = format!("the edge {:?} is connected with another store, {by}", self.name());
                return Err(self.refuse(CloseReason::NameTaken, text, Some(TAKEN_RETRY)));
            }
            AdmitDecision::Full { sessions_max } => {
                let text = format!("{sessions_max} edges are connected (hub.connections_max)");
                return Err(self.refuse(CloseReason::Overloaded, text, Some(TAKEN_RETRY)));
            }
        }
        let heads = self.hub.committer.subscribe(Scope::Site(Arc::new(site.clone())));
        let Ok(mut info) = self.hub.committer.info(Some(hello.info.store)).await else {
            let text = "the hub is shutting down".into();
            return Err(Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None });
        };
        info.cursors.retain(|_, cursor| *cursor.site == site);
        let info = peer_info(&self.hub.name, info);
        Ok((Admitted { info, site, resync: false, upstream_stores: self.hub.upstream_stores.stores() }, heads))
    }

    fn note(&mut self, note: Note) {
        let now_ns = self.hub.clock.wall_ns();
        self.established |= matches!(note, Note::Established(_));
        let address = self.address;
        self.hub.edges.update(self.name(), |edge| match note {
            Note::Established(established) => {
                edge.link.connected = true;
                edge.link.connected_since_ns = now_ns;
                edge.link.last_seen_ns = now_ns;
                edge.link.sessions += 1;
                edge.link.resyncs += u64::from(established.resync);
                edge.link.wire.follow(self.wire.clone());
                edge.link.messages.follow(self.volume.clone());
                edge.address = Some(address);
                edge.site = Arc::new(established.site.clone());
                let expiry = self.peer.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
                edge.certificate_expiry_seconds = expiry.as_secs();
                let (site, resync) = (&established.site, established.resync);
                info!(edge = self.peer.identity.name.as_str(), %address, %site, resync, "edge linked");
            }
            Note::ResyncCompleted => {
                info!(edge = self.peer.identity.name.as_str(), "the resync with the edge is complete")
            }
            Note::PeerHolds(revision) => edge.link.acknowledged = revision,
            Note::Received(revision) => edge.link.received = revision,
            Note::ClockOffset(offset_ns) => edge.link.clock_offset_ns = offset_ns,
            Note::Heard => edge.link.last_seen_ns = now_ns,
            Note::PeerLag(lag_ns) => edge.lag_said_ns = lag_ns,
            Note::HeldBack(reports) => edge.link.held_back += reports.len() as u64,
            Note::Head(_) => {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(labels: &[(&str, &str)]) -> EdgeIdentity {
        EdgeIdentity { name: "syq-1".parse().unwrap(), labels: LabelSet::new(labels.iter().copied()) }
    }

    #[test]
    fn claimed_labels_count_only_if_trusted_and_only_if_they_are_a_valid_site() {
        let (claimed, reserved) = (LabelSet::new([("IDC", "SYQ")]), LabelSet::new([("job", "x")]));
        let none = LabelSet::default();
        let mut sites = SiteRules::default();
        assert!(sites.of(&identity(&[]), &claimed).unwrap_err().contains("has no place"));
        sites.trust_claims = true;
        assert_eq!(sites.of(&identity(&[]), &claimed), Ok(claimed.clone()));
        assert!(sites.of(&identity(&[]), &reserved).unwrap_err().contains("are no place"));
        assert!(sites.of(&identity(&[]), &none).unwrap_err().contains("has no place"));
        let certified = LabelSet::new([("IDC", "BJ")]);
        assert_eq!(sites.of(&identity(&[("IDC", "BJ")]), &claimed), Ok(certified));
    }
}
