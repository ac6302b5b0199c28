//! Connections: two ends and what is on its way between them; and what both ends do (`node/link.rs`).
//!
//! A connection keeps order and doubles nothing, as TLS does. It may be slow, stand still and go on, or die without a word
//! in one direction or both; then the ends notice in their own time, and what an old connection still carries arrives
//! while a new one is open.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pushrelay::compression::{Deflater, Inflater, LEVEL_DEFAULT};
use pushrelay::model::{GroupId, LabelSet, Revision, StoreId};
use pushrelay::session::{
    Action, Admitted, Batch, Closed, Config, Edge, EdgeConfig, Event as Told, Hub, HubConfig, Lag, Refused,
};
use pushrelay::store::Scope;
use pushrelay::wire::{CloseReason, Decoder, Delta, Encoder, Facts, Message};

use super::bug::Bug;
use super::fault::lost;
use super::writer::Job;
use super::{ConnId, EDGE, Event, HUB, MILLISECOND, NodeId, SECOND, World};

/// Bytes of a message, at most.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What a reconnecting edge waits, at first and at most.
const BACKOFF_MIN: u64 = 500 * MILLISECOND;
const BACKOFF_MAX: u64 = 30 * SECOND;

pub enum Machine {
    /// The edge's facts are not there yet.
    None,
    Edge(Box<Edge>),
    Hub(Box<Hub>),
}

pub enum Packet {
    Bytes(Vec<u8>),
    Fin,
}

/// One end of a connection.
pub struct Side {
    pub node: NodeId,
    pub machine: Machine,
    /// The conversation goes on at this end.
    pub alive: bool,
    /// The end waits for an answer and takes nothing meanwhile.
    pub blocked: bool,
    pub place: Arc<LabelSet>,
    encoder: Arc<Mutex<Encoder>>,
    decoder: Decoder,
    deflater: Option<Deflater>,
    inflater: Option<Inflater>,
    /// What is on its way to this end, with when it is there.
    pub inbox: VecDeque<(u64, Packet)>,
    inbox_ns: u64,
    /// Nothing arrives here any more.
    pub deaf: bool,
    /// Which version of the place's head this end was told; `None` if it does not follow any.
    pub watched: Option<u64>,
    /// It is to be told of a head as soon as it listens.
    deferred: bool,
    tick_ns: u64,
    /// To be told once this end is not blocked.
    pub stopping: Option<Refused>,
}

impl Side {
    fn listens(&self) -> bool {
        match &self.machine {
            Machine::None => true,
            Machine::Edge(edge) => edge.listens(),
            Machine::Hub(hub) => hub.listens(),
        }
    }
}

pub struct Conn {
    pub sides: [Side; 2],
    pub uplink: usize,
    pub latency_ns: u64,
    /// Nothing gets through before.
    pub stalled_until: u64,
    /// The session at the hub, and the one that it waits to be over.
    pub session: u64,
    pub waiting_for: Option<u64>,
    /// What the edge calls itself, and its store, as the hub learned.
    pub name: String,
    pub peer_store: Option<StoreId>,
    pub over: bool,
    pub hostile: bool,
    pub exchanging: Option<u64>,
    /// What the hub holds and the edge's writer has not been told yet.
    pub untold: Option<Revision>,
}

impl World {
    fn side(&self, node: NodeId, machine: Machine, encoder: Arc<Mutex<Encoder>>) -> Side {
        let compressed = self.plan.compressed;
        Side {
            node,
            machine,
            alive: true,
            blocked: false,
            place: Arc::default(),
            encoder,
            decoder: Decoder::new(MESSAGE_BYTES_MAX),
            deflater: compressed.then(|| Deflater::new(LEVEL_DEFAULT)),
            inflater: compressed.then(Inflater::new),
            inbox: VecDeque::new(),
            inbox_ns: 0,
            deaf: false,
            watched: None,
            deferred: false,
            tick_ns: u64::MAX,
            stopping: None,
        }
    }

    fn link_config(&self) -> Config {
        Config {
            batch_bytes_max: self.plan.batch_bytes_max,
            message_bytes_max: MESSAGE_BYTES_MAX,
            progress_ns: self.plan.progress_ns,
            ..Config::default()
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
        let kept = self.is(Bug::DictionaryKept).then(|| self.nodes[at].uplinks[uplink].kept.clone()).flatten();
        let lost_wake_up = self.is(Bug::LostWakeUp);
        let side = self.end(conn, EDGE);
        side.blocked = true;
        side.watched = (!lost_wake_up).then_some(version);
        side.encoder = kept.unwrap_or(side.encoder.clone());
        self.nodes[at].uplinks[uplink].kept = Some(self.end(conn, EDGE).encoder.clone());
        self.ask(at, Job::Facts { conn, end: EDGE });
    }

    /// A connection, and the hub's end of the conversation.
    pub fn open(&mut self, at: NodeId, uplink: usize, hub: NodeId, name: String) -> ConnId {
        let config = HubConfig { link: self.link_config(), heartbeat_ns: self.plan.heartbeat_ns };
        let machine = Machine::Hub(Box::new(Hub::new(config, self.session_now(hub))));
        let sides = [self.side(at, Machine::None, Arc::default()), self.side(hub, machine, Arc::default())];
        let slow = if self.quiet { 100 * MILLISECOND } else { self.plan.latency_ns };
        let latency_ns = self.random.span(MILLISECOND / 10, slow.max(MILLISECOND));
        let session = self.random.id();
        let conn = Conn {
            sides,
            uplink,
            latency_ns,
            stalled_until: 0,
            session,
            waiting_for: None,
            name,
            peer_store: None,
            over: false,
            hostile: false,
            exchanging: None,
            untold: None,
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

    pub fn watch_version(&self, at: NodeId, place: &Arc<LabelSet>) -> u64 {
        let watches = self.nodes[at].running.as_ref().map(|running| &running.watches);
        watches.and_then(|watches| watches.get(place)).map_or(0, |watch| watch.version)
    }

    /// The writer has answered: the conversation can begin, or go on.
    pub fn facts_ready(&mut self, conn: ConnId, end: usize, facts: Facts) {
        if !self.is_alive(conn, end) {
            return;
        }
        let node = self.end(conn, end).node;
        let now = self.session_now(node);
        let place = self.end(conn, end).place.clone();
        let version = self.watch_version(node, &place);
        let side = self.end(conn, end);
        side.watched.get_or_insert(version);
        side.blocked = false;
        if end == EDGE {
            let config = EdgeConfig { link: self.link_config(), labels: LabelSet::default(), lag: Lag::default() };
            self.end(conn, end).machine = Machine::Edge(Box::new(Edge::new(config, facts, now)));
            self.act_all(conn, end);
        } else {
            let above = self.above(node);
            let admitted = Admitted { facts, place: (*place).clone(), exchange: false, above };
            self.handle(conn, end, Told::Admitted(admitted));
        }
        self.unblocked(conn, end);
    }

    /// Takes up what had to wait.
    pub fn unblocked(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) {
            return;
        }
        if let Some(refused) = self.end(conn, end).stopping.take() {
            return self.handle(conn, end, Told::Stop(refused));
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

    /// Tells an end what happened, and does what it asks for.
    pub fn handle(&mut self, conn: ConnId, end: usize, event: Told) {
        if !self.is_alive(conn, end) {
            return;
        }
        let node = self.end(conn, end).node;
        let now = self.session_now(node);
        match &mut self.end(conn, end).machine {
            Machine::None => return,
            Machine::Edge(edge) => edge.handle(event, now),
            Machine::Hub(hub) => hub.handle(event, now),
        }
        self.act_all(conn, end);
        self.watch_clock(conn, end);
        if self.is_alive(conn, end) && self.end(conn, end).deferred && self.end(conn, end).listens() {
            self.end(conn, end).deferred = false;
            self.after(0, Event::Head { conn, end });
        }
    }

    fn act_all(&mut self, conn: ConnId, end: usize) {
        while self.is_alive(conn, end) {
            let action = match &mut self.end(conn, end).machine {
                Machine::None => None,
                Machine::Edge(edge) => edge.poll_action(),
                Machine::Hub(hub) => hub.poll_action(),
            };
            let Some(action) = action else { return };
            self.act(conn, end, action);
        }
    }

    fn act(&mut self, conn: ConnId, end: usize, action: Action) {
        let node = self.end(conn, end).node;
        match action {
            Action::Send(message) => self.send(conn, end, &message),
            Action::Admit(hello) => self.admit(conn, hello),
            Action::Read { since, skip, bytes_max } => {
                let scope = match end {
                    EDGE => Scope::Shown,
                    _ => Scope::Place(self.end(conn, end).place.clone()),
                };
                let bare = self.is(Bug::ExchangeWithoutTombstones) && since.0 == 0;
                let Some(running) = &self.nodes[node].running else { return };
                let published = running.store.published();
                let set = published.changes(&scope, since, Some((skip.origin, skip.after)), bytes_max);
                let id = |key| GroupId { place: Arc::default(), key };
                let deltas = set.changes.into_iter().map(|change| Delta { id: id(change.key), group: change.group });
                let deltas = deltas.filter(|delta| !bare || delta.group.is_live()).collect();
                self.handle(conn, end, Told::Read(Batch { deltas, upto: set.upto, more: set.more }));
            }
            Action::Commit { id, deltas, peer, mut position } => {
                let place = self.end(conn, end).place.clone();
                if self.is(Bug::HalfTakenForWhole)
                    && end == EDGE
                    && position.epoch.0 == 0
                    && let Some(real) = self.half_position(conn)
                {
                    position = real;
                }
                self.ask(node, Job::Merge { conn, end, id, place, deltas, peer, position });
            }
            Action::PeerHolds(revision) if end == EDGE => {
                self.trace(|| format!("{node} is told on {conn} that its hub holds {revision}"));
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.untold = Some(revision);
                }
                self.tell_held(conn, node);
            }
            Action::ClockOffset(offset_ns) if end == EDGE && self.conns[&conn].uplink == 0 => {
                self.nodes[node].offset_ns = offset_ns;
            }
            Action::Established(established) => {
                let what = if established.exchange { "link: exchange begun" } else { "link: gone on" };
                self.trace(|| format!("{conn} established at {node}, exchange {}", established.exchange));
                self.count(what);
                if end == EDGE {
                    let uplink = self.conns[&conn].uplink;
                    self.nodes[node].uplinks[uplink].backoff_ns = 0;
                    self.sends_to(node, uplink, &established);
                }
            }
            Action::Exchanged => self.count("link: exchange completed"),
            Action::Close(closed) => self.closed(conn, end, &closed),
            Action::PeerHolds(_) | Action::ClockOffset(_) => {}
            Action::HeldBack(verdicts) => {
                let place = self.end(conn, end).place.clone();
                self.ask(node, Job::HeldBack { end, place, verdicts });
            }
            Action::PeerLag(_) | Action::Unsendable { .. } => {}
        }
    }

    /// The position that the last update from the hub would have set, were there no exchange.
    fn half_position(&self, conn: ConnId) -> Option<pushrelay::model::Position> {
        let hub = self.conns.get(&conn)?.sides[HUB].node;
        let running = self.nodes[hub].running.as_ref()?;
        let epoch = running.store.lineage().last()?.epoch;
        let revision = pushrelay::model::Revision(self.conns.get(&conn)?.exchanging?);
        Some(pushrelay::model::Position { epoch, revision })
    }

    pub fn send(&mut self, conn: ConnId, end: usize, message: &Message) {
        if matches!(message, Message::Update(_)) {
            self.count("link: update sent");
        }
        let side = self.end(conn, end);
        let mut bytes = Vec::new();
        side.encoder.lock().expect("nobody panics").encode(message, &mut bytes);
        if let Some(deflater) = &mut side.deflater {
            let mut deflated = Vec::new();
            deflater.compress(&bytes, &mut deflated);
            bytes = deflated;
        }
        self.push_packet(conn, 1 - end, Packet::Bytes(bytes));
    }

    /// Puts a packet on its way to an end.
    pub fn push_packet(&mut self, conn: ConnId, to: usize, packet: Packet) {
        let now = self.now;
        let open = &self.conns[&conn];
        let (latency, stalled) = (open.latency_ns, open.stalled_until);
        let jitter = self.random.below(latency / 2 + 1);
        let parted = self.parted_until(self.conns[&conn].sides[0].node, self.conns[&conn].sides[1].node);
        let side = self.end(conn, to);
        if side.deaf || !side.alive {
            return;
        }
        let due = (now.max(stalled).max(parted) + latency + jitter).max(side.inbox_ns + 1);
        side.inbox_ns = due;
        side.inbox.push_back((due, packet));
        self.at(due, Event::Deliver { conn, end: to });
    }

    /// Takes the next packet that is there.
    pub fn deliver(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) {
            return;
        }
        let (now, side) = (self.now, self.end(conn, end));
        let waits = side.blocked || matches!(side.machine, Machine::None);
        if waits || side.deaf || side.inbox.front().is_none_or(|(due, _)| *due > now) {
            return;
        }
        match side.inbox.pop_front() {
            Some((_, Packet::Bytes(bytes))) => self.received(conn, end, &bytes),
            Some((_, Packet::Fin)) => self.closed(conn, end, &lost("the peer closed the connection")),
            None => {}
        }
    }

    /// Tells the writer what the hub holds, unless its queue is full: then with the next message.
    fn tell_held(&mut self, conn: ConnId, node: NodeId) {
        let told = self.random.chance(97);
        let Some(link) = self.conns.get_mut(&conn).filter(|_| told) else { return };
        if let (Some(revision), uplink) = (link.untold.take(), link.uplink) {
            self.ask(node, Job::Held { uplink, revision });
        }
    }

    fn received(&mut self, conn: ConnId, end: usize, bytes: &[u8]) {
        if end == EDGE && self.conns[&conn].untold.is_some() {
            let node = self.end(conn, end).node;
            self.tell_held(conn, node);
        }
        let side = self.end(conn, end);
        let mut inflated = Vec::new();
        let decoded = match &mut side.inflater {
            Some(inflater) => inflater
                .decompress(bytes, &mut inflated, MESSAGE_BYTES_MAX)
                .map_err(|error| error.to_string())
                .and_then(|()| side.decoder.decode(&inflated).map_err(|error| error.to_string())),
            None => side.decoder.decode(bytes).map_err(|error| error.to_string()),
        };
        let event = match decoded {
            Ok(message) => Told::Message(self.bend(conn, end, message)),
            Err(error) => {
                self.count("link: malformed message");
                Told::Malformed(error)
            }
        };
        if let Told::Message(Message::Ack(ack)) = &event
            && self.is(Bug::HeldToldEarly)
            && end == EDGE
        {
            let (node, uplink, revision) = (self.end(conn, end).node, self.conns[&conn].uplink, ack.revision);
            self.ask(node, Job::Held { uplink, revision });
        }
        self.handle(conn, end, event);
    }

    /// Changes what came, for bugs that are made by misreading it.
    fn bend(&mut self, conn: ConnId, end: usize, message: Message) -> Message {
        match message {
            Message::Hello(mut hello) if end == HUB => {
                self.stale(conn, &mut hello.facts);
                Message::Hello(hello)
            }
            Message::Welcome(mut welcome) => {
                self.stale(conn, &mut welcome.facts);
                Message::Welcome(welcome)
            }
            Message::Update(update) => {
                let upto = update.upto.0;
                if let Some(conn) = self.conns.get_mut(&conn)
                    && end == EDGE
                {
                    conn.exchanging = Some(upto);
                }
                Message::Update(update)
            }
            other => other,
        }
    }

    /// Makes the peer's lineage say that it has what is held of it.
    fn stale(&mut self, conn: ConnId, facts: &mut Facts) {
        if !self.is(Bug::StalePosition) {
            return;
        }
        let node = if facts.node == self.conns[&conn].name { HUB } else { EDGE };
        let node = self.end(conn, node).node;
        let Some(running) = &self.nodes[node].running else { return };
        if let Some(cursor) = running.store.cursors().get(&facts.store)
            && cursor.position.epoch.0 != 0
        {
            let opening = pushrelay::wire::Opening { epoch: cursor.position.epoch, revision: cursor.position.revision };
            facts.lineage = vec![opening];
            facts.head = facts.head.max(cursor.position.revision);
        }
    }

    /// A clock of this end may be due earlier than planned.
    pub fn watch_clock(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) {
            return;
        }
        let side = self.end(conn, end);
        let due = match &side.machine {
            Machine::None => None,
            Machine::Edge(edge) => edge.next_timeout(),
            Machine::Hub(hub) => hub.next_timeout(),
        };
        if let Some(due) = due
            && due < side.tick_ns
        {
            side.tick_ns = due;
            self.at(due, Event::Tick { conn, end });
        }
    }

    pub fn tick(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) {
            return;
        }
        let (now, side) = (self.now, self.end(conn, end));
        if side.tick_ns > now {
            return;
        }
        side.tick_ns = u64::MAX;
        if side.blocked {
            return;
        }
        let due = match &side.machine {
            Machine::None => None,
            Machine::Edge(edge) => edge.next_timeout(),
            Machine::Hub(hub) => hub.next_timeout(),
        };
        match due {
            Some(due) if due <= now => self.handle(conn, end, Told::Tick),
            _ => self.watch_clock(conn, end),
        }
    }

    /// All ends that follow a place of this node hear, in their time, that it changed.
    pub fn wake(&mut self, at: NodeId) {
        let ends: Vec<(ConnId, usize)> = self
            .conns
            .iter()
            .flat_map(|(id, conn)| [(*id, EDGE, &conn.sides[EDGE]), (*id, HUB, &conn.sides[HUB])])
            .filter(|(_, _, side)| side.node == at && side.alive && side.watched.is_some())
            .map(|(id, end, _)| (id, end))
            .collect();
        for (conn, end) in ends {
            let wait = self.random.span(MILLISECOND / 100, 10 * MILLISECOND);
            self.after(wait, Event::Head { conn, end });
        }
    }

    pub fn tell_head(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) || self.end(conn, end).blocked {
            return;
        }
        let (node, place) = (self.end(conn, end).node, self.end(conn, end).place.clone());
        let Some(running) = &self.nodes[node].running else { return };
        let Some(watch) = running.watches.get(&place).copied() else { return };
        let side = self.end(conn, end);
        if side.watched.is_some_and(|told| told < watch.version) {
            if !side.listens() {
                side.deferred = true;
                return;
            }
            side.watched = Some(watch.version);
            self.handle(conn, end, Told::Head(watch.head));
        }
    }

    /// The conversation is over at this end.
    pub fn closed(&mut self, conn: ConnId, end: usize, closed: &Closed) {
        let side = self.end(conn, end);
        side.alive = false;
        side.inbox.clear();
        let node = side.node;
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
        let asked = closed.and_then(|closed| {
            let asked = closed.retry_after_ms.map(|ms| ms * MILLISECOND);
            match closed.reason {
                CloseReason::Replaced => Some(asked.unwrap_or_default().max(BACKOFF_MAX)),
                _ => asked,
            }
        });
        let wait = self.random.below(most).max(asked.unwrap_or(0));
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
                self.end(conn, end).alive = false;
                self.end(conn, end).inbox.clear();
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
