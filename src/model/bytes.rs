//! The primitives of the model's encodings, for disk and link.
//!
//! A *number* is an unsigned integer in groups of seven bits, lowest first, each but the last with its top bit set
//! (LEB128; at most ten bytes). A *text* is its length in bytes as a number, then UTF-8. A *fixed* integer or float is
//! little endian. Reading never reserves more memory than there are bytes left to read.

use thiserror::Error;

/// The reason for which bytes are no valid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The bytes end inside the named thing.
    #[error("the bytes end inside of {0}")]
    Short(&'static str),
    /// A number is longer than ten bytes, or larger than the named thing can be.
    #[error("{0} is larger than its encoding allows")]
    TooLarge(&'static str),
    /// The named thing breaks a rule of its encoding.
    #[error("{0} breaks the rules of its encoding")]
    Invalid(&'static str),
}

/// Appends a number.
pub fn put_number(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// The bytes that a length or an index takes as a number.
pub fn number_len(count: usize) -> usize {
    (count.checked_ilog2().unwrap_or(0) / 7 + 1) as usize
}

/// Appends a length or an index.
pub fn put_count(count: usize, into: &mut Vec<u8>) {
    put_number(count as u64, into);
}

/// Appends a text.
pub fn put_text(text: &str, into: &mut Vec<u8>) {
    put_block(text.as_bytes(), into);
}

/// Appends bytes, preceded by their count.
pub fn put_block(block: &[u8], into: &mut Vec<u8>) {
    put_count(block.len(), into);
    into.extend_from_slice(block);
}

/// Reads primitives from the front of a slice. Each method takes the name of the thing read, for the error.
#[derive(Clone, Copy, Debug)]
pub struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    /// A reader at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of bytes left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`Malformed::Short`] if the bytes end before that.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Short(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed::Short`] if the bytes end before that.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let (byte, rest) = self.rest.split_first().ok_or(Malformed::Short(what))?;
        self.rest = rest;
        Ok(*byte)
    }

    /// A number.
    ///
    /// # Errors
    /// The bytes end too early, or a number is too large.
    pub fn number(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed::TooLarge(what));
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::TooLarge(what))
    }

    /// The count of things that follow, each of which takes at least `each` bytes: never more than fit into the bytes
    /// left.
    ///
    /// # Errors
    /// The bytes end too early, or a number is too large.
    pub fn count(&mut self, each: usize, what: &'static str) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number(what)?).map_err(|_| Malformed::TooLarge(what))?;
        if count.checked_mul(each).is_none_or(|bytes| bytes > self.remaining()) {
            return Err(Malformed::Short(what));
        }
        Ok(count)
    }

    /// Bytes preceded by their count.
    ///
    /// # Errors
    /// The bytes end too early, or a number is too large.
    pub fn block(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.count(1, what)?;
        self.take(len, what)
    }

    /// A text.
    ///
    /// # Errors
    /// The bytes end too early, a number is too large, or the text is not UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.block(what)?).map_err(|_| Malformed::Invalid(what))
    }

    /// A fixed 64-bit integer.
    ///
    /// # Errors
    /// [`Malformed::Short`] if the bytes end before that.
    pub fn fixed64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A fixed 64-bit float, with its bits unchanged.
    ///
    /// # Errors
    /// [`Malformed::Short`] if the bytes end before that.
    pub fn float(&mut self, what: &'static str) -> Result<f64, Malformed> {
        self.array(what).map(f64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short(what))?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number in any::<u64>(), shift in 0..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put_number(number, &mut bytes);
            prop_assert_eq!(ByteReader::new(&bytes).number("n"), Ok(number));
            let cut = &bytes[..bytes.len() - 1];
            prop_assert_eq!(number_len(number as usize), bytes.len());
            prop_assert_eq!(ByteReader::new(cut).number("n"), Err(Malformed::Short("n")));
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        assert_eq!(ByteReader::new(&[0xff; 11]).number("n"), Err(Malformed::TooLarge("n")));
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert_eq!(ByteReader::new(&bytes).number("n"), Err(Malformed::TooLarge("n")));
        bytes[9] = 1;
        assert_eq!(ByteReader::new(&bytes).number("n"), Ok(u64::MAX));
    }

    #[test]
    fn a_count_is_never_more_than_the_bytes_can_hold() {
        assert_eq!(ByteReader::new(&[3, 0, 0, 0]).count(1, "n"), Ok(3));
        assert_eq!(ByteReader::new(&[3, 0, 0, 0]).count(2, "n"), Err(Malformed::Short("n")));
    }
}
