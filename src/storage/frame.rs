//! Frames: the units of a file of the store that are intact or damaged.
//!
//! A file is a sequence of frames, then possibly zeros (space reserved for later frames). A frame is a header of 32
//! bytes and a payload; integers are little endian:
//!
//! | bytes | contents |
//! |---|---|
//! | 0–3 | the magic `fb 50 52 f7` (no UTF-8 has these bytes) |
//! | 4–7 | length of the payload, at most 256 MiB |
//! | 8–15 | sequence: 0 for the first frame of a file, one more for each that follows |
//! | 16–23 | XXH3-64 of the payload |
//! | 24–31 | XXH3-64 of bytes 0–23 |
//!
//! Both hashes are seeded with the salt of the file (see `files`), so that a frame of another file is never taken for
//! one of this file. Reading continues after damage: the next frame follows an intact header; without an intact
//! header, the reader searches for the next one byte by byte. A header counts only if its sequence is not below the
//! expected one, so that nothing is read twice.

use std::io;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::disk::DiskFile;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 32;
/// Most bytes of a payload.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 << 20;

const MAGIC: [u8; 4] = [0xfb, 0x50, 0x52, 0xf7];
/// Minimum number of bytes that one read asks for.
const CHUNK_BYTES: usize = 256 << 10;

/// Clears `buffer` and reserves room for a header; the payload is appended to it.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_BYTES, 0);
}

/// Fills in the header before the payload in `buffer`, which is at most [`PAYLOAD_BYTES_MAX`] long.
pub(super) fn seal(buffer: &mut [u8], salt: u64, sequence: u64) {
    let (header, payload) = buffer.split_at_mut(HEADER_BYTES);
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&xxh3_64_with_seed(payload, salt).to_le_bytes());
    let checksum = xxh3_64_with_seed(&header[..24], salt);
    header[24..].copy_from_slice(&checksum.to_le_bytes());
}

#[derive(Clone, Copy)]
struct FrameHeader {
    length: usize,
    sequence: u64,
    checksum: u64,
}

impl FrameHeader {
    fn parse(bytes: &[u8], salt: u64) -> Option<FrameHeader> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let fixed64 = |at: usize| bytes[at..].first_chunk().map(|b| u64::from_le_bytes(*b));
        let length = u32::from_le_bytes(*bytes[4..].first_chunk()?) as usize;
        let intact =
            bytes[..4] == MAGIC && length <= PAYLOAD_BYTES_MAX && fixed64(24)? == xxh3_64_with_seed(&bytes[..24], salt);
        intact.then_some(FrameHeader { length, sequence: fixed64(8)?, checksum: fixed64(16)? })
    }
}

/// An intact frame.
#[derive(Debug)]
pub(super) struct IntactFrame<'a> {
    /// Position of the frame's first byte in the file.
    pub offset: u64,
    /// The frame's number in the file, from 0.
    pub sequence: u64,
    /// The payload; its checksum is right.
    pub payload: &'a [u8],
    /// The bytes before this frame that belong to no intact frame.
    pub damage: Option<Range<u64>>,
}

/// Finds the intact frames of a file. Keeps one chunk or one frame in memory.
#[derive(Debug)]
pub(super) struct FrameReader {
    file: Box<dyn DiskFile>,
    salt: u64,
    /// The reader stops at this position.
    limit: u64,
    at: u64,
    sequence: u64,
    /// Start of the bytes that belong to no intact frame.
    damaged_from: Option<u64>,
    /// End of the last of these bytes that is not zero.
    damaged_to: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl FrameReader {
    /// Reads `file` up to `limit`, or to its end.
    pub(super) fn new(file: Box<dyn DiskFile>, salt: u64, limit: Option<u64>) -> io::Result<FrameReader> {
        let limit = file.len()?.min(limit.unwrap_or(u64::MAX));
        Ok(FrameReader {
            file,
            salt,
            limit,
            at: 0,
            sequence: 0,
            damaged_from: None,
            damaged_to: 0,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// The next intact frame; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<IntactFrame<'_>>> {
        while self.at < self.limit {
            let start = self.at;
            let Some(header) = self.header()? else {
                self.search()?;
                continue;
            };
            let end = start + (HEADER_BYTES + header.length) as u64;
            let salt = self.salt;
            let payload = self.view(start + HEADER_BYTES as u64, header.length)?;
            let whole = payload.len() == header.length && xxh3_64_with_seed(payload, salt) == header.checksum;
            if !whole {
                self.skip_damage(end);
                continue;
            }
            self.at = end;
            self.sequence = header.sequence.saturating_add(1);
            let damage = self.damaged_from.take().map(|from| from..start);
            let payload = self.view(start + HEADER_BYTES as u64, header.length)?;
            return Ok(Some(IntactFrame { offset: start, sequence: header.sequence, payload, damage }));
        }
        Ok(None)
    }

    /// At the end of the file: the end of the last intact frame.
    pub(super) fn intact_end(&self) -> u64 {
        self.damaged_from.unwrap_or(self.at.min(self.limit))
    }

    /// At the end of the file: the bytes after the last intact frame, without trailing zeros; `None` if there are only
    /// zeros.
    pub(super) fn tail(&self) -> Option<Range<u64>> {
        self.damaged_from.filter(|from| *from < self.damaged_to).map(|from| from..self.damaged_to)
    }

    fn header(&mut self) -> io::Result<Option<FrameHeader>> {
        let (salt, due) = (self.salt, self.sequence);
        let header = FrameHeader::parse(self.view(self.at, HEADER_BYTES)?, salt);
        Ok(header.filter(|header| header.sequence >= due))
    }

    /// Continues at `end`, after a frame whose payload is damaged or cut off.
    fn skip_damage(&mut self, end: u64) {
        self.damaged_from.get_or_insert(self.at);
        self.at = end.min(self.limit);
        self.damaged_to = self.at;
    }

    /// Continues at the next position where a header may begin.
    fn search(&mut self) -> io::Result<()> {
        self.damaged_from.get_or_insert(self.at);
        let at = self.at;
        // The window is searched before the file is read again: otherwise bytes full of magics would be read once for
        // each magic.
        let buffered = (self.window_at + self.window.len() as u64).saturating_sub(at) as usize;
        let chunk = self.view(at, if buffered >= HEADER_BYTES { buffered } else { CHUNK_BYTES })?;
        let len = chunk.len();
        let next = chunk.windows(MAGIC.len()).skip(1).position(|bytes| bytes == MAGIC).map(|found| found + 1);
        // Fewer bytes than a header remain only at the end of the file; otherwise a magic may begin in the last three.
        let passed = next.unwrap_or(if len < HEADER_BYTES { len } else { len - (MAGIC.len() - 1) });
        if let Some(nonzero) = chunk[..passed].iter().rposition(|byte| *byte != 0) {
            self.damaged_to = at + nonzero as u64 + 1;
        }
        self.at = at + passed as u64;
        Ok(())
    }

    /// The `len` bytes at `at`; fewer only if the file ends earlier.
    fn view(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let is_buffered = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !is_buffered {
            self.window.resize(len.max(CHUNK_BYTES).min(left), 0);
            let read = self.file.read_at(at, &mut self.window)?;
            self.window.truncate(read);
            self.window_at = at;
            if read < len {
                // Another process cut the file during the read.
                self.limit = at + read as u64;
            }
        }
        let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX).min(self.window.len());
        Ok(&self.window[from..self.window.len().min(from + len)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pushrelay_testkit::SimulatedDisk;

    use super::*;
    use crate::storage::Disk;

    const SALT: u64 = 7;

    fn file_of(bytes: &[u8]) -> FrameReader {
        let disk = SimulatedDisk::new(0);
        disk.create("f").unwrap().write_at(0, bytes).unwrap();
        FrameReader::new(disk.open("f").unwrap(), SALT, None).unwrap()
    }

    fn frames(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut buffer) = (Vec::new(), vec![0], Vec::new());
        for (sequence, payload) in payloads.iter().enumerate() {
            begin(&mut buffer);
            buffer.extend_from_slice(payload);
            seal(&mut buffer, SALT, sequence as u64);
            bytes.extend_from_slice(&buffer);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Range<u64>>, FrameReader) {
        let (mut reader, mut found, mut damages) = (file_of(bytes), Vec::new(), Vec::new());
        while let Some(frame) = reader.next().unwrap() {
            found.push(frame.payload.to_vec());
            damages.extend(frame.damage);
        }
        (found, damages, reader)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let small = proptest::collection::vec(any::<u8>(), 0..200);
        let large = (200..400_000usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
        proptest::collection::vec(prop_oneof![20 => small, 1 => large], 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_round_trip_before_zeros(payloads in payloads(), zeros in prop_oneof![0..100usize, 300_000..300_100usize]) {
            let (mut bytes, ends) = frames(&payloads);
            bytes.resize(bytes.len() + zeros, 0);
            let (found, damages, reader) = read(&bytes);
            prop_assert_eq!(found, payloads);
            prop_assert!(damages.is_empty() && reader.tail().is_none());
            prop_assert_eq!(reader.intact_end(), *ends.last().unwrap() as u64);
        }

        #[test]
        fn one_flipped_byte_costs_one_frame(payloads in payloads(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let (mut bytes, ends) = frames(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let hit = ends.iter().rposition(|end| *end <= at).unwrap();
            let (found, damages, reader) = read(&bytes);
            let expected: Vec<_> = payloads.iter().enumerate().filter(|(i, _)| *i != hit).map(|(_, p)| p.clone()).collect();
            prop_assert_eq!(found, expected);
            let range = ends[hit] as u64..ends[hit + 1] as u64;
            if hit + 1 == payloads.len() {
                prop_assert!(reader.tail().is_some_and(|tail| tail.start == range.start));
                prop_assert_eq!(reader.intact_end(), range.start);
            } else {
                prop_assert_eq!(damages, [range]);
            }
        }

        #[test]
        fn a_cut_costs_the_frames_after_it(payloads in payloads(), at in any::<prop::sample::Index>()) {
            let (mut bytes, ends) = frames(&payloads);
            bytes.truncate(at.index(bytes.len() + 1));
            let whole = ends.iter().rposition(|end| *end <= bytes.len()).unwrap();
            let (found, _, reader) = read(&bytes);
            prop_assert_eq!(found.len(), whole);
            prop_assert_eq!(reader.intact_end(), ends[whole] as u64);
        }
    }

    #[test]
    fn a_damaged_frame_full_of_magics_is_passed_quickly() {
        let (mut bytes, ends) = frames(&[vec![1], MAGIC.repeat(300_000), vec![2]]);
        bytes[ends[1] + 8] ^= 1;
        assert_eq!(read(&bytes).0, [[1], [2]]);
    }

    #[test]
    fn a_frame_of_another_file_or_an_earlier_one_again_is_damage() {
        let (bytes, ends) = frames(&[vec![1], vec![2]]);
        let twice = [&bytes[..], &bytes[..ends[1]]].concat();
        let (found, _, reader) = read(&twice);
        assert_eq!(found.len(), 2);
        assert!(reader.tail().is_some());
        let mut foreign = vec![0; HEADER_BYTES];
        seal(&mut foreign, SALT + 1, 2);
        assert_eq!(read(&[bytes, foreign].concat()).0.len(), 2);
    }
}
