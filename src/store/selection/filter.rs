//! The question and the state that it is asked of.

use std::sync::Arc;

use super::shard::Shard;
use crate::selector::Selectors;
use crate::store::entry::GroupEntry;
use crate::store::view::{Published, ScrapeSnapshot};

/// The series that a scrape asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrapeFilter {
    /// Only series that these match.
    pub selectors: Option<Selectors>,
    /// Only groups of this shard.
    pub shard: Option<Shard>,
    /// Only groups that these match: those that the scraper may read. The node's own families are not among them.
    pub scope: Option<Selectors>,
}

impl ScrapeFilter {
    /// Whether everything is asked for.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// A snapshot to select from.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// A block for each metric name, in the order of names.
    pub blocks: ScrapeSnapshot,
    /// The live groups that have a suppressed family, sorted by their labels.
    pub(super) suppressed: Vec<Arc<GroupEntry>>,
}

impl Snapshot {
    /// The published state, with the suppressed families if `filter` can show some of them.
    pub fn new(published: &Published, filter: &ScrapeFilter) -> Self {
        let (blocks, suppressed) = published.snapshot_with_suppressed(filter.selectors.is_some());
        Self { blocks, suppressed }
    }
}
