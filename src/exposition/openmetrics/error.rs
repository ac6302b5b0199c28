//! Errors of the reader.

use crate::exposition::Limit;

/// A body is not OpenMetrics; the push changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenMetricsError {
    /// A line is malformed, or contradicts other lines.
    #[error("OpenMetrics parsing error in line {line}: {problem}")]
    Syntax {
        /// The line's number, from 1.
        line: usize,
        /// The problem.
        problem: String,
    },
    /// A bound is crossed.
    #[error("OpenMetrics parsing error in line {line}: {limit}")]
    Limit {
        /// The line's number, from 1.
        line: usize,
        /// The bound.
        limit: Limit,
    },
}

/// A fault of a line whose number is not known yet.
#[derive(Debug)]
pub(super) enum LineFault {
    Syntax(String),
    Limit(Limit),
}

impl From<Limit> for LineFault {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

impl LineFault {
    pub(super) fn at(self, line: usize) -> OpenMetricsError {
        match self {
            Self::Syntax(problem) => OpenMetricsError::Syntax { line, problem },
            Self::Limit(limit) => OpenMetricsError::Limit { line, limit },
        }
    }
}
