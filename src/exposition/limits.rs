//! Bounds on what one push may hold, so that no body makes more work or memory than its size allows for.

use std::fmt;

/// Bounds on one push. The size of the body is bounded before it comes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one line of the text format; default 1 MiB.
    pub line_bytes_max: usize,
    /// Labels of one series, without those of the group; default 1,000.
    pub labels_per_series_max: usize,
    /// Series in one push; default 2,000,000.
    pub series_max: usize,
    /// Metric families in one push; default 200,000.
    pub families_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: 1 << 20, labels_per_series_max: 1_000, series_max: 2_000_000, families_max: 200_000 }
    }
}

/// A bound that a push crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::line_bytes_max`].
    LineBytes(usize),
    /// [`Limits::labels_per_series_max`].
    LabelsPerSeries(usize),
    /// [`Limits::series_max`].
    Series(usize),
    /// [`Limits::families_max`].
    Families(usize),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineBytes(max) => write!(f, "line longer than the limit of {max} bytes"),
            Self::LabelsPerSeries(max) => write!(f, "more than the limit of {max} labels in one series"),
            Self::Series(max) => write!(f, "more than the limit of {max} series in one push; split it"),
            Self::Families(max) => write!(f, "more than the limit of {max} metric families in one push; split it"),
        }
    }
}
