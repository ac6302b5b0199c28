//! The encoding of a schema, on the disk and on the link.
//!
//! With the primitives of [`super::bytes`], a schema is
//!
//! ```text
//! schema  = type:byte flags:byte name:text [help:text] [unit:text]
//!          layouts:number layout{layouts}
//!          series:number [layout_of:number{series}]
//!          length:number{labels} values:text
//! layout = names:number name:text{names} value_layout:byte [numbers:number fixed float{numbers}]
//! ```
//!
//! - `type` is the number of `io.prometheus.client.MetricType`. `flags`: 1 a help follows, 2 a unit follows.
//! - Each layout lists label names in ascending order, none empty, none twice. `value_layout`: in the lowest two bits 0
//!   for one value (then nothing follows), 1 for a summary (its quantiles follow), 2 for a histogram (its bounds
//!   follow); 4 has a sum, 8 has a count, 16 has float counts (histograms only).
//! - `layout_of` gives each series the index of its layout; it is present only if there are several. Layouts are in the
//!   order in which series first use them, all are used, and none is there twice.
//! - `values` is all label values of all series in order, each escaped as the text format prints it between quotes;
//!   it is preceded by the length in bytes of each, as many as the layouts of the series have names.
//! - Series are in strictly ascending order: by number of labels, then escaped values, then names.
//!
//! Bytes that break one of these rules are refused, whatever their origin: a decoded schema has the same invariants as
//! one that was built.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::bytes::{ByteReader, Malformed, number_len, put_count, put_text};
use super::schema::{DerivedFields, MetricType, Num, Schema, SeriesLayout, ValueLayout};

const HELP: u8 = 1;
const UNIT: u8 = 2;

const SUMMARY: u8 = 1;
const HISTOGRAM: u8 = 2;
const SUM: u8 = 4;
const COUNT: u8 = 8;
const FLOAT: u8 = 16;

/// Appends the encoding of `schema`.
pub fn encode_schema(schema: &Schema, into: &mut Vec<u8>) {
    let flag = |present, flag| if present { flag } else { 0 };
    into.push(schema.metric_type as u8);
    into.push(flag(schema.help.is_some(), HELP) | flag(schema.unit.is_some(), UNIT));
    put_text(&schema.name, into);
    for text in [&schema.help, &schema.unit].into_iter().flatten() {
        put_text(text, into);
    }
    put_count(schema.layouts.len(), into);
    for layout in &schema.layouts {
        encode_layout(layout, into);
    }
    put_count(schema.series_len(), into);
    for index in &schema.layout_of {
        put_count(*index as usize, into);
    }
    let mut start = 0;
    for end in &schema.ends {
        put_count((end - start) as usize, into);
        start = *end;
    }
    put_text(&schema.text, into);
}

/// The length of that encoding, or slightly more: it overestimates only the lengths of label values that differ much.
/// O(layouts).
pub fn encoded_len_max(schema: &Schema) -> usize {
    const FIXED_BYTES: usize = 2;
    let text = |text: &str| number_len(text.len()) + text.len();
    let optional = |of: Option<&str>| of.map_or(0, text);
    let layout = |layout: &SeriesLayout| {
        let names: usize = layout.names.iter().map(|name| text(name)).sum();
        let value_layout = match &layout.values {
            ValueLayout::Single => 0,
            ValueLayout::Summary { quantiles: numbers, .. } | ValueLayout::Histogram { bounds: numbers, .. } => {
                number_len(numbers.len()) + size_of_val(&**numbers)
            }
        };
        number_len(layout.names.len()) + names + 1 + value_layout
    };
    let layouts: usize = schema.layouts.iter().map(layout).sum();
    // A length takes one byte, and at most one more for each 128 in it.
    let ends = schema.ends.len() + schema.text.len() / 128;
    let texts = text(&schema.name) + optional(schema.help()) + optional(schema.unit()) + text(&schema.text);
    let rows = schema.layout_of.len() * number_len(schema.layouts.len()) + ends;
    FIXED_BYTES + texts + number_len(schema.layouts.len()) + layouts + number_len(schema.series_len()) + rows
}

/// Decodes the schema at the front of `bytes`, and returns how many bytes it takes. Bytes of any origin are safe to
/// decode: the memory used is bounded by a small multiple of their length.
///
/// # Errors
/// The bytes break a rule of the encoding.
pub fn decode_schema(bytes: &[u8]) -> Result<(Schema, usize), Malformed> {
    let mut reader = ByteReader::new(bytes);
    let schema = read_schema(&mut reader)?;
    Ok((schema, bytes.len() - reader.remaining()))
}

fn encode_layout(layout: &SeriesLayout, into: &mut Vec<u8>) {
    put_count(layout.names.len(), into);
    for name in &layout.names {
        put_text(name, into);
    }
    let flag = |present: &bool, flag| if *present { flag } else { 0 };
    let (tag, numbers) = match &layout.values {
        ValueLayout::Single => return into.push(0),
        ValueLayout::Summary { quantiles, has_sum, has_count } => {
            (SUMMARY | flag(has_sum, SUM) | flag(has_count, COUNT), quantiles)
        }
        ValueLayout::Histogram { bounds, has_sum, has_count, float } => {
            (HISTOGRAM | flag(has_sum, SUM) | flag(has_count, COUNT) | flag(float, FLOAT), bounds)
        }
    };
    into.push(tag);
    put_count(numbers.len(), into);
    for number in numbers {
        into.extend_from_slice(&number.0.to_le_bytes());
    }
}

fn read_schema(reader: &mut ByteReader<'_>) -> Result<Schema, Malformed> {
    let metric_type = MetricType::from_number(reader.byte("the type of a schema")?.into())
        .ok_or(Malformed::Invalid("the type of a schema"))?;
    let flags = reader.byte("the flags of a schema")?;
    if flags & !(HELP | UNIT) != 0 {
        return Err(Malformed::Invalid("the flags of a schema"));
    }
    let name = reader.text("the name of a metric")?;
    if name.is_empty() {
        return Err(Malformed::Invalid("the name of a metric"));
    }
    let mut optional = |flag, what| if flags & flag == 0 { Ok(None) } else { reader.text(what).map(Some) };
    let (help, unit) = (optional(HELP, "a help")?, optional(UNIT, "a unit")?);
    let layouts = read_layouts(reader)?;
    let rows = read_rows(reader, &layouts)?;
    let ends = read_ends(reader, rows.labels_len)?;
    let text = reader.text("the label values of a schema")?;
    check_values(text, &ends)?;
    let schema = Schema {
        name: name.into(),
        metric_type,
        help: help.map(Into::into),
        unit: unit.map(Into::into),
        layouts,
        layout_of: rows.layout_of,
        first_label: rows.first_label,
        text: text.into(),
        ends,
        series_len: rows.series_len,
        values_len: rows.values_len,
        derived: DerivedFields::default(),
    };
    check_order(&schema)?;
    Ok(schema.with_derived_fields())
}

fn read_layouts(reader: &mut ByteReader<'_>) -> Result<Box<[SeriesLayout]>, Malformed> {
    const BYTES_MIN: usize = 2;
    let count = reader.count(BYTES_MIN, "the layouts of a schema")?;
    let mut layouts = Vec::new();
    for number in 1..=count {
        layouts.push(read_layout(reader)?);
        // Checked whenever the number has doubled, too: repeated bytes, such as zeros, must not become many layouts
        // first.
        if (number == count || number.is_power_of_two()) && layouts.iter().collect::<HashSet<_>>().len() < number {
            return Err(Malformed::Invalid("a layout that is there twice"));
        }
    }
    Ok(layouts.into())
}

fn read_layout(reader: &mut ByteReader<'_>) -> Result<SeriesLayout, Malformed> {
    const NAME: &str = "a label name";
    let count = reader.count(1, "the label names of a layout")?;
    let mut before = "";
    let names = (0..count).map(|_| {
        let name = reader.text(NAME)?;
        // This refuses an empty first name, too.
        if name <= before {
            return Err(Malformed::Invalid(NAME));
        }
        before = name;
        Ok(name.into())
    });
    let names: Box<[Box<str>]> = names.collect::<Result<_, _>>()?;
    const POINTS: &str = "the points of a layout";
    let tag = reader.byte(POINTS)?;
    if tag == 0 {
        return Ok(SeriesLayout { names, values: ValueLayout::Single });
    }
    let count = reader.count(size_of::<f64>(), POINTS)?;
    let numbers = (0..count).map(|_| reader.float(POINTS).map(Num)).collect::<Result<_, _>>()?;
    let (has_sum, has_count, float) = (tag & SUM != 0, tag & COUNT != 0, tag & FLOAT != 0);
    let value_layout = match tag & !(SUM | COUNT | FLOAT) {
        SUMMARY if !float => ValueLayout::Summary { quantiles: numbers, has_sum, has_count },
        HISTOGRAM => ValueLayout::Histogram { bounds: numbers, has_sum, has_count, float },
        _ => return Err(Malformed::Invalid(POINTS)),
    };
    Ok(SeriesLayout { names, values: value_layout })
}

/// The layouts and positions of the series.
struct Rows {
    layout_of: Box<[u32]>,
    first_label: Box<[u32]>,
    series_len: u32,
    labels_len: usize,
    values_len: u32,
}

fn read_rows(reader: &mut ByteReader<'_>, layouts: &[SeriesLayout]) -> Result<Rows, Malformed> {
    const SERIES: &str = "the number of series";
    const INDEX: &str = "the layout of a series";
    let series = u32::try_from(reader.number(SERIES)?).map_err(|_| Malformed::TooLarge(SERIES))?;
    let mut rows = Rows {
        layout_of: Box::default(),
        first_label: Box::default(),
        series_len: series,
        labels_len: 0,
        values_len: 0,
    };
    match layouts {
        [] if series == 0 => {}
        [only] if series > 0 => {
            rows.labels_len = only.names.len().checked_mul(series as usize).ok_or(Malformed::TooLarge(SERIES))?;
            let values = (series as usize).checked_mul(only.values.len()).and_then(|len| u32::try_from(len).ok());
            rows.values_len = values.ok_or(Malformed::TooLarge(SERIES))?;
        }
        [_, _, ..] if series as usize <= reader.remaining() => {
            let (mut layout_of, mut first_label, mut used) = (Vec::new(), Vec::new(), 0);
            for _ in 0..series {
                let index = reader.number(INDEX)?;
                let layout = usize::try_from(index).ok().filter(|index| *index <= used).and_then(|at| layouts.get(at));
                let layout = layout.ok_or(Malformed::Invalid(INDEX))?;
                used += usize::from(index == used as u64);
                layout_of.push(index as u32);
                first_label.push(u32::try_from(rows.labels_len).map_err(|_| Malformed::TooLarge(SERIES))?);
                rows.labels_len += layout.names.len();
                let values = u32::try_from(layout.values.len()).ok().and_then(|len| rows.values_len.checked_add(len));
                rows.values_len = values.ok_or(Malformed::TooLarge(SERIES))?;
            }
            if used != layouts.len() {
                return Err(Malformed::Invalid("a layout that no series has"));
            }
            (rows.layout_of, rows.first_label) = (layout_of.into(), first_label.into());
        }
        _ => return Err(Malformed::Invalid(SERIES)),
    }
    Ok(rows)
}

fn read_ends(reader: &mut ByteReader<'_>, count: usize) -> Result<Box<[u32]>, Malformed> {
    const LENGTH: &str = "the length of a label value";
    if count > reader.remaining() {
        return Err(Malformed::Short(LENGTH));
    }
    let mut end = 0u32;
    let ends = (0..count).map(|_| {
        let length = u32::try_from(reader.number(LENGTH)?).ok();
        end = length.and_then(|length| end.checked_add(length)).ok_or(Malformed::TooLarge(LENGTH))?;
        Ok(end)
    });
    ends.collect()
}

/// Checks that the ends cut `text` into values, each escaped as it must be.
fn check_values(text: &str, ends: &[u32]) -> Result<(), Malformed> {
    const VALUES: &str = "the label values of a schema";
    let whole = ends.last().map_or(0, |end| *end as usize) == text.len();
    if !whole || !ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
        return Err(Malformed::Invalid(VALUES));
    }
    let special = |byte: &u8| matches!(byte, b'\\' | b'"' | b'\n');
    if !text.as_bytes().iter().any(special) {
        return Ok(());
    }
    let mut start = 0;
    for end in ends {
        if !is_escaped(&text.as_bytes()[start..*end as usize]) {
            return Err(Malformed::Invalid(VALUES));
        }
        start = *end as usize;
    }
    Ok(())
}

fn is_escaped(mut value: &[u8]) -> bool {
    loop {
        value = match value {
            [] => return true,
            [b'\\', b'\\' | b'"' | b'n', rest @ ..] => rest,
            [b'\\' | b'"' | b'\n', ..] => return false,
            [_, rest @ ..] => rest,
        };
    }
}

fn check_order(schema: &Schema) -> Result<(), Malformed> {
    let ascending = (1..schema.series_len()).all(|at| schema.cmp_series(at - 1, at) == Ordering::Less);
    if ascending { Ok(()) } else { Err(Malformed::Invalid("the order of series")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Family, FamilyBuilder};

    fn value_layout() -> impl Strategy<Value = ValueLayout> {
        let numbers = proptest::collection::vec(any::<f64>().prop_map(Num), 0..3).prop_map(Vec::into_boxed_slice);
        let flags = any::<[bool; 3]>();
        prop_oneof![
            3 => Just(ValueLayout::Single),
            1 => (numbers.clone(), flags).prop_map(|(quantiles, [has_sum, has_count, _])| {
                ValueLayout::Summary { quantiles, has_sum, has_count }
            }),
            1 => (numbers, flags).prop_map(|(bounds, [has_sum, has_count, float])| {
                ValueLayout::Histogram { bounds, has_sum, has_count, float }
            }),
        ]
    }

    fn family() -> impl Strategy<Value = Family> {
        let value = prop_oneof!["[a-c]?", Just("\\".to_owned()), Just("é\"\n".to_owned())];
        let labels = proptest::collection::btree_map("[xyé]{1,2}", value, 0..4);
        let series = proptest::collection::vec((labels, value_layout()), 0..12);
        let text = proptest::option::of("[a-z\n]{0,8}");
        (series, text.clone(), text, 0..6).prop_map(|(series, help, unit, metric_type)| {
            let mut builder = FamilyBuilder::new("m", MetricType::from_number(metric_type).unwrap());
            builder.help(help.as_deref()).unit(unit.as_deref());
            let mut seen = HashSet::new();
            for (labels, value_layout) in series.iter().filter(|(labels, _)| seen.insert(labels.clone())) {
                let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                builder.series(&labels, value_layout, &vec![0.0; value_layout.len()], None);
            }
            builder.finish().unwrap()
        })
    }

    fn encoded(family: &Family) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_schema(family.schema(), &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn schemas_round_trip(family in family()) {
            let mut bytes = encoded(&family);
            let len = bytes.len();
            bytes.extend_from_slice(b"what follows");
            let (schema, taken) = decode_schema(&bytes).unwrap();
            prop_assert_eq!(taken, len);
            prop_assert!(schema.same(family.schema()));
            prop_assert_eq!(schema.values_len(), family.schema().values_len());
            let series = |schema: &Schema| schema.series().map(|s| format!("{:?}", s.values())).collect::<Vec<_>>();
            prop_assert_eq!(series(&schema), series(family.schema()));
            let labels_of = |series: crate::model::Series<'_>| format!("{:?}", series.labels().collect::<Vec<_>>());
            let labels = |schema: &Schema| schema.series().map(labels_of).collect::<Vec<_>>();
            prop_assert_eq!(labels(&schema), labels(family.schema()));
        }

        #[test]
        fn the_length_of_an_encoding_is_known_before(family in family(), long in 0..70_000usize) {
            let mut families = vec![family];
            let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
            for at in ["", "é\"\n", "x"] {
                let value = at.repeat(long);
                builder.series(&[("at", at), ("value", &value)], &ValueLayout::Single, &[0.0], None);
            }
            families.push(builder.finish().unwrap());
            for family in families {
                let (len, max) = (encoded(&family).len(), encoded_len_max(family.schema()));
                prop_assert!(len <= max && max <= len + len / 128, "{} of at most {}", len, max);
            }
        }

        #[test]
        fn a_cut_anywhere_is_refused(family in family()) {
            let bytes = encoded(&family);
            for len in 0..bytes.len() {
                prop_assert!(decode_schema(&bytes[..len]).is_err(), "cut to {}", len);
            }
        }

        #[test]
        fn a_decoded_schema_can_be_rebuilt(
            family in family(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = encoded(&family);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok((schema, _)) = decode_schema(&bytes) {
                let mut builder = FamilyBuilder::new(schema.name().clone(), schema.metric_type());
                builder.help(schema.help()).unit(schema.unit());
                for series in schema.series() {
                    let labels: Vec<_> = series.labels().collect();
                    let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
                    builder.series(&labels, &series.layout().values, &vec![0.0; series.layout().values.len()], None);
                }
                prop_assert!(builder.finish().unwrap().schema().same(&schema));
            }
        }
    }

    /// The reader stops at the first broken rule. The bytes end after it, which would be another error.
    #[test]
    fn repetition_is_refused_before_it_takes_memory() {
        let many = [0xff, 0xff, 0x3f];
        let layouts = [&[1, 0, 1, b'm'], &many[..], &[0; 4], &[0xff; 3 << 20]].concat();
        let twice = Malformed::Invalid("a layout that is there twice");
        assert_eq!(decode_schema(&layouts).unwrap_err(), twice);
        let names = [&[1, 0, 1, b'm', 1], &many[..], &[1, b'a', 1, b'a'], &[0xff; 3 << 20]].concat();
        assert_eq!(decode_schema(&names).unwrap_err(), Malformed::Invalid("a label name"));
        let empty = [&[1, 0, 1, b'm', 1], &many[..], &[0], &[0xff; 3 << 20]].concat();
        assert_eq!(decode_schema(&empty).unwrap_err(), Malformed::Invalid("a label name"));
    }

    #[test]
    fn more_series_than_the_bytes_can_hold_are_refused() {
        let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
        builder.series(&[], &ValueLayout::Single, &[0.0], None);
        let bytes = encoded(&builder.finish().unwrap());
        assert_eq!(bytes, [1, 0, 1, b'm', 1, 0, 0, 1, 0]);
        let many = [1, 0, 1, b'm', 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xf, 0];
        assert_eq!(decode_schema(&many).unwrap_err(), Malformed::Invalid("the order of series"));
        let labelled = [1, 0, 1, b'm', 1, 1, 1, b'x', 0, 0xff, 0xff, 0xff, 0xff, 0xf, 0];
        assert_eq!(decode_schema(&labelled).unwrap_err(), Malformed::Short("the length of a label value"));
    }
}
