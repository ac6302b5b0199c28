//! Legacy names, and how other names are escaped for scrapers that do not support UTF-8 names.
//!
//! A *legacy* name is `[a-zA-Z_:][a-zA-Z0-9_:]*`. A scraper asks for an [`Escaping`] of other names with the `escaping`
//! parameter of its Accept header. The schemes are those of Prometheus (prometheus/common, `model.EscapeName`).

use std::borrow::Cow;

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

/// The way in which names that are not legacy names are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// Unchanged, quoted where the format needs it.
    AllowUtf8,
    /// Each invalid character becomes `_`. The default for scrapers that do not ask.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, any other invalid character `__`.
    Dots,
    /// `U__`, then each invalid character as `_HEX_` and `_` as `__`. The only one that can be undone.
    Values,
}

impl Escaping {
    /// The value of the `escaping` parameter.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// The scheme for a value of the `escaping` parameter; `None` if the value is unknown.
    pub fn from_parameter(parameter: &str) -> Option<Self> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|escaping| escaping.parameter() == parameter)
    }

    /// Escapes the name of a metric, or of a label in a path. A legacy name is returned unchanged.
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        self.escape_unless(is_legacy_metric_name(name), true, name)
    }

    /// Escapes the name of a label for a scrape. A legacy name is returned unchanged. Pushgateway leaves a colon, as in
    /// names of metrics, and Prometheus then rejects the whole scrape.
    pub fn escape_label(self, name: &str) -> Cow<'_, str> {
        self.escape_unless(is_legacy_label_name(name), false, name)
    }

    fn escape_unless(self, legacy: bool, colons: bool, name: &str) -> Cow<'_, str> {
        if self == Self::AllowUtf8 || name.is_empty() || legacy {
            return name.into();
        }
        let mut escaped = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            escaped.push_str("U__");
        }
        for (at, c) in name.char_indices() {
            let valid = c.is_ascii_alphabetic() || c == '_' || (c == ':' && colons) || (c.is_ascii_digit() && at > 0);
            match self {
                Self::Dots | Self::Values if c == '_' => escaped.push_str("__"),
                Self::Dots if c == '.' => escaped.push_str("_dot_"),
                _ if valid => escaped.push(c),
                Self::Dots => escaped.push_str("__"),
                Self::Values => escaped.push_str(&format!("_{:x}_", u32::from(c))),
                _ => escaped.push('_'),
            }
        }
        escaped.into()
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
    fn a_colon_is_escaped_in_names_of_labels() {
        let schemes = [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values];
        let escaped = |name| schemes.map(|scheme| scheme.escape_label(name).into_owned());
        assert_eq!(escaped("a:b_c"), ["a:b_c", "a_b_c", "a__b__c", "U__a_3a_b__c"]);
        assert_eq!(unescape_values("U__a_3a_b__c"), "a:b_c");
        assert_eq!(escaped("a_b"), ["a_b"; 4]);
    }

    #[test]
    fn names_are_escaped_as_a_scraper_asks() {
        let cases = [
            ("a.b", ["a.b", "a_b", "a_dot_b", "U__a_2e_b"]),
            ("a:b_c", ["a:b_c", "a:b_c", "a:b_c", "a:b_c"]),
            ("1_é", ["1_é", "___", "______", "U___31____e9_"]),
            ("a\nb\"", ["a\nb\"", "a_b_", "a__b__", "U__a_a_b_22_"]),
            ("", ["", "", "", ""]),
        ];
        for (name, expected) in cases {
            let schemes = [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values];
            assert_eq!(schemes.map(|scheme| scheme.escape(name).into_owned()), expected);
            assert_eq!(unescape_values(&Escaping::Values.escape(name)), name);
        }
    }

    #[test]
    fn names_without_a_values_escape_are_returned_unchanged() {
        for name in ["a_2e_b", "U__a_2e", "U__a_", "U__a_xy_", "U__a_d800_", "U__a_10ffff_", "U__a_+2_", "U_a"] {
            assert_eq!(unescape_values(name), name);
        }
        assert_eq!(unescape_values("U__foo_2E_bar__baz"), "foo.bar_baz");
    }

    #[test]
    fn parameters_name_the_schemes() {
        for escaping in [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values] {
            assert_eq!(Escaping::from_parameter(escaping.parameter()), Some(escaping));
        }
        assert_eq!(Escaping::from_parameter("none"), None);
    }
}
