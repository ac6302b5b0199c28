//! Labels: a name and a value, and sets of them in the one order that makes two equal sets equal bytes.

use std::fmt;

/// The label that Pushgateway adds, empty, to every series that lacks it.
pub const INSTANCE: &str = "instance";
/// The label that every grouping key has.
pub const JOB: &str = "job";
/// Prefix of label names that pushes may not use in a grouping key.
pub const RESERVED_PREFIX: &str = "__";

/// One label. Any UTF-8 is allowed in the value; whether the name is valid is for the parser to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// The label's name.
    pub name: Box<str>,
    /// The label's value; may be empty.
    pub value: Box<str>,
}

/// Labels sorted by name, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSet(Box<[Label]>);

impl LabelSet {
    /// Sorts the pairs. Of several with one name the last wins, as in a Pushgateway's grouping key.
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut labels: Vec<Label> =
            pairs.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }).collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        labels.reverse();
        labels.dedup_by(|a, b| a.name == b.name);
        labels.reverse();
        Self(labels.into_boxed_slice())
    }

    /// The value of `name`, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    /// Whether the set has a label of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The labels in the order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a LabelSet {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Prints `{a="1",b="2"}` with values escaped as the text format does.
impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let mut value = String::with_capacity(label.value.len());
            escape_value(&label.value, &mut value);
            write!(f, "{comma}{}=\"{value}\"", label.name)?;
        }
        f.write_str("}")
    }
}

/// Appends a label value as the text format writes it between quotes: `\`, `"` and line feed escaped.
pub fn escape_value(value: &str, into: &mut String) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        into.push_str(&rest[..at]);
        into.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\n",
        });
        rest = &rest[at + 1..];
    }
    into.push_str(rest);
}

/// Undoes [`escape_value`].
pub fn unescape_value(escaped: &str) -> std::borrow::Cow<'_, str> {
    if !escaped.contains('\\') {
        return escaped.into();
    }
    let mut value = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(other) => value.push(other),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    value.into()
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`: a metric name that needs no quotes (Prometheus data model before UTF-8 names).
pub fn is_legacy_metric_name(name: &str) -> bool {
    is_name(name, true)
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: a label name that needs no quotes.
pub fn is_legacy_label_name(name: &str) -> bool {
    is_name(name, false)
}

fn is_name(name: &str, colon: bool) -> bool {
    let bytes = name.as_bytes();
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':');
    !bytes.is_empty() && !bytes[0].is_ascii_digit() && bytes.iter().all(|&b| ok(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_repeated_name_wins() {
        let set = LabelSet::new([("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!(set.to_string(), r#"{a="2",b="3"}"#);
        assert_eq!(set.get("b"), Some("3"));
    }

    #[test]
    fn escaping_round_trips() {
        for raw in ["", "plain", "a\"b\\c\nd", "\\n", "\\\\\n\""] {
            let mut escaped = String::new();
            escape_value(raw, &mut escaped);
            assert!(!escaped.contains('\n'));
            assert_eq!(unescape_value(&escaped), raw);
        }
    }
}
