//! How names that are not legacy names are escaped for scrapers that do not support UTF-8 names, and which names and
//! series that makes one.
//!
//! A *legacy* name is `[a-zA-Z_:][a-zA-Z0-9_:]*`. A scraper asks for an [`Escaping`] of other names with the `escaping`
//! parameter of its Accept header. The schemes are those of Prometheus (prometheus/common, `model.EscapeName`).
//!
//! Prometheus drops the whole scrape if a series has two labels of one name, and keeps one of two series that have the
//! same labels. A label with an empty value is none to it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::label::{is_legacy_label_name, is_legacy_metric_name};
use super::truncated::truncated;

/// The label that holds the metric's name in a scraped series.
const METRIC_NAME: &str = "__name__";

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

    /// The schemes that change names.
    pub const CHANGING: [Self; 3] = [Self::Underscores, Self::Dots, Self::Values];

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

/// Two names that an escaping makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlikeNames {
    /// The names.
    pub names: [String; 2],
    /// Both names, escaped.
    pub escaped: String,
    /// The escaping.
    pub escaping: Escaping,
}

impl AlikeNames {
    /// The two names, truncated, and what they become.
    pub fn new([a, b]: [&str; 2], escaped: &str, escaping: Escaping) -> Self {
        let names = [a, b].map(|name| truncated(name).to_string());
        Self { names, escaped: truncated(escaped).to_string(), escaping }
    }
}

impl fmt::Display for AlikeNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names: [a, b], escaped, escaping } = self;
        write!(f, "{a:?} and {b:?} are both {escaped:?} with the escaping {:?}", escaping.parameter())
    }
}

/// Two labels of one series that an escaping makes one, if there are any. `names` are the names of all its labels, each
/// once.
pub fn alike_labels<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<AlikeNames> {
    if names.clone().all(is_legacy_label_name) {
        return None;
    }
    Escaping::CHANGING.into_iter().find_map(|escaping| {
        let mut seen = HashMap::from([(Cow::Borrowed(METRIC_NAME), METRIC_NAME)]);
        names.clone().find_map(|name| {
            let escaped = escaping.escape_label(name);
            let other = seen.insert(escaped.clone(), name)?;
            Some(AlikeNames::new([other, name], &escaped, escaping))
        })
    })
}

/// The labels of a series as a scraper keeps them: names escaped, no empty values, sorted.
pub fn scraped_labels<'a>(
    labels: impl IntoIterator<Item = (&'a str, Cow<'a, str>)>,
    escaping: Escaping,
) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let filled = labels.into_iter().filter(|label| !label.1.is_empty());
    let mut scraped: Vec<_> = filled.map(|(name, value)| (escaping.escape_label(name), value)).collect();
    scraped.sort_unstable();
    scraped
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [Escaping; 4] = [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values];

    #[test]
    fn a_colon_is_escaped_in_names_of_labels() {
        let escaped = |name| SCHEMES.map(|scheme| scheme.escape_label(name).into_owned());
        assert_eq!(escaped("a:b_c"), ["a:b_c", "a_b_c", "a__b__c", "U__a_3a_b__c"]);
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
            assert_eq!(SCHEMES.map(|scheme| scheme.escape(name).into_owned()), expected);
        }
    }

    #[test]
    fn parameters_name_the_schemes() {
        for escaping in SCHEMES {
            assert_eq!(Escaping::from_parameter(escaping.parameter()), Some(escaping));
        }
        assert_eq!(Escaping::from_parameter("none"), None);
    }
}
