//! Labels: names and values, and sets of them in one canonical order.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The label that Pushgateway adds, empty, to every series that lacks it.
pub const INSTANCE: &str = "instance";
/// The label that every grouping key has.
pub const JOB: &str = "job";
/// The label of a histogram's buckets: its upper bound.
pub const LE: &str = "le";
/// The label of a summary's quantiles.
pub const QUANTILE: &str = "quantile";
/// Prefix of label names that pushes may not use in a grouping key.
pub const RESERVED_PREFIX: &str = "__";

/// One label. The value may be any UTF-8; the parser checks the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<'a> {
    /// The label's name.
    pub name: &'a str,
    /// The label's value; may be empty.
    pub value: &'a str,
}

/// Labels sorted by name, each name once. Hashing a set is cheap: its digest is computed when it is made. All names and
/// values are one string, so that a set takes one allocation and comparing it reads one piece of memory.
#[derive(Clone)]
pub struct LabelSet {
    /// The name and the value of each label, one after the other.
    text: Box<str>,
    /// The end of each name and value in `text`.
    ends: Ends,
    digest: u64,
}

/// Sets of up to this many labels store their ends inline. Most groups have no more.
const FEW: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    Few { labels: u8, ends: [u16; 2 * FEW] },
    Many(Box<[u32]>),
}

impl Ends {
    /// The ends of the names and values of that many labels, given their lengths, `bytes` in all.
    fn of(labels: usize, bytes: usize, lengths: impl Iterator<Item = usize>) -> Self {
        let ends = lengths.scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        if labels > FEW || bytes > usize::from(u16::MAX) {
            let end = |end| u32::try_from(end).expect("requests and updates are limited to far less than 4 GiB");
            return Self::Many(ends.map(end).collect());
        }
        let mut few = [0; 2 * FEW];
        std::iter::zip(&mut few, ends).for_each(|(into, end)| *into = end as u16);
        Self::Few { labels: labels as u8, ends: few }
    }

    fn labels(&self) -> usize {
        match self {
            Self::Few { labels, .. } => usize::from(*labels),
            Self::Many(ends) => ends.len() / 2,
        }
    }

    fn get(&self, at: usize) -> usize {
        match self {
            Self::Few { ends, .. } => usize::from(ends[at]),
            Self::Many(ends) => ends[at] as usize,
        }
    }
}

/// The seed of digests, different in each process, so that sets that collide in one process do not collide in another.
/// XXH3 does not keep anyone from finding such sets. They are slow to look up, but never taken for each other, as
/// equality compares the contents.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Hashes the ends as well as the text: they tell apart sets whose texts are equal.
fn digest(text: &str, ends: &Ends) -> u64 {
    let seed = match ends {
        Ends::Few { ends, .. } => {
            let mut bytes = [0; size_of::<[u16; 2 * FEW]>()];
            std::iter::zip(bytes.as_chunks_mut().0, ends).for_each(|(bytes, end)| *bytes = end.to_le_bytes());
            xxh3_64_with_seed(&bytes, *SEED)
        }
        Ends::Many(ends) => ends.iter().fold(*SEED, |seed, end| xxh3_64_with_seed(&end.to_le_bytes(), seed)),
    };
    xxh3_64_with_seed(text.as_bytes(), seed)
}

impl Default for LabelSet {
    fn default() -> Self {
        Self::of::<&str, &str>(&[])
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.ends == other.ends && self.text == other.text
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
        self.iter().cmp(other)
    }
}

impl LabelSet {
    /// Sorts the pairs. The last of several with one name wins, as in Pushgateway's grouping key.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        if !pairs.is_sorted_by(|a, b| a.0.as_ref() < b.0.as_ref()) {
            pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
            pairs.reverse();
            pairs.dedup_by(|a, b| a.0.as_ref() == b.0.as_ref());
            pairs.reverse();
        }
        Self::of(&pairs)
    }

    fn of<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Self {
        let parts = || pairs.iter().flat_map(|(name, value)| [name.as_ref(), value.as_ref()]);
        let mut text = String::with_capacity(parts().map(str::len).sum());
        text.extend(parts());
        let ends = Ends::of(pairs.len(), text.len(), parts().map(str::len));
        let digest = digest(&text, &ends);
        Self { text: text.into(), ends, digest }
    }

    /// The name or value at that index: names have even indices, values odd ones.
    fn part(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends.get(at - 1) };
        &self.text[start..self.ends.get(at)]
    }

    /// The value of `name`, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.part(2 * middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(self.part(2 * middle + 1)),
            }
        }
        None
    }

    /// Whether the set has a label of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The labels in the order of their names.
    pub fn iter(&self) -> Labels<'_> {
        Labels { set: self, at: 0, start: 0 }
    }

    /// A hash that is the same in every process. Sets whose texts are equal, though their labels differ, have one hash.
    pub fn stable_hash(&self) -> u64 {
        xxh3_64_with_seed(self.text.as_bytes(), 0)
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.ends.labels()
    }

    /// The bytes of its names and values.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Iterates over the labels of a set.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    set: &'a LabelSet,
    at: usize,
    /// The start of the next label in the text.
    start: usize,
}

impl<'a> Iterator for Labels<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Label<'a>> {
        if self.at >= self.set.len() {
            return None;
        }
        let (text, ends) = (&self.set.text, &self.set.ends);
        let (middle, end) = (ends.get(2 * self.at), ends.get(2 * self.at + 1));
        let label = Label { name: &text[self.start..middle], value: &text[middle..end] };
        self.at += 1;
        self.start = end;
        Some(label)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.set.len() - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Labels<'_> {}

impl<'a> IntoIterator for &'a LabelSet {
    type Item = Label<'a>;
    type IntoIter = Labels<'a>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Prints the same as [`fmt::Display`].
impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints `{a="1",b="2"}` with values escaped as the text format does.
impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let mut value = String::with_capacity(label.value.len());
            escape_value(label.value, &mut value);
            write!(f, "{comma}{}=\"{value}\"", label.name)?;
        }
        f.write_str("}")
    }
}

/// Appends a label value as the text format writes it between quotes: `\`, `"` and line feed are escaped.
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

/// Reverses [`escape_value`].
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
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_of_a_repeated_name_wins() {
        let set = LabelSet::new([("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!(set.to_string(), r#"{a="2",b="3"}"#);
        assert_eq!(set.get("b"), Some("3"));
    }

    #[test]
    fn equal_sets_have_equal_digests_and_others_others() {
        let (long, huge) = ("v".repeat(300), "w".repeat(70_000));
        let sets = [
            vec![],
            vec![("a", "b")],
            vec![("ab", "")],
            vec![("a", ""), ("b", "")],
            vec![("a", "b"), ("c", "d")],
            vec![("a", &*long), ("c", "d")],
            vec![("a", &*long), ("c", "e")],
            vec![("a", "b"), ("c", "d"), ("e", ""), ("f", "g"), ("h", "i")],
            vec![("a", "b"), ("c", "d"), ("e", ""), ("f", "gh"), ("i", "")],
            vec![("a", &*huge)],
            vec![("a", &long[..200]), ("b", &long[..100])],
        ];
        for (i, a) in sets.iter().enumerate() {
            for (j, b) in sets.iter().enumerate() {
                let (a, b) = (LabelSet::new(a.clone()), LabelSet::new(b.iter().rev().copied()));
                assert_eq!((a.digest == b.digest, a == b, a.cmp(&b).is_eq()), (i == j, i == j, i == j), "{a} {b}");
            }
        }
    }

    proptest! {
        /// Sets of few labels, of many, and of long ones are stored in different ways and must read the same.
        #[test]
        fn a_set_is_a_map_in_order(
            pairs in vec(("[a-dé]{0,2}", prop_oneof!["[a-z\"]{0,3}", Just("v".repeat(40_000))]), 0..8),
            others in vec(("[a-dé]{0,2}", "[a-z]{0,3}"), 0..8),
        ) {
            let (set, map) = (LabelSet::new(pairs.clone()), BTreeMap::from_iter(pairs));
            let (other, other_map) = (LabelSet::new(others.clone()), BTreeMap::from_iter(others));
            let read: Vec<(&str, &str)> = set.iter().map(|label| (label.name, label.value)).collect();
            let expected: Vec<(&str, &str)> = map.iter().map(|(name, value)| (&**name, &**value)).collect();
            prop_assert_eq!(&read, &expected);
            prop_assert_eq!((set.len(), set.iter().len(), set.is_empty()), (map.len(), map.len(), map.is_empty()));
            for name in ["", "a", "b", "ab", "é", "zz"] {
                prop_assert_eq!(set.get(name), map.get(name).map(|value| &**value));
            }
            prop_assert_eq!(set.cmp(&other), map.iter().cmp(&other_map));
            prop_assert_eq!(set == other, map == other_map);
            prop_assert_eq!(&LabelSet::new(read), &set);
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
