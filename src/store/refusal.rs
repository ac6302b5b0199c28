//! The reasons for which a store refuses a write.

use std::fmt;

use super::conflict::Conflict;

/// Why a push was refused; its group's `push_failure_time_seconds` has moved (unless the bound on groups forbids even that).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRefusal {
    /// It cannot stand beside what is shown.
    Conflict(Conflict),
    /// A bound of the store was reached.
    Limit {
        /// The configuration key of the bound.
        name: &'static str,
        /// Its value.
        max: usize,
    },
}

impl fmt::Display for StoreRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::Limit { name, max } => Conflict::Limit { name, max: *max }.fmt(f),
        }
    }
}

impl std::error::Error for StoreRefusal {}
