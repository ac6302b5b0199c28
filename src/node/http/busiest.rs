//! The groups with the most writes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::gateway::group_sort::GroupSort;
use crate::gateway::pages::BusyGroup;
use crate::store::{GroupEntry, Published};

/// The groups on an edge's page, and on the first page.
const BUSIEST_MAX: usize = 10;
/// The list for the first page is this old at most: every open page asks for it every few seconds.
const BUSIEST_AGE_NS: u64 = 5_000_000_000;

/// The groups with the most writes, as they were a moment ago.
#[derive(Debug, Default)]
pub struct BusiestGroups(Mutex<(u64, Vec<BusyGroup>)>);

impl BusiestGroups {
    /// The groups that were written to in the last minute, those with the most writes first.
    pub(super) fn get(&self, published: &Published, now_ns: u64) -> Vec<BusyGroup> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ns.abs_diff(cached.0) >= BUSIEST_AGE_NS {
            let mut entries = published.entries();
            entries.retain(|entry| entry.group.is_live() && entry.activity().per_minute(now_ns) > 0);
            *cached = (now_ns, busiest(entries, now_ns));
        }
        let mut groups = cached.1.clone();
        drop(cached);
        // Some may be deleted since.
        groups.retain(|group| published.find(&group.labels).is_some());
        groups
    }
}

/// The first of the groups, those with the most writes first.
pub(super) fn busiest(mut entries: Vec<Arc<GroupEntry>>, now_ns: u64) -> Vec<BusyGroup> {
    entries.sort_by_cached_key(|entry| {
        let weight = GroupSort::Rate.weight(entry, now_ns);
        (std::cmp::Reverse(weight), entry.shown().clone())
    });
    entries.iter().take(BUSIEST_MAX).map(|entry| busy_group(entry, now_ns)).collect()
}

fn busy_group(entry: &GroupEntry, now_ns: u64) -> BusyGroup {
    let activity = entry.activity();
    BusyGroup {
        labels: entry.shown().clone(),
        series: GroupSort::Series.weight(entry, now_ns) as usize,
        per_minute: activity.per_minute(now_ns),
        last_peer: activity.last_peer.map(|peer| peer.to_string()).unwrap_or_default(),
    }
}
