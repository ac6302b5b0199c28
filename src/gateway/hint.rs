//! Hints: a body that cannot be read often looks like something else. A further line of the answer says so, and says what
//! to do. The first line stays the one of Pushgateway, because clients match on it.
//!
//! [`HINTS`] is the table. `docs/reference/http-api.md` has the same, which a test checks.

use super::media_type::{Headers, ends_with_eof, is_delimited_protobuf, is_media_type, is_openmetrics};

/// A body that could not be read.
struct Unreadable<'a> {
    headers: Headers<'a>,
    /// The body, decompressed if that was possible.
    body: &'a [u8],
    /// The message of the decompressor or parser.
    message: &'a str,
}

/// A known kind of unreadable bodies.
struct Hint {
    /// The kind.
    #[cfg_attr(not(test), allow(dead_code, reason = "the title stands in the documents, which the tests compare"))]
    title: &'static str,
    /// The last line of the answer.
    advice: &'static str,
    /// Whether a body is of this kind.
    applies: fn(&Unreadable<'_>) -> bool,
}

/// The kinds of unreadable bodies. The first that applies is the hint.
const HINTS: &[Hint] = &[
    Hint {
        title: "a remote-write request",
        advice: "this looks like Prometheus remote write, and this is a push gateway: send it to a remote-write receiver, \
                 or push text",
        applies: |request| {
            is_media_type(request.headers.content_type, "application/x-protobuf") || is_remote_write(request.body)
        },
    },
    Hint {
        title: "gzip without its header",
        advice: "this looks like gzip: add the header Content-Encoding: gzip",
        applies: |request| request.body.starts_with(b"\x1f\x8b") && !is_coded(request, "gzip"),
    },
    Hint {
        title: "another compression",
        advice: "Content-Encoding can be gzip or snappy here: send the body with one of them, or uncompressed",
        applies: |request| {
            let coding = request.headers.content_encoding.trim();
            !["", "identity", "gzip", "snappy"].iter().any(|known| coding.eq_ignore_ascii_case(known))
        },
    },
    Hint {
        title: "framed snappy without its header",
        advice: "this looks like framed snappy: add the header Content-Encoding: snappy",
        applies: |request| request.body.starts_with(b"\xff\x06\0\0sNaPpY") && !is_coded(request, "snappy"),
    },
    Hint {
        title: "snappy without frames",
        advice: "this looks like snappy without frames: use snappy's framing format with Content-Encoding: snappy, or \
                 gzip",
        applies: |request| is_snappy_block(request.body),
    },
    Hint {
        title: "uncompressed text with Content-Encoding",
        advice: "this looks uncompressed: leave the header Content-Encoding out",
        applies: |request| !request.headers.content_encoding.trim().is_empty() && is_text(request.body),
    },
    Hint {
        title: "delimited protobuf without its type",
        advice: "this looks like delimited protobuf: add the header Content-Type: application/vnd.google.protobuf; \
                 proto=io.prometheus.client.MetricFamily; encoding=delimited",
        applies: |request| !is_protobuf(request) && is_delimited(request.body),
    },
    Hint {
        title: "text that is called protobuf",
        advice: "this looks like text: leave the header Content-Type out, or make it text/plain",
        applies: |request| is_protobuf(request) && is_text(request.body),
    },
    Hint {
        title: "a byte order mark",
        advice: "the body begins with a byte order mark: save the file as UTF-8 without one",
        applies: |request| request.body.starts_with(b"\xef\xbb\xbf"),
    },
    Hint {
        title: "UTF-16",
        advice: "this looks like UTF-16: save the file as UTF-8 (PowerShell: Out-File -Encoding ascii)",
        applies: |request| is_utf16(request.body),
    },
    Hint {
        title: "lines that end in CR LF",
        advice: "lines end in CR LF: end them in LF alone (tr -d '\\r')",
        applies: |request| !is_protobuf(request) && line(request).contains(&b'\r'),
    },
    Hint {
        title: "OpenMetrics",
        advice: "this looks like OpenMetrics: set push.openmetrics = true here, or send the Prometheus text format \
                 0.0.4, whose types are counter, gauge, histogram, summary and untyped",
        applies: |request| {
            let of_unknown_type = |name: &str| request.message.ends_with(&format!("unknown metric type \"{name}\""));
            let is_marked = is_openmetrics(request.headers.content_type) || ends_with_eof(request.body);
            let is_text = !is_protobuf(request) && !was_openmetrics(request);
            is_text && (is_marked || ["info", "stateset", "unknown"].into_iter().any(of_unknown_type))
        },
    },
    Hint {
        title: "joined lines",
        advice: "lines are joined: each sample needs a line of its own (curl --data @file removes line feeds, \
                 --data-binary does not; the shell's $(…) removes the last one)",
        applies: |request| !is_protobuf(request) && !was_openmetrics(request) && is_joined(line(request)),
    },
    Hint {
        title: "no line feed at the end",
        advice: "the last line has no line feed: end every line with one (echo does, printf and curl --data do not)",
        applies: |request| {
            request.message.ends_with("unexpected end of input stream") && !request.body.ends_with(b"\n")
        },
    },
    Hint {
        title: "a timestamp",
        advice: "a sample has a timestamp, which is the third field of its line: leave it out, as the time of the push \
                 is recorded in push_time_seconds, or set push.timestamps = \"strip\" here",
        applies: |request| request.message.contains("timestamp") && !was_openmetrics(request),
    },
];

/// The hint for a body that could not be read with that message.
pub(super) fn hint(headers: Headers<'_>, body: &[u8], message: &str) -> Option<&'static str> {
    let request = Unreadable { headers, body, message };
    HINTS.iter().find(|hint| (hint.applies)(&request)).map(|hint| hint.advice)
}

fn is_coded(request: &Unreadable<'_>, coding: &str) -> bool {
    request.headers.content_encoding.trim().eq_ignore_ascii_case(coding)
}

fn is_protobuf(request: &Unreadable<'_>) -> bool {
    is_delimited_protobuf(request.headers.content_type)
}

/// Whether the body was read as OpenMetrics.
fn was_openmetrics(request: &Unreadable<'_>) -> bool {
    request.message.starts_with("OpenMetrics parsing error")
}

/// The first bytes of a body, enough to recognize it by.
fn head(body: &[u8]) -> &[u8] {
    &body[..body.len().min(512)]
}

/// Whether the body begins as lines of the text format do.
fn is_text(body: &[u8]) -> bool {
    let is_printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..);
    let first = body.first().copied().unwrap_or_default();
    (begins_name(first) || matches!(first, b'#' | b'{' | b'\n' | b' ')) && head(body).iter().all(is_printable)
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':')
}

/// A base-128 number at the beginning of `bytes`, and the bytes after it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[i + 1..]));
        }
    }
    None
}

/// A length, then a `MetricFamily`, whose first field is its name.
fn is_delimited(body: &[u8]) -> bool {
    let name = varint(body).and_then(|(_, message)| varint(message.strip_prefix(b"\x0a")?));
    name.is_some_and(|(length, name)| {
        name.len() as u64 >= length && name.first().is_some_and(|byte| begins_name(*byte))
    })
}

/// A `WriteRequest`, compressed by snappy or not: the first bytes have the label `__name__` and are not text.
fn is_remote_write(body: &[u8]) -> bool {
    let head = head(body);
    head.windows(8).any(|bytes| bytes == b"__name__") && !is_text(body) && head.contains(&b'\x0a')
}

/// The length of the text, then a literal that begins as text does.
fn is_snappy_block(body: &[u8]) -> bool {
    let Some((length, [tag, rest @ ..])) = varint(body) else { return false };
    let extra = usize::from(tag >> 2).saturating_sub(59);
    let is_literal = tag & 3 == 0 && length > u64::from(tag >> 2) && extra <= 4;
    is_literal && !is_text(body) && rest.get(extra).is_some_and(|byte| begins_name(*byte) || *byte == b'#')
}

/// A byte order mark of UTF-16, or every other byte of the first ones zero.
fn is_utf16(body: &[u8]) -> bool {
    let zeros = |odd: usize| {
        let head = head(body);
        head.len() >= 4 && head.iter().skip(odd).step_by(2).all(|byte| *byte == 0)
    };
    body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff") || zeros(0) || zeros(1)
}

/// The line that the message names; the whole body if it names none.
fn line<'a>(request: &Unreadable<'a>) -> &'a [u8] {
    let after = request.message.split_once("in line ").map(|(_, rest)| rest);
    let number = after.and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
    match number {
        Some(number) => request.body.split(|byte| *byte == b'\n').nth(number.saturating_sub(1)).unwrap_or_default(),
        None => request.body,
    }
}

/// Whether a line has a second sample after the first: a second list of labels, or a name and a value after a value.
fn is_joined(line: &[u8]) -> bool {
    let (mut is_quoted, mut is_escaped, mut is_inside, mut lists) = (false, false, false, 0);
    // The line without its lists of labels.
    let mut plain = Vec::new();
    for &byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'{' => (is_inside, lists) = (true, lists + 1),
            b'}' => {
                is_inside = false;
                plain.push(b' ');
            }
            _ if is_inside => {}
            byte => plain.push(byte),
        }
    }
    let fields: Vec<&[u8]> = fields(&plain).take(5).collect();
    match *fields {
        [] | [_] => false,
        [first, second, ..] if first == b"#" => second == b"TYPE" && fields.len() > 4,
        _ if lists > 1 => true,
        [_, value, _] => is_number_and_name(value),
        [_, value, next, _, ..] => begins_name(next[0]) || is_number_and_name(value),
        _ => false,
    }
}

/// The fields of a line, which blanks separate.
fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty())
}

/// Whether a name follows a number without a blank, as in `1n`.
fn is_number_and_name(field: &[u8]) -> bool {
    let digits = field.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-')).count();
    digits > 0 && field.get(digits).is_some_and(|byte| begins_name(*byte) && !matches!(byte, b'e' | b'E' | b'x' | b'X'))
}

#[cfg(test)]
mod tests;
