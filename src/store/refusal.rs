//! The reasons for which a store refuses a write.

use thiserror::Error;

use super::conflict::PushConflicts;
use super::idempotency::IDEMPOTENCY_KEYS_MAX;
use super::increment::CONTRIBUTORS_MAX;
use crate::model::contribution::CONTRIBUTION;
use crate::model::{SumError, truncated};

/// The reason for which a write was refused. `push_failure_time_seconds` of its group has moved, unless
/// `limits.groups_max` or a quota forbids even that, or the push's key or a label of the group is refused.
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
    /// The subject that pushes is at one of its limits.
    #[error(
        "{rule} has the limit {name} = {max}, and its groups are at it: delete some, or have the operator raise it"
    )]
    Quota {
        /// The rule that has the limit.
        rule: String,
        /// The configuration key of the limit.
        name: &'static str,
        /// The value of the limit.
        max: usize,
    },
    /// An increment does not fit the sum.
    #[error("{0}")]
    Sum(SumError),
    /// A push that adds to a group whose first push was a plain one.
    #[error(
        "the group {} does not add up, its first push was a plain one: push without /aggregate in the path, or delete the \
         group first",
        truncated(.group)
    )]
    PlainGroup {
        /// The group's labels.
        group: String,
    },
    /// A plain push to a group whose first push was one that adds.
    #[error(
        "the group {} adds up, its first push was one that adds: push to the same path below /aggregate, or delete the group \
         first",
        truncated(.group)
    )]
    AddingGroup {
        /// The group's labels.
        group: String,
    },
    /// The group has contributions of too many openings of stores.
    #[error(
        "the group {} has contributions of {CONTRIBUTORS_MAX} starts of nodes, the most that are kept: delete the group to \
         start anew",
        truncated(.group)
    )]
    Contributors {
        /// The group's labels.
        group: String,
    },
    /// The key of an earlier push, with another body.
    #[error(
        "the Idempotency-Key was used for a push with another body to this group: nothing was added; use a new key"
    )]
    KeyReused,
    /// No more keys can be remembered.
    #[error(
        "the Idempotency-Keys of {IDEMPOTENCY_KEYS_MAX} pushes are remembered, the most that are kept: nothing was added; \
         try again later, push without a key, or lower aggregate.idempotency_window"
    )]
    KeysFull,
    /// The group has a label with which this store marks contributions.
    #[error("the label {CONTRIBUTION} with such a value marks a part of a sum: push to the group without it")]
    Reserved,
}
