//! The spool: for each group, the metrics that could not be delivered, in one file.
//!
//! A file has the state of its group, not its history: a later run replaces the metrics of the same names. So the spool is
//! bounded by the number of groups, and by the size of a file. A file is locked while its contents are delivered, so that
//! older metrics never arrive after newer ones; it is replaced by renaming.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::report::FamilyTexts;

/// Bytes of a file, at most.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files of a spool, at most.
const FILES_MAX: usize = 1_000;
/// The end of the name of a file of the spool.
const EXTENSION: &str = "json";

/// The metrics of a group that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// The URL of the node.
    pub node: String,
    /// The path of the group's pushes.
    pub path: String,
    /// The metrics.
    pub families: FamilyTexts,
}

/// A directory of files.
#[derive(Clone, Debug)]
pub struct Spool(PathBuf);

/// A locked file of the spool.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    path: PathBuf,
}

impl Spool {
    /// The spool in that directory, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The directory without an option: `/var/spool/pushrelay` for root, else below the user's directory of state.
    pub fn directory_default() -> Option<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Some("/var/spool/pushrelay".into());
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        Some(state?.join("pushrelay/spool"))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The file of a group.
    pub fn path_of(&self, node: &str, path: &str) -> PathBuf {
        let name = xxh3_128(format!("{node}\n{path}").as_bytes());
        self.0.join(format!("{name:032x}.{EXTENSION}"))
    }

    /// All files.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|end| end == EXTENSION)).take(FILES_MAX).collect()
    }

    /// Opens and locks a file; makes it if `create` is set. `None` if another process has the lock, or there is no file.
    ///
    /// # Errors
    /// The directory or the file cannot be made or read.
    pub fn lock(&self, path: &Path, create: bool) -> io::Result<Option<SpoolFile>> {
        if create {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        }
        loop {
            let opened = OpenOptions::new().read(true).write(true).create(create).mode(0o600).open(path);
            let file = match opened {
                Err(error) if !create && error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            match file.try_lock() {
                // The holder before may have replaced or removed the file.
                Ok(()) if is_at(&file, path) => return Ok(Some(SpoolFile { file, path: path.to_owned() })),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Writes the metrics, in the place of those that the file has. The writer should hold the file's lock.
    ///
    /// # Errors
    /// The spool is full, or cannot be written.
    pub fn write(&self, path: &Path, spooled: &Spooled) -> io::Result<()> {
        let text = serde_json::to_vec(spooled).map_err(io::Error::other)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("the metrics are larger than {FILE_BYTES_MAX} bytes")));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let files = self.files();
        if files.len() >= FILES_MAX && !files.iter().any(|file| file == path) {
            return Err(io::Error::other(format!("the spool is full: {FILES_MAX} groups wait there")));
        }
        let draft = path.with_extension(format!("draft-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let written = file.write_all(&text).and_then(|()| file.sync_data()).and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            // The error of the write matters more than that of this.
            let _ = fs::remove_file(&draft);
        }
        written
    }
}

/// The contents of a file; nothing if it is empty, too large or damaged.
pub fn read(path: &Path) -> Spooled {
    File::open(path).map(|file| contents(&file)).unwrap_or_default()
}

fn contents(mut file: &File) -> Spooled {
    let mut text = Vec::new();
    match (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut text) {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => Spooled::default(),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().and_then(|open| Ok(inode(open) == inode(fs::metadata(path)?))).unwrap_or(false)
}

impl SpoolFile {
    /// The contents.
    pub fn read(&self) -> Spooled {
        contents(&self.file)
    }

    /// Removes the file, unless somebody has replaced it.
    pub fn remove(self) {
        if is_at(&self.file, &self.path) {
            // A file that stays is delivered once more, which changes nothing.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    fn spooled(families: &[(&str, &str)]) -> Spooled {
        let families = families.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Spooled { node: "http://n".into(), path: "/metrics/job/a".into(), families: families.collect() }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_locked_by_one() {
        let temp = TempDir::new();
        let spool = Spool::new(temp.path().join("a/b"));
        let path = spool.path_of("http://n", "/metrics/job/a");
        assert!(spool.lock(&path, false).unwrap().is_none());
        let held = spool.lock(&path, true).unwrap().unwrap();
        assert_eq!(held.read(), Spooled::default());
        assert!(spool.lock(&path, true).unwrap().is_none(), "one process at a time");
        spool.write(&path, &spooled(&[("m", "m 1\n")])).unwrap();
        held.remove();
        assert_eq!(spool.files(), std::slice::from_ref(&path), "a file that was replaced is not removed");
        let held = spool.lock(&path, false).unwrap().unwrap();
        assert_eq!(held.read(), spooled(&[("m", "m 1\n")]));
        held.remove();
        assert!(spool.files().is_empty());
    }

    #[test]
    fn the_spool_is_bounded() {
        let temp = TempDir::new();
        let spool = Spool::new(temp.path().to_owned());
        let large = "x".repeat(FILE_BYTES_MAX as usize);
        assert!(spool.write(&spool.path_of("n", "p"), &spooled(&[("m", &large)])).is_err());
        for number in 0..FILES_MAX {
            temp.write(&format!("{number}.json"), "{}");
        }
        let full = spool.write(&spool.path_of("n", "p"), &spooled(&[("m", "m 1\n")])).unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        assert!(spool.write(&temp.path().join("1.json"), &spooled(&[("m", "m 1\n")])).is_ok());
    }
}
