//! Truncated texts for messages: a name or a value from a request may be as long as the request's body.

use std::borrow::Cow;
use std::fmt;

/// The length of a quoted text in bytes, at most.
pub const TRUNCATED_BYTES_MAX: usize = 1_024;

/// The beginning of a text, followed by `…` if it was cut. `{:?}` prints it in quotes and escaped, `{}` as it is.
pub struct Truncated<'a> {
    text: Cow<'a, str>,
    is_cut: bool,
}

/// Quotes up to [`TRUNCATED_BYTES_MAX`] bytes of a text.
pub fn truncated(text: &str) -> Truncated<'_> {
    truncated_to(text, TRUNCATED_BYTES_MAX)
}

/// Quotes up to `bytes_max` bytes of a text.
pub fn truncated_to(text: &str, bytes_max: usize) -> Truncated<'_> {
    let end = text.floor_char_boundary(bytes_max);
    Truncated { text: Cow::Borrowed(&text[..end]), is_cut: end < text.len() }
}

/// Quotes up to [`TRUNCATED_BYTES_MAX`] bytes that should be UTF-8, with replacement characters where they are not.
pub fn truncated_lossy(bytes: &[u8]) -> Truncated<'_> {
    let is_cut = bytes.len() > TRUNCATED_BYTES_MAX;
    let end = if is_cut { char_boundary(bytes, TRUNCATED_BYTES_MAX) } else { bytes.len() };
    Truncated { text: String::from_utf8_lossy(&bytes[..end]), is_cut }
}

/// The last index up to `at` that is not inside a character, if these bytes are UTF-8.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    const CHAR_BYTES_MAX: usize = 4;
    let is_boundary = |place: &usize| bytes[*place] & 0b1100_0000 != 0b1000_0000;
    (at - (CHAR_BYTES_MAX - 1)..=at).rev().find(is_boundary).unwrap_or(at)
}

impl fmt::Display for Truncated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_cut { "…" } else { "" })
    }
}

impl fmt::Debug for Truncated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.text, if self.is_cut { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_quoted_whole() {
        for text in ["", "a\"b", &"é".repeat(TRUNCATED_BYTES_MAX / 2)] {
            assert_eq!(truncated(text).to_string(), text);
            assert_eq!(format!("{:?}", truncated(text)), format!("{text:?}"));
            assert_eq!(format!("{:?}", truncated_lossy(text.as_bytes())), format!("{text:?}"));
        }
        assert_eq!(truncated_lossy(b"a\xffb").to_string(), "a\u{fffd}b");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for before in 0..4 {
            let text = "x".repeat(before) + &"🦀".repeat(TRUNCATED_BYTES_MAX);
            let cut = truncated(&text).to_string();
            assert!(cut.ends_with("🦀…") && cut.len() <= TRUNCATED_BYTES_MAX + "…".len(), "{cut}");
            assert_eq!(truncated_lossy(text.as_bytes()).to_string(), cut);
            assert!(format!("{:?}", truncated(&text)).ends_with("🦀\"…"));
        }
        let bytes = vec![0xbf; 5 * TRUNCATED_BYTES_MAX];
        assert_eq!(truncated_lossy(&bytes).to_string(), "\u{fffd}".repeat(TRUNCATED_BYTES_MAX) + "…");
    }
}
