//! The floor's append log: it overwrites zeros allocated before, so that a sync writes no metadata.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::Result;

const CHUNK_BYTES: u64 = 1 << 20;

/// An append-only file with allocated space ahead of its end.
pub struct Log {
    file: File,
    bytes: u64,
    allocated: u64,
    dirty: bool,
}

impl Log {
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: File::create(path)?, bytes: 0, allocated: 0, dirty: false })
    }

    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        let end = self.bytes + record.len() as u64;
        if end > self.allocated {
            let more = (end - self.allocated).next_multiple_of(CHUNK_BYTES);
            self.file.seek(SeekFrom::Start(self.allocated))?;
            self.file.write_all(&vec![0; more as usize])?;
            self.file.sync_all()?;
            self.allocated += more;
        }
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(record)?;
        self.bytes = end;
        self.dirty = true;
        Ok(())
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) -> Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}
