//! Checkpoints: the whole state in one file, in place of the logs that led to it.
//!
//! A checkpoint is written beside the log, on a thread of the caller, in frames of about a quarter of a megabyte. Each
//! frame is synced as soon as it is written: a sync of much more data would delay the syncs of the log. The file gets
//! its name when it is complete and durable; then the files that it replaces are removed. The order of its records has
//! no meaning, and a large group may be split into several records.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::store::{GroupRecord, Identity, Record};

use super::disk::{Disk, DiskFile, DiskLock, advice};
use super::files::{FileHeader, FileName, LogEnd};
use super::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use super::payload::{self, SchemasWritten};
use super::progress::CheckpointProgress;

/// Bytes after which a frame is written.
const FRAME_BYTES: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };
/// Larger groups are split into parts.
const PART_BYTES_MAX: usize = 64 << 20;
/// Most bytes of a file that are freed at once. The value is small in tests, so that the trials, which fail at any
/// operation, also fail among these.
const FREED_BYTES_MAX: u64 = if cfg!(test) { 512 } else { 4 << 20 };

/// Reasons why a checkpoint failed. The logs are still there, so nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk is full or failed.
    #[error("{doing} checkpoint {file} failed: {source}; {}; the logs are kept, and it is tried again", advice(.source))]
    Disk {
        /// The file's name.
        file: String,
        /// The operation that failed.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// One family is more than a frame can hold.
    #[error("a family of {bytes} bytes; a checkpoint takes {PAYLOAD_BYTES_MAX} at once; the logs are kept")]
    TooLarge {
        /// Bytes that the family takes.
        bytes: usize,
    },
}

/// A checkpoint being written: see [`super::Log::rotate`].
#[derive(Debug)]
pub struct CheckpointWriter {
    disk: Arc<dyn Disk>,
    /// The writer renames and removes files. Until it is dropped, no other process may lock the directory, even after
    /// the log is closed.
    _lock: DiskLock,
    name: FileName,
    /// The file's format.
    version: u64,
    identity: Identity,
    file: Option<Box<dyn DiskFile>>,
    end: u64,
    sequence: u64,
    schemas: SchemasWritten,
    buffer: Vec<u8>,
    progress: Arc<CheckpointProgress>,
}

impl CheckpointWriter {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        lock: DiskLock,
        number: u64,
        version: u64,
        identity: Identity,
        progress: Arc<CheckpointProgress>,
    ) -> Self {
        let name = FileName::checkpoint(number);
        let (schemas, buffer) = (SchemasWritten::default(), Vec::new());
        Self { disk, _lock: lock, name, version, identity, file: None, end: 0, sequence: 0, schemas, buffer, progress }
    }

    /// Adds a record: a whole group, a cursor, or the current epoch.
    ///
    /// # Errors
    /// If the disk is full or fails, or a family is too large.
    pub fn write(&mut self, record: &Record) -> Result<(), CheckpointError> {
        self.begin()?;
        match record {
            Record::Group(group) => self.write_group(group, record)?,
            _ => payload::encode(record, &mut self.schemas, &mut self.buffer),
        }
        if self.buffer.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    /// Makes the checkpoint durable and removes the files that it replaces.
    ///
    /// # Errors
    /// If the disk is full or fails. A file that cannot be removed is no error.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        self.begin()?;
        payload::encode_end(&mut self.buffer);
        self.flush()?;
        let (unfinished, name) = (self.name.unfinished(), self.name.text());
        let named = self.disk.rename(&unfinished, &name).and_then(|()| self.disk.sync_dir());
        named.map_err(|error| self.error("naming", error))?;
        self.file = None;
        self.progress.bytes.store(self.end, Ordering::Release);
        self.progress.number.store(self.name.number, Ordering::Release);
        // The next checkpoint removes the files that are left; they only take space.
        let _ = remove_before(&*self.disk, self.name.number);
        Ok(())
    }

    fn write_group(&mut self, group: &GroupRecord, record: &Record) -> Result<(), CheckpointError> {
        let bytes = group.group.families().iter().map(|f| f.family.bytes());
        let count = group.group.families().len();
        if count < 2 || bytes.sum::<usize>() <= PART_BYTES_MAX {
            payload::encode(record, &mut self.schemas, &mut self.buffer);
            return Ok(());
        }
        for part in [0..count / 2, count / 2..count] {
            let marks = part.clone().map(|at| group.families.get(at)).collect();
            let families = group.group.part(|i, _| part.contains(&i));
            self.write(&Record::Group(GroupRecord {
                id: group.id.clone(),
                group: families,
                header: group.header,
                families: marks,
            }))?;
        }
        Ok(())
    }

    /// Ensures that there is a file, and a frame to append to.
    fn begin(&mut self) -> Result<(), CheckpointError> {
        if self.buffer.is_empty() {
            frame::begin(&mut self.buffer);
        }
        if self.file.is_some() {
            return Ok(());
        }
        let file = self.disk.create(&self.name.unfinished()).map_err(|error| self.error("creating", error))?;
        self.file = Some(file);
        let (version, identity, previous) = (self.version, self.identity, LogEnd::default());
        FileHeader { version, identity, previous }.encode(&mut self.buffer);
        self.flush()?;
        frame::begin(&mut self.buffer);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.buffer.len() > HEADER_BYTES + PAYLOAD_BYTES_MAX {
            return Err(CheckpointError::TooLarge { bytes: self.buffer.len() });
        }
        frame::seal(&mut self.buffer, self.name.salt(), self.sequence);
        let written = file.write_at(self.end, &self.buffer).and_then(|()| file.sync());
        written.map_err(|error| self.error("writing", error))?;
        self.end += self.buffer.len() as u64;
        self.sequence += 1;
        self.schemas.keep();
        self.buffer.clear();
        Ok(())
    }

    fn error(&self, doing: &'static str, source: io::Error) -> CheckpointError {
        CheckpointError::Disk { file: self.name.text(), doing, source }
    }
}

/// Removes an unfinished checkpoint.
impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = self.disk.remove(&self.name.unfinished());
        }
    }
}

/// Removes the files that `checkpoint-number` replaces, each in steps from its end. Recovery ignores all of them, so
/// an interruption does no harm. The steps are small because a commit's sync waits while a file system frees much at
/// once.
pub(super) fn remove_before(disk: &dyn Disk, number: u64) -> io::Result<()> {
    let names = disk.list()?.into_iter().filter_map(|name| FileName::parse(&name));
    let replaced: Vec<FileName> = names.filter(|name| name.number < number).collect();
    for name in replaced.iter().map(|name| name.text()) {
        let mut len = disk.open(&name).and_then(|file| file.len()).unwrap_or(0);
        while len > FREED_BYTES_MAX {
            len -= FREED_BYTES_MAX;
            // A file that cannot be cut, or has a hard link such as a backup, is removed whole.
            if disk.cut(&name, len).is_err() {
                break;
            }
        }
    }
    remove_all(disk, replaced.into_iter())
}

/// Removes files. A file that cannot be removed does not stop the others; the first error is returned.
pub(super) fn remove_all(disk: &dyn Disk, names: impl Iterator<Item = FileName>) -> io::Result<()> {
    names.map(|name| disk.remove(&name.text())).fold(Ok(()), io::Result::and)
}

#[cfg(test)]
mod tests {
    use pushrelay_testkit::disk::{DiskFault, SimulatedDisk};

    use super::*;

    #[test]
    fn a_file_that_cannot_be_removed_keeps_no_other() {
        let disk = SimulatedDisk::new(0);
        for name in ["checkpoint-0000000001", "log-0000000001", "log-0000000002", "log-0000000003", "LOCK"] {
            disk.create(name).unwrap();
        }
        disk.fail_at(disk.operations(), DiskFault::Full);
        disk.fail_at(disk.operations() + 1, DiskFault::Broken);
        assert_eq!(remove_before(&disk, 3).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.list().unwrap(), ["LOCK", "checkpoint-0000000001", "log-0000000001", "log-0000000003"]);
        remove_before(&disk, 3).unwrap();
        assert_eq!(disk.list().unwrap(), ["LOCK", "log-0000000003"]);
    }

    #[test]
    fn a_large_file_is_removed_in_steps_wherever_they_are_broken_off() {
        let step = FREED_BYTES_MAX as usize;
        let large = || {
            let disk = SimulatedDisk::new(0);
            for (name, len) in
                [("log-0000000001", 2 * step + 1), ("log-0000000002", step), ("log-0000000003", 3 * step)]
            {
                let mut file = disk.create(name).unwrap();
                file.write_at(0, &vec![7; len]).unwrap();
                file.sync().unwrap();
            }
            disk.sync_dir().unwrap();
            disk
        };
        let len = |disk: &SimulatedDisk, name: &str| disk.open(name).and_then(|file| file.len()).ok();
        // Two cuts, each with its sync, and two removals.
        let (disk, operations) = (large(), 6);
        let before = disk.operations();
        remove_before(&disk, 3).unwrap();
        assert_eq!((disk.operations() - before, disk.list().unwrap()), (operations, vec!["log-0000000003".to_owned()]));
        for broken in 0..operations {
            let disk = large();
            disk.fail_at(disk.operations() + broken, DiskFault::Broken);
            let removed = remove_before(&disk, 3);
            assert_eq!(removed.is_err(), broken >= 4, "what cannot be cut is removed all the same");
            remove_before(&disk, 3).unwrap();
            assert_eq!(disk.list().unwrap(), ["log-0000000003"]);
            assert_eq!(len(&disk, "log-0000000003"), Some(3 * FREED_BYTES_MAX), "what is not replaced stays");
        }
    }
}
