//! Compares sample lines with the series of the schema that they are expected to have.

use super::template::{Number, NumberKind, ValueSlot};
use crate::exposition::{PushLimits, number};
use crate::model::label::{INSTANCE, LabelSet, RESERVED_PREFIX, is_legacy_label_name};
use crate::model::{MetricType, Num, Schema, Series, SeriesIter, ValueLayout};

/// The unread rest of a body, and the forms of its lines.
pub(super) struct Samples<'a> {
    rest: &'a [u8],
    /// The length of `rest` at the beginning of the current line.
    line_left: usize,
    grouping: &'a LabelSet,
    limits: PushLimits,
    /// The form of lines of each [`LinePart`] of the current family.
    forms: [LineForm<'a>; 4],
    body: &'a [u8],
    /// The numbers that were read, if they are noted.
    numbers: Option<Vec<Number>>,
}

/// The part of its series that a line has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinePart {
    /// A value, or a quantile.
    Plain,
    Bucket,
    Sum,
    Count,
}

impl LinePart {
    fn suffix(self) -> &'static [u8] {
        match self {
            Self::Plain => b"",
            Self::Bucket => b"_bucket",
            Self::Sum => b"_sum",
            Self::Count => b"_count",
        }
    }
}

/// The text between the values of a line, up to the blank before its number, and the labels of these values.
#[derive(Default)]
struct LineForm<'a> {
    /// The index of the schema's layout; `None` if there is no form yet.
    layout: Option<usize>,
    /// One piece before each slot, and one after the last.
    pieces: Vec<&'a [u8]>,
    slots: Vec<LineSlot>,
    /// For each label of the layout, whether it has a slot; the last entry is for the mark.
    met: Vec<bool>,
    /// The index of the label `instance`, if lines lack it and so it must be empty.
    filled: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineSlot {
    /// The value of the label with this index.
    Label(usize),
    /// A quantile or bound.
    Mark,
}

/// The series that is expected next, and the series that were read.
struct SeriesCursor<'s> {
    schema: &'s Schema,
    /// The series from the expected one on.
    coming: SeriesIter<'s>,
    next: usize,
    seen_len: usize,
    /// Whether each series was read; `None` while all were read in order.
    seen: Option<Vec<bool>>,
}

impl<'s> SeriesCursor<'s> {
    fn new(schema: &'s Schema) -> Self {
        Self { schema, coming: schema.series(), next: 0, seen_len: 0, seen: None }
    }

    fn expected(&self) -> Option<Series<'s>> {
        self.coming.clone().next()
    }

    /// Expects that series next. Requires that all series have the same number of values.
    fn jump(&mut self, index: usize) -> Option<()> {
        let next = self.next;
        self.seen.get_or_insert_with(|| (0..self.schema.series_len()).map(|at| at < next).collect());
        self.coming = self.schema.series_from(index)?;
        self.next = index;
        Some(())
    }

    /// Marks the expected series as read; `None` if it was read before.
    fn mark_seen(&mut self) -> Option<()> {
        if let Some(seen) = &mut self.seen
            && std::mem::replace(seen.get_mut(self.next)?, true)
        {
            return None;
        }
        self.coming.next();
        self.next += 1;
        self.seen_len += 1;
        Some(())
    }

    fn is_complete(&self) -> bool {
        self.seen_len == self.schema.series_len()
    }
}

impl<'a> Samples<'a> {
    /// Starts at the beginning of a body. If `numbers_noted`, the positions of the numbers are recorded.
    pub(super) fn new(body: &'a [u8], grouping: &'a LabelSet, limits: PushLimits, numbers_noted: bool) -> Self {
        let (forms, numbers) = (Default::default(), numbers_noted.then(Vec::new));
        Self { rest: body, line_left: body.len(), grouping, limits, forms, body, numbers }
    }

    /// The numbers that were recorded.
    pub(super) fn numbers(&self) -> &[Number] {
        self.numbers.as_deref().unwrap_or_default()
    }

    /// The body from the current line on.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Moves to `rest`, which begins after the line feed of the current line; `None` if that line is too long.
    pub(super) fn go_to(&mut self, rest: &'a [u8]) -> Option<()> {
        let length = self.line_left - rest.len() - 1;
        self.rest = rest;
        self.line_left = rest.len();
        (length <= self.limits.line_bytes_max).then_some(())
    }

    /// Moves to the next line that is neither empty nor `# EOF`; `false` if there is none.
    pub(super) fn skip_empty_lines(&mut self) -> bool {
        while let Some(rest) = self.rest.strip_prefix(b"\n").or_else(|| self.rest.strip_prefix(b"# EOF\n")) {
            self.rest = rest;
            self.line_left = rest.len();
        }
        !self.rest.is_empty()
    }

    /// Reads all samples of a family into `values`.
    pub(super) fn read(&mut self, schema: &Schema, values: &mut [f64]) -> Option<()> {
        for form in &mut self.forms {
            form.layout = None;
        }
        let mut cursor = SeriesCursor::new(schema);
        loop {
            if let Some(series) = self.next_single(schema, &mut cursor) {
                self.value(values, ValueSlot { at: series.values().start, kind: NumberKind::Plain })?;
                continue;
            }
            let Some(part) = self.part(schema) else { break };
            let (series, mark) = self.series(schema, part, &mut cursor)?;
            match &series.layout().values {
                ValueLayout::Single => {
                    self.value(values, ValueSlot { at: series.values().start, kind: NumberKind::Plain })?
                }
                ValueLayout::Summary { .. } | ValueLayout::Histogram { float: false, .. } => {
                    self.distribution(schema, series, (part, mark), values)?;
                }
                ValueLayout::Histogram { float: true, .. } => return None,
            }
        }
        cursor.is_complete().then_some(())
    }

    /// Fast path for the common case: the current line is the expected series, which has one value, and has the form of
    /// the line before. Moves to its value.
    fn next_single<'s>(&mut self, schema: &'s Schema, cursor: &mut SeriesCursor<'s>) -> Option<Series<'s>> {
        let series = cursor.expected()?;
        let known = self.forms[LinePart::Plain as usize].layout == Some(series.layout_index);
        if !known || series.layout().values != ValueLayout::Single {
            return None;
        }
        let line = self.rest;
        self.matches(schema, LinePart::Plain, series)?;
        if cursor.mark_seen().is_none() {
            self.rest = line;
            return None;
        }
        Some(series)
    }

    /// The part that the current line has of a series of that schema; `None` if the line belongs to another family.
    fn part(&self, schema: &Schema) -> Option<LinePart> {
        let rest = self.rest.strip_prefix(schema.name().as_bytes())?;
        let parts: &[LinePart] = match schema.metric_type() {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => &[LinePart::Plain],
            MetricType::Summary => &[LinePart::Plain, LinePart::Sum, LinePart::Count],
            MetricType::Histogram | MetricType::GaugeHistogram => &[LinePart::Bucket, LinePart::Sum, LinePart::Count],
        };
        let is = |part: &&LinePart| {
            rest.strip_prefix(part.suffix()).is_some_and(|rest| matches!(rest.first(), Some(b'{' | b' ')))
        };
        parts.iter().find(is).copied()
    }

    /// Finds the series of the current line, marks it as read, and moves to the line's value.
    fn series<'s>(
        &mut self,
        schema: &'s Schema,
        part: LinePart,
        cursor: &mut SeriesCursor<'s>,
    ) -> Option<(Series<'s>, Option<f64>)> {
        if let Some(series) = cursor.expected()
            && let Some(mark) = self.matches(schema, part, series)
        {
            cursor.mark_seen()?;
            return Some((series, mark));
        }
        cursor.jump(self.locate(schema, part)?)?;
        let series = cursor.expected()?;
        let mark = self.matches(schema, part, series)?;
        cursor.mark_seen()?;
        Some((series, mark))
    }

    /// The index of the series of the current line. Requires that all series have the same labels.
    fn locate(&mut self, schema: &Schema, part: LinePart) -> Option<usize> {
        let [layout] = schema.layouts() else { return None };
        self.form(schema, part, 0)?;
        let form = &self.forms[part as usize];
        let mut values: Vec<&[u8]> = vec![b""; layout.names.len()];
        let mut rest = self.rest;
        for (piece, slot) in form.pieces.iter().zip(&form.slots) {
            rest = rest.strip_prefix(*piece)?;
            let (value, behind) = rest.split_at(quoted_len(rest)?);
            if let LineSlot::Label(at) = slot {
                values[*at] = value;
            }
            rest = behind;
        }
        schema.position(&values)
    }

    /// If the current line has that series and part, moves to its value and returns its mark.
    fn matches(&mut self, schema: &Schema, part: LinePart, series: Series<'_>) -> Option<Option<f64>> {
        self.form(schema, part, series.layout_index)?;
        let form = &self.forms[part as usize];
        if form.filled.is_some_and(|at| !series.escaped_value(at).is_empty()) {
            return None;
        }
        let (mut rest, mut mark) = (self.rest, None);
        for (piece, slot) in form.pieces.iter().zip(&form.slots) {
            rest = rest.strip_prefix(*piece)?;
            match slot {
                LineSlot::Label(at) => rest = rest.strip_prefix(series.escaped_value(*at).as_bytes())?,
                LineSlot::Mark => {
                    let (number, behind) = rest.split_at(quoted_len(rest)?);
                    mark = Some(number::parse(number)?);
                    rest = behind;
                }
            }
        }
        self.rest = rest.strip_prefix(*form.pieces.last()?)?;
        Some(mark)
    }

    /// Reads the number that ends the line into its slot of `values`.
    fn value(&mut self, values: &mut [f64], target: ValueSlot) -> Option<()> {
        let length = target.read(self.rest, values)?;
        if let Some(numbers) = &mut self.numbers {
            let start = self.body.len() - self.rest.len();
            numbers.push(Number { start, end: start + length, target });
        }
        self.go_to(&self.rest[length + 1..])
    }

    /// Reads the samples of one series of a summary or histogram. Part and mark of the first are read already.
    fn distribution(
        &mut self,
        schema: &Schema,
        series: Series<'_>,
        first: (LinePart, Option<f64>),
        values: &mut [f64],
    ) -> Option<()> {
        let (marks, has_sum, has_count) = match &series.layout().values {
            ValueLayout::Summary { quantiles: marks, has_sum, has_count }
            | ValueLayout::Histogram { bounds: marks, has_sum, has_count, .. } => (marks, *has_sum, *has_count),
            ValueLayout::Single => return None,
        };
        let (kind, count_kind) = match schema.metric_type() {
            MetricType::Summary => (NumberKind::Plain, NumberKind::SummaryCount),
            _ => (NumberKind::Count, NumberKind::Count),
        };
        let (mut marked, mut summed, mut counted) = (0, !has_sum, !has_count);
        let mut line = first;
        loop {
            let (at, kind) = match line {
                (LinePart::Plain | LinePart::Bucket, Some(mark))
                    if !mark.is_nan() && Num(mark) == *marks.get(marked)? =>
                {
                    marked += 1;
                    (marked - 1, kind)
                }
                (LinePart::Sum, None) if !std::mem::replace(&mut summed, true) => (marks.len(), NumberKind::Plain),
                (LinePart::Count, None) if !std::mem::replace(&mut counted, true) => (marks.len() + 1, count_kind),
                _ => return None,
            };
            self.value(values, ValueSlot { at: series.values().start + at, kind })?;
            if marked == marks.len() && summed && counted {
                return Some(());
            }
            let part = self.part(schema)?;
            line = (part, self.matches(schema, part, series)?);
        }
    }

    /// Ensures that the form of that part is for that layout: if not, derives it from the current line.
    fn form(&mut self, schema: &Schema, part: LinePart, layout: usize) -> Option<()> {
        let form = &mut self.forms[part as usize];
        if form.layout == Some(layout) {
            return Some(());
        }
        let names = &schema.layouts().get(layout)?.names;
        form.read(self.rest, schema.name().len() + part.suffix().len(), names.len(), |name| {
            if matches!(part, LinePart::Plain | LinePart::Bucket) && schema.metric_type().own_label() == Some(name) {
                return Some(LineSlot::Mark);
            }
            let plain =
                is_legacy_label_name(name) && !name.starts_with(RESERVED_PREFIX) && !self.grouping.contains(name);
            names.binary_search_by(|own| (**own).cmp(name)).ok().filter(|_| plain).map(LineSlot::Label)
        })?;
        let instance = names.iter().position(|name| **name == *INSTANCE);
        let filled = instance.filter(|at| !form.met[*at]);
        let labels = form.slots.iter().filter(|slot| **slot != LineSlot::Mark).count();
        let complete = labels + usize::from(filled.is_some()) == names.len();
        let sound = complete
            && labels <= self.limits.labels_per_series_max
            && instance.is_some() != self.grouping.contains(INSTANCE)
            // To the parser, parts with the label and parts without it belong to two series.
            && self.forms.iter().all(|form| form.layout != Some(layout) || form.filled == filled);
        let form = &mut self.forms[part as usize];
        form.filled = filled;
        form.layout = sound.then_some(layout);
        sound.then_some(())
    }
}

impl<'a> LineForm<'a> {
    /// Derives pieces and slots from a line whose name has `name_len` bytes; the layout has `labels_len` labels.
    fn read(
        &mut self,
        line: &'a [u8],
        name_len: usize,
        labels_len: usize,
        slot: impl Fn(&str) -> Option<LineSlot>,
    ) -> Option<()> {
        self.layout = None;
        self.pieces.clear();
        self.slots.clear();
        self.met.clear();
        self.met.resize(labels_len + 1, false);
        let (mut from, mut rest) = (line, line.get(name_len..)?);
        if let Some(labels) = rest.strip_prefix(b"{") {
            rest = labels;
            while *rest.first()? != b'}' {
                let (name, value) = rest.split_at(rest.iter().position(|byte| *byte == b'=')?);
                let slot = slot(std::str::from_utf8(name).ok()?)?;
                let number = match slot {
                    LineSlot::Label(at) => at,
                    LineSlot::Mark => labels_len,
                };
                if std::mem::replace(self.met.get_mut(number)?, true) {
                    return None;
                }
                let value = value.strip_prefix(b"=\"")?;
                self.slots.push(slot);
                self.pieces.push(&from[..from.len() - value.len()]);
                from = &value[quoted_len(value)?..];
                rest = from.strip_prefix(b"\"")?;
                rest = match rest.first()? {
                    b',' => &rest[1..],
                    b'}' => rest,
                    _ => return None,
                };
            }
            rest = &rest[1..];
        }
        rest = rest.strip_prefix(b" ")?;
        self.pieces.push(&from[..from.len() - rest.len()]);
        Some(())
    }
}

/// The length of an escaped label value, up to its closing quote.
fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\n' => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
