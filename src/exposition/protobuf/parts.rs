//! Counts the parts of a metric's message before it is decoded: a part takes one byte there, and up to a hundred once
//! it is decoded.

use prost::Message;

use super::lenient::{Definition, FieldKind, METRIC};
use super::message::Metric;
use super::wire::{FieldReader, InvalidWire, WireValue};
use crate::exposition::PushLimits;

/// The number of messages (buckets, quantiles, spans, exemplars and their labels, …) and list entries in the message of
/// a metric. Unknown fields do not count.
pub(super) fn count(metric: &[u8]) -> Result<usize, InvalidWire> {
    count_in(metric, METRIC)
}

/// Whether the bytes are a valid raw metric ([`crate::model::RawMetrics`]): a bounded `Metric` message without labels,
/// which the series has already, and without a timestamp. Most metrics have none: empty bytes are valid.
pub fn is_raw_metric(metric: &[u8]) -> bool {
    let is_bounded = || count(metric).is_ok_and(|parts| parts <= PushLimits::default().parts_per_series_max);
    let is_bare = |metric: Metric| metric.label.is_empty() && metric.timestamp_ms.is_none();
    metric.is_empty() || (is_bounded() && Metric::decode(metric).is_ok_and(is_bare))
}

fn count_in(message: &[u8], definition: Definition) -> Result<usize, InvalidWire> {
    let mut parts = 0;
    let mut fields = FieldReader::new(message);
    while let Some(field) = fields.next()? {
        let kind = definition.iter().find(|(number, _)| *number == field.number).map(|(_, kind)| *kind);
        parts += match (kind, field.value) {
            (Some(FieldKind::Message(definition)), WireValue::Bytes(inner)) => 1 + count_in(inner, definition)?,
            // A varint ends with a byte under 0x80.
            (Some(FieldKind::Varints), WireValue::Bytes(packed)) => packed.iter().filter(|byte| **byte < 0x80).count(),
            (Some(FieldKind::Doubles), WireValue::Bytes(packed)) => packed.len() / size_of::<f64>(),
            (Some(FieldKind::Varints | FieldKind::Doubles), _) => 1,
            _ => 0,
        };
    }
    Ok(parts)
}
