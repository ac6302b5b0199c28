//! Grouping keys in paths: `/job/NAME/LABEL/VALUE/…`. A name with the suffix `@base64` has an encoded value.
//!
//! The path is decoded first (so a slash in a value needs base64, not `%2F`) and cleaned (so an empty value needs
//! `@base64/=`).

use std::borrow::Cow;

use crate::exposition::name::{Escaping, NameValidation, unescape_values};
use crate::model::LabelSet;
use crate::model::label::{JOB, RESERVED_PREFIX, is_legacy_label_name};

use super::quote::Quoted;
use super::{base64url, url};

/// The suffix of a label's name whose value is base64.
pub const BASE64_SUFFIX: &str = "@base64";

/// The maximum number of labels in a grouping key. Pushgateway has no bound, but the usual bounds of HTTP servers on a
/// path allow not many more.
pub const GROUPING_LABELS_MAX: usize = 1_000;

/// A path is not a grouping key. The messages are those of Pushgateway, if it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The job's name is not base64.
    #[error("invalid base64 encoding in job name {}: illegal base64 data at input byte {at}", Quoted(decoded))]
    JobBase64 {
        /// The part that could be decoded.
        decoded: Vec<u8>,
        /// The first byte that could not.
        at: usize,
    },
    /// There is no job, or an empty one.
    #[error("job name is required")]
    NoJob,
    /// A label has no value.
    #[error("odd number of components in label string {}", Quoted(.0))]
    OddComponents(Vec<u8>),
    /// A label's name is invalid or reserved.
    #[error("improper label name {}", Quoted(.0))]
    LabelName(Vec<u8>),
    /// A label's value is not base64.
    #[error("invalid base64 encoding for label {name}={}: illegal base64 data at input byte {at}", Quoted(value))]
    LabelBase64 {
        /// The label's name.
        name: String,
        /// The value.
        value: Vec<u8>,
        /// Its first byte that is not base64.
        at: usize,
    },
    /// A label's value is not UTF-8. Pushgateway accepts it, and fails every scrape from then on.
    #[error("the value of label {name} in the URL is not valid UTF-8: {}", Quoted(value))]
    NotUtf8 {
        /// The label's name.
        name: String,
        /// The value.
        value: Vec<u8>,
    },
    /// There are more labels than [`GROUPING_LABELS_MAX`].
    #[error("{0} labels in the URL are more than the limit of {max}", max = GROUPING_LABELS_MAX)]
    TooManyLabels(usize),
}

/// Reads the part after `/job/` (or `/job@base64/`, if `job_encoded`) of a decoded and cleaned path.
///
/// A label given twice has its last value. A label `job` never overrides the job.
///
/// # Errors
///
/// Returns an error, which is the body of the answer, if the path is not a grouping key.
pub fn grouping_key(rest: &[u8], job_encoded: bool, names: NameValidation) -> Result<LabelSet, PathError> {
    read_key(rest, job_encoded, names, GROUPING_LABELS_MAX)
}

/// The groups that a path may address, if it asks for a group that exists: to delete it, or to show it.
///
/// A node shows groups that its own rule for names would refuse in a push: an edge has another rule, or the node had
/// another one before. Their keys may also have more labels than a push may give, because of the site labels. So every
/// reading of the path counts that a group has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressedGroup {
    /// The key as a push would read it.
    pushed: Result<LabelSet, PathError>,
    /// The keys by other readings.
    others: Vec<LabelSet>,
}

impl AddressedGroup {
    /// Reads a path as [`grouping_key`] does, under that rule for names first.
    ///
    /// # Errors
    ///
    /// Returns the error of [`grouping_key`] if no reading of the path is a grouping key.
    pub fn read(rest: &[u8], job_encoded: bool, names: NameValidation) -> Result<Self, PathError> {
        let pushed = grouping_key(rest, job_encoded, names);
        let other_names = match names {
            NameValidation::Legacy => NameValidation::Utf8,
            NameValidation::Utf8 => NameValidation::Legacy,
        };
        let mut others = Vec::new();
        for names in [names, other_names] {
            // The HTTP server bounds the path.
            if let Ok(key) = read_key(rest, job_encoded, names, usize::MAX)
                && pushed.as_ref() != Ok(&key)
                && !others.contains(&key)
            {
                others.push(key);
            }
        }
        if others.is_empty() { pushed.map(|key| Self { pushed: Ok(key), others }) } else { Ok(Self { pushed, others }) }
    }

    /// The first reading that is the key of a group, or the key as a push would read it if no group has any of them.
    ///
    /// # Errors
    ///
    /// Returns the error of [`grouping_key`] if no group has any of the keys and a push would be refused.
    pub fn find(self, exists: impl Fn(&LabelSet) -> bool) -> Result<LabelSet, PathError> {
        match self.pushed {
            Ok(key) if exists(&key) => Ok(key),
            pushed => self.others.into_iter().find(exists).map_or(pushed, Ok),
        }
    }
}

fn read_key(rest: &[u8], job_encoded: bool, names: NameValidation, labels_max: usize) -> Result<LabelSet, PathError> {
    let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (job, labels) = rest.split_at(end);
    let job = if job_encoded {
        let illegal = |illegal: base64url::Illegal| PathError::JobBase64 { decoded: illegal.decoded, at: illegal.at };
        Cow::Owned(base64url::decode(job).map_err(illegal)?)
    } else {
        Cow::Borrowed(job)
    };
    let mut pairs = split_labels(labels, names, labels_max)?;
    if job.is_empty() {
        return Err(PathError::NoJob);
    }
    pairs.push((Cow::Borrowed(JOB), text(JOB, job)?));
    Ok(LabelSet::new(pairs))
}

/// A label as a path gives it.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn split_labels(labels: &[u8], names: NameValidation, labels_max: usize) -> Result<Vec<Pair<'_>>, PathError> {
    let Some(relative) = labels.strip_prefix(b"/").filter(|relative| !relative.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut components = relative.split(|&byte| byte == b'/');
    let count = components.clone().count();
    if !count.is_multiple_of(2) {
        return Err(PathError::OddComponents(labels.to_vec()));
    }
    if count / 2 > labels_max {
        return Err(PathError::TooManyLabels(count / 2));
    }
    // One more for the job.
    let mut pairs = Vec::with_capacity(count / 2 + 1);
    while let (Some(name), Some(value)) = (components.next(), components.next()) {
        pairs.push(label(name, value, names)?);
    }
    Ok(pairs)
}

fn label<'a>(name: &'a [u8], value: &'a [u8], names: NameValidation) -> Result<Pair<'a>, PathError> {
    let trimmed = name.strip_suffix(BASE64_SUFFIX.as_bytes());
    let written = trimmed.unwrap_or(name);
    let improper = || PathError::LabelName(written.to_vec());
    let written_name = std::str::from_utf8(written).map_err(|_| improper())?;
    let name = match names {
        NameValidation::Legacy => written_name.into(),
        NameValidation::Utf8 => unescape_values(written_name),
    };
    // Pushgateway checks only the name as written. It then refuses this push, and later every push to another group.
    if !names.allows_label(&name) || [written_name, &*name].iter().any(|name| name.starts_with(RESERVED_PREFIX)) {
        return Err(improper());
    }
    let value = if trimmed.is_some() {
        let illegal = |at| PathError::LabelBase64 { name: written_name.to_owned(), value: value.to_vec(), at };
        Cow::Owned(base64url::decode(value).map_err(|error| illegal(error.at))?)
    } else {
        Cow::Borrowed(value)
    };
    let value = text(&name, value)?;
    Ok((name, value))
}

fn text<'a>(name: &str, value: Cow<'a, [u8]>) -> Result<Cow<'a, str>, PathError> {
    let not = |value: Vec<u8>| PathError::NotUtf8 { name: name.to_owned(), value };
    Ok(match value {
        Cow::Borrowed(value) => Cow::Borrowed(std::str::from_utf8(value).map_err(|_| not(value.to_vec()))?),
        Cow::Owned(value) => Cow::Owned(String::from_utf8(value).map_err(|error| not(error.into_bytes()))?),
    })
}

/// The path of a group, which [`AddressedGroup`] reads back under the same rule for names, and [`grouping_key`] too if
/// the rule allows all names: `job/NAME/LABEL/VALUE/…`, escaped for a URL, the job first.
pub fn group_path(labels: &LabelSet, names: NameValidation) -> String {
    let style = match names {
        NameValidation::Utf8 => NameStyle::Escaped,
        NameValidation::Legacy if labels.iter().all(|label| is_legacy_label_name(label.name)) => NameStyle::Plain,
        NameValidation::Legacy => NameStyle::Foreign,
    };
    let mut path = String::new();
    push_label(JOB, labels.get(JOB).unwrap_or_default(), style, &mut path);
    for label in labels.iter().filter(|label| label.name != JOB) {
        path.push('/');
        push_label(label.name, label.value, style, &mut path);
    }
    path
}

/// Whether a path can have this value only in base64: cleaning or splitting the path would change it.
pub fn needs_base64(value: &str) -> bool {
    value.is_empty() || value == "." || value == ".." || value.contains('/')
}

/// The writing of names in a path.
#[derive(Clone, Copy)]
enum NameStyle {
    /// Unchanged: no escapes are decoded.
    Plain,
    /// Names that are not legacy names are escaped: escapes are decoded.
    Escaped,
    /// The node's rule for names does not allow all of them. Names are escaped only if they have to be, because the node
    /// reads an escaped name first as it is written, and a plain one never.
    Foreign,
}

fn push_label(name: &str, value: &str, style: NameStyle, path: &mut String) {
    let written = match style {
        NameStyle::Plain => Cow::Borrowed(name),
        NameStyle::Foreign if is_plain(name) => Cow::Borrowed(name),
        NameStyle::Escaped | NameStyle::Foreign => escaped_name(name, style),
    };
    path.push_str(&url::escape(written.as_bytes()));
    if needs_base64(value) {
        path.push_str(BASE64_SUFFIX);
        path.push('/');
        path.push_str(&base64url::encode(value.as_bytes()));
    } else {
        path.push('/');
        path.push_str(&url::escape(value.as_bytes()));
    }
}

/// Whether a path in which escapes are decoded can have the name as it is.
fn is_plain(name: &str) -> bool {
    let is_changed = name.contains('/') || name == "." || name == ".." || name.ends_with(BASE64_SUFFIX);
    !is_changed && unescape_values(name) == name
}

/// The name as written in a path in which escapes are decoded.
fn escaped_name(name: &str, style: NameStyle) -> Cow<'_, str> {
    let escaped = Escaping::Values.escape(name);
    if matches!(style, NameStyle::Escaped) && unescape_values(&escaped) == name {
        return escaped;
    }
    // The name looks escaped, or has characters above U+FFFFF, which escapes cannot express: those stay as they are. In
    // a foreign name, escapes have the most digits that are read, which no pushed name is likely to have.
    let digits = if matches!(style, NameStyle::Foreign) { 5 } else { 0 };
    let mut own = String::from("U__");
    for c in name.chars() {
        match c {
            '_' => own.push_str("__"),
            ':' | '\u{100000}'.. => own.push(c),
            c if c.is_ascii_alphanumeric() => own.push(c),
            c => own.push_str(&format!("_{:0digits$x}_", u32::from(c))),
        }
    }
    own.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(rest: &str) -> String {
        read(rest, NameValidation::Legacy)
    }

    fn read(rest: &str, names: NameValidation) -> String {
        match grouping_key(&url::decode(rest).unwrap(), false, names) {
            Ok(labels) => labels.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn encoded_job(rest: &str) -> String {
        match grouping_key(rest.as_bytes(), true, NameValidation::Legacy) {
            Ok(labels) => labels.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Names, many of which a path can only say escaped, or that look as if they were.
    fn name() -> impl Strategy<Value = String> {
        let parts = ["U__", "_", "40", "2e", "@base64", "@", "/", "%", "%2F", ".", ":", "x", "é"];
        let above = ["\u{fffff}", "\u{100000}", "\u{10ffff}"];
        let part = prop::sample::select([&parts[..], &above].concat());
        let of_parts = prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat());
        prop_oneof!["[a-zA-Z_][a-zU_2]{0,6}|.{1,4}", of_parts]
    }

    /// The path of a group, and the group that a request to it finds if there is no other.
    fn addressed(set: &LabelSet, names: NameValidation) -> (String, Result<LabelSet, PathError>) {
        let path = format!("/{}", group_path(set, names));
        let decoded = url::decode(&path).unwrap();
        assert_eq!(url::clean(&decoded), None, "{path}");
        let (encoded, rest) = match decoded.strip_prefix(b"/job/") {
            Some(rest) => (false, rest),
            None => (true, decoded.strip_prefix(b"/job@base64/").unwrap()),
        };
        let group = AddressedGroup::read(rest, encoded, names).and_then(|group| group.find(|key| key == set));
        (path, group)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn paths_round_trip(job in ".{1,5}", labels in prop::collection::vec((name(), ".{0,4}|\\.{0,3}"), 0..5)) {
            let named = labels.into_iter().filter(|(name, _)| !name.starts_with("__") && name != JOB);
            let set = LabelSet::new(named.chain([(JOB.to_owned(), job)]));
            let path = format!("/{}", group_path(&set, NameValidation::Utf8));
            let decoded = url::decode(&path).unwrap();
            prop_assert_eq!(url::clean(&decoded), None, "{}", path);
            let (encoded, rest) = match decoded.strip_prefix(b"/job/") {
                Some(rest) => (false, rest),
                None => (true, decoded.strip_prefix(b"/job@base64/").unwrap()),
            };
            prop_assert_eq!(grouping_key(rest, encoded, NameValidation::Utf8).unwrap(), set, "{}", path);
        }

        #[test]
        fn paths_of_groups_lead_to_them(job in ".{1,5}", labels in prop::collection::vec((name(), ".{0,4}|\\.{0,3}"), 0..5)) {
            let named = labels.into_iter().filter(|(name, _)| !name.starts_with("__") && name != JOB);
            let set = LabelSet::new(named.chain([(JOB.to_owned(), job)]));
            for names in [NameValidation::Legacy, NameValidation::Utf8] {
                let (path, found) = addressed(&set, names);
                prop_assert_eq!(found.as_ref(), Ok(&set), "{} under {:?}", path, names);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, encoded: bool) {
            let _ = grouping_key(&bytes, encoded, NameValidation::Utf8);
            let _ = AddressedGroup::read(&bytes, encoded, NameValidation::Legacy);
        }
    }

    #[test]
    fn keys_are_read_as_pushgateway_reads_them() {
        assert_eq!(key("a"), r#"{job="a"}"#);
        assert_eq!(key("a/"), r#"{job="a"}"#);
        assert_eq!(key("a/b/"), r#"{b="",job="a"}"#);
        assert_eq!(key("a/x/1/x/2"), r#"{job="a",x="2"}"#);
        assert_eq!(key("a/x@base64/MQ/x/2"), r#"{job="a",x="2"}"#);
        assert_eq!(key("a/job/c"), r#"{job="a"}"#);
        assert_eq!(key("a/job@base64/Yg"), r#"{job="a"}"#);
        assert_eq!(key("a%20b/l/c+d"), r#"{job="a b",l="c+d"}"#);
        assert_eq!(key("a/path@base64/L3Zhci90bXA=="), r#"{job="a",path="/var/tmp"}"#);
        assert_eq!(
            key("a/first_label@base64/=/second_label/foobar"),
            r#"{first_label="",job="a",second_label="foobar"}"#
        );
        assert_eq!(key("a/U__x_2e_y/1"), r#"{U__x_2e_y="1",job="a"}"#);
        assert_eq!(encoded_job("YQ"), r#"{job="a"}"#);
        assert_eq!(encoded_job("YQ/b@base64/="), r#"{b="",job="a"}"#);
    }

    #[test]
    fn invalid_keys_are_refused_with_pushgateways_messages() {
        assert_eq!(key("a/b"), r#"odd number of components in label string "/b""#);
        assert_eq!(key("a/b/c/"), r#"odd number of components in label string "/b/c/""#);
        assert_eq!(key("a/1b/c"), r#"improper label name "1b""#);
        assert_eq!(key("a/__b/c"), r#"improper label name "__b""#);
        assert_eq!(key("a/a:b/c"), r#"improper label name "a:b""#);
        assert_eq!(key("a/@base64/YQ"), r#"improper label name """#);
        assert_eq!(key("a/x@base64@base64/MQ"), r#"improper label name "x@base64""#);
        assert_eq!(key(r#"a/"x"/1"#), r#"improper label name "\"x\"""#);
        assert_eq!(
            key("a/b@base64/!!"),
            r#"invalid base64 encoding for label b="!!": illegal base64 data at input byte 0"#
        );
        assert_eq!(encoded_job("="), "job name is required");
        assert_eq!(encoded_job("=/1b/c"), r#"improper label name "1b""#);
        assert_eq!(encoded_job("a"), r#"invalid base64 encoding in job name "": illegal base64 data at input byte 0"#);
        assert_eq!(
            encoded_job("YWJj!!"),
            r#"invalid base64 encoding in job name "abc": illegal base64 data at input byte 4"#
        );
    }

    #[test]
    fn a_name_that_looks_escaped_round_trips() {
        let set = LabelSet::new([("job", "a"), ("U__x_2e_y", "1")]);
        for (names, path) in
            [(NameValidation::Legacy, "job/a/U__x_2e_y/1"), (NameValidation::Utf8, "job/a/U__U____x__2e__y/1")]
        {
            assert_eq!(group_path(&set, names), path);
            assert_eq!(read(&path[4..], names), set.to_string());
        }
    }

    #[test]
    fn a_name_that_escapes_cannot_express_round_trips() {
        for (name, path) in [
            ("x\u{10ffff}", "job/a/U__x%F4%8F%BF%BF/1"),
            ("U__\u{10ffff}", "job/a/U__U____%F4%8F%BF%BF/1"),
            ("\u{10ffff}@base64", "job/a/U__%F4%8F%BF%BF_40_base64/1"),
            ("/\u{10ffff}/..", "job/a/U___2f_%F4%8F%BF%BF_2f__2e__2e_/1"),
            ("é%41:\u{fffff}\u{100000}", "job/a/U___e9__25_41:_fffff_%F4%80%80%80/1"),
        ] {
            let set = LabelSet::new([("job", "a"), (name, "1")]);
            assert_eq!(group_path(&set, NameValidation::Utf8), path);
            assert_eq!(read(&path[4..], NameValidation::Utf8), set.to_string());
        }
    }

    #[test]
    fn with_utf8_names_escapes_are_undone() {
        let utf8 = |rest: &str| read(rest, NameValidation::Utf8);
        assert_eq!(utf8("a/U__x_2e_y/1"), r#"{job="a",x.y="1"}"#);
        assert_eq!(utf8("a/x.y/1"), r#"{job="a",x.y="1"}"#);
        assert_eq!(utf8("a/U____x/1"), r#"{_x="1",job="a"}"#);
        assert_eq!(utf8("a/U______x/1"), r#"improper label name "U______x""#);
        assert_eq!(utf8("a/U__job/1"), r#"{job="a"}"#);
        for unchanged in ["U__x_2e", "U__x_ZZ_y", "U__x_d800_y", "U__x_110000_y", "U__x_y", "U__x_0000002e_y"] {
            assert_eq!(utf8(&format!("a/{unchanged}/1")), format!("{{{unchanged}=\"1\",job=\"a\"}}"));
        }
        assert_eq!(utf8("a/U__/1"), r#"improper label name "U__""#);
        assert_eq!(utf8("a/%FF/1"), r#"improper label name "\xff""#);
    }

    #[test]
    fn a_group_is_addressed_by_every_reading_of_its_path() {
        let find = |rest: &str, names, groups: &[&LabelSet]| {
            let found = AddressedGroup::read(&url::decode(rest).unwrap(), false, names);
            let found = found.and_then(|group| group.find(|key| groups.contains(&key)));
            found.map_or_else(|error| error.to_string(), |key| key.to_string())
        };
        let dotted = LabelSet::new([("job", "a"), ("x.y", "1")]);
        let written = LabelSet::new([("job", "a"), ("U__x_2e_y", "1")]);
        let (legacy, utf8) = (NameValidation::Legacy, NameValidation::Utf8);
        for (names, first, second) in [(legacy, &written, &dotted), (utf8, &dotted, &written)] {
            assert_eq!(find("a/U__x_2e_y/1", names, &[&written, &dotted]), first.to_string());
            assert_eq!(find("a/U__x_2e_y/1", names, &[second]), second.to_string());
            // Nothing is deleted, as by Pushgateway.
            assert_eq!(find("a/U__x_2e_y/1", names, &[]), first.to_string());
        }
        assert_eq!(find("a/x.y/1", legacy, &[&dotted]), dotted.to_string());
        assert_eq!(find("a/x.y/1", legacy, &[]), r#"improper label name "x.y""#);
        let many: Vec<String> = (0..=GROUPING_LABELS_MAX).map(|i| format!("l{i}")).collect();
        let many = LabelSet::new(many.iter().map(|name| (&**name, "1")).chain([("job", "a")]));
        let path = group_path(&many, legacy);
        assert_eq!(find(&path[4..], legacy, &[&many]), many.to_string());
        assert_eq!(find(&path[4..], legacy, &[]), "1001 labels in the URL are more than the limit of 1000");
    }

    #[test]
    fn the_path_of_a_foreign_group_is_not_that_of_another() {
        for (name, path) in [
            ("x.y", "/job/a/x.y/1"),
            ("é", "/job/a/%C3%A9/1"),
            ("x/y", "/job/a/U__x_0002f_y/1"),
            ("..", "/job/a/U___0002e__0002e_/1"),
            ("x@base64", "/job/a/U__x_00040_base64/1"),
        ] {
            let set = LabelSet::new([("job", "a"), (name, "1")]);
            assert_eq!(addressed(&set, NameValidation::Legacy), (path.to_owned(), Ok(set)));
        }
        let both = LabelSet::new([("job", "a"), ("U__x_2e_y", "1"), ("x.y", "2")]);
        let (path, found) = addressed(&both, NameValidation::Legacy);
        assert_eq!((&*path, found), ("/job/a/U__U____x__2e__y/1/x.y/2", Ok(both)));
    }

    #[test]
    fn values_that_are_not_utf8_are_refused() {
        assert_eq!(key("a/l/%ff"), r#"the value of label l in the URL is not valid UTF-8: "\xff""#);
        assert_eq!(key("%ff"), r#"the value of label job in the URL is not valid UTF-8: "\xff""#);
    }

    #[test]
    fn the_number_of_labels_is_bounded() {
        let labels = |count: usize| key(&format!("a{}", "/x/1".repeat(count)));
        assert_eq!(labels(GROUPING_LABELS_MAX), r#"{job="a",x="1"}"#);
        assert_eq!(labels(GROUPING_LABELS_MAX + 1), "1001 labels in the URL are more than the limit of 1000");
    }
}
