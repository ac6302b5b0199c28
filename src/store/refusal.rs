//! The reasons for which a store refuses a write.

use thiserror::Error;

use super::conflict::Conflict;

/// Why a push was refused; its group's `push_failure_time_seconds` has moved (unless the bound on groups forbids even that).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreRefusal {
    /// It cannot stand beside what is shown.
    #[error(transparent)]
    Conflict(Conflict),
    /// A bound of the store was reached.
    #[error("the store is at its bound {name} = {max}: delete groups or raise it")]
    Limit {
        /// The configuration key of the bound.
        name: &'static str,
        /// Its value.
        max: usize,
    },
}
