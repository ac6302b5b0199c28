//! Raw deflate: the two loops that all other files of this module use.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::DecompressError;

/// Minimum space to offer at a time, so that no loop advances byte by byte.
const STEP_BYTES: usize = 1 << 10;
/// Maximum space to offer at a time; beyond it a vector grows by doubling.
const STEP_BYTES_MAX: usize = 1 << 16;

/// The position at which [`inflate`] stopped.
pub(super) struct Inflated {
    /// Bytes of the input that were used: all of them unless the stream ended.
    pub(super) used: usize,
    /// Whether the final block was read.
    pub(super) ended: bool,
}

/// Appends `input`, compressed, to `out`, and flushes as `flush` says.
pub(super) fn deflate(compress: &mut Compress, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let mut at = 0;
    loop {
        if out.len() == out.capacity() {
            out.reserve(((input.len() - at) / 4).clamp(STEP_BYTES, STEP_BYTES_MAX));
        }
        let (total_in, total_out) = (compress.total_in(), compress.total_out());
        let status = compress.compress_vec(&input[at..], out, flush).expect("only a stream already finished can fail");
        at += (compress.total_in() - total_in) as usize;
        let stuck = at == input.len() && compress.total_out() == total_out;
        // Unused space shows that the compressor has no more output.
        let done = at == input.len() && out.len() < out.capacity() && flush != FlushCompress::Finish;
        if done || stuck || status == Status::StreamEnd {
            return;
        }
    }
}

/// Appends the decompressed `input`, at most `bytes_max` bytes, to `out`. On an error, `out` is unchanged.
pub(super) fn inflate(
    decompress: &mut Decompress,
    input: &[u8],
    out: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<Inflated, DecompressError> {
    let start = out.len();
    let mut used = 0;
    loop {
        if out.len() == out.capacity() {
            let guess = (input.len() - used).saturating_mul(4).clamp(STEP_BYTES, STEP_BYTES_MAX);
            // Space for one byte more than allowed shows whether there is more data.
            let allowed = (bytes_max - (out.len() - start)).saturating_add(1);
            out.reserve(guess.min(allowed));
        }
        let (total_in, total_out) = (decompress.total_in(), decompress.total_out());
        let result = decompress.decompress_vec(&input[used..], out, FlushDecompress::None);
        used += (decompress.total_in() - total_in) as usize;
        let Ok(status) = result else {
            out.truncate(start);
            return Err(DecompressError::Deflate { offset: used });
        };
        if out.len() - start > bytes_max {
            out.truncate(start);
            return Err(DecompressError::TooLarge { bytes_max });
        }
        let ended = status == Status::StreamEnd;
        let stuck = decompress.total_in() == total_in && decompress.total_out() == total_out;
        let done = used == input.len() && out.len() < out.capacity();
        if ended || done || stuck {
            return Ok(Inflated { used, ended });
        }
    }
}
