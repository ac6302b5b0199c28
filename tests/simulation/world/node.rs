//! A node: its disk, its clock, its store while it runs, and what of it must survive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushrelay::model::{Epoch, GroupId, LabelSet, NodeId as Stamper, Revision, StoreId, WriteTimestamp};
use pushrelay::node::clock::reading;
use pushrelay::node::draft::{MergeSequence, Transaction};
use pushrelay::session::{Admission, UpstreamStores};
use pushrelay::storage::{self, CheckpointWriter, CommitError, Disk, Log, Recovered, SyncPolicy, recover};
use pushrelay::store::{self, Identity, Record, Rules, Store};
use pushrelay_testkit::SimulatedDisk;

use super::bug::Bug;
use super::content::Content;
use super::writer::{Answer, Job};
use super::{Checked, ConnId, EPOCH_NS, Event, MILLISECOND, NodeId, SECOND, World, Wrong};

/// One of a node's links to hubs.
#[derive(Debug)]
pub struct Uplink {
    pub hub: NodeId,
    pub conn: Option<ConnId>,
    pub backoff_ns: u64,
    /// What [`Bug::DictionaryKept`] keeps.
    pub kept: Option<pushrelay::wire::Encoder>,
}

/// The revisions of a place, as `watch` channels tell them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    pub version: u64,
    pub head: Revision,
}

/// What a node is.
pub struct Node {
    /// What its certificate says.
    pub name: String,
    pub is_hub: bool,
    /// Where its hubs have it, if it has any.
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
    /// Counts starts and ends: an event of another life is void.
    pub life: u64,
    pub running: Option<Box<Running>>,
    /// An operator keeps it down.
    pub off: bool,
    /// It is a copy of that node, or that node of it.
    pub twin: Option<NodeId>,
    /// What it made durable.
    pub durable: Content,
    /// Transactions of which it is not known whether the disk has them.
    pub doubtful: Vec<Vec<Record>>,
    /// A copy of its disk, to be rolled back to.
    pub image: Option<(SimulatedDisk, Content)>,
    /// Its disk has bytes that nobody wrote.
    pub damaged: bool,
    /// Tombstones that it had when it got another place: of what was deleted at the place before.
    pub moved_with: BTreeMap<GroupId, WriteTimestamp>,
    /// It was rolled back, wiped or damaged at some time.
    pub lost_something: bool,
    /// Deletes whose tombstones it has dropped rightly.
    pub dropped: BTreeMap<GroupId, WriteTimestamp>,
    /// Tombstones that this hub has to keep until its clock has passed their time.
    pub kept: BTreeMap<GroupId, WriteTimestamp>,
    /// What [`Bug::MemoryStoreKeepsIdentity`] and [`Bug::EpochKept`] keep.
    pub identity: Option<(Identity, Epoch)>,
}

/// What a node is while it runs.
pub struct Running {
    pub store: Store,
    pub log: Option<Log>,
    pub queue: VecDeque<Job>,
    /// The batch that is being made durable: what to answer, and whether the disk took it.
    pub batch: Option<Batch>,
    pub begin_due: bool,
    pub drafted: Transaction,
    /// The merges of each end of a connection.
    pub chains: BTreeMap<(ConnId, usize), MergeSequence>,
    /// Of each uplink, up to where its hub holds the changes.
    pub held: Vec<Revision>,
    pub checkpoint: Option<(CheckpointWriter, VecDeque<Record>)>,
    /// Of each place, and under no labels of all that is shown.
    pub watches: BTreeMap<Arc<LabelSet>, Watch>,
    pub admission: Admission,
    pub upstream_stores: UpstreamStores,
    pub sessions: BTreeMap<u64, ConnId>,
    /// The writer does nothing before.
    pub stalled_until: u64,
}

/// See [`Running::batch`].
pub struct Batch {
    pub answers: Vec<Answer>,
    pub result: Result<bool, String>,
    /// What pushes of the batch must show when it is published.
    pub shown: super::writer::Due,
}

pub fn disk_options() -> storage::DiskOptions {
    storage::DiskOptions { sync: SyncPolicy::Always, checkpoint_log_bytes_min: 4_096, reserve_bytes: 512 }
}

impl Node {
    pub fn new(name: String, is_hub: bool, site: Option<usize>, hubs: Vec<NodeId>, diskless: bool, seed: u64) -> Node {
        let uplink = |hub| Uplink { hub, conn: None, backoff_ns: 0, kept: None };
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
            lost_something: false,
            dropped: BTreeMap::new(),
            kept: BTreeMap::new(),
            identity: None,
        }
    }

    pub fn uplink_hubs(&self) -> Vec<NodeId> {
        self.uplinks.iter().map(|uplink| uplink.hub).collect()
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

/// What a recovery of a copy of the disk finds.
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
    /// The machine stopped meanwhile.
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
        reading(self.wall_ns(node), self.nodes[node].offset_ns)
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
        let recovered = recover(disk, disk_options(), &mut |record| store.restore(record));
        let recovered = recovered.map_err(|error| refused(node, error.to_string()))?;
        let intact = recovered.report.is_intact();
        let kept = node.identity.filter(|_| self.options.bug == Some(Bug::EpochKept));
        let epoch = kept.map_or(drawn, |(_, epoch)| epoch);
        let begun = match recovered.identity {
            Some(identity) if self.options.bug == Some(Bug::DamagedStoreKeepsIdentity) => {
                begin_trusting(store, recovered, identity, epoch)
            }
            _ => storage::open(store, recovered, fresh, epoch),
        };
        let (store, log) = begun.map_err(|error| refused(node, error.to_string()))?;
        node.identity = Some((store.identity(), epoch));
        if !intact {
            self.count("state: damage found, and a new identity taken");
        }
        self.recovered(at, &store, intact).map_err(|wrong| {
            // Told by the oracle when the node is looked at next; it cannot be returned from here.
            self.oracle.wrong.get_or_insert(wrong.0);
            NotStarted::Refused("see above".into())
        })?;
        Ok((store, Some(log)))
    }

    /// Compares what a disk gave back with what was made durable on it.
    fn recovered(&mut self, at: NodeId, store: &Store, intact: bool) -> Checked {
        let found = Content::of(store);
        let node = &mut self.nodes[at];
        let doubtful = std::mem::take(&mut node.doubtful);
        let damaged = std::mem::take(&mut node.damaged);
        if !intact || (damaged && found != node.durable) {
            // Where the flipped bit is in the last transaction, it is taken for one that the machine did not finish.
            node.lost_something = true;
            return self.replace_content(at, found);
        }
        if found != node.durable {
            let held = doubtful.iter().find(|records| node.durable.with(records) == found);
            let Some(records) = held.cloned() else {
                // Damage beyond what was acknowledged costs nothing; a torn tail is what it looks like.
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
        node.running = Some(Box::new(Running {
            store,
            log,
            queue: VecDeque::new(),
            batch: None,
            begin_due: false,
            drafted: Transaction::default(),
            chains: BTreeMap::new(),
            held: vec![Revision(0); uplinks],
            checkpoint: None,
            watches: BTreeMap::new(),
            admission: Admission::new(100),
            upstream_stores: UpstreamStores::default(),
            sessions: BTreeMap::new(),
            stalled_until: 0,
        }));
        node.offset_ns = 0;
        self.trace(|| format!("{at} starts"));
        self.count("node started");
        for uplink in 0..uplinks {
            self.nodes[at].uplinks[uplink].conn = None;
            let wait = self.random.below(100 * MILLISECOND);
            self.after(wait, Event::Dial { node: at, uplink, life });
        }
        self.after(10 * SECOND, Event::Sweep { node: at, life });
    }

    /// A running node's sweeper.
    pub fn sweep(&mut self, at: NodeId, life: u64) {
        if self.nodes[at].life == life && self.nodes[at].running.is_some() {
            self.ask(at, Job::Sweep);
            self.after(10 * SECOND, Event::Sweep { node: at, life });
        }
    }

    /// The process ends at once; with the machine if `power`. It comes back by itself.
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
