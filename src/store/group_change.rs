//! The change that a draft makes to one group.

use std::sync::Arc;

use super::entry::GroupEntry;

/// A group before and after the draft; `None` if it does not exist.
pub(super) struct GroupChange {
    /// The published entry.
    pub(super) before: Option<Arc<GroupEntry>>,
    /// The drafted entry.
    pub(super) after: Option<Arc<GroupEntry>>,
}

impl GroupChange {
    pub(super) fn differs(&self) -> bool {
        self.before.as_ref().map(Arc::as_ptr) != self.after.as_ref().map(Arc::as_ptr)
    }

    pub(super) fn is_new(&self) -> bool {
        self.before.is_none() && self.after.is_some()
    }
}
