//! The bounds of selectors, and the name of the metric's name.

/// The label that stands for the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Bytes of a selector, at most.
pub const SELECTOR_BYTES_MAX: usize = 4_096;
/// Matchers of a selector, at most.
pub const MATCHERS_MAX: usize = 64;
/// Selectors of a union, at most.
pub const SELECTORS_MAX: usize = 64;
/// Regular expressions in all selectors of a union, at most.
pub const REGEXES_MAX: usize = 16;
/// Bytes that a compiled regular expression takes, at most.
pub const REGEX_BYTES_MAX: usize = 256 << 10;
