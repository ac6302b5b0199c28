//! Decompression of gzip bodies (RFC 1952).
//!
//! Bodies are read as Go's `compress/gzip` reads them, because Pushgateway uses it: a body may have several members,
//! each header and checksum is checked, and other bytes behind the last member are an error.

use flate2::{Crc, Decompress};

use super::DecompressError;
use super::deflate::inflate;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// The header that replies have: no flags, no time, no extra flags, system unknown.
pub(super) const HEADER: [u8; HEADER_BYTES] = [MAGIC[0], MAGIC[1], MAGIC[2], 0, 0, 0, 0, 0, 0, 255];
const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;
/// Maximum bytes of the name and of the comment in a header, each with its closing zero.
const HEADER_TEXT_BYTES_MAX: usize = 512;

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;

/// Decompresses a whole gzip body. Never allocates more than `bytes_max` bytes.
///
/// # Errors
/// If the body is not gzip, is damaged, or has more than `bytes_max` bytes after decompression.
pub fn gunzip(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecompressError> {
    if body.is_empty() {
        return Err(DecompressError::Empty);
    }
    let mut out = Vec::with_capacity(capacity(body, bytes_max));
    let mut decompress = Decompress::new(false);
    let mut rest = body;
    while !rest.is_empty() {
        decompress.reset(false);
        rest = &rest[header_len(rest)?..];
        let start = out.len();
        let member = inflate(&mut decompress, rest, &mut out, bytes_max - start).map_err(|e| whole(e, bytes_max))?;
        if !member.ended {
            return Err(DecompressError::Truncated);
        }
        rest = &rest[member.used..];
        let trailer = rest.first_chunk::<TRAILER_BYTES>().ok_or(DecompressError::Truncated)?;
        let mut crc = Crc::new();
        crc.update(&out[start..]);
        // The trailer has the length modulo 2^32.
        let length = (out.len() - start) as u32;
        if *trailer != trailer_of(crc.sum(), length) {
            return Err(DecompressError::GzipChecksum);
        }
        rest = &rest[TRAILER_BYTES..];
    }
    Ok(out)
}

/// Checks that `body` begins with a gzip header.
///
/// # Errors
/// If it does not.
pub fn check_gzip_header(body: &[u8]) -> Result<(), DecompressError> {
    if body.is_empty() { Err(DecompressError::Empty) } else { header_len(body).map(drop) }
}

/// The length in the last member's trailer, as far as it is plausible before decompression.
fn capacity(body: &[u8], bytes_max: usize) -> usize {
    let said = body.last_chunk().map_or(0, |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize);
    said.min(bytes_max).min(body.len().saturating_mul(16)).saturating_add(1)
}

/// The error with the bound of the whole body; a member is only given the rest that earlier members left.
fn whole(error: DecompressError, bytes_max: usize) -> DecompressError {
    match error {
        DecompressError::TooLarge { .. } => DecompressError::TooLarge { bytes_max },
        other => other,
    }
}

/// The length of the header at the beginning of `data`.
fn header_len(data: &[u8]) -> Result<usize, DecompressError> {
    let fixed: &[u8; HEADER_BYTES] = data.first_chunk().ok_or(DecompressError::Truncated)?;
    if fixed[..3] != MAGIC {
        return Err(DecompressError::GzipHeader);
    }
    let flags = fixed[3];
    let mut at = HEADER_BYTES;
    if flags & FLAG_EXTRA != 0 {
        let length: &[u8; 2] = data[at..].first_chunk().ok_or(DecompressError::Truncated)?;
        at += 2 + usize::from(u16::from_le_bytes(*length));
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            at += text_len(data.get(at..).ok_or(DecompressError::Truncated)?)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let rest = data.get(at..).ok_or(DecompressError::Truncated)?;
        let stored: &[u8; 2] = rest.first_chunk().ok_or(DecompressError::Truncated)?;
        let mut crc = Crc::new();
        crc.update(&data[..at]);
        if u32::from(u16::from_le_bytes(*stored)) != crc.sum() & 0xffff {
            return Err(DecompressError::GzipHeader);
        }
        at += 2;
    }
    if at > data.len() { Err(DecompressError::Truncated) } else { Ok(at) }
}

fn text_len(data: &[u8]) -> Result<usize, DecompressError> {
    let window = &data[..data.len().min(HEADER_TEXT_BYTES_MAX)];
    match window.iter().position(|&byte| byte == 0) {
        Some(at) => Ok(at + 1),
        None if window.len() == HEADER_TEXT_BYTES_MAX => Err(DecompressError::GzipHeader),
        None => Err(DecompressError::Truncated),
    }
}

pub(super) fn trailer_of(crc: u32, length: u32) -> [u8; TRAILER_BYTES] {
    (u64::from(length) << 32 | u64::from(crc)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compression::{FragmentEncoder, GzipMember};

    const NO_LIMIT: usize = 1 << 30;

    fn gzip(chunks: &[&[u8]], level: u32) -> Vec<u8> {
        let (mut out, mut encoder, mut member) = (Vec::new(), FragmentEncoder::new(level), GzipMember::new());
        for chunk in chunks {
            member.add(&encoder.encode(chunk), &mut out);
        }
        member.finish(&mut out);
        out
    }

    /// A member with every optional header field; the header's checksum is right.
    fn adorned(data: &[u8]) -> Vec<u8> {
        let plain = gzip(&[data], 6);
        let mut body = plain[..HEADER_BYTES].to_vec();
        body[3] = FLAG_EXTRA | FLAG_NAME | FLAG_COMMENT | FLAG_HEADER_CRC;
        body.extend_from_slice(b"\x03\0xyzname\0comment\0");
        let mut crc = Crc::new();
        crc.update(&body);
        body.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
        body.extend_from_slice(&plain[HEADER_BYTES..]);
        body
    }

    proptest! {
        #[test]
        fn round_trip(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5),
            level in 0u32..12,
            repeat in 1usize..100,
        ) {
            let long: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.repeat(repeat)).collect();
            let slices: Vec<&[u8]> = long.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(gunzip(&gzip(&slices, level), NO_LIMIT).unwrap(), long.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, flags: u8) {
            let _ = gunzip(&bytes, 1000);
            let headed = [&MAGIC[..], &[flags, 0, 0, 0, 0, 0, 0], &bytes].concat();
            let _ = gunzip(&headed, 1000);
        }
    }

    #[test]
    fn members_follow_each_other() {
        let body = [gzip(&[b"a 1\n"], 1), gzip(&[], 1), adorned(b"b 2\n")].concat();
        assert_eq!(gunzip(&body, NO_LIMIT).unwrap(), b"a 1\nb 2\n");
        assert_eq!(gunzip(&body, 8).unwrap().len(), 8);
        assert_eq!(gunzip(&body, 7), Err(DecompressError::TooLarge { bytes_max: 7 }));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let body = adorned(b"some_metric 3.14\n");
        for cut in 1..body.len() {
            assert_eq!(gunzip(&body[..cut], NO_LIMIT), Err(DecompressError::Truncated), "cut at {cut}");
        }
        assert_eq!(gunzip(b"", NO_LIMIT), Err(DecompressError::Empty));
    }

    #[test]
    fn bytes_after_the_last_member_must_be_a_member() {
        let body = gzip(&[b"a 1\n"], 1);
        let trailed = |tail: &[u8]| gunzip(&[&body[..], tail].concat(), NO_LIMIT);
        assert_eq!(trailed(&[0; 16]), Err(DecompressError::GzipHeader));
        assert_eq!(trailed(b"0123456789"), Err(DecompressError::GzipHeader));
        assert_eq!(trailed(b"012345678"), Err(DecompressError::Truncated));
        assert_eq!(gunzip(b"some_metric 3.14\n", NO_LIMIT), Err(DecompressError::GzipHeader));
    }

    #[test]
    fn every_flipped_bit_of_the_sums_is_noticed() {
        let body = adorned(b"some_metric 3.14\n");
        for at in body.len() - TRAILER_BYTES..body.len() {
            let mut bad = body.clone();
            bad[at] ^= 1;
            assert_eq!(gunzip(&bad, NO_LIMIT), Err(DecompressError::GzipChecksum));
        }
        let mut bad = body.clone();
        bad[5] ^= 1;
        assert_eq!(gunzip(&bad, NO_LIMIT), Err(DecompressError::GzipHeader));
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let zeros = vec![0; 4 << 20];
        let bomb = gzip(&[&zeros], 9);
        assert!(bomb.len() < zeros.len() / 500);
        assert_eq!(gunzip(&bomb, 1 << 20), Err(DecompressError::TooLarge { bytes_max: 1 << 20 }));
        assert_eq!(gunzip(&bomb, zeros.len()).unwrap(), zeros);
    }

    #[test]
    fn corrupt_data_differs_from_a_wrong_sum() {
        let mut body = gzip(&[b"a 1\n"], 1);
        body[HEADER_BYTES] = 0xff;
        assert!(matches!(gunzip(&body, NO_LIMIT), Err(DecompressError::Deflate { .. })));
    }
}
