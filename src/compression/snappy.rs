//! Snappy: the framing format of request bodies, and the block format of remote write.

use std::io::{ErrorKind, Read};

use snap::read::FrameDecoder;

use super::DecompressError;

/// Bytes that are decompressed between two checks of the bound.
const STEP_BYTES: usize = 1 << 16;

/// Decompresses a whole framed body. Never allocates more than `bytes_max` bytes and one frame. An empty body is valid
/// and has no data.
///
/// # Errors
/// If the body is not framed snappy, is damaged, or has more than `bytes_max` bytes after decompression.
pub fn unsnappy(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = FrameDecoder::new(body);
    let mut out = Vec::with_capacity(body.len().saturating_mul(2).min(bytes_max));
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = decoder.read(&mut step).map_err(|error| explain(&error))?;
        if read == 0 {
            return Ok(out);
        }
        if read > bytes_max - out.len() {
            return Err(DecompressError::TooLarge { bytes_max });
        }
        out.extend_from_slice(&step[..read]);
    }
}

/// Compresses data as one block, which is the body of a remote write.
///
/// # Panics
/// Never: only 4 GiB and more are too large for a block, and messages are far smaller.
pub fn snappy_block(data: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(data).expect("a message is far smaller than 4 GiB")
}

fn explain(error: &std::io::Error) -> DecompressError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<snap::Error>());
    match inner {
        Some(snap::Error::UnsupportedChunkType { .. }) => DecompressError::SnappyUnsupported,
        // A stream identifier of the wrong length, and data frames too short for their checksum, are corrupt, not
        // unsupported.
        Some(snap::Error::UnsupportedChunkLength { len, header: false }) if *len >= 4 => {
            DecompressError::SnappyUnsupported
        }
        _ => {
            debug_assert!(inner.is_some() || error.kind() == ErrorKind::UnexpectedEof, "a slice cannot fail otherwise");
            DecompressError::SnappyCorrupt
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const NO_LIMIT: usize = 1 << 30;
    const IDENTIFIER: &[u8] = b"\xff\x06\0\0sNaPpY";

    fn snappy(data: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(data).unwrap();
        encoder.into_inner().unwrap()
    }

    proptest! {
        #[test]
        fn round_trip(data: Vec<u8>, repeat in 1usize..500) {
            let long = data.repeat(repeat);
            prop_assert_eq!(unsnappy(&snappy(&long), NO_LIMIT).unwrap(), long);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = unsnappy(&bytes, 1000);
            let _ = unsnappy(&[IDENTIFIER, &bytes].concat(), 1000);
        }
    }

    #[test]
    fn every_truncation_but_between_frames_is_noticed() {
        let body = snappy(b"some_metric 3.14\n");
        for cut in 1..body.len() {
            let expected = if cut == IDENTIFIER.len() { Ok(vec![]) } else { Err(DecompressError::SnappyCorrupt) };
            assert_eq!(unsnappy(&body[..cut], NO_LIMIT), expected, "cut at {cut}");
        }
        assert_eq!(unsnappy(b"", NO_LIMIT), Ok(vec![]));
    }

    #[test]
    fn wrong_frames_are_distinguished() {
        let framed = |frame: &[u8]| unsnappy(&[IDENTIFIER, frame].concat(), NO_LIMIT);
        assert_eq!(framed(b"\x80\x02\0\0zz"), Ok(vec![]));
        assert_eq!(framed(b"\x02\x02\0\0zz"), Err(DecompressError::SnappyUnsupported));
        assert_eq!(framed(b"\x00\xff\xff\xff"), Err(DecompressError::SnappyUnsupported));
        assert_eq!(framed(b"\x01\x02\0\0zz"), Err(DecompressError::SnappyCorrupt));
        assert_eq!(framed(b"\x01\x05\0\0zzzza"), Err(DecompressError::SnappyCorrupt));
        assert_eq!(unsnappy(b"some_metric 3.14\n", NO_LIMIT), Err(DecompressError::SnappyCorrupt));
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let zeros = vec![0; 4 << 20];
        let bomb = snappy(&zeros);
        assert_eq!(unsnappy(&bomb, 1 << 20), Err(DecompressError::TooLarge { bytes_max: 1 << 20 }));
        assert_eq!(unsnappy(&bomb, zeros.len()).unwrap(), zeros);
    }
}
