//! The parts of one line.

use std::borrow::Cow;

use super::error::LineFault;
use crate::exposition::protobuf::message::{Exemplar, LabelPair, Timestamp};
use crate::exposition::raw::RawLabel;
use crate::exposition::{Limit, NameValidation, number};
use crate::model::truncated;

/// Characters of all names and values of an exemplar's labels together, at most.
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

/// The seconds of the years 1 to 9999, which a protobuf timestamp can express.
const SECONDS: std::ops::RangeInclusive<f64> = -62_135_596_800.0..=253_402_300_799.0;

/// One sample's line.
#[derive(Debug)]
pub(super) struct SampleLine<'a> {
    pub name: Cow<'a, str>,
    /// Sorted by name, each name once.
    pub labels: Vec<RawLabel<'a>>,
    pub value: f64,
    pub has_timestamp: bool,
    pub exemplar: Option<Exemplar>,
}

/// The rest of a line.
pub(super) struct LineReader<'a>(&'a str);

impl<'a> LineReader<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self(line)
    }

    /// The part that is not read yet.
    pub(super) fn rest(&self) -> &'a str {
        self.0
    }

    /// Reads `text` if it is next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Reads the blank after `what`.
    pub(super) fn blank(&mut self, what: &str) -> Result<(), LineFault> {
        if self.eat(" ") { Ok(()) } else { Err(self.unexpected(&format!("one blank after {what}"))) }
    }

    fn unexpected(&self, expected: &str) -> LineFault {
        if self.0.is_empty() {
            return LineFault::Syntax(format!("expected {expected}, but the line ends"));
        }
        LineFault::Syntax(format!("expected {expected}, got {:?}", truncated(self.0)))
    }

    /// Reads a metric's name, bare or quoted.
    pub(super) fn metric_name(&mut self, names: NameValidation) -> Result<Cow<'a, str>, LineFault> {
        let name = if self.0.starts_with('"') { self.quoted()? } else { Cow::Borrowed(self.bare(true)) };
        checked_metric_name(name, names)
    }

    /// Reads the longest bare name; empty if none begins here.
    fn bare(&mut self, colons: bool) -> &'a str {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
        let end = self.0.find(|c| !is_name(c)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(if self.0.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { end });
        self.0 = rest;
        name
    }

    /// Reads a text between quotes, the first of which is next.
    fn quoted(&mut self) -> Result<Cow<'a, str>, LineFault> {
        let text = &self.0[1..];
        let mut is_escaped = false;
        let end = text.bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else {
            return Err(LineFault::Syntax(format!("the quote before {:?} is not closed", truncated(text))));
        };
        self.0 = &text[end + 1..];
        Ok(unescaped(&text[..end]))
    }

    /// Reads a number up to the next blank or the end.
    fn number(&mut self, what: &str) -> Result<f64, LineFault> {
        let (token, rest) = self.0.split_at(self.0.find(' ').unwrap_or(self.0.len()));
        self.0 = rest;
        number::parse(token.as_bytes())
            .ok_or_else(|| LineFault::Syntax(format!("expected a number as {what}, got {:?}", truncated(token))))
    }

    /// Reads a time in seconds up to the next blank or the end.
    fn timestamp(&mut self) -> Result<Timestamp, LineFault> {
        timestamp(self.number("timestamp")?)
    }

    /// Reads the labels of a metric or exemplar, whose opening brace is read. A name of the metric among them goes to
    /// `name`, unless there is one already.
    fn labels(
        &mut self,
        names: NameValidation,
        labels_max: usize,
        name: &mut Option<Cow<'a, str>>,
    ) -> Result<Vec<RawLabel<'a>>, LineFault> {
        let mut labels: Vec<RawLabel> = Vec::new();
        let mut is_first = true;
        while !(is_first && self.eat("}")) {
            let is_quoted = self.0.starts_with('"');
            let label = if is_quoted { self.quoted()? } else { Cow::Borrowed(self.bare(false)) };
            if is_quoted && is_first && name.is_none() && !self.0.starts_with('=') {
                *name = Some(checked_metric_name(label, names)?);
            } else {
                if !names.allows_label(&label) {
                    return Err(LineFault::Syntax(format!("invalid label name {:?}", truncated(&label))));
                }
                if !self.eat("=") {
                    return Err(self.unexpected(&format!("'=' after the label name {:?}", truncated(&label))));
                }
                if !self.0.starts_with('"') {
                    return Err(self.unexpected(&format!("a quote before the value of {:?}", truncated(&label))));
                }
                if labels.len() == labels_max {
                    return Err(Limit::LabelsPerSeries(labels_max).into());
                }
                labels.push(RawLabel { name: label, value: self.quoted()? });
            }
            is_first = false;
            if self.eat("}") {
                break;
            }
            if !self.eat(",") {
                return Err(self.unexpected("',' or '}' after a label"));
            }
        }
        labels.sort();
        match labels.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(LineFault::Syntax(format!("the label {:?} is given twice", truncated(&pair[0].name)))),
            None => Ok(labels),
        }
    }

    /// Reads a whole sample.
    pub(super) fn sample(mut self, names: NameValidation, labels_max: usize) -> Result<SampleLine<'a>, LineFault> {
        let mut name = if self.0.starts_with('{') { None } else { Some(self.metric_name(names)?) };
        let labels = if self.eat("{") { self.labels(names, labels_max, &mut name)? } else { Vec::new() };
        let Some(name) = name else { return Err(LineFault::Syntax("the sample has no metric name".into())) };
        self.blank("the metric's name and labels")?;
        let value = self.number("value")?;
        let mut sample = SampleLine { name, labels, value, has_timestamp: false, exemplar: None };
        if !self.0.is_empty() && !self.0.starts_with(" # ") {
            self.blank("the value")?;
            self.timestamp()?;
            sample.has_timestamp = true;
        }
        if self.eat(" # ") {
            sample.exemplar = Some(self.exemplar(names, labels_max)?);
        }
        if self.0.is_empty() { Ok(sample) } else { Err(self.unexpected("the end of the line")) }
    }

    fn exemplar(&mut self, names: NameValidation, labels_max: usize) -> Result<Exemplar, LineFault> {
        if !self.eat("{") {
            return Err(self.unexpected("the labels of an exemplar after '#'"));
        }
        // An exemplar has no name.
        let labels = self.labels(names, labels_max, &mut Some(Cow::Borrowed("")))?;
        let characters: usize =
            labels.iter().map(|label| label.name.chars().count() + label.value.chars().count()).sum();
        if characters > EXEMPLAR_CHARACTERS_MAX {
            let max = EXEMPLAR_CHARACTERS_MAX;
            return Err(LineFault::Syntax(format!(
                "the labels of the exemplar have {characters} characters, more than {max}"
            )));
        }
        self.blank("the labels of the exemplar")?;
        let value = self.number("value of the exemplar")?;
        let timestamp = if self.0.is_empty() { None } else { Some(()) };
        let timestamp = timestamp
            .map(|()| {
                self.blank("the value of the exemplar")?;
                self.timestamp()
            })
            .transpose()?;
        let bytes = |text: Cow<str>| Some(text.into_owned().into_bytes());
        let label =
            labels.into_iter().map(|label| LabelPair { name: bytes(label.name), value: bytes(label.value) }).collect();
        Ok(Exemplar { label, value: Some(value), timestamp })
    }
}

fn checked_metric_name(name: Cow<'_, str>, names: NameValidation) -> Result<Cow<'_, str>, LineFault> {
    if names.allows_metric(&name) {
        Ok(name)
    } else {
        Err(LineFault::Syntax(format!("invalid metric name {:?}", truncated(&name))))
    }
}

/// A time in seconds since the Unix epoch.
pub(super) fn timestamp(time_seconds: f64) -> Result<Timestamp, LineFault> {
    if !SECONDS.contains(&time_seconds) {
        return Err(LineFault::Syntax(format!("{time_seconds} is not a time in seconds since 1970")));
    }
    let (whole, nanos) = (time_seconds.floor(), ((time_seconds - time_seconds.floor()) * 1e9).round());
    let carry = nanos >= 1e9;
    Ok(Timestamp { seconds: whole as i64 + i64::from(carry), nanos: if carry { 0 } else { nanos as i32 } })
}

/// Decodes the escapes `\\`, `\"` and `\n`. Another character after a backslash stays, with the backslash.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some(same @ ('\\' | '"'))) => plain.push(same),
            (c, after) => {
                plain.push(c);
                plain.extend(after);
            }
        }
    }
    Cow::Owned(plain)
}
