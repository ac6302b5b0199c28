//! Cases: the requests in `cases/*.toml`, and the bytes that they send.
//!
//! A file is a suite: `flags` for the server, the `prefix` of its paths if those flags set one, and `[cases]`. A case
//! is a list of steps, or one step, or a text, which is one `PUT` to `/metrics/job/a`. Bodies are text, hexadecimal
//! digits or protobuf families. A body can be repeated, compressed, damaged, cut short, and joined from parts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::metrics::{MetricFamily, delimited};

/// The type under which delimited protobuf is pushed.
pub const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The file's name without extension.
    #[serde(skip)]
    pub name: String,
    /// Flags that the server needs, which Pushgateway and pushrelay share.
    #[serde(default)]
    pub flags: Vec<String>,
    /// The prefix that the flags add to every path.
    #[serde(default)]
    pub prefix: String,
    /// The path of the scrape that the flags set.
    #[serde(default = "telemetry_path")]
    pub telemetry_path: String,
    /// The cases by name.
    pub cases: BTreeMap<String, Case>,
}

/// Requests, in order.
#[derive(Debug)]
pub struct Case {
    /// At least one.
    pub steps: Vec<Step>,
}

/// A request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Method and target.
    #[serde(default = "request")]
    pub request: String,
    /// Headers besides those of the framing. A protobuf body brings its content type.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Speak HTTP/1.0.
    #[serde(default)]
    pub http10: bool,
    /// Send the body chunked, a byte a chunk.
    #[serde(default)]
    pub chunked: bool,
    /// A body of text.
    text: Option<String>,
    /// A body of protobuf families.
    protobuf: Option<Vec<MetricFamily>>,
    /// A body of parts.
    #[serde(default)]
    body: Vec<Part>,
}

/// A part of a body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    text: String,
    /// Pairs of hexadecimal digits; spaces are skipped.
    #[serde(default)]
    hex: String,
    #[serde(default)]
    protobuf: Vec<MetricFamily>,
    /// Repeats the part so many times, before any other change.
    #[serde(default = "once")]
    times: usize,
    compress: Option<Compression>,
    /// Inverts the byte at this position; a negative one counts from the end.
    flip: Option<isize>,
    /// Removes so many bytes at the end.
    #[serde(default)]
    cut: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compression {
    Gzip,
    Snappy,
}

fn request() -> String {
    "PUT /metrics/job/a".to_owned()
}

fn telemetry_path() -> String {
    "/metrics".to_owned()
}

fn once() -> usize {
    1
}

/// All suites, by name.
pub fn suites() -> Vec<Suite> {
    let folder = folder().join("cases");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| Suite::read(file)).collect()
}

/// The folder of cases and recordings.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance"))
}

impl Suite {
    fn read(file: &Path) -> Suite {
        let text = std::fs::read_to_string(file).unwrap();
        let mut suite: Suite = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        suite.name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        suite
    }
}

impl<'de> Deserialize<'de> for Case {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Case, D::Error> {
        let steps = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(vec![Step::put("/metrics/job/a", &text)]),
            steps @ toml::Value::Array(_) => steps.try_into(),
            step => step.try_into().map(|step| vec![step]),
        };
        steps.map(|steps| Case { steps }).map_err(serde::de::Error::custom)
    }
}

impl Step {
    /// A push of text.
    pub fn put(path: &str, text: &str) -> Step {
        Step::new(&format!("PUT {path}"), Some(text.to_owned()), None)
    }

    /// A request with one body or none.
    pub fn new(request: &str, text: Option<String>, protobuf: Option<Vec<MetricFamily>>) -> Step {
        let request = request.to_owned();
        Step { request, headers: BTreeMap::new(), http10: false, chunked: false, text, protobuf, body: Vec::new() }
    }

    /// Method and target.
    pub fn method_and_target(&self) -> (&str, &str) {
        self.request.split_once(' ').unwrap_or_else(|| panic!("no target: {:?}", self.request))
    }

    /// The headers, with the content type that belongs to a protobuf body.
    pub fn headers(&self) -> BTreeMap<String, String> {
        let mut headers = self.headers.clone();
        let protobuf = self.protobuf.is_some() || self.body.iter().any(|part| !part.protobuf.is_empty());
        if protobuf && !headers.contains_key("Content-Type") {
            headers.insert("Content-Type".to_owned(), PROTOBUF.to_owned());
        }
        headers
    }

    /// The bytes of the body.
    pub fn body(&self) -> Vec<u8> {
        let mut bytes = self.text.clone().unwrap_or_default().into_bytes();
        bytes.extend(delimited(self.protobuf.as_deref().unwrap_or_default()));
        bytes.extend(self.body.iter().flat_map(Part::bytes));
        bytes
    }
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.text.clone().into_bytes();
        bytes.extend(unhex(&self.hex));
        bytes.extend(delimited(&self.protobuf));
        bytes = bytes.repeat(self.times);
        match self.compress {
            Some(Compression::Gzip) => bytes = gzip(&bytes),
            Some(Compression::Snappy) => bytes = snappy(&bytes),
            None => {}
        }
        if let Some(position) = self.flip {
            let from = if position < 0 { bytes.len() } else { 0 };
            let position = from.checked_add_signed(position).expect("the position is in the body");
            bytes[position] ^= 0xff;
        }
        bytes.truncate(bytes.len().saturating_sub(self.cut));
        bytes
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).expect("a digit")).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.into_inner().unwrap()
}

#[test]
fn parts_become_bytes() {
    let suite: Suite = toml::from_str(
        "[cases]\na = \"m 1\\n\"\nb = {body = [{text = \"x\", times = 3, cut = 1}, {hex = \"00 ff\", flip = -1}]}\n\
         c = [{protobuf = [{name = \"m\", type = \"GAUGE\", metric = [{label = [[\"a\", \"b\"]], gauge = {value = 1}}]}]}]",
    )
    .unwrap();
    let step = |name: &str| suite.cases[name].steps[0].clone();
    assert_eq!(step("a").body(), b"m 1\n");
    assert_eq!(step("b").body(), b"xx\x00\x00");
    assert_eq!(step("c").body()[..6], *b"\x1a\x0a\x01m\x18\x01");
    assert_eq!(step("c").headers()["Content-Type"], PROTOBUF);
    assert!(toml::from_str::<Suite>("[cases]\na = {txt = \"m 1\"}").is_err(), "a misspelt key");
}
