//! Reads a body that repeats the series of its group: only values are built.
//!
//! A pusher mostly pushes the same series again with other values. So the body is compared line by line with the
//! schemas of the group's current families: names and labels are compared in place, and only the values are read. The
//! result is that of [`text::parse`](crate::exposition::text::parse) and
//! [`RawFamily::family`](crate::exposition::RawFamily::family), but shares the schemas of the current families.
//!
//! Only the style of client libraries is understood: each family in one piece, its HELP and TYPE before its samples,
//! one blank between the tokens of a line, no quoted names, no escapes in a help, no timestamps, the parts of a summary
//! or histogram together. Series may be in any order. Any other body, erroneous ones included, is left to the parser:
//! the result is `None`.

use super::line_schema::Samples;
use super::template::{BODY_BYTES_MAX, FAMILIES_MAX, Template, Templates, first_name};
use crate::exposition::PushLimits;
use crate::model::label::LabelSet;
use crate::model::{Family, Group, MetricType, Schema, Values};

/// Reads bodies that repeat the series of their groups. The result depends only on the body, the group's current
/// families, its labels, and the bounds; templates of earlier bodies make it faster.
#[derive(Debug)]
pub struct SameSeriesReader {
    limits: PushLimits,
    templates: Templates,
}

impl SameSeriesReader {
    /// A reader for bodies within these bounds.
    pub fn new(limits: PushLimits) -> Self {
        Self { limits, templates: Templates::default() }
    }

    /// Reads a body pushed to the group with the labels `grouping`, whose state is `current`; `None` if it has to be
    /// parsed. The families are sorted by name.
    pub fn parse(&self, body: &[u8], current: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let Some(templates) = self.templates(body, current) else {
            return Some(self.walk(body, current, grouping, false)?.families());
        };
        templates.read(body, current, grouping).or_else(|| {
            let walk = self.walk(body, current, grouping, true)?;
            let template = Template::new(body, walk.samples.numbers(), &walk.order, current, grouping);
            templates.insert(template, body, current, grouping);
            Some(walk.families())
        })
    }

    /// The templates, if the body may be read by one: body and group are small, and no line can be too long.
    fn templates(&self, body: &[u8], current: &Group) -> Option<&Templates> {
        let is_small = body.len() <= BODY_BYTES_MAX.min(self.limits.line_bytes_max);
        (is_small && current.families().len() <= FAMILIES_MAX).then_some(&self.templates)
    }

    fn walk<'a>(
        &self,
        body: &'a [u8],
        current: &'a Group,
        grouping: &'a LabelSet,
        numbers_noted: bool,
    ) -> Option<BodyWalk<'a>> {
        let samples = Samples::new(body, grouping, self.limits, numbers_noted);
        let len = current.families().len();
        let mut walk = BodyWalk {
            samples,
            current,
            grouping,
            families_read: vec![None; len],
            order: Vec::with_capacity(len),
            next: 0,
        };
        let mut series_len = 0;
        while walk.samples.skip_empty_lines() {
            let at = walk.family()?;
            series_len += current.families()[at].family.schema().series_len();
        }
        let within = series_len <= self.limits.series_max && walk.order.len() <= self.limits.families_max;
        within.then_some(walk)
    }
}

struct BodyWalk<'a> {
    samples: Samples<'a>,
    current: &'a Group,
    grouping: &'a LabelSet,
    /// The families read so far, each at the index of the current family of that name.
    families_read: Vec<Option<Family>>,
    /// For each family, in the order of the body: its index among the current families, and the count of numbers noted
    /// after it.
    order: Vec<(usize, usize)>,
    /// The index of the family that is expected next.
    next: usize,
}

impl<'a> BodyWalk<'a> {
    /// The families of the body, sorted by name.
    fn families(self) -> Vec<Family> {
        self.families_read.into_iter().flatten().collect()
    }

    /// Reads a family: HELP, TYPE, and all of its samples. Returns its index.
    fn family(&mut self) -> Option<usize> {
        let at = self.named()?;
        if self.families_read[at].is_some() {
            return None;
        }
        self.next = at + 1;
        let schema = self.current.families()[at].family.schema();
        if !self.is_plain(schema) {
            return None;
        }
        self.head(schema)?;
        let mut values = Values::zeros(schema.values_len());
        self.samples.read(schema, values.make_mut())?;
        self.families_read[at] = Some(Family::new(schema.clone(), values, None)?);
        self.order.push((at, self.samples.numbers().len()));
        Some(at)
    }

    /// The index of the family that the current line names.
    fn named(&self) -> Option<usize> {
        let name = first_name(self.samples.rest())?;
        let families = self.current.families();
        let is = |at: &usize| families.get(*at).is_some_and(|f| f.family.name().as_bytes() == name);
        let search = || families.binary_search_by(|f| f.family.name().as_bytes().cmp(name)).ok();
        Some(self.next).filter(is).or_else(search)
    }

    /// Whether the fast path can read the schema: name and help need no escapes, a series is identified by its own
    /// labels alone, and its samples cannot belong to another family of the group.
    fn is_plain(&self, schema: &Schema) -> bool {
        let owned = |name: &str, suffixes: &[&str]| {
            suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|base| self.current.family(base).is_some()))
        };
        let owns = |suffixes: &[&str]| {
            suffixes.iter().any(|s| self.current.family(&format!("{}{s}", schema.name())).is_some())
        };
        let suffixes = ["_count", "_sum", "_bucket"];
        let special = schema.metric_type().own_label();
        // Text cannot express a family without series.
        schema.series_len() > 0
            && schema.unit().is_none()
            && schema.is_verbatim()
            && !owned(schema.name(), &suffixes)
            && special.is_none_or(|label| !self.grouping.contains(label) && !owns(&suffixes))
    }

    /// Reads HELP and TYPE, each at most once, and checks that they equal the schema's.
    fn head(&mut self, schema: &Schema) -> Option<()> {
        let (mut helped, mut typed) = (false, false);
        loop {
            let rest = self.samples.rest();
            if let Some(rest) = rest.strip_prefix(b"# HELP ") {
                let rest = rest.strip_prefix(schema.name().as_bytes())?.strip_prefix(b" ")?;
                let rest = rest.strip_prefix(schema.help()?.as_bytes())?.strip_prefix(b"\n")?;
                self.samples.go_to(rest)?;
                if std::mem::replace(&mut helped, true) {
                    return None;
                }
            } else if let Some(rest) = rest.strip_prefix(b"# TYPE ") {
                let rest = rest.strip_prefix(schema.name().as_bytes())?.strip_prefix(b" ")?;
                let rest = rest.strip_prefix(schema.metric_type().name().as_bytes())?.strip_prefix(b"\n")?;
                self.samples.go_to(rest)?;
                if std::mem::replace(&mut typed, true) {
                    return None;
                }
            } else {
                break;
            }
        }
        let complete = helped == schema.help().is_some() && (typed || schema.metric_type() == MetricType::Untyped);
        complete.then_some(())
    }
}

#[cfg(test)]
mod tests;
