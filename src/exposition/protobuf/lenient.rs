//! Removes mistyped fields from a metric's message: fields whose wire type is not that of their definition.
//!
//! Pushgateway treats such a field as unknown, ignores it, and shows it again. Strict readers, Prometheus and the
//! decoder used here among them, reject the whole message. So it is removed.

use super::wire::{FieldReader, InvalidWire, WireValue, put_varint};

/// The type of a field.
#[derive(Clone, Copy)]
pub(super) enum FieldKind {
    Varint,
    Double,
    Bytes,
    /// A list of varints, which may be packed.
    Varints,
    /// A list of doubles, which may be packed.
    Doubles,
    Message(Definition),
}

/// The fields of a message, with their numbers.
pub(super) type Definition = &'static [(u32, FieldKind)];

const TIMESTAMP: Definition = &[(1, FieldKind::Varint), (2, FieldKind::Varint)];
const LABEL: Definition = &[(1, FieldKind::Bytes), (2, FieldKind::Bytes)];
const EXEMPLAR: Definition =
    &[(1, FieldKind::Message(LABEL)), (2, FieldKind::Double), (3, FieldKind::Message(TIMESTAMP))];
const VALUE: Definition = &[(1, FieldKind::Double)];
const COUNTER: Definition =
    &[(1, FieldKind::Double), (2, FieldKind::Message(EXEMPLAR)), (3, FieldKind::Message(TIMESTAMP))];
const QUANTILE: Definition = &[(1, FieldKind::Double), (2, FieldKind::Double)];
const SUMMARY: Definition = &[
    (1, FieldKind::Varint),
    (2, FieldKind::Double),
    (3, FieldKind::Message(QUANTILE)),
    (4, FieldKind::Message(TIMESTAMP)),
];
const SPAN: Definition = &[(1, FieldKind::Varint), (2, FieldKind::Varint)];
const BUCKET: Definition =
    &[(1, FieldKind::Varint), (2, FieldKind::Double), (3, FieldKind::Message(EXEMPLAR)), (4, FieldKind::Double)];
const HISTOGRAM: Definition = &[
    (1, FieldKind::Varint),
    (2, FieldKind::Double),
    (3, FieldKind::Message(BUCKET)),
    (4, FieldKind::Double),
    (5, FieldKind::Varint),
    (6, FieldKind::Double),
    (7, FieldKind::Varint),
    (8, FieldKind::Double),
    (9, FieldKind::Message(SPAN)),
    (10, FieldKind::Varints),
    (11, FieldKind::Doubles),
    (12, FieldKind::Message(SPAN)),
    (13, FieldKind::Varints),
    (14, FieldKind::Doubles),
    (15, FieldKind::Message(TIMESTAMP)),
    (16, FieldKind::Message(EXEMPLAR)),
];
pub(super) const METRIC: Definition = &[
    (1, FieldKind::Message(LABEL)),
    (2, FieldKind::Message(VALUE)),
    (3, FieldKind::Message(COUNTER)),
    (4, FieldKind::Message(SUMMARY)),
    (5, FieldKind::Message(VALUE)),
    (6, FieldKind::Varint),
    (7, FieldKind::Message(HISTOGRAM)),
];

/// Removes the mistyped fields from the message of a metric. Unknown fields stay.
pub(super) fn well_typed(metric: &[u8]) -> Result<Vec<u8>, InvalidWire> {
    remove_mistyped(metric, METRIC)
}

fn remove_mistyped(message: &[u8], definition: Definition) -> Result<Vec<u8>, InvalidWire> {
    let mut result = Vec::with_capacity(message.len());
    let mut fields = FieldReader::new(message);
    while let Some(field) = fields.next()? {
        let kind = definition.iter().find(|(number, _)| *number == field.number).map(|(_, kind)| *kind);
        match (kind, field.value) {
            (Some(FieldKind::Message(definition)), WireValue::Bytes(inner)) => {
                let inner = remove_mistyped(inner, definition)?;
                put_varint(u64::from(field.number) << 3 | 2, &mut result);
                put_varint(inner.len() as u64, &mut result);
                result.extend(inner);
            }
            (Some(kind), _) if !kind.is_written_as(field.kind) => {}
            _ => result.extend_from_slice(&message[field.range]),
        }
    }
    Ok(result)
}

impl FieldKind {
    fn is_written_as(self, wire_type: u8) -> bool {
        match self {
            Self::Varint => wire_type == 0,
            Self::Double => wire_type == 1,
            Self::Bytes | Self::Message(_) => wire_type == 2,
            Self::Varints => matches!(wire_type, 0 | 2),
            Self::Doubles => matches!(wire_type, 1 | 2),
        }
    }
}
