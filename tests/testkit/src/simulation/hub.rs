//! The hub's side of connections: performs the steps by which an edge joins ([`pushrelay::session::joining`]), as
//! `node/link/hub.rs` does.

use std::sync::Arc;

use pushrelay::model::LabelSet;
use pushrelay::session::{Established, Event as Input, JoinStep, REPLACE_NS_MAX, Refused, SessionId};
use pushrelay::wire::Hello;

use super::bug::Bug;
use super::{ConnId, Event, HUB, NodeId, World, topology};

impl World {
    /// Decides whether an edge may join.
    pub fn admit(&mut self, conn: ConnId, hello: Hello) {
        let hub = self.end(conn, HUB).node;
        let (name, session) = (self.conns[&conn].name.clone(), self.conns[&conn].session);
        let site = self.site_of(&name).ok_or_else(|| format!("the edge {name:?} has no site"));
        let Some(running) = &mut self.nodes[hub].running else { return };
        let joined = running.hub.join(&name, session, &hello, site.clone());
        let open = self.conns.get_mut(&conn).expect("it is open");
        if let Ok(site) = site {
            open.peer_store = Some(hello.info.store);
            open.sides[HUB].site = Arc::new(site);
        }
        match joined {
            Ok(joining) => {
                open.joining = Some(joining);
                open.sides[HUB].blocked = true;
                self.go_on_joining(conn);
            }
            Err(refused) => self.handle(conn, HUB, Input::Refused(refused)),
        }
    }

    /// Performs the next steps, up to one that takes time.
    fn go_on_joining(&mut self, conn: ConnId) {
        let hub = self.end(conn, HUB).node;
        let mut reads_at_once = false;
        loop {
            let open = self.conns.get_mut(&conn).expect("it is open");
            let Some(joining) = &mut open.joining else { return };
            match joining.next_step() {
                JoinStep::Replace { session, reason } => {
                    if self.is(Bug::ReplacedWithoutWaiting) {
                        reads_at_once = true;
                        self.end_session(hub, session, reason);
                        continue;
                    }
                    self.conns.get_mut(&conn).expect("it is open").waiting_for = Some(session);
                    self.after(REPLACE_NS_MAX, Event::JoinTimeout { conn });
                    if self.end_session(hub, session, reason) {
                        return;
                    }
                    self.conns.get_mut(&conn).expect("it is open").waiting_for = None;
                }
                JoinStep::Subscribe(_) => {
                    let version = self.watch_version(hub, &self.conns[&conn].sides[HUB].site);
                    let lost_wake_up = self.is(Bug::LostWakeUp);
                    self.end(conn, HUB).watched = (!lost_wake_up).then_some(version);
                }
                JoinStep::Read { .. } if reads_at_once => {
                    if let Some(info) = self.info(hub, conn, HUB).map(Box::new) {
                        self.after(0, Event::Info { conn, end: HUB, info });
                    }
                    return;
                }
                JoinStep::Read { peer } => return self.ask_info(conn, HUB, Some(peer)),
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

    /// Ends a session that another replaces; whether there is one that has to end.
    fn end_session(&mut self, hub: NodeId, session: SessionId, reason: Refused) -> bool {
        let old = self.nodes[hub].running.as_ref().and_then(|running| running.sessions.get(&session).copied());
        let Some(old) = old else { return false };
        self.stop_session(old, reason);
        true
    }

    /// The session that this one replaces is over, or has not ended in time.
    pub fn replaced(&mut self, conn: ConnId) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        if open.waiting_for.take().is_some() && open.sides[HUB].alive {
            self.go_on_joining(conn);
        }
    }

    /// The hub's end of a connection has closed for good.
    pub fn session_over(&mut self, conn: ConnId) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        open.over = true;
        let (hub, session, name) = (open.sides[HUB].node, open.session, open.name.clone());
        let progress = open.progress.take();
        if let Some(running) = &mut self.nodes[hub].running
            && running.sessions.remove(&session).is_some()
        {
            running.hub.leave(&name, session, progress);
        }
        let waiting: Vec<ConnId> =
            self.conns.iter().filter(|(_, other)| other.waiting_for == Some(session)).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|conn| self.replaced(conn));
        self.sweep_conn(conn);
    }

    /// The session of an uplink is established: ends the sessions with edges that must learn of it.
    pub fn uplink_established(&mut self, hub: NodeId, uplink: usize, established: &Established) {
        let node = &mut self.nodes[hub];
        let Some(running) = node.running.as_mut().filter(|_| node.is_hub) else { return };
        let ended = running.hub.uplink_established(uplink, established);
        let conn = |(session, reason)| Some((*running.sessions.get(&session)?, reason));
        let mut ended: Vec<(ConnId, Refused)> = ended.into_iter().filter_map(conn).collect();
        ended.sort_by_key(|(conn, _)| *conn);
        for (conn, reason) in ended {
            self.count("link: ended, for its hub sends to others now");
            self.stop_session(conn, reason);
        }
    }
}
