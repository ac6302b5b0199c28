//! Strings quoted as Go's `%q` does, as in Pushgateway's answers.

use std::fmt;

/// Displays bytes in double quotes, escaped; bytes that are not UTF-8 as `\xNN`.
pub(super) struct Quoted<'a>(pub(super) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                escaped(c, f)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("\"")
    }
}

fn escaped(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '"' | '\\' => write!(f, "\\{c}"),
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\x0c' => f.write_str("\\f"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\x0b' => f.write_str("\\v"),
        _ if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c)),
        _ if c.is_control() || (c.is_whitespace() && c != ' ') => write!(f, "\\u{:04x}", u32::from(c)),
        _ => fmt::Write::write_char(f, c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_as_go_quotes() {
        let quoted = Quoted(b"a\"b\\\n\t\x01\x7f\xff\xc3\xa9\xe2\x80\xa8 ").to_string();
        assert_eq!(quoted, r#""a\"b\\\n\t\x01\x7f\xffé\u2028 ""#);
    }
}
