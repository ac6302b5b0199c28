//! How many parts a metric's message has, counted before it is decoded: a part takes a byte there and up to a hundred once
//! it is decoded.

use super::lenient::{Definition, Kind, METRIC};
use super::wire::{Fields, Malformed, Value};

/// How many messages (buckets, quantiles, spans, exemplars and their labels, …) and entries of lists there are in the
/// message of a metric. Unknown fields are none.
pub(super) fn count(metric: &[u8]) -> Result<usize, Malformed> {
    count_in(metric, METRIC)
}

fn count_in(message: &[u8], definition: Definition) -> Result<usize, Malformed> {
    let mut parts = 0;
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        let kind = definition.iter().find(|(number, _)| *number == field.number).map(|(_, kind)| *kind);
        parts += match (kind, field.value) {
            (Some(Kind::Message(definition)), Value::Bytes(inner)) => 1 + count_in(inner, definition)?,
            // A varint ends with a byte under 0x80.
            (Some(Kind::Varints), Value::Bytes(packed)) => packed.iter().filter(|byte| **byte < 0x80).count(),
            (Some(Kind::Doubles), Value::Bytes(packed)) => packed.len() / size_of::<f64>(),
            (Some(Kind::Varints | Kind::Doubles), _) => 1,
            _ => 0,
        };
    }
    Ok(parts)
}
