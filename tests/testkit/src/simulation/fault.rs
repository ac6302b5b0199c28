//! The faults and their times. Each seed has some kinds of faults only, so that each kind also occurs alone.
//!
//! - Nodes: `kill -9`, power loss, crashes at any disk operation (also during a start), orderly restarts, slow committers.
//! - Lines: cut, half-open in one direction, dead or stalled; old ones that still deliver while a new one is open;
//!   partitions.
//! - Disks: full, failing operations, flipped bits; stores that are wiped, rolled back to a copy, or cloned (the copy runs
//!   at the same time, or in turns).
//! - Clocks that jump by up to twelve hours; a hub that is removed from an edge's configuration; peers that send garbage
//!   and forged messages.
//!
//! Not simulated: two hubs with copies of one store at the same time; damage on the line that TLS would find.

use pushrelay::compression::Deflater;
use pushrelay::model::{
    Epoch, Group, GroupId, LabelSet, NodeId as Stamper, Position, PushTime, Revision, StoreId, WriteTimestamp,
};
use pushrelay::session::{Closed, Refused};
use pushrelay::storage::Disk;
use pushrelay::wire::{
    Ack, ClockSample, Close, CloseReason, Delta, Encoder, EpochStart, Health, Heartbeat, Hello, Message, PeerInfo,
    StoreCursor, Update, Welcome,
};

use super::content::Content;
use super::link::{FrameContent, Packet};
use super::node::{content_of_disk, copy_disk};
use super::random::Random;
use super::{Checked, ConnId, EDGE, Event, HOUR, HUB, MILLISECOND, MINUTE, NodeId, SECOND, World};
use crate::disk::{DiskFault, SimulatedDisk};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kill,
    PowerLoss,
    CrashAtOperation,
    StopInOrder,
    Cut,
    HalfOpen,
    Dead,
    Stall,
    Partition,
    SlowWriter,
    DiskFull,
    DiskFault,
    Save,
    RollBack,
    Wipe,
    Clone,
    SwapTwins,
    ClockJump,
    Damage,
    HubTakenOut,
    Hostile,
    DropSession,
}

const ALL: &[Kind] = &[
    Kind::Kill,
    Kind::PowerLoss,
    Kind::CrashAtOperation,
    Kind::StopInOrder,
    Kind::Cut,
    Kind::HalfOpen,
    Kind::Dead,
    Kind::Stall,
    Kind::Partition,
    Kind::SlowWriter,
    Kind::DiskFull,
    Kind::DiskFault,
    Kind::Save,
    Kind::RollBack,
    Kind::Wipe,
    Kind::Clone,
    Kind::SwapTwins,
    Kind::ClockJump,
    Kind::Damage,
    Kind::HubTakenOut,
    Kind::Hostile,
    Kind::DropSession,
];

/// The kinds of a seed.
pub fn draw(random: &mut Random) -> Vec<Kind> {
    let percent = [0, 10, 25, 50, 100][random.below(5) as usize];
    let mut kinds: Vec<Kind> = ALL.iter().copied().filter(|_| random.chance(percent)).collect();
    if kinds.contains(&Kind::RollBack) {
        kinds.push(Kind::Save);
    }
    if kinds.contains(&Kind::Clone) {
        kinds.push(Kind::SwapTwins);
    }
    kinds
}

impl World {
    pub fn fault(&mut self) -> Checked {
        if self.quiet || self.is_calm {
            return Ok(());
        }
        let wait = self.random.span(self.plan.fault_ns / 8, self.plan.fault_ns * 2);
        self.after(wait, Event::Fault);
        let kinds = self.plan.faults.clone();
        let Some(&kind) = self.random.pick(&kinds) else { return Ok(()) };
        let at = self.random.below(self.nodes.len() as u64) as usize;
        self.trace(|| format!("fault {kind:?} at {at}"));
        match kind {
            Kind::Kill | Kind::PowerLoss if self.nodes[at].running.is_some() => {
                let power = kind == Kind::PowerLoss;
                self.count(if power { "fault: power loss" } else { "fault: kill -9" });
                self.machine_stops(at, power)
            }
            Kind::CrashAtOperation => {
                self.plan_halt(at);
                Ok(())
            }
            Kind::StopInOrder if self.nodes[at].running.is_some() => self.restart(at),
            Kind::Cut | Kind::HalfOpen | Kind::Dead | Kind::Stall | Kind::DropSession => {
                self.harm_connection(kind);
                Ok(())
            }
            Kind::Partition => {
                self.partition(at);
                Ok(())
            }
            Kind::SlowWriter => {
                let wait = self.random.span(SECOND / 10, 30 * SECOND);
                let until = self.now + wait;
                if let Some(running) = &mut self.nodes[at].running {
                    running.stalled_until = until;
                    self.count("fault: slow node");
                }
                Ok(())
            }
            Kind::DiskFull | Kind::DiskFault => {
                self.harm_disk(at, kind);
                Ok(())
            }
            Kind::Save => {
                self.save(at);
                Ok(())
            }
            Kind::RollBack => self.roll_back(at),
            Kind::Wipe => self.wipe(at),
            Kind::Clone => self.clone_node(at),
            Kind::SwapTwins => self.swap_twins(at),
            Kind::ClockJump => {
                self.jump(at);
                Ok(())
            }
            Kind::Damage => self.damage(at),
            Kind::HubTakenOut => self.take_hub_out(at),
            Kind::Hostile => {
                self.begin_hostile(at);
                Ok(())
            }
            Kind::Kill | Kind::PowerLoss | Kind::StopInOrder => Ok(()),
        }
    }

    fn plan_halt(&mut self, at: NodeId) {
        let after = self.random.below(12);
        let node = &mut self.nodes[at];
        if !node.diskless && node.halt_at.is_none() {
            let halt_at = node.disk.operations() + after;
            node.disk.halt_at(halt_at);
            node.halt_at = Some(halt_at);
        }
    }

    fn restart(&mut self, at: NodeId) -> Checked {
        self.count("fault: stopped in order and started again");
        self.stop_node(at)?;
        let life = self.nodes[at].life;
        let wait = self.random.span(SECOND / 10, 30 * SECOND);
        self.after(wait, Event::Start { node: at, life });
        Ok(())
    }

    fn harm_connection(&mut self, kind: Kind) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        let Some(&conn) = self.random.pick(&conns) else { return };
        let until = self.now + self.random.span(SECOND / 10, 60 * SECOND);
        match kind {
            Kind::Cut => {
                self.count("fault: connection cut");
                for end in [EDGE, HUB] {
                    // Packets on their way may still arrive.
                    if self.random.chance(50) {
                        self.end(conn, end).inbox.clear();
                    }
                    if self.is_alive(conn, end) {
                        self.push_packet(conn, end, Packet::Fin);
                    }
                }
            }
            Kind::HalfOpen => {
                self.count("fault: half-open, one direction");
                let end = self.random.below(2) as usize;
                self.end(conn, end).deaf = true;
            }
            Kind::Dead => {
                self.count("fault: dead without a word");
                for end in [EDGE, HUB] {
                    self.end(conn, end).deaf = true;
                }
            }
            Kind::DropSession => {
                let end = self.random.below(2) as usize;
                if self.is_alive(conn, end) && !self.end(conn, end).blocked {
                    self.count("fault: session ended by its node");
                    let text = "simulated".into();
                    let refused = Refused { reason: CloseReason::Shutdown, text, retry_after_ms: None };
                    self.handle(conn, end, pushrelay::session::Event::Stop(refused));
                }
            }
            _ => {
                self.count("fault: connection stands still for a while");
                self.conns.get_mut(&conn).expect("it is open").stalled_until = until;
            }
        }
        let forget = self.random.chance(40);
        if forget && kind == Kind::Dead && self.is_alive(conn, EDGE) {
            // The edge's end notices, what it sent before is still on its way to the hub.
            self.end(conn, HUB).deaf = false;
            self.closed(conn, EDGE, &Closed::lost("connection reset"));
        }
    }

    fn partition(&mut self, at: NodeId) {
        let hubs = self.nodes[at].uplink_hubs();
        let until = self.now + self.random.span(SECOND, 3 * MINUTE);
        self.count("fault: partition");
        for hub in hubs {
            if self.random.chance(70) {
                self.partitions.insert((at, hub), until);
            }
        }
    }

    pub fn parted_until(&self, a: NodeId, b: NodeId) -> u64 {
        self.partitions.get(&(a, b)).copied().unwrap_or(0)
    }

    pub fn is_partitioned(&self, a: NodeId, b: NodeId) -> bool {
        self.parted_until(a, b) > self.now
    }

    fn harm_disk(&mut self, at: NodeId, kind: Kind) {
        let (after, few) = (self.random.below(20), self.random.between(1, 6));
        let node = &mut self.nodes[at];
        if node.diskless {
            return;
        }
        if kind == Kind::DiskFull {
            let used: u64 = node.disk.list().unwrap_or_default().iter().map(|name| file_len(&node.disk, name)).sum();
            let room = self.random.below(3_000);
            self.nodes[at].disk.set_capacity(Some(used + room));
            self.count("fault: disk full");
            let wait = self.random.span(SECOND, 60 * SECOND);
            self.after(wait, Event::RepairDisk { node: at });
        } else {
            let begin = node.disk.operations() + after;
            for i in 0..few {
                node.disk.fail_at(begin + i, if i % 3 == 0 { DiskFault::Full } else { DiskFault::Broken });
            }
            self.count("fault: disk operations fail");
        }
    }

    pub fn repair_disk(&mut self, at: NodeId) {
        self.nodes[at].disk.set_capacity(None);
    }

    pub fn save(&mut self, at: NodeId) {
        if self.nodes[at].diskless {
            return;
        }
        let seed = self.random.next();
        let copy = copy_disk(&self.nodes[at].disk, seed);
        let content = content_of_disk(&copy);
        self.nodes[at].image = Some((copy, content));
        self.count("fault: copy of a disk taken");
    }

    pub fn roll_back(&mut self, at: NodeId) -> Checked {
        let seed = self.random.next();
        let Some((image, content)) = &self.nodes[at].image else { return Ok(()) };
        let (disk, content) = (copy_disk(image, seed), content.clone());
        self.count("fault: rolled back");
        self.nodes[at].was_rolled_back = true;
        self.replace_disk(at, disk, content)
    }

    fn wipe(&mut self, at: NodeId) -> Checked {
        if self.nodes[at].diskless {
            return Ok(());
        }
        let seed = self.random.next();
        self.count("fault: wiped");
        self.replace_disk(at, SimulatedDisk::new(seed), Content::default())
    }

    fn replace_disk(&mut self, at: NodeId, disk: SimulatedDisk, content: Content) -> Checked {
        if self.nodes[at].running.is_some() {
            self.machine_stops(at, false)?;
        }
        let node = &mut self.nodes[at];
        node.disk = disk;
        node.halt_at = None;
        node.damaged = false;
        node.lost_something = true;
        self.replace_content(at, content)
    }

    /// Another machine with a copy of an edge's disk and its certificate.
    fn clone_node(&mut self, at: NodeId) -> Checked {
        let node = &self.nodes[at];
        if node.is_hub || node.diskless || node.twin.is_some() || self.nodes.len() > 9 {
            return Ok(());
        }
        let seed = self.random.next();
        let disk = copy_disk(&self.nodes[at].disk, seed);
        let content = content_of_disk(&disk);
        let node = &self.nodes[at];
        let mut twin = super::node::Node::new(node.name.clone(), false, node.site, node.uplink_hubs(), false, seed);
        (twin.disk, twin.durable, twin.twin, twin.skew_ns) = (disk, content, Some(at), node.skew_ns);
        twin.has_rules = node.has_rules;
        let number = self.nodes.len();
        self.nodes.push(twin);
        self.nodes[at].twin = Some(number);
        self.count("fault: edge cloned");
        self.relate();
        self.promise_what_is_left();
        self.after(SECOND, Event::Start { node: number, life: 0 });
        Ok(())
    }

    fn swap_twins(&mut self, at: NodeId) -> Checked {
        let Some(twin) = self.nodes[at].twin else { return Ok(()) };
        self.count("fault: clones take turns");
        let both = self.random.chance(30);
        self.switch(at, both)?;
        self.switch(twin, true)
    }

    fn jump(&mut self, at: NodeId) {
        let hours = self.random.span(SECOND, 12 * HOUR) as i64;
        let jump = if self.random.chance(50) { hours } else { -hours };
        let node = &mut self.nodes[at];
        node.jumps += 1;
        node.skew_ns = (node.skew_ns + jump).clamp(-24 * HOUR as i64, 24 * HOUR as i64);
        self.count(if jump > 0 { "fault: clock jumps forward" } else { "fault: clock jumps back" });
    }

    fn damage(&mut self, at: NodeId) -> Checked {
        if self.nodes[at].diskless {
            return Ok(());
        }
        if self.nodes[at].running.is_some() {
            self.machine_stops(at, false)?;
        }
        let names = self.nodes[at].disk.list().unwrap_or_default();
        let draw = self.random.next();
        let Some(name) = self.random.pick(&names).cloned() else { return Ok(()) };
        self.nodes[at].disk.damage(&name, |bytes| {
            let at = (draw >> 8) as usize % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (draw % 8);
            }
        });
        self.nodes[at].damaged = true;
        self.count("fault: bit flipped on disk");
        Ok(())
    }

    /// An operator takes a hub out of an edge's configuration.
    fn take_hub_out(&mut self, at: NodeId) -> Checked {
        if self.nodes[at].uplinks.len() < 2 || self.nodes[at].twin.is_some() {
            return Ok(());
        }
        self.check_promises()?;
        if self.nodes[at].running.is_some() {
            self.stop_node(at)?;
        }
        let out = self.random.below(self.nodes[at].uplinks.len() as u64) as usize;
        self.nodes[at].uplinks.remove(out);
        self.count("fault: hub taken out of an edge's configuration");
        self.relate();
        self.promise_what_is_left();
        let life = self.nodes[at].life;
        self.after(SECOND, Event::Start { node: at, life });
        Ok(())
    }

    fn jitter(&mut self) -> u64 {
        self.random.span(MILLISECOND, SECOND)
    }

    /// Somebody with a certificate, and ill will.
    fn begin_hostile(&mut self, at: NodeId) {
        if !self.nodes[at].is_hub || self.nodes[at].running.is_none() {
            return;
        }
        let name = if self.random.chance(80) { "mallory" } else { "nobody" };
        let conn = self.open(at, 0, at, name.into());
        self.conns.get_mut(&conn).expect("it is open").hostile = true;
        self.count("fault: hostile peer");
        let left = self.random.between(1, 12);
        self.hostile_says(conn, true);
        let wait = self.jitter();
        self.after(wait, Event::Hostile { conn, left });
    }

    pub fn hostile(&mut self, conn: ConnId, left: u64) {
        if !self.is_alive(conn, HUB) || !self.is_alive(conn, EDGE) {
            return;
        }
        if left == 0 {
            return self.closed(conn, EDGE, &Closed::lost("enough"));
        }
        self.hostile_says(conn, false);
        let wait = self.jitter();
        self.after(wait, Event::Hostile { conn, left: left - 1 });
    }

    fn hostile_says(&mut self, conn: ConnId, first: bool) {
        if self.random.chance(if first { 10 } else { 15 }) {
            let garbage: Vec<u8> = (0..self.random.below(200)).map(|_| self.random.next() as u8).collect();
            // Most seeds store frames: then the garbage reaches the decoder.
            let mut stored = Vec::new();
            Deflater::new(0).compress(&garbage, &mut stored);
            let frame = if self.plan.compressed { garbage } else { stored };
            return self.push_packet(conn, HUB, Packet::Frame(frame, FrameContent::Other));
        }
        let message = if first && self.random.chance(90) { self.forged_hello() } else { self.forged_message() };
        // Each with an encoder of its own: what it refers to is not what was said before.
        let frame = self.frame_encoder(Encoder::new()).encode(&message).0;
        self.push_packet(conn, HUB, Packet::Frame(frame, FrameContent::Other));
    }

    fn forged_facts(&mut self) -> PeerInfo {
        // Perhaps it knows somebody's store.
        let stores: Vec<StoreId> =
            self.nodes.iter().filter_map(|n| Some(n.running.as_ref()?.engine.store().identity().store)).collect();
        let known = self.random.pick(&stores).copied();
        let store = known.filter(|_| self.random.chance(50)).unwrap_or(StoreId(self.random.id()));
        let number = |random: &mut Random| Revision(random.span(1, 1 << 40));
        let epoch = Epoch(self.random.id());
        let cursors =
            known.map(|store| StoreCursor { store, position: Position { epoch, revision: number(&mut self.random) } });
        PeerInfo {
            node: "mallory".into(),
            software: String::new(),
            store,
            epochs: vec![EpochStart { epoch, revision: Revision(0) }],
            head: number(&mut self.random),
            gc_watermark: if self.random.chance(50) { Revision(0) } else { number(&mut self.random) },
            cursors: cursors.into_iter().collect(),
            identity: String::new(),
        }
    }

    fn forged_hello(&mut self) -> Message {
        let info = self.forged_facts();
        let clock = ClockSample { sent_ns: self.random.next(), echo: None };
        let labels = LabelSet::new([("IDC", "p0")]);
        Message::Hello(Hello { version: 1, info, labels, message_bytes_max: 1 << 20, clock })
    }

    fn forged_message(&mut self) -> Message {
        match self.random.below(6) {
            0 => self.forged_hello(),
            1 => Message::Welcome(Welcome {
                version: 1,
                info: self.forged_facts(),
                site: LabelSet::new([("IDC", "p0")]),
                resync: false,
                upstream_stores: Vec::new(),
                takes_early: self.random.chance(50),
                heartbeat_ms: 1_000,
                message_bytes_max: 1 << 20,
                clock: ClockSample::default(),
            }),
            2 => Message::Ack(Ack {
                updates: self.random.below(4),
                revision: Revision(self.random.below(100)),
                held_back: Vec::new(),
            }),
            3 => {
                let lag_ns = self.random.next();
                let health = Health { pushes: Some(lag_ns), ..Health::default() };
                let health = Some(Box::new(health)).filter(|_| lag_ns.is_multiple_of(2));
                Message::Heartbeat(Heartbeat { lag_ns, health, ..Heartbeat::default() })
            }
            4 => Message::Close(Close { reason: CloseReason::Other(77), text: "bye".into(), retry_after_ms: Some(1) }),
            _ => {
                let late = WriteTimestamp { time_ns: u64::MAX - self.random.below(4), node: Stamper(7) };
                let moment = PushTime { stamp: late, wall_ns: self.random.next() };
                let group = if self.random.chance(50) { Group::delete(late) } else { Group::post(moment, Vec::new()) };
                let id = GroupId::local(LabelSet::new([("job", format!("j{}", self.random.below(3)))]));
                let upto = self.random.span(1, 1 << 50);
                Message::Update(Update {
                    upto: Revision(upto),
                    partial: self.random.chance(20),
                    last_of_resync: self.random.chance(50),
                    ack_may_wait: upto.is_multiple_of(2),
                    deltas: vec![Delta { id, group }],
                })
            }
        }
    }
}

fn file_len(disk: &SimulatedDisk, name: &str) -> u64 {
    disk.open(name).and_then(|file| file.len()).unwrap_or(0)
}
