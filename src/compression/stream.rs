//! The two ends of one direction of a link: one raw deflate stream (RFC 1951) for the life of a connection.
//!
//! Each message is compressed against everything sent before it and closed by a sync flush (an empty stored block, whose
//! last four bytes are `00 00 ff ff`), so that all of it can be decompressed when it has arrived. The stream never has a
//! final block.

use flate2::{Compress, Compression, Decompress, FlushCompress};

use super::Error;
use super::deflate::{deflate, inflate};

/// The sending end.
pub struct Deflater(Compress);

impl Deflater {
    /// A new stream at that level (0 to 9; more counts as 9).
    pub fn new(level: u32) -> Self {
        Self(Compress::new(Compression::new(level.min(9)), false))
    }

    /// Appends the next message, compressed and flushed, to `out`.
    pub fn compress(&mut self, message: &[u8], out: &mut Vec<u8>) {
        deflate(&mut self.0, message, FlushCompress::Sync, out);
    }

    /// Bytes before and after compression since the connection began.
    pub fn totals(&self) -> (u64, u64) {
        (self.0.total_in(), self.0.total_out())
    }
}

/// The receiving end.
pub struct Inflater(Decompress);

impl Inflater {
    /// A new stream.
    pub fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Appends what the next `chunk` of the stream decompresses to, at most `bytes_max` bytes, to `out`.
    ///
    /// After an error the stream is of no more use, and `out` is as it was.
    pub fn decompress(&mut self, chunk: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Error> {
        let start = out.len();
        let inflated = inflate(&mut self.0, chunk, out, bytes_max)?;
        if inflated.ended {
            out.truncate(start);
            return Err(Error::StreamEnded);
        }
        Ok(())
    }

    /// Bytes before and after decompression since the connection began.
    pub fn totals(&self) -> (u64, u64) {
        (self.0.total_in(), self.0.total_out())
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Deflater").field(&self.totals()).finish()
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Inflater").field(&self.totals()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_LIMIT: usize = 1 << 30;
    const FLUSH_MARK: &[u8] = b"\0\0\xff\xff";

    fn compressed(deflater: &mut Deflater, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        deflater.compress(message, &mut out);
        out
    }

    proptest! {
        #[test]
        fn each_message_arrives_with_its_last_byte(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10),
            repeat in 1usize..100,
            level in 0u32..10,
            room in 0usize..3000,
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(level), Inflater::new());
            for message in &messages {
                let message = message.repeat(repeat);
                let mut wire = Vec::with_capacity(room);
                deflater.compress(&message, &mut wire);
                let mut got = b"kept".to_vec();
                inflater.decompress(&wire, &mut got, message.len()).unwrap();
                prop_assert_eq!(&got[4..], message);
            }
            prop_assert_eq!(deflater.totals(), (inflater.totals().1, inflater.totals().0));
        }

        #[test]
        fn chunks_may_be_cut_anywhere(message: Vec<u8>, cut: prop::sample::Index) {
            let wire = compressed(&mut Deflater::new(6), &message);
            let (head, tail) = wire.split_at(cut.index(wire.len()));
            let (mut inflater, mut got) = (Inflater::new(), Vec::new());
            inflater.decompress(head, &mut got, NO_LIMIT).unwrap();
            inflater.decompress(tail, &mut got, NO_LIMIT).unwrap();
            prop_assert_eq!(got, message);
        }

        #[test]
        fn no_bytes_make_it_panic(chunks: Vec<Vec<u8>>) {
            let (mut inflater, mut got) = (Inflater::new(), Vec::new());
            for chunk in &chunks {
                let before = got.len();
                let _ = inflater.decompress(chunk, &mut got, 1000);
                prop_assert!(got.len() - before <= 1000);
            }
        }
    }

    #[test]
    fn a_repeated_message_costs_little() {
        let mut deflater = Deflater::new(6);
        let message: Vec<u8> = (0u16..500).flat_map(|n| n.wrapping_mul(40503).to_le_bytes()).collect();
        let first = compressed(&mut deflater, &message);
        let second = compressed(&mut deflater, &message);
        assert!(first.ends_with(FLUSH_MARK) && second.ends_with(FLUSH_MARK));
        assert!(second.len() * 10 < first.len(), "{} then {}", first.len(), second.len());
    }

    #[test]
    fn a_truncated_message_yields_only_what_came() {
        let message = b"some_metric 3.14\nanother_metric 2\n";
        let wire = compressed(&mut Deflater::new(6), message);
        for cut in 0..wire.len() {
            let mut got = Vec::new();
            Inflater::new().decompress(&wire[..cut], &mut got, NO_LIMIT).unwrap();
            assert!(message.starts_with(&got), "cut at {cut}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound_and_leaves_the_output_alone() {
        let wire = compressed(&mut Deflater::new(9), &vec![0; 8 << 20]);
        let mut got = b"kept".to_vec();
        let error = Inflater::new().decompress(&wire, &mut got, 1 << 16).unwrap_err();
        assert_eq!(error, Error::TooLarge { bytes_max: 1 << 16 });
        assert_eq!(got, b"kept");
        assert!(got.capacity() <= 4 << 16);
    }

    #[test]
    fn corruption_and_a_final_block_are_errors() {
        let mut got = Vec::new();
        let corrupt = Inflater::new().decompress(&[0xff; 8], &mut got, NO_LIMIT).unwrap_err();
        assert!(matches!(corrupt, Error::Deflate { .. }));
        let ended = Inflater::new().decompress(&[1, 0, 0, 0xff, 0xff], &mut got, NO_LIMIT).unwrap_err();
        assert_eq!(ended, Error::StreamEnded);
        assert!(got.is_empty());
    }
}
