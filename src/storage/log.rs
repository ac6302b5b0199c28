//! Commits: a transaction is a frame appended to the newest log, and a sync.
//!
//! A log begins with its opening (`files`), continues with transactions, and ends in zeros: space is reserved ahead in
//! chunks, so that the sync of a small commit writes data only and no metadata. An empty transaction says that the store
//! was closed in order: what was damaged before it was not just torn by a crash.
//!
//! A write that fails is undone by cutting the file. Where that fails too, or a sync failed (after which the system may
//! have dropped what it could not write, and a second sync lies), the file is never touched again: the next commit goes
//! to a new log that says where the old one ends.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{Identity, Record};

use super::checkpoint::CheckpointWriter;
use super::disk::{Disk, DiskFile, DiskLock};
use super::files::{FileHeader, FileName, LogEnd};
use super::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use super::payload::{self, SchemasWritten};

/// When a commit is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before it returns.
    #[default]
    Always,
    /// When the system writes it; a crash of the machine loses the last seconds, a crash of the process nothing.
    Never,
}

/// How the store uses the disk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When a commit is durable.
    pub sync: SyncPolicy,
    /// Logs shorter than this, or than twice the last checkpoint, are not worth a checkpoint.
    pub checkpoint_log_bytes_min: u64,
    /// How much space a log takes ahead of what is written; 0 for none.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { sync: SyncPolicy::Always, checkpoint_log_bytes_min: 16 << 20, reserve_bytes: 1 << 20 }
    }
}

/// Why a commit failed. Nothing of it will be seen again.
#[derive(Debug)]
pub enum CommitError {
    /// The disk is full; commits work again when there is room.
    Full {
        /// The directory.
        directory: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed; commits work again when it does.
    Disk {
        /// The directory.
        directory: String,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The records are more than a transaction can hold.
    TooLarge {
        /// The bytes they take at least.
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

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { directory, source } => {
                write!(
                    f,
                    "no space is left for the store in {directory} ({source}); make room and it goes on by itself"
                )
            }
            Self::Disk { directory, doing, source } => {
                write!(f, "{doing} in the store in {directory} failed: {source}; check the disk")
            }
            Self::TooLarge { bytes } => {
                write!(f, "a transaction of {bytes} bytes or more; the store takes {PAYLOAD_BYTES_MAX} at once")
            }
        }
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full { source, .. } | Self::Disk { source, .. } => Some(source),
            Self::TooLarge { .. } => None,
        }
    }
}

/// The store on disk, open for commits. One writer owns it.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    lock: DiskLock,
    options: Options,
    identity: Identity,
    /// Where the acknowledged ends; 0 bytes if that log is lost.
    tail: LogEnd,
    /// The file of `tail`; `None` if it is in doubt and the next commit needs a new one.
    file: Option<OpenLog>,
    /// No file has this number yet.
    next_number: u64,
    buffer: Vec<u8>,
    history: History,
}

/// The file that commits go to.
#[derive(Debug)]
struct OpenLog {
    file: Box<dyn DiskFile>,
    salt: u64,
    sequence: u64,
    /// How far the file's space is reserved, or need not be.
    reserved: u64,
    schemas: SchemasWritten,
}

/// What a checkpoint would replace.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Finished logs since the last checkpoint, and their lengths.
    pub logs: Vec<LogEnd>,
    /// Whether something in them is damaged.
    pub damaged: bool,
    /// The checkpoint last tried in this life, whether or not it could be begun.
    pub tried: u64,
    /// Bytes of the logs then.
    pub tried_bytes: u64,
    pub progress: Arc<Progress>,
}

/// How far checkpoints are; shared with the one being written, if any.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The newest durable checkpoint.
    pub number: AtomicU64,
    /// Its length.
    pub bytes: AtomicU64,
}

/// What a new [`Log`] continues.
pub(super) struct Continued {
    pub disk: Arc<dyn Disk>,
    pub lock: DiskLock,
    pub options: Options,
    pub tail: LogEnd,
    pub next_number: u64,
    pub history: History,
}

/// Buffers beyond this are given back after use.
const BUFFER_KEPT_BYTES: usize = 1 << 20;
/// More logs than this want a checkpoint, however short they are (each start makes one).
const LOGS_MAX: usize = 16;

impl Log {
    pub(super) fn start(continued: Continued, identity: Identity) -> Result<Log, CommitError> {
        let Continued { disk, lock, options, tail, next_number, history } = continued;
        let mut log = Log { disk, lock, options, identity, tail, file: None, next_number, buffer: Vec::new(), history };
        log.open_next()?;
        Ok(log)
    }

    /// Who the store is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes of logs since the last checkpoint, and of that.
    pub fn disk_bytes(&self) -> u64 {
        self.log_bytes() + self.history.progress.bytes.load(Ordering::Acquire)
    }

    /// Makes the records durable as one transaction: when this returns `Ok` (and [`SyncPolicy::Always`] is set), they
    /// survive whatever happens; when it returns an error, none of them will be seen again. At most 256 MiB at once.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), CommitError> {
        if records.is_empty() { Ok(()) } else { self.append(records) }
    }

    /// Whether the logs have become so long, so many or so damaged that a checkpoint is due: see [`Log::rotate`]. After one
    /// that failed, not before they have grown by a quarter of [`Options::checkpoint_log_bytes_min`].
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

    /// Begins a new log, and the checkpoint that will replace all logs before it: the caller writes to it, on another
    /// thread, the whole state as it is at this moment, while commits go on. One at a time: see
    /// [`Log::wants_checkpoint`]. Dropped unfinished, it leaves things as they were. If no file can be created, commits go
    /// on in the old log.
    pub fn rotate(&mut self) -> Result<CheckpointWriter, CommitError> {
        (self.history.tried, self.history.tried_bytes) = (self.next_number, self.log_bytes());
        self.open_next()?;
        let progress = self.history.progress.clone();
        let (disk, lock) = (self.disk.clone(), self.lock.clone());
        Ok(CheckpointWriter::new(disk, lock, self.tail.number, self.identity, progress))
    }

    /// Notes that the store was closed in order. Nothing is lost if this is never called.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.append(&[])
    }

    fn log_bytes(&self) -> u64 {
        self.history.logs.iter().map(|log| log.end).sum::<u64>() + self.tail.end
    }

    fn append(&mut self, records: &[Record]) -> Result<(), CommitError> {
        let fresh = self.file.is_none();
        if fresh {
            self.replace()?;
        }
        let result = match self.try_append(records) {
            // The data may be all right, only the file is in doubt.
            Err(_) if !fresh && self.file.is_none() => self.replace().and_then(|()| self.try_append(records)),
            result => result,
        };
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = Vec::new();
        }
        result
    }

    /// Appends to the open file. After an error it is as before, or closed.
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
        // A large commit writes enough as it is, and its sync is not the shorter for space reserved behind it.
        if self.buffer.len() as u64 <= self.options.reserve_bytes / 16 {
            log.reserve(end, self.options.reserve_bytes);
        }
        if self.options.sync == SyncPolicy::Always
            && let Err(error) = log.file.sync()
        {
            // Worth a try, should no later commit come to say that the file ends here.
            let _ = log.cut(self.tail.end);
            return Err(CommitError::new(&*self.disk, "syncing a transaction", error));
        }
        log.schemas.keep();
        log.sequence += 1;
        self.tail.end = end;
        self.file = Some(log);
        Ok(())
    }

    /// Opens a log in place of one in doubt. It reserves no space before it has that much: on a disk that says only at the
    /// sync that it is full, the transaction may have room, and the zeros behind it none.
    fn replace(&mut self) -> Result<(), CommitError> {
        self.open_next()?;
        if let Some(log) = &mut self.file {
            log.reserved += self.options.reserve_bytes;
        }
        Ok(())
    }

    /// Opens the next log. After an error the file that was open is so still if no other was created, else none is: what is
    /// left of the other may come to say that this one ends here.
    fn open_next(&mut self) -> Result<(), CommitError> {
        const START: &str = "starting a log";
        let name = FileName::log(self.next_number);
        self.next_number += 1;
        let file = self.disk.create(&name.text()).map_err(|error| CommitError::new(&*self.disk, START, error))?;
        self.file = None;
        let begun = self.begin(name, file);
        if begun.is_err() {
            // Void in any case, as the number is never used again.
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
        FileHeader { identity: self.identity, previous: self.tail }.encode(&mut self.buffer);
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

    /// Reserves space beyond `end`, if what was reserved is used up. That it fails is no error: it saves time only.
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
