//! The topology and the plan of a seed: one to four edges and one to three hubs, each edge linked to some of them, with
//! sites shared by redundant edges; or edges, a relay, and one or two hubs above it; or, in four seeds of a hundred, two
//! or three hubs that send to each other in a loop by mistake. Some edges have no disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushrelay::model::LabelSet;

use super::node::Node;
use super::oracle::Oracle;
use super::random::Random;
use super::story::Story;
use super::{Event, HOUR, MILLISECOND, MINUTE, NodeId, Options, SECOND, World};

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The duration of faults.
    pub chaos_ns: u64,
    /// The approximate time between pushes, and between faults.
    pub push_ns: u64,
    pub fault_ns: u64,
    /// The kinds of faults; empty for none.
    pub faults: Vec<super::fault::Kind>,
    /// The number of groups that are pushed.
    pub jobs: u64,
    /// Deletes among a hundred pushes.
    pub deletes: u64,
    pub retention_ns: u64,
    pub latency_ns: u64,
    pub compressed: bool,
    pub batch_bytes_max: usize,
    pub heartbeat_ns: u64,
    pub progress_ns: u64,
    /// Pushes that conflict with others, among a hundred.
    pub conflicts: u64,
}

/// The site of a relay; other sites have numbers from 0.
pub const REGION: usize = 50;
/// The sites of hubs that send to each other.
const RING: usize = 51;
const RING_END: usize = 54;

pub fn site(number: usize) -> Arc<LabelSet> {
    let name = match number {
        REGION => "REGION".into(),
        RING.. if number < RING_END => format!("REGION{}", number - REGION),
        _ => "IDC".into(),
    };
    Arc::new(LabelSet::new([(name, format!("p{number}"))]))
}

fn plan(random: &mut Random) -> Plan {
    let retention = [7 * 24 * HOUR, 7 * 24 * HOUR, 24 * HOUR, 10 * MINUTE, MINUTE];
    Plan {
        chaos_ns: random.span(5 * SECOND, 400 * SECOND),
        push_ns: random.span(50 * MILLISECOND, 8 * SECOND),
        fault_ns: random.span(SECOND, 60 * SECOND),
        faults: super::fault::draw(random),
        jobs: random.between(1, 7),
        deletes: [5, 15, 35][random.below(3) as usize],
        retention_ns: retention[random.below(5) as usize],
        latency_ns: random.span(MILLISECOND / 10, 3 * SECOND),
        compressed: random.chance(12),
        batch_bytes_max: [1, 200, 1_000, 1 << 20][random.below(4) as usize],
        heartbeat_ns: [SECOND, 5 * SECOND][random.below(2) as usize],
        progress_ns: [5 * SECOND, 60 * SECOND][random.below(2) as usize],
        conflicts: [0, 4, 20][random.below(3) as usize],
    }
}

/// The world of a seed, before anything has happened.
pub fn build(seed: u64, options: Options) -> World {
    let mut random = Random::new(seed);
    let plan = plan(&mut random);
    let (story, script) = super::story::draw(seed);
    let mut world = World {
        options,
        random,
        story,
        script,
        now: 0,
        sequence: 0,
        agenda: BTreeMap::new(),
        nodes: Vec::new(),
        conns: BTreeMap::new(),
        next_conn: 0,
        oracle: Oracle::default(),
        plan,
        expiry: super::expiry::draw(seed),
        adding: None,
        partitions: BTreeMap::new(),
        quiet: false,
        is_calm: false,
        is_ring: false,
        pushes: 0,
        outcome: Default::default(),
    };
    world.adding = super::adding::draw(seed, matches!(world.story, Story::Moved));
    if matches!(world.story, Story::Ring) {
        world.ring()
    } else if world.random.chance(20) {
        world.chain()
    } else {
        world.star()
    }
    world.relate();
    world.give_rules();
    world.prepare_adding();
    for node in 0..world.nodes.len() {
        let wait = world.random.span(MILLISECOND, 5 * SECOND);
        world.after(wait, Event::Start { node, life: 0 });
    }
    let (push, fault) = (world.plan.push_ns, world.plan.fault_ns);
    world.after(push, Event::Push);
    world.after(fault, Event::Fault);
    world.plan_story();
    let shape: Vec<_> = world.nodes.iter().map(|n| (n.name.clone(), n.site, n.uplink_hubs(), n.diskless)).collect();
    world.trace(|| format!("nodes {shape:?}"));
    let plan = world.plan.clone();
    world.trace(|| format!("{plan:?}"));
    world
}

impl World {
    /// Edges, each linked to some of the hubs.
    fn star(&mut self) {
        let (edges, hubs) = (self.random.between(1, 5) as usize, self.random.between(1, 4) as usize);
        (0..hubs).for_each(|hub| self.add_node(format!("hub{hub}"), true, None, Vec::new()));
        let mut site = 0;
        for edge in 0..edges {
            // A redundant pair has one site.
            site += usize::from(edge > 0 && !self.random.chance(40));
            let mut uplinks: Vec<NodeId> = (0..hubs).filter(|_| self.random.chance(60)).collect();
            if uplinks.is_empty() {
                uplinks.push(self.random.below(hubs as u64) as usize);
            }
            self.add_node(format!("edge{edge}"), false, Some(site), uplinks);
        }
        self.count(if hubs > 1 { "topology: several hubs" } else { "topology: one hub" });
    }

    /// Edges, a hub that sends on, and the hubs above it.
    fn chain(&mut self) {
        let (edges, hubs) = (self.random.between(1, 4) as usize, self.random.between(1, 3) as usize);
        (0..hubs).for_each(|hub| self.add_node(format!("hub{hub}"), true, None, Vec::new()));
        self.add_node("relay".into(), true, Some(REGION), (0..hubs).collect());
        (0..edges).for_each(|edge| self.add_node(format!("edge{edge}"), false, Some(edge / 2), vec![hubs]));
        self.count("topology: a tree with a relay");
    }

    /// Hubs that send on in a circle, by mistake, and edges.
    fn ring(&mut self) {
        let (edges, hubs) = (self.random.between(1, 4) as usize, self.random.between(2, 4) as usize);
        (0..hubs).for_each(|hub| self.add_node(format!("hub{hub}"), true, Some(RING + hub), vec![(hub + 1) % hubs]));
        for edge in 0..edges {
            let hub = self.random.below(hubs as u64) as usize;
            self.add_node(format!("edge{edge}"), false, Some(edge), vec![hub]);
        }
        self.is_ring = true;
        self.count("topology: links that lead around");
    }

    fn add_node(&mut self, name: String, is_hub: bool, site: Option<usize>, uplinks: Vec<NodeId>) {
        let seed = self.random.next();
        let diskless = !is_hub && self.random.chance(15);
        self.nodes.push(Node::new(name, is_hub, site, uplinks, diskless, seed));
        if diskless {
            self.count("topology: an edge without a disk");
        }
    }

    /// Computes the sets of nodes that must converge: the nodes of a site that links connect, directly or not.
    pub fn relate(&mut self) {
        let mut member: BTreeMap<(usize, NodeId), usize> = BTreeMap::new();
        let mut links = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(site) = node.site else { continue };
            if self.is_ring && node.is_hub {
                continue;
            }
            member.insert((site, at), 0);
            for hub in node.uplink_hubs() {
                member.insert((site, hub), 0);
                links.push(((site, at), (site, hub)));
                // A relay sends on to the hubs upstream of it.
                let upstream_stores = if self.is_ring { Vec::new() } else { self.nodes[hub].uplink_hubs() };
                for upstream_stores in upstream_stores {
                    member.insert((site, upstream_stores), 0);
                    links.push(((site, hub), (site, upstream_stores)));
                }
            }
        }
        for (number, (_, set)) in member.iter_mut().enumerate() {
            *set = number;
        }
        loop {
            let before = member.clone();
            for (a, b) in &links {
                let least = member[a].min(member[b]);
                member.insert(*a, least);
                member.insert(*b, least);
            }
            if member == before {
                break;
            }
        }
        self.oracle.member = member;
    }
}
