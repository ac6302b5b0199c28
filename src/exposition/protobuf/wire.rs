//! Protobuf's wire format: a reader of fields that borrows from the message, and functions that write fields.
//!
//! A message is read in place, field by field, so that fields cost no allocation. Field numbers are 1 to 2^29 - 1. A
//! group (an obsolete type of field) is skipped as one field.

use std::ops::Range;

/// The bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exposition) struct InvalidWire;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WireValue<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed-size value or a group; its content is not needed.
    Other,
}

/// A field, and its range in the message, tag included.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    /// The wire type.
    pub(super) kind: u8,
    pub(super) value: WireValue<'a>,
    pub(super) range: Range<usize>,
}

/// Reads the fields of a message.
pub(super) struct FieldReader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, length: message.len() }
    }

    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, InvalidWire> {
        const GROUP_DEPTH_MAX: usize = 100;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.length - self.rest.len();
        let (number, kind) = self.tag()?;
        let value = match kind {
            3 => {
                self.group(number, GROUP_DEPTH_MAX)?;
                WireValue::Other
            }
            kind => self.value(kind)?,
        };
        Ok(Some(Field { number, kind, value, range: start..self.length - self.rest.len() }))
    }

    fn tag(&mut self) -> Result<(u32, u8), InvalidWire> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number)).ok_or(InvalidWire)?;
        Ok((number, (tag & 7) as u8))
    }

    fn value(&mut self, kind: u8) -> Result<WireValue<'a>, InvalidWire> {
        match kind {
            0 => varint(&mut self.rest).map(WireValue::Varint),
            1 => self.take(8).map(|_| WireValue::Other),
            2 => {
                let length = varint(&mut self.rest)?;
                self.take(length).map(WireValue::Bytes)
            }
            5 => self.take(4).map(|_| WireValue::Other),
            _ => Err(InvalidWire),
        }
    }

    /// Skips a group, up to the end tag with its number.
    fn group(&mut self, number: u32, depth: usize) -> Result<(), InvalidWire> {
        if depth == 0 {
            return Err(InvalidWire);
        }
        loop {
            match self.tag()? {
                (end, 4) => return if end == number { Ok(()) } else { Err(InvalidWire) },
                (inner, 3) => self.group(inner, depth - 1)?,
                (_, kind) => {
                    self.value(kind)?;
                }
            }
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], InvalidWire> {
        let length = usize::try_from(length).map_err(|_| InvalidWire)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(InvalidWire)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Reads a varint, and removes it from `bytes`.
pub(in crate::exposition) fn varint(bytes: &mut &[u8]) -> Result<u64, InvalidWire> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(10).enumerate() {
        // The tenth byte holds the last bit.
        if at == 9 && byte > 1 {
            return Err(InvalidWire);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(InvalidWire)
}

pub(in crate::exposition) fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// The number of bytes of a varint.
pub(in crate::exposition) fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a varint field. Its number must be under 16.
pub(in crate::exposition) fn put_uint(number: u8, value: u64, into: &mut Vec<u8>) {
    into.push(number << 3);
    put_varint(value, into);
}

/// Appends a double field. Its number must be under 16.
pub(in crate::exposition) fn put_double(number: u8, value: f64, into: &mut Vec<u8>) {
    into.push(number << 3 | 1);
    into.extend_from_slice(&value.to_le_bytes());
}

/// Appends a length-delimited field. Its number must be under 16.
pub(in crate::exposition) fn put_bytes(number: u8, bytes: &[u8], into: &mut Vec<u8>) {
    put_length(number, bytes.len(), into);
    into.extend_from_slice(bytes);
}

/// Appends tag and length of a length-delimited field. Its number must be under 16.
pub(in crate::exposition) fn put_length(number: u8, length: usize, into: &mut Vec<u8>) {
    into.push(number << 3 | 2);
    put_varint(length as u64, into);
}

/// The number of bytes of a length-delimited field. Its number must be under 16.
pub(in crate::exposition) fn bytes_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_are_bounded() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            assert_eq!(bytes.len(), varint_len(value));
            assert_eq!(varint(&mut &bytes[..]), Ok(value));
            for end in 0..bytes.len() {
                assert_eq!(varint(&mut &bytes[..end]), Err(InvalidWire));
            }
        }
        assert_eq!(varint(&mut &[0xff; 11][..]), Err(InvalidWire));
        assert_eq!(varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), Err(InvalidWire));
    }

    #[test]
    fn groups_are_skipped_to_a_bounded_depth() {
        let mut fields = FieldReader::new(&[0x0b, 0x13, 0x08, 1, 0x14, 0x0c, 0x10, 5]);
        assert_eq!(fields.next().unwrap().unwrap().value, WireValue::Other);
        assert_eq!(fields.next().unwrap().unwrap().value, WireValue::Varint(5));
        assert!(FieldReader::new(&[0x0b, 0x14]).next().is_err());
        assert!(FieldReader::new(&[0x0b; 1_000]).next().is_err());
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error() {
        assert!(FieldReader::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]).next().is_err());
        assert!(FieldReader::new(&[0x02, 0]).next().is_err());
    }
}
