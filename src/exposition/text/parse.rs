//! Reads the text format exactly as prometheus/common's `expfmt.TextParser` does.
//!
//! A line is blank, a comment, or a sample:
//!
//! ```text
//! line    = blanks [ comment | sample ] LF          every line ends in LF, the last one too
//! comment = "#" blanks [ "HELP" blanks name [ blank blanks help ] | "TYPE" blanks name [ blank blanks type ] | other ]
//! sample  = ( name blanks [ labels ] | labels ) blanks value [ blank blanks timestamp ]
//! labels  = "{" blanks [ label { "," blanks label } [ "," ] ] "}"       blanks are allowed around every token
//! label   = name "=" quoted | name                  the latter once, and only where no name stands before the brace
//! ```
//!
//! Names are bare or quoted. The escapes in names, label values and help are `\\`, `\"` and `\n`. Types are read in
//! upper or lower case, numbers by [`number::parse`]. Samples of summaries and histograms are joined by their labels,
//! wherever they are ([`super::collect`]).
//!
//! If a line has no name at all (`{} 1`), Pushgateway drops the connection, or mixes the line up with the sample before
//! it. Here it is an error, except that a push is refused where Pushgateway refuses it because of such a line.

use std::borrow::Cow;

use super::collect::{Collector, QuantileOrBound};
use super::cursor::{NameKind, TextCursor, Token, quoted};
use super::error::TextError;
use crate::exposition::raw::{PushRefusal, RawFamily, RawLabel};
use crate::exposition::{Limit, NameValidation, PushLimits, TimestampRule, number};
use crate::model::{MetricType, truncated, truncated_lossy};

/// Reads a body. The families are in the order in which they are first named, each name once, none without metrics.
///
/// Help that is not UTF-8 is read with replacement characters, as Pushgateway's query API shows it.
///
/// # Errors
///
/// Returns an error if a line is malformed or a bound of `limits` is crossed.
pub fn parse<'a>(body: &'a [u8], names: NameValidation, limits: &PushLimits) -> Result<Vec<RawFamily<'a>>, TextError> {
    let mut parser = TextParser {
        cursor: TextCursor::new(body),
        names,
        limits,
        collector: Collector::default(),
        labels: Vec::new(),
        mark: None,
    };
    while parser.line()? {}
    Ok(parser.collector.finish())
}

struct TextParser<'a, 'l> {
    cursor: TextCursor<'a>,
    names: NameValidation,
    limits: &'l PushLimits,
    collector: Collector<'a>,
    /// The labels of the current line, without the label in `mark`.
    labels: Vec<RawLabel<'a>>,
    /// `quantile` in a summary or `le` in a histogram, and its value.
    mark: Option<QuantileOrBound>,
}

/// The position of the metric's name in a sample's line.
#[derive(PartialEq, Eq)]
enum Naming {
    /// Before the braces, or without any.
    Before,
    /// Between the braces, first or later.
    Inside,
    /// There is none, or none so far.
    None,
}

impl<'a> TextParser<'a, '_> {
    /// Reads a line; `false` at the end of the body.
    fn line(&mut self) -> Result<bool, TextError> {
        self.cursor.skip_blanks_or_end();
        if self.cursor.is_at_end() {
            return Ok(false);
        }
        match self.cursor.byte()? {
            b'\n' => {}
            b'#' => self.comment()?,
            _ => self.sample()?,
        }
        let line = self.cursor.line();
        let limit = |limit| Err(TextError::Limit { line, limit });
        if self.cursor.next_line() > self.limits.line_bytes_max {
            return limit(Limit::LineBytes(self.limits.line_bytes_max));
        }
        if self.collector.series_len() > self.limits.series_max {
            return limit(Limit::Series(self.limits.series_max));
        }
        if self.collector.families_len() > self.limits.families_max {
            return limit(Limit::Families(self.limits.families_max));
        }
        Ok(true)
    }

    /// Reads a comment, up to its line feed.
    fn comment(&mut self) -> Result<(), TextError> {
        self.cursor.advance();
        self.cursor.skip_blanks()?;
        let keyword = self.cursor.until_white()?;
        if !matches!(keyword, b"HELP" | b"TYPE") {
            return self.cursor.until_line_feed().map(|_| ());
        }
        if self.cursor.skip_blanks()? == b'\n' {
            return Ok(());
        }
        let name = self.cursor.name(NameKind::Metric)?;
        match self.cursor.byte()? {
            b'\n' => return Ok(()),
            b' ' | b'\t' => {}
            _ => return Err(self.cursor.error("invalid metric name in comment".into())),
        }
        self.select(name)?;
        if self.cursor.skip_blanks()? == b'\n' {
            return Ok(());
        }
        let rest = self.cursor.until_line_feed()?;
        if keyword == b"HELP" { self.help(rest) } else { self.metric_type(rest) }
    }

    fn help(&mut self, escaped: &'a [u8]) -> Result<(), TextError> {
        let help = unescape_help(escaped).map_err(|problem| self.cursor.error(problem))?;
        let help = match help {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        };
        let taken = self.collector.set_help(help);
        taken.map_err(|name| self.cursor.error(format!("second HELP line for metric name {:?}", truncated(&name))))
    }

    fn metric_type(&mut self, token: &[u8]) -> Result<(), TextError> {
        let metric_type = self.parse_type(token)?;
        self.collector.set_type(metric_type).map_err(|name| {
            let name = truncated(&name);
            self.cursor.error(format!("second TYPE line for metric name {name:?}, or TYPE reported after samples"))
        })
    }

    /// Reads the type of a TYPE line. As in Pushgateway, backslashes in it are dropped.
    fn parse_type(&self, token: &[u8]) -> Result<MetricType, TextError> {
        let bytes: Vec<u8> = token.iter().copied().filter(|&byte| byte != b'\\').collect();
        let name = String::from_utf8_lossy(&bytes);
        match &*name.to_uppercase() {
            "COUNTER" => Ok(MetricType::Counter),
            "GAUGE" => Ok(MetricType::Gauge),
            "SUMMARY" => Ok(MetricType::Summary),
            "UNTYPED" => Ok(MetricType::Untyped),
            "HISTOGRAM" => Ok(MetricType::Histogram),
            "GAUGE_HISTOGRAM" | "GAUGEHISTOGRAM" => Ok(MetricType::GaugeHistogram),
            _ => Err(self.cursor.error(format!("unknown metric type {:?}", truncated(&name)))),
        }
    }

    /// Selects the family of a name.
    fn select(&mut self, name: Token<'a>) -> Result<(), TextError> {
        match name {
            Ok(name) if self.collector.is_selected(&name) => Ok(()),
            Ok(name) if self.names.allows_metric(&name) => {
                self.collector.select(name);
                Ok(())
            }
            invalid => Err(self.cursor.error(format!("invalid metric name {:?}", quoted(&invalid)))),
        }
    }

    /// Reads a sample, up to its line feed.
    fn sample(&mut self) -> Result<(), TextError> {
        self.labels.clear();
        self.mark = None;
        let mut naming = Naming::None;
        if self.cursor.byte()? != b'{' {
            let name = self.cursor.name(NameKind::Metric)?;
            if name.as_deref() == Ok("") {
                return Err(self.cursor.error("invalid metric name".into()));
            }
            self.select(name)?;
            naming = Naming::Before;
            self.cursor.skip_blanks()?;
        }
        if self.cursor.byte()? == b'{' {
            naming = self.labels(naming)?;
            self.cursor.skip_blanks()?;
        }
        let token = self.cursor.until_white()?;
        let Some(value) = number::parse(token) else {
            let token = truncated_lossy(token);
            return Err(self.cursor.error(format!("expected float as value, got {token:?}")));
        };
        let recorded = match naming {
            Naming::None => self.collector.record_nameless(&self.labels, self.mark, value),
            _ => self.collector.record(&mut self.labels, self.mark, value),
        };
        recorded.map_err(|problem| self.cursor.error(problem))?;
        if self.cursor.byte()? == b'\n' { Ok(()) } else { self.timestamp() }
    }

    fn timestamp(&mut self) -> Result<(), TextError> {
        self.cursor.skip_blanks()?;
        let token = self.cursor.until_white()?;
        if std::str::from_utf8(token).ok().and_then(|token| token.parse::<i64>().ok()).is_none() {
            let token = truncated_lossy(token);
            return Err(self.cursor.error(format!("expected integer as timestamp, got {token:?}")));
        }
        let rest = self.cursor.until_line_feed()?;
        if !rest.is_empty() {
            let rest = truncated_lossy(rest);
            return Err(self.cursor.error(format!("spurious string after timestamp: {rest:?}")));
        }
        if self.limits.timestamps == TimestampRule::Refuse {
            self.collector.refuse(PushRefusal::Timestamp);
        }
        Ok(())
    }

    /// Reads the labels, from the opening to past the closing brace.
    fn labels(&mut self, before: Naming) -> Result<Naming, TextError> {
        let inside_allowed = before == Naming::None;
        let mut naming = before;
        loop {
            self.cursor.advance();
            if self.cursor.skip_blanks()? == b'}' {
                break;
            }
            let name = self.cursor.name(NameKind::Label)?;
            if name.as_deref() == Ok("") {
                let family = truncated(self.collector.selected_name());
                return Err(self.cursor.error(format!("invalid label name for metric {family:?}")));
            }
            if self.cursor.skip_blanks()? == b'=' {
                self.label(name)?;
            } else if inside_allowed {
                self.name_inside(name, &naming)?;
                naming = Naming::Inside;
            } else {
                let found = char::from(self.cursor.byte()?);
                return Err(self.cursor.error(format!("expected '=' after label name, found {found:?}")));
            }
            if self.cursor.byte()? == b'}' {
                break;
            }
        }
        self.cursor.advance();
        self.check_labels()?;
        Ok(naming)
    }

    /// Handles a metric's name between the braces; the cursor is after it.
    fn name_inside(&mut self, name: Token<'a>, naming: &Naming) -> Result<(), TextError> {
        if *naming == Naming::Inside {
            let family = truncated(self.collector.selected_name());
            return Err(self.cursor.error(format!("multiple metric names for metric {family:?}")));
        }
        let found = self.cursor.byte()?;
        if !matches!(found, b',' | b'}') {
            return Err(self.cursor.error(format!("unexpected end of metric name {:?}", char::from(found))));
        }
        self.select(name)
    }

    /// Reads a label's value, from the `=` at the cursor to the comma or brace after the value. If the label precedes
    /// the metric's name, the family of the line before decides whether it is a quantile or bound, as in Pushgateway.
    fn label(&mut self, name: Token<'a>) -> Result<(), TextError> {
        let name = match name {
            Ok(name) if name == "__name__" => {
                return Err(self.cursor.error("label name \"__name__\" is reserved".into()));
            }
            Ok(name) if self.names.allows_label(&name) => name,
            invalid => return Err(self.cursor.error(format!("invalid label name {:?}", quoted(&invalid)))),
        };
        self.cursor.advance();
        let found = self.cursor.skip_blanks()?;
        if found != b'"' {
            let found = char::from(found);
            return Err(self.cursor.error(format!("expected '\"' at start of label value, found {found:?}")));
        }
        let value = self.cursor.label_value()?;
        let value = match value {
            Ok(value) => value,
            invalid => return Err(self.cursor.error(format!("invalid label value {:?}", quoted(&invalid)))),
        };
        let found = self.cursor.skip_blanks()?;
        if !matches!(found, b',' | b'}') {
            return Err(self.cursor.error(format!("unexpected end of label value {:?}", truncated(&value))));
        }
        let Some(special) = self.collector.type_label().filter(|special| *special == name) else {
            let max = self.limits.labels_per_series_max;
            if self.labels.len() == max {
                return Err(TextError::Limit { line: self.cursor.line(), limit: Limit::LabelsPerSeries(max) });
            }
            self.labels.push(RawLabel { name, value });
            return Ok(());
        };
        let Some(mark) = number::parse(value.as_bytes()) else {
            let value = truncated(&value);
            return Err(self.cursor.error(format!("expected float as value for '{name}' label, got {value:?}")));
        };
        self.mark = Some((special, mark));
        Ok(())
    }

    /// Checks that no label is given twice.
    fn check_labels(&self) -> Result<(), TextError> {
        if self.labels.is_sorted_by(|a, b| a.name < b.name) {
            return Ok(());
        }
        let mut names: Vec<&str> = self.labels.iter().map(|label| &*label.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            let family = truncated(self.collector.selected_name());
            return Err(self.cursor.error(format!("duplicate label names for metric {family:?}")));
        }
        Ok(())
    }
}

/// Decodes the escapes in a HELP line.
fn unescape_help(escaped: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !escaped.contains(&b'\\') {
        return Ok(Cow::Borrowed(escaped));
    }
    let mut help = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            help.push(byte);
            continue;
        }
        match bytes.next().copied().unwrap_or(b'\n') {
            b'n' => help.push(b'\n'),
            same @ (b'\\' | b'"') => help.push(same),
            other => return Err(format!("invalid escape sequence '\\{}'", char::from(other))),
        }
    }
    Ok(Cow::Owned(help))
}
