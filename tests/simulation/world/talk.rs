//! What an end of a connection does (`node/link/driver.rs`): events into its session, the session's actions out, messages both ways.

use std::sync::Arc;

use pushrelay::model::GroupId;
use pushrelay::session::{Batch, Event as Told, SessionAction};
use pushrelay::store::Scope;
use pushrelay::wire::{Delta, Message, PeerInfo};

use super::bug::Bug;
use super::fault::lost;
use super::link::{MESSAGE_BYTES_MAX, Machine, Packet};
use super::writer::Job;
use super::{ConnId, EDGE, Event, HUB, MILLISECOND, NodeId, World};

impl World {
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

    pub fn act_all(&mut self, conn: ConnId, end: usize) {
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

    fn act(&mut self, conn: ConnId, end: usize, action: SessionAction) {
        let node = self.end(conn, end).node;
        match action {
            SessionAction::Send(message) => self.send(conn, end, &message),
            SessionAction::Admit(hello) => self.admit(conn, hello),
            SessionAction::Read { since, skip, bytes_max } => {
                let scope = match end {
                    EDGE => Scope::Shown,
                    _ => Scope::Site(self.end(conn, end).site.clone()),
                };
                let bare = self.is(Bug::ResyncWithoutTombstones) && since.0 == 0;
                let Some(running) = &self.nodes[node].running else { return };
                let published = running.store.published();
                let set = published.changes(&scope, since, Some((skip.origin, skip.after)), bytes_max);
                let id = |key| GroupId { site: Arc::default(), key };
                let deltas = set.changes.into_iter().map(|change| Delta { id: id(change.key), group: change.group });
                let deltas = deltas.filter(|delta| !bare || delta.group.is_live()).collect();
                self.handle(conn, end, Told::Read(Batch { deltas, upto: set.upto, more: set.more }));
            }
            SessionAction::Commit { id, deltas, peer, mut position } => {
                let site = self.end(conn, end).site.clone();
                if self.is(Bug::HalfTakenForWhole)
                    && end == EDGE
                    && position.epoch.0 == 0
                    && let Some(real) = self.half_position(conn)
                {
                    position = real;
                }
                self.ask(node, Job::Merge { conn, end, id, site, deltas, peer, position });
            }
            SessionAction::PeerHolds(revision) if end == EDGE => {
                self.trace(|| format!("{node} is told on {conn} that its hub holds {revision}"));
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.untold = Some(revision);
                }
                self.tell_held(conn, node);
            }
            SessionAction::ClockOffset(offset_ns) if end == EDGE && self.conns[&conn].uplink == 0 => {
                self.nodes[node].offset_ns = offset_ns;
            }
            SessionAction::Established(established) => {
                let what = if established.resync { "link: resync begun" } else { "link: gone on" };
                self.trace(|| format!("{conn} established at {node}, resync {}", established.resync));
                self.count(what);
                if end == EDGE {
                    let uplink = self.conns[&conn].uplink;
                    self.nodes[node].uplinks[uplink].backoff_ns = 0;
                    self.sends_to(node, uplink, &established);
                }
            }
            SessionAction::ResyncCompleted => self.count("link: resync completed"),
            SessionAction::Close(closed) => self.closed(conn, end, &closed),
            SessionAction::PeerHolds(_) | SessionAction::ClockOffset(_) => {}
            SessionAction::HeldBack(reports) => {
                let site = self.end(conn, end).site.clone();
                self.ask(node, Job::HeldBack { end, site, reports });
            }
            SessionAction::PeerLag(_) | SessionAction::Unsendable { .. } => {}
        }
    }

    /// The position that the last update from the hub would have set, were there no resync.
    fn half_position(&self, conn: ConnId) -> Option<pushrelay::model::Position> {
        let hub = self.conns.get(&conn)?.sides[HUB].node;
        let running = self.nodes[hub].running.as_ref()?;
        let epoch = running.store.epochs().last()?.epoch;
        let revision = pushrelay::model::Revision(self.conns.get(&conn)?.resyncing?);
        Some(pushrelay::model::Position { epoch, revision })
    }

    pub fn send(&mut self, conn: ConnId, end: usize, message: &Message) {
        if let Message::Update(update) = message {
            self.count("link: update sent");
            if update.ack_may_wait {
                self.count("link: update whose acknowledgement may wait");
            }
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
                self.stale(conn, &mut hello.info);
                Message::Hello(hello)
            }
            Message::Welcome(mut welcome) => {
                self.stale(conn, &mut welcome.info);
                Message::Welcome(welcome)
            }
            Message::Update(update) => {
                let upto = update.upto.0;
                if let Some(conn) = self.conns.get_mut(&conn)
                    && end == EDGE
                {
                    conn.resyncing = Some(upto);
                }
                Message::Update(update)
            }
            other => other,
        }
    }

    /// Makes the peer's lineage say that it has what is held of it.
    fn stale(&mut self, conn: ConnId, info: &mut PeerInfo) {
        if !self.is(Bug::StalePosition) {
            return;
        }
        let node = if info.node == self.conns[&conn].name { HUB } else { EDGE };
        let node = self.end(conn, node).node;
        let Some(running) = &self.nodes[node].running else { return };
        if let Some(cursor) = running.store.cursors().get(&info.store)
            && cursor.position.epoch.0 != 0
        {
            let start =
                pushrelay::wire::EpochStart { epoch: cursor.position.epoch, revision: cursor.position.revision };
            info.epochs = vec![start];
            info.head = info.head.max(cursor.position.revision);
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
        let (node, site) = (self.end(conn, end).node, self.end(conn, end).site.clone());
        let Some(running) = &self.nodes[node].running else { return };
        let Some(watch) = running.watches.get(&site).copied() else { return };
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
}
