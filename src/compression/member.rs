//! One gzip member put together of pieces that were compressed apart.
//!
//! A piece is whole deflate blocks that refer to nothing before them and end on a byte (they are flushed, and what the
//! compressor knew is forgotten). So pieces can be kept, used again in other members, and stand in any order; the
//! checksum of the whole is combined from theirs (RFC 1952 needs no more).

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::deflate::deflate;
use super::gzip::{HEADER, trailer_of};

/// The level at which replies are compressed: the fastest, at most of the gain.
pub const LEVEL_DEFAULT: u32 = 1;

/// The last block of a deflate stream: with no data, by the fixed codes.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Data compressed by itself.
#[derive(Debug)]
pub struct Piece {
    blocks: Box<[u8]>,
    crc: Crc,
}

impl Piece {
    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.len()
    }
}

/// Compresses pieces; keeps its tables.
pub struct Packer(Compress);

impl Packer {
    /// A compressor at that level (0 to 9; more counts as 9).
    pub fn new(level: u32) -> Self {
        Self(Compress::new(Compression::new(level.min(9)), false))
    }

    /// Compresses `data`.
    pub fn pack(&mut self, data: &[u8]) -> Piece {
        let mut blocks = Vec::with_capacity(data.len() / 4);
        deflate(&mut self.0, data, FlushCompress::Full, &mut blocks);
        let mut crc = Crc::new();
        crc.update(data);
        Piece { blocks: blocks.into(), crc }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

/// A member in the making; what is ready is appended to the vectors given.
#[derive(Debug)]
pub struct Member {
    crc: Crc,
    started: bool,
}

impl Member {
    /// A member with nothing in it.
    pub fn new() -> Self {
        Self { crc: Crc::new(), started: false }
    }

    /// Appends the data of a piece.
    pub fn add(&mut self, piece: &Piece, out: &mut Vec<u8>) {
        self.start(out);
        self.crc.combine(&piece.crc);
        out.extend_from_slice(&piece.blocks);
    }

    /// Closes the member.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.start(out);
        out.extend_from_slice(&LAST_BLOCK);
        // Of the length, modulo 2^32, as the checksum counted it.
        out.extend_from_slice(&trailer_of(self.crc.sum(), self.crc.amount()));
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            out.extend_from_slice(&HEADER);
        }
    }
}

impl Default for Member {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::compression::{LEVEL_DEFAULT, gunzip};

    fn member(pieces: &[&Piece]) -> Vec<u8> {
        let (mut member, mut out) = (Member::new(), Vec::new());
        for piece in pieces {
            member.add(piece, &mut out);
        }
        member.finish(&mut out);
        out
    }

    fn assert_holds(member: &[u8], data: &[u8]) {
        assert_eq!(gunzip(member, data.len()).unwrap(), data);
        let mut other = Vec::new();
        flate2::read::GzDecoder::new(member).read_to_end(&mut other).unwrap();
        assert_eq!(other, data);
    }

    proptest! {
        #[test]
        fn pieces_stand_in_any_order(
            texts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), 1usize..3_000), 0..6),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            level in 0u32..10,
        ) {
            let texts: Vec<Vec<u8>> = texts.iter().map(|(text, times)| text.repeat(*times)).collect();
            let mut packer = Packer::new(level);
            let pieces: Vec<Piece> = texts.iter().map(|text| packer.pack(text)).collect();
            let order: Vec<usize> =
                if texts.is_empty() { Vec::new() } else { order.iter().map(|at| at.index(texts.len())).collect() };
            let data: Vec<u8> = order.iter().flat_map(|&at| texts[at].iter().copied()).collect();
            assert_holds(&member(&order.iter().map(|&at| &pieces[at]).collect::<Vec<_>>()), &data);
        }
    }

    #[test]
    fn another_decoder_takes_it() {
        let mut packer = Packer::new(LEVEL_DEFAULT);
        let text: Vec<u8> =
            (0..20_000).flat_map(|i| format!("metric{{series=\"{i}\"}} {}\n", i * 7919).into_bytes()).collect();
        let pieces = [packer.pack(&text), packer.pack(b""), packer.pack(&text[..100]), packer.pack(&text)];
        let member = member(&pieces.iter().collect::<Vec<_>>());
        assert_holds(&member, &[&text[..], &text[..100], &text].concat());
        let child = Command::new("gzip").arg("-t").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else { return eprintln!("skipped: there is no gzip on this machine") };
        child.stdin.take().unwrap().write_all(&member).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
