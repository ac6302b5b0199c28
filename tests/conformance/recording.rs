//! Recordings: the outcome of each case, and the recorded server, in `recordings/SUITE.json`. Each of the four views of
//! a case has one line, so that a change of one view is a diff of one line.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{Case, folder};

/// The outcomes of a suite.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The server that was recorded.
    pub recorded_from: String,
    /// By case.
    pub cases: BTreeMap<String, Recorded>,
}

/// The outcome of a case.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// A hash that shows whether the case has changed since.
    pub digest: String,
    /// The outcome.
    pub outcome: Value,
}

impl Recording {
    /// The recording of that name, empty if there is none yet.
    pub fn read(name: &str) -> Recording {
        let file = folder().join("recordings").join(name).with_extension("json");
        match std::fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Recording::default(),
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }

    /// Writes it down.
    pub fn write(&self, name: &str) {
        let mut text = format!("{{\"recorded_from\": {:?}, \"cases\": {{", self.recorded_from);
        for (at, (case, recorded)) in self.cases.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(text, "{comma}\n{}: {{\"digest\": {:?}, \"outcome\": {{", Value::from(&**case), recorded.digest)
                .unwrap();
            for (at, (view, value)) in recorded.outcome.as_object().into_iter().flatten().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                write!(text, "{comma}\n \"{view}\": {value}").unwrap();
            }
            text += "}}";
        }
        let file = folder().join("recordings").join(name).with_extension("json");
        std::fs::write(file, text + "\n}}\n").unwrap();
    }
}

impl Recorded {
    /// The outcome of `case`.
    pub fn new(case: &Case, outcome: Value) -> Recorded {
        Recorded { digest: digest(case), outcome }
    }

    /// The differences between `outcome` and this recording; empty if they agree.
    pub fn differences(&self, case: &Case, outcome: &Value) -> Vec<String> {
        if self.digest != digest(case) {
            return vec!["the case has changed since it was recorded: record it again".to_owned()];
        }
        let mut found = Vec::new();
        compare("", &self.outcome, outcome, &mut found);
        // The answers first: they mostly explain the rest.
        found.sort_by_key(|difference| !difference.starts_with("/steps"));
        found
    }
}

/// The beginnings of messages that clients may match on: the first line is compared. The other messages contain Go's
/// debug form of a metric, which is random on purpose.
const COMPARED_MESSAGES: &[&str] = &["text format parsing error", "gzip:", "snappy:", "EOF", "unexpected EOF"];

/// Adds the difference between the first lines of two messages, if they have to agree.
fn compare_messages(place: &str, expected: &Value, seen: &Value, found: &mut Vec<String>) {
    let [expected, seen] = [expected, seen].map(|message| message.as_str().unwrap_or_default().lines().next());
    let is_compared = |message: &str| COMPARED_MESSAGES.iter().any(|begin| message.starts_with(begin));
    // Go and Rust quote unprintable characters differently.
    let is_quoted =
        |message: &str| ["\\a", "\\b", "\\f", "\\u", "\\v", "\\x"].iter().any(|escape| message.contains(escape));
    if expected.is_some_and(|message| is_compared(message) && !is_quoted(message)) && expected != seen {
        found.push(format!("{place}/message\n      expected {expected:?}\n      seen     {seen:?}"));
    }
}

/// Lists where two outcomes differ, as deep as their structures agree.
fn compare(place: &str, expected: &Value, seen: &Value, found: &mut Vec<String>) {
    match (expected, seen) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            for name in names {
                let [a, b] = [a, b].map(|fields| fields.get(name).unwrap_or(&Value::Null));
                if name == "message" {
                    compare_messages(place, a, b, found);
                    continue;
                }
                compare(&format!("{place}/{name}"), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{place}/{at}"), a, b, found);
            }
        }
        _ if expected == seen => {}
        _ => found.push(format!("{place}\n      expected {expected}\n      seen     {seen}")),
    }
}

/// FNV-1a of the case before compression, so that another version of a compressor does not change it.
fn digest(case: &Case) -> String {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", format!("{case:?}").bytes().fold(0xcbf2_9ce4_8422_2325, add))
}
