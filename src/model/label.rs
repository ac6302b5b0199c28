//! Labels: a name and a value, and sets of them in the one order that makes two equal sets equal bytes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

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

/// Labels sorted by name, each name once. Hashing one is cheap: its digest is made once, with it.
#[derive(Clone, Debug)]
pub struct LabelSet {
    labels: Box<[Label]>,
    digest: u64,
}

/// What digests begin with: another number in each process, so that sets that fall together in one need not in another.
/// XXH3 keeps nobody from finding such sets; they can be slow to look up, but not be taken for each other, as equality
/// always compares the contents.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Names and values are told apart by a byte that no UTF-8 has behind each; those of 256 bytes or more by being digested
/// alone.
fn digest(labels: &[Label]) -> u64 {
    let mut bytes = [0; 256];
    let mut at = 0;
    let mut digest = *SEED;
    for part in labels.iter().flat_map(|label| [&label.name, &label.value]) {
        let part = part.as_bytes();
        if at + part.len() + 1 > bytes.len() {
            digest = xxh3_64_with_seed(&bytes[..at], digest);
            at = 0;
        }
        if part.len() + 1 > bytes.len() {
            digest = xxh3_64_with_seed(part, digest);
        } else {
            bytes[at..at + part.len()].copy_from_slice(part);
            bytes[at + part.len()] = 0xff;
            at += part.len() + 1;
        }
    }
    xxh3_64_with_seed(&bytes[..at], digest)
}

impl Default for LabelSet {
    fn default() -> Self {
        Self::of(Box::default())
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.labels == other.labels
    }
}

impl Eq for LabelSet {}

impl Hash for LabelSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl PartialOrd for LabelSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LabelSet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.labels.cmp(&other.labels)
    }
}

impl LabelSet {
    /// Sorts the pairs. Of several with one name the last wins, as in a Pushgateway's grouping key.
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut labels: Vec<Label> =
            pairs.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }).collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        labels.reverse();
        labels.dedup_by(|a, b| a.name == b.name);
        labels.reverse();
        Self::of(labels.into_boxed_slice())
    }

    fn of(labels: Box<[Label]>) -> Self {
        let digest = digest(&labels);
        Self { labels, digest }
    }

    /// The value of `name`, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(&self.labels[at].value)
    }

    /// Whether the set has a label of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The labels in the order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.labels.iter()
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
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
    fn equal_sets_have_equal_digests_and_others_others() {
        let long = "v".repeat(300);
        let sets = [
            vec![],
            vec![("a", "b")],
            vec![("ab", "")],
            vec![("a", ""), ("b", "")],
            vec![("a", "b"), ("c", "d")],
            vec![("a", &*long), ("c", "d")],
            vec![("a", &*long), ("c", "e")],
            vec![("a", &long[..200]), ("b", &long[..100])],
        ];
        for (i, a) in sets.iter().enumerate() {
            for (j, b) in sets.iter().enumerate() {
                let (a, b) = (LabelSet::new(a.clone()), LabelSet::new(b.iter().rev().copied()));
                assert_eq!((a.digest == b.digest, a == b, a.cmp(&b).is_eq()), (i == j, i == j, i == j), "{a} {b}");
            }
        }
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
