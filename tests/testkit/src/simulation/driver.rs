//! The driver of a connection (`node/link/driver.rs`) in virtual time: performs the actions of the product's own
//! [`Connection`](pushrelay::session::Connection), later, never, or as a planted bug alters them.

use pushrelay::model::{Position, Revision};
use pushrelay::session::{
    Batch, Closed, Connection, Event as Input, SessionAction, SessionEvent, SessionTime, UplinkDuty,
};
use pushrelay::store::Scope;
use pushrelay::wire::{EpochStart, Health, Message, PeerInfo};

use super::bug::Bug;
use super::committer::Command;
use super::link::{FrameContent, Packet};
use super::{ConnId, EDGE, Event, HUB, MILLISECOND, NodeId, World};

impl World {
    /// Passes an input to a connection, and performs the actions that follow.
    pub fn handle(&mut self, conn: ConnId, end: usize, input: Input) {
        self.drive(conn, end, |connection, now| connection.handle(input, now));
    }

    fn drive(&mut self, conn: ConnId, end: usize, input: impl FnOnce(&mut Connection, SessionTime)) {
        if !self.is_alive(conn, end) {
            return;
        }
        let node = self.end(conn, end).node;
        let now = self.session_now(node);
        let Some(connection) = &mut self.end(conn, end).connection else { return };
        input(connection, now);
        self.perform_all(conn, end);
        self.watch_clock(conn, end);
        if self.is_alive(conn, end) && self.end(conn, end).deferred && self.end(conn, end).wants_heads() {
            self.end(conn, end).deferred = false;
            self.after(0, Event::Head { conn, end });
        }
    }

    pub fn perform_all(&mut self, conn: ConnId, end: usize) {
        while self.is_alive(conn, end)
            && let Some(connection) = &mut self.end(conn, end).connection
            && let Some(action) = connection.poll_action()
        {
            self.perform_action(conn, end, action);
        }
    }

    fn perform_action(&mut self, conn: ConnId, end: usize, action: SessionAction) {
        let node = self.end(conn, end).node;
        match action {
            SessionAction::Send(message) => self.send(conn, end, message),
            SessionAction::Admit(hello) => self.admit(conn, hello),
            SessionAction::Read { since, skip, bytes_max } => {
                let bare = self.is(Bug::ResyncWithoutTombstones) && since.0 == 0;
                let Some(scope) = self.scope(conn, end) else { return };
                let Some(running) = &self.nodes[node].running else { return };
                let published = running.engine.store().published();
                let set = published.changes(&scope, since, Some((skip.origin, skip.after)), bytes_max);
                let mut batch = Batch::from(set);
                batch.deltas.retain(|delta| !bare || delta.group.is_live());
                self.handle(conn, end, Input::Read(batch));
            }
            SessionAction::Commit { id, deltas, peer, mut position } => {
                let Some(scope) = self.scope(conn, end) else { return };
                if self.is(Bug::HalfResyncCounts)
                    && end == EDGE
                    && position.epoch.0 == 0
                    && let Some(real) = self.half_position(conn)
                {
                    position = real;
                }
                self.ask_merge((conn, end), id, scope, deltas, (peer, position));
            }
            SessionAction::Notify(event) => self.observe(conn, end, event),
            SessionAction::Close(closed) => self.closed(conn, end, &closed),
        }
    }

    /// The groups that a session is about.
    fn scope(&mut self, conn: ConnId, end: usize) -> Option<Scope> {
        Some(self.end(conn, end).connection.as_ref()?.scope().clone())
    }

    /// The observers of both ends (`node/link/edge.rs`, `node/link/hub.rs`).
    fn observe(&mut self, conn: ConnId, end: usize, event: SessionEvent) {
        let node = self.end(conn, end).node;
        let is_confirmed = self.is_clock_confirmed(node);
        let duties = self.conns.get_mut(&conn).filter(|_| end == EDGE).map(|open| &mut open.duties);
        let duty = duties.and_then(|duties| duties.of(&event, || is_confirmed));
        self.follow_progress(conn, end, &event);
        match event {
            SessionEvent::PeerCursor(revision) if end == EDGE => {
                self.trace(|| format!("{node} learns on {conn} that its hub has {revision}"));
            }
            SessionEvent::Established(established) => {
                let kind = if established.resync { "link: resync begun" } else { "link: gone on" };
                self.trace(|| format!("{conn} established at {node}, resync {}", established.resync));
                self.count(kind);
                if established.resync && established.progress.acked() > Revision(0) {
                    self.count("link: resync continued");
                }
                if end == EDGE {
                    let uplink = self.conns[&conn].uplink;
                    self.nodes[node].uplinks[uplink].backoff_ns = 0;
                    self.uplink_established(node, uplink, &established);
                }
            }
            SessionEvent::PeerHealth(health) if end == HUB => self.check_health(conn, &health),
            SessionEvent::ResyncCompleted => self.count("link: resync completed"),
            SessionEvent::Suppressed(reports) => {
                let Some(scope) = self.scope(conn, end) else { return };
                self.ask(node, Command::NoteConflicts { scope, reports });
            }
            _ => {}
        }
        if let Some(duty) = duty {
            self.perform_duty(conn, node, duty);
        }
    }

    fn follow_progress(&mut self, conn: ConnId, end: usize, event: &SessionEvent) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        if end == HUB {
            event.follow(&mut open.progress);
        } else if !open.hostile {
            let (node, uplink) = (open.sides[EDGE].node, open.uplink);
            event.follow(&mut self.nodes[node].uplinks[uplink].progress);
        }
    }

    fn is_clock_confirmed(&self, node: NodeId) -> bool {
        let running = self.nodes[node].running.as_ref();
        running.is_none_or(|running| running.engine.store().published().is_clock_confirmed())
    }

    fn perform_duty(&mut self, conn: ConnId, node: NodeId, duty: UplinkDuty) {
        match duty {
            UplinkDuty::SetClockOffset(offset_ns) => {
                self.nodes[node].offset_ns = offset_ns;
                if !self.is_clock_confirmed(node) {
                    let right_ns = self.wall_ns(node).saturating_add_signed(offset_ns);
                    self.ask(node, Command::ConfirmClock { right_ns, monotonic_ns: self.now });
                }
            }
            UplinkDuty::ReportAck(revision) => {
                let is_full = !self.random.chance(97);
                let Some(open) = self.conns.get_mut(&conn).filter(|_| !is_full) else { return };
                open.duties.ack_reported();
                let uplink = open.uplink;
                self.ask(node, Command::UplinkAcked { uplink, revision });
            }
        }
    }

    /// The position that the last update from the hub would have set, were there no resync.
    fn half_position(&self, conn: ConnId) -> Option<Position> {
        let hub = self.conns.get(&conn)?.sides[HUB].node;
        let running = self.nodes[hub].running.as_ref()?;
        let epoch = running.engine.store().epochs().last()?.epoch;
        let revision = Revision(self.conns.get(&conn)?.last_upto?);
        Some(Position { epoch, revision })
    }

    fn send(&mut self, conn: ConnId, end: usize, mut message: Message) {
        let content = match &mut message {
            Message::Update(update) => {
                self.count("link: update sent");
                if update.ack_may_wait {
                    self.count("link: update whose acknowledgement may wait");
                }
                FrameContent::Update { upto: update.upto.0 }
            }
            Message::Ack(ack) => FrameContent::Ack { revision: ack.revision },
            Message::Hello(hello) => {
                self.make_stale(conn, HUB, &mut hello.info);
                FrameContent::Other
            }
            Message::Welcome(welcome) => {
                self.make_stale(conn, EDGE, &mut welcome.info);
                FrameContent::Other
            }
            Message::Heartbeat(heartbeat) => {
                heartbeat.health.take_if(|_| self.is(Bug::HealthLeftOut));
                FrameContent::Other
            }
            _ => FrameContent::Other,
        };
        let frame = self.end(conn, end).frames.encode(&message).0;
        self.push_packet(conn, 1 - end, Packet::Frame(frame, content));
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
        let waits = side.blocked || side.connection.is_none();
        if waits || side.deaf || side.inbox.front().is_none_or(|(due, _)| *due > now) {
            return;
        }
        match side.inbox.pop_front() {
            Some((_, Packet::Frame(frame, content))) => self.received(conn, end, &frame, content),
            Some((_, Packet::Fin)) => self.closed(conn, end, &Closed::lost("the peer closed the connection")),
            None => {}
        }
    }

    fn received(&mut self, conn: ConnId, end: usize, frame: &[u8], content: FrameContent) {
        if end == EDGE {
            let node = self.end(conn, end).node;
            match content {
                FrameContent::Update { upto } => self.conns.get_mut(&conn).expect("it is open").last_upto = Some(upto),
                FrameContent::Ack { revision } if self.is(Bug::AckReportedEarly) => {
                    let uplink = self.conns[&conn].uplink;
                    self.ask_first(node, Command::UplinkAcked { uplink, revision });
                }
                _ => {}
            }
        }
        self.drive(conn, end, |connection, now| {
            connection.receive(frame, now);
        });
    }

    /// Planted: alters the peer info on its way to the end `to`, so that its lineage contains the cursor for it there.
    fn make_stale(&mut self, conn: ConnId, to: usize, info: &mut PeerInfo) {
        if !self.is(Bug::StalePosition) {
            return;
        }
        let node = self.end(conn, to).node;
        let Some(running) = &self.nodes[node].running else { return };
        if let Some(cursor) = running.engine.store().cursors().get(&info.store)
            && cursor.position.epoch.0 != 0
        {
            let Position { epoch, revision } = cursor.position;
            info.epochs = vec![EpochStart { epoch, revision }];
            info.head = info.head.max(revision);
        }
    }

    /// A clock of this end may be due earlier than planned.
    pub fn watch_clock(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) {
            return;
        }
        let side = self.end(conn, end);
        let due = side.next_timeout();
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
        let due = side.next_timeout();
        match due {
            Some(due) if due <= now => {
                self.report_health(conn, end);
                self.drive(conn, end, |connection, now| connection.tick(0, now));
            }
            _ => self.watch_clock(conn, end),
        }
    }

    /// An edge's health, as `node/health.rs` reads it: before a heartbeat, if it changed.
    fn report_health(&mut self, conn: ConnId, end: usize) {
        let node = self.end(conn, end).node;
        let Some(running) = self.nodes[node].running.as_ref().filter(|_| end == EDGE) else { return };
        let counts = running.engine.store().published().counts();
        let health = Health {
            started_seconds: Some(self.nodes[node].life),
            groups: Some(counts.groups as u64),
            series: Some(counts.series as u64),
            suppressed_families: Some(counts.suppressed as u64),
            ..Health::default()
        };
        let Some(open) = self.conns.get_mut(&conn) else { return };
        if open.health.last() != Some(&health) {
            open.health.push(health.clone());
            self.handle(conn, end, Input::Health(health.into()));
        }
    }

    /// A hub knows the health of an edge whole, as the edge had it at a heartbeat of this session.
    fn check_health(&mut self, conn: ConnId, health: &Health) {
        let open = &self.conns[&conn];
        if open.hostile || open.health.contains(health) {
            return self.count("link: health reported");
        }
        let text = format!("{conn}: the hub has {health:?}, but the edge reported {:?}", open.health.last());
        self.oracle.wrong.get_or_insert(text);
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

    pub fn report_head(&mut self, conn: ConnId, end: usize) {
        if !self.is_alive(conn, end) || self.end(conn, end).blocked {
            return;
        }
        let (node, site) = (self.end(conn, end).node, self.end(conn, end).site.clone());
        let Some(running) = &self.nodes[node].running else { return };
        let Some(watch) = running.watches.get(&site).copied() else { return };
        let side = self.end(conn, end);
        if side.watched.is_some_and(|told| told < watch.version) {
            if !side.wants_heads() {
                side.deferred = true;
                return;
            }
            side.watched = Some(watch.version);
            self.handle(conn, end, Input::Head(watch.head));
        }
    }
}
