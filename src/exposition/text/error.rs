//! The errors of the text parser, as a pusher reads them.

use crate::exposition::Limit;

/// A body is not text format; the push changes nothing. The messages are those of Pushgateway's parser.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A line is malformed.
    #[error("text format parsing error in line {line}: {problem}")]
    Syntax {
        /// The line's number, from 1.
        line: usize,
        /// The parser's message.
        problem: String,
    },
    /// A bound is crossed.
    #[error("text format parsing error in line {line}: {limit}")]
    Limit {
        /// The line's number, from 1.
        line: usize,
        /// The bound.
        limit: Limit,
    },
}
