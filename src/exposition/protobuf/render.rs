//! Writes one `MetricFamily` message per metric name: binary after its length, or as protobuf's text.
//!
//! Fields are in the order of their numbers, as Go writes them. The unit is left out, as in Pushgateway's gatherer.

use prost::Message;

use super::message::Metric;
use super::print;
use super::wire::{bytes_len, put_bytes, put_double, put_length, put_uint, put_varint, varint_len};
use crate::exposition::labels::{self, ShownLabel};
use crate::exposition::name::Escaping;
use crate::model::{Family, LabelSet, MetricType, Schema, Series, ValueLayout};

/// The form of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Delimited,
    Text,
    CompactText,
}

/// Writes families, and reuses its buffers.
#[derive(Debug)]
pub struct ProtobufRenderer {
    escaping: Escaping,
    style: Style,
    labels: Vec<LabelPiece>,
    metric: Vec<u8>,
}

/// A label of all series of a layout in a group.
#[derive(Debug)]
enum LabelPiece {
    /// The whole field.
    Group(Vec<u8>),
    /// The field of the name, and the index of the series' label that has the value.
    Own(Vec<u8>, usize),
}

impl ProtobufRenderer {
    /// Binary messages, each after its length.
    pub fn delimited(escaping: Escaping) -> Self {
        Self { escaping, style: Style::Delimited, labels: Vec::new(), metric: Vec::new() }
    }

    /// Protobuf's text, on several lines a message.
    pub fn text(escaping: Escaping) -> Self {
        Self { style: Style::Text, ..Self::delimited(escaping) }
    }

    /// Protobuf's text, on one line a message.
    pub fn compact_text(escaping: Escaping) -> Self {
        Self { style: Style::CompactText, ..Self::delimited(escaping) }
    }

    /// Appends the message of one metric name: help and type of `head`, then the metrics of each family with the labels
    /// of its group. Appends nothing if there is no metric.
    pub fn block<'a>(
        &mut self,
        head: &Schema,
        families: impl IntoIterator<Item = (&'a LabelSet, &'a Family)>,
        into: &mut Vec<u8>,
    ) {
        let mut families = families.into_iter().filter(|family| family.1.schema().series_len() > 0).peekable();
        if families.peek().is_none() {
            return;
        }
        let start = into.len();
        self.head(head, into);
        for (group, family) in families {
            self.family(group, family, into);
        }
        match self.style {
            Style::Delimited => prefix_length(start, into),
            Style::Text | Style::CompactText => {
                let message = into.split_off(start);
                print::family(&message, self.style == Style::CompactText, into);
            }
        }
    }

    fn head(&self, schema: &Schema, into: &mut Vec<u8>) {
        put_bytes(1, self.escaping.escape(schema.name()).as_bytes(), into);
        if let Some(help) = schema.help() {
            put_bytes(2, help.as_bytes(), into);
        }
        put_uint(3, schema.metric_type() as u64, into);
    }

    fn family(&mut self, group: &LabelSet, family: &Family, into: &mut Vec<u8>) {
        let schema = family.schema();
        let mut layout_index = None;
        for (i, series) in schema.series().enumerate() {
            if layout_index != Some(series.layout_index) {
                layout_index = Some(series.layout_index);
                self.prepare(group, &series);
            }
            self.metric.clear();
            self.labels(&series);
            let raw_metric = family.raw_metrics().map(|raw_metrics| &*raw_metrics[i]).unwrap_or_default();
            if raw_metric.is_empty() {
                let values = &family.values()[series.values()];
                put_values(schema.metric_type(), &series.layout().values, values, &mut self.metric);
            } else {
                self.metric.extend_from_slice(raw_metric);
            }
            put_bytes(4, &self.metric, into);
        }
    }

    fn prepare(&mut self, group: &LabelSet, series: &Series) {
        self.labels.clear();
        for label in labels::shown(group, series.layout()) {
            let mut field = Vec::new();
            self.labels.push(match label {
                ShownLabel::Group(label) => {
                    let name = self.escaping.escape_label(label.name);
                    put_length(1, bytes_len(name.len()) + bytes_len(label.value.len()), &mut field);
                    put_bytes(1, name.as_bytes(), &mut field);
                    put_bytes(2, label.value.as_bytes(), &mut field);
                    LabelPiece::Group(field)
                }
                ShownLabel::Own { name, at } => {
                    put_bytes(1, self.escaping.escape_label(name).as_bytes(), &mut field);
                    LabelPiece::Own(field, at)
                }
            });
        }
    }

    fn labels(&mut self, series: &Series) {
        for piece in &self.labels {
            match piece {
                LabelPiece::Group(field) => self.metric.extend_from_slice(field),
                LabelPiece::Own(name, at) => {
                    let value = crate::model::label::unescape_value(series.escaped_value(*at));
                    put_length(1, name.len() + bytes_len(value.len()), &mut self.metric);
                    self.metric.extend_from_slice(name);
                    put_bytes(2, value.as_bytes(), &mut self.metric);
                }
            }
        }
    }
}

/// The field of a metric that holds its values.
fn put_values(metric_type: MetricType, points: &ValueLayout, values: &[f64], into: &mut Vec<u8>) {
    let number = match metric_type {
        MetricType::Gauge => 2,
        MetricType::Counter => 3,
        _ => 5,
    };
    match (points, values) {
        (ValueLayout::Single, [value]) => {
            put_length(number, 9, into);
            put_double(1, *value, into);
        }
        _ => into.extend_from_slice(&Metric::of(metric_type, points, values).encode_to_vec()),
    }
}

/// Puts the length of what stands from `start` on before it.
fn prefix_length(start: usize, into: &mut Vec<u8>) {
    let length = (into.len() - start) as u64;
    put_varint(length, into);
    into[start..].rotate_right(varint_len(length));
}
