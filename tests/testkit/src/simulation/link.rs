//! Connections: two ends and what is on its way between them, how they come about and end.
//!
//! A connection keeps order and doubles nothing, as TLS does. It may be slow, stand still and go on, or die without a word
//! in one direction or both; then the ends notice in their own time, and what an old connection still carries arrives
//! while a new one is open.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pushrelay::model::{LabelSet, Revision, StoreId};
use pushrelay::node::options::LinkOptions;
use pushrelay::session::{
    Closed, Config, Connection, DEFLATE_LEVEL, EdgeConfig, Event as Input, FrameEncoder, HubConfig, Joining, Lag,
    PeerProgress, Refused, SessionId, UplinkDuties,
};
use pushrelay::store::StoreInfo;
use pushrelay::wire::{CloseReason, Encoder, Health};

use super::bug::Bug;
use super::{ConnId, EDGE, Event, HUB, MILLISECOND, NodeId, SECOND, World};

/// Bytes of a message, at most.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The time that an edge waits before it reconnects, at first and at most.
const BACKOFF_MIN: u64 = 500 * MILLISECOND;
const BACKOFF_MAX: u64 = 30 * SECOND;

pub enum Packet {
    Frame(Vec<u8>, FrameContent),
    Fin,
}

/// The part of a frame's message that a planted bug looks at.
#[derive(Clone, Copy, Debug)]
pub enum FrameContent {
    Update { upto: u64 },
    Ack { revision: Revision },
    Other,
}

/// One end of a connection.
pub struct Side {
    pub node: NodeId,
    /// `None` until the edge's peer info is read.
    pub connection: Option<Box<Connection>>,
    /// The conversation goes on at this end.
    pub alive: bool,
    /// The end waits for an answer and takes nothing meanwhile.
    pub blocked: bool,
    pub site: Arc<LabelSet>,
    pub frames: FrameEncoder,
    /// The packets on their way to this end, with their times of arrival.
    pub inbox: VecDeque<(u64, Packet)>,
    pub inbox_ns: u64,
    /// Nothing arrives here any more.
    pub deaf: bool,
    /// Which version of the place's head this end was told; `None` if it does not follow any.
    pub watched: Option<u64>,
    /// It is to be told of a head as soon as it listens.
    pub deferred: bool,
    pub tick_ns: u64,
    /// To be told once this end is not blocked.
    pub stopping: Option<Refused>,
}

impl Side {
    pub fn wants_heads(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.wants_heads())
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.connection.as_ref()?.next_timeout()
    }
}

pub struct Conn {
    pub sides: [Side; 2],
    pub uplink: usize,
    pub latency_ns: u64,
    /// Nothing gets through before.
    pub stalled_until: u64,
    /// The session at the hub, and the one that must be over before it joins.
    pub session: SessionId,
    pub waiting_for: Option<SessionId>,
    /// The steps by which the edge joins.
    pub joining: Option<Joining>,
    /// The name that the edge gives, and its store, as far as the hub knows them.
    pub name: String,
    pub peer_store: Option<StoreId>,
    pub over: bool,
    pub hostile: bool,
    /// `upto` of the last update that arrived at the edge.
    pub last_upto: Option<u64>,
    /// The duties of the edge.
    pub duties: UplinkDuties,
    /// The progress with the edge's store, at the hub.
    pub progress: Option<PeerProgress>,
    /// The health that the edge reported so far.
    pub health: Vec<Health>,
}

impl World {
    fn side(&self, node: NodeId, connection: Option<Box<Connection>>) -> Side {
        Side {
            node,
            connection,
            alive: true,
            blocked: false,
            site: Arc::default(),
            frames: self.frame_encoder(Encoder::new()),
            inbox: VecDeque::new(),
            inbox_ns: 0,
            deaf: false,
            watched: None,
            deferred: false,
            tick_ns: u64::MAX,
            stopping: None,
        }
    }

    /// Most seeds store frames without compressing them, for speed.
    pub fn frame_encoder(&self, encoder: Encoder) -> FrameEncoder {
        FrameEncoder::new(encoder, if self.plan.compressed { DEFLATE_LEVEL } else { 0 })
    }

    fn link_config(&self) -> Config {
        Config {
            batch_bytes_max: self.plan.batch_bytes_max,
            message_bytes_max: MESSAGE_BYTES_MAX,
            progress_ns: self.plan.progress_ns,
            ..LinkOptions::default().session_config()
        }
    }

    /// An edge dials: what it tries takes a while.
    pub fn dial(&mut self, at: NodeId, uplink: usize, life: u64) {
        if self.nodes[at].life == life && self.nodes[at].running.is_some() {
            let wait = self.random.span(MILLISECOND, 2 * SECOND).min(if self.quiet { SECOND } else { u64::MAX });
            self.after(wait, Event::Connect { node: at, uplink, life });
        }
    }

    /// The connection is there, or refused.
    pub fn connect(&mut self, at: NodeId, uplink: usize, life: u64) {
        if self.nodes[at].life != life || self.nodes[at].running.is_none() {
            return;
        }
        let hub = self.nodes[at].uplinks[uplink].hub;
        if self.nodes[hub].running.is_none() || self.is_partitioned(at, hub) {
            self.count("dial failed");
            return self.dial_again(at, uplink, None);
        }
        let name = self.nodes[at].name.clone();
        let conn = self.open(at, uplink, hub, name);
        self.trace(|| format!("{at} connects to {hub} as connection {conn}"));
        self.nodes[at].uplinks[uplink].conn = Some(conn);
        let version = self.watch_version(at, &Arc::default());
        let kept = self.nodes[at].uplinks[uplink].kept.take().filter(|_| self.is(Bug::DictionaryKept));
        let frames = self.frame_encoder(kept.unwrap_or_default());
        let lost_wake_up = self.is(Bug::LostWakeUp);
        let side = self.end(conn, EDGE);
        side.blocked = true;
        side.watched = (!lost_wake_up).then_some(version);
        side.frames = frames;
        self.ask_info(conn, EDGE, None);
    }

    /// A connection, and the hub's end of the conversation.
    pub fn open(&mut self, at: NodeId, uplink: usize, hub: NodeId, name: String) -> ConnId {
        let config = HubConfig { link: self.link_config(), heartbeat_ns: self.plan.heartbeat_ns };
        let connection = Box::new(Connection::hub(config, self.session_now(hub)));
        let sides = [self.side(at, None), self.side(hub, Some(connection))];
        let slow = if self.quiet { 100 * MILLISECOND } else { self.plan.latency_ns };
        let latency_ns = self.random.span(MILLISECOND / 10, slow.max(MILLISECOND));
        let session = SessionId(self.random.id());
        let conn = Conn {
            sides,
            uplink,
            latency_ns,
            stalled_until: 0,
            session,
            waiting_for: None,
            joining: None,
            name,
            peer_store: None,
            over: false,
            hostile: false,
            last_upto: None,
            duties: UplinkDuties::new(uplink),
            progress: None,
            health: Vec::new(),
        };
        let id = self.next_conn;
        self.next_conn += 1;
        self.conns.insert(id, Box::new(conn));
        if let Some(running) = &mut self.nodes[hub].running {
            running.sessions.insert(session, id);
        }
        self.watch_clock(id, HUB);
        id
    }

    pub fn end(&mut self, conn: ConnId, end: usize) -> &mut Side {
        &mut self.conns.get_mut(&conn).expect("it is open").sides[end]
    }

    pub fn is_alive(&self, conn: ConnId, end: usize) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.sides[end].alive)
    }

    pub fn watch_version(&self, at: NodeId, site: &Arc<LabelSet>) -> u64 {
        let watches = self.nodes[at].running.as_ref().map(|running| &running.watches);
        watches.and_then(|watches| watches.get(site)).map_or(0, |watch| watch.version)
    }

    /// The committer has answered: the session can begin, or go on.
    pub fn info_ready(&mut self, conn: ConnId, end: usize, info: StoreInfo) {
        if !self.is_alive(conn, end) {
            return;
        }
        let node = self.end(conn, end).node;
        let now = self.session_now(node);
        let site = self.end(conn, end).site.clone();
        let version = self.watch_version(node, &site);
        let side = self.end(conn, end);
        side.watched.get_or_insert(version);
        side.blocked = false;
        if end == EDGE {
            let info = self.nodes[node].link_name().info_for_hub(info);
            let uplink = self.conns[&conn].uplink;
            let progress = self.nodes[node].uplinks[uplink].progress.clone();
            let config =
                EdgeConfig { link: self.link_config(), labels: LabelSet::default(), lag: Lag::default(), progress };
            self.end(conn, end).connection = Some(Box::new(Connection::edge(config, info, now)));
            self.perform_all(conn, end);
        } else {
            let joining = self.conns.get_mut(&conn).and_then(|open| open.joining.take());
            if let (Some(joining), Some(running)) = (joining, &self.nodes[node].running) {
                let admitted = joining.admitted(info, &running.hub);
                self.handle(conn, end, Input::Admitted(admitted));
            }
        }
        self.unblocked(conn, end);
    }

    /// Takes up what had to wait.
    pub fn unblocked(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) {
            return;
        }
        if let Some(refused) = self.end(conn, end).stopping.take() {
            return self.handle(conn, end, Input::Stop(refused));
        }
        let now = self.now;
        let inbox = self.end(conn, end).inbox.iter().map(|(due, _)| *due);
        let due: Vec<u64> = inbox.filter(|due| *due <= now).collect();
        for due in due {
            self.at(due, Event::Deliver { conn, end });
        }
        self.after(0, Event::Head { conn, end });
        self.watch_clock(conn, end);
    }

    /// The conversation is over at this end.
    pub fn closed(&mut self, conn: ConnId, end: usize, closed: &Closed) {
        self.end_side(conn, end);
        let node = self.end(conn, end).node;
        self.trace(|| format!("{conn} closed at {node}: {} {} by peer {}", closed.reason, closed.text, closed.by_peer));
        self.count_close(closed);
        self.push_packet(conn, 1 - end, Packet::Fin);
        if end == HUB {
            let wait = self.random.span(MILLISECOND / 10, 2 * SECOND);
            self.after(wait, Event::Over { conn });
        } else if !self.conns[&conn].hostile {
            let uplink = self.conns[&conn].uplink;
            self.nodes[node].uplinks[uplink].conn = None;
            self.dial_again(node, uplink, Some(closed));
        }
        self.sweep_conn(conn);
    }

    fn end_side(&mut self, conn: ConnId, end: usize) {
        let side = self.end(conn, end);
        side.alive = false;
        side.inbox.clear();
        let node = side.node;
        // Kept in every seed: the schemas that it keeps alive decide which of them the log writes again.
        if end == EDGE && !self.conns[&conn].hostile {
            let fresh = self.frame_encoder(Encoder::new());
            let frames = std::mem::replace(&mut self.end(conn, end).frames, fresh);
            let uplink = self.conns[&conn].uplink;
            self.nodes[node].uplinks[uplink].kept = Some(frames.into_encoder());
        }
    }

    fn count_close(&mut self, closed: &Closed) {
        if closed.by_peer {
            return;
        }
        self.count(match closed.reason {
            CloseReason::Silence => "link: closed for silence",
            CloseReason::Handshake => "link: handshake timed out",
            CloseReason::Replaced => "link: replaced by a newer session",
            CloseReason::NameTaken => "link: refused, the name is taken",
            CloseReason::Storage => "link: closed for storage",
            CloseReason::Loop => "link: closed, it leads around",
            CloseReason::Protocol => "link: closed for a broken rule",
            CloseReason::Malformed => "link: closed for a malformed message",
            _ => "link: closed otherwise",
        });
    }

    fn dial_again(&mut self, at: NodeId, uplink: usize, closed: Option<&Closed>) {
        let life = self.nodes[at].life;
        let link = &mut self.nodes[at].uplinks[uplink];
        link.backoff_ns = (2 * link.backoff_ns).clamp(BACKOFF_MIN, BACKOFF_MAX);
        let most = (2 * link.backoff_ns).min(BACKOFF_MAX);
        let asked = closed.and_then(|closed| closed.retry_after(Duration::from_nanos(BACKOFF_MAX)));
        let asked_ns = asked.map_or(0, |asked| asked.as_nanos() as u64);
        let wait = self.random.below(most).max(asked_ns);
        self.after(wait, Event::Dial { node: at, uplink, life });
    }

    /// A node ends: its connections do. Of a machine that lost its power, some peers hear nothing.
    pub fn cut_off(&mut self, at: NodeId, power: bool) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            for end in [EDGE, HUB] {
                if self.conns.get(&conn).is_none_or(|conn| conn.sides[end].node != at || !conn.sides[end].alive) {
                    continue;
                }
                self.end_side(conn, end);
                if power && self.random.chance(50) {
                    self.count("fault: half-open after a power loss");
                } else {
                    self.push_packet(conn, 1 - end, Packet::Fin);
                }
                self.sweep_conn(conn);
            }
        }
    }

    /// Forgets a connection of which nothing is left.
    pub fn sweep_conn(&mut self, conn: ConnId) {
        let gone = self.conns.get(&conn).is_some_and(|open| {
            let hub = &self.nodes[open.sides[HUB].node];
            let entered = hub.running.as_ref().is_some_and(|r| r.sessions.contains_key(&open.session));
            !open.sides[EDGE].alive && !open.sides[HUB].alive && (open.over || !entered)
        });
        if gone {
            self.conns.remove(&conn);
        }
    }
}
