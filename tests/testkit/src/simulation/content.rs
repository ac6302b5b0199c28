//! The content of a store, as the sum of its durable records.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushrelay::model::{Contributor, Family, Group, GroupId, Lifetime, PushTime, StoreId, WriteTimestamp};
use pushrelay::store::{PeerCursor, Record, Store};

/// Groups, tombstones included, and cursors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub groups: BTreeMap<GroupId, Group>,
    pub cursors: BTreeMap<StoreId, PeerCursor>,
}

impl Content {
    /// The published content of a store.
    pub fn of(store: &Store) -> Content {
        let entries = store.published().entries();
        Content {
            groups: entries.iter().map(|entry| (entry.id().clone(), entry.group.clone())).collect(),
            cursors: store.cursors().iter().map(|(peer, cursor)| (*peer, cursor.clone())).collect(),
        }
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Opened { .. } | Record::Key(_) => {}
            Record::Group(record) => {
                self.groups.entry(record.id.clone()).or_default().merge(&record.group);
            }
            Record::Forgotten { id, .. } => drop(self.groups.remove(id)),
            Record::Cursor { peer, cursor } => drop(self.cursors.insert(*peer, cursor.clone())),
        }
    }

    pub fn with(&self, records: &[Record]) -> Content {
        let mut content = self.clone();
        records.iter().for_each(|record| content.apply(record));
        content
    }

    /// The first difference, with the actual and the expected value.
    pub fn difference(&self, expected: &Content) -> String {
        for id in self.groups.keys().chain(expected.groups.keys()) {
            let (found, due) = (self.groups.get(id), expected.groups.get(id));
            if found != due {
                return format!("group {id}: found {}, expected {}", show(found), show(due));
            }
        }
        for peer in self.cursors.keys().chain(expected.cursors.keys()) {
            let (found, due) = (self.cursors.get(peer), expected.cursors.get(peer));
            if found != due {
                return format!("cursor of {peer}: found {found:?}, expected {due:?}");
            }
        }
        "none".into()
    }
}

/// The part of a group that a scrape could show, suppressed families included.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    families: Vec<(WriteTimestamp, Option<Arc<Contributor>>, Family)>,
    pushed: Option<PushTime>,
    failed: Option<PushTime>,
    lifetime: Option<Lifetime>,
}

/// `None` if the group is deleted.
pub fn seen(group: &Group) -> Option<Seen> {
    group.is_live().then(|| Seen {
        families: group.families().iter().map(|f| (f.stamp, f.contributor.clone(), f.family.clone())).collect(),
        pushed: group.pushed(),
        failed: group.failed(),
        lifetime: group.lifetime(),
    })
}

/// A group in one line, for traces.
pub fn show(group: Option<&Group>) -> String {
    let Some(group) = group else { return "nothing".into() };
    let stamp =
        |stamp: WriteTimestamp| format!("{}.{:x}", stamp.time_ns / 1_000 % 100_000_000_000, stamp.node.0 & 0xfff);
    let moment = |moment: Option<PushTime>| moment.map_or("-".into(), |moment| stamp(moment.stamp));
    let families: Vec<String> = group
        .families()
        .iter()
        .map(|f| {
            let born = f.contributor.as_ref();
            let born =
                born.map_or(String::new(), |of| format!(" of {:x} born {}", of.epoch.0 & 0xffff, stamp(of.birth)));
            format!("{}={:?}@{}{born}", f.family.name(), f.family.values(), stamp(f.stamp))
        })
        .collect();
    let (cleared_at, deleted) = (stamp(group.cleared_at()), stamp(group.deleted()));
    let (pushed, failed) = (moment(group.pushed()), moment(group.failed()));
    let lifetime = group.lifetime().map_or(String::new(), |lifetime| format!(" for {lifetime}"));
    let families = families.join(" ");
    format!("{{{families} cleared {cleared_at} deleted {deleted} pushed {pushed}{lifetime} failed {failed}}}")
}

/// A key of a group.
pub type Key = Arc<pushrelay::model::LabelSet>;
