//! A schema: everything of a family that does not change from push to push.
//!
//! It has the name, type, help, unit and labels of each series, without the labels of the group. So equal families of
//! ten thousand groups have one schema object. Label values are stored escaped as the text format prints them, in one
//! string, so that rendering copies them.
//!
//! Only [`super::FamilyBuilder`] and [`super::decode_schema`] make schemas. They keep the invariants: series are sorted
//! (by number of labels, then values, then names: the order in which Go's gatherer prints them), and no two are equal.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::escaping::{Escaping, scraped_labels};
use super::label;

/// The type of a metric family; the numbers are those of `io.prometheus.client.MetricType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// A value that only grows.
    Counter = 0,
    /// A value that goes up and down.
    Gauge = 1,
    /// Quantiles, sum and count.
    Summary = 2,
    /// No type was given.
    Untyped = 3,
    /// Buckets, sum and count.
    Histogram = 4,
    /// A histogram that can go down.
    GaugeHistogram = 5,
}

impl MetricType {
    /// The type with that number in `io.prometheus.client.MetricType`.
    pub fn from_number(number: i32) -> Option<Self> {
        use MetricType::*;
        [Counter, Gauge, Summary, Untyped, Histogram, GaugeHistogram].into_iter().find(|t| *t as i32 == number)
    }

    /// The name in a `# TYPE` line and in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
        }
    }

    /// The label that this type adds to samples when they are printed. No series of the family may have it.
    pub fn own_label(self) -> Option<&'static str> {
        match self {
            Self::Summary => Some(label::QUANTILE),
            Self::Histogram | Self::GaugeHistogram => Some(label::LE),
            Self::Counter | Self::Gauge | Self::Untyped => None,
        }
    }
}

/// An `f64` compared by its bits, for quantiles and bucket bounds.
#[derive(Clone, Copy, Debug)]
pub struct Num(pub f64);

impl PartialEq for Num {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Num {}
impl std::hash::Hash for Num {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The meaning of the values of one series, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueLayout {
    /// One value: counter, gauge, untyped.
    Single,
    /// A value for each quantile, then sum, then count.
    Summary {
        /// The quantiles, in the order pushed.
        quantiles: Box<[Num]>,
        /// Whether a sum was given (its value is 0 otherwise).
        has_sum: bool,
        /// Whether a count was given (its value is 0 otherwise).
        has_count: bool,
    },
    /// A cumulative count a bucket, then sum, then count.
    Histogram {
        /// The upper bounds, in the order pushed.
        bounds: Box<[Num]>,
        /// Whether a sum was given (its value is 0 otherwise).
        has_sum: bool,
        /// Whether a count was given (its value is 0 otherwise).
        has_count: bool,
        /// Whether bucket counts and count are floats (`sample_count_float`, `cumulative_count_float`).
        float: bool,
    },
}

impl ValueLayout {
    /// The number of values of a series with this layout.
    pub fn len(&self) -> usize {
        match self {
            Self::Single => 1,
            Self::Summary { quantiles, .. } => quantiles.len() + 2,
            Self::Histogram { bounds, .. } => bounds.len() + 2,
        }
    }

    /// The first quantile or bound that is there twice. All NaN are one.
    fn repeated(&self) -> Option<f64> {
        let marks = match self {
            Self::Single => return None,
            Self::Summary { quantiles: marks, .. } | Self::Histogram { bounds: marks, .. } => marks,
        };
        if marks.is_sorted_by(|a, b| a.0 < b.0) {
            return None;
        }
        let mut seen = HashSet::new();
        let as_shown = |mark: &Num| if mark.0.is_nan() { f64::NAN.to_bits() } else { mark.0.to_bits() };
        marks.iter().find(|mark| !seen.insert(as_shown(mark))).map(|mark| mark.0)
    }

    /// Always false: every series has a value.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Label names and value layout of series. Most schemas have only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesLayout {
    /// The label names, sorted.
    pub names: Box<[Box<str>]>,
    /// The layout of the values.
    pub values: ValueLayout,
}

/// A hash of a schema's content (XXH3, 128 bits). It does not resist collisions made by an adversary: schemas with
/// equal digests are compared by content where it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub u128);

/// Two series or samples of one family have the same labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateSeries {
    /// The metric's name.
    pub name: Arc<str>,
    /// The labels, as the text format prints them between braces.
    pub labels: String,
}

/// A schema. See the [module](self) for its invariants.
#[derive(Debug)]
pub struct Schema {
    pub(super) name: Arc<str>,
    pub(super) metric_type: MetricType,
    pub(super) help: Option<Box<str>>,
    pub(super) unit: Option<Box<str>>,
    pub(super) layouts: Box<[SeriesLayout]>,
    /// The layout of each series; empty when there is only one layout.
    pub(super) layout_of: Box<[u32]>,
    /// The index in `ends` of each series' first label; empty when there is only one layout.
    pub(super) first_label: Box<[u32]>,
    /// Escaped label values, series by series, in the order of the layout's names.
    pub(super) text: Box<str>,
    /// The end of each label value in `text`.
    pub(super) ends: Box<[u32]>,
    pub(super) series_len: u32,
    pub(super) values_len: u32,
    pub(super) derived: DerivedFields,
}

impl Schema {
    /// The schema, with the fields that follow from the others.
    pub(super) fn with_derived_fields(self) -> Self {
        Self { derived: DerivedFields::of(&self), ..self }
    }

    /// The metric's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The metric's type.
    pub fn metric_type(&self) -> MetricType {
        self.metric_type
    }

    /// The help text, unescaped, if any was given.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Whether the text format prints name and help unchanged: the name needs no quotes, and the help, if any, is not
    /// empty, begins with no blank and has nothing to escape.
    pub fn is_verbatim(&self) -> bool {
        self.derived.verbatim
    }

    /// Whether all label names are legacy names, and no label but `instance` has an empty value: a scraper then takes
    /// the labels of each series as they are, except that an empty `instance` is none.
    pub fn is_plain(&self) -> bool {
        self.derived.plain
    }

    /// A bucket or quantile that a series has twice, if there is one: two samples would have the same labels.
    pub fn repeated_sample(&self) -> Option<DuplicateSeries> {
        let repeated: Vec<Option<f64>> = self.layouts.iter().map(|layout| layout.values.repeated()).collect();
        let series = self.series().find(|series| repeated[series.layout_index].is_some())?;
        let (mark, label) = (repeated[series.layout_index]?, self.metric_type.own_label()?);
        let mark = if mark == f64::INFINITY { "+Inf".to_owned() } else { mark.to_string() };
        let is_bucket = label == label::LE;
        let name = if is_bucket { format!("{}_bucket", self.name).into() } else { self.name.clone() };
        let own = series_text(series);
        let separator = if own.is_empty() { "" } else { "," };
        Some(DuplicateSeries { name, labels: format!("{own}{separator}{label}=\"{mark}\"") })
    }

    /// Two series that are one to a scraper, if there are any, each as text, and the escaping by which they are. Series
    /// that differ only in labels with empty values are one with every escaping.
    pub fn scraped_twice(&self) -> Option<([String; 2], Escaping)> {
        // Series of one layout differ in their values.
        if self.derived.plain || self.layouts.len() < 2 {
            return None;
        }
        let names = || self.layouts.iter().flat_map(|layout| &layout.names);
        let changing = if names().all(|name| label::is_legacy_label_name(name)) { 0 } else { Escaping::CHANGING.len() };
        let escapings = std::iter::once(Escaping::AllowUtf8).chain(Escaping::CHANGING.into_iter().take(changing));
        for escaping in escapings {
            let mut seen = HashMap::new();
            for series in self.series() {
                if let Some(other) = seen.insert(scraped_labels(series.labels(), escaping), series) {
                    return Some(([other, series].map(series_text), escaping));
                }
            }
        }
        None
    }

    /// The unit, if any was given (protobuf only).
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// The digest of the content.
    pub fn digest(&self) -> Digest {
        self.derived.digest
    }

    /// The number of series.
    pub fn series_len(&self) -> usize {
        self.series_len as usize
    }

    /// The number of values of a family with this schema.
    pub fn values_len(&self) -> usize {
        self.values_len as usize
    }

    /// The layouts, in the order in which series first use them.
    pub fn layouts(&self) -> &[SeriesLayout] {
        &self.layouts
    }

    /// The series in order.
    pub fn series(&self) -> SeriesIter<'_> {
        SeriesIter { schema: self, index: 0, value: 0 }
    }

    /// The series from index `index` on. `None` if there are several layouts: the index of their values is then
    /// unknown.
    pub fn series_from(&self, index: usize) -> Option<SeriesIter<'_>> {
        match &*self.layouts {
            [layout] => Some(SeriesIter { schema: self, index, value: index * layout.values.len() }),
            _ => None,
        }
    }

    /// The index of the series with these label values (escaped, in the order of the names), if all series have one
    /// layout. O(log n).
    pub fn position(&self, values: &[&[u8]]) -> Option<usize> {
        let [layout] = &*self.layouts else { return None };
        let labels = layout.names.len();
        let order = |index: usize| {
            let own = (index * labels..(index + 1) * labels).map(|at| self.value_text(at).as_bytes());
            own.cmp(values.iter().copied())
        };
        let (mut low, mut high) = (0, self.series_len());
        while low < high {
            let middle = (low + high) / 2;
            match order(middle) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The layout and the first label of the series at `index`.
    fn at(&self, index: usize) -> (usize, usize) {
        if self.layouts.len() == 1 {
            (0, index * self.layouts[0].names.len())
        } else {
            (self.layout_of[index] as usize, self.first_label[index] as usize)
        }
    }

    /// Whether a series with exactly these labels (sorted by name, values unescaped) is in the schema. O(log n).
    pub fn contains(&self, labels: &[(&str, &str)]) -> bool {
        let mut escaped = String::new();
        let mut ends = Vec::with_capacity(labels.len());
        for (_, value) in labels {
            label::escape_value(value, &mut escaped);
            ends.push(escaped.len());
        }
        let wanted = |i: usize| &escaped[if i == 0 { 0 } else { ends[i - 1] }..ends[i]];
        let (mut low, mut high) = (0, self.series_len());
        while low < high {
            let middle = (low + high) / 2;
            let (layout, first) = self.at(middle);
            let names = &self.layouts[layout].names;
            let order = names
                .len()
                .cmp(&labels.len())
                .then_with(|| (0..names.len()).map(|i| self.value_text(first + i)).cmp((0..labels.len()).map(wanted)))
                .then_with(|| names.iter().map(|n| &**n).cmp(labels.iter().map(|l| l.0)));
            match order {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return true,
            }
        }
        false
    }

    fn value_text(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.text[start..self.ends[at] as usize]
    }

    /// The order of two series: by number of labels, then escaped values, then names.
    pub(super) fn cmp_series(&self, left: usize, right: usize) -> Ordering {
        let ((layout, first), (other_layout, other_first)) = (self.at(left), self.at(right));
        let (names, other_names) = (&self.layouts[layout].names, &self.layouts[other_layout].names);
        let values = (first..first + names.len()).map(|at| self.value_text(at));
        let other_values = (other_first..other_first + other_names.len()).map(|at| self.value_text(at));
        names
            .len()
            .cmp(&other_names.len())
            .then_with(|| values.cmp(other_values))
            .then_with(|| if layout == other_layout { Ordering::Equal } else { names.cmp(other_names) })
    }

    /// Whether the content is the same. Digests are compared first, for speed.
    pub fn same(&self, other: &Schema) -> bool {
        std::ptr::eq(self, other)
            || (self.derived.digest == other.derived.digest
                && self.name == other.name
                && self.metric_type == other.metric_type
                && self.help == other.help
                && self.unit == other.unit
                && self.layouts == other.layouts
                && self.layout_of == other.layout_of
                && self.ends == other.ends
                && self.text == other.text)
    }

    /// Its size in bytes, as an estimate for limits and metrics.
    pub fn bytes(&self) -> usize {
        let layouts: usize = self
            .layouts
            .iter()
            .map(|l| 32 + 8 * l.values.len() + l.names.iter().map(|n| n.len() + 16).sum::<usize>())
            .sum();
        size_of::<Schema>()
            + self.name.len()
            + self.text.len()
            + self.help.as_ref().map_or(0, |help| help.len())
            + self.unit.as_ref().map_or(0, |unit| unit.len())
            + 4 * (self.ends.len() + self.layout_of.len() + self.first_label.len())
            + layouts
    }
}

/// The labels of a series, as the text format prints them between braces.
fn series_text(series: Series<'_>) -> String {
    let names = series.layout().names.iter().enumerate();
    let labels = names.map(|(at, name)| format!("{name}=\"{}\"", series.escaped_value(at)));
    labels.collect::<Vec<_>>().join(",")
}

/// The fields that follow from the others of a schema.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DerivedFields {
    /// See [`Schema::is_verbatim`].
    pub verbatim: bool,
    /// See [`Schema::is_plain`].
    pub plain: bool,
    /// See [`Schema::digest`].
    pub digest: Digest,
}

impl DerivedFields {
    /// The derived fields of a schema whose other fields are filled in.
    pub fn of(schema: &Schema) -> Self {
        Self { verbatim: is_verbatim(schema.name(), schema.help()), plain: is_plain(schema), digest: digest(schema) }
    }
}

/// The value of [`Schema::is_verbatim`].
fn is_verbatim(name: &str, help: Option<&str>) -> bool {
    let stands = |help: &str| !help.is_empty() && !help.starts_with([' ', '\t']) && !help.contains(['\\', '\n']);
    label::is_legacy_metric_name(name) && help.is_none_or(stands)
}

/// The value of [`Schema::is_plain`].
fn is_plain(schema: &Schema) -> bool {
    let is_legacy = |layout: &SeriesLayout| layout.names.iter().all(|name| label::is_legacy_label_name(name));
    let instance = |layout: &SeriesLayout| layout.names.iter().position(|name| **name == *label::INSTANCE);
    let instances: Vec<Option<usize>> = schema.layouts.iter().map(instance).collect();
    let is_filled = |series: Series<'_>| {
        let instance = instances[series.layout_index];
        let labels = series.layout().names.len();
        (0..labels).all(|at| Some(at) == instance || !series.escaped_value(at).is_empty())
    };
    // A series without `instance` is the same as one with an empty one.
    let is_even = instances.windows(2).all(|pair| pair[0].is_some() == pair[1].is_some());
    is_even && schema.layouts.iter().all(is_legacy) && schema.series().all(is_filled)
}

/// Hashes name, type, help, unit, layouts, and the series' layouts and label values, each preceded by its length (64
/// bits, little endian), so that different contents are different bytes.
fn digest(schema: &Schema) -> Digest {
    let mut hash = Xxh3::new();
    let text = |hash: &mut Xxh3, text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    text(&mut hash, &schema.name);
    hash.update(&[schema.metric_type as u8, schema.help.is_some() as u8, schema.unit.is_some() as u8]);
    text(&mut hash, schema.help().unwrap_or(""));
    text(&mut hash, schema.unit().unwrap_or(""));
    hash.update(&(schema.layouts.len() as u64).to_le_bytes());
    for layout in &schema.layouts {
        hash.update(&(layout.names.len() as u64).to_le_bytes());
        for name in &layout.names {
            text(&mut hash, name);
        }
        let (tag, numbers): (u8, &[_]) = match &layout.values {
            ValueLayout::Single => (0, &[]),
            ValueLayout::Summary { quantiles, has_sum, has_count } => {
                (1 | (*has_sum as u8) << 2 | (*has_count as u8) << 3, quantiles)
            }
            ValueLayout::Histogram { bounds, has_sum, has_count, float } => {
                (2 | (*has_sum as u8) << 2 | (*has_count as u8) << 3 | (*float as u8) << 4, bounds)
            }
        };
        hash.update(&[tag]);
        hash.update(&(numbers.len() as u64).to_le_bytes());
        for number in numbers {
            hash.update(&number.0.to_bits().to_le_bytes());
        }
    }
    hash.update(&(schema.series_len as u64).to_le_bytes());
    for number in &schema.layout_of {
        hash.update(&number.to_le_bytes());
    }
    for end in &schema.ends {
        hash.update(&end.to_le_bytes());
    }
    text(&mut hash, &schema.text);
    Digest(hash.digest128())
}

/// One series of a schema.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    schema: &'a Schema,
    /// The index of its layout in [`Schema::layouts`].
    pub layout_index: usize,
    first_label: usize,
    first_value: usize,
}

impl<'a> Series<'a> {
    /// Its label names and value layout.
    pub fn layout(&self) -> &'a SeriesLayout {
        &self.schema.layouts[self.layout_index]
    }

    /// Value number `i` of its labels, escaped as text prints it between quotes.
    pub fn escaped_value(&self, i: usize) -> &'a str {
        self.schema.value_text(self.first_label + i)
    }

    /// Its labels, sorted by name, values unescaped.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, Cow<'a, str>)> + use<'a> {
        let series = *self;
        let names = &series.layout().names;
        (0..names.len()).map(move |i| (&*names[i], label::unescape_value(series.escaped_value(i))))
    }

    /// The range of its values among those of the family.
    pub fn values(&self) -> std::ops::Range<usize> {
        self.first_value..self.first_value + self.layout().values.len()
    }
}

/// Iterates over [`Series`].
#[derive(Clone, Debug)]
pub struct SeriesIter<'a> {
    schema: &'a Schema,
    index: usize,
    value: usize,
}

impl<'a> Iterator for SeriesIter<'a> {
    type Item = Series<'a>;

    fn next(&mut self) -> Option<Series<'a>> {
        if self.index >= self.schema.series_len() {
            return None;
        }
        let (layout_index, first_label) = self.schema.at(self.index);
        let series = Series { schema: self.schema, layout_index, first_label, first_value: self.value };
        self.index += 1;
        self.value += series.layout().values.len();
        Some(series)
    }
}
