//! The identity of an edge: a name and the labels of its site, as a certificate contains them.
//!
//! An identity is one URI among the certificate's subject alternative names:
//!
//! ```text
//! pushrelay://edge/NAME?LABEL=VALUE&LABEL=VALUE
//! ```
//!
//! Label names and values are percent-encoded (RFC 3986); a plus sign is a plus sign. A name is 1 to 64 ASCII letters,
//! digits, `.`, `_` and `-` and does not begin with a dot, so that it can be used unchanged in file names, logs and
//! metrics.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use crate::model::LabelSet;
use crate::model::label::{self, is_legacy_label_name};

/// The beginning of every identity's URI.
pub const URI_PREFIX: &str = "pushrelay://edge/";
/// Labels of one identity, at most.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's name, and of its value, at most. The link's messages allow no more.
pub const LABEL_BYTES_MAX: usize = 1_024;
/// Bytes of an edge's name, at most.
pub const NAME_BYTES_MAX: usize = 64;

/// Every character but RFC 3986's unreserved ones.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The name of an edge. The module's documentation has the allowed characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeName(Box<str>);

/// The name of an edge and the labels of its site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeIdentity {
    /// The edge's name.
    pub name: EdgeName,
    /// The labels that are added to the grouping key of every group that it sends; may be empty.
    pub labels: LabelSet,
}

/// The reasons for which a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The URI does not begin with [`URI_PREFIX`].
    #[error("{0:?} does not begin with {URI_PREFIX:?}")]
    NotAnEdge(String),
    /// The name is empty, too long, or has other characters than a name may.
    #[error(
        "{0:?} is no edge name: use 1 to {NAME_BYTES_MAX} ASCII letters, digits, '.', '_' and '-', \
         not beginning with '.'"
    )]
    BadName(String),
    /// A part of the query is not `NAME=VALUE`, or not UTF-8 when decoded.
    #[error("{0:?} is no label: write NAME=VALUE")]
    BadLabel(String),
    /// The name is not allowed for a label of a site.
    #[error(
        "{0:?} cannot be a label of a place: use a letter or '_', then letters, digits and '_'; \
         not \"job\", \"le\" or \"quantile\", and not beginning with \"__\""
    )]
    BadLabelName(String),
    /// A label occurs twice.
    #[error("the label {0:?} is given twice")]
    LabelTwice(String),
    /// The label's name or value has more than [`LABEL_BYTES_MAX`] bytes.
    #[error(
        "the label {:?} is too long: its name and its value may have {LABEL_BYTES_MAX} bytes each",
        beginning(.0)
    )]
    LabelTooLong(String),
    /// There are more than [`LABELS_MAX`] labels.
    #[error("more than {LABELS_MAX} labels")]
    TooManyLabels,
}

/// The part of a long name that an error message shows.
fn beginning(name: &str) -> &str {
    &name[..name.floor_char_boundary(64)]
}

impl EdgeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EdgeName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed);
        if good { Ok(Self(text.into())) } else { Err(IdentityError::BadName(text.into())) }
    }
}

impl fmt::Display for EdgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an edge, or the beginning of names followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Box<str>);

impl NamePattern {
    /// Whether a name is meant.
    pub fn has(&self, name: &EdgeName) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.0.starts_with(beginning),
            None => self.0 == name.0,
        }
    }
}

impl FromStr for NamePattern {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let beginning = text.strip_suffix('*').unwrap_or(text);
        if text != "*" {
            beginning.parse::<EdgeName>().map_err(|_| IdentityError::BadName(text.into()))?;
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EdgeIdentity {
    /// Parses the URI of a certificate.
    ///
    /// # Errors
    /// If it is not the URI of an edge, or its name or labels are not valid.
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri.strip_prefix(URI_PREFIX).ok_or_else(|| IdentityError::NotAnEdge(uri.into()))?;
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let bad = || IdentityError::BadLabel(part.into());
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| bad());
            pairs.push((decode(name)?.into_owned(), decode(value)?.into_owned()));
        }
        Ok(Self { name: name.parse()?, labels: site_labels(pairs)? })
    }

    /// Whether the edge that a hub knows by this identity cannot be the one whose certificate has the identity `own`. An
    /// identity by a token has no labels.
    pub fn differs_from(&self, own: &Self) -> bool {
        self.name != own.name || (!self.labels.is_empty() && self.labels != own.labels)
    }

    /// The URI that [`EdgeIdentity::from_uri`] reads.
    pub fn to_uri(&self) -> String {
        let encode = |text| utf8_percent_encode(text, RESERVED);
        let labels: Vec<String> =
            self.labels.iter().map(|label| format!("{}={}", encode(label.name), encode(label.value))).collect();
        let mark = if labels.is_empty() { "" } else { "?" };
        format!("{URI_PREFIX}{}{mark}{}", self.name, labels.join("&"))
    }
}

/// The labels of a site, checked. They come from a certificate, a `[[hub.edge]]` section or the edge itself.
///
/// # Errors
/// If there are too many labels, or one is not valid or occurs twice.
pub fn site_labels(pairs: Vec<(String, String)>) -> Result<LabelSet, IdentityError> {
    if pairs.len() > LABELS_MAX {
        return Err(IdentityError::TooManyLabels);
    }
    for (i, (name, value)) in pairs.iter().enumerate() {
        let is_taken = [label::JOB, label::LE, label::QUANTILE].contains(&&**name);
        if !is_legacy_label_name(name) || is_taken || name.starts_with(label::RESERVED_PREFIX) {
            return Err(IdentityError::BadLabelName(name.clone()));
        }
        if name.len().max(value.len()) > LABEL_BYTES_MAX {
            return Err(IdentityError::LabelTooLong(name.clone()));
        }
        if pairs[..i].iter().any(|(other, _)| other == name) {
            return Err(IdentityError::LabelTwice(name.clone()));
        }
    }
    Ok(LabelSet::new(pairs))
}

/// Parses one label from a command line: `NAME=VALUE`.
///
/// # Errors
/// If there is no equals sign.
pub fn parse_label(text: &str) -> Result<(String, String), IdentityError> {
    let (name, value) = text.split_once('=').ok_or_else(|| IdentityError::BadLabel(text.into()))?;
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uri_names_edge_and_site() {
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ&room=A%201%2B+&empty=").unwrap();
        assert_eq!(identity.name.as_str(), "syq-1");
        assert_eq!(identity.labels.to_string(), r#"{IDC="SYQ",empty="",room="A 1++"}"#);
        assert!(EdgeIdentity::from_uri("pushrelay://edge/a").unwrap().labels.is_empty());
    }

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        let has = |pattern: &str, name: &str| pattern.parse::<NamePattern>().unwrap().has(&name.parse().unwrap());
        assert!(has("syq-1", "syq-1") && !has("syq-1", "syq-10"));
        assert!(has("syq-*", "syq-10") && !has("syq-*", "bj-1") && has("*", "bj-1"));
        for bad in ["", "a*b", "**", "a b", ".a*"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_mistake_has_its_error() {
        let error = |uri: &str| EdgeIdentity::from_uri(uri).unwrap_err();
        assert!(matches!(error("https://example.org/"), IdentityError::NotAnEdge(_)));
        for name in ["", ".a", "a/b", "a b", "%61", &"a".repeat(65)] {
            assert_eq!(error(&format!("{URI_PREFIX}{name}")), IdentityError::BadName(name.into()));
        }
        assert_eq!(error("pushrelay://edge/a?IDC"), IdentityError::BadLabel("IDC".into()));
        assert_eq!(error("pushrelay://edge/a?IDC=%ff"), IdentityError::BadLabel("IDC=%ff".into()));
        for name in ["job", "le", "quantile", "__x", "1a"] {
            assert_eq!(error(&format!("pushrelay://edge/a?{name}=1")), IdentityError::BadLabelName(name.into()));
        }
        assert_eq!(error("pushrelay://edge/a?b=1&b=1"), IdentityError::LabelTwice("b".into()));
        let many: String = (0..=LABELS_MAX).map(|i| format!("l{i}=1&")).collect();
        assert_eq!(error(&format!("pushrelay://edge/a?{many}")), IdentityError::TooManyLabels);
        let long = |len| format!("pushrelay://edge/a?IDC={}", "x".repeat(len));
        assert!(EdgeIdentity::from_uri(&long(LABEL_BYTES_MAX)).is_ok());
        assert_eq!(error(&long(LABEL_BYTES_MAX + 1)), IdentityError::LabelTooLong("IDC".into()));
    }

    proptest! {
        #[test]
        fn identities_round_trip(name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", values in proptest::collection::vec(any::<String>(), 0..4)) {
            let pairs = values.into_iter().enumerate().map(|(i, value)| (format!("l{i}"), value)).collect();
            let identity = EdgeIdentity { name: name.parse().unwrap(), labels: site_labels(pairs).unwrap() };
            prop_assert_eq!(EdgeIdentity::from_uri(&identity.to_uri()).unwrap(), identity);
        }

        #[test]
        fn no_text_panics(uri in any::<String>()) {
            let _ = EdgeIdentity::from_uri(&format!("{URI_PREFIX}{uri}"));
        }
    }
}
