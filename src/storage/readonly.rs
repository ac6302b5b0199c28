//! A directory opened for reading only: inspects the store of a stopped node without changing anything.
//!
//! A failing disk is often mounted read-only, and an inspection must not make a broken store worse. So nothing is
//! written here, not even the lock file: an existing lock file is locked as it is.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, DiskLock, LOCK_FILE, RealDisk};

/// A [`Disk`] that refuses every change.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    disk: RealDisk,
}

impl ReadOnlyDisk {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub fn open(path: &Path) -> io::Result<ReadOnlyDisk> {
        if !path.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        RealDisk::open(path).map(|disk| ReadOnlyDisk { disk })
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
}

impl Disk for ReadOnlyDisk {
    fn name(&self) -> String {
        self.disk.name()
    }

    /// Locks the node's lock file if there is one; without one, no node has ever used the directory.
    fn lock(&self) -> Result<DiskLock, TryLockError> {
        match File::open(self.disk.path().join(LOCK_FILE)) {
            Ok(file) => {
                file.try_lock()?;
                Ok(Arc::new(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Arc::new(())),
            Err(error) => Err(TryLockError::Error(error)),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn cut(&self, _: &str, _: u64) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}
