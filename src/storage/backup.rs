//! A copy of the store of a running node.
//!
//! Logs are only appended to, and other files never change, so a copy of all files is the store as a crash at that moment
//! would leave it, provided that no checkpoint replaced files meanwhile and that the end of the newest log was not read
//! while it was written. Both are found out: the names are listed again, and the copy is read back as recovery reads it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::MetricType;

use super::files::{FileKind, FileName};
use super::inspect::{InspectError, Inspection, inspect};

/// Attempts to copy while the node writes.
const ATTEMPTS: usize = 10;
/// The end of the name of a copy that is not complete.
const PARTIAL: &str = ".partial";
/// Other files that belong to a store, if they exist.
const BESIDE: [&str; 1] = ["edges.json"];

/// Reasons why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be read.
    #[error("{0}")]
    Inspect(#[source] InspectError),
    /// The target exists.
    #[error("{} exists already: name a directory that does not", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// A file cannot be copied.
    #[error("cannot copy {} to {}: {source}", from.display(), to.display())]
    Copy {
        /// The file of the store.
        from: PathBuf,
        /// Its copy.
        to: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Files were replaced during every attempt.
    #[error("the files of {} were replaced during each of {ATTEMPTS} attempts: try again", path.display())]
    Busy {
        /// The store's directory.
        path: PathBuf,
    },
}

/// Copies the store in `from`, which a node may use, to the new directory `to`. Returns the copy as recovery reads it: if
/// it reports damage, the store itself is damaged.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(from: &Path, to: &Path, reserved: &[(&str, MetricType)]) -> Result<Inspection, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let copied = (0..ATTEMPTS).find_map(|attempt| {
        // An attempt that failed leaves files.
        let _ = fs::remove_dir_all(&partial);
        match attempt_copy(from, &partial, reserved) {
            // A damaged store is copied as it is, in the end.
            Ok(Some(copy)) if copy.report.is_intact() || attempt + 1 == ATTEMPTS => Some(Ok(copy)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    let finished = copied.unwrap_or_else(|| Err(BackupError::Busy { path: from.to_owned() })).and_then(|copy| {
        let parent = to.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = fs::rename(&partial, to).and_then(|()| File::open(parent)?.sync_all().or(Ok(())));
        named.map(|()| copy).map_err(|source| BackupError::Copy { from: partial.clone(), to: to.to_owned(), source })
    });
    if finished.is_err() {
        // The first error matters more.
        let _ = fs::remove_dir_all(&partial);
    }
    finished
}

/// Copies everything once; `None` if files were replaced meanwhile.
fn attempt_copy(from: &Path, to: &Path, reserved: &[(&str, MetricType)]) -> Result<Option<Inspection>, BackupError> {
    let names = names(from)?;
    let failed = |name: &str| {
        let (from, to) = (from.join(name), to.join(name));
        move |source| BackupError::Copy { from, to, source }
    };
    fs::create_dir_all(to).map_err(failed(""))?;
    // The newest log is the last name, so that it is copied after all others.
    let all = BESIDE.iter().map(|name| (*name).to_owned()).chain(names.iter().map(|name| name.text()));
    for name in all {
        match copy(&from.join(&name), &to.join(&name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && BESIDE.contains(&&*name) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&name)(error)),
        }
    }
    File::open(to).and_then(|directory| directory.sync_all()).map_err(failed(""))?;
    if self::names(from)? != names {
        return Ok(None);
    }
    inspect(to, reserved, Arc::new(())).map(Some).map_err(BackupError::Inspect)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// The files of the store, checkpoints first, then logs by their numbers.
fn names(path: &Path) -> Result<Vec<FileName>, BackupError> {
    let directory = |source| BackupError::Inspect(InspectError::Directory { path: path.to_owned(), source });
    let entries = fs::read_dir(path).map_err(directory)?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(directory)?.file_name();
        names.extend(name.to_str().and_then(FileName::parse));
    }
    if names.is_empty() {
        return Err(BackupError::Inspect(InspectError::NoStore { path: path.to_owned() }));
    }
    names.sort_by_key(|name| (name.kind == FileKind::Log, name.number));
    Ok(names)
}
