//! Planted mistakes of sums: they alter contributions on their way between the product's parts.

use std::sync::Arc;

use pushrelay::commit::{Merge, MergeSequence};
use pushrelay::model::{
    Contributor, Epoch, Family, Group, GroupFamily, GroupHeader, GroupId, LabelSet, Position, PushTime, StoreId,
    WriteTimestamp,
};
use pushrelay::store::{Identity, Scope, Store, WriteTime};
use pushrelay::wire::Delta;

use super::bug::Bug;
use super::committer::{Command, Due, MergeReply};
use super::{MILLISECOND, NodeId, World};

/// A clock that is wrong by less is not corrected.
const CORRECTED_NS_MIN: u64 = 100 * MILLISECOND;

/// An update that a store sends itself.
fn own_update(identity: Identity, deltas: Vec<Delta>) -> Command {
    let (peer, position, sequence): (StoreId, _, _) = (identity.store, Position::default(), MergeSequence::default());
    let merge = Merge { scope: Scope::Shown, deltas, peer, position, sequence };
    Command::Merge { merge, reply: MergeReply::Push(Due::default()) }
}

/// The contributions of a contributor, as an update has them.
fn delta(key: &LabelSet, contributor: &Contributor, group: Group) -> Delta {
    Delta { id: GroupId { site: Arc::default(), key: Arc::new(contributor.join(key)) }, group }
}

fn own_epoch(store: &Store) -> Epoch {
    store.epochs().last().map(|opening| opening.epoch).unwrap_or_default()
}

impl World {
    /// A change of an update that a node received, altered where a mistake is planted.
    pub fn altered_delta(&self, at: NodeId, change: Delta) -> Delta {
        let (Some((key, contributor)), Some(running)) = (Contributor::split(&change.id.key), &self.nodes[at].running)
        else {
            return change;
        };
        let store = running.engine.store();
        if self.is(Bug::ContributionMixed) {
            let own = Contributor { epoch: own_epoch(store), ..contributor };
            return delta(&key, &own, change.group);
        }
        if self.is(Bug::ContributionAddedAgain) {
            let id = GroupId { site: change.id.site.clone(), key: Arc::new(key.clone()) };
            let present = store.drafted(&id).map(|entry| entry.group.contributions(&contributor)).unwrap_or_default();
            let again = |f: &GroupFamily| {
                let added = present.family(f.family.name()).and_then(|old| both(&old.family, &f.family));
                GroupFamily::plain(f.stamp, added.unwrap_or_else(|| f.family.clone()))
            };
            let families = change.group.families().iter().map(again).collect();
            return delta(&key, &contributor, Group::from_parts(families, GroupHeader::default()));
        }
        change
    }

    /// The contributions of a group that is about to be deleted, as if they began after the delete.
    pub fn contributions_spared(&self, at: NodeId, shown: &Arc<LabelSet>, now: WriteTime) -> Option<Command> {
        let store = self.nodes[at].running.as_ref()?.engine.store();
        let entry = store.drafted(&store.resolve(shown.clone())).filter(|entry| entry.group.is_adding())?;
        let after = WriteTimestamp::after(now.stamp_ns, entry.group.latest(), store.identity().node);
        let stamp = WriteTimestamp { time_ns: after.time_ns + 1, ..after };
        let spared = |contributor: &Arc<Contributor>| {
            let late = |f: &GroupFamily| GroupFamily::plain(stamp, f.family.clone());
            let families = entry.group.contributions(contributor).families().iter().map(late).collect();
            let group = Group::from_parts(families, GroupHeader::default());
            delta(shown, &Contributor { birth: stamp, ..**contributor }, group)
        };
        Some(own_update(store.identity(), entry.group.contributors().iter().map(spared).collect()))
    }

    /// The correction of a clock that was behind, which leaves the births of contributions as they were.
    pub fn moved_without_births(&self, at: NodeId, right_ns: u64, now: WriteTime) -> Option<Command> {
        let shift_ns = right_ns.checked_sub(now.wall_ns).filter(|shift_ns| *shift_ns >= CORRECTED_NS_MIN)?;
        let (store, began_ns) = (self.nodes[at].running.as_ref()?.engine.store(), self.nodes[at].started_ns);
        let (published, node) = (store.published(), store.identity().node);
        let later = |stamp: WriteTimestamp| {
            let is_wrong = stamp.node == node && stamp.time_ns + MILLISECOND >= began_ns;
            WriteTimestamp { time_ns: stamp.time_ns + if is_wrong { shift_ns } else { 0 }, ..stamp }
        };
        let time = |time: PushTime| PushTime { stamp: later(time.stamp), ..time };
        let families = |group: &Group| -> Vec<GroupFamily> {
            group.families().iter().map(|f| GroupFamily::plain(later(f.stamp), f.family.clone())).collect()
        };
        let mut deltas = Vec::new();
        for entry in published.entries().iter().filter(|entry| published.is_unconfirmed(entry.id())) {
            let (shown, group) = (entry.shown(), &entry.group);
            let header = group.header();
            let moved = GroupHeader {
                cleared_at: later(header.cleared_at),
                deleted: later(header.deleted),
                pushed: header.pushed.map(time),
                failed: header.failed.map(time),
                ..*header
            };
            let plain = Group::from_parts(families(&group.without_contributions()), moved);
            deltas.push(Delta { id: GroupId { site: Arc::default(), key: shown.clone() }, group: plain });
            for contributor in group.contributors() {
                let own = Group::from_parts(families(&group.contributions(&contributor)), GroupHeader::default());
                deltas.push(delta(shown, &contributor, own));
            }
        }
        deltas.sort_by(|a, b| a.id.cmp(&b.id));
        Some(own_update(store.identity(), deltas))
    }
}

/// The values of two families added, if they have one schema.
fn both(a: &Family, b: &Family) -> Option<Family> {
    let sums = a.values().iter().zip(b.values().iter()).map(|(a, b)| a + b);
    a.schema().same(b.schema()).then(|| Family::new(b.schema().clone(), sums.collect(), None))?
}
