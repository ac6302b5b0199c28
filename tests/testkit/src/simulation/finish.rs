//! The end of a run, without faults and pushes: all nodes must converge in bounded time.

use std::collections::BTreeSet;

use pushrelay::model::LabelSet;
use pushrelay::storage::Disk;
use pushrelay::store::WriteOp;

use super::commands::push;
use super::node::Node;
use super::{Checked, Event, HOUR, MINUTE, NodeId, SECOND, World, Wrong};
use crate::SimulatedDisk;

/// The time to converge, at most. A link that was refused or replaced waits for half a minute or more, and there may be
/// two such waits in a row.
const BOUND: u64 = 20 * MINUTE;
/// The time until changes that no promise covers come to rest in a ring of hubs.
const SETTLING: u64 = 5 * MINUTE;
/// Turns of a node and its copy, at most.
const TURNS_MAX: usize = 9;
/// The time without a difference after which the nodes count as converged.
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
            // A change that one twin received while the other was off, and suppresses, is one more change for the
            // other.
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
                // Planned faults of the disk are cancelled.
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

    /// In a ring of hubs, the number of groups must not grow without pushes.
    fn check_ring(&mut self) -> Checked {
        let groups = |world: &Self| world.nodes.iter().map(|node| node.durable.groups.len()).sum::<usize>();
        // Pushes to hubs are in no set that had to converge: they may still be in transit, or wait for a slow
        // committer.
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

    /// The size of a store depends on live groups only: tombstones are dropped, checkpoints replace logs, and no group
    /// comes back by that.
    fn check_bounds(&mut self, twins: &[(NodeId, NodeId)]) -> Checked {
        self.count("bounds checked");
        // The clocks are about to jump: groups with lifetimes would expire, and their tombstones stay.
        if !twins.is_empty() || self.has_lifetimes() {
            return Ok(());
        }
        self.end_expiry();
        for at in 0..self.nodes.len() {
            // The acknowledgement of an uplink may arrive late, with the next change.
            self.ask(at, push(LabelSet::new([("job", "last")]), WriteOp::Put(Vec::new())));
        }
        self.run_until(self.now + 2 * self.plan.progress_ns + MINUTE)?;
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if node.is_hub {
                // The retention of tombstones, and the skew of clocks.
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

/// A set that is never empty: the promises are checked only at the end.
fn with_all(absent: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    absent.iter().copied().chain([NodeId::MAX]).collect()
}
