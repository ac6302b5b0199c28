//! What is wrong with a configuration, and where.

use std::fmt;

/// Where a mistake is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceSpan {
    /// In a file.
    File {
        /// The file, as it was named.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
    },
    /// In a flag; its name with the dashes.
    Flag(String),
    /// In a key's value, or in that it is not given.
    Key(String),
}

/// One mistake: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub span: SourceSpan,
    /// What is wrong, with what value, and what to do.
    pub text: String,
}

/// All that is wrong; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.span {
            SourceSpan::File { file, line, column } => write!(f, "{file}:{line}:{column}: {}", self.text),
            SourceSpan::Flag(name) => write!(f, "{name}: {}", self.text),
            SourceSpan::Key(name) => write!(f, "{name}: {}", self.text),
        }
    }
}

/// A line each.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            let line = if i == 0 { "" } else { "\n" };
            write!(f, "{line}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The line and column of a byte of a text, both from 1.
pub(super) fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let mut end = byte.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The candidate that is most like `name`, if any is like it enough to be what was meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    let (distance, candidate) = near.min()?;
    let longer = name.chars().count().max(candidate.chars().count());
    (distance * 2 <= longer).then_some(candidate)
}

/// The least number of characters to insert, remove or replace (Levenshtein's distance). Long names are not names.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_or_none() {
        let keys = ["listen_address", "telemetry_path", "external_url"];
        assert_eq!(nearest("listen_adress", keys), Some("listen_address"));
        assert_eq!(nearest("telemetry-path", keys), Some("telemetry_path"));
        assert_eq!(nearest("url", keys), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn lines_and_columns_count_from_one() {
        assert_eq!(line_and_column("a\nüb", 0), (1, 1));
        assert_eq!(line_and_column("a\nüb", 4), (2, 2));
        assert_eq!(line_and_column("a\nüb", 3), (2, 1), "inside a character is at it");
        assert_eq!(line_and_column("a", 99), (1, 2));
    }
}
