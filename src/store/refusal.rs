//! The reasons for which a store refuses a write.

use thiserror::Error;

use super::conflict::PushConflicts;

/// The reason for which a write was refused. `push_failure_time_seconds` of its group has moved, unless
/// `limits.groups_max` forbids even that.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreRefusal {
    /// Families conflict with the families that are shown.
    #[error("{0}")]
    Conflict(Box<PushConflicts>),
    /// The store is at one of its limits.
    #[error("the store is at its bound {name} = {max}: delete groups or raise it")]
    Limit {
        /// The configuration key of the limit.
        name: &'static str,
        /// The value of the limit.
        max: usize,
    },
}
