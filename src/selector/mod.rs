//! Layer 1: selectors, which name groups and series by their labels, as PromQL's series selectors do:
//! `{job="backup",IDC=~"SYQ|BJ"}`, `up{job!=""}`, `{"a name with spaces"}`.
//!
//! # Rules
//!
//! - Syntax and meaning are Prometheus's. A matcher is `=`, `!=`, `=~` or `!~`; a selector matches if all its matchers
//!   do. A label that is missing has the empty value. The metric name is the label `__name__`. Several selectors
//!   ([`Selectors`]) are a union.
//! - A regular expression must match the whole value, and `.` matches a line feed too. Its syntax is that of the crate
//!   `regex`, which differs from Go's in rare cases (`\d` and `\w` match all of Unicode, a literal `{` needs a
//!   backslash).
//! - As in Prometheus, at least one matcher must not match the empty value. So no selector matches everything by
//!   mistake; `{job=~".+"}` matches every group.
//! - Length, number of matchers, and size of regular expressions are bounded. Matching takes time in proportion to the
//!   value.
//!
//! `coverage` says before any group is there which selectors match none, or all that another one matches. `reader` reads
//! the text, [`Matcher`] is one comparison, [`SelectorError`] says what is wrong and in which column.

mod bounds;
mod coverage;
mod error;
mod matcher;
mod reader;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use bounds::{MATCHERS_MAX, METRIC_NAME, REGEX_BYTES_MAX, REGEXES_MAX, SELECTOR_BYTES_MAX, SELECTORS_MAX};
pub use error::{SelectorError, SelectorProblem};
pub use matcher::Matcher;

/// A series selector. Cheap to clone.
#[derive(Clone)]
pub struct Selector {
    text: Arc<str>,
    matchers: Arc<[Matcher]>,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// The text is no selector, or crosses a bound.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        let matchers = reader::read(text)?;
        Ok(Selector { text: text.into(), matchers: matchers.into() })
    }

    /// The selector that matches exactly these labels, whatever others there are. At least one value must not be empty.
    ///
    /// # Errors
    /// All values are empty, or the labels are too long.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Selector, SelectorError> {
        Selector::parse(&reader::print(labels))
    }

    /// The selector of all series that have these values of labels, whatever their names.
    ///
    /// # Errors
    /// The labels are too long.
    pub fn rest<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Selector, SelectorError> {
        let own = reader::print(labels);
        let comma = if own == "{}" { "" } else { "," };
        Selector::parse(&format!("{{{METRIC_NAME}=~\".+\"{comma}{}", &own[1..]))
    }

    /// The matchers, all of which must match.
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// Whether the selector matches labels of which `value_of` returns the values; `None` for a label that is missing.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.matchers.iter().all(|matcher| matcher.accepts(value_of(matcher.name()).unwrap_or_default()))
    }

    /// Whether it has a matcher of the metric name: it then matches series, not groups.
    pub fn names_metric(&self) -> bool {
        self.matchers.iter().any(|matcher| matcher.name() == METRIC_NAME)
    }

    fn regexes(&self) -> usize {
        self.matchers.iter().filter(|matcher| matcher.is_regex()).count()
    }
}

/// As it was written.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Prints the same as [`fmt::Display`].
impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

/// A union of selectors. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors(Arc<[Selector]>);

impl Selectors {
    /// Reads selectors, as the parameters `match[]` of a request give them. Without any, the result matches nothing.
    ///
    /// # Errors
    /// One of them is no selector, or they cross a bound.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Selectors, SelectorError> {
        let (mut selectors, mut regexes) = (Vec::new(), 0);
        for text in texts.iter().map(AsRef::as_ref) {
            if selectors.len() == SELECTORS_MAX {
                return Err(SelectorError::new(text, 0, SelectorProblem::TooManySelectors));
            }
            let selector = Selector::parse(text)?;
            regexes += selector.regexes();
            if regexes > REGEXES_MAX {
                return Err(SelectorError::new(text, 0, SelectorProblem::TooManyRegexes));
            }
            selectors.push(selector);
        }
        Ok(Selectors(selectors.into()))
    }

    /// The union of selectors that were read one by one. It has no bound of its own.
    pub fn of(selectors: Vec<Selector>) -> Selectors {
        Selectors(selectors.into())
    }

    /// The selectors.
    pub fn iter(&self) -> std::slice::Iter<'_, Selector> {
        self.0.iter()
    }

    /// Whether one of the selectors matches: see [`Selector::matches`].
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.iter().any(|selector| selector.matches(&value_of))
    }

    /// The first selector that asks for a metric name, if there is one: it matches series, not groups.
    pub fn naming_metric(&self) -> Option<&Selector> {
        self.iter().find(|selector| selector.names_metric())
    }
}

/// The selectors, one after the other.
impl fmt::Display for Selectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, selector) in self.iter().enumerate() {
            write!(f, "{}{selector}", if at == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}
