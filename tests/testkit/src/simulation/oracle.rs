//! The oracle: it knows, independently of the nodes, the content that they must have.
//!
//! Nodes that must converge form a set. The promise of a set is the merge of everything that any of its nodes made
//! durable. If a node loses content for good (its disk, or the changes since the copy to which it was rolled back),
//! exactly that is taken out: the promise becomes the merge of the content that all nodes still have. At the end every
//! node of a set must show the same, and merging the promise into it must change nothing. Then no acknowledged push is
//! lost, and no deleted group is back.
//!
//! The rules, here and in `node`, `committer` and `finish`:
//!
//! - A node that restarts from its disk has exactly its durable state, and perhaps one transaction whose end it did not
//!   live to see; never a part of one.
//! - A push that is answered 200 is shown.
//! - An edge drops a tombstone only when its hubs have it or a later write, and a hub only when the tombstone is old
//!   enough.
//! - If a disk is lost, rolled back or damaged, the promise becomes the merge of what all nodes still have, with the
//!   tombstones that hubs must still have: nothing more is forgiven.
//! - When faults stop, all links work and all nodes of a set show the same within 20 virtual minutes (refused links wait
//!   for up to a minute, more than once), and nothing is shown that nobody pushed. A node and its copy take turns until
//!   both show it.
//! - The law of expiry: see `expiry`. The sums of pushes that add: see `adding`.
//! - In some seeds, when clocks have passed `storage.tombstone_retention`, no tombstone is left anywhere, logs are short,
//!   and all nodes still show the same.
//! - With a loop of hubs, edges and their own hubs show the same, and nothing grows after the faults stop. Groups that such
//!   hubs send to each other are no part of the promise, except that an edge has a group that a hub assigns to the edge's
//!   site. More is not required of loops.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use pushrelay::model::{Group, GroupId, LabelSet, WriteTimestamp};
use pushrelay::store::{GroupRecord, Record};

use super::content::{Content, Key, Seen, seen, show};
use super::node::Node;
use super::{Checked, NodeId, World, Wrong};

/// The promises, and the facts that excuse a difference.
#[derive(Debug, Default)]
pub struct Oracle {
    /// The set of each node at each site.
    pub member: BTreeMap<(usize, NodeId), usize>,
    pub promised: BTreeMap<usize, BTreeMap<Key, Group>>,
    /// Families that were ever pushed: key, name, write timestamp and first value.
    written: HashSet<(Key, Arc<str>, WriteTimestamp, u64)>,
    /// Deletes and replacements that may be lost or not: the node that made them has lost something since.
    unsure: BTreeMap<Key, WriteTimestamp>,
    /// A violation found where it could not be returned.
    pub wrong: Option<String>,
}

impl Oracle {
    /// A push was applied to a draft.
    pub fn wrote(&mut self, records: &[Record]) {
        for record in records {
            let Record::Group(group) = record else { continue };
            for f in group.group.families() {
                let bits = f.family.values().first().map_or(0, |value| value.to_bits());
                self.written.insert((without_site(&group.id.key), f.family.name().clone(), f.stamp, bits));
            }
        }
    }
}

impl World {
    /// The set of a group of a node, and the name of the group at its pusher. `None` for pushes to a hub without
    /// uplinks.
    pub fn set_of(&self, at: NodeId, id: &GroupId) -> Option<(usize, Key)> {
        let (site, key) = self.home_of(at, id)?;
        Some((self.oracle.member.get(&(site, at)).copied()?, key))
    }

    /// The site of a group of a node, and the name of the group at its pusher.
    pub fn home_of(&self, at: NodeId, id: &GroupId) -> Option<(usize, Key)> {
        let node = &self.nodes[at];
        if self.is_ring && node.is_hub && !came_from_an_edge(id) {
            return None;
        }
        Some(if node.is_hub && (!id.site.is_empty() || node.site.is_some()) {
            match (id.key.get("IDC").and_then(number), id.site.is_empty()) {
                (Some(site), _) => (site, without_site(&id.key)),
                (None, true) => (node.site?, id.key.clone()),
                (None, false) => (id.site.iter().find_map(|label| number(label.value))?, id.key.clone()),
            }
        } else {
            (node.site.filter(|_| !node.is_hub)?, id.key.clone())
        })
    }

    pub fn check_recovery(&mut self) -> Checked {
        self.oracle.wrong.take().map_or(Ok(()), |wrong| Err(Wrong(wrong)))
    }

    /// Adds changes of a node to the promise: they must not be lost from now on.
    pub fn made_known(&mut self, at: NodeId, records: &[Record]) {
        let dropped = |of: &GroupId| records.iter().any(|r| matches!(r, Record::Forgotten { id, .. } if id == of));
        for record in records {
            let Record::Group(record) = record else { continue };
            if dropped(&record.id) && record.id.site.is_empty() && *without_site(&record.id.key) != *record.id.key {
                continue;
            }
            let Some((set, key)) = self.set_of(at, &record.id) else { continue };
            // A group that was the hub's own until now joins a set that has forgotten a later delete: that delete does
            // not count for it.
            let twin = GroupId { site: Arc::default(), key: record.id.shown() };
            let forgotten = dropped(&twin)
                && !self.nodes[at].kept.contains_key(&record.id)
                && self.union_of(set, &key, Some(at)) == Group::default();
            let forgotten = forgotten || self.is_behind_a_forgotten_delete(set, &key, record);
            let promised = self.oracle.promised.entry(set).or_default();
            if forgotten {
                promised.remove(&key);
            }
            promised.entry(key).or_default().merge(&record.group);
        }
    }

    /// Whether a group was pushed here with a timestamp before that of a delete that was dropped in time and that no
    /// node has any more. A node that has lost its content and whose clock is behind pushes so. That delete does not
    /// count for it.
    fn is_behind_a_forgotten_delete(&self, set: usize, key: &Key, record: &GroupRecord) -> bool {
        let promised = self.oracle.promised.get(&set).and_then(|groups| groups.get(key));
        let Some(deleted) = promised.map(Group::deleted) else { return false };
        let is_own = match record.group.families().len() {
            0 => record.header.origin.is_none(),
            len => (0..len).any(|at| record.families.get(at).origin.is_none()),
        };
        let is_behind = is_own && record.group.latest() <= deleted;
        let here = Some((set, key.clone()));
        let dropped = |(at, node): (NodeId, &Node)| {
            node.dropped.iter().any(|(id, stamp)| *stamp >= deleted && self.set_of(at, id) == here)
        };
        is_behind && self.nodes.iter().enumerate().any(dropped) && self.union_of(set, key, None).deleted() < deleted
    }

    /// Records the tombstones that a hub must keep for the retention.
    pub fn after_record(&mut self, at: NodeId, record: &Record) {
        let node = &mut self.nodes[at];
        if let Record::Group(record) = record
            && node.is_hub
            && let Some(group) = node.durable.groups.get(&record.id)
        {
            if !group.is_live() && !group.deleted().is_zero() {
                node.kept.insert(record.id.clone(), group.deleted());
            } else {
                node.kept.remove(&record.id);
            }
        }
    }

    /// Checks that a tombstone may be dropped. If a node still has the group as it was before, the group may come back.
    pub fn before_record(&mut self, at: NodeId, record: &Record) {
        let Record::Forgotten { id, .. } = record else { return };
        if self.nodes[at].is_hub && id.site.is_empty() && *without_site(&id.key) != *id.key {
            // It has become part of the group of its site.
            self.nodes[at].kept.remove(id);
            return;
        }
        let Some(deleted) = self.nodes[at].durable.groups.get(id).map(Group::deleted) else { return };
        if !self.may_drop(at, id, deleted) {
            let wrong = format!("node {at} dropped the tombstone of {id}, deleted at {deleted:?}, which others need");
            self.trace(|| wrong.clone());
            self.oracle.wrong.get_or_insert(wrong);
            return;
        }
        self.nodes[at].kept.remove(id);
        self.nodes[at].dropped.insert(id.clone(), deleted);
        let Some((set, key)) = self.set_of(at, id) else { return };
        let left = self.union_of(set, &key, Some(at));
        if left.deleted() < deleted && (left != Group::default() || self.goes_around(set, &key)) {
            self.count("state: a group outlived its tombstone");
            self.excuse(&key, deleted);
            if let Some(promised) = self.oracle.promised.get_mut(&set) {
                promised.insert(key, left);
            }
        }
    }

    fn may_drop(&self, at: NodeId, id: &GroupId, deleted: WriteTimestamp) -> bool {
        let node = &self.nodes[at];
        // The timestamp of an expiry is as old as the group: its tombstone is kept from when the expiry was found.
        let kept_from_ns = node.durable.groups.get(id).map_or(deleted.time_ns, Group::kept_from_ns);
        let old_enough = !node.is_hub
            || kept_from_ns.saturating_add(self.plan.retention_ns) < self.store_now(at).stamp_ns
            || id.site.is_empty();
        // Its hubs had the tombstones of the edge's former site.
        let moved_with = node.moved_with.get(id).is_some_and(|of| *of >= deleted);
        let hub_has = |hub: NodeId| {
            // A hub that dropped the tombstone itself, in time, had it, whatever it received since.
            let has = |group: &Group| group.deleted() >= deleted || group.latest() > deleted;
            let had = |set: &(usize, Key)| {
                let mut dropped = self.nodes[hub].dropped.iter();
                dropped.any(|(id, stamp)| *stamp >= deleted && self.set_of(hub, id).as_ref() == Some(set))
            };
            let there = |set: &(usize, Key)| self.of_node(hub, set.0).get(&set.1).is_none_or(has) || had(set);
            self.nodes[hub].lost_something || self.set_of(at, id).is_none_or(|set| there(&set))
        };
        old_enough && (moved_with || node.uplink_hubs().into_iter().all(hub_has))
    }

    fn excuse(&mut self, key: &Key, stamp: WriteTimestamp) {
        let unsure = self.oracle.unsure.entry(key.clone()).or_default();
        *unsure = (*unsure).max(stamp);
    }

    /// The merge of a group over all nodes of a set except `without`.
    pub fn union_of(&self, set: usize, key: &Key, without: Option<NodeId>) -> Group {
        let mut union = Group::default();
        let here = (set, key.clone());
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| Some(*at) != without) {
            let here = |id: &GroupId| self.set_of(at, id).as_ref() == Some(&here);
            node.durable.groups.iter().filter(|(id, _)| here(id)).for_each(|(_, group)| drop(union.merge(group)));
            let kept = node.kept.iter().filter(|(id, _)| here(id));
            kept.for_each(|(_, deleted)| drop(union.merge(&Group::delete(*deleted))));
        }
        union
    }

    /// Whether a copy of a group of this set travels around a ring of hubs, outside of all sets: it may come back to
    /// the set when its edge is given it.
    fn goes_around(&self, set: usize, key: &Key) -> bool {
        let is_of_set = |id: &GroupId| {
            let site = id.key.get("IDC").and_then(number);
            self.oracle.member.iter().any(|((of, _), member_of)| *member_of == set && Some(*of) == site)
        };
        let is_copy = |id: &GroupId| at_the_pusher(&id.key) == *key && is_of_set(id);
        let goes = |at: NodeId, id: &GroupId| !came_from_an_edge(id) && self.nodes[at].is_hub && is_copy(id);
        let nodes = || self.nodes.iter().enumerate();
        self.is_ring && nodes().any(|(at, node)| node.durable.groups.keys().any(|id| goes(at, id)))
    }

    fn keys_of(&self, set: usize) -> BTreeSet<Key> {
        let promised = self.oracle.promised.get(&set).into_iter().flat_map(|groups| groups.keys().cloned());
        let mut keys: BTreeSet<Key> = promised.collect();
        for (at, node) in self.nodes.iter().enumerate() {
            let here = node.durable.groups.keys().filter_map(|id| self.set_of(at, id));
            keys.extend(here.filter(|(of, _)| *of == set).map(|(_, key)| key));
        }
        keys
    }

    /// Replaces the content of a node: exactly the content that no other node has is lost.
    pub fn replace_content(&mut self, at: NodeId, content: Content) -> Checked {
        self.check_promises()?;
        let lost = std::mem::replace(&mut self.nodes[at].durable, content);
        self.nodes[at].losses += 1;
        self.nodes[at].kept.clear();
        self.nodes[at].doubtful.clear();
        for (id, group) in &lost.groups {
            self.excuse(&without_site(&id.key), group.cleared_at().max(group.deleted()));
        }
        self.promise_what_is_left();
        Ok(())
    }

    /// Computes the promises anew, after the sets or their content have changed.
    pub fn promise_what_is_left(&mut self) {
        let sets: BTreeSet<usize> = self.oracle.member.values().copied().collect();
        let mut promised = BTreeMap::new();
        for set in sets {
            let groups = self.keys_of(set).into_iter().map(|key| (key.clone(), self.union_of(set, &key, None)));
            promised.insert(set, groups.collect());
        }
        self.oracle.promised = promised;
        self.require_what_is_left();
    }

    /// Checks that the nodes together have all that was promised.
    pub fn check_promises(&mut self) -> Checked {
        let sets: Vec<usize> = self.oracle.promised.keys().copied().collect();
        for set in sets {
            for key in self.keys_of(set) {
                let union = self.union_of(set, &key, None);
                self.check_kept(set, &key, &union, "all nodes together")?;
                self.check_sums(set, &key, &union, "all nodes together")?;
            }
        }
        Ok(())
    }

    /// Checks that `found` has all that was promised of a group.
    fn check_kept(&self, set: usize, key: &Key, found: &Group, who: &str) -> Checked {
        let Some(promised) = self.oracle.promised.get(&set).and_then(|groups| groups.get(key)) else { return Ok(()) };
        let mut merged = found.clone();
        merged.merge(promised);
        if seen(&merged) == seen(found) {
            return Ok(());
        }
        // A delete reached all nodes, although the node that made it has lost it, and its tombstone is dropped by now.
        let unsure = self.oracle.unsure.get(key).copied().unwrap_or_default();
        if !found.is_live() && promised.latest() <= unsure {
            return Ok(());
        }
        let (found, promised) = (show(Some(found)), show(Some(promised)));
        Err(Wrong(format!("{who} have of group {key} {found}, promised is {promised}")))
    }

    /// The groups of a set at a node.
    fn of_node(&self, at: NodeId, set: usize) -> BTreeMap<Key, Group> {
        let mut groups = BTreeMap::<Key, Group>::new();
        for (id, group) in &self.nodes[at].durable.groups {
            if let Some((_, key)) = self.set_of(at, id).filter(|(of, _)| *of == set) {
                groups.entry(key).or_default().merge(group);
            }
        }
        groups
    }

    /// Checks that every node of a set shows the same, and that it is as promised. Nodes in `without` are left out.
    pub fn check_converged(&self, without: &BTreeSet<NodeId>) -> Checked {
        let sets: BTreeSet<usize> = self.oracle.member.values().copied().collect();
        for set in sets {
            let members = self.oracle.member.iter().filter(|(_, of)| **of == set).map(|((_, at), _)| *at);
            let members: BTreeSet<NodeId> = members.filter(|at| !without.contains(at)).collect();
            let mut first: Option<(NodeId, BTreeMap<Key, Seen>)> = None;
            for at in members {
                let groups = self.of_node(at, set);
                let live: BTreeMap<Key, Seen> =
                    groups.iter().filter_map(|(key, group)| Some((key.clone(), seen(group)?))).collect();
                match &first {
                    None => first = Some((at, live)),
                    Some((_, same)) if *same == live => {}
                    Some((other, _)) => return Err(self.difference(*other, at, set)),
                }
                if without.is_empty() {
                    self.check_member(at, set, &groups)?;
                }
            }
        }
        if without.is_empty() { (0..self.nodes.len()).try_for_each(|at| self.check_shown_sums(at)) } else { Ok(()) }
    }

    fn check_member(&self, at: NodeId, set: usize, groups: &BTreeMap<Key, Group>) -> Checked {
        for key in self.keys_of(set) {
            let found = groups.get(&key).cloned().unwrap_or_default();
            self.check_kept(set, &key, &found, &format!("node {at}"))?;
            self.check_sums(set, &key, &found, &format!("node {at}"))?;
            for f in found.families() {
                let bits = f.family.values().first().map_or(0, |value| value.to_bits());
                if !self.oracle.written.contains(&(at_the_pusher(&key), f.family.name().clone(), f.stamp, bits)) {
                    let group = show(Some(&found));
                    return Err(Wrong(format!("node {at} shows of {key} what nobody pushed: {group}")));
                }
            }
        }
        Ok(())
    }

    fn difference(&self, a: NodeId, b: NodeId, set: usize) -> Wrong {
        let (of_a, of_b) = (self.of_node(a, set), self.of_node(b, set));
        for key in of_a.keys().chain(of_b.keys()) {
            let (left, right) = (of_a.get(key), of_b.get(key));
            if left.and_then(seen) != right.and_then(seen) {
                let (left, right) = (show(left), show(right));
                return Wrong(format!("no convergence of group {key}: node {a} has {left}, node {b} {right}"));
            }
        }
        Wrong(format!("no convergence of nodes {a} and {b}"))
    }
}

/// Whether a group at a hub in a ring came from an edge of that hub. A copy that went around the ring and was lost at
/// the hub comes back with the labels of several sites. No promise says to which of them it belongs; if to an edge's,
/// then the edge has it, too.
fn came_from_an_edge(id: &GroupId) -> bool {
    let of_site = |labels: &LabelSet| labels.iter().any(|label| label.name.contains("REGION"));
    match id.site.is_empty() {
        true => id.key.contains("IDC") && !of_site(&id.key),
        false => !of_site(&id.site),
    }
}

fn number(site: &str) -> Option<usize> {
    site.strip_prefix('p')?.parse().ok()
}

/// The name of a group at its pusher.
pub fn at_the_pusher(key: &Key) -> Key {
    let labels = without_site(key);
    let labels = labels.iter().filter(|label| !label.name.contains("REGION"));
    Arc::new(LabelSet::new(labels.map(|label| (label.name, label.value))))
}

/// The name of a group at its edge, if a hub took it for a group of its own or of a hub downstream.
fn without_site(key: &Key) -> Key {
    if !key.contains("IDC") && !key.contains("REGION") {
        return key.clone();
    }
    let labels = key.iter().filter(|label| !["IDC", "REGION"].contains(&label.name));
    Arc::new(LabelSet::new(labels.map(|label| (label.name, label.value))))
}
