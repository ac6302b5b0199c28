//! Reading a body that repeats the series of its group: nothing is made but values.
//!
//! Who pushes once pushes again, and mostly the same series with other values. So the body is walked line by line beside
//! the schemas that the group holds: names and labels are compared where they stand, and only the values are read. What
//! comes of it is what [`text::parse`](crate::exposition::text::parse) and [`RawFamily::family`](crate::exposition::RawFamily::family) make of the body,
//! but with the schemas that are held.
//!
//! Only the way in which client libraries print is understood: each family in one piece, its HELP and TYPE before its
//! samples, one blank between the tokens of a line, no quoted names, nothing escaped in a help, no timestamps, the parts of a
//! summary or histogram together. Series may come in any order. Whatever else is met, errors too, is left to the parser: `None`.

use super::line_schema::Samples;
use super::template::{BODY_BYTES_MAX, FAMILIES_MAX, Template, Templates, first_name};
use crate::exposition::PushLimits;
use crate::model::label::LabelSet;
use crate::model::{Family, Group, MetricType, Schema, Values};

/// Reads bodies that repeat the series of their groups. What it makes of a body depends on nothing but that, what the group
/// holds, its labels, and the bounds; what it remembers of others makes it faster.
#[derive(Debug)]
pub struct SameSeriesReader {
    limits: PushLimits,
    templates: Templates,
}

impl SameSeriesReader {
    /// For bodies within these bounds.
    pub fn new(limits: PushLimits) -> Self {
        Self { limits, templates: Templates::default() }
    }

    /// Reads a body pushed to the group with the labels `grouping`, which holds `held`; `None` if it has to be parsed.
    /// Families come in the order of their names.
    pub fn parse(&self, body: &[u8], held: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let Some(templates) = self.templates(body, held) else {
            return Some(self.walk(body, held, grouping, false)?.families());
        };
        templates.read(body, held, grouping).or_else(|| {
            let walk = self.walk(body, held, grouping, true)?;
            let template = Template::new(body, walk.samples.numbers(), &walk.order, held, grouping);
            templates.keep(template, body, held, grouping);
            Some(walk.families())
        })
    }

    /// The templates, if the body may be read by one: neither it nor what is held is large, and no line of it can be too
    /// long.
    fn templates(&self, body: &[u8], held: &Group) -> Option<&Templates> {
        let is_small = body.len() <= BODY_BYTES_MAX.min(self.limits.line_bytes_max);
        (is_small && held.families().len() <= FAMILIES_MAX).then_some(&self.templates)
    }

    fn walk<'a>(
        &self,
        body: &'a [u8],
        held: &'a Group,
        grouping: &'a LabelSet,
        numbers_noted: bool,
    ) -> Option<BodyWalk<'a>> {
        let samples = Samples::new(body, grouping, self.limits, numbers_noted);
        let len = held.families().len();
        let mut walk =
            BodyWalk { samples, held, grouping, taken: vec![None; len], order: Vec::with_capacity(len), next: 0 };
        let mut series_len = 0;
        while walk.samples.skip_empty_lines() {
            let at = walk.family()?;
            series_len += held.families()[at].family.schema().series_len();
        }
        let within = series_len <= self.limits.series_max && walk.order.len() <= self.limits.families_max;
        within.then_some(walk)
    }
}

struct BodyWalk<'a> {
    samples: Samples<'a>,
    held: &'a Group,
    grouping: &'a LabelSet,
    /// The families that were there already, in the places of those held.
    taken: Vec<Option<Family>>,
    /// Where they stand among those held, in the order of the body, and how many numbers had been noted behind each.
    order: Vec<(usize, usize)>,
    /// The family that is expected next.
    next: usize,
}

impl<'a> BodyWalk<'a> {
    /// The families that were there, in the order of names.
    fn families(self) -> Vec<Family> {
        self.taken.into_iter().flatten().collect()
    }

    /// Reads a family: its head and all of its samples. Returns its place.
    fn family(&mut self) -> Option<usize> {
        let at = self.named()?;
        if self.taken[at].is_some() {
            return None;
        }
        self.next = at + 1;
        let schema = self.held.families()[at].family.schema();
        if !self.is_plain(schema) {
            return None;
        }
        self.head(schema)?;
        let mut values = Values::zeros(schema.values_len());
        self.samples.read(schema, values.make_mut())?;
        self.taken[at] = Some(Family::new(schema.clone(), values, None)?);
        self.order.push((at, self.samples.numbers().len()));
        Some(at)
    }

    /// The number of the family that the line at hand names.
    fn named(&self) -> Option<usize> {
        let name = first_name(self.samples.rest())?;
        let families = self.held.families();
        let is = |at: &usize| families.get(*at).is_some_and(|f| f.family.name().as_bytes() == name);
        let search = || families.binary_search_by(|f| f.family.name().as_bytes().cmp(name)).ok();
        Some(self.next).filter(is).or_else(search)
    }

    /// Whether nothing is special about the schema: that name and help stand in text as they are, that what makes a series is in its
    /// own labels alone, and that no other family here could lay claim to its samples.
    fn is_plain(&self, schema: &Schema) -> bool {
        let owned = |name: &str, suffixes: &[&str]| {
            suffixes.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|base| self.held.family(base).is_some()))
        };
        let owns =
            |suffixes: &[&str]| suffixes.iter().any(|s| self.held.family(&format!("{}{s}", schema.name())).is_some());
        let suffixes = ["_count", "_sum", "_bucket"];
        let special = schema.metric_type().own_label();
        // Of a family without series text says nothing.
        schema.series_len() > 0
            && schema.unit().is_none()
            && schema.is_verbatim()
            && !owned(schema.name(), &suffixes)
            && special.is_none_or(|label| !self.grouping.contains(label) && !owns(&suffixes))
    }

    /// Reads HELP and TYPE, each at most once, and sees that they are what the schema says.
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
