//! The part of a store that a link carries.

use std::sync::Arc;

use crate::model::LabelSet;

/// The groups that a link carries, and how the peer identifies them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The groups of one site, identified by their grouping keys: a hub's link to an edge.
    Site(Arc<LabelSet>),
    /// All groups, identified by the labels under which they are shown here: a link to a hub. The hub does not know the
    /// sites of edges below this node.
    Shown,
}
