//! The reasons for which a family cannot be shown, and what the store does about them.

use std::fmt;
use std::sync::Arc;

use crate::model::{GroupId, LabelSet, MetricType, excerpt};

/// Why a family cannot be shown beside what is shown already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The name is in use with another type.
    Type {
        /// The metric's name.
        name: Arc<str>,
        /// The type pushed.
        pushed: MetricType,
        /// The type in use.
        used: MetricType,
    },
    /// The name is that of a sample of a histogram or summary in use, or the other way round.
    Suffix {
        /// The metric's name.
        name: Arc<str>,
        /// The name in use that it collides with.
        used: String,
    },
    /// A series of the same name and labels is shown already.
    Duplicate {
        /// The metric's name.
        name: Arc<str>,
        /// The labels, or their beginning: it is kept for as long as a family is held back.
        labels: String,
        /// The labels of the group that shows it; `None` if that is the group itself.
        group: Option<Arc<LabelSet>>,
    },
    /// A label has a meaning of its own in families of that type, and would be there twice.
    OwnLabel {
        /// The metric's name.
        name: Arc<str>,
        /// The label's.
        label: &'static str,
    },
    /// Another group is shown under the same labels.
    Shadowed {
        /// The labels.
        labels: Arc<LabelSet>,
        /// The group that is shown.
        by: GroupId,
    },
    /// A bound of the store leaves no room for it.
    Limit {
        /// The configuration key of the bound.
        name: &'static str,
        /// Its value.
        max: usize,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { name, pushed, used } => {
                let (name, pushed, used) = (excerpt(name), pushed.name(), used.name());
                write!(f, "metric {name:?} has type {pushed} here but type {used} elsewhere: one name needs one type")
            }
            Self::Suffix { name, used } => {
                let (name, used) = (excerpt(name), excerpt(used));
                write!(
                    f,
                    "metric {name:?} collides with metric {used:?}: a histogram or summary owns its _count, _sum and _bucket"
                )
            }
            Self::Duplicate { name, labels, .. } => {
                let name = excerpt(name);
                write!(f, "metric {name:?} {labels} was collected before with the same name and label values")
            }
            Self::OwnLabel { name, label } => {
                write!(f, "metric {:?} must not have an explicit {label:?} label", excerpt(name))
            }
            Self::Shadowed { labels, .. } => {
                write!(f, "another group is already shown under the labels {}", excerpt(&labels.to_string()))
            }
            Self::Limit { name, max } => {
                write!(f, "the store is at its bound {name} = {max}: delete groups or raise it")
            }
        }
    }
}

impl std::error::Error for Conflict {}

/// On which terms families are shown.
#[derive(Clone, Copy)]
pub(super) struct AdmissionTerms {
    pub(super) policy: ConflictPolicy,
    /// Series shown in all groups together.
    pub(super) series_max: usize,
}

/// What to do with a family that conflicts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConflictPolicy {
    Refuse,
    /// Hold it back, unless it exceeds a bound.
    Suppress,
    /// Hold it back, whatever the conflict.
    SuppressAll,
}
