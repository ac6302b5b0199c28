//! The part of the published state that a filtered scrape shows: the series that selectors match, and of these the groups
//! of one shard.
//!
//! The cost depends on the number of groups and on what is selected, not on the number of series:
//!
//! - The labels of each group are matched once ([`Selection::new`]). Mostly that decides for all its series.
//! - A block has the same groups in the same order as the block of push times, or fewer. So the selected families of a
//!   block are found by walking along both, from the position where the block before had them.
//! - Only series of groups that are left undecided, because a selector names labels of series, are matched one by one.
//!
//! Conflicts are judged within what the selectors match: `rejudged` finds suppressed families that can be shown here.
//! Shards divide the result, and judge nothing: all shards together show each series once.

mod filter;
mod groups;
mod rejudged;
mod series;
mod shard;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::filter::{ScrapeFilter, Snapshot};
pub use self::groups::Picked;
use self::groups::SelectedGroups;
pub use self::series::{pick_labelled, pick_own};
pub use self::shard::{SHARDS_MAX, Shard, ShardError};
use super::blocks::{Block, Chunk, ShownFamily};
use crate::model::{Family, LabelSet};

/// A filter applied to a snapshot.
#[derive(Debug)]
pub struct Selection {
    groups: SelectedGroups,
    shard: Option<Shard>,
    /// Whether nothing but a shard is asked for.
    is_shard_only: bool,
    /// The index of the group at which [`Selection::of_shard`] goes on.
    at: usize,
    /// Suppressed families that are shown here, by name and then by labels.
    rejudged: BTreeMap<Arc<str>, Vec<ShownFamily>>,
}

impl Selection {
    /// Matches all groups of the snapshot. `own` are the node's own families that are shown.
    pub fn new(snapshot: &Snapshot, filter: ScrapeFilter, own: &[Family]) -> Self {
        let ScrapeFilter { selectors, shard, scope } = filter;
        let mut groups = SelectedGroups::new(snapshot, selectors.clone(), scope.as_ref());
        let mut rejudged = match &selectors {
            Some(selectors) => rejudged::rejudge(snapshot, &mut groups, selectors, scope.as_ref(), own),
            None => BTreeMap::new(),
        };
        if let Some(shard) = shard {
            groups.divide(shard);
            rejudged.values_mut().for_each(|families| families.retain(|shown| shard.has(&shown.labels)));
            rejudged.retain(|_, families| !families.is_empty());
        }
        Self { groups, shard, is_shard_only: selectors.is_none() && scope.is_none(), at: 0, rejudged }
    }

    /// Whether the node's own families, which have no group, belong to the shard.
    pub fn has_own(&self) -> bool {
        self.shard.is_none_or(|shard| shard.has(&LabelSet::default()))
    }

    /// The shard of the selection.
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// The names of suppressed families that are shown here.
    pub fn rejudged_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rejudged.keys()
    }

    /// The selected families of one name. `by_chunk` asks for [`Picked::ShardOf`] where that is possible; the caller
    /// must pass each of these to [`Selection::of_shard`] or [`Selection::skip`], in order.
    pub fn pick(&mut self, name: &str, block: Option<&Block>, by_chunk: bool) -> Vec<Picked> {
        self.at = 0;
        let mut picked = match block {
            Some(block) if by_chunk && self.is_shard_only => {
                block.chunks().iter().map(|chunk| Picked::ShardOf(chunk.clone())).collect()
            }
            Some(block) => self.groups.pick(name, block),
            None => Vec::new(),
        };
        if let Some(families) = self.rejudged.get(name) {
            picked.push(Picked::Families(families.clone()));
        }
        picked
    }

    /// Passes over a chunk of the block that was picked last.
    pub fn skip(&mut self, chunk: &Chunk) {
        self.at += chunk.entries().len();
    }

    /// The families of a chunk that belong to the shard.
    pub fn of_shard<'a>(&'a mut self, chunk: &'a Chunk) -> impl Iterator<Item = &'a ShownFamily> {
        chunk.entries().iter().filter(|shown| {
            let (next, is_selected) = self.groups.find(&shown.labels, self.at);
            self.at = next;
            is_selected
        })
    }
}
