//! The hub's side of connections (`node/link/hub.rs`): who is let in, what is replaced, and when that is over.

use pushrelay::model::LabelSet;
use pushrelay::session::{AdmitDecision, Established, Event as Input, Refused, SessionId};
use pushrelay::wire::{CloseReason, Hello};

use super::bug::Bug;
use super::{ConnId, Event, HUB, NodeId, SECOND, World, topology};

impl World {
    /// Decides whether an edge may come in.
    pub fn admit(&mut self, conn: ConnId, hello: Hello) {
        let hub = self.end(conn, HUB).node;
        let (name, session) = (self.conns[&conn].name.clone(), self.conns[&conn].session);
        let Some(site) = self.site_of(&name) else {
            let text = "the edge has no place".into();
            return self.refuse(conn, CloseReason::Unauthorized, text, 60_000);
        };
        let Some(running) = &mut self.nodes[hub].running else { return };
        let report = running.admission.admit(&name, &hello.info, SessionId(session));
        let open = self.conns.get_mut(&conn).expect("it is open");
        open.peer_store = Some(hello.info.store);
        open.sides[HUB].site = std::sync::Arc::new(site);
        open.sides[HUB].blocked = true;
        match report {
            AdmitDecision::Admit => self.ask_facts(conn),
            AdmitDecision::Replace(old) if self.is(Bug::ReplacedWithoutWaiting) => {
                self.end_session(hub, old.0);
                let end = HUB;
                if let Some(info) = self.info(hub, conn, end).map(Box::new) {
                    self.after(0, Event::PeerInfo { conn, end, info });
                }
            }
            AdmitDecision::Replace(old) => {
                self.conns.get_mut(&conn).expect("it is open").waiting_for = Some(old.0);
                self.after(5 * SECOND, Event::AdmitTimeout { conn });
                if !self.end_session(hub, old.0) {
                    self.admit_in_any_case(conn);
                }
            }
            AdmitDecision::Taken { by } => {
                self.end(conn, HUB).blocked = false;
                self.refuse(conn, CloseReason::NameTaken, format!("taken by {by}"), 15_000);
            }
            AdmitDecision::Full { .. } => {
                self.end(conn, HUB).blocked = false;
                self.refuse(conn, CloseReason::Overloaded, "full".into(), 15_000);
            }
        }
    }

    fn site_of(&self, name: &str) -> Option<LabelSet> {
        let node = self.nodes.iter().find(|node| node.name == name && node.site.is_some());
        match node {
            Some(node) => node.site.map(|site| (*topology::site(site)).clone()),
            None if name == "mallory" => Some((*topology::site(99)).clone()),
            None => None,
        }
    }

    fn refuse(&mut self, conn: ConnId, reason: CloseReason, text: String, retry_after_ms: u64) {
        self.handle(conn, HUB, Input::Refused(Refused { reason, text, retry_after_ms: Some(retry_after_ms) }));
    }

    /// Tells the session that another took over; whether there is one that has to end.
    fn end_session(&mut self, hub: NodeId, session: u64) -> bool {
        let old = self.nodes[hub].running.as_ref().and_then(|running| running.sessions.get(&session).copied());
        let Some(old) = old else { return false };
        let text = "a newer session of the same store took over".into();
        let refused = Refused { reason: CloseReason::Replaced, text, retry_after_ms: None };
        self.stop_session(old, refused);
        true
    }

    /// Admits the edge although the session that it replaces has not ended in time.
    pub fn admit_in_any_case(&mut self, conn: ConnId) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        if open.waiting_for.take().is_some() && open.sides[HUB].alive {
            self.ask_facts(conn);
        }
    }

    fn ask_facts(&mut self, conn: ConnId) {
        let (hub, site) = (self.end(conn, HUB).node, self.end(conn, HUB).site.clone());
        let version = self.watch_version(hub, &site);
        let lost_wake_up = self.is(Bug::LostWakeUp);
        self.end(conn, HUB).watched = (!lost_wake_up).then_some(version);
        self.ask_info(conn, HUB);
    }

    /// The hub's end of a connection has closed for good.
    pub fn session_over(&mut self, conn: ConnId) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        open.over = true;
        let (hub, session, name) = (open.sides[HUB].node, open.session, open.name.clone());
        if let Some(running) = &mut self.nodes[hub].running
            && running.sessions.remove(&session).is_some()
        {
            running.admission.leave(&name, SessionId(session));
        }
        let waiting: Vec<ConnId> =
            self.conns.iter().filter(|(_, other)| other.waiting_for == Some(session)).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|conn| self.admit_in_any_case(conn));
        self.sweep_conn(conn);
    }

    /// The session of an uplink is established: if the stores above the hub changed, its edges connect again.
    pub fn uplink_established(&mut self, hub: NodeId, uplink: usize, established: &Established) {
        let node = &mut self.nodes[hub];
        let Some(running) = node.running.as_mut().filter(|_| node.is_hub) else { return };
        if !running.upstream_stores.established(uplink, established) {
            return;
        }
        let at_site: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.sides[HUB].node == hub && conn.peer_store.is_some())
            .map(|(id, _)| *id)
            .collect();
        for conn in at_site {
            self.count("link: ended, for its hub sends to others now");
            let text = "the hub sends to other hubs than it said".into();
            self.stop_session(conn, Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None });
        }
    }
}
