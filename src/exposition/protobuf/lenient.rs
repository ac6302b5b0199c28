//! A metric's message without the fields that are of another kind than the definition has.
//!
//! To the original such a field is an unknown one, which changes nothing; it even shows it again. Strict readers, among them
//! Prometheus and the decoder used here, take a message that has one for damaged. So it is left out.

use super::wire::{Fields, InvalidWire, Value, put_varint};

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Varint,
    Double,
    Bytes,
    /// A list of varints, which may be packed.
    Varints,
    /// A list of doubles, which may be packed.
    Doubles,
    Message(Definition),
}

/// The fields that there are.
pub(super) type Definition = &'static [(u32, Kind)];

const TIMESTAMP: Definition = &[(1, Kind::Varint), (2, Kind::Varint)];
const LABEL: Definition = &[(1, Kind::Bytes), (2, Kind::Bytes)];
const EXEMPLAR: Definition = &[(1, Kind::Message(LABEL)), (2, Kind::Double), (3, Kind::Message(TIMESTAMP))];
const VALUE: Definition = &[(1, Kind::Double)];
const COUNTER: Definition = &[(1, Kind::Double), (2, Kind::Message(EXEMPLAR)), (3, Kind::Message(TIMESTAMP))];
const QUANTILE: Definition = &[(1, Kind::Double), (2, Kind::Double)];
const SUMMARY: Definition =
    &[(1, Kind::Varint), (2, Kind::Double), (3, Kind::Message(QUANTILE)), (4, Kind::Message(TIMESTAMP))];
const SPAN: Definition = &[(1, Kind::Varint), (2, Kind::Varint)];
const BUCKET: Definition = &[(1, Kind::Varint), (2, Kind::Double), (3, Kind::Message(EXEMPLAR)), (4, Kind::Double)];
const HISTOGRAM: Definition = &[
    (1, Kind::Varint),
    (2, Kind::Double),
    (3, Kind::Message(BUCKET)),
    (4, Kind::Double),
    (5, Kind::Varint),
    (6, Kind::Double),
    (7, Kind::Varint),
    (8, Kind::Double),
    (9, Kind::Message(SPAN)),
    (10, Kind::Varints),
    (11, Kind::Doubles),
    (12, Kind::Message(SPAN)),
    (13, Kind::Varints),
    (14, Kind::Doubles),
    (15, Kind::Message(TIMESTAMP)),
    (16, Kind::Message(EXEMPLAR)),
];
pub(super) const METRIC: Definition = &[
    (1, Kind::Message(LABEL)),
    (2, Kind::Message(VALUE)),
    (3, Kind::Message(COUNTER)),
    (4, Kind::Message(SUMMARY)),
    (5, Kind::Message(VALUE)),
    (6, Kind::Varint),
    (7, Kind::Message(HISTOGRAM)),
];

/// The message of a metric without its mistyped fields. Unknown ones stay.
pub(super) fn well_typed(metric: &[u8]) -> Result<Vec<u8>, InvalidWire> {
    sift(metric, METRIC)
}

fn sift(message: &[u8], definition: Definition) -> Result<Vec<u8>, InvalidWire> {
    let mut kept = Vec::with_capacity(message.len());
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        let kind = definition.iter().find(|(number, _)| *number == field.number).map(|(_, kind)| *kind);
        match (kind, field.value) {
            (Some(Kind::Message(definition)), Value::Bytes(inner)) => {
                let inner = sift(inner, definition)?;
                put_varint(u64::from(field.number) << 3 | 2, &mut kept);
                put_varint(inner.len() as u64, &mut kept);
                kept.extend(inner);
            }
            (Some(kind), _) if !kind.is_written_as(field.kind) => {}
            _ => kept.extend_from_slice(&message[field.range]),
        }
    }
    Ok(kept)
}

impl Kind {
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
