//! The selected groups, and their families in each block.

use std::ops::Range;
use std::sync::Arc;

use super::filter::Snapshot;
use super::series::{self, FamilyPart, GroupMatch, SelectorMask};
use super::shard::Shard;
use crate::model::LabelSet;
use crate::selector::Selectors;
use crate::store::blocks::{Block, Chunk, ShownFamily};
use crate::store::view::PUSH_TIME;

/// A position in a block.
type Slot = (usize, usize);

/// Selected families of one metric name.
#[derive(Debug)]
pub enum Picked {
    /// All families of a chunk.
    Chunk(Arc<Chunk>),
    /// The families of a chunk that belong to the shard: see [`super::Selection::of_shard`].
    ShardOf(Arc<Chunk>),
    /// Families, in order.
    Families(Vec<ShownFamily>),
}

/// The groups of a snapshot, and those of them that are selected.
#[derive(Debug)]
pub(super) struct SelectedGroups {
    selectors: Option<Selectors>,
    /// The groups in order.
    groups: Vec<GroupMatch>,
    /// The selected groups, as ranges of `groups`, none empty and none adjacent to another.
    runs: Vec<Range<usize>>,
    /// For each run, the position at which the last block had its first group.
    slots: Vec<Slot>,
}

impl SelectedGroups {
    /// Matches all groups of the snapshot; those that `scope` does not match are not selected.
    pub(super) fn new(snapshot: &Snapshot, selectors: Option<Selectors>, scope: Option<&Selectors>) -> Self {
        let times = snapshot.blocks.iter().find(|(name, _)| **name == *PUSH_TIME);
        let groups = times.iter().flat_map(|(_, block)| block.entries()).map(|shown| match &selectors {
            _ if scope.is_some_and(|scope| !scope.matches(|name| shown.labels.get(name))) => {
                GroupMatch { labels: shown.labels.clone(), possible: 0, certain: 0 }
            }
            Some(selectors) => series::match_group(selectors, &shown.labels),
            None => GroupMatch { labels: shown.labels.clone(), possible: !0, certain: !0 },
        });
        let groups = groups.collect();
        let mut selected = Self { selectors, groups, runs: Vec::new(), slots: Vec::new() };
        selected.find_runs();
        selected
    }

    /// Leaves out the groups of other shards.
    pub(super) fn divide(&mut self, shard: Shard) {
        for group in self.groups.iter_mut().filter(|group| group.possible != 0 && !shard.has(&group.labels)) {
            (group.possible, group.certain) = (0, 0);
        }
        self.find_runs();
    }

    fn find_runs(&mut self) {
        self.runs.clear();
        for at in (0..self.groups.len()).filter(|at| self.groups[*at].possible != 0) {
            match self.runs.last_mut().filter(|run| run.end == at) {
                Some(run) => run.end = at + 1,
                None => self.runs.push(at..at + 1),
            }
        }
        self.slots = vec![(0, 0); self.runs.len()];
    }

    /// The index of the group with these labels, if it is selected, and of the group after it. `near` is tried first.
    pub(super) fn find(&self, labels: &Arc<LabelSet>, near: usize) -> (usize, bool) {
        let is_near = self.groups.get(near).is_some_and(|group| Arc::ptr_eq(&group.labels, labels));
        match if is_near { Some(near) } else { self.find_from(labels, 0..self.groups.len()) } {
            Some(at) => (at + 1, self.groups[at].possible != 0),
            None => (near, false),
        }
    }

    /// The selected families of a block.
    pub(super) fn pick(&mut self, name: &str, block: &Block) -> Vec<Picked> {
        let named = match &self.selectors {
            Some(selectors) => series::match_name(selectors, name),
            None => !0,
        };
        let mut picked = Vec::new();
        if named == 0 {
            return picked;
        }
        for at in 0..self.runs.len() {
            let run = self.runs[at].clone();
            let slot = block.locate(&self.groups[run.start].labels, self.slots[at]);
            self.slots[at] = slot;
            self.walk_run(block, slot, run, named, &mut picked);
        }
        picked
    }

    /// Picks families from `slot` on, until the groups of the run end.
    fn walk_run(&self, block: &Block, slot: Slot, run: Range<usize>, named: SelectorMask, picked: &mut Vec<Picked>) {
        let (mut group, mut from) = (run.start, slot.1);
        let last = &self.groups[run.end - 1].labels;
        for chunk in block.chunks().get(slot.0..).unwrap_or_default() {
            let entries = chunk.entries();
            if from == 0 && self.has_all(entries, group..run.end, named) {
                picked.push(Picked::Chunk(chunk.clone()));
                group += entries.len();
            } else {
                for shown in entries.get(from..).unwrap_or_default() {
                    if group == run.end {
                        return;
                    }
                    if !Arc::ptr_eq(&shown.labels, &self.groups[group].labels) && shown.labels > *last {
                        return;
                    }
                    let Some(at) = self.find_from(&shown.labels, group..run.end) else { continue };
                    group = at + 1;
                    self.pick_family(shown, &self.groups[at], named, picked);
                }
            }
            if group == run.end {
                return;
            }
            from = 0;
        }
    }

    /// Whether the entries are those of the first groups of the range, and all of their series are selected.
    fn has_all(&self, entries: &[ShownFamily], groups: Range<usize>, named: SelectorMask) -> bool {
        let Some(groups) = self.groups[groups].get(..entries.len()) else { return false };
        let fits = |(shown, group): (&ShownFamily, &GroupMatch)| {
            Arc::ptr_eq(&shown.labels, &group.labels) && group.certain & named != 0
        };
        entries.iter().zip(groups).all(fits)
    }

    /// The index of the group with these labels in the range; mostly it is the first.
    fn find_from(&self, labels: &Arc<LabelSet>, range: Range<usize>) -> Option<usize> {
        let groups = &self.groups[range.clone()];
        if groups.first().is_some_and(|group| Arc::ptr_eq(&group.labels, labels)) {
            return Some(range.start);
        }
        groups.binary_search_by(|group| group.labels.cmp(labels)).ok().map(|at| range.start + at)
    }

    fn pick_family(&self, shown: &ShownFamily, group: &GroupMatch, named: SelectorMask, picked: &mut Vec<Picked>) {
        let family = if group.certain & named != 0 {
            shown.clone()
        } else {
            let Some(selectors) = &self.selectors else { return };
            match series::pick(selectors, group, &shown.family) {
                FamilyPart::Whole => shown.clone(),
                FamilyPart::Nothing => return,
                FamilyPart::Part(part) => ShownFamily { labels: shown.labels.clone(), family: part },
            }
        };
        match picked.last_mut() {
            Some(Picked::Families(families)) => families.push(family),
            _ => picked.push(Picked::Families(vec![family])),
        }
    }
}
