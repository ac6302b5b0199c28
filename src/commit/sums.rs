//! The law of sums: whatever is repeated, reordered, restarted, rolled back or lost, each increment that any node still
//! has is in the sum exactly once when all nodes have exchanged what they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Merge, MergeSequence, Transaction};
use crate::model::{
    Epoch, FamilyBuilder, GaugeRule, GroupId, LabelSet, MetricType, NodeId, Position, Revision, StoreId, ValueLayout,
};
use crate::store::{Identity, Increment, Record, Rules, Scope, Store, WriteOp, WriteTime};
use crate::wire::Delta;

const NODES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A node adds.
    Add(usize, u16),
    /// A node sends another one all that it has.
    Send(usize, usize),
    /// A node is started again.
    Restart(usize),
    /// A copy of a node's disk is taken.
    Save(usize),
    /// A node is started from the copy.
    RollBack(usize),
    /// A node is started with an empty disk.
    Lose(usize),
    /// The same transaction fails on the disk.
    Abort(usize, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        4 => (node.clone(), 1..1_000u16).prop_map(|(node, value)| Step::Add(node, value)),
        4 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::Send(from, to)),
        1 => node.clone().prop_map(Step::Restart),
        1 => node.clone().prop_map(Step::Save),
        1 => node.clone().prop_map(Step::RollBack),
        1 => node.clone().prop_map(Step::Lose),
        1 => (node, 1..1_000u16).prop_map(|(node, value)| Step::Abort(node, value)),
    ]
}

/// What each opening of a store has added, as far as one node knows.
type Known = BTreeMap<u64, u64>;

struct Node {
    store: Store,
    known: Known,
    saved: (Vec<Record>, Known),
}

struct World {
    nodes: Vec<Node>,
    epochs: u64,
    ns: u64,
}

impl World {
    fn new() -> Self {
        let mut world = World { nodes: Vec::new(), epochs: 0, ns: 0 };
        for node in 0..NODES {
            let store = world.open(node, Vec::new());
            world.nodes.push(Node { store, known: Known::new(), saved: (Vec::new(), Known::new()) });
        }
        world
    }

    fn open(&mut self, node: usize, records: Vec<Record>) -> Store {
        self.epochs += 1;
        let mut store = Store::new(Rules { has_hubs: true, ..Rules::default() }, &[]);
        records.into_iter().for_each(|record| store.restore(record));
        let id = node as u64 + 1;
        store.open(Identity { store: StoreId(id), node: NodeId(id) }, Epoch(self.epochs));
        store.commit();
        store
    }

    fn add(&mut self, node: usize, value: u16) {
        self.ns += 1;
        let mut builder = FamilyBuilder::new("c", MetricType::Counter);
        builder.series(&[], &ValueLayout::Single, &[value.into()], None);
        let families = vec![builder.finish().unwrap()];
        let op = WriteOp::Add(Increment { families, gauges: GaugeRule::Last, key: None });
        let now = self.now();
        self.nodes[node].store.write(GroupId::local(LabelSet::new([("job", "a")])), op, now).unwrap();
    }

    fn now(&self) -> WriteTime {
        WriteTime { wall_ns: self.ns, stamp_ns: self.ns, monotonic_ns: self.ns }
    }

    fn send(&mut self, from: usize, to: usize) {
        let changes = self.nodes[from].store.published().changes(&Scope::Shown, Revision(0), None, usize::MAX).changes;
        let deltas = changes
            .into_iter()
            .map(|change| Delta { id: GroupId { site: Arc::default(), key: change.key }, group: change.group });
        let merge = Merge {
            scope: Scope::Shown,
            deltas: deltas.collect(),
            peer: StoreId(from as u64 + 1),
            position: Position::default(),
            sequence: MergeSequence::default(),
        };
        let (mut transaction, now) = (Transaction::default(), self.now());
        transaction.merge(&mut self.nodes[to].store, merge, now).unwrap();
        transaction.publish(&mut self.nodes[to].store);
        for (epoch, sum) in self.nodes[from].known.clone() {
            let known = self.nodes[to].known.entry(epoch).or_default();
            *known = sum.max(*known);
        }
    }

    fn restart(&mut self, node: usize, (records, known): (Vec<Record>, Known)) {
        self.nodes[node].store = self.open(node, records);
        self.nodes[node].known = known;
    }

    fn happen(&mut self, step: &Step) {
        match step {
            Step::Add(node, value) => {
                self.add(*node, *value);
                let Node { store, known, .. } = &mut self.nodes[*node];
                store.commit();
                let epoch = store.epochs().last().unwrap().epoch.0;
                *known.entry(epoch).or_default() += u64::from(*value);
            }
            Step::Abort(node, value) => {
                self.add(*node, *value);
                self.nodes[*node].store.abort();
            }
            Step::Send(from, to) if from != to => self.send(*from, *to),
            Step::Send(..) => {}
            Step::Restart(node) => {
                let Node { store, known, .. } = &self.nodes[*node];
                self.restart(*node, (store.checkpoint().collect(), known.clone()));
            }
            Step::Save(node) => {
                let Node { store, known, saved } = &mut self.nodes[*node];
                *saved = (store.checkpoint().collect(), known.clone());
            }
            Step::RollBack(node) => self.restart(*node, self.nodes[*node].saved.clone()),
            Step::Lose(node) => self.restart(*node, (Vec::new(), Known::new())),
        }
    }

    fn shown(&self, node: usize) -> u64 {
        let block = self.nodes[node].store.published().block("c");
        block.iter().flat_map(|block| block.entries()).map(|shown| shown.family.values()[0] as u64).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_increment_is_in_the_sum_exactly_once(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.happen(step);
            for node in 0..NODES {
                prop_assert_eq!(world.shown(node), world.nodes[node].known.values().sum::<u64>(), "after {:?}", step);
            }
        }
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (2, 1), (1, 0)] {
                world.send(from, to);
            }
        }
        let mut all = Known::new();
        for (epoch, sum) in world.nodes.iter().flat_map(|node| &node.known) {
            let known = all.entry(*epoch).or_default();
            *known = (*known).max(*sum);
        }
        for node in 0..NODES {
            prop_assert_eq!(world.shown(node), all.values().sum::<u64>(), "at node {}", node);
        }
    }
}
