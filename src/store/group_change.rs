//! What a draft changes of one group.

use std::sync::Arc;

use super::entry::GroupEntry;

/// A group as it is published and as the draft has it; `None` where it is not there.
pub(super) struct GroupChange {
    pub(super) before: Option<Arc<GroupEntry>>,
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
