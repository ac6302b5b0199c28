//! The file operations that the store uses: few, so that a simulated disk can crash between any two of them.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file whose lock says that a process uses the directory.
pub(super) const LOCK_FILE: &str = "LOCK";

/// A share of the directory's lock; dropping the last share unlocks the directory.
pub type DiskLock = Arc<dyn Any + Send + Sync>;

/// A directory that belongs to a store.
///
/// Nothing is durable before it is synced: [`DiskFile::sync`] makes the contents of a file durable, [`Disk::sync_dir`]
/// the names in the directory.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The directory's name in messages.
    fn name(&self) -> String;
    /// Locks the directory for this process.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if another process has the lock.
    fn lock(&self) -> Result<DiskLock, TryLockError>;
    /// Names of the files, in no order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file.
    ///
    /// # Errors
    /// If there is a file of that name, or the disk fails.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// If there is no such file, or the disk fails.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file; the new name replaces a file that had it.
    ///
    /// # Errors
    /// If the disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Cuts a file to `len` bytes and makes that durable.
    ///
    /// # Errors
    /// If the file has another hard link, such as a backup, or the disk fails.
    fn cut(&self, name: &str, len: u64) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// If there is no such file, or the disk fails.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// If the disk fails.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// If the disk fails.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Fills `buffer` from `offset` on, up to the end of the file, and returns the number of bytes read.
    ///
    /// # Errors
    /// If the disk fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// If the disk fails; any part of `bytes` may then have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// If the disk fails.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    ///
    /// # Errors
    /// If the disk fails; everything written since the last sync may then be durable or lost, and a later sync that
    /// succeeds proves nothing about it.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of this machine.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
}

impl RealDisk {
    /// Opens the directory at `path`; creates it, durably, if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created or opened.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let path = path.into();
        let parents: Vec<&Path> = parents_of_missing(&path).collect();
        if !parents.is_empty() {
            fs::create_dir_all(&path)?;
        }
        parents.into_iter().try_for_each(sync_directory)?;
        Ok(RealDisk { path })
    }

    /// The directory's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The directories that get a new name when `path` and its missing parents are created, the lowest first.
fn parents_of_missing(path: &Path) -> impl Iterator<Item = &Path> {
    let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir());
    missing.filter_map(Path::parent).map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Disk for RealDisk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&self) -> Result<DiskLock, TryLockError> {
        let path = self.path.join(LOCK_FILE);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Arc::new(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        if file.metadata()?.nlink() > 1 {
            return Err(io::Error::other("the file has another name, a hard link"));
        }
        file.set_len(len)?;
        file.sync_data()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The operator's next step after an error of the system.
pub(super) fn advice(error: &io::Error) -> &'static str {
    /// `ENFILE` and `EMFILE`, which have no kind of their own.
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            "make room: df -h and df -i show whether bytes or inodes are used up"
        }
        (_, Some(code)) if TOO_MANY_FILES.contains(&code) => "raise the limit of open files (LimitNOFILE, fs.file-max)",
        _ => "check the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    #[test]
    fn each_directory_that_gets_a_name_is_made_durable() {
        let parents = |path: &Path| parents_of_missing(path).map(Path::to_owned).collect::<Vec<_>>();
        let temp = TempDir::new();
        let (a, b) = (temp.path().join("a"), temp.path().join("a/b"));
        assert_eq!(parents(&a.join("b/c")), [&b, &a, temp.path()]);
        RealDisk::open(&b).unwrap();
        assert_eq!(parents(&b.join("c")), [&*b]);
        assert!(parents(&b).is_empty());
        assert_eq!(parents(Path::new("no-such-store")), [Path::new(".")]);
        assert_eq!(parents(Path::new("no-such/store")), [Path::new("no-such"), Path::new(".")]);
    }

    #[test]
    fn a_file_that_a_backup_has_by_a_hard_link_is_not_cut() {
        let temp = TempDir::new();
        let disk = RealDisk::open(temp.path()).unwrap();
        for name in ["a", "b"] {
            disk.create(name).unwrap().write_at(0, b"12345").unwrap();
        }
        fs::hard_link(temp.path().join("a"), temp.path().join("backup")).unwrap();
        assert!(disk.cut("a", 2).is_err());
        disk.cut("b", 2).unwrap();
        assert_eq!(fs::read(temp.path().join("backup")).unwrap(), b"12345");
        assert_eq!(fs::read(temp.path().join("b")).unwrap(), b"12");
    }
}
