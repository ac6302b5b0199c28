//! How edges join a hub: who may, which session a newcomer replaces, what is read in which order, and which sessions end
//! when the hub itself links to another hub.
//!
//! ```text
//! HubSessions::join          at the edge's hello: decides, and returns the steps
//!   Joining::next_step()*    replace, subscribe, read
//!   Joining::admitted        the answer to the edge
//! HubSessions::leave         the session is over: its connection is closed and its commits are done
//! ```
//!
//! A driver performs the steps in order and decides nothing. The node (`node/link/hub.rs`) and the simulation
//! (`tests/testkit/src/simulation`) drive the same code.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{LabelSet, StoreId};
use crate::store::{Scope, StoreInfo};
use crate::wire::{CloseReason, Hello};

use super::admission::{Admission, AdmitDecision, SessionId};
use super::event::{Admitted, Established, Refused, SECOND_NS};
use super::peer_info::NodeName;
use super::progress::PeerProgress;
use super::upstream::UpstreamStores;

/// The longest time that a replaced session may take to end. Its successor then continues without it.
pub const REPLACE_NS_MAX: u64 = 5 * SECOND_NS;
/// The delay asked of an edge that has no site labels: a person must change a configuration first.
const NO_SITE_RETRY_MS: u64 = 60_000;
/// The delay asked of an edge whose name another store uses, or that finds the table full.
const TAKEN_RETRY_MS: u64 = 15_000;

/// The sessions of a hub, and the stores above it.
#[derive(Debug)]
pub struct HubSessions {
    name: NodeName,
    admission: Admission,
    /// The sessions that joined and are not over, those that are being replaced included.
    joined: BTreeSet<SessionId>,
    upstream_stores: UpstreamStores,
    /// The progress of sessions that are over, by the edge's store; at most as many as there may be sessions.
    progress: BTreeMap<StoreId, PeerProgress>,
    sessions_max: usize,
}

/// The next thing that a driver does for an edge that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// End this session, and wait until it is over ([`HubSessions::leave`]), but for [`REPLACE_NS_MAX`] at most. The
    /// position read later must cover its commits.
    Replace {
        /// The session to end.
        session: SessionId,
        /// The reason for its edge.
        reason: Refused,
    },
    /// Subscribe to the revisions of the scope. A change between the subscription and the reading wakes the session; the
    /// other way round it would wake nobody.
    Subscribe(Scope),
    /// Read the store's info with the cursor of this peer, and pass it to [`Joining::admitted`].
    Read {
        /// The edge's store.
        peer: StoreId,
    },
}

/// An edge that joins.
#[derive(Clone, Debug)]
pub struct Joining {
    peer: StoreId,
    site: LabelSet,
    replaces: Option<SessionId>,
    is_subscribed: bool,
}

impl Joining {
    /// The next step, once the one before is done.
    pub fn next_step(&mut self) -> JoinStep {
        if let Some(session) = self.replaces.take() {
            let text = "a newer session of the same store took over".into();
            let reason = Refused { reason: CloseReason::Replaced, text, retry_after_ms: None };
            return JoinStep::Replace { session, reason };
        }
        if !std::mem::replace(&mut self.is_subscribed, true) {
            return JoinStep::Subscribe(Scope::Site(self.site.clone().into()));
        }
        JoinStep::Read { peer: self.peer }
    }

    /// The answer to the edge, from the store's info and the sessions as they are now.
    pub fn admitted(self, info: StoreInfo, sessions: &HubSessions) -> Admitted {
        let info = sessions.name.info_for_edge(info, self.peer, &self.site);
        let progress = sessions.progress.get(&self.peer).cloned();
        Admitted { info, site: self.site, upstream_stores: sessions.upstream_stores.stores(), progress }
    }
}

impl HubSessions {
    /// The sessions of the hub `name`, none yet, and `sessions_max` at most.
    pub fn new(name: NodeName, sessions_max: usize) -> Self {
        let admission = Admission::new(sessions_max);
        let (joined, upstream_stores, progress) = Default::default();
        Self { name, admission, joined, upstream_stores, progress, sessions_max }
    }

    /// The edge that was authenticated as `name` asks to join at a site; `site` is an error if it has none.
    ///
    /// # Errors
    /// The reason to refuse it: it has no site, another store has a session under its name, or the table is full.
    pub fn join(
        &mut self,
        name: &str,
        session: SessionId,
        hello: &Hello,
        site: Result<LabelSet, String>,
    ) -> Result<Joining, Refused> {
        let site = site.map_err(no_site)?;
        let replaces = replaced(name, self.admission.admit(name, &hello.info, session))?;
        self.joined.insert(session);
        Ok(Joining { peer: hello.info.store, site, replaces, is_subscribed: false })
    }

    /// Whether the edge would join, for a check of its line: nothing changes. The result has no step left.
    ///
    /// # Errors
    /// As [`HubSessions::join`].
    pub fn would_join(&self, name: &str, hello: &Hello, site: Result<LabelSet, String>) -> Result<Joining, Refused> {
        let site = site.map_err(no_site)?;
        replaced(name, self.admission.preview(name, hello.info.store))?;
        Ok(Joining { peer: hello.info.store, site, replaces: None, is_subscribed: true })
    }

    /// Whether the session is the one that its edge has now: it was neither refused nor replaced.
    pub fn is_current(&self, name: &str, session: SessionId) -> bool {
        self.admission.session(name).is_some_and(|current| current.session == session)
    }

    /// A session is over, whether it joined or not: its connection is closed, and its commits are done. `progress` is that
    /// of the session ([`super::SessionEvent::follow`]).
    pub fn leave(&mut self, name: &str, session: SessionId, progress: Option<PeerProgress>) {
        if let Some(progress) = progress {
            // A store that is forgotten only resyncs from the start.
            if self.progress.len() >= self.sessions_max && !self.progress.contains_key(&progress.store) {
                self.progress.pop_first();
            }
            self.progress.insert(progress.store, progress);
        }
        self.joined.remove(&session);
        self.admission.leave(name, session);
    }

    /// The hub's own link to a hub above is established, so the stores above are known. If they changed, the sessions that
    /// joined must end, each with this reason: the edges connect again and get the new list, and an edge that finds itself
    /// in a loop ends its link.
    pub fn uplink_established(&mut self, uplink: usize, established: &Established) -> Vec<(SessionId, Refused)> {
        if !self.upstream_stores.established(uplink, established) {
            return Vec::new();
        }
        let text = "the hub sends to other hubs than it reported: connect again to get the new list";
        let reason = Refused { reason: CloseReason::Shutdown, text: text.into(), retry_after_ms: None };
        self.joined.iter().map(|session| (*session, reason.clone())).collect()
    }
}

fn no_site(text: String) -> Refused {
    Refused { reason: CloseReason::Unauthorized, text, retry_after_ms: Some(NO_SITE_RETRY_MS) }
}

/// The session that a newcomer replaces, if there is one; or the reason to refuse the newcomer.
fn replaced(name: &str, decision: AdmitDecision) -> Result<Option<SessionId>, Refused> {
    let (reason, text) = match decision {
        AdmitDecision::Admit => return Ok(None),
        AdmitDecision::Replace(old) => return Ok(Some(old)),
        AdmitDecision::Taken { by } => {
            (CloseReason::NameTaken, format!("the edge {name:?} is connected with another store, {by}"))
        }
        AdmitDecision::Full { sessions_max } => {
            (CloseReason::Overloaded, format!("{sessions_max} edges are connected (hub.connections_max)"))
        }
    };
    Err(Refused { reason, text, retry_after_ms: Some(TAKEN_RETRY_MS) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Position, Revision};
    use crate::store::PeerCursor;
    use crate::wire::{ClockSample, EpochStart, PeerInfo, VERSION};

    fn hello(store: u64) -> Hello {
        let epochs = vec![EpochStart { epoch: Epoch(5), revision: Revision(0) }];
        let info = PeerInfo {
            node: "claimed".into(),
            software: String::new(),
            store: StoreId(store),
            epochs,
            head: Revision(0),
            gc_watermark: Revision(0),
            cursors: vec![],
            identity: String::new(),
        };
        let (labels, clock) = (LabelSet::default(), ClockSample::default());
        Hello { version: VERSION, info, labels, message_bytes_max: 1 << 20, clock }
    }

    fn site(name: &str) -> LabelSet {
        LabelSet::new([("IDC", name)])
    }

    fn sessions() -> HubSessions {
        HubSessions::new(NodeName { node: "hub".into(), software: "test".into() }, 2)
    }

    fn established(store: u64) -> Established {
        let peer = hello(store).info;
        let (site, upstream_stores) = (LabelSet::default(), vec![]);
        let progress = PeerProgress::at_start(None, None, &peer, &peer, &site);
        Established { peer, site, resync: false, heartbeat_ns: 1, upstream_stores, progress }
    }

    #[test]
    fn a_newcomer_waits_for_the_session_that_it_replaces_then_subscribes_then_reads() {
        let mut sessions = sessions();
        let mut first = sessions.join("a", SessionId(1), &hello(7), Ok(site("SYQ"))).unwrap();
        let scope = || Scope::Site(site("SYQ").into());
        assert_eq!(first.next_step(), JoinStep::Subscribe(scope()));
        assert_eq!(first.next_step(), JoinStep::Read { peer: StoreId(7) });
        let mut second = sessions.join("a", SessionId(2), &hello(7), Ok(site("SYQ"))).unwrap();
        let JoinStep::Replace { session: SessionId(1), reason } = second.next_step() else { panic!("the first") };
        assert_eq!(reason.reason, CloseReason::Replaced);
        assert_eq!(second.next_step(), JoinStep::Subscribe(scope()));
        assert_eq!(second.next_step(), JoinStep::Read { peer: StoreId(7) });
        assert!(sessions.is_current("a", SessionId(2)) && !sessions.is_current("a", SessionId(1)));
        sessions.leave("a", SessionId(1), None);
        assert!(sessions.is_current("a", SessionId(2)), "the old one does not take the new one with it");
    }

    #[test]
    fn an_edge_gets_the_cursor_for_its_store_at_its_site_only() {
        let mut sessions = sessions();
        let position = Position { epoch: Epoch(5), revision: Revision(3) };
        let cursor = |name: &str| PeerCursor { position, site: site(name).into() };
        let info = |cursors: &[(u64, &str)]| StoreInfo {
            store: StoreId(1),
            epochs: vec![],
            head: Revision(9),
            gc_watermark: Revision(0),
            cursors: cursors.iter().map(|(store, name)| (StoreId(*store), cursor(name))).collect(),
        };
        let joining = sessions.join("a", SessionId(1), &hello(7), Ok(site("SYQ"))).unwrap();
        let admitted = joining.clone().admitted(info(&[(7, "SYQ"), (8, "SYQ")]), &sessions);
        assert_eq!(admitted.info.cursors.iter().map(|cursor| cursor.store).collect::<Vec<_>>(), [StoreId(7)]);
        assert_eq!((admitted.info.node.as_str(), admitted.site), ("hub", site("SYQ")));
        assert!(joining.admitted(info(&[(7, "BJ")]), &sessions).info.cursors.is_empty());
    }

    #[test]
    fn an_edge_is_refused_with_the_reason_and_a_time_to_wait() {
        let mut sessions = sessions();
        let mut refused = |name: &str, session, store, site| {
            let joined = sessions.join(name, SessionId(session), &hello(store), site);
            joined.err().map(|refused| (refused.reason, refused.retry_after_ms))
        };
        let unauthorized = Some((CloseReason::Unauthorized, Some(60_000)));
        assert_eq!(refused("a", 1, 7, Err("no site".into())), unauthorized);
        assert_eq!(refused("a", 1, 7, Ok(site("SYQ"))), None);
        assert_eq!(refused("a", 2, 8, Ok(site("SYQ"))), Some((CloseReason::NameTaken, Some(15_000))));
        assert_eq!(refused("b", 3, 8, Ok(site("SYQ"))), None);
        assert_eq!(refused("c", 4, 9, Ok(site("SYQ"))), Some((CloseReason::Overloaded, Some(15_000))));
    }

    #[test]
    fn sessions_end_when_the_stores_above_the_hub_change() {
        let mut sessions = sessions();
        sessions.join("a", SessionId(1), &hello(7), Ok(site("SYQ"))).unwrap();
        sessions.join("a", SessionId(2), &hello(7), Ok(site("SYQ"))).unwrap();
        assert!(sessions.join("b", SessionId(3), &hello(8), Err("no site".into())).is_err());
        let ended = |ended: Vec<(SessionId, Refused)>| ended.into_iter().map(|(id, _)| id.0).collect::<Vec<_>>();
        assert_eq!(ended(sessions.uplink_established(0, &established(20))), [1, 2], "the replaced one, too");
        assert!(sessions.uplink_established(0, &established(20)).is_empty(), "nothing changed");
        sessions.leave("a", SessionId(1), None);
        assert_eq!(ended(sessions.uplink_established(0, &established(21))), [2]);
        let joining = sessions.join("b", SessionId(4), &hello(8), Ok(site("SYQ"))).unwrap();
        let info = StoreInfo {
            store: StoreId(1),
            epochs: vec![],
            head: Revision(0),
            gc_watermark: Revision(0),
            cursors: [].into(),
        };
        assert_eq!(joining.admitted(info, &sessions).upstream_stores, [StoreId(21)]);
    }
}
