//! The two ends of one direction of a link: one raw deflate stream (RFC 1951) for the lifetime of a connection.
//!
//! Each message is compressed relative to everything sent before it and ends with a sync flush (an empty stored
//! block), so that the receiver can decompress it as soon as it has arrived. The last four bytes of the flush, `00 00
//! ff ff`, are always the same: the sender omits them and the receiver adds them. The stream never has a final block.

use flate2::{Compress, Compression, Decompress, FlushCompress};

use super::DecompressError;
use super::deflate::{Inflated, deflate, inflate};

/// The last bytes of a sync flush.
const FLUSH_MARK: &[u8] = b"\0\0\xff\xff";

/// The sending end.
pub struct Deflater(Compress);

impl Deflater {
    /// A new stream at that level (0 to 9; more counts as 9).
    pub fn new(level: u32) -> Self {
        Self(Compress::new(Compression::new(level.min(9)), false))
    }

    /// Appends the next message, compressed and flushed, to `out`.
    pub fn compress(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        deflate(&mut self.0, message, FlushCompress::Sync, out);
        // An empty message after a flush takes no bytes at all.
        if out[start..].ends_with(FLUSH_MARK) {
            out.truncate(out.len() - FLUSH_MARK.len());
        }
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

    /// Appends the next message, the whole decompressed `chunk`, to `out`.
    ///
    /// # Errors
    /// If the chunk is damaged, ends the stream, or has more than `bytes_max` bytes after decompression. The stream is
    /// then useless, and `out` is unchanged.
    pub fn decompress(&mut self, chunk: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), DecompressError> {
        let start = out.len();
        if chunk.is_empty() {
            return Ok(());
        }
        for part in [chunk, FLUSH_MARK] {
            let room = bytes_max - (out.len() - start);
            let inflated = inflate(&mut self.0, part, out, room);
            if !matches!(inflated, Ok(Inflated { ended: false, .. })) {
                out.truncate(start);
                inflated.map_err(|error| match error {
                    DecompressError::TooLarge { .. } => DecompressError::TooLarge { bytes_max },
                    other => other,
                })?;
                return Err(DecompressError::StreamEnded);
            }
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
        fn a_cut_message_is_an_error_or_bounded_nonsense(message: Vec<u8>, cut: prop::sample::Index) {
            let wire = compressed(&mut Deflater::new(6), &message);
            let (mut inflater, mut got) = (Inflater::new(), Vec::new());
            let _ = inflater.decompress(&wire[..cut.index(wire.len())], &mut got, message.len());
            prop_assert!(got.len() <= message.len());
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
        assert!(!first.ends_with(FLUSH_MARK) && !second.ends_with(FLUSH_MARK));
        assert!(second.len() * 10 < first.len(), "{} then {}", first.len(), second.len());
    }

    #[test]
    fn a_bomb_stops_at_the_bound_and_leaves_the_output_alone() {
        let wire = compressed(&mut Deflater::new(9), &vec![0; 8 << 20]);
        let mut got = b"kept".to_vec();
        let error = Inflater::new().decompress(&wire, &mut got, 1 << 16).unwrap_err();
        assert_eq!(error, DecompressError::TooLarge { bytes_max: 1 << 16 });
        assert_eq!(got, b"kept");
        assert!(got.capacity() <= 4 << 16);
    }

    #[test]
    fn corruption_and_a_final_block_are_errors() {
        let mut got = Vec::new();
        let corrupt = Inflater::new().decompress(&[0xff; 8], &mut got, NO_LIMIT).unwrap_err();
        assert!(matches!(corrupt, DecompressError::Deflate { .. }));
        let ended = Inflater::new().decompress(&[1, 0, 0, 0xff, 0xff], &mut got, NO_LIMIT).unwrap_err();
        assert_eq!(ended, DecompressError::StreamEnded);
        assert!(got.is_empty());
    }
}
