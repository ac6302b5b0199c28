//! The pushes, deletes and wipes that arrive at the nodes.

use pushrelay::model::{Family, FamilyBuilder, LabelSet, MetricType, ValueLayout};
use pushrelay::store::{Scope, WriteOp};

use super::commands::push;
use super::committer::{Command, Due};
use super::{Event, NodeId, World, topology};

impl World {
    /// Sends one push or a burst of pushes to a running node.
    pub fn push(&mut self) {
        if self.quiet || self.is_calm {
            return;
        }
        let wait = self.random.span(self.plan.push_ns / 8, self.plan.push_ns * 2);
        self.after(wait, Event::Push);
        let up: Vec<NodeId> = (0..self.nodes.len()).filter(|at| self.nodes[*at].running.is_some()).collect();
        let Some(&at) = self.random.pick(&up) else { return };
        let burst = if self.random.chance(10) { self.random.between(2, 12) } else { 1 };
        for _ in 0..burst {
            let job = self.some_push(at);
            self.ask(at, job);
        }
    }

    pub fn some_push(&mut self, at: NodeId) -> Command {
        self.pushes += 1;
        if self.random.below(400) == 0 {
            self.count("push: wipe");
            return Command::Wipe { scope: Scope::Shown, reply: Due::default() };
        }
        let job = self.random.below(self.plan.jobs);
        let key = [("job", format!("j{job}"))];
        let target = match self.nodes[at].is_hub {
            false => LabelSet::new(key),
            // A hub's own pushers, or an operator who writes to an edge's group.
            true if self.random.chance(30) => LabelSet::new(key),
            true => {
                let sites: Vec<usize> = self
                    .oracle
                    .member
                    .keys()
                    .filter(|(site, node)| *node == at && self.nodes[at].site != Some(*site))
                    .map(|(site, _)| *site)
                    .collect();
                let Some(&site) = self.random.pick(&sites) else {
                    return push(LabelSet::new(key), WriteOp::Delete);
                };
                let site = topology::site(site);
                let upstream_stores =
                    !self.is_ring && self.nodes.iter().any(|n| n.is_hub && n.uplink_hubs().contains(&at));
                let region = (upstream_stores && !site.contains("REGION")).then(|| topology::site(topology::REGION));
                let idc = site
                    .iter()
                    .chain(region.iter().flat_map(|region| region.iter()))
                    .map(|label| (label.name.to_string(), label.value.to_string()));
                LabelSet::new(idc.chain([("job".to_string(), format!("j{job}"))]))
            }
        };
        let command = push(target, self.some_action());
        let command = self.adding_push(at, command);
        self.living(command)
    }

    fn some_action(&mut self) -> WriteOp {
        let draw = self.random.below(100);
        if draw < self.plan.deletes {
            self.count("push: DELETE");
            return WriteOp::Delete;
        }
        if draw < self.plan.deletes + 3 {
            self.count("push: refused by the gateway");
            return WriteOp::Refuse;
        }
        let count = self.random.below(4);
        let first = self.random.below(4);
        let families: Vec<Family> = (0..count).map(|i| self.some_family((first + i) % 4)).collect();
        if self.random.chance(50) {
            self.count("push: PUT");
            WriteOp::Put(families)
        } else {
            self.count("push: POST");
            WriteOp::Post(families)
        }
    }

    /// A push of one family to a group that exists.
    pub fn some_post(&mut self) -> WriteOp {
        let number = self.random.below(4);
        WriteOp::Post(vec![self.some_family(number)])
    }

    /// A family of that number. Its first value is like no other.
    fn some_family(&mut self, number: u64) -> Family {
        self.pushes += 1;
        let conflict = self.random.chance(self.plan.conflicts);
        let metric_type = if conflict { MetricType::Counter } else { MetricType::Gauge };
        let mut builder = FamilyBuilder::new(format!("m{number}"), metric_type);
        let series = self.random.between(1, 4);
        for i in 0..series {
            let value = self.pushes as f64 + i as f64 / 8.0;
            builder.series(&[("i", &i.to_string())], &ValueLayout::Single, &[value], None);
        }
        builder.finish().expect("no two series are alike")
    }
}
