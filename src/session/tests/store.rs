//! A store for the tests: groups, revisions and marks in maps, and a copy of all of it as a disk image.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, NodeId, Position, PushTime, Revision, StoreId,
    ValueLayout, WriteTimestamp,
};
use crate::session::{Batch, OriginFilter};
use crate::wire::{Delta, EpochStart, PeerInfo, StoreCursor};

#[derive(Clone, Copy, Debug)]
struct Mark {
    revision: Revision,
    origin: Option<StoreId>,
}

#[derive(Clone, Debug)]
struct Entry {
    group: Group,
    header: Mark,
    families: BTreeMap<Arc<str>, Mark>,
}

/// The part of a group that a scrape could see.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    families: Vec<(WriteTimestamp, Family)>,
    pushed: Option<PushTime>,
    failed: Option<PushTime>,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub id: StoreId,
    epochs: Vec<EpochStart>,
    head: Revision,
    gc_watermark: Revision,
    groups: BTreeMap<Arc<LabelSet>, Entry>,
    cursors: BTreeMap<StoreId, Position>,
}

impl Store {
    pub fn create(id: u64, epoch: u64) -> Store {
        let (id, head, gc_watermark) = (StoreId(id), Revision(0), Revision(0));
        Store { id, epochs: vec![], head, gc_watermark, groups: BTreeMap::new(), cursors: BTreeMap::new() }.open(epoch)
    }

    pub fn open(mut self, epoch: u64) -> Store {
        self.epochs.push(EpochStart { epoch: Epoch(epoch), revision: self.head });
        self
    }

    pub fn head(&self) -> Revision {
        self.head
    }

    pub fn cursor(&self, of: StoreId) -> Position {
        self.cursors.get(&of).copied().unwrap_or_default()
    }

    pub fn info(&self) -> PeerInfo {
        PeerInfo {
            identity: String::new(),
            node: format!("node of {}", self.id),
            software: "tests".into(),
            store: self.id,
            epochs: self.epochs.clone(),
            head: self.head,
            gc_watermark: self.gc_watermark,
            cursors: self
                .cursors
                .iter()
                .map(|(store, position)| StoreCursor { store: *store, position: *position })
                .collect(),
        }
    }

    pub fn merge(&mut self, key: &Arc<LabelSet>, change: &Group, origin: Option<StoreId>) {
        let revision = self.head.next();
        let unwritten = Mark { revision: Revision(0), origin: None };
        let empty = || Entry { group: Group::default(), header: unwritten, families: BTreeMap::new() };
        let entry = self.groups.entry(key.clone()).or_insert_with(empty);
        let changes = entry.group.merge(change);
        if changes.is_empty() {
            return;
        }
        self.head = revision;
        for set in changes.set(&entry.group) {
            entry.families.insert(set.family.name().clone(), Mark { revision, origin });
        }
        entry.families.retain(|name, _| entry.group.family(name).is_some());
        if changes.header {
            let header = |g: &Group| (g.cleared_at(), g.deleted(), g.pushed(), g.failed());
            let origin = origin.filter(|_| header(&entry.group) == header(change));
            entry.header = Mark { revision, origin };
        }
    }

    pub fn commit(&mut self, deltas: &[Delta], peer: StoreId, position: Position) {
        for delta in deltas {
            self.merge(&delta.id.key, &delta.group, Some(peer));
        }
        self.cursors.insert(peer, position);
    }

    /// Reads marks in the order of their revisions; `marks_max` stands for the bytes of a real store.
    pub fn read(&self, since: Revision, skip: OriginFilter, marks_max: usize) -> Batch {
        let wanted =
            |mark: &Mark| mark.revision > since && !(mark.origin == Some(skip.origin) && mark.revision > skip.after);
        let marks = |entry: &Entry| -> Vec<Revision> {
            entry.families.values().chain([&entry.header]).filter(|m| wanted(m)).map(|m| m.revision).collect()
        };
        let mut revisions: Vec<Revision> = self.groups.values().flat_map(marks).collect();
        revisions.sort();
        let upto = revisions.get(marks_max.saturating_sub(1)).copied().unwrap_or(self.head);
        let within = |mark: &Mark| wanted(mark) && mark.revision <= upto;
        let part = |(key, entry): (&Arc<LabelSet>, &Entry)| {
            let touched = within(&entry.header) || entry.families.values().any(within);
            let group = entry.group.part(|_, f| entry.families.get(f.family.name()).is_some_and(within));
            touched.then(|| Delta { id: GroupId { site: Arc::default(), key: key.clone() }, group })
        };
        let deltas = self.groups.iter().filter_map(part).collect();
        Batch { deltas, upto, more: upto < self.head }
    }

    /// Drops the tombstones that are older than this.
    pub fn forget_tombstones(&mut self, upto: Revision) {
        let gone = |entry: &Entry| !entry.group.is_live() && entry.header.revision <= upto;
        let newest = self.groups.values().filter(|e| gone(e)).map(|e| e.header.revision).max();
        self.gc_watermark = self.gc_watermark.max(newest.unwrap_or_default());
        self.groups.retain(|_, entry| !gone(entry));
    }

    pub fn tombstones(&self) -> usize {
        self.groups.values().filter(|entry| !entry.group.is_live()).count()
    }

    pub fn groups(&self) -> impl Iterator<Item = (&Arc<LabelSet>, &Group)> {
        self.groups.iter().map(|(key, entry)| (key, &entry.group))
    }

    pub fn seen(&self) -> BTreeMap<Arc<LabelSet>, Seen> {
        seen(self.groups())
    }
}

pub fn seen<'a>(groups: impl Iterator<Item = (&'a Arc<LabelSet>, &'a Group)>) -> BTreeMap<Arc<LabelSet>, Seen> {
    let one = |group: &Group| Seen {
        families: group.families().iter().map(|f| (f.stamp, f.family.clone())).collect(),
        pushed: group.pushed(),
        failed: group.failed(),
    };
    groups.filter(|(_, group)| group.is_live()).map(|(key, group)| (key.clone(), one(group))).collect()
}

pub fn key(job: usize) -> Arc<LabelSet> {
    Arc::new(LabelSet::new([("job", format!("job{job}")), ("instance", "i".into())]))
}

pub fn family(name: usize, values: &[f64]) -> Family {
    let mut builder = FamilyBuilder::new(format!("metric{name}"), MetricType::Gauge);
    for (at, value) in values.iter().enumerate() {
        builder.series(&[("at", &at.to_string())], &ValueLayout::Single, &[*value], None);
    }
    builder.finish().unwrap()
}

pub fn moment(time_ns: u64, node: u64) -> PushTime {
    PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(node) }, wall_ns: time_ns / 2 }
}
