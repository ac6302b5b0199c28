//! Builds a family series by series.

use std::collections::HashMap;
use std::sync::Arc;

use super::family::{Family, RawMetrics};
use super::label;
use super::schema::{DerivedFields, DuplicateSeries, MetricType, Schema, SeriesLayout, ValueLayout};
use super::values::Values;

struct Row {
    layout: u32,
    first_label: u32,
    first_value: u32,
    raw_metric: Option<Box<[u8]>>,
}

/// Collects the series of a family in any order and makes a [`Family`] of them.
pub struct FamilyBuilder {
    name: Arc<str>,
    metric_type: MetricType,
    help: Option<Box<str>>,
    unit: Option<Box<str>>,
    layouts: Vec<SeriesLayout>,
    layout_index: HashMap<SeriesLayout, u32>,
    rows: Vec<Row>,
    text: String,
    ends: Vec<u32>,
    values: Vec<f64>,
}

impl FamilyBuilder {
    /// A family without series. All label values of a family together are limited to 4 GiB of text; the limit on
    /// request bodies is far lower.
    pub fn new(name: impl Into<Arc<str>>, metric_type: MetricType) -> Self {
        Self {
            name: name.into(),
            metric_type,
            help: None,
            unit: None,
            layouts: Vec::new(),
            layout_index: HashMap::new(),
            rows: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Sets the help text (unescaped).
    pub fn help(&mut self, help: Option<&str>) -> &mut Self {
        self.help = help.map(Into::into);
        self
    }

    /// Sets the unit.
    pub fn unit(&mut self, unit: Option<&str>) -> &mut Self {
        self.unit = unit.map(Into::into);
        self
    }

    /// Adds a series: its labels sorted by name (none empty, none twice: the decoder of schemas refuses such labels),
    /// the layout of its values, the values, and the raw metric to store with them.
    ///
    /// # Panics
    /// If there are not `value_layout.len()` values: the caller made both.
    pub fn series(
        &mut self,
        labels: &[(&str, &str)],
        value_layout: &ValueLayout,
        values: &[f64],
        raw_metric: Option<&[u8]>,
    ) {
        assert_eq!(values.len(), value_layout.len(), "one value for each entry of the value layout");
        debug_assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "labels sorted by name, each name once");
        let row = Row {
            layout: self.layout(labels, value_layout),
            first_label: offset(self.ends.len()),
            first_value: offset(self.values.len()),
            raw_metric: raw_metric.map(Into::into),
        };
        for (_, value) in labels {
            label::escape_value(value, &mut self.text);
            self.ends.push(offset(self.text.len()));
        }
        self.values.extend_from_slice(values);
        self.rows.push(row);
    }

    fn layout(&mut self, labels: &[(&str, &str)], value_layout: &ValueLayout) -> u32 {
        let same =
            |l: &SeriesLayout| l.values == *value_layout && l.names.iter().map(|n| &**n).eq(labels.iter().map(|l| l.0));
        if let Some(row) = self.rows.last().filter(|row| same(&self.layouts[row.layout as usize])) {
            return row.layout;
        }
        let layout = SeriesLayout { names: labels.iter().map(|l| l.0.into()).collect(), values: value_layout.clone() };
        *self.layout_index.entry(layout).or_insert_with_key(|layout| {
            self.layouts.push(layout.clone());
            offset(self.layouts.len() - 1)
        })
    }

    /// The family, with its series sorted.
    ///
    /// # Errors
    /// Two series have the same labels.
    pub fn finish(mut self) -> Result<Family, DuplicateSeries> {
        let in_order = |a: &Row, b: &Row| self.cmp_rows(a, b).is_lt();
        if !self.rows.is_sorted_by(in_order) {
            self.sort()?;
        }
        Ok(self.assemble())
    }

    fn value_text(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.text[start..self.ends[at] as usize]
    }

    fn row_values(&self, row: &Row) -> impl Iterator<Item = &str> {
        let first = row.first_label as usize;
        (first..first + self.layouts[row.layout as usize].names.len()).map(|at| self.value_text(at))
    }

    fn cmp_rows(&self, a: &Row, b: &Row) -> std::cmp::Ordering {
        let (left, right) = (&self.layouts[a.layout as usize].names, &self.layouts[b.layout as usize].names);
        left.len()
            .cmp(&right.len())
            .then_with(|| self.row_values(a).cmp(self.row_values(b)))
            .then_with(|| if a.layout == b.layout { std::cmp::Ordering::Equal } else { left.cmp(right) })
    }

    /// Sorts the rows, and the labels and values that they refer to.
    fn sort(&mut self) -> Result<(), DuplicateSeries> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|a, b| self.cmp_rows(a, b));
        if let Some(pair) = rows.windows(2).find(|pair| self.cmp_rows(&pair[0], &pair[1]).is_eq()) {
            let names = &self.layouts[pair[0].layout as usize].names;
            let labels: Vec<String> = names
                .iter()
                .zip(self.row_values(&pair[0]))
                .map(|(name, value)| format!("{name}=\"{value}\""))
                .collect();
            return Err(DuplicateSeries { name: self.name.clone(), labels: labels.join(",") });
        }
        let mut sorted = FamilyBuilder::new(self.name.clone(), self.metric_type);
        sorted.help = self.help.take();
        sorted.unit = self.unit.take();
        let mut numbers: Vec<Option<u32>> = vec![None; self.layouts.len()];
        for row in rows {
            let layout = &self.layouts[row.layout as usize];
            let number = *numbers[row.layout as usize].get_or_insert_with(|| {
                sorted.layouts.push(layout.clone());
                offset(sorted.layouts.len() - 1)
            });
            let (first_label, first_value) = (offset(sorted.ends.len()), offset(sorted.values.len()));
            for value in self.row_values(&row) {
                sorted.text.push_str(value);
                sorted.ends.push(offset(sorted.text.len()));
            }
            let at = row.first_value as usize;
            sorted.values.extend_from_slice(&self.values[at..at + layout.values.len()]);
            sorted.rows.push(Row { layout: number, first_label, first_value, raw_metric: row.raw_metric });
        }
        *self = sorted;
        Ok(())
    }

    fn assemble(self) -> Family {
        let several = self.layouts.len() > 1;
        let raw_metrics = self.rows.iter().any(|row| row.raw_metric.is_some());
        let layout_of = if several { self.rows.iter().map(|row| row.layout).collect() } else { Box::default() };
        let first_label = if several { self.rows.iter().map(|row| row.first_label).collect() } else { Box::default() };
        let schema = Schema {
            name: self.name,
            metric_type: self.metric_type,
            help: self.help,
            unit: self.unit,
            layouts: self.layouts.into(),
            layout_of,
            first_label,
            text: self.text.into(),
            ends: self.ends.into(),
            series_len: offset(self.rows.len()),
            values_len: offset(self.values.len()),
            derived: DerivedFields::default(),
        }
        .with_derived_fields();
        let raw_metrics: Option<Arc<RawMetrics>> = raw_metrics
            .then(|| Arc::new(self.rows.into_iter().map(|row| row.raw_metric.unwrap_or_default()).collect()));
        Family::new(Arc::new(schema), Values::from(&self.values[..]), raw_metrics)
            .expect("a value a point, a raw metric a series")
    }
}

fn offset(n: usize) -> u32 {
    u32::try_from(n).expect("bodies are limited to far less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(series: &[(&[(&str, &str)], f64)]) -> Result<Family, DuplicateSeries> {
        let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
        for (labels, value) in series {
            builder.series(labels, &ValueLayout::Single, &[*value], None);
        }
        builder.finish()
    }

    #[test]
    fn the_order_of_series_in_a_push_does_not_matter() {
        let a = family(&[(&[("x", "2")], 2.0), (&[], 0.0), (&[("x", "1")], 1.0), (&[("y", "1")], 3.0)]).unwrap();
        let b = family(&[(&[("y", "1")], 3.0), (&[("x", "1")], 1.0), (&[("x", "2")], 2.0), (&[], 0.0)]).unwrap();
        assert_eq!(a, b);
        assert_eq!(&a.values()[..], [0.0, 1.0, 3.0, 2.0]);
        let labels: Vec<Vec<_>> = a.schema().series().map(|s| s.labels().map(|l| l.1).collect()).collect();
        assert_eq!(labels, [vec![], vec!["1"], vec!["1"], vec!["2"]]);
    }

    #[test]
    fn equal_labels_are_refused() {
        let error = family(&[(&[("x", "a\"b")], 1.0), (&[("x", "c")], 1.0), (&[("x", "a\"b")], 1.0)]).unwrap_err();
        assert_eq!(error.labels, r#"x="a\"b""#);
    }

    #[test]
    fn series_are_found_by_their_labels() {
        let family = family(&[(&[("x", "2")], 2.0), (&[], 0.0), (&[("x", "1\n")], 1.0), (&[("y", "2")], 1.0)]).unwrap();
        let schema = family.schema();
        assert!(schema.contains(&[]) && schema.contains(&[("x", "1\n")]) && schema.contains(&[("y", "2")]));
        assert!(!schema.contains(&[("x", "1")]) && !schema.contains(&[("z", "2")]));
        assert!(!schema.contains(&[("x", "2"), ("y", "2")]));
    }
}
