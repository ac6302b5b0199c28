//! Recovery: reads back all intact records, and reports all others.
//!
//! Recovery reads the newest checkpoint, then the chain of logs that continues it (`files`), frame by frame. The bytes
//! after the last intact frame of the last log were being written when the process or the machine stopped; they were
//! never acknowledged and are skipped. Any other damage is reported. Recovery never changes a log: the next log says
//! where the old one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::TryLockError;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::model::Malformed;
use crate::store::{Identity, Record};

use super::checkpoint::remove_before;
use super::disk::{Disk, DiskLock};
use super::files::{FileHeader, FileHeaderError, FileKind, FileName, LogEnd, UNFINISHED, VERSIONS};
use super::frame::FrameReader;
use super::log::{CommitError, Continued, DiskOptions, History, Log};
use super::payload::{self, SchemasRead};
use super::progress::CheckpointProgress;

/// Reasons why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("the store in {directory} is used by another process; stop it, or set another storage.path")]
    Locked {
        /// The store's directory.
        directory: String,
    },
    /// The store has a format that this version does not know.
    #[error(
        "{file} in the store in {directory} is of format {version}, and this version reads formats {} to {}; use the \
         version that wrote it, or another storage.path", VERSIONS.start(), VERSIONS.end()
    )]
    Format {
        /// The store's directory.
        directory: String,
        /// The file's name.
        file: String,
        /// The file's format.
        version: u64,
    },
    /// The disk failed.
    #[error("{file} in the store in {directory} cannot be used: {source}; check permissions and the disk")]
    Disk {
        /// The store's directory.
        directory: String,
        /// The file's name, or the operation that failed.
        file: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Damage to a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its bytes are not those that were written.
    Changed,
    /// It is missing.
    Missing,
    /// Its checksum is right, but its contents make no sense: the program that wrote it has a bug.
    Unreadable(Malformed),
    /// This many families lost their schema to damage elsewhere.
    Schemaless(u64),
}

/// Acknowledged data that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The file's name.
    pub file: String,
    /// The bytes concerned.
    pub bytes: Range<u64>,
    /// The damage.
    pub damage: Damage,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { file, bytes, damage } = self;
        match damage {
            Damage::Changed => write!(f, "{file}: bytes {} to {} are damaged", bytes.start, bytes.end),
            Damage::Missing if bytes.is_empty() => write!(f, "{file} is missing"),
            Damage::Missing => write!(f, "{file}: the end from byte {} on is missing", bytes.start),
            Damage::Unreadable(why) => write!(f, "{file}: the frame at byte {} is unreadable: {why}", bytes.start),
            Damage::Schemaless(families) => {
                write!(f, "{file}: {families} families at byte {} lost their labels to damage before", bytes.start)
            }
        }
    }
}

/// Findings of a recovery.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Files read.
    pub files: u64,
    /// Intact frames.
    pub frames: u64,
    /// Records replayed.
    pub records: u64,
    /// Bytes of intact frames.
    pub bytes: u64,
    /// Bytes of a commit that a crash cut short and that was never acknowledged.
    pub torn_bytes: u64,
    /// Lost data; the first [`Report::LOST_MAX`] entries.
    pub lost: Vec<Lost>,
    /// Number of lost parts.
    pub lost_count: u64,
}

impl Report {
    /// Most entries of [`Report::lost`].
    pub const LOST_MAX: usize = 100;

    /// Whether all acknowledged data was there. If not, the store needs a new [`crate::model::StoreId`], so that its
    /// peers do a full resync with it.
    pub fn is_intact(&self) -> bool {
        self.lost_count == 0
    }

    fn lose(&mut self, file: String, bytes: Range<u64>, damage: Damage) {
        self.lost_count += 1;
        if self.lost.len() < Self::LOST_MAX {
            self.lost.push(Lost { file, bytes, damage });
        }
    }
}

/// A store that was read back and can be opened for commits.
#[derive(Debug)]
pub struct Recovered {
    /// Ids of the store and its node; `None` if the store is new, or no file is left that has them.
    pub identity: Option<Identity>,
    /// Findings.
    pub report: Report,
    disk: Arc<dyn Disk>,
    lock: DiskLock,
    options: DiskOptions,
    version: u64,
    tail: LogEnd,
    next_number: u64,
    logs: Vec<LogEnd>,
    checkpoint: LogEnd,
}

impl Recovered {
    /// Starts a log under `identity`: that of the store, or a new one if it had none or lost data.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub fn start(self, identity: Identity) -> Result<Log, CommitError> {
        self.sync().map_err(|error| CommitError::new(&*self.disk, "syncing what was recovered", error))?;
        let Recovered { report, disk, lock, options, version, tail, next_number, logs, checkpoint, .. } = self;
        if report.is_intact() {
            // These files are left over from a crash; if they cannot be removed now, the next checkpoint removes them.
            let _ = remove_before(&*disk, checkpoint.number);
        }
        let progress =
            CheckpointProgress { number: AtomicU64::new(checkpoint.number), bytes: AtomicU64::new(checkpoint.end) };
        let (damaged, progress) = (!report.is_intact(), Arc::new(progress));
        let history = History { logs, damaged, progress, ..History::default() };
        Log::start(Continued { disk, lock, options, version, tail, next_number, history }, identity)
    }

    /// Leaves the store unchanged; the directory stays locked as long as the lock lives.
    pub(super) fn into_lock(self) -> DiskLock {
        self.lock
    }

    /// A killed process may have left data that recovery read only in the system's memory. From now on that data
    /// counts as acknowledged, so it is synced.
    fn sync(&self) -> io::Result<()> {
        for log in self.logs.iter().chain([&self.tail]).filter(|log| log.end > 0) {
            self.disk.open(&FileName::log(log.number).text())?.sync()?;
        }
        self.disk.sync_dir()
    }
}

/// Locks the directory and passes every intact record to `each`, in the order of commits.
///
/// Memory: the largest frame, at most 16,384 of its records, and the schemas of all files read.
///
/// # Errors
/// If another process uses the directory, a file has an unknown format, or the disk fails. Damage is no error: see
/// [`Report`].
pub fn recover(
    disk: Arc<dyn Disk>,
    options: DiskOptions,
    each: &mut dyn FnMut(Record),
) -> Result<Recovered, OpenError> {
    let lock = disk.lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::Locked { directory: disk.name() },
        TryLockError::Error(source) => OpenError::Disk { directory: disk.name(), file: "the lock".into(), source },
    })?;
    let names = disk.list().map_err(|source| disk_error(&*disk, "the directory".into(), source))?;
    // Only the store's own unfinished files: the directory may contain others.
    let is_unfinished =
        |name: &&String| name.strip_suffix(UNFINISHED).is_some_and(|name| FileName::parse(name).is_some());
    for unfinished in names.iter().filter(is_unfinished) {
        let _ = disk.remove(unfinished);
    }
    let files: BTreeSet<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();
    let checkpoint = files.iter().rev().find(|file| file.kind == FileKind::Checkpoint).map_or(0, |file| file.number);
    let logs =
        files.iter().filter(|file| file.kind == FileKind::Log && file.number >= checkpoint).map(|file| file.number);
    let mut version = *VERSIONS.start();
    let mut each = |record: Record| {
        version = if payload::needs_format_2(&record) { 2 } else { version };
        each(record);
    };
    let mut replay = Replay {
        disk: &*disk,
        each: &mut each,
        schemas: SchemasRead::default(),
        report: Report::default(),
        identity: None,
    };
    let chain = replay.chain(checkpoint, logs.collect())?;
    let mut checkpoint_end = LogEnd { number: checkpoint, end: 0 };
    if checkpoint > 0 {
        checkpoint_end.end = replay.file(FileName::checkpoint(checkpoint), Ending::Marked)?;
    }
    let mut ends = Vec::new();
    for (number, ending) in chain {
        ends.push(LogEnd { number, end: replay.file(FileName::log(number), ending)? });
    }
    let Replay { report, identity, .. } = replay;
    // A checkpoint without its log: the next log continues that log from its beginning, so that recoveries report it
    // as missing until another checkpoint replaces everything.
    let tail = ends.pop().unwrap_or(LogEnd { number: checkpoint, end: 0 });
    let next_number = files.last().map_or(0, |file| file.number) + 1;
    let (logs, checkpoint) = (ends, checkpoint_end);
    Ok(Recovered { identity, report, disk, lock, options, version, tail, next_number, logs, checkpoint })
}

fn disk_error(disk: &dyn Disk, file: String, source: io::Error) -> OpenError {
    OpenError::Disk { directory: disk.name(), file, source }
}

/// The expected end of a file.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// A checkpoint's end mark.
    Marked,
    /// This byte, which the next log names. 0 if an earlier recovery found nothing intact there: the header of each
    /// log is acknowledged, so this is a loss.
    At(u64),
    /// An intact frame; the log that names the position is lost.
    Unknown,
    /// Possibly a part of a frame: this is the last log.
    Open,
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    each: &'a mut dyn FnMut(Record),
    schemas: SchemasRead,
    report: Report,
    identity: Option<Identity>,
}

impl Replay<'_> {
    /// The logs to read, in order, among those that exist.
    fn chain(&mut self, checkpoint: u64, numbers: Vec<u64>) -> Result<Vec<(u64, Ending)>, OpenError> {
        let mut openings = BTreeMap::new();
        for number in numbers {
            openings.insert(number, self.file_header(FileName::log(number))?);
        }
        while let Some(last) = openings.last_entry().filter(|last| last.get().is_none()) {
            // The machine stopped during the write of its header, unless more bytes follow.
            let mut reader = self.open(FileName::log(*last.key()), None)?;
            let empty =
                reader.next().map_err(|e| disk_error(self.disk, FileName::log(*last.key()).text(), e))?.is_none()
                    && reader.tail().is_none_or(|tail| tail.end <= FileHeader::FRAME_BYTES_MAX);
            if !empty {
                break;
            }
            last.remove();
        }
        let (mut chain, mut ending) = (Vec::new(), Ending::Open);
        let mut next = openings.last_key_value();
        while let Some((&number, file_header)) = next {
            chain.push((number, ending));
            let before = file_header.map_or(LogEnd { number: number - 1, end: 0 }, |file_header| file_header.previous);
            if file_header.is_some() && before.number < checkpoint.max(1) {
                break;
            }
            next = openings.range(..=before.number.min(number - 1)).next_back();
            let found = next.is_some_and(|(found, _)| *found == before.number);
            ending = if found && file_header.is_some() { Ending::At(before.end) } else { Ending::Unknown };
            if !found && file_header.is_some() {
                self.report.lose(FileName::log(before.number).text(), 0..0, Damage::Missing);
            }
        }
        if chain.is_empty() && checkpoint > 0 {
            self.report.lose(FileName::log(checkpoint).text(), 0..0, Damage::Missing);
        }
        chain.reverse();
        Ok(chain)
    }

    fn open(&self, name: FileName, limit: Option<u64>) -> Result<FrameReader, OpenError> {
        let file = self.disk.open(&name.text()).and_then(|file| FrameReader::new(file, name.salt(), limit));
        file.map_err(|source| disk_error(self.disk, name.text(), source))
    }

    /// A file's header; `None` if it is damaged.
    fn file_header(&mut self, name: FileName) -> Result<Option<FileHeader>, OpenError> {
        let mut reader = self.open(name, Some(FileHeader::FRAME_BYTES_MAX))?;
        let frame = reader.next().map_err(|source| disk_error(self.disk, name.text(), source))?;
        let Some(frame) = frame.filter(|frame| frame.sequence == 0) else { return Ok(None) };
        match FileHeader::decode(frame.payload) {
            Ok(file_header) => {
                self.identity = Some(file_header.identity);
                Ok(Some(file_header))
            }
            Err(FileHeaderError::Version(version)) => {
                Err(OpenError::Format { directory: self.disk.name(), file: name.text(), version })
            }
            Err(FileHeaderError::Malformed(_)) => Ok(None),
        }
    }

    /// Replays a file and returns its end.
    fn file(&mut self, name: FileName, ending: Ending) -> Result<u64, OpenError> {
        let limit = if let Ending::At(end @ 1..) = ending { Some(end) } else { None };
        if name.kind == FileKind::Checkpoint {
            let newest = self.identity;
            self.file_header(name)?;
            self.identity = newest.or(self.identity);
        }
        let mut reader = self.open(name, limit)?;
        let mut marked = false;
        self.report.files += 1;
        while let Some(frame) = reader.next().map_err(|source| disk_error(self.disk, name.text(), source))? {
            if let Some(damage) = frame.damage {
                self.report.lose(name.text(), damage, Damage::Changed);
            }
            let bytes = frame.offset..frame.offset + (super::frame::HEADER_BYTES + frame.payload.len()) as u64;
            self.report.frames += 1;
            self.report.bytes += bytes.end - bytes.start;
            if frame.sequence == 0 {
                continue;
            }
            match payload::decode(frame.payload, &mut self.schemas, self.each) {
                Ok(decoded) => {
                    marked |= decoded.end;
                    if decoded.families_lost > 0 {
                        self.report.lose(name.text(), bytes, Damage::Schemaless(decoded.families_lost));
                    }
                    self.report.records += decoded.records;
                }
                Err(malformed) => self.report.lose(name.text(), bytes, Damage::Unreadable(malformed)),
            }
        }
        let (end, tail) = (reader.intact_end(), reader.tail());
        self.end(name, ending, end, tail, marked);
        Ok(end)
    }

    /// Compares the end of a file with the expected one.
    fn end(&mut self, name: FileName, ending: Ending, end: u64, tail: Option<Range<u64>>, marked: bool) {
        match (ending, tail) {
            // Nothing is ever written after a header that is not intact, so this is no torn write.
            (Ending::Open, Some(tail)) if end == 0 => self.report.lose(name.text(), tail, Damage::Changed),
            (Ending::Open, Some(tail)) => self.report.torn_bytes += tail.end - tail.start,
            (Ending::At(0), Some(tail)) => self.report.lose(name.text(), tail, Damage::Changed),
            (Ending::At(0), None) => self.report.lose(name.text(), end..end + 1, Damage::Missing),
            (Ending::At(due), Some(_)) => self.report.lose(name.text(), end..due, Damage::Changed),
            (Ending::At(due), None) if end < due => self.report.lose(name.text(), end..due, Damage::Missing),
            (Ending::Marked | Ending::Unknown, Some(tail)) => self.report.lose(name.text(), tail, Damage::Changed),
            (Ending::Marked, None) if !marked => self.report.lose(name.text(), end..end + 1, Damage::Missing),
            _ => {}
        }
    }
}
