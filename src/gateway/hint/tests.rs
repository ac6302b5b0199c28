//! Tests of the hints.

use super::*;
use crate::exposition::{NameValidation, PushLimits};
use crate::gateway::body::{BodyReader, BodyRules};
use crate::model::LabelSet;

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
const DELIMITED: &[u8] = b"\x12\x0a\x01m\x18\x01\x22\x0b\x12\x09\x09\0\0\0\0\0\0\xf0\x3f";

fn rules() -> BodyRules {
    let (names, limits) = (NameValidation::default(), PushLimits::default());
    BodyRules { body_bytes_max: 64 << 20, names, limits, openmetrics: false }
}

/// The answer to a push with that content type and encoding.
fn answer(content_type: &str, content_encoding: &str, body: &[u8]) -> String {
    let (headers, reader) = (Headers { content_type, content_encoding }, BodyReader::new(rules()));
    let read = reader.decompress(headers, body).and_then(|decompressed| {
        let plain = decompressed.as_deref().unwrap_or(body);
        reader.read(headers, plain, &LabelSet::new([("job", "a")]), None)
    });
    let reply = read.expect_err("the body cannot be read").reply();
    String::from_utf8(reply.body).unwrap()
}

/// A body for each hint: its title, content type and encoding, body, and the first line of the answer.
const CASES: &[(&str, &str, &str, &[u8], &str)] = &[
    ("a remote-write request", "application/x-protobuf", "snappy", b"\x0a\x24\x0a", "snappy: corrupt input"),
    (
        "a remote-write request",
        "",
        "",
        b"\x0a\x1c\x0a\x0d\x0a\x08__name__\x12\x01m\x12\x0b",
        "text format parsing error in line 2: invalid metric name",
    ),
    (
        "gzip without its header",
        "",
        "",
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        "text format parsing error in line 1: invalid metric name",
    ),
    (
        "another compression",
        "",
        "zstd",
        b"\x28\xb5\x2f\xfd\x04\x00",
        "text format parsing error in line 1: invalid metric name",
    ),
    (
        "framed snappy without its header",
        "",
        "",
        b"\xff\x06\0\0sNaPpY",
        "text format parsing error in line 1: invalid metric name",
    ),
    ("snappy without frames", "", "snappy", b"\x04\x0cm 1\n", "snappy: corrupt input"),
    (
        "snappy without frames",
        "",
        "",
        b"\x86\x01\xf0\x40some_metric 3.14\n",
        "text format parsing error in line 1: invalid metric name",
    ),
    ("uncompressed text with Content-Encoding", "", "gzip", b"some_metric 3.14\n", "gzip: invalid header"),
    ("uncompressed text with Content-Encoding", "", "snappy", b"some_metric 3.14\n", "snappy: corrupt input"),
    (
        "delimited protobuf without its type",
        "text/plain",
        "",
        DELIMITED,
        "text format parsing error in line 1: invalid metric name",
    ),
    ("text that is called protobuf", PROTOBUF, "", b"some_metric 3.14\n", "unexpected EOF"),
    ("a byte order mark", "", "", b"\xef\xbb\xbfm 1\n", "text format parsing error in line 1: invalid metric name"),
    ("UTF-16", "", "", b"\xff\xfem\0 \x001\0\n\0", "text format parsing error in line 1: invalid metric name"),
    ("UTF-16", "", "", b"m\0 \x001\0\n\0", "text format parsing error in line 1: expected float as value"),
    (
        "lines that end in CR LF",
        "",
        "",
        b"m 1\r\n",
        "text format parsing error in line 1: expected float as value, got \"1\\r\"",
    ),
    (
        "OpenMetrics",
        "",
        "",
        b"# TYPE m info\nm_info 1\n# EOF\n",
        "text format parsing error in line 1: unknown metric type \"info\"",
    ),
    (
        "OpenMetrics",
        "",
        "",
        b"m_total 1 # {trace=\"a\"} 1\n# EOF\n",
        "text format parsing error in line 1: expected integer as timestamp, got \"#\"",
    ),
    (
        "joined lines",
        "",
        "",
        b"cpu{process=\"a\"} 0.0cpu{process=\"b\"} 0.1\n",
        "text format parsing error in line 1: expected float as value, got \"0.0cpu{process=\\\"b\\\"}\"",
    ),
    ("joined lines", "", "", b"m 1n 2", "text format parsing error in line 1: expected float as value, got \"1n\""),
    (
        "joined lines",
        "",
        "",
        b"m{a=\"b c\"} 1 n 2\n",
        "text format parsing error in line 1: expected integer as timestamp, got \"n\"",
    ),
    (
        "joined lines",
        "",
        "",
        b"# TYPE m gauge m 1\n",
        "text format parsing error in line 1: unknown metric type \"gauge m 1\"",
    ),
    ("no line feed at the end", "", "", b"m 1", "text format parsing error in line 1: unexpected end of input stream"),
    (
        "a timestamp",
        "",
        "",
        b"m 1 1700000000000\n",
        "pushed metrics are invalid or inconsistent with existing metrics: pushed metrics must not have timestamps",
    ),
    (
        "a timestamp",
        "",
        "",
        b"m 1 1700000000.5\n",
        "text format parsing error in line 1: expected integer as timestamp, got \"1700000000.5\"",
    ),
];

#[test]
fn each_hint_is_the_last_line_of_an_answer() {
    let mut missing: Vec<&str> = HINTS.iter().map(|hint| hint.title).collect();
    for (title, content_type, content_encoding, body, first) in CASES {
        let answer = answer(content_type, content_encoding, body);
        let advice = HINTS.iter().find(|hint| hint.title == *title).unwrap().advice;
        assert!(answer.lines().next().is_some_and(|line| line.starts_with(first)), "{title}: {answer}");
        assert_eq!(answer.lines().last(), Some(advice), "{title}: {answer}");
        missing.retain(|missing| missing != title);
    }
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn other_answers_have_no_hint() {
    for body in ["m{ 1\n", "m{a=b} 1\n", "# TYPE m nonsense\n", "m 0x1p-2x\n", "1m 1\n", "m 1e5e\n", "\n\nm one\n"] {
        let answer = answer("", "", body.as_bytes());
        assert_eq!(answer.lines().count(), 1, "{body:?}: {answer}");
    }
    assert_eq!(answer("", "gzip", b""), "EOF\n");
}

#[test]
fn the_http_reference_lists_the_hints() {
    let page = include_str!("../../../docs/reference/http-api.md");
    for Hint { title, advice, .. } in HINTS {
        let row = format!("| {title} | `{}` |", advice);
        assert!(page.contains(&row), "not in docs/reference/http-api.md: {row}");
    }
}
