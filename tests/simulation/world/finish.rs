//! All is well again: connections work, disks work, nobody pushes. Does everything converge, in bounded time?

use std::collections::BTreeSet;

use pushrelay::model::{GroupId, LabelSet};
use pushrelay::storage::Disk;
use pushrelay::store::WriteOp;
use pushrelay_testkit::SimulatedDisk;

use super::node::Node;
use super::writer::{Job, Target};
use super::{Checked, Event, HOUR, MINUTE, NodeId, SECOND, World, Wrong};

/// How long it may take. A link that was refused or replaced waits for half a minute or more, and there may be two in a row.
const BOUND: u64 = 20 * MINUTE;
/// How long what is nobody's promise may be on its way, between hubs that send to each other.
const SETTLING: u64 = 5 * MINUTE;
/// How often a node and its copy take turns, at most.
const TURNS_MAX: usize = 9;
/// How long all must stay as they are, to count as converged.
const CALM: u64 = 12 * SECOND;

impl World {
    pub fn finish(&mut self) -> Checked {
        self.check_recovery()?;
        self.check_promises()?;
        self.heal()?;
        self.trace(|| "all is well from now on".into());
        let twins: Vec<(NodeId, NodeId)> = self.twins();
        let turns = if twins.is_empty() { 1 } else { TURNS_MAX };
        for turn in 0..turns {
            // What one holds back of what came while it was off is one more change, of which the other has to hear.
            if turn >= 3 && self.check_converged(&with_all(&BTreeSet::new())).is_ok() {
                break;
            }
            let absent: BTreeSet<NodeId> = twins.iter().map(|(a, b)| if turn % 2 == 0 { *b } else { *a }).collect();
            for at in 0..self.nodes.len() {
                self.switch(at, !absent.contains(&at))?;
            }
            self.converge(&absent)?;
        }
        self.check_converged(&BTreeSet::new())?;
        if self.is_ring {
            return self.check_ring();
        }
        if self.random.chance(30) { self.check_bounds(&twins) } else { Ok(()) }
    }

    /// A copied node and its copy, each pair once.
    fn twins(&self) -> Vec<(NodeId, NodeId)> {
        let pairs = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.twin?)));
        pairs.filter(|(at, twin)| at < twin).collect()
    }

    fn heal(&mut self) -> Checked {
        self.quiet = true;
        self.partitions.clear();
        for conn in self.conns.values_mut() {
            conn.stalled_until = 0;
            conn.latency_ns = conn.latency_ns.min(SECOND / 4);
        }
        for at in 0..self.nodes.len() {
            self.nodes[at].disk.set_capacity(None);
            self.nodes[at].disk.mend();
            if self.nodes[at].halt_at.is_some() && self.nodes[at].running.is_some() {
                self.machine_stops(at, true)?;
            }
            if let Some(running) = &mut self.nodes[at].running {
                running.stalled_until = 0;
            }
            if self.nodes[at].running.is_none() {
                // Faults that were planned for the disk are over.
                self.nodes[at].halt_at = None;
                self.nodes[at].disk.kill();
            }
        }
        Ok(())
    }

    /// Starts a node, or stops it in order.
    pub fn switch(&mut self, at: NodeId, on: bool) -> Checked {
        let life = self.nodes[at].life;
        self.nodes[at].off = !on;
        match (on, self.nodes[at].running.is_some()) {
            (true, false) => self.after(SECOND / 10, Event::Start { node: at, life }),
            (false, true) => self.stop_node(at)?,
            _ => {}
        }
        Ok(())
    }

    fn converge(&mut self, absent: &BTreeSet<NodeId>) -> Checked {
        let begin = self.now;
        let mut calm_since = None;
        loop {
            self.run_until(self.now + 3 * SECOND)?;
            self.check_recovery()?;
            let up = self.nodes.iter().enumerate().all(|(at, node)| absent.contains(&at) || node.running.is_some());
            let linked = up && self.all_linked(absent);
            let converged = if linked { self.check_converged(&with_all(absent)) } else { Err(Wrong(self.unlinked())) };
            match converged {
                Ok(()) => {
                    let since = *calm_since.get_or_insert(self.now);
                    if self.now - since >= CALM {
                        let took = (since - begin) / SECOND;
                        let most = self.outcome.coverage.entry("most seconds to converge").or_default();
                        *most = (*most).max(took);
                        return Ok(());
                    }
                }
                Err(wrong) => {
                    calm_since = None;
                    if self.now - begin > BOUND {
                        let within = (self.now - begin) / SECOND;
                        return Err(Wrong(format!("after {within} s without faults: {wrong}")));
                    }
                }
            }
        }
    }

    fn all_linked(&self, absent: &BTreeSet<NodeId>) -> bool {
        let due = |at: &NodeId, node: &Node| !(absent.contains(at) || self.is_ring && node.is_hub);
        self.nodes.iter().enumerate().filter(|(at, node)| due(at, node)).all(|(_, node)| {
            node.uplinks.iter().all(|uplink| uplink.conn.is_some_and(|conn| self.conns.contains_key(&conn)))
        })
    }

    fn unlinked(&self) -> String {
        let missing = self.nodes.iter().enumerate().flat_map(|(at, node)| {
            let down = node.running.is_none().then(|| format!("node {at} is down"));
            let links = node.uplinks.iter().filter(|uplink| uplink.conn.is_none());
            down.into_iter().chain(links.map(move |uplink| format!("node {at} has no link to {}", uplink.hub)))
        });
        missing.collect::<Vec<_>>().join(", ")
    }

    /// What goes around comes to an end.
    fn check_ring(&mut self) -> Checked {
        let groups = |world: &Self| world.nodes.iter().map(|node| node.durable.groups.len()).sum::<usize>();
        // What was pushed to hubs is in no set that had to converge: it may still be on its way, or wait for a slow writer.
        self.run_until(self.now + SETTLING)?;
        let before = groups(self);
        self.run_until(self.now + 5 * MINUTE)?;
        let after = groups(self);
        let most = self.outcome.coverage.entry("most groups in a ring").or_default();
        *most = (*most).max(after as u64);
        if after > before {
            return Err(Wrong(format!("where links lead around, {before} groups became {after}, and nobody pushed")));
        }
        self.check_converged(&BTreeSet::new())
    }

    /// What is kept depends on live groups: tombstones go, logs are replaced by checkpoints; and nothing comes back by that.
    fn check_bounds(&mut self, twins: &[(NodeId, NodeId)]) -> Checked {
        self.count("bounds checked");
        if !twins.is_empty() {
            return Ok(());
        }
        for at in 0..self.nodes.len() {
            // What an uplink holds may be told late, with the next change.
            let id = GroupId::local(LabelSet::new([("job", "last")]));
            self.ask(at, Job::Push { target: Target::Group(id), action: WriteOp::Put(Vec::new()) });
        }
        self.run_until(self.now + 2 * self.plan.progress_ns + MINUTE)?;
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if node.is_hub {
                // As long as it keeps tombstones, and what clocks were off by.
                let jump = i64::try_from(self.plan.retention_ns + 48 * HOUR).unwrap_or(i64::MAX);
                self.nodes[at].skew_ns += jump;
            }
        }
        self.run_until(self.now + 2 * self.plan.progress_ns + MINUTE)?;
        for (at, node) in self.nodes.iter().enumerate() {
            let dead = node.durable.groups.iter().find(|(_, group)| !group.is_live());
            if let Some((id, _)) = dead {
                return Err(Wrong(format!("node {at} keeps the tombstone of {id}, which all have had for long")));
            }
            let bytes = disk_bytes(&node.disk);
            if bytes > 200_000 {
                return Err(Wrong(format!(
                    "node {at} has {bytes} bytes on disk for {} groups",
                    node.durable.groups.len()
                )));
            }
        }
        self.check_converged(&BTreeSet::new())
    }
}

/// Bytes of all files of a disk.
fn disk_bytes(disk: &SimulatedDisk) -> u64 {
    let len = |name: &String| disk.open(name).and_then(|file| file.len()).unwrap_or(0);
    disk.list().unwrap_or_default().iter().map(len).sum()
}

/// A set that is never empty, so that what was promised is left to the end.
fn with_all(absent: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    absent.iter().copied().chain([NodeId::MAX]).collect()
}
