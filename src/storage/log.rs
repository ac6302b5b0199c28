//! Commits: a transaction is one frame appended to the newest log, and one sync.
//!
//! A log begins with its file header (`files`), continues with transactions, and ends in zeros: space is reserved
//! ahead in chunks, so that the sync of a small commit writes data only and no metadata. An empty transaction marks an
//! orderly close: damage before it was not caused by a torn write.
//!
//! A write that fails is undone by cutting the file. If the cut fails too, or a sync failed, the file is never written
//! again, and the next commit begins a new log that says where the old one ends. (After a failed sync the system may
//! have dropped the data, and a second sync would report success.)

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::store::{Identity, Record};

use super::checkpoint::CheckpointWriter;
use super::disk::{Disk, DiskFile, DiskLock, advice};
use super::files::{FileHeader, FileName, LogEnd};
use super::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use super::payload::{self, SchemasWritten};
use super::progress::CheckpointProgress;

/// When a commit is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before the commit returns.
    #[default]
    Always,
    /// When the operating system writes it: a crash of the machine loses the last seconds, a crash of the process
    /// nothing.
    Never,
}

/// How the store uses the disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// When a commit is durable.
    pub sync: SyncPolicy,
    /// A checkpoint is due only when the logs are longer than this and than twice the last checkpoint.
    pub checkpoint_log_bytes_min: u64,
    /// Bytes of space that a log reserves ahead of its end; 0 for none.
    pub reserve_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { sync: SyncPolicy::Always, checkpoint_log_bytes_min: 16 << 20, reserve_bytes: 1 << 20 }
    }
}

/// Reasons why a commit failed. None of its records will be replayed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk is full; commits work again when there is space.
    #[error(
        "no space is left for the store in {directory} ({source}: bytes or inodes, see df -h and df -i); make room and it goes on by itself"
    )]
    Full {
        /// The store's directory.
        directory: String,
        /// The system's error.
        source: io::Error,
    },
    /// The disk failed; commits work again when it does.
    #[error("{doing} in the store in {directory} failed: {source}; {}", advice(.source))]
    Disk {
        /// The store's directory.
        directory: String,
        /// The operation that failed.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The records are more than a transaction can hold.
    #[error("a transaction of {bytes} bytes or more; the store takes {PAYLOAD_BYTES_MAX} at once")]
    TooLarge {
        /// Bytes of the records encoded so far; all of them take at least as many.
        bytes: usize,
    },
}

impl CommitError {
    /// Whether the same commit may succeed later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }

    pub(super) fn new(disk: &dyn Disk, doing: &'static str, source: io::Error) -> CommitError {
        let directory = disk.name();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full { directory, source },
            _ => CommitError::Disk { directory, doing, source },
        }
    }
}

/// The store on disk, open for commits. It has one writer.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    lock: DiskLock,
    options: DiskOptions,
    identity: Identity,
    /// The format of the files that are begun from now on: it only rises while the store is open.
    version: u64,
    /// End of the acknowledged bytes; its `end` is 0 if that log is lost.
    tail: LogEnd,
    /// The file of `tail`; `None` if it is in doubt and the next commit has to begin a new log.
    file: Option<OpenLog>,
    /// The lowest number that no file has had.
    next_number: u64,
    buffer: Vec<u8>,
    history: History,
}

/// The file that commits are appended to.
#[derive(Debug)]
struct OpenLog {
    file: Box<dyn DiskFile>,
    salt: u64,
    sequence: u64,
    /// End of the reserved space. Larger than that if the log must not reserve any yet.
    reserved: u64,
    schemas: SchemasWritten,
}

/// The files that a checkpoint would replace.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Finished logs since the last checkpoint, and their lengths.
    pub logs: Vec<LogEnd>,
    /// Whether something in them is damaged.
    pub damaged: bool,
    /// Number of the last checkpoint that this process tried to write, whether or not it could be begun.
    pub tried: u64,
    /// Bytes of the logs at that time.
    pub tried_bytes: u64,
    pub progress: Arc<CheckpointProgress>,
}

/// The state that a new [`Log`] continues.
pub(super) struct Continued {
    pub disk: Arc<dyn Disk>,
    pub lock: DiskLock,
    pub options: DiskOptions,
    /// The format that the records read back need.
    pub version: u64,
    pub tail: LogEnd,
    pub next_number: u64,
    pub history: History,
}

/// A larger buffer is released after use.
const BUFFER_KEPT_BYTES: usize = 1 << 20;
/// More logs than this make a checkpoint due, however short they are (each start adds one).
const LOGS_MAX: usize = 16;

impl Log {
    pub(super) fn start(continued: Continued, identity: Identity) -> Result<Log, CommitError> {
        let Continued { disk, lock, options, version, tail, next_number, history } = continued;
        let (file, buffer) = (None, Vec::new());
        let mut log = Log { disk, lock, options, identity, version, tail, file, next_number, buffer, history };
        log.open_next()?;
        Ok(log)
    }

    /// Ids of the store and its node.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Makes the records durable as one transaction of at most 256 MiB. With [`SyncPolicy::Always`], they are on disk
    /// when this returns `Ok`.
    ///
    /// # Errors
    /// If the disk is full or fails, or the records are too large; none of them will then be replayed.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), CommitError> {
        if records.is_empty() { Ok(()) } else { self.append(records) }
    }

    /// Whether the logs are so long, so many or so damaged that a checkpoint is due: see [`Log::rotate`]. After a
    /// failed checkpoint, the logs have to grow by a quarter of [`DiskOptions::checkpoint_log_bytes_min`] before the
    /// next.
    pub fn wants_checkpoint(&mut self) -> bool {
        let progress = &self.history.progress;
        let (done, checkpoint_bytes) =
            (progress.number.load(Ordering::Acquire), progress.bytes.load(Ordering::Acquire));
        if Arc::strong_count(progress) > 1 {
            return false;
        }
        self.history.logs.retain(|log| log.number >= done);
        if self.history.tried > 0 && self.history.tried <= done {
            self.history.damaged = false;
        }
        let min = self.options.checkpoint_log_bytes_min;
        let since = self.log_bytes().saturating_sub(self.history.tried_bytes);
        let failed_just_now = self.history.tried > done && since < min / 4;
        let due = self.history.damaged
            || self.history.logs.len() >= LOGS_MAX
            || self.log_bytes() > min.max(checkpoint_bytes.saturating_mul(2));
        due && !failed_just_now
    }

    /// Begins a new log, and the checkpoint that will replace all logs before it. The caller writes the whole state of
    /// this moment to the checkpoint, on another thread, while commits continue. One checkpoint at a time: see
    /// [`Log::wants_checkpoint`]. A checkpoint dropped unfinished changes nothing.
    ///
    /// # Errors
    /// If no file can be created; commits then continue in the old log.
    pub fn rotate(&mut self) -> Result<CheckpointWriter, CommitError> {
        (self.history.tried, self.history.tried_bytes) = (self.next_number, self.log_bytes());
        self.open_next()?;
        let progress = self.history.progress.clone();
        let (disk, lock) = (self.disk.clone(), self.lock.clone());
        Ok(CheckpointWriter::new(disk, lock, self.tail.number, self.version, self.identity, progress))
    }

    /// Marks an orderly close. Nothing is lost if this is never called.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.append(&[])
    }

    fn log_bytes(&self) -> u64 {
        self.history.logs.iter().map(|log| log.end).sum::<u64>() + self.tail.end
    }

    fn append(&mut self, records: &[Record]) -> Result<(), CommitError> {
        if self.version < 2 && records.iter().any(payload::needs_format_2) {
            self.begin_format_2()?;
        }
        let fresh = self.file.is_none();
        if fresh {
            self.replace()?;
        }
        let result = match self.try_append(records) {
            // The data may be fine and only the file be in doubt: one more attempt, in a new file.
            Err(_) if !fresh && self.file.is_none() => self.replace().and_then(|()| self.try_append(records)),
            result => result,
        };
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = Vec::new();
        }
        result
    }

    /// Begins a log of format 2, in which this and later transactions are written.
    fn begin_format_2(&mut self) -> Result<(), CommitError> {
        self.version = 2;
        // If the old file is still open, the next transactions go there.
        self.open_next().inspect_err(|_| self.version = if self.file.is_some() { 1 } else { 2 })
    }

    /// Appends to the open file. After an error the file is as before, or closed.
    fn try_append(&mut self, records: &[Record]) -> Result<(), CommitError> {
        const WRITE: &str = "writing a transaction";
        let Some(mut log) = self.file.take() else {
            return Err(CommitError::new(&*self.disk, WRITE, io::Error::other("no log is open")));
        };
        frame::begin(&mut self.buffer);
        for record in records {
            payload::encode(record, &mut log.schemas, &mut self.buffer);
            if self.buffer.len() > HEADER_BYTES + PAYLOAD_BYTES_MAX {
                log.schemas.forget();
                self.file = Some(log);
                return Err(CommitError::TooLarge { bytes: self.buffer.len() });
            }
        }
        frame::seal(&mut self.buffer, log.salt, log.sequence);
        let end = self.tail.end + self.buffer.len() as u64;
        if let Err(error) = log.file.write_at(self.tail.end, &self.buffer) {
            log.schemas.forget();
            if log.cut(self.tail.end).is_ok() {
                self.file = Some(log);
            }
            return Err(CommitError::new(&*self.disk, WRITE, error));
        }
        // A large commit writes much anyway; reserved space behind it would not shorten its sync.
        if self.buffer.len() as u64 <= self.options.reserve_bytes / 16 {
            log.reserve(end, self.options.reserve_bytes);
        }
        if self.options.sync == SyncPolicy::Always
            && let Err(error) = log.file.sync()
        {
            // The cut helps only if no later commit says that the file ends here, so its failure is ignored.
            let _ = log.cut(self.tail.end);
            return Err(CommitError::new(&*self.disk, "syncing a transaction", error));
        }
        log.schemas.keep();
        log.sequence += 1;
        self.tail.end = end;
        self.file = Some(log);
        Ok(())
    }

    /// Opens a log in place of one in doubt. The log reserves no space until it has as many bytes as would be
    /// reserved: on a disk that reports only at the sync that it is full, the transaction may fit although the zeros
    /// behind it do not.
    fn replace(&mut self) -> Result<(), CommitError> {
        self.open_next()?;
        if let Some(log) = &mut self.file {
            log.reserved += self.options.reserve_bytes;
        }
        Ok(())
    }

    /// Opens the next log. After an error the old file is still open if no new file was created; otherwise none is
    /// open, because the rest of the new file may say that the old one ends here.
    fn open_next(&mut self) -> Result<(), CommitError> {
        const START: &str = "starting a log";
        let name = FileName::log(self.next_number);
        self.next_number += 1;
        let file = self.disk.create(&name.text()).map_err(|error| CommitError::new(&*self.disk, START, error))?;
        self.file = None;
        let begun = self.begin(name, file);
        if begun.is_err() {
            // The file is void in any case: its number is never used again.
            let _ = self.disk.remove(&name.text());
        }
        let (log, end) = begun.map_err(|error| CommitError::new(&*self.disk, START, error))?;
        if self.tail.end > 0 {
            self.history.logs.push(self.tail);
        }
        self.tail = LogEnd { number: name.number, end };
        self.file = Some(log);
        Ok(())
    }

    fn begin(&mut self, name: FileName, mut file: Box<dyn DiskFile>) -> io::Result<(OpenLog, u64)> {
        frame::begin(&mut self.buffer);
        FileHeader { version: self.version, identity: self.identity, previous: self.tail }.encode(&mut self.buffer);
        frame::seal(&mut self.buffer, name.salt(), 0);
        file.write_at(0, &self.buffer)?;
        file.sync()?;
        self.disk.sync_dir()?;
        let end = self.buffer.len() as u64;
        Ok((OpenLog { file, salt: name.salt(), sequence: 1, reserved: end, schemas: SchemasWritten::default() }, end))
    }
}

impl OpenLog {
    fn cut(&mut self, end: u64) -> io::Result<()> {
        self.file.truncate(end)?;
        self.reserved = end;
        self.file.sync()
    }

    /// Reserves space beyond `end` if the reserved space is used up. A failure is ignored: reserved space only saves
    /// time.
    fn reserve(&mut self, end: u64, chunk_bytes: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        if end <= self.reserved {
            return;
        }
        self.reserved = end;
        let target = end + chunk_bytes;
        while self.reserved < target {
            let len = ZEROS.len().min((target - self.reserved) as usize);
            if self.file.write_at(self.reserved, &ZEROS[..len]).is_err() {
                return;
            }
            self.reserved += len as u64;
        }
    }
}
