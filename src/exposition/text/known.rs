//! Reading a body that repeats the series of its group: nothing is made but values.
//!
//! Who pushes once pushes again, and mostly the same series with other values. So the body is walked line by line beside
//! the shapes that the group holds: names and labels are compared where they stand, and only the values are read. What
//! comes of it is what [`super::parse`] and [`RawFamily::family`](crate::exposition::RawFamily::family) make of the body,
//! but with the shapes that are held.
//!
//! Only the way in which client libraries print is understood: each family in one piece, its HELP and TYPE before its
//! samples, one blank between the tokens of a line, no quoted names, nothing escaped in a help, no timestamps, the parts of a
//! summary or histogram together. Series may come in any order. Whatever else is met, errors too, is left to the parser: `None`.

use std::sync::Arc;

use super::sample::Samples;
use super::template::{BODY_BYTES_MAX, Template, Templates};
use crate::exposition::Limits;
use crate::exposition::raw::type_label;
use crate::model::label::LabelSet;
use crate::model::{Family, Group, MetricType, Shape};

/// Reads bodies that repeat the series of their groups. What it makes of a body depends on nothing but that, what the group
/// holds, and the bounds; what it remembers of others makes it faster.
#[derive(Debug)]
pub struct Known {
    limits: Limits,
    templates: Templates,
}

impl Known {
    /// For bodies within these bounds.
    pub fn new(limits: Limits) -> Self {
        Self { limits, templates: Templates::default() }
    }

    /// Reads a body pushed to the group with the labels `grouping`, which holds `held`; `None` if it has to be parsed.
    /// Families come in the order of their names.
    pub fn parse(&self, body: &[u8], held: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let templates = self.templates(body);
        templates.and_then(|t| t.read(body, held, grouping)).or_else(|| self.walk(body, held, grouping))
    }

    /// The templates, if the body may be read by one: it is not large, and no line of it can be too long.
    fn templates(&self, body: &[u8]) -> Option<&Templates> {
        (body.len() <= BODY_BYTES_MAX.min(self.limits.line_bytes_max)).then_some(&self.templates)
    }

    fn walk(&self, body: &[u8], held: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
        let samples = Samples::new(body, grouping, self.limits);
        let mut walk = Walk { samples, held, grouping, taken: vec![None; held.families().len()], next: 0 };
        let (mut order, mut series_len) = (Vec::with_capacity(held.families().len()), 0);
        while walk.samples.skip_empty_lines() {
            let at = walk.family()?;
            order.push((at, walk.samples.numbers().len()));
            series_len += held.families()[at].family.shape().series_len();
        }
        if series_len > self.limits.series_max || order.len() > self.limits.families_max {
            return None;
        }
        if let Some(templates) = self.templates(body) {
            templates.keep(Template::new(body, walk.samples.numbers(), &order, held, grouping), held);
        }
        Some(walk.taken.into_iter().flatten().collect())
    }
}

struct Walk<'a> {
    samples: Samples<'a>,
    held: &'a Group,
    grouping: &'a LabelSet,
    /// The families that were there already, in the places of those held.
    taken: Vec<Option<Family>>,
    /// The family that is expected next.
    next: usize,
}

impl<'a> Walk<'a> {
    /// Reads a family: its head and all of its samples. Returns its place.
    fn family(&mut self) -> Option<usize> {
        let at = self.named()?;
        if self.taken[at].is_some() {
            return None;
        }
        self.next = at + 1;
        let shape = self.held.families()[at].family.shape();
        if !self.is_plain(shape) {
            return None;
        }
        self.head(shape)?;
        let mut values: Arc<[f64]> = std::iter::repeat_n(0.0, shape.values_len()).collect();
        self.samples.read(shape, Arc::get_mut(&mut values)?)?;
        self.taken[at] = Some(Family::new(shape.clone(), values, None)?);
        Some(at)
    }

    /// The number of the family that the line at hand names.
    fn named(&self) -> Option<usize> {
        let line = self.samples.rest();
        let name = line.strip_prefix(b"# HELP ").or_else(|| line.strip_prefix(b"# TYPE ")).unwrap_or(line);
        let name = &name[..name.iter().position(|byte| matches!(byte, b' ' | b'{' | b'\n'))?];
        let families = self.held.families();
        let is = |at: &usize| families.get(*at).is_some_and(|f| f.family.name().as_bytes() == name);
        let search = || families.binary_search_by(|f| f.family.name().as_bytes().cmp(name)).ok();
        Some(self.next).filter(is).or_else(search)
    }

    /// Whether nothing is special about the shape: that name and help stand in text as they are, that what makes a series is in its
    /// own labels alone, and that no other family here could lay claim to its samples.
    fn is_plain(&self, shape: &Shape) -> bool {
        let owned = |name: &str, suffixes: &[&str]| {
            suffixes.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|base| self.held.family(base).is_some()))
        };
        let owns =
            |suffixes: &[&str]| suffixes.iter().any(|s| self.held.family(&format!("{}{s}", shape.name())).is_some());
        let suffixes = ["_count", "_sum", "_bucket"];
        let special = type_label(shape.metric_type());
        // Of a family without series text says nothing.
        shape.series_len() > 0
            && shape.unit().is_none()
            && shape.is_verbatim()
            && !owned(shape.name(), &suffixes)
            && special.is_none_or(|label| !self.grouping.contains(label) && !owns(&suffixes))
    }

    /// Reads HELP and TYPE, each at most once, and sees that they are what the shape says.
    fn head(&mut self, shape: &Shape) -> Option<()> {
        let (mut helped, mut typed) = (false, false);
        loop {
            let rest = self.samples.rest();
            if let Some(rest) = rest.strip_prefix(b"# HELP ") {
                let rest = rest.strip_prefix(shape.name().as_bytes())?.strip_prefix(b" ")?;
                let rest = rest.strip_prefix(shape.help()?.as_bytes())?.strip_prefix(b"\n")?;
                self.samples.go_to(rest)?;
                if std::mem::replace(&mut helped, true) {
                    return None;
                }
            } else if let Some(rest) = rest.strip_prefix(b"# TYPE ") {
                let rest = rest.strip_prefix(shape.name().as_bytes())?.strip_prefix(b" ")?;
                let rest = rest.strip_prefix(shape.metric_type().name().as_bytes())?.strip_prefix(b"\n")?;
                self.samples.go_to(rest)?;
                if std::mem::replace(&mut typed, true) {
                    return None;
                }
            } else {
                break;
            }
        }
        let complete = helped == shape.help().is_some() && (typed || shape.metric_type() == MetricType::Untyped);
        complete.then_some(())
    }
}

#[cfg(test)]
mod tests;
