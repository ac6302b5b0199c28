//! A gzip member made of fragments that were compressed separately.
//!
//! A fragment consists of whole deflate blocks that refer to nothing before them and end at a byte boundary (a full
//! flush resets the compressor). So fragments can be cached, reused in other members, and combined in any order. The
//! checksum of the member is combined from theirs; RFC 1952 needs no more.

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::deflate::deflate;
use super::gzip::{HEADER, trailer_of};

/// The compression level of replies: the fastest, with most of the gain.
pub const LEVEL_DEFAULT: u32 = 1;

/// The last block of a deflate stream: without data, with the fixed codes.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Data compressed by itself.
#[derive(Debug)]
pub struct Fragment {
    blocks: Box<[u8]>,
    crc: Crc,
}

impl Fragment {
    /// Bytes of memory that the fragment takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.len()
    }
}

/// Compresses fragments; reuses its tables.
pub struct FragmentEncoder(Compress);

impl FragmentEncoder {
    /// A compressor at that level (0 to 9; more counts as 9).
    pub fn new(level: u32) -> Self {
        Self(Compress::new(Compression::new(level.min(9)), false))
    }

    /// Compresses `data`.
    pub fn encode(&mut self, data: &[u8]) -> Fragment {
        let mut blocks = Vec::with_capacity(data.len() / 4);
        deflate(&mut self.0, data, FlushCompress::Full, &mut blocks);
        let mut crc = Crc::new();
        crc.update(data);
        Fragment { blocks: blocks.into(), crc }
    }
}

impl std::fmt::Debug for FragmentEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FragmentEncoder")
    }
}

/// An unfinished member; each call appends its output to the given vector.
#[derive(Debug)]
pub struct GzipMember {
    crc: Crc,
    /// Bytes of the data so far.
    bytes: u64,
    started: bool,
}

impl GzipMember {
    /// An empty member.
    pub fn new() -> Self {
        Self { crc: Crc::new(), bytes: 0, started: false }
    }

    /// Appends the data of a fragment.
    pub fn add(&mut self, fragment: &Fragment, out: &mut Vec<u8>) {
        self.start(out);
        self.crc.combine(&fragment.crc);
        self.bytes += u64::from(fragment.crc.amount());
        out.extend_from_slice(&fragment.blocks);
    }

    /// Bytes of the data so far, before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the member.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.start(out);
        out.extend_from_slice(&LAST_BLOCK);
        // The trailer has the length modulo 2^32, as the checksum counts it.
        out.extend_from_slice(&trailer_of(self.crc.sum(), self.crc.amount()));
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            out.extend_from_slice(&HEADER);
        }
    }
}

impl Default for GzipMember {
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

    fn member(fragments: &[&Fragment]) -> Vec<u8> {
        let (mut member, mut out) = (GzipMember::new(), Vec::new());
        for fragment in fragments {
            member.add(fragment, &mut out);
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
            let mut encoder = FragmentEncoder::new(level);
            let fragments: Vec<Fragment> = texts.iter().map(|text| encoder.encode(text)).collect();
            let order: Vec<usize> =
                if texts.is_empty() { Vec::new() } else { order.iter().map(|at| at.index(texts.len())).collect() };
            let data: Vec<u8> = order.iter().flat_map(|&at| texts[at].iter().copied()).collect();
            assert_holds(&member(&order.iter().map(|&at| &fragments[at]).collect::<Vec<_>>()), &data);
        }
    }

    #[test]
    fn another_decoder_takes_it() {
        let mut encoder = FragmentEncoder::new(LEVEL_DEFAULT);
        let text: Vec<u8> =
            (0..20_000).flat_map(|i| format!("metric{{series=\"{i}\"}} {}\n", i * 7919).into_bytes()).collect();
        let fragments =
            [encoder.encode(&text), encoder.encode(b""), encoder.encode(&text[..100]), encoder.encode(&text)];
        let member = member(&fragments.iter().collect::<Vec<_>>());
        assert_holds(&member, &[&text[..], &text[..100], &text].concat());
        let child = Command::new("gzip").arg("-t").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else { return eprintln!("skipped: there is no gzip on this machine") };
        child.stdin.take().unwrap().write_all(&member).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
