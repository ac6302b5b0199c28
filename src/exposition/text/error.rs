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
        /// The character in the line, from 1, at which the parser stopped.
        column: usize,
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

impl TextError {
    /// The line and the character of the error, both from 1, and its message. Pushgateway's messages have the line only.
    pub fn parts(&self) -> (usize, usize, String) {
        match self {
            Self::Syntax { line, column, problem } => (*line, *column, problem.clone()),
            Self::Limit { line, limit } => (*line, 1, limit.to_string()),
        }
    }
}
