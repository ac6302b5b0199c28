//! Reads a push's headers and body into families.
//!
//! Content-Encoding selects the decompression (gzip or snappy; as in Pushgateway, any other value means none),
//! Content-Type the parser. Every step is bounded, and none needs the store: conflicts are found later.

use std::fmt;

use crate::compression;
use crate::exposition::{NameValidation, PushLimits, PushRefusal, RawFamily, openmetrics, protobuf, text};
use crate::model::{Family, Group, LabelSet};
use crate::store::{PUSH_FAILURE_TIME, PUSH_TIME};

use super::HttpReply;
use super::adding::IncrementError;
use super::hint::hint;
pub use super::media_type::Headers;
use super::media_type::{ends_with_eof, is_delimited_protobuf, is_openmetrics};

/// Families that pushrelay adds to each group. A pushed family of that name is ignored. (Pushgateway keeps a pushed
/// `push_failure_time_seconds` if the group exists already, and shows it until the next failure.)
pub const PUSH_TIME_FAMILIES: [&str; 2] = [PUSH_TIME, PUSH_FAILURE_TIME];

/// The rules for reading a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRules {
    /// Bytes of a body, before and after decompression, at most.
    pub body_bytes_max: usize,
    /// The rule for names.
    pub names: NameValidation,
    /// Bounds on the parsed metrics.
    pub limits: PushLimits,
    /// Whether to read OpenMetrics bodies as such, instead of as the older text format.
    pub openmetrics: bool,
}

/// A push is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The body is larger than allowed, or decompresses to more.
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge {
        /// [`BodyRules::body_bytes_max`].
        bytes_max: usize,
    },
    /// The body cannot be decompressed.
    #[error("{0}{1}")]
    Encoding(compression::DecompressError, SecondLine),
    /// The body is not text format.
    #[error("{0}{1}")]
    Text(text::TextError, SecondLine),
    /// The body is not OpenMetrics.
    #[error("{0}{1}")]
    OpenMetrics(openmetrics::OpenMetricsError, SecondLine),
    /// The body is not delimited protobuf.
    #[error("{0}{1}")]
    Protobuf(protobuf::ProtobufError, SecondLine),
    /// The body is well-formed, but the push can never be accepted.
    #[error("{0}{1}")]
    Refused(Box<PushRefusal>, SecondLine),
    /// The body is well-formed, but its values cannot be added.
    #[error("{0}")]
    Increment(IncrementError),
}

/// The second line of an answer, if there is one: what the body looks like, and what to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondLine(Option<&'static str>);

impl SecondLine {
    fn of(headers: Headers<'_>, body: &[u8], error: &dyn fmt::Display) -> Self {
        Self(hint(headers, body, &error.to_string()))
    }
}

impl fmt::Display for SecondLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "\n{hint}"))
    }
}

impl PushError {
    /// Whether the push counts as failed and sets the group's `push_failure_time_seconds`. Otherwise it changes
    /// nothing.
    pub fn is_failed_push(&self) -> bool {
        matches!(self, Self::Refused(..) | Self::Increment(_))
    }

    /// The answer to the push.
    pub fn reply(&self) -> HttpReply {
        match self {
            Self::TooLarge { bytes_max } => HttpReply::too_large(*bytes_max),
            Self::Text(text::TextError::Limit { .. }, _)
            | Self::OpenMetrics(openmetrics::OpenMetricsError::Limit { .. }, _)
            | Self::Protobuf(protobuf::ProtobufError::Limit(_), _) => HttpReply::error(413, self),
            Self::Encoding(..) | Self::Text(..) | Self::OpenMetrics(..) | Self::Protobuf(..) => {
                HttpReply::error(400, self)
            }
            Self::Refused(..) | Self::Increment(_) => HttpReply::refused(self),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ContentCoding {
    Plain,
    Gzip,
    Snappy,
}

impl ContentCoding {
    fn of(headers: Headers<'_>) -> Self {
        let is = |name| headers.content_encoding.trim().eq_ignore_ascii_case(name);
        match () {
            () if is("gzip") => Self::Gzip,
            () if is("snappy") => Self::Snappy,
            () => Self::Plain,
        }
    }
}

/// Reads pushes.
#[derive(Debug)]
pub struct BodyReader {
    rules: BodyRules,
    same_series: text::SameSeriesReader,
}

impl BodyReader {
    /// A reader with these rules.
    pub fn new(rules: BodyRules) -> Self {
        Self { rules, same_series: text::SameSeriesReader::new(rules.limits) }
    }

    /// Decompresses a push; `None` if it is not compressed.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is too large, before or after decompression, or cannot be decompressed.
    pub fn decompress(&self, headers: Headers<'_>, body: &[u8]) -> Result<Option<Vec<u8>>, PushError> {
        let bytes_max = self.rules.body_bytes_max;
        if body.len() > bytes_max {
            return Err(PushError::TooLarge { bytes_max });
        }
        let decoded = match ContentCoding::of(headers) {
            ContentCoding::Plain => None,
            ContentCoding::Gzip => Some(compression::gunzip(body, bytes_max)),
            ContentCoding::Snappy => Some(compression::unsnappy(body, bytes_max)),
        };
        decoded.transpose().map_err(|error| match error {
            compression::DecompressError::TooLarge { bytes_max } => PushError::TooLarge { bytes_max },
            error => PushError::Encoding(error, SecondLine::of(headers, body, &error)),
        })
    }

    /// Reads a decompressed push to the group with the grouping key `target`: the families to store, each name once.
    /// `current`, the group's state, only makes reading faster, if the push repeats the group's series.
    ///
    /// # Errors
    ///
    /// Returns an error if the body cannot be parsed, crosses a bound, or can never be accepted.
    pub fn read(
        &self,
        headers: Headers<'_>,
        plain: &[u8],
        target: &LabelSet,
        current: Option<&Group>,
    ) -> Result<Vec<Family>, PushError> {
        let format = self.format(headers, plain);
        if let Some(current) = current.filter(|current| format == BodyFormat::Text && current.is_live())
            && let Some(families) = self.same_series.parse(plain, current, target)
        {
            return Ok(families);
        }
        let BodyRules { names, limits, .. } = &self.rules;
        let families = match format {
            BodyFormat::Protobuf => protobuf::parse(plain, *names, limits)
                .map_err(|error| PushError::Protobuf(error.clone(), SecondLine::of(headers, plain, &error)))?,
            BodyFormat::OpenMetrics => openmetrics::parse(plain, *names, limits)
                .map_err(|error| PushError::OpenMetrics(error.clone(), SecondLine::of(headers, plain, &error)))?,
            BodyFormat::Text => text::parse(plain, *names, limits)
                .map_err(|error| PushError::Text(error.clone(), SecondLine::of(headers, plain, &error)))?,
        };
        accept(&families, target).map_err(|refusal| {
            let second = match refusal {
                PushRefusal::Timestamp => SecondLine::of(Headers::default(), b"", &refusal),
                _ => SecondLine::default(),
            };
            PushError::Refused(Box::new(refusal), second)
        })
    }

    fn format(&self, headers: Headers<'_>, plain: &[u8]) -> BodyFormat {
        match () {
            () if is_delimited_protobuf(headers.content_type) => BodyFormat::Protobuf,
            () if self.rules.openmetrics && (is_openmetrics(headers.content_type) || ends_with_eof(plain)) => {
                BodyFormat::OpenMetrics
            }
            () => BodyFormat::Text,
        }
    }
}

/// The format of a decompressed body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyFormat {
    Text,
    OpenMetrics,
    Protobuf,
}

/// Builds the families for the group, without those of [`PUSH_TIME_FAMILIES`].
fn accept(families: &[RawFamily<'_>], target: &LabelSet) -> Result<Vec<Family>, PushRefusal> {
    let mut accepted = Vec::with_capacity(families.len());
    let mut refused: Option<PushRefusal> = None;
    for family in families {
        match family.family(target) {
            // As in Pushgateway, a timestamp in any family goes before all other reasons.
            Err(PushRefusal::Timestamp) => return Err(PushRefusal::Timestamp),
            _ if PUSH_TIME_FAMILIES.contains(&&*family.name) => {}
            Ok(family) => accepted.push(family),
            Err(refusal) => {
                refused = Some(match refused {
                    Some(before) => PushRefusal::and(before, refusal),
                    None => refusal,
                });
            }
        }
    }
    refused.map_or(Ok(accepted), Err)
}

/// Checks the body of a DELETE as Pushgateway does: it is not read, but if Content-Encoding is gzip it must begin with
/// a gzip header.
///
/// # Errors
///
/// Returns an error if the gzip header is missing or invalid.
pub fn check_delete(headers: Headers<'_>, body: &[u8]) -> Result<(), PushError> {
    match ContentCoding::of(headers) {
        ContentCoding::Gzip => compression::check_gzip_header(body)
            .map_err(|error| PushError::Encoding(error, SecondLine::of(headers, body, &error))),
        ContentCoding::Plain | ContentCoding::Snappy => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{FragmentEncoder, GzipMember};
    use crate::exposition::TimestampRule;
    use crate::model::{NodeId, PushTime, WriteTimestamp};

    const PROTOBUF: &str =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    /// A gauge `m` without labels, 1.
    const GAUGE: &[u8] = b"\x12\x0a\x01m\x18\x01\x22\x0b\x12\x09\x09\0\0\0\0\0\0\xf0\x3f";

    fn gzip(text: &str) -> Vec<u8> {
        let (mut member, mut body) = (GzipMember::new(), Vec::new());
        member.add(&FragmentEncoder::new(1).encode(text.as_bytes()), &mut body);
        member.finish(&mut body);
        body
    }

    fn rules(body_bytes_max: usize) -> BodyRules {
        let (names, limits) = (NameValidation::default(), PushLimits::default());
        BodyRules { body_bytes_max, names, limits, openmetrics: false }
    }

    /// The pushed names, or the status and body of the answer, after `!` if the push counts as failed.
    fn answer(headers: Headers<'_>, body: &[u8], rules: &BodyRules) -> String {
        let reader = BodyReader::new(*rules);
        let read = reader.decompress(headers, body).and_then(|decompressed| {
            let plain = decompressed.as_deref().unwrap_or(body);
            reader.read(headers, plain, &LabelSet::new([("job", "a")]), None)
        });
        match read {
            Ok(families) => families.iter().map(|family| &**family.name()).collect::<Vec<_>>().join(" "),
            Err(error) => {
                let reply = error.reply();
                let failed = if error.is_failed_push() { "!" } else { "" };
                format!("{failed}{} {}", reply.status, String::from_utf8(reply.body).unwrap().trim_end())
            }
        }
    }

    fn first_line(answer: &str) -> &str {
        answer.lines().next().unwrap_or_default()
    }

    fn plain(body: &[u8]) -> String {
        answer(Headers::default(), body, &rules(64 << 20))
    }

    fn encoded(content_encoding: &str, body: &[u8]) -> String {
        answer(Headers { content_encoding, ..Headers::default() }, body, &rules(64 << 20))
    }

    #[test]
    fn bodies_are_decoded_as_pushgateway_decodes_them() {
        assert_eq!(encoded("GZIP", &gzip("m 1\n")), "m");
        assert_eq!(encoded(" gzip ", &gzip("m 1\n")), "m");
        assert_eq!(encoded("gzip", b""), "400 EOF");
        assert_eq!(encoded("gzip", b"\x1f\x8b"), "400 unexpected EOF");
        assert_eq!(first_line(&encoded("gzip", b"not gzip at all")), "400 gzip: invalid header");
        let body = gzip("m 1\n");
        let wrong_sum = [&body[..body.len() - 8], &[0; 8]].concat();
        assert_eq!(encoded("gzip", &wrong_sum), "400 gzip: invalid checksum");
        assert_eq!(encoded("snappy", b""), "");
        assert_eq!(first_line(&encoded("snappy", b"not snappy")), "400 snappy: corrupt input");
        for other in ["", "identity", "deflate", "br", "gzip, identity"] {
            assert_eq!(encoded(other, b"m 1\n"), "m", "{other}");
        }
    }

    #[test]
    fn bodies_are_bounded_before_and_after_decoding() {
        let too_large = "413 the request body is larger than the limit of 8 bytes, decompressed; split the push";
        assert_eq!(answer(Headers::default(), b"abcde 1\n", &rules(8)), "abcde");
        assert_eq!(answer(Headers::default(), b"abcdef 1\n", &rules(8)), too_large);
        let headers = Headers { content_encoding: "gzip", ..Headers::default() };
        let bomb = gzip(&"m 1\n".repeat(10_000));
        let refused = answer(headers, &bomb, &rules(bomb.len()));
        assert!(refused.starts_with("413 the request body is larger than the limit of"), "{refused}");
        let few = BodyRules { limits: PushLimits { series_max: 1, ..PushLimits::default() }, ..rules(64 << 20) };
        let refused = answer(Headers::default(), b"a 1\nb 1\n", &few);
        assert!(refused.starts_with("413 ") && refused.contains("limit of 1 series"), "{refused}");
    }

    #[test]
    fn the_content_type_says_how_to_parse() {
        let typed = |content_type| answer(Headers { content_type, ..Headers::default() }, GAUGE, &rules(64 << 20));
        assert_eq!(typed(PROTOBUF), "m");
        assert_eq!(first_line(&typed("text/plain")), "400 text format parsing error in line 1: invalid metric name");
        let cut = answer(Headers { content_type: PROTOBUF, ..Headers::default() }, &GAUGE[..9], &rules(64 << 20));
        assert!(cut.starts_with("400 unexpected EOF"), "{cut}");
    }

    #[test]
    fn refusals_and_parse_errors_are_distinguished() {
        let timestamp = "!400 pushed metrics are invalid or inconsistent with existing metrics: \
                         pushed metrics must not have timestamps";
        assert_eq!(first_line(&plain(b"m 1\nn 1 5\n")), timestamp);
        assert_eq!(first_line(&plain(b"m 1\nm 1\nn 1 5\n")), timestamp);
        let duplicate = plain(b"m 1\nm 1\n");
        assert!(duplicate.starts_with("!400 pushed metrics are invalid") && duplicate.contains("collected before"));
        assert_eq!(plain(b"m{ 1\n"), "400 text format parsing error in line 1: invalid label name for metric \"m\"");
        let cut = "400 text format parsing error in line 1: unexpected end of input stream";
        assert_eq!(first_line(&plain(b"m 1")), cut);
    }

    #[test]
    fn timestamps_are_stripped_on_request() {
        let limits = PushLimits { timestamps: TimestampRule::Strip, ..PushLimits::default() };
        let strip = BodyRules { limits, ..rules(64 << 20) };
        let text = b"m 1 1700000000000\n# TYPE h histogram\nh_bucket{le=\"1\"} 1 5\nh_count 1 5\n";
        assert_eq!(answer(Headers::default(), text, &strip), "m h");
        let malformed = answer(Headers::default(), b"m 1 x\n", &strip);
        assert_eq!(
            first_line(&malformed),
            "400 text format parsing error in line 1: expected integer as timestamp, got \"x\""
        );
        // The gauge of the other test, with the field `timestamp_ms`.
        let stamped = b"\x14\x0a\x01m\x18\x01\x22\x0d\x12\x09\x09\0\0\0\0\0\0\xf0\x3f\x30\x05";
        let headers = Headers { content_type: PROTOBUF, ..Headers::default() };
        assert!(answer(headers, stamped, &rules(64 << 20)).starts_with("!400 "));
        let reader = BodyReader::new(strip);
        let families = reader.read(headers, stamped, &LabelSet::default(), None).unwrap();
        assert!(
            families[0].raw_metrics().is_none() && families[0].values()[..] == [1.0],
            "as if there were no timestamp"
        );
    }

    #[test]
    fn openmetrics_is_read_on_request() {
        let body = b"# TYPE m counter\nm_total 1\nm_created 1.5\n# TYPE build info\nbuild_info{v=\"1\"} 1\n# EOF\n";
        let read = |content_type: &str, body: &[u8], openmetrics| {
            let rules = BodyRules { openmetrics, ..rules(64 << 20) };
            answer(Headers { content_type, ..Headers::default() }, body, &rules)
        };
        for content_type in ["", "text/plain", "application/openmetrics-text; version=1.0.0; charset=utf-8"] {
            assert_eq!(read(content_type, body, true), "m_total build_info", "{content_type}");
            let refused = read(content_type, body, false);
            assert!(refused.starts_with("400 text format parsing error in line 4: unknown metric type \"info\""));
            assert!(refused.contains("push.openmetrics = true"), "{refused}");
        }
        let cut = &body[..body.len() - "# EOF\n".len()];
        let unfinished = read("Application/OpenMetrics-Text", cut, true);
        assert_eq!(unfinished, "400 OpenMetrics parsing error in line 5: the text has no last line # EOF");
        assert_eq!(read("", b"m 1\nm_total 2\n", true), "m m_total", "the older text format");
        assert_eq!(read("", b"# EOF", true), "");
        let few = BodyRules {
            openmetrics: true,
            limits: PushLimits { series_max: 1, ..PushLimits::default() },
            ..rules(64 << 20)
        };
        assert!(answer(Headers::default(), b"a 1\nb 1\n# EOF\n", &few).starts_with("413 OpenMetrics parsing error"));
        assert_eq!(read(PROTOBUF, GAUGE, true), "m");
    }

    /// A reader of the older format would find the group's series and take `# EOF` for a comment.
    #[test]
    fn openmetrics_is_not_read_as_the_series_of_the_group() {
        let reader = BodyReader::new(BodyRules { openmetrics: true, ..rules(64 << 20) });
        let target = LabelSet::new([("job", "a")]);
        let families = reader.read(Headers::default(), b"# TYPE x_total counter\nx_total 1\n", &target, None).unwrap();
        let stamp = WriteTimestamp { time_ns: 1, node: NodeId(1) };
        let group = Group::put(PushTime { stamp, wall_ns: 1 }, families);
        let body = b"# TYPE x_total counter\nx_total 1\n# EOF\n";
        assert!(reader.read(Headers::default(), body, &target, Some(&group)).is_err(), "needs x_total_total");
        let body = b"# TYPE x counter\nx_total 2\n# EOF\n";
        let families = reader.read(Headers::default(), body, &target, Some(&group)).unwrap();
        assert_eq!((&**families[0].name(), &families[0].values()[..]), ("x_total", &[2.0][..]));
    }

    #[test]
    fn all_refused_families_are_named() {
        let two = plain(b"m 1\nm 1\nn 1\nn 1\n");
        let lines: Vec<&str> = two.lines().collect();
        assert_eq!(lines.len(), 4, "{two}");
        assert!(lines[0].contains("\"m\"") && lines[2].starts_with("collected metric \"n\""), "{two}");
        let many: String = (0..30).map(|i| format!("m{i} 1\nm{i} 1\n")).collect();
        assert!(plain(many.as_bytes()).ends_with("\n10 more metrics are refused"));
    }

    #[test]
    fn pushed_push_time_families_are_ignored() {
        assert_eq!(plain(b"push_time_seconds 5\npush_failure_time_seconds 5\nm 1\n"), "m");
        assert_eq!(plain(b"push_time_seconds 5\npush_time_seconds 5\nm 1\n"), "m");
        assert_eq!(plain(b"# TYPE push_time_seconds histogram\nm 1\n"), "m");
        assert!(plain(b"push_time_seconds 5 5\nm 1\n").starts_with("!400"));
    }

    #[test]
    fn a_delete_is_checked_for_its_gzip_header_only() {
        let delete = |content_encoding: &str, body: &[u8]| {
            check_delete(Headers { content_encoding, ..Headers::default() }, body)
                .map_err(|error| first_line(&error.to_string()).to_owned())
        };
        assert_eq!(delete("gzip", b""), Err("EOF".into()));
        assert_eq!(delete("gzip", b"notgzip 1234567"), Err("gzip: invalid header".into()));
        assert_eq!(delete("gzip", &gzip("m 1\n")[..12]), Ok(()));
        assert_eq!(delete("snappy", b"not snappy"), Ok(()));
        assert_eq!(delete("", b"junk"), Ok(()));
    }

    /// The memory of an answer is not bounded by any budget, so it quotes only the beginning of a long text.
    #[test]
    fn quotes_in_answers_are_bounded() {
        let texts = [
            "m §",
            "m 1 §",
            "m 1 2 §",
            "§",
            "m{§=\"1\"} 1",
            "m{\"§\"=\"1\"} 1",
            "m{a=\"§",
            "m{a=\"§\"x} 1",
            "m{\"a§",
            "{\"§\",\"§\"} 1",
            "§{x=1} 1",
            "§{\"a\"} 1",
            "§{,} 1",
            "§{a=\"1\",a=\"1\"} 1",
            "§{__a=\"1\"} 1",
            "m{__§=\"1\"} 1",
            "§ 1 5",
            "§ 1\n§ 1",
            "m{a=\"§\"} 1\nm{a=\"§\"} 1",
            "# TYPE §",
            "# TYPE m §",
            "# HELP § h\n# HELP § h",
            "# TYPE § gauge\n# TYPE § gauge",
            "# TYPE h histogram\nh_bucket{le=\"§\"} 1",
            "# TYPE § histogram\n§_bucket{le=\"1\"} -1",
        ];
        let long = ["x", "\u{1}", "\u{f8ff}"].map(|character| character.repeat(100_000));
        let rules =
            BodyRules { limits: PushLimits { line_bytes_max: usize::MAX, ..PushLimits::default() }, ..rules(1 << 30) };
        let (mut refused, mut quoted) = (0, 0);
        for (text, long) in texts.iter().flat_map(|text| long.iter().map(move |long| (text, long))) {
            let answer = answer(Headers::default(), format!("{}\n", text.replace('§', long)).as_bytes(), &rules);
            assert!(answer.len() < 10_000, "{text}: {} bytes", answer.len());
            refused += usize::from(answer.contains("400 "));
            quoted += usize::from(answer.contains('…'));
        }
        // Some of the long names are valid.
        assert!(refused >= texts.len() * long.len() - 3 && quoted > refused / 2, "{quoted} of {refused}");
        let protobuf = |content: &[u8]| {
            let headers = Headers { content_type: PROTOBUF, ..Headers::default() };
            answer(headers, content, &rules)
        };
        // A family whose name has 100,000 bytes and is not a legacy name.
        let name = [&b"\x0a\xa0\x8d\x06"[..], &vec![0x01; 100_000]].concat();
        let answer = protobuf(&[&b"\xa4\x8d\x06"[..], &name].concat());
        assert!(answer.contains("\"… has an invalid name") && answer.len() < 10_000, "{} bytes", answer.len());
    }
}
