//! Looking at the store of a stopped node: what is intact is read back as a node would, and nothing is changed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Epoch, MetricType};
use crate::store::{Identity, Rules, Store, StoreLimits};

use super::disk::{Disk, DiskLock};
use super::files::FileName;
use super::log::Options;
use super::readonly::ReadOnlyDisk;
use super::recovery::{OpenError, Report, recover};

/// Why a store cannot be looked at.
#[derive(Debug)]
pub enum InspectError {
    /// There is no such directory.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no file of a store in it.
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The store cannot be read.
    Open(OpenError),
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, source } => {
                let path = path.display();
                write!(f, "cannot read the directory {path}: {source}; name the one that storage.path names")
            }
            Self::NoStore { path } => {
                write!(f, "there is no store in {}; name the directory that storage.path names", path.display())
            }
            Self::Open(OpenError::Locked { directory }) => {
                write!(f, "a node is using the store in {directory}; stop it first")
            }
            Self::Open(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InspectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { source, .. } => Some(source),
            Self::NoStore { .. } => None,
            Self::Open(error) => Some(error),
        }
    }
}

/// What is in the directory of a store.
pub struct Inspection {
    /// What was found, and what is lost.
    pub report: Report,
    /// Who the store is; `None` if nothing is left that says so.
    pub identity: Option<Identity>,
    /// The store's files with their lengths, in the order of their names.
    pub files: Vec<(String, u64)>,
    /// All that is intact, as a node would hold it.
    pub store: Store,
    _lock: DiskLock,
}

/// Reads the store in `path`, which no node may use meanwhile. `reserved` names the families that a node shows of itself.
pub fn inspect(path: &Path, reserved: &[(&str, MetricType)]) -> Result<Inspection, InspectError> {
    let directory = |source| InspectError::Directory { path: path.to_owned(), source };
    let disk = ReadOnlyDisk::open(path).map_err(directory)?;
    let mut files = Vec::new();
    for name in disk.list().map_err(directory)?.into_iter().filter(|name| FileName::parse(name).is_some()) {
        let len = disk.open(&name).and_then(|file| file.len()).map_err(directory)?;
        files.push((name, len));
    }
    files.sort();
    if files.is_empty() {
        return Err(InspectError::NoStore { path: path.to_owned() });
    }
    let mut inspection = read(Arc::new(disk), reserved).map_err(InspectError::Open)?;
    inspection.files = files;
    Ok(inspection)
}

/// Reads the store on `disk` without changing it.
pub(super) fn read(disk: Arc<dyn Disk>, reserved: &[(&str, MetricType)]) -> Result<Inspection, OpenError> {
    let mut store = Store::new(Rules { limits: unlimited(), ..Rules::default() }, reserved);
    let recovered = recover(disk, Options::default(), &mut |record| store.restore(record))?;
    let (report, identity) = (recovered.report.clone(), recovered.identity);
    store.open(identity.unwrap_or_default(), Epoch::default());
    store.abort();
    Ok(Inspection { report, identity, files: Vec::new(), store, _lock: recovered.into_lock() })
}

/// What a node took must not be turned away by someone who looks at it, and does not know its configuration.
pub(super) fn unlimited() -> StoreLimits {
    StoreLimits { groups_max: usize::MAX, series_max: usize::MAX }
}
