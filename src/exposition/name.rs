//! The rule for names in a push, and the escaped names of a request's path.

use std::borrow::Cow;

pub use crate::model::Escaping;
use crate::model::label::{is_legacy_label_name, is_legacy_metric_name};

/// The rule for names in a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameValidation {
    /// Legacy names only (no colon in labels).
    #[default]
    Legacy,
    /// Any UTF-8 that is not empty.
    Utf8,
}

impl NameValidation {
    /// Whether `name` may name a metric.
    pub fn allows_metric(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_metric_name(name),
            Self::Utf8 => !name.is_empty(),
        }
    }

    /// Whether `name` may name a label.
    pub fn allows_label(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_label_name(name),
            Self::Utf8 => !name.is_empty(),
        }
    }
}

/// Undoes [`Escaping::Values`], as in label names of a request's path. Any other name is returned unchanged.
pub fn unescape_values(name: &str) -> Cow<'_, str> {
    match name.strip_prefix("U__").and_then(decode_values) {
        Some(unescaped) => unescaped.into(),
        None => name.into(),
    }
}

/// `None` if an underscore begins neither `__` nor `_HEX_`, in which HEX has at most five digits (Pushgateway's bound)
/// and is a character.
fn decode_values(escaped: &str) -> Option<String> {
    const HEX_DIGITS_MAX: usize = 5;
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('_')?;
        let hex = &rest[..end];
        if hex.is_empty() {
            name.push('_');
        } else {
            if hex.len() > HEX_DIGITS_MAX || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            name.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        }
        rest = &rest[end + 1..];
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_values_are_undone() {
        for name in ["a.b", "a:b_c", "1_é", "a\nb\"", ""] {
            assert_eq!(unescape_values(&Escaping::Values.escape(name)), name);
        }
        assert_eq!(unescape_values("U__a_3a_b__c"), "a:b_c");
    }

    #[test]
    fn names_without_a_values_escape_are_returned_unchanged() {
        for name in ["a_2e_b", "U__a_2e", "U__a_", "U__a_xy_", "U__a_d800_", "U__a_10ffff_", "U__a_+2_", "U_a"] {
            assert_eq!(unescape_values(name), name);
        }
        assert_eq!(unescape_values("U__foo_2E_bar__baz"), "foo.bar_baz");
    }
}
