//! Which groups of a store a link carries, and what the peer calls them.

use std::sync::Arc;

use crate::model::LabelSet;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of one place, known to the peer by their grouping keys: a hub's link to an edge.
    Site(Arc<LabelSet>),
    /// All, known to the peer by the labels under which they are shown here: a link to a hub, which knows nothing of the
    /// places of a node that has edges itself.
    Shown,
}
