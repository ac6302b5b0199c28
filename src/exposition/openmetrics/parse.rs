//! The lines of a body, from the first family to `# EOF`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::error::{LineFault, OpenMetricsError};
use super::family::{OpenFamily, OpenMetricsType};
use super::line::{LineReader, unescaped};
use crate::exposition::raw::RawFamily;
use crate::exposition::{Limit, NameValidation, PushLimits, TimestampRule};
use crate::model::truncated;

/// Reads a body. The families are in their order, each name once, none without series.
///
/// # Errors
///
/// Returns an error if a line is malformed, contradicts other lines, or crosses a bound of `limits`.
pub fn parse<'a>(
    body: &'a [u8],
    names: NameValidation,
    limits: &PushLimits,
) -> Result<Vec<RawFamily<'a>>, OpenMetricsError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let line = 1 + body[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        LineFault::Syntax("the text is not UTF-8".into()).at(line)
    })?;
    let mut parser = OpenMetricsParser {
        names,
        limits,
        family: None,
        family_line: 0,
        families: Vec::new(),
        owners: HashMap::new(),
        families_len: 0,
        series_len: 0,
    };
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n').zip(1..);
    let mut last = 1;
    for (line, number) in lines.by_ref() {
        last = number;
        if line == "# EOF" {
            parser.finish_family()?;
            return match lines.next() {
                Some((_, after)) => {
                    Err(LineFault::Syntax("a line follows # EOF, which ends the text".into()).at(after))
                }
                None => Ok(parser.families),
            };
        }
        parser.line(line, number)?;
    }
    Err(LineFault::Syntax("the text has no last line # EOF".into()).at(last))
}

struct OpenMetricsParser<'a, 'l> {
    names: NameValidation,
    limits: &'l PushLimits,
    /// The family that is being read, and its last line.
    family: Option<OpenFamily<'a>>,
    family_line: usize,
    families: Vec<RawFamily<'a>>,
    /// The families that use a name, by the name.
    owners: HashMap<String, usize>,
    /// The number of all families, those without series too.
    families_len: usize,
    series_len: usize,
}

impl<'a> OpenMetricsParser<'a, '_> {
    fn line(&mut self, line: &'a str, number: usize) -> Result<(), OpenMetricsError> {
        let at = |fault: LineFault| fault.at(number);
        if line.len() > self.limits.line_bytes_max {
            return Err(at(Limit::LineBytes(self.limits.line_bytes_max).into()));
        }
        if line.is_empty() {
            return Err(at(LineFault::Syntax("the line is empty".into())));
        }
        let mut reader = LineReader::new(line);
        if !reader.eat("#") {
            let sample = reader.sample(self.names, self.limits.labels_per_series_max).map_err(at)?;
            match &self.family {
                Some(family) if family.has_sample(&sample.name) => {}
                Some(family) if family.name == sample.name => return Err(at(family.misnamed())),
                _ => self.begin_family(sample.name.clone(), number)?,
            }
            self.family_line = number;
            let is_refused = self.limits.timestamps == TimestampRule::Refuse;
            let Some(family) = &mut self.family else { return Ok(()) };
            self.series_len += family.add(sample, is_refused).map_err(at)?;
            return self.check_series_len(number);
        }
        let keyword = ["HELP", "TYPE", "UNIT"].into_iter().find(|keyword| reader.eat(&format!(" {keyword} ")));
        let Some(keyword) = keyword else {
            let problem = format!("expected HELP, TYPE, UNIT or EOF after '#', got {:?}", truncated(reader.rest()));
            return Err(at(LineFault::Syntax(problem)));
        };
        let name = reader.metric_name(self.names).map_err(at)?;
        reader.blank("the metric's name").map_err(at)?;
        if self.family.as_ref().is_none_or(|family| family.name != name) {
            self.begin_family(name, number)?;
        }
        self.family_line = number;
        let Some(family) = &mut self.family else { return Ok(()) };
        metadata(family, keyword, reader.rest()).map_err(at)
    }

    fn check_series_len(&self, line: usize) -> Result<(), OpenMetricsError> {
        let max = self.limits.series_max;
        if self.series_len > max { Err(OpenMetricsError::Limit { line, limit: Limit::Series(max) }) } else { Ok(()) }
    }

    fn begin_family(&mut self, name: Cow<'a, str>, line: usize) -> Result<(), OpenMetricsError> {
        self.finish_family()?;
        self.families_len += 1;
        if self.families_len > self.limits.families_max {
            return Err(LineFault::from(Limit::Families(self.limits.families_max)).at(line));
        }
        self.family = Some(OpenFamily::new(name));
        self.family_line = line;
        Ok(())
    }

    /// Ends the family that is being read.
    fn finish_family(&mut self) -> Result<(), OpenMetricsError> {
        let (Some(mut family), line) = (self.family.take(), self.family_line) else { return Ok(()) };
        for name in family.reserved_names() {
            if let Some(other) = self.owners.insert(name, line) {
                let problem = format!("uses a name of the family that ends in line {other}; each name is used once");
                return Err(family.fault(&problem).at(line));
            }
        }
        self.series_len += family.finish_series().map_err(|fault| fault.at(line))?;
        self.check_series_len(line)?;
        self.families.extend(family.finish().map_err(|fault| fault.at(line))?);
        Ok(())
    }
}

fn metadata<'a>(family: &mut OpenFamily<'a>, keyword: &str, text: &'a str) -> Result<(), LineFault> {
    if family.has_samples() {
        return Err(family.fault(&format!("has {keyword} after its samples")));
    }
    let is_repeated = match keyword {
        "HELP" => family.help.replace(unescaped(text)).is_some(),
        "UNIT" => family.unit.replace(text).is_some(),
        _ => {
            let Some(metric_type) = OpenMetricsType::of_name(text) else {
                return Err(LineFault::Syntax(format!("unknown metric type {:?}", truncated(text))));
            };
            family.metric_type.replace(metric_type).is_some()
        }
    };
    if is_repeated { Err(family.fault(&format!("has {keyword} twice"))) } else { Ok(()) }
}
