//! The reasons for which a family cannot be shown, and what the store does about them.

use std::sync::Arc;

use thiserror::Error;

use crate::model::{GroupId, LabelSet, MetricType, excerpt};

/// Why a family cannot be shown beside what is shown already.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Conflict {
    /// The name is in use with another type.
    #[error(
        "metric {:?} has type {} here but type {} elsewhere: one name needs one type",
        excerpt(.name),
        .pushed.name(),
        .used.name()
    )]
    Type {
        /// The metric's name.
        name: Arc<str>,
        /// The type pushed.
        pushed: MetricType,
        /// The type in use.
        used: MetricType,
    },
    /// The name is that of a sample of a histogram or summary in use, or the other way round.
    #[error(
        "metric {:?} collides with metric {:?}: a histogram or summary owns its _count, _sum and _bucket",
        excerpt(.name),
        excerpt(.used)
    )]
    Suffix {
        /// The metric's name.
        name: Arc<str>,
        /// The name in use that it collides with.
        used: String,
    },
    /// A series of the same name and labels is shown already.
    #[error("metric {:?} {labels} was collected before with the same name and label values", excerpt(.name))]
    Duplicate {
        /// The metric's name.
        name: Arc<str>,
        /// The labels, or their beginning: it is kept for as long as a family is held back.
        labels: String,
        /// The labels of the group that shows it; `None` if that is the group itself.
        group: Option<Arc<LabelSet>>,
    },
    /// A label has a meaning of its own in families of that type, and would be there twice.
    #[error("metric {:?} must not have an explicit {label:?} label", excerpt(.name))]
    OwnLabel {
        /// The metric's name.
        name: Arc<str>,
        /// The label's.
        label: &'static str,
    },
    /// Another group is shown under the same labels.
    #[error("another group is already shown under the labels {}", excerpt(&.labels.to_string()))]
    Shadowed {
        /// The labels.
        labels: Arc<LabelSet>,
        /// The group that is shown.
        by: GroupId,
    },
    /// A bound of the store leaves no room for it.
    #[error("the store is at its bound {name} = {max}: delete groups or raise it")]
    Limit {
        /// The configuration key of the bound.
        name: &'static str,
        /// Its value.
        max: usize,
    },
}

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
