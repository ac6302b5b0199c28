//! The simulation: a whole system in one thread and virtual time, for `tests/simulation.rs` and `examples/simulate.rs`.
//! The product's stores, sessions, messages, logs and checkpoints run over networks and disks that fail as the seed says.
//!
//! [`run`] runs one seed. `docs/contributing/testing.md` describes topologies, faults and the oracle.
//!
//! Read in this order: `random`, `content` and `oracle` (the invariants), `node`, `committer` and `commands` (a node and
//! its committer), `link`, `driver` and `hub` (connections, their ends, sessions), `load` (pushes), `adding` (pushes that add), `expiry` (groups that end), `fault` (faults),
//! `story` and `windows` (sequences of faults), `finish` (convergence without faults), `topology` (the links between nodes) and `bug` and
//! `planted_sums` (planted mistakes).

mod adding;
mod bug;
mod commands;
mod committer;
mod content;
mod driver;
mod expiry;
mod fault;
mod finish;
mod hub;
mod link;
mod load;
mod node;
mod oracle;
mod planted_sums;
mod random;
mod story;
mod topology;
mod windows;

use std::collections::BTreeMap;
use std::fmt;

use link::Conn;
use node::Node;
use oracle::Oracle;
use random::Random;

pub use bug::Bug;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// When virtual time begins, by a clock that is right.
const EPOCH_NS: u64 = 1_700_000_000 * SECOND;
/// Events in one run, at most: more mean that something runs in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// How a run is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The planted mistake, if there is one.
    pub bug: Option<Bug>,
    /// Whether to keep a trace.
    pub trace: bool,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The violation that the oracle found.
    pub failure: Option<String>,
    /// The events, if a trace was asked for.
    pub trace: Vec<String>,
    /// How often each kind of event happened.
    pub coverage: BTreeMap<&'static str, u64>,
    /// The number of events.
    pub events: u64,
    /// The virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
    /// A digest of all events. Two runs of a seed must have the same.
    pub digest: u64,
}

/// A violation.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Checked<T = ()> = Result<T, Wrong>;

/// The index of a node.
type NodeId = usize;
/// The number of a connection.
type ConnId = usize;

/// The edge's end of a connection, and the hub's.
const EDGE: usize = 0;
const HUB: usize = 1;

/// A future event.
#[derive(Debug)]
enum Event {
    /// The next packet to that end is there.
    Deliver {
        conn: ConnId,
        end: usize,
    },
    Tick {
        conn: ConnId,
        end: usize,
    },
    Head {
        conn: ConnId,
        end: usize,
    },
    /// The committer answers an end that asked for the state of the store.
    Info {
        conn: ConnId,
        end: usize,
        info: Box<pushrelay::store::StoreInfo>,
    },
    /// The hub's end has closed for good.
    Over {
        conn: ConnId,
    },
    JoinTimeout {
        conn: ConnId,
    },
    Dial {
        node: NodeId,
        uplink: usize,
        life: u64,
    },
    Connect {
        node: NodeId,
        uplink: usize,
        life: u64,
    },
    /// The committer takes a batch; it is durable, or not; a checkpoint goes on.
    Begin {
        node: NodeId,
        life: u64,
    },
    End {
        node: NodeId,
        life: u64,
    },
    Checkpoint {
        node: NodeId,
        life: u64,
    },
    Sweep {
        node: NodeId,
        life: u64,
    },
    Start {
        node: NodeId,
        life: u64,
    },
    /// A node looks for groups that have expired.
    Expire {
        node: NodeId,
        life: u64,
    },
    Push,
    /// The last push of a story.
    LastPush {
        node: NodeId,
    },
    /// A pusher repeats a push with its key.
    Repeat {
        increment: usize,
    },
    Fault,
    Story,
    Hostile {
        conn: ConnId,
        left: u64,
    },
    RepairDisk {
        node: NodeId,
    },
}

/// The state of a run.
struct World {
    options: Options,
    random: Random,
    story: story::Story,
    /// The chances of the story.
    script: Random,
    now: u64,
    sequence: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    conns: BTreeMap<ConnId, Box<Conn>>,
    next_conn: ConnId,
    oracle: Oracle,
    plan: topology::Plan,
    /// The expiry of this seed, if it has any.
    expiry: Option<expiry::Expiry>,
    /// The pushes that add of this seed, if it has any.
    adding: Option<adding::Adding>,
    /// Between which nodes nothing gets through, and until when.
    partitions: BTreeMap<(NodeId, NodeId), u64>,
    /// The faults of this seed are over: all is well from now on.
    quiet: bool,
    /// No more pushes and faults but those of the story.
    is_calm: bool,
    /// Hubs send to each other in a circle: what is sent on is nobody's promise.
    is_ring: bool,
    pushes: u64,
    outcome: Outcome,
}

/// Runs a seed.
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = topology::build(seed, options);
    if let Err(wrong) = world.live().and_then(|()| world.finish()) {
        let wrong = format!("at {}: {wrong}", world.clock());
        world.trace(|| format!("WRONG: {wrong}"));
        world.outcome.failure = Some(wrong);
    }
    world.outcome.virtual_ns = world.now;
    world.outcome
}

impl World {
    /// The time of faults.
    fn live(&mut self) -> Checked {
        self.run_until(self.plan.chaos_ns)
    }

    fn run_until(&mut self, end: u64) -> Checked {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.outcome.events += 1;
            if self.outcome.events > EVENTS_MAX {
                return Err(Wrong(format!("{EVENTS_MAX} events and no end: the last is {event:?}")));
            }
            self.happen(event)?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        self.note(&event);
        match event {
            Event::Deliver { conn, end } => self.deliver(conn, end),
            Event::Tick { conn, end } => self.tick(conn, end),
            Event::Head { conn, end } => self.report_head(conn, end),
            Event::Info { conn, end, info } => self.info_ready(conn, end, *info),
            Event::Over { conn } => self.session_over(conn),
            Event::JoinTimeout { conn } => self.replaced(conn),
            Event::Dial { node, uplink, life } => self.dial(node, uplink, life),
            Event::Connect { node, uplink, life } => self.connect(node, uplink, life),
            Event::Begin { node, life } => return self.begin_batch(node, life),
            Event::End { node, life } => return self.end_batch(node, life),
            Event::Checkpoint { node, life } => return self.checkpoint_step(node, life),
            Event::Sweep { node, life } => self.sweep(node, life),
            Event::Start { node, life } => return self.start(node, life),
            Event::Expire { node, life } => self.sweep_expired(node, life),
            Event::Push => self.push(),
            Event::LastPush { node } => self.last_push(node),
            Event::Repeat { increment } => self.repeat(increment),
            Event::Fault => return self.fault(),
            Event::Story => return self.story(),
            Event::Hostile { conn, left } => self.hostile(conn, left),
            Event::RepairDisk { node } => self.repair_disk(node),
        }
        Ok(())
    }

    /// Mixes what happens into the digest.
    fn note(&mut self, event: &Event) {
        let (kind, what) = match event {
            Event::Deliver { conn, end } => (1, conn * 2 + end),
            Event::Tick { conn, end } => (2, conn * 2 + end),
            Event::Head { conn, end } => (3, conn * 2 + end),
            Event::Begin { node, .. } => (4, *node),
            Event::End { node, .. } => (5, *node),
            Event::Start { node, .. } => (6, *node),
            _ => (7, 0),
        };
        let mixed = self.outcome.digest.rotate_left(7) ^ self.now ^ (kind << 56) ^ ((what as u64) << 40);
        self.outcome.digest = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.agenda.insert((time.max(self.now), self.sequence), event);
    }

    fn count(&mut self, what: &'static str) {
        *self.outcome.coverage.entry(what).or_default() += 1;
    }

    fn is(&self, bug: Bug) -> bool {
        self.options.bug == Some(bug)
    }

    fn clock(&self) -> String {
        format!("{:.3}s", self.now as f64 / 1e9)
    }

    fn trace(&mut self, text: impl FnOnce() -> String) {
        if self.options.trace {
            let line = format!("{:>10} {}", self.clock(), text());
            self.outcome.trace.push(line);
        }
    }
}
