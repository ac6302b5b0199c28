//! The operations on a directory that the store is made of: few, so that a simulation can stop between any two.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file whose lock says that a process uses the directory.
pub(super) const LOCK_FILE: &str = "LOCK";

/// Held by all who use the directory; dropping the last gives it free.
pub type DiskLock = Arc<dyn Any + Send + Sync>;

/// A directory of the store's own.
///
/// Nothing is durable before it is synced: contents of a file by [`DiskFile::sync`], the names in the directory by
/// [`Disk::sync_dir`].
pub trait Disk: fmt::Debug + Send + Sync {
    /// What to call the directory in messages.
    fn name(&self) -> String;
    /// Takes the directory for this process.
    fn lock(&self) -> Result<DiskLock, TryLockError>;
    /// The names of the files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file; an error if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// A file to be read.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of the file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Cuts a file to `len` bytes, and makes that durable; an error if others know it by another name.
    fn cut(&self, name: &str, len: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Fills `buffer` from `offset` on as far as the file goes, and says how far.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable. After an error, what was written since the last sync may be on the disk or
    /// not, and another sync that succeeds says nothing about it.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the machine.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
}

impl RealDisk {
    /// The directory at `path`, which is created, durably, if it is not there.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let path = path.into();
        let parents: Vec<&Path> = parents_of_missing(&path).collect();
        if !parents.is_empty() {
            fs::create_dir_all(&path)?;
        }
        parents.into_iter().try_for_each(sync_directory)?;
        Ok(RealDisk { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The directories that get a name when `path` is created with what is missing above it, the lowest first.
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
    fn what_a_backup_has_by_a_hard_link_is_not_cut() {
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
