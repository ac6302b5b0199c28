//! The files of a store, and how they combine.
//!
//! `log-N` and `checkpoint-N` (N a number of at least ten decimal digits) are made of frames (`frame`). `LOCK` is
//! empty and locked while a process uses the directory. A file with `.tmp` behind its name was never finished. The
//! salt of a file is 2 N for a log and 2 N + 1 for a checkpoint.
//!
//! The first frame of each file is its header, in the notation of [`crate::model::bytes`]:
//!
//! ```text
//! opening = version:number store:fixed64 node:fixed64 previous:number end:number
//! ```
//!
//! - `version` is 1 or 2. Format 2 is format 1 with two more fields of a group (`payload`). Files have format 2 from the
//!   first such field on, until the store is opened without one, so that a program that knows format 1 only can read every
//!   store that never had them.
//!   Every later format begins this frame with its version, too.
//! - `store` and `node` are the store's identity.
//! - `previous` is the number of the log that this log continues (0 for none), and `end` is the end of that log: bytes
//!   after it were never acknowledged, and logs with numbers between the two are void. So the next file undoes a
//!   failed commit, and a file in doubt is never written again. Both are 0 in a checkpoint. An `end` of 0 beside a
//!   number says that nothing of that log was left, not even its header: it is lost.
//!
//! `checkpoint-N` contains everything that the files numbered below N contain; they are removed when it is durable. A
//! store is its checkpoint with the highest number and the chain of logs from that number on. Numbers are never
//! reused.

use std::ops::RangeInclusive;

use crate::model::bytes::{ByteReader, Malformed, put_number};
use crate::model::{NodeId, StoreId};
use crate::store::Identity;

/// The formats that this code reads and writes: the lowest and the highest number.
pub(super) const VERSIONS: RangeInclusive<u64> = 1..=2;

/// The two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKind {
    Log,
    Checkpoint,
}

/// The name of a log or a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName {
    pub number: u64,
    pub kind: FileKind,
}

impl FileName {
    pub(super) fn log(number: u64) -> FileName {
        FileName { number, kind: FileKind::Log }
    }

    pub(super) fn checkpoint(number: u64) -> FileName {
        FileName { number, kind: FileKind::Checkpoint }
    }

    pub(super) fn parse(name: &str) -> Option<FileName> {
        let (kind, digits) = match name.split_once('-')? {
            ("log", digits) => (FileKind::Log, digits),
            ("checkpoint", digits) => (FileKind::Checkpoint, digits),
            _ => return None,
        };
        let name = FileName { number: digits.parse().ok()?, kind };
        (name.text().ends_with(digits) && digits.len() >= 10 && name.number > 0).then_some(name)
    }

    pub(super) fn text(self) -> String {
        let kind = match self.kind {
            FileKind::Log => "log",
            FileKind::Checkpoint => "checkpoint",
        };
        format!("{kind}-{:010}", self.number)
    }

    /// The name of the file until it is finished.
    pub(super) fn unfinished(self) -> String {
        format!("{}{UNFINISHED}", self.text())
    }

    pub(super) fn salt(self) -> u64 {
        self.number.wrapping_mul(2).wrapping_add(u64::from(self.kind == FileKind::Checkpoint))
    }
}

/// Suffix of the names of unfinished files.
pub(super) const UNFINISHED: &str = ".tmp";

/// A position in the chain of logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogEnd {
    pub number: u64,
    pub end: u64,
}

/// The contents of a file's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub version: u64,
    pub identity: Identity,
    pub previous: LogEnd,
}

/// Reasons why a frame is no [`FileHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileHeaderError {
    /// The file is of another format.
    Version(u64),
    Malformed(Malformed),
}

impl From<Malformed> for FileHeaderError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl FileHeader {
    /// Maximum bytes of the frame of a file header.
    pub(super) const FRAME_BYTES_MAX: u64 = 80;

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        put_number(self.version, into);
        into.extend_from_slice(&self.identity.store.0.to_le_bytes());
        into.extend_from_slice(&self.identity.node.0.to_le_bytes());
        put_number(self.previous.number, into);
        put_number(self.previous.end, into);
    }

    pub(super) fn decode(payload: &[u8]) -> Result<FileHeader, FileHeaderError> {
        let mut reader = ByteReader::new(payload);
        let version = reader.number("the format version")?;
        if !VERSIONS.contains(&version) {
            return Err(FileHeaderError::Version(version));
        }
        let identity =
            Identity { store: StoreId(reader.fixed64("the store")?), node: NodeId(reader.fixed64("the node")?) };
        let previous = LogEnd { number: reader.number("the previous log")?, end: reader.number("its end")? };
        Ok(FileHeader { version, identity, previous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_left_alone() {
        for number in [1, 12, 9_999_999_999, 10_000_000_000, u64::MAX] {
            for name in [FileName::log(number), FileName::checkpoint(number)] {
                assert_eq!(FileName::parse(&name.text()), Some(name));
                assert_eq!(FileName::parse(&name.unfinished()), None);
            }
        }
        for other in
            ["log-1", "log-", "LOCK", "log-0000000000", "log-+000000001", "log-00000000001", "backup-0000000001"]
        {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn openings_round_trip_and_cuts_are_refused() {
        let file_header = FileHeader {
            version: 2,
            identity: Identity { store: StoreId(3), node: NodeId(u64::MAX) },
            previous: LogEnd { number: 300, end: 70_000 },
        };
        let mut bytes = Vec::new();
        file_header.encode(&mut bytes);
        assert_eq!(FileHeader::decode(&bytes), Ok(file_header));
        for len in 0..bytes.len() {
            assert!(matches!(FileHeader::decode(&bytes[..len]), Err(FileHeaderError::Malformed(_))));
        }
        for version in [0, 3] {
            bytes[0] = version;
            assert_eq!(FileHeader::decode(&bytes), Err(FileHeaderError::Version(version.into())));
        }
    }
}
