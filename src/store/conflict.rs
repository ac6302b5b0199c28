//! The reasons for which a family cannot be shown, and what the store does about them.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::model::{AlikeNames, GroupId, LabelSet, MetricType, truncated};

/// The reason for which a family cannot be shown together with the families that are shown already.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Conflict {
    /// The name is in use with another type.
    #[error(
        "metric {:?} has type {} here but type {} elsewhere: one name needs one type",
        truncated(.name),
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
        truncated(.name),
        truncated(.used)
    )]
    Suffix {
        /// The metric's name.
        name: Arc<str>,
        /// The shown name that it collides with.
        used: String,
    },
    /// A series with the same name and labels is shown already.
    #[error("metric {:?} {labels} was collected before with the same name and label values", truncated(.name))]
    Duplicate {
        /// The metric's name.
        name: Arc<str>,
        /// The labels, truncated: the text is stored for as long as the family is suppressed.
        labels: String,
        /// The labels of the group that shows the series; `None` if it is the same group.
        group: Option<Arc<LabelSet>>,
    },
    /// The family has a label that its type adds to samples (`le`, `quantile`): the sample would have it twice.
    #[error("metric {:?} must not have an explicit {label:?} label", truncated(.name))]
    OwnLabel {
        /// The metric's name.
        name: Arc<str>,
        /// The label's name.
        label: &'static str,
    },
    /// Another metric's name is the same with an escaping: two metrics would become one.
    #[error("metric {:?} collides with metric {:?}: {alike}", truncated(.name), truncated(.used))]
    AlikeName {
        /// The metric's name.
        name: Arc<str>,
        /// The shown name that it collides with.
        used: Arc<str>,
        /// The two names, with the suffixes of their samples, and what they become.
        alike: AlikeNames,
    },
    /// Two labels of a series, site labels included, are one with an escaping: Prometheus would drop the whole scrape.
    #[error("metric {:?} has two labels that become one: {alike}", truncated(.name))]
    AlikeLabels {
        /// The metric's name.
        name: Arc<str>,
        /// The labels.
        alike: AlikeNames,
    },
    /// A native histogram breaks a rule of Prometheus, which would drop the whole scrape.
    #[error("metric {:?} is not a valid native histogram: {rule}", truncated(.name))]
    Histogram {
        /// The metric's name.
        name: Arc<str>,
        /// The rule.
        rule: String,
    },
    /// Another group is shown under the same labels.
    #[error("another group is already shown under the labels {}", truncated(&.labels.to_string()))]
    Shadowed {
        /// The labels of both groups.
        labels: Arc<LabelSet>,
        /// The group that is shown.
        by: GroupId,
    },
    /// The store is at one of its limits.
    #[error("the store is at its bound {name} = {max}: delete groups or raise it")]
    Limit {
        /// The configuration key of the limit.
        name: &'static str,
        /// The value of the limit.
        max: usize,
    },
}

impl Conflict {
    /// Whether the family could not be shown alone either.
    pub(super) fn is_own_fault(&self) -> bool {
        match self {
            Self::OwnLabel { .. } | Self::AlikeLabels { .. } | Self::Histogram { .. } => true,
            Self::Duplicate { group, .. } => group.is_none(),
            Self::Type { .. }
            | Self::Suffix { .. }
            | Self::AlikeName { .. }
            | Self::Shadowed { .. }
            | Self::Limit { .. } => false,
        }
    }
}

/// All conflicts of a push.
///
/// The first line of the text is the first conflict; clients match on it. Each conflict, the first too, has a further
/// line that says where the other family comes from and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConflicts {
    /// The first conflict.
    pub first: Conflict,
    /// The explanations, at most 20.
    pub(super) lines: Vec<String>,
    /// The number of conflicts without an explanation.
    pub(super) more: usize,
}

impl fmt::Display for PushConflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n{line}"))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n{more} more metrics conflict"),
        }
    }
}

/// The conditions under which families are shown.
#[derive(Clone, Copy)]
pub(super) struct AdmissionTerms {
    pub(super) policy: ConflictPolicy,
    /// The limit on series shown in all groups together.
    pub(super) series_max: usize,
}

/// The treatment of a family that conflicts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConflictPolicy {
    /// Refuse the whole change.
    Refuse,
    /// Suppress the family; but refuse the change if the store is at a limit.
    Suppress,
    /// Suppress the family, whatever the conflict.
    SuppressAll,
}
