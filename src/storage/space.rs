//! The room on the file system of a store.

use std::io;
use std::path::Path;

/// The room on a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that a process of this user can still write.
    pub free_bytes: u64,
    /// Bytes of the whole file system.
    pub bytes: u64,
}

impl DiskSpace {
    /// The room on the file system that has `path`.
    ///
    /// # Errors
    /// If the operating system cannot say it.
    pub fn of(path: &Path) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(path)?;
        Ok(DiskSpace {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}
