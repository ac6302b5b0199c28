//! The format of a body: its headers, and the Content-Type header as far as it decides between formats. The header is read
//! as Go's `mime.ParseMediaType` does: a malformed parameter, or one with two different values, makes the whole header
//! invalid.

/// The headers that describe a body: the first of each name, empty if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Content-Type.
    pub content_type: &'a str,
    /// Content-Encoding.
    pub content_encoding: &'a str,
}

/// Whether the header is `application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily;
/// encoding=delimited`. Anything else, or nothing, means text.
pub(super) fn is_delimited_protobuf(header: &str) -> bool {
    let (media_type, parameters) = match header.find(';') {
        Some(at) => header.split_at(at),
        None => (header, ""),
    };
    media_type.trim().eq_ignore_ascii_case("application/vnd.google.protobuf")
        && says(parameters, &[("proto", "io.prometheus.client.MetricFamily"), ("encoding", "delimited")])
}

/// Whether the header is `application/openmetrics-text`, with any parameters.
pub(super) fn is_openmetrics(header: &str) -> bool {
    is_media_type(header, "application/openmetrics-text")
}

/// Whether the header is that media type, with any parameters.
pub(super) fn is_media_type(header: &str, media_type: &str) -> bool {
    let given = header.split(';').next().unwrap_or_default();
    given.trim().eq_ignore_ascii_case(media_type)
}

/// Whether the last line is `# EOF`, which ends every OpenMetrics text.
pub(super) fn ends_with_eof(plain: &[u8]) -> bool {
    let text = plain.strip_suffix(b"\n").unwrap_or(plain);
    text.strip_suffix(b"# EOF").is_some_and(|before| before.is_empty() || before.ends_with(b"\n"))
}

/// Whether the parameters are well-formed and have the wanted values.
fn says(parameters: &str, wanted: &[(&str, &str)]) -> bool {
    let mut found: Vec<Option<String>> = vec![None; wanted.len()];
    let mut rest = parameters.trim_start();
    while !rest.is_empty() {
        let Some((name, value, after)) = parameter(rest) else {
            // A trailing semicolon is allowed.
            if rest.trim() == ";" {
                break;
            }
            return false;
        };
        rest = after.trim_start();
        let Some(at) = wanted.iter().position(|(wanted, _)| name.eq_ignore_ascii_case(wanted)) else { continue };
        match &found[at] {
            Some(before) if *before != value => return false,
            _ => found[at] = Some(value),
        }
    }
    found.iter().zip(wanted).all(|(found, (_, value))| found.as_deref() == Some(*value))
}

/// Reads `; name = value`, and returns the text after it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start())?;
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted_string(quoted)?,
        None => token(rest).map(|(value, rest)| (value.to_owned(), rest))?,
    };
    Some((name, value, rest))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let of_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    let end = text.find(|c| !of_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Reads the rest of a quoted string, after its opening quote. As in Go, a backslash escapes only punctuation, so that
/// Windows paths keep theirs.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\r' | '\n' => return None,
            '\\' => match chars.next_if(|(_, next)| next.is_ascii_graphic() && !next.is_ascii_alphanumeric()) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::is_delimited_protobuf;

    /// Recorded from Pushgateway by pushing a delimited body with each header.
    #[test]
    fn content_types_are_read_as_pushgateway_reads_them() {
        let typed = |parameters: &str| is_delimited_protobuf(&format!("application/vnd.google.protobuf{parameters}"));
        let proto = "; proto=io.prometheus.client.MetricFamily; encoding=";
        assert!(typed(&format!("{proto}delimited")));
        assert!(typed(&format!("{proto}delimited;")));
        assert!(typed(&format!("{proto}delimited; encoding=delimited")));
        assert!(typed("; proto = io.prometheus.client.MetricFamily ; encoding = delimited "));
        assert!(typed("; charset=\"a;b\"; proto=io.prometheus.client.MetricFamily; encoding=\"delimited\""));
        assert!(is_delimited_protobuf(
            "APPLICATION/vnd.google.protobuf;PROTO=io.prometheus.client.MetricFamily;encoding=\"delimited\""
        ));
        for bad in
            ["DELIMITED", "delimited; ;", "delimited; x", "delimited; encoding=text", "\"delimited", "\"deli\\mited\""]
        {
            assert!(!typed(&format!("{proto}{bad}")), "{bad}");
        }
        assert!(!typed("; version=; proto=io.prometheus.client.MetricFamily; encoding=delimited"));
        assert!(!typed(", x; proto=io.prometheus.client.MetricFamily; encoding=delimited"));
        assert!(!typed(""));
        for other in ["", ";", "; proto=io.prometheus.client.MetricFamily; encoding=delimited", "text/plain", "é;é=é"]
        {
            assert!(!is_delimited_protobuf(other), "{other}");
        }
    }
}
