//! An edge and a hub with their stores, and a connection between them that is bytes in two queues.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::store::{Seen, Store, seen};
use crate::model::{Group, LabelSet, Position, Revision, StoreId};
use crate::session::event::SECOND_NS;
use crate::session::{
    Admitted, BATCH_BYTES_MAX, Closed, CommitId, Config, EdgeConfig, Endpoint, Established, Event, HubConfig, Lag,
    OriginFilter, PROGRESS_NS, PeerProgress, SessionAction, SessionEvent, SessionTime,
};
use crate::wire::{ConflictReport, Decoder, Delta, Encoder, Health, Message};

pub const EDGE: usize = 0;
pub const HUB: usize = 1;

struct Commit {
    id: CommitId,
    deltas: Vec<Delta>,
    peer: StoreId,
    position: Position,
}

/// Times and bounds as nodes have them.
pub fn config() -> Config {
    Config {
        handshake_ns: 10 * SECOND_NS,
        batch_bytes_max: BATCH_BYTES_MAX,
        message_bytes_max: 64 << 20,
        progress_ns: PROGRESS_NS,
        send_interval_ns: 0,
    }
}

/// One end's side of a connection.
pub struct Side {
    pub endpoint: Endpoint,
    encoder: Encoder,
    decoder: Decoder,
    /// Bytes on their way to this end.
    inbox: VecDeque<Vec<u8>>,
    reads: VecDeque<(Revision, OriginFilter)>,
    commits: VecDeque<Commit>,
    pub peer_lag_ns: Option<u64>,
    pub peer_health: Option<Arc<Health>>,
    /// The families that the peer reported as suppressed.
    pub suppressed: Vec<ConflictReport>,
    pub established: Option<Established>,
    pub resync_completed: bool,
    pub closed: Option<Closed>,
    pub acked: Option<Revision>,
    pub offset_ns: Option<i64>,
    pub groups_sent: usize,
    pub messages_sent: BTreeMap<&'static str, usize>,
}

impl Side {
    fn new(endpoint: Endpoint) -> Side {
        Side {
            endpoint,
            encoder: Encoder::new(),
            decoder: Decoder::new(1 << 20),
            inbox: VecDeque::new(),
            reads: VecDeque::new(),
            commits: VecDeque::new(),
            peer_lag_ns: None,
            peer_health: None,
            suppressed: Vec::new(),
            established: None,
            resync_completed: false,
            closed: None,
            acked: None,
            offset_ns: None,
            groups_sent: 0,
            messages_sent: BTreeMap::new(),
        }
    }
}

pub struct Pair {
    pub stores: [Store; 2],
    pub sides: Option<[Side; 2]>,
    pub now_ns: u64,
    /// The hub's clock minus the edge's.
    pub ahead_ns: u64,
    /// All that was written and not lost.
    pub oracle: BTreeMap<Arc<LabelSet>, Group>,
    pub marks_max: usize,
    /// The interval of updates at both ends.
    pub send_interval_ns: u64,
    pub forget_tombstones: bool,
    /// Both ends acknowledge every update at once.
    pub acks_at_once: bool,
    /// The families that the next commit suppresses.
    pub suppressed: Vec<ConflictReport>,
    /// The progress that each end knows from earlier sessions.
    pub progress: [Option<PeerProgress>; 2],
    fresh: u64,
}

impl Pair {
    pub fn new() -> Pair {
        let stores = [Store::create(101, 1), Store::create(102, 2)];
        Pair {
            stores,
            sides: None,
            now_ns: 0,
            ahead_ns: 0,
            oracle: BTreeMap::new(),
            marks_max: 2,
            send_interval_ns: 0,
            forget_tombstones: false,
            acks_at_once: false,
            suppressed: Vec::new(),
            progress: [None, None],
            fresh: 1_000,
        }
    }

    pub fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    fn now(&self, end: usize) -> SessionTime {
        let ahead_ns = if end == HUB { self.ahead_ns } else { 0 };
        SessionTime { monotonic_ns: self.now_ns, wall_ns: 1_700_000_000_000_000_000 + self.now_ns + ahead_ns }
    }

    pub fn connect(&mut self) {
        self.cut();
        let link = Config { send_interval_ns: self.send_interval_ns, ..config() };
        let progress = self.progress[EDGE].clone();
        let config = EdgeConfig { link, labels: LabelSet::default(), lag: Lag::default(), progress };
        let edge = Endpoint::edge(config, self.stores[EDGE].info(), self.now(EDGE));
        let link = Config { message_bytes_max: 64 << 10, ..link };
        let hub = Endpoint::hub(HubConfig { link, heartbeat_ns: 5 * SECOND_NS }, self.now(HUB));
        self.sides = Some([Side::new(edge), Side::new(hub)]);
        self.perform(EDGE);
    }

    /// The connection breaks: what is on its way is lost, what is being committed is committed.
    pub fn cut(&mut self) {
        for end in [EDGE, HUB] {
            while self.commit(end) {}
        }
        self.sides = None;
    }

    /// The process of one end dies; what it was committing is lost.
    pub fn crash(&mut self, end: usize) {
        if let Some(sides) = &mut self.sides {
            sides[end].commits.clear();
        }
        self.cut();
        let epoch = self.fresh();
        self.progress[end] = None;
        self.stores[end] = self.stores[end].clone().open(epoch);
    }

    /// One end goes on with another store: an older copy, or an empty one.
    pub fn replace(&mut self, end: usize, store: Store) {
        if let Some(sides) = &mut self.sides {
            sides[end].commits.clear();
        }
        self.cut();
        let epoch = self.fresh();
        self.progress[end] = None;
        self.stores[end] = store.open(epoch);
        let mut left = BTreeMap::<Arc<LabelSet>, Group>::new();
        for (key, group) in self.stores.iter().flat_map(Store::groups) {
            left.entry(key.clone()).or_default().merge(group);
        }
        self.oracle = left;
    }

    pub fn write(&mut self, end: usize, key: &Arc<LabelSet>, change: &Group) {
        self.stores[end].merge(key, change, None);
        self.oracle.entry(key.clone()).or_default().merge(change);
        self.publish(end);
    }

    fn publish(&mut self, end: usize) {
        let head = self.stores[end].head();
        self.tell(end, Event::Head(head));
    }

    pub fn tell(&mut self, end: usize, event: Event) {
        let now = self.now(end);
        if let Some(sides) = &mut self.sides {
            sides[end].endpoint.handle(event, now);
            self.perform(end);
        }
    }

    fn perform(&mut self, end: usize) {
        while let Some(sides) = &mut self.sides {
            let Some(action) = sides[end].endpoint.poll_action() else { return };
            let side = &mut sides[end];
            match action {
                SessionAction::Send(message) => {
                    *side.messages_sent.entry(message.name()).or_default() += 1;
                    if let Message::Update(update) = &message {
                        side.groups_sent += update.deltas.len();
                    }
                    let mut bytes = Vec::new();
                    side.encoder.encode(&message, &mut bytes);
                    sides[1 - end].inbox.push_back(bytes);
                }
                SessionAction::Admit(_) => {
                    let (info, site) = (self.stores[end].info(), LabelSet::new([("IDC", "SYQ")]));
                    let (upstream_stores, progress) = (Vec::new(), self.progress[HUB].clone());
                    self.tell(end, Event::Admitted(Admitted { info, site, upstream_stores, progress }));
                }
                SessionAction::Read { since, skip, .. } => side.reads.push_back((since, skip)),
                SessionAction::Commit { id, deltas, peer, position } => {
                    side.commits.push_back(Commit { id, deltas, peer, position });
                }
                SessionAction::Notify(event) => self.observe(end, event),
                SessionAction::Close(closed) => side.closed = Some(closed),
            }
        }
    }

    fn observe(&mut self, end: usize, event: SessionEvent) {
        event.follow(&mut self.progress[end]);
        let Some(sides) = &mut self.sides else { return };
        let side = &mut sides[end];
        match event {
            SessionEvent::PeerAcked(revision) => side.acked = Some(revision),
            SessionEvent::PeerCursor(revision) => {
                if self.forget_tombstones && end == EDGE {
                    self.stores[end].forget_tombstones(revision);
                }
            }
            SessionEvent::ClockOffset(offset_ns) => side.offset_ns = Some(offset_ns),
            SessionEvent::Suppressed(reports) => side.suppressed.extend(reports),
            SessionEvent::PeerLag { lag_ns, .. } => side.peer_lag_ns = Some(lag_ns),
            SessionEvent::PeerHealth(health) => side.peer_health = Some(health),
            SessionEvent::Established(established) => side.established = Some(*established),
            SessionEvent::ResyncCompleted => side.resync_completed = true,
            SessionEvent::Unsendable { .. } => panic!("all families are small"),
            SessionEvent::Received(_) | SessionEvent::ReceivedUpto(_) | SessionEvent::Head(_) | SessionEvent::Heard => {
            }
        }
    }

    pub fn deliver(&mut self, end: usize) -> bool {
        let now = self.now(end);
        let Some(sides) = &mut self.sides else { return false };
        let Some(bytes) = sides[end].inbox.pop_front() else { return false };
        let mut message = sides[end].decoder.decode(&bytes).unwrap();
        if let Message::Update(update) = &mut message {
            update.ack_may_wait &= !self.acks_at_once;
        }
        sides[end].endpoint.handle(Event::Message(message), now);
        self.perform(end);
        true
    }

    pub fn read(&mut self, end: usize) -> bool {
        let Some(sides) = &mut self.sides else { return false };
        let Some((since, skip)) = sides[end].reads.pop_front() else { return false };
        let batch = self.stores[end].read(since, skip, self.marks_max);
        self.tell(end, Event::Read(batch));
        true
    }

    pub fn commit(&mut self, end: usize) -> bool {
        let Some(sides) = &mut self.sides else { return false };
        let Some(commit) = sides[end].commits.pop_front() else { return false };
        self.stores[end].commit(&commit.deltas, commit.peer, commit.position);
        self.publish(end);
        let suppressed = std::mem::take(&mut self.suppressed);
        self.tell(end, Event::Committed { id: commit.id, suppressed });
        true
    }

    /// One of the things that could happen next; false if nothing can.
    pub fn step(&mut self, choice: usize) -> bool {
        self.now_ns += 1_000_000;
        self.step_at_once(choice)
    }

    fn step_at_once(&mut self, choice: usize) -> bool {
        let things = [Pair::deliver, Pair::read, Pair::commit];
        (0..6).any(|at| {
            let at = (choice + at) % 6;
            things[at / 2](self, at % 2)
        })
    }

    /// Goes on until nothing is on its way, in no time.
    pub fn rest(&mut self) {
        while self.step_at_once(0) {}
    }

    /// Goes on until nothing is on its way. No end may have had a reason to close.
    pub fn settle(&mut self) {
        let mut steps = 0;
        while self.step(steps) {
            steps += 1;
            assert!(steps < 100_000, "the two never come to rest");
        }
        for side in self.sides.iter().flatten() {
            assert_eq!(side.closed, None);
        }
    }

    /// Lets time pass, with all that is due in it.
    pub fn pass(&mut self, ns: u64) {
        let end_ns = self.now_ns + ns;
        while let Some(sides) = &self.sides {
            let due = sides.iter().filter_map(|side| side.endpoint.next_timeout()).min();
            let Some(due_ns) = due.filter(|due_ns| *due_ns <= end_ns) else { break };
            self.now_ns = self.now_ns.max(due_ns);
            self.tell(EDGE, Event::Tick);
            self.tell(HUB, Event::Tick);
            while self.step(0) {}
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    pub fn side(&self, end: usize) -> &Side {
        &self.sides.as_ref().unwrap()[end]
    }

    pub fn seen(&self) -> [BTreeMap<Arc<LabelSet>, Seen>; 3] {
        [self.stores[EDGE].seen(), self.stores[HUB].seen(), seen(self.oracle.iter())]
    }
}
