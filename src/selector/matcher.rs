//! One comparison of a label's value.

use regex::{Regex, RegexBuilder};

use super::bounds::REGEX_BYTES_MAX;
use super::error::SelectorProblem;

/// Levels of parentheses in a regular expression, at most.
const NESTING_MAX: u32 = 64;

/// A comparison of one label's value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Box<str>,
    test: ValueTest,
    is_negated: bool,
}

#[derive(Clone, Debug)]
enum ValueTest {
    Equal(Box<str>),
    /// Anchored at both ends.
    Regex(Regex),
}

/// The four operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchOperator {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOperator {
    fn is_regex(self) -> bool {
        matches!(self, Self::Regex | Self::NotRegex)
    }
}

impl Matcher {
    /// A matcher; compiles a regular expression.
    ///
    /// # Errors
    /// The regular expression is not valid or too large.
    pub(super) fn new(name: &str, operator: MatchOperator, value: &str) -> Result<Self, SelectorProblem> {
        let test = if operator.is_regex() { ValueTest::Regex(compile(value)?) } else { ValueTest::Equal(value.into()) };
        let is_negated = matches!(operator, MatchOperator::NotEqual | MatchOperator::NotRegex);
        Ok(Self { name: name.into(), test, is_negated })
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the label may have that value; a missing label has the empty one.
    pub fn accepts(&self, value: &str) -> bool {
        let is_alike = match &self.test {
            ValueTest::Equal(expected) => **expected == *value,
            ValueTest::Regex(regex) => regex.is_match(value),
        };
        is_alike != self.is_negated
    }

    /// The only value that the matcher accepts, if there is just one.
    pub fn only_value(&self) -> Option<&str> {
        match &self.test {
            ValueTest::Equal(value) if !self.is_negated => Some(value),
            _ => None,
        }
    }

    /// The values that the matcher accepts, if they are written as a list: `a` or `a|b`.
    pub(super) fn listed_values(&self) -> Option<Vec<String>> {
        if self.is_negated {
            return None;
        }
        match &self.test {
            ValueTest::Equal(value) => Some(vec![value.to_string()]),
            ValueTest::Regex(_) => {
                let text = self.expression()?;
                let is_list = !text.contains(|c: char| "\\.+*?()[]{}^$".contains(c));
                is_list.then(|| text.split('|').map(str::to_owned).collect())
            }
        }
    }

    /// Whether it is written as the other one.
    pub(super) fn is_same(&self, other: &Matcher) -> bool {
        let is_alike = match (&self.test, &other.test) {
            (ValueTest::Equal(own), ValueTest::Equal(other)) => own == other,
            (ValueTest::Regex(own), ValueTest::Regex(other)) => own.as_str() == other.as_str(),
            _ => false,
        };
        is_alike && self.is_negated == other.is_negated
    }

    /// Whether it is written so that it accepts every value.
    pub(super) fn accepts_all(&self) -> bool {
        !self.is_negated && self.expression() == Some(".*")
    }

    /// Whether it is written so that it accepts every value but the empty one.
    pub(super) fn accepts_all_filled(&self) -> bool {
        match &self.test {
            ValueTest::Equal(value) => value.is_empty() && self.is_negated,
            ValueTest::Regex(_) => !self.is_negated && self.expression() == Some(".+"),
        }
    }

    /// The regular expression as it was written.
    fn expression(&self) -> Option<&str> {
        let ValueTest::Regex(regex) = &self.test else { return None };
        regex.as_str().strip_prefix("^(?:")?.strip_suffix(")$")
    }

    /// Whether it has a regular expression.
    pub(super) fn is_regex(&self) -> bool {
        matches!(self.test, ValueTest::Regex(_))
    }
}

/// Compiles an expression as Prometheus does: anchored at both ends, and `.` matches a line feed.
fn compile(expression: &str) -> Result<Regex, SelectorProblem> {
    let built = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.dot_matches_new_line(true).nest_limit(NESTING_MAX);
        builder.size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
    };
    let problem = |error: regex::Error| match error {
        regex::Error::CompiledTooBig(_) => SelectorProblem::RegexTooLarge,
        // The library shows the expression with a marker over several lines. The last one has the reason.
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim();
            SelectorProblem::Regex(reason.strip_prefix("error: ").unwrap_or(reason).to_owned())
        }
    };
    // Alone first: `a)(b` is valid only between the parentheses that are added.
    built(expression).map_err(problem)?;
    built(&format!("^(?:{expression})$")).map_err(problem)
}
