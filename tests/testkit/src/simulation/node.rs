//! A node: its disk, its clock, its store while it runs, and the content that must survive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushrelay::commit::{Engine, MergeSequence, Retention};
use pushrelay::model::{Epoch, GroupId, LabelSet, NodeId as Stamper, Revision, StoreId, WriteTimestamp};
use pushrelay::node::clock::reading;
use pushrelay::session::{HubSessions, NodeName, PeerProgress, SessionId};
use pushrelay::storage::{self, CheckpointWriter, CommitError, Disk, Log, Recovered, SyncPolicy, recover};
use pushrelay::store::{self, Identity, Record, Rules, Store};

use super::bug::Bug;
use super::committer::{Command, Replies};
use super::content::Content;
use super::{Checked, ConnId, EPOCH_NS, Event, MILLISECOND, NodeId, SECOND, World, Wrong};
use crate::SimulatedDisk;

/// The sessions of a hub, at most.
const SESSIONS_MAX: usize = 100;

/// One of a node's links to hubs.
#[derive(Debug)]
pub struct Uplink {
    pub hub: NodeId,
    pub conn: Option<ConnId>,
    pub backoff_ns: u64,
    /// The progress with the hub's store; lost when the node ends.
    pub progress: Option<PeerProgress>,
    /// The encoder that [`Bug::DictionaryKept`] keeps.
    pub kept: Option<pushrelay::wire::Encoder>,
}

/// The revisions of a site, as a `watch` channel reports them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    pub version: u64,
    pub head: Revision,
}

/// A node, running or not.
pub struct Node {
    /// The name in its certificate.
    pub name: String,
    pub is_hub: bool,
    /// The site that its hubs assign to it, if it has hubs.
    pub site: Option<usize>,
    pub uplinks: Vec<Uplink>,
    pub diskless: bool,
    pub disk: SimulatedDisk,
    /// The machine stops at this operation of the disk.
    pub halt_at: Option<u64>,
    /// Its wall clock minus the right time.
    pub skew_ns: i64,
    /// The hub's clock minus its own, as measured.
    pub offset_ns: i64,
    /// Counts starts and ends. An event of another life is ignored.
    pub life: u64,
    pub running: Option<Box<Running>>,
    /// Whether an operator keeps it down.
    pub off: bool,
    /// The node of which it is a copy, or which is a copy of it.
    pub twin: Option<NodeId>,
    /// The content that it made durable.
    pub durable: Content,
    /// Transactions that the disk may have or not.
    pub doubtful: Vec<Vec<Record>>,
    /// A copy of its disk for a roll-back.
    pub image: Option<(SimulatedDisk, Content)>,
    /// Whether a bit on its disk was flipped.
    pub damaged: bool,
    /// The tombstones of its former site, when it got another site.
    pub moved_with: BTreeMap<GroupId, WriteTimestamp>,
    /// Whether it has the rules of expiry.
    pub has_rules: bool,
    /// How often it lost content, how often its clock was set, and how many of its commits failed.
    pub losses: u64,
    pub jumps: u64,
    pub failures: u64,
    /// Whether it was rolled back since it last started.
    pub was_rolled_back: bool,
    /// The time by its clock when it last started.
    pub started_ns: u64,
    /// Whether it was ever rolled back, wiped or damaged.
    pub lost_something: bool,
    /// Deletes whose tombstones it was right to drop.
    pub dropped: BTreeMap<GroupId, WriteTimestamp>,
    /// Tombstones that this hub must keep until the retention has passed.
    pub kept: BTreeMap<GroupId, WriteTimestamp>,
    /// The identity and epoch that [`Bug::MemoryStoreKeepsIdentity`] and [`Bug::EpochKept`] keep.
    pub identity: Option<(Identity, Epoch)>,
}

/// The state of a node while it runs.
pub struct Running {
    pub engine: Engine<Replies>,
    pub log: Option<Log>,
    pub queue: VecDeque<Command>,
    /// The result of the disk for the transaction in progress.
    pub batch: Option<Result<(), String>>,
    pub begin_due: bool,
    /// For each end of a connection, its merges.
    pub sequences: BTreeMap<(ConnId, usize), MergeSequence>,
    pub checkpoint: Option<(CheckpointWriter, VecDeque<Record>)>,
    /// A watch for each site that a link follows; under no labels the watch of all groups.
    pub watches: BTreeMap<Arc<LabelSet>, Watch>,
    pub hub: HubSessions,
    pub sessions: BTreeMap<SessionId, ConnId>,
    /// The committer does nothing before this time.
    pub stalled_until: u64,
}

pub fn disk_options() -> storage::DiskOptions {
    storage::DiskOptions { sync: SyncPolicy::Always, checkpoint_log_bytes_min: 4_096, reserve_bytes: 512 }
}

impl Node {
    pub fn new(name: String, is_hub: bool, site: Option<usize>, hubs: Vec<NodeId>, diskless: bool, seed: u64) -> Node {
        let uplink = |hub| Uplink { hub, conn: None, backoff_ns: 0, progress: None, kept: None };
        Node {
            name,
            is_hub,
            site,
            uplinks: hubs.into_iter().map(uplink).collect(),
            diskless,
            disk: SimulatedDisk::new(seed),
            halt_at: None,
            skew_ns: 0,
            offset_ns: 0,
            life: 0,
            running: None,
            off: false,
            twin: None,
            durable: Content::default(),
            doubtful: Vec::new(),
            image: None,
            damaged: false,
            moved_with: BTreeMap::new(),
            has_rules: false,
            losses: 0,
            jumps: 0,
            failures: 0,
            was_rolled_back: false,
            started_ns: 0,
            lost_something: false,
            dropped: BTreeMap::new(),
            kept: BTreeMap::new(),
            identity: None,
        }
    }

    pub fn uplink_hubs(&self) -> Vec<NodeId> {
        self.uplinks.iter().map(|uplink| uplink.hub).collect()
    }

    /// The name that its peers get.
    pub fn link_name(&self) -> NodeName {
        NodeName { node: self.name.clone(), software: "simulation".into() }
    }

    pub fn rules(&self) -> Rules {
        Rules { has_hubs: !self.uplinks.is_empty(), has_edges: self.is_hub, ..Rules::default() }
    }

    /// Whether the disk took its last operation before the machine stopped.
    pub fn is_halted(&self) -> bool {
        self.halt_at.is_some_and(|at| self.disk.operations() > at)
    }
}

/// A copy of the files as they are now, on a disk of its own.
pub fn copy_disk(of: &SimulatedDisk, seed: u64) -> SimulatedDisk {
    let copy = SimulatedDisk::new(seed);
    for name in of.list().unwrap_or_default() {
        let Ok(from) = of.open(&name) else { continue };
        let mut bytes = vec![0; from.len().unwrap_or(0) as usize];
        let len = from.read_at(0, &mut bytes).unwrap_or(0);
        let mut to = copy.create(&name).expect("the copy is empty");
        to.write_at(0, &bytes[..len]).expect("there is room");
        to.sync().expect("it works");
    }
    copy.sync_dir().expect("it works");
    copy
}

/// The content that a recovery finds on a copy of the disk.
pub fn content_of_disk(disk: &SimulatedDisk) -> Content {
    let copy = copy_disk(disk, 0);
    let mut content = Content::default();
    let _ = recover(Arc::new(copy), disk_options(), &mut |record| content.apply(&record));
    content
}

/// [`storage::open`] with [`Bug::DamagedStoreKeepsIdentity`].
fn begin_trusting(
    mut store: Store,
    recovered: Recovered,
    identity: Identity,
    epoch: Epoch,
) -> Result<(Store, Log), CommitError> {
    let mut log = recovered.start(identity)?;
    store.open(identity, epoch);
    log.commit(store.records())?;
    store.commit();
    Ok((store, log))
}

/// Why a node did not start.
enum NotStarted {
    /// The machine stopped in the meantime.
    Halted,
    /// The disk does not work.
    Refused(String),
}

impl World {
    pub fn wall_ns(&self, node: NodeId) -> u64 {
        (EPOCH_NS + self.now).saturating_add_signed(self.nodes[node].skew_ns)
    }

    pub fn session_now(&self, node: NodeId) -> pushrelay::session::SessionTime {
        pushrelay::session::SessionTime { monotonic_ns: self.now, wall_ns: self.wall_ns(node) }
    }

    pub fn store_now(&self, node: NodeId) -> store::WriteTime {
        reading(self.wall_ns(node), self.nodes[node].offset_ns, self.now)
    }

    /// Starts a node, or tries again later.
    pub fn start(&mut self, at: NodeId, life: u64) -> Checked {
        let node = &self.nodes[at];
        if node.life != life || node.running.is_some() || node.off {
            return Ok(());
        }
        let opened = if node.diskless { Ok(self.open_in_memory(at)) } else { self.open_on_disk(at) };
        match opened {
            Ok((store, log)) => self.run_node(at, store, log),
            Err(NotStarted::Halted) => {
                self.count("fault: crash while starting");
                self.machine_stops(at, true)?;
            }
            Err(NotStarted::Refused(text)) => {
                self.count("state: start refused by the disk");
                self.trace(|| format!("{at} does not start: {text}"));
                self.nodes[at].disk.kill();
                let wait = self.random.span(SECOND / 10, 10 * SECOND);
                self.after(wait, Event::Start { node: at, life });
            }
        }
        Ok(())
    }

    fn draw_identity(&mut self) -> Identity {
        Identity { store: StoreId(self.random.id()), node: Stamper(self.random.id()) }
    }

    fn open_in_memory(&mut self, at: NodeId) -> (Store, Option<Log>) {
        let mut store = Store::new(self.nodes[at].rules(), &[]);
        let (mut identity, mut epoch) = (self.draw_identity(), Epoch(self.random.id()));
        if self.is(Bug::MemoryStoreKeepsIdentity) {
            (identity, epoch) = self.nodes[at].identity.unwrap_or((identity, epoch));
        }
        self.nodes[at].identity = Some((identity, epoch));
        store.open(identity, epoch);
        store.commit();
        (store, None)
    }

    fn open_on_disk(&mut self, at: NodeId) -> Result<(Store, Option<Log>), NotStarted> {
        let (fresh, drawn) = (self.draw_identity(), Epoch(self.random.id()));
        let node = &mut self.nodes[at];
        let refused = |node: &Node, error: String| match node.is_halted() {
            true => NotStarted::Halted,
            false => NotStarted::Refused(error),
        };
        let mut store = Store::new(node.rules(), &[]);
        let disk = Arc::new(node.disk.clone());
        let forgets_keys = self.options.bug == Some(Bug::KeyForgotten);
        let recovered = recover(disk, disk_options(), &mut |record| match record {
            Record::Key(_) if forgets_keys => {}
            record => store.restore(record),
        });
        let recovered = recovered.map_err(|error| refused(node, error.to_string()))?;
        let intact = recovered.report.is_intact();
        let is_kept = match self.options.bug {
            Some(Bug::EpochKept) => true,
            Some(Bug::ContributionReused) => node.was_rolled_back,
            _ => false,
        };
        let kept = node.identity.filter(|_| is_kept);
        let epoch = kept.map_or(drawn, |(_, epoch)| epoch);
        let begun = match recovered.identity {
            Some(identity) if self.options.bug == Some(Bug::DamagedStoreKeepsIdentity) => {
                begin_trusting(store, recovered, identity, epoch)
            }
            _ => storage::open(store, recovered, fresh, epoch),
        };
        let (store, log) = begun.map_err(|error| refused(node, error.to_string()))?;
        node.identity = Some((store.identity(), epoch));
        node.was_rolled_back = false;
        if !intact {
            self.count("state: damage found, and a new identity taken");
        }
        self.recovered(at, &store, intact).map_err(|wrong| {
            // It cannot be returned from here: the next batch of any node returns it.
            self.oracle.wrong.get_or_insert(wrong.0);
            NotStarted::Refused("see above".into())
        })?;
        Ok((store, Some(log)))
    }

    /// Compares the recovered content with the content that was made durable.
    fn recovered(&mut self, at: NodeId, store: &Store, intact: bool) -> Checked {
        let found = Content::of(store);
        let node = &mut self.nodes[at];
        let doubtful = std::mem::take(&mut node.doubtful);
        let damaged = std::mem::take(&mut node.damaged);
        if !intact || (damaged && found != node.durable) {
            // With a flipped bit in it, the last transaction looks like one that the machine did not finish.
            node.lost_something = true;
            return self.replace_content(at, found);
        }
        if found != node.durable {
            let held = doubtful.iter().find(|records| node.durable.with(records) == found);
            let Some(records) = held.cloned() else {
                // Damage behind the acknowledged part costs nothing: it looks like a torn tail.
                let difference = found.difference(&node.durable);
                return Err(Wrong(format!("node {at} came back other than it was durable: {difference}")));
            };
            self.count("state: an unanswered transaction was found after a crash");
            self.made_durable(at, &records);
        }
        Ok(())
    }

    fn run_node(&mut self, at: NodeId, store: Store, log: Option<Log>) {
        let node = &mut self.nodes[at];
        node.life += 1;
        let life = node.life;
        let uplinks = node.uplinks.len();
        let hub_ns = if node.is_hub { self.plan.retention_ns } else { 0 };
        let hub_ns = if self.options.bug == Some(Bug::RetentionIgnored) { 0 } else { hub_ns };
        let retention = Retention { uplinks, hub_ns };
        let name = node.link_name();
        node.running = Some(Box::new(Running {
            engine: Engine::new(store, retention),
            log,
            queue: VecDeque::new(),
            batch: None,
            begin_due: false,
            sequences: BTreeMap::new(),
            checkpoint: None,
            watches: BTreeMap::new(),
            hub: HubSessions::new(name, SESSIONS_MAX),
            sessions: BTreeMap::new(),
            stalled_until: 0,
        }));
        node.offset_ns = 0;
        self.nodes[at].started_ns = self.wall_ns(at);
        self.trace(|| format!("{at} starts"));
        self.count("node started");
        for uplink in 0..uplinks {
            self.nodes[at].uplinks[uplink].conn = None;
            if self.options.bug != Some(Bug::ProgressKept) {
                self.nodes[at].uplinks[uplink].progress = None;
            }
            let wait = self.random.below(100 * MILLISECOND);
            self.after(wait, Event::Dial { node: at, uplink, life });
        }
        self.after(10 * SECOND, Event::Sweep { node: at, life });
        self.begin_expiry(at, life);
    }

    /// A running node's sweeper.
    pub fn sweep(&mut self, at: NodeId, life: u64) {
        if self.nodes[at].life == life && self.nodes[at].running.is_some() {
            self.ask(at, Command::Sweep);
            self.after(10 * SECOND, Event::Sweep { node: at, life });
        }
    }

    /// The process ends at once, and the machine with it if `power`. It starts again later.
    pub fn machine_stops(&mut self, at: NodeId, power: bool) -> Checked {
        let node = &mut self.nodes[at];
        node.life += 1;
        let life = node.life;
        node.running = None;
        node.halt_at = None;
        if power {
            node.disk.crash()
        } else {
            node.disk.kill()
        }
        self.trace(|| format!("{at} dies, power {power}"));
        self.cut_off(at, power);
        if self.nodes[at].diskless {
            self.nodes[at].lost_something = true;
            self.replace_content(at, Content::default())?;
        }
        let wait = self.random.span(SECOND / 100, 60 * SECOND);
        self.after(wait, Event::Start { node: at, life });
        Ok(())
    }
}
