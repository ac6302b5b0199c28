//! Mistakes in a configuration, and their positions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The position of a mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceSpan {
    /// In a file.
    File {
        /// The file, as the user named it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
    },
    /// In a flag; its name with the dashes.
    Flag(String),
    /// At a key: in its value, or because it is missing.
    Key(String),
}

impl SourceSpan {
    /// A line and a column of a file, both from 1.
    pub(super) fn in_file(file: &Path, (line, column): (usize, usize)) -> SourceSpan {
        SourceSpan::File { file: file.display().to_string(), line, column }
    }
}

/// Lines and columns of the keys of one file, by the key's name.
pub(super) type KeySpans = BTreeMap<&'static str, (usize, usize)>;

/// One mistake: its position, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The position.
    pub span: SourceSpan,
    /// The problem, the value concerned, and what to do.
    pub text: String,
}

/// All that is wrong, at least one mistake; its text has a line for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
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

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

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

/// The most similar candidate, if it is similar enough to be the intended name.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    let (distance, candidate) = near.min()?;
    let longer = name.chars().count().max(candidate.chars().count());
    (distance * 2 <= longer).then_some(candidate)
}

/// The minimum number of characters to insert, remove or replace (Levenshtein distance). Only the first 100 characters
/// count.
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
