//! The mistakes in selectors.

use std::fmt;

use thiserror::Error;

use super::bounds::{MATCHERS_MAX, REGEX_BYTES_MAX, REGEXES_MAX, SELECTOR_BYTES_MAX, SELECTORS_MAX};

/// Characters of a selector that a message repeats, at most.
const SHOWN_MAX: usize = 200;

/// A selector that cannot be used. The message names the selector, the column and the mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    text: String,
    /// The position of the mistake in characters, from 1 on.
    pub column: usize,
    /// The mistake.
    pub problem: SelectorProblem,
}

impl SelectorError {
    /// A mistake at that byte of the text.
    pub(super) fn new(text: &str, at: usize, problem: SelectorProblem) -> Self {
        let column = text.char_indices().take_while(|(start, _)| *start < at).count() + 1;
        Self { text: text.chars().take(SHOWN_MAX).collect(), column, problem }
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "selector {:?}, column {}: {}", self.text, self.column, self.problem)
    }
}

impl std::error::Error for SelectorError {}

/// A mistake in a selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorProblem {
    /// Something else stands in this column.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A text in quotes does not end.
    #[error("the text in quotes that begins here does not end")]
    Unterminated,
    /// A backslash in quotes is followed by something unknown.
    #[error("unknown escape after the backslash: write \\\\ for a backslash, or quote with `…`")]
    Escape,
    /// The name of a label is empty.
    #[error("the name of a label must not be empty")]
    NoName,
    /// A regular expression is not valid.
    #[error("not a valid regular expression: {0}")]
    Regex(String),
    /// A regular expression is too large when compiled.
    #[error("the regular expression takes more than {REGEX_BYTES_MAX} bytes when compiled: write a simpler one")]
    RegexTooLarge,
    /// The metric's name is given before the braces and between them.
    #[error("the metric's name stands here a second time: write it once")]
    NameTwice,
    /// The selector matches series without any label.
    #[error(
        "at least one matcher must not match the empty value, such as {{job=\"backup\"}}; {{job=~\".+\"}} matches every group"
    )]
    MatchesEmpty,
    /// The selector is too long.
    #[error("longer than {SELECTOR_BYTES_MAX} bytes: write several selectors")]
    TooLong,
    /// The selector has too many matchers.
    #[error("more than {MATCHERS_MAX} matchers in one selector")]
    TooManyMatchers,
    /// There are too many selectors.
    #[error("more than {SELECTORS_MAX} selectors at once")]
    TooManySelectors,
    /// There are too many regular expressions.
    #[error("more than {REGEXES_MAX} regular expressions at once: join values with | in one of them")]
    TooManyRegexes,
}
