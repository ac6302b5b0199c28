//! Inspection of the store of a stopped node: reads intact records as a node would, and changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::exposition::add_native;
use crate::model::{Epoch, MetricType, StoreId};
use crate::store::{Identity, Rules, Store, StoreLimits, SumCodec};

use super::disk::{Disk, DiskLock};
use super::files::{FileHeader, FileKind, FileName};
use super::frame::FrameReader;
use super::log::DiskOptions;
use super::observed::{ObservedDisk, StepObserver};
use super::readonly::ReadOnlyDisk;
use super::recovery::{OpenError, Report, recover};

/// Reasons why a store cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The directory does not exist or cannot be read.
    #[error("cannot read the directory {}: {source}; name the one that storage.path names", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The directory has no file of a store.
    #[error("there is no store in {}; name the directory that storage.path names", path.display())]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The store cannot be read.
    #[error("{}", explain(.0))]
    Open(#[source] OpenError),
}

/// A node that uses the store is stopped first: another `storage.path`, which the error of a start suggests, is no help here.
fn explain(error: &OpenError) -> String {
    match error {
        OpenError::Locked { directory } => format!("a node is using the store in {directory}; stop it first"),
        error => error.to_string(),
    }
}

/// The contents of a store's directory.
pub struct Inspection {
    /// Findings, and what is lost.
    pub report: Report,
    /// Ids of the store and its node; `None` if no file is left that has them.
    pub identity: Option<Identity>,
    /// The store's files with their lengths, in the order of their names.
    pub files: Vec<(String, u64)>,
    /// All intact records, as a node would have them.
    pub store: Store,
    _lock: DiskLock,
}

/// Reads the store in `path`; no node may use it meanwhile. `reserved` names the families that a node shows of itself.
/// `observer` sees one step, *reading*.
///
/// # Errors
/// If the directory has no store, a node uses it, or it cannot be read.
pub fn inspect(
    path: &Path,
    reserved: &[(&str, MetricType)],
    observer: Arc<dyn StepObserver>,
) -> Result<Inspection, InspectError> {
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
    observer.step("reading", files.iter().map(|(_, len)| len).sum());
    let mut inspection = read(Arc::new(ObservedDisk { disk, observer }), reserved).map_err(InspectError::Open)?;
    inspection.files = files;
    Ok(inspection)
}

/// The id of the store in `path`, also while a node uses it; `None` if there is no store that can be read.
pub fn identify(path: &Path) -> Option<StoreId> {
    let disk = ReadOnlyDisk::open(path).ok()?;
    let names = disk.list().ok()?.into_iter().filter_map(|name| FileName::parse(&name));
    let newest = names.filter(|name| name.kind == FileKind::Log).max()?;
    let file = disk.open(&newest.text()).ok()?;
    let mut reader = FrameReader::new(file, newest.salt(), Some(FileHeader::FRAME_BYTES_MAX)).ok()?;
    let frame = reader.next().ok()??;
    FileHeader::decode(frame.payload).ok().map(|header| header.identity.store)
}

/// Reads the store on `disk` without a change.
pub(super) fn read(disk: Arc<dyn Disk>, reserved: &[(&str, MetricType)]) -> Result<Inspection, OpenError> {
    // Without dates: they are added by each node, and are no content.
    let sums = SumCodec { native: add_native, dated: None };
    let mut store = Store::new(Rules { limits: unlimited(), sums, ..Rules::default() }, reserved);
    let recovered = recover(disk, DiskOptions::default(), &mut |record| store.restore(record))?;
    let (report, identity) = (recovered.report.clone(), recovered.identity);
    store.open(identity.unwrap_or_default(), Epoch::default());
    store.abort();
    Ok(Inspection { report, identity, files: Vec::new(), store, _lock: recovered.into_lock() })
}

/// An inspection does not know the node's bounds, so it has none: it must not refuse groups that the node accepted.
pub(super) fn unlimited() -> StoreLimits {
    StoreLimits { groups_max: usize::MAX, series_max: usize::MAX }
}
