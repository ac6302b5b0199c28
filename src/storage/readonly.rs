//! A directory that is only read: for looking at the store of a stopped node without changing anything.
//!
//! A disk that fails is often mounted read-only, and a broken store must not be made worse by a look. So nothing is
//! written here, not even the lock's file: where there is one, it is locked as it is.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, DiskLock, LOCK_FILE, RealDisk};

/// See the module's documentation.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    disk: RealDisk,
}

impl ReadOnlyDisk {
    /// The directory at `path`, which must be there.
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

    /// Locks the file of a node's lock if there is one; without one no node ever used the directory.
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
