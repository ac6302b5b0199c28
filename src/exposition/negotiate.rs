//! The format of a scrape, chosen by the Accept header as Pushgateway 1.11 does (`expfmt.Negotiate`).
//!
//! The text format 0.0.4 and protobuf in three encodings are offered. OpenMetrics is not: a scraper that accepts only
//! that, or nothing that is offered, gets text. The parameter `escaping` counts in the chosen clause and in every
//! clause before it; for protobuf, if none of these has it, also in the clauses after it. Prometheus 3 names the
//! escaping only in its text clauses, and supports UTF-8 names in protobuf too. (Pushgateway ignores the later clauses,
//! so that names are lost as soon as native histograms are on.)

use super::name::Escaping;

/// The encoding of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The text format, version 0.0.4.
    #[default]
    Text,
    /// `io.prometheus.client.MetricFamily` messages, each after its length.
    ProtobufDelimited,
    /// The same messages in protobuf's text form.
    ProtobufText,
    /// The same messages in protobuf's text form, one line each.
    ProtobufCompactText,
}

/// The format of a scrape: an encoding, and the escaping of names that are not legacy names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Format {
    /// The encoding.
    pub encoding: Encoding,
    /// The escaping of names.
    pub escaping: Escaping,
}

impl Format {
    /// The Content-Type of the answer.
    pub fn content_type(self) -> String {
        let encoding = match self.encoding {
            Encoding::Text => "text/plain; version=0.0.4; charset=utf-8",
            Encoding::ProtobufDelimited => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Encoding::ProtobufText => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text"
            }
            Encoding::ProtobufCompactText => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=compact-text"
            }
        };
        format!("{encoding}; escaping={}", self.escaping.parameter())
    }
}

/// Chooses a format by the value of the Accept header (`""` if there is none).
pub fn negotiate(accept: &str) -> Format {
    let mut escaping = None;
    let mut clauses = clauses(accept).into_iter();
    let encoding = clauses.by_ref().find_map(|clause| {
        escaping = clause.escaping().or(escaping);
        clause.encoding()
    });
    let encoding = encoding.unwrap_or_default();
    if encoding != Encoding::Text {
        escaping = escaping.or_else(|| clauses.find_map(|clause| clause.escaping()));
    }
    Format { encoding, escaping: escaping.unwrap_or_default() }
}

/// One media range of an Accept header.
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    /// `None` if the text is not a media range.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim().split(';');
        let range = parts.next()?;
        let (main, sub) = match range.split_once('/') {
            Some((main, sub)) => (main.trim(), sub.trim()),
            None => (range.trim(), ""),
        };
        let sub = if main == "*" && sub.is_empty() { "*" } else { sub };
        if sub.is_empty() || sub.contains('/') {
            return None;
        }
        let mut clause = Clause { main, sub, quality: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match (name.trim(), value) {
                (_, value) if value.is_empty() || value.contains('=') => {}
                ("q", value) => clause.quality = value.parse().unwrap_or(0.0),
                (name, value) => clause.parameters.push((name, value.trim())),
            }
        }
        Some(clause)
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().rev().find(|parameter| parameter.0 == name).map(|parameter| parameter.1)
    }

    fn escaping(&self) -> Option<Escaping> {
        self.parameter("escaping").and_then(Escaping::from_parameter)
    }

    fn encoding(&self) -> Option<Encoding> {
        let text_version = matches!(self.parameter("version"), None | Some("" | "0.0.4"));
        match (self.main, self.sub) {
            ("text", "plain") if text_version => Some(Encoding::Text),
            ("application", "vnd.google.protobuf")
                if self.parameter("proto") == Some("io.prometheus.client.MetricFamily") =>
            {
                match self.parameter("encoding")? {
                    "delimited" => Some(Encoding::ProtobufDelimited),
                    "text" => Some(Encoding::ProtobufText),
                    "compact-text" => Some(Encoding::ProtobufCompactText),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether Pushgateway sorts this clause before the other. This is not an order: both of two clauses can go before
    /// the other. The result depends on the sorting algorithm, so [`clauses`] uses Pushgateway's.
    fn goes_before(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }
}

/// The clauses of the header, the preferred one first.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    const CLAUSES_MAX: usize = 100;
    let mut clauses: Vec<Clause> = accept.split(',').take(CLAUSES_MAX).filter_map(Clause::parse).collect();
    for end in 1..clauses.len() {
        let mut at = end;
        while at > 0 && clauses[at].goes_before(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily";

    /// Answers recorded from Pushgateway 1.11.2.
    #[test]
    fn the_header_is_read_as_pushgateway_reads_it() {
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=";
        let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=";
        let cases = [
            ("", format!("{text}underscores")),
            ("*/*", format!("{text}underscores")),
            ("text/plain;version=0.0.4;escaping=allow-utf-8", format!("{text}allow-utf-8")),
            ("text/plain;version=1.0.0;escaping=values", format!("{text}values")),
            ("text/*;escaping=dots", format!("{text}dots")),
            ("foo/bar;escaping=dots", format!("{text}dots")),
            ("foo;escaping=dots", format!("{text}underscores")),
            ("text/plain;escaping=none", format!("{text}underscores")),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                format!("{text}underscores"),
            ),
            (
                &format!("{PROTOBUF};encoding=delimited;q=0.9,*/*;q=0.1"),
                format!("{protobuf}delimited; escaping=underscores"),
            ),
            (
                &format!("{PROTOBUF};encoding=delimited;q=0.1,*/*;q=0.9"),
                format!("{protobuf}delimited; escaping=underscores"),
            ),
            (&format!("text/plain;q=0.5,{PROTOBUF};encoding=text"), format!("{protobuf}text; escaping=underscores")),
            (
                &format!("{PROTOBUF};encoding=compact-text;q=0.5"),
                format!("{protobuf}compact-text; escaping=underscores"),
            ),
            (&format!("{PROTOBUF};encoding=xml"), format!("{text}underscores")),
            (
                &format!("text/plain;version=9;escaping=dots,{PROTOBUF};encoding=delimited;q=0.5"),
                format!("{protobuf}delimited; escaping=dots"),
            ),
            // Blanks around a clause are dropped; blanks before the next parameter make a quality invalid.
            (&format!("text/plain;q=0.5 , {PROTOBUF};encoding=text;q=0.4"), format!("{text}underscores")),
            (
                &format!("text/plain;q=0.5 ;a=b, {PROTOBUF};encoding=text;q=0.4"),
                format!("{protobuf}text; escaping=underscores"),
            ),
        ];
        for (accept, content_type) in cases {
            assert_eq!(negotiate(accept).content_type(), content_type, "{accept}");
        }
    }

    /// Prometheus 3 and 2.x with native histograms: their protobuf clause never names the escaping.
    #[test]
    fn protobuf_without_an_escaping_takes_that_of_the_other_clauses() {
        let negotiated = |accept: &str| {
            let format = negotiate(accept);
            (format.encoding, format.escaping)
        };
        let prometheus = |escaping: &str| {
            format!(
                "{PROTOBUF};encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0{escaping};q=0.5,\
                 text/plain;version=1.0.0{escaping};q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            )
        };
        let delimited = |escaping| (Encoding::ProtobufDelimited, escaping);
        assert_eq!(negotiated(&prometheus(";escaping=allow-utf-8")), delimited(Escaping::AllowUtf8));
        assert_eq!(negotiated(&prometheus(";escaping=values")), delimited(Escaping::Values));
        assert_eq!(negotiated(&prometheus("")), delimited(Escaping::Underscores));
        let own = format!("{PROTOBUF};encoding=delimited;escaping=dots,text/plain;escaping=values;q=0.5");
        assert_eq!(negotiated(&own), delimited(Escaping::Dots));
        let unknown =
            format!("{PROTOBUF};encoding=delimited;escaping=x,*/*;escaping=y;q=0.5,text/plain;escaping=dots;q=0.1");
        assert_eq!(negotiated(&unknown), delimited(Escaping::Dots));
        let text = "text/plain;version=0.0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5";
        assert_eq!(negotiated(text), (Encoding::Text, Escaping::Underscores), "text stays as in Pushgateway");
    }
}
