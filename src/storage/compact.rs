//! Compaction of the store of a stopped node: one checkpoint of all intact records replaces every file.
//!
//! A compaction never makes the store worse. The old files stay until the new ones are durable, have been read back,
//! and have the same contents. Then the old files are removed, or moved into a directory of their own if anything in
//! them was damaged, so that others can try to recover more. If a step fails before that, the new files are removed;
//! if their removal cannot be made durable, the error says so, because the next start would take them for the store.

use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Epoch, Group, GroupId, MetricType};
use crate::store::{Identity, Rules, Store, StoreLimits};

use super::checkpoint::{CheckpointError, remove_all};
use super::disk::{Disk, DiskFile, DiskLock, RealDisk};
use super::files::FileName;
use super::inspect::{InspectError, read, unlimited};
use super::log::{CommitError, DiskOptions};
use super::observed::{ObservedDisk, StepObserver};
use super::open::open;
use super::recovery::{OpenError, Report, recover};

/// Reasons why a store was not compacted. It is unchanged, except after the last two.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The store cannot be read.
    #[error("{0}")]
    Inspect(#[source] InspectError),
    /// The new files could not be written.
    #[error("{0}; the store is as it was")]
    Commit(#[source] CommitError),
    /// The new checkpoint could not be written.
    #[error("{0}; the store is as it was")]
    Checkpoint(#[source] CheckpointError),
    /// The new files differ from the old ones in contents.
    #[error(
        "what was written in {} reads back as something else; the store is as it was: check the disk",
        path.display()
    )]
    Differs {
        /// The store's directory.
        path: PathBuf,
    },
    /// The new files are complete, but the old ones could not be removed or moved.
    #[error(
        "the new files in {} are complete, but the old ones cannot be put away: {source}; the next checkpoint will",
        path.display()
    )]
    PutAway {
        /// The store's directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The new files cannot be trusted, and could not be removed durably.
    #[error(
        "{error}; but the new files could not be removed for good ({source}): before the next start, see to it that {} has \
         no checkpoint and no log numbered above {above:010}",
        path.display()
    )]
    Left {
        /// The error before that.
        error: Box<CompactError>,
        /// The store's directory.
        path: PathBuf,
        /// The highest number of the old files; the new ones have higher numbers.
        above: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// Result of a compaction.
#[derive(Debug)]
pub struct Compacted {
    /// Findings in the old files, and what is lost.
    pub report: Report,
    /// Bytes of the old files, and of the new ones.
    pub bytes: (u64, u64),
    /// Groups kept, tombstones included.
    pub groups: usize,
    /// Directory of the old files, if they were kept.
    pub kept_in: Option<PathBuf>,
}

/// Ids that need a source of randomness.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// Ids for a store that has lost its own. Its `store` also replaces the id of a store that lost anything, so that
    /// peers do a full resync with it.
    pub identity: Identity,
    /// Epoch of this opening of the store.
    pub epoch: Epoch,
}

/// Compacts the store in `path`; no node may use it meanwhile. Keeps the old files if anything in them is damaged, or
/// if `keep` is set. `observer` sees three steps: *reading*, *writing* and *reading back*.
///
/// # Errors
/// See [`CompactError`].
pub fn compact(
    path: &Path,
    fresh: Fresh,
    reserved: &[(&str, MetricType)],
    keep: bool,
    observer: Arc<dyn StepObserver>,
) -> Result<Compacted, CompactError> {
    let directory = |source| CompactError::Inspect(InspectError::Directory { path: path.to_owned(), source });
    fs::read_dir(path).map_err(directory)?;
    let real = RealDisk::open(path).map_err(directory)?;
    let _lock = real.lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            CompactError::Inspect(InspectError::Open(OpenError::Locked { directory: path.display().to_string() }))
        }
        TryLockError::Error(source) => directory(source),
    })?;
    let old = names(&real).map_err(directory)?;
    let Some(&FileName { number: above, .. }) = old.last() else {
        return Err(CompactError::Inspect(InspectError::NoStore { path: path.to_owned() }));
    };
    let old_bytes = bytes(&real, &old).map_err(directory)?;
    observer.step("reading", old_bytes);
    let disk = Arc::new(ObservedDisk { disk: KeepingDisk(real), observer: observer.clone() });
    let rewritten = rewrite(&disk, fresh, reserved).and_then(|(report, groups)| {
        let written = names(&*disk).and_then(|names| bytes(&*disk, &names)).unwrap_or_default();
        observer.step("reading back", written.saturating_sub(old_bytes));
        let same =
            read(disk.clone(), reserved).is_ok_and(|new| new.report.is_intact() && groups_of(&new.store) == groups);
        if same { Ok((report, groups.len())) } else { Err(CompactError::Differs { path: path.to_owned() }) }
    });
    let (report, groups) = rewritten.map_err(|error| match withdraw(&disk.disk.0, above) {
        Ok(()) => error,
        Err(source) => CompactError::Left { error: Box::new(error), path: path.to_owned(), above, source },
    })?;
    let keep = keep || !report.is_intact();
    let kept_in = names(&*disk)
        .map(|all| all.into_iter().filter(|name| name.number > above).collect::<Vec<_>>())
        .and_then(|new| put_away(&disk.disk.0, path, &old, &new, keep))
        .map_err(|source| CompactError::PutAway { path: path.to_owned(), source })?;
    let new_bytes = names(&*disk).and_then(|names| bytes(&*disk, &names)).map_err(directory)?;
    Ok(Compacted { report, bytes: (old_bytes, new_bytes), groups, kept_in })
}

/// Writes a log and a checkpoint beside the old files; returns the findings in the old files, and all groups.
fn rewrite(
    disk: &Arc<ObservedDisk<KeepingDisk>>,
    fresh: Fresh,
    reserved: &[(&str, MetricType)],
) -> Result<(Report, BTreeMap<GroupId, Group>), CompactError> {
    // Shown groups are restored whatever the bounds; groups suppressed for lack of space are left to the node.
    let limits = StoreLimits { series_max: 0, ..unlimited() };
    let mut store = Store::new(Rules { limits, ..Rules::default() }, reserved);
    let options = DiskOptions { reserve_bytes: 0, ..DiskOptions::default() };
    let recovered = recover(disk.clone(), options, &mut |record| store.restore(record))
        .map_err(|error| CompactError::Inspect(InspectError::Open(error)))?;
    let report = recovered.report.clone();
    let (store, mut log) = open(store, recovered, fresh.identity, fresh.epoch).map_err(CompactError::Commit)?;
    disk.observer.step("writing", 0);
    let mut writer = log.rotate().map_err(CompactError::Commit)?;
    for record in store.checkpoint() {
        writer.write(&record).map_err(CompactError::Checkpoint)?;
    }
    writer.finish().map_err(CompactError::Checkpoint)?;
    log.close().map_err(CompactError::Commit)?;
    Ok((report, groups_of(&store)))
}

fn groups_of(store: &Store) -> BTreeMap<GroupId, Group> {
    store.published().entries().into_iter().map(|entry| (entry.id().clone(), entry.group.clone())).collect()
}

/// The store's files, oldest first.
fn names(disk: &dyn Disk) -> io::Result<Vec<FileName>> {
    let mut names: Vec<FileName> = disk.list()?.iter().filter_map(|name| FileName::parse(name)).collect();
    names.sort();
    Ok(names)
}

fn bytes(disk: &dyn Disk, names: &[FileName]) -> io::Result<u64> {
    names.iter().map(|name| disk.open(&name.text())?.len()).sum()
}

/// Removes the new files durably; nobody has used them. Their predecessors are still there, and a checkpoint that
/// reappeared after a power loss would hide those.
fn withdraw(disk: &dyn Disk, above: u64) -> io::Result<()> {
    let new: Vec<FileName> = names(disk)?.into_iter().filter(|name| name.number > above).collect();
    if new.is_empty() {
        return Ok(());
    }
    let removed = remove_all(disk, new.into_iter().rev());
    removed.and(disk.sync_dir())
}

/// Removes the old files, or moves them into a new directory, which is returned.
fn put_away(
    disk: &RealDisk,
    path: &Path,
    old: &[FileName],
    new: &[FileName],
    keep: bool,
) -> io::Result<Option<PathBuf>> {
    // Numbers are never reused, so the directory's name is new.
    let number = new.iter().map(|name| name.number).max().unwrap_or_default();
    let folder = path.join(format!("replaced-{number:010}"));
    if keep {
        fs::create_dir(&folder)?;
    }
    // The checkpoint contains the log that was begun before it.
    for name in new.iter().filter(|name| name.number < number) {
        disk.remove(&name.text())?;
    }
    for name in old {
        let name = name.text();
        if keep { fs::rename(path.join(&name), folder.join(&name))? } else { disk.remove(&name)? }
    }
    if keep {
        fs::File::open(&folder)?.sync_all()?;
    }
    disk.sync_dir()?;
    Ok(keep.then_some(folder))
}

/// A directory in which files of the store are never cut or removed; the caller has locked it already.
#[derive(Debug)]
struct KeepingDisk(RealDisk);

impl Disk for KeepingDisk {
    fn name(&self) -> String {
        self.0.name()
    }

    fn lock(&self) -> Result<DiskLock, TryLockError> {
        Ok(Arc::new(()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        if FileName::parse(name).is_some() { Ok(()) } else { self.0.cut(name, len) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if FileName::parse(name).is_some() { Ok(()) } else { self.0.remove(name) }
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pushrelay_testkit::disk::{DiskFault, SimulatedDisk};

    use super::*;
    use crate::model::{NodeId, Position, Revision, StoreId};
    use crate::net::testing::TempDir;
    use crate::store::{PeerCursor, Record};

    const IDENTITY: Identity = Identity { store: StoreId(7), node: NodeId(8) };
    const FRESH: Fresh = Fresh { identity: Identity { store: StoreId(99), node: NodeId(100) }, epoch: Epoch(2) };

    /// A store with a cursor for each peer, each in its own transaction.
    fn with_cursors(path: &Path, peers: std::ops::Range<u64>) {
        let disk = Arc::new(RealDisk::open(path).unwrap());
        let mut log = recover(disk, DiskOptions::default(), &mut |_| {}).unwrap().start(IDENTITY).unwrap();
        for peer in peers {
            let cursor = PeerCursor {
                position: Position { epoch: Epoch(1), revision: Revision(peer) },
                ..PeerCursor::default()
            };
            log.commit(&[Record::Cursor { peer: StoreId(peer), cursor }]).unwrap();
        }
        log.close().unwrap();
    }

    fn positions(path: &Path) -> Vec<Position> {
        let disk = Arc::new(RealDisk::open(path).unwrap());
        let store = read(disk, &[]).unwrap().store;
        store.cursors().values().map(|cursor| cursor.position).collect()
    }

    #[test]
    fn the_cursors_of_a_damaged_store_are_not_trusted() {
        let temp = TempDir::new();
        with_cursors(temp.path(), 1..4);
        assert!(compact(temp.path(), FRESH, &[], false, Arc::new(())).unwrap().report.is_intact());
        assert!(positions(temp.path()).iter().all(|position| position.epoch == Epoch(1)), "nothing is lost");
        let temp = TempDir::new();
        with_cursors(temp.path(), 1..4);
        let log = temp.path().join("log-0000000001");
        let mut bytes = fs::read(&log).unwrap();
        bytes[100] ^= 1;
        fs::write(&log, bytes).unwrap();
        assert!(!compact(temp.path(), FRESH, &[], false, Arc::new(())).unwrap().report.is_intact());
        assert_eq!(positions(temp.path()), [Position::default(); 2]);
    }

    /// Steps with the bytes that were announced, and those that were read.
    #[derive(Debug, Default)]
    struct Steps(Mutex<Vec<(&'static str, u64, u64)>>);

    impl StepObserver for Steps {
        fn step(&self, name: &'static str, bytes: u64) {
            self.0.lock().unwrap().push((name, bytes, 0));
        }

        fn advance(&self, bytes: u64) {
            self.0.lock().unwrap().last_mut().unwrap().2 += bytes;
        }
    }

    #[test]
    fn an_observer_sees_each_step_with_the_bytes_that_it_reads() {
        let temp = TempDir::new();
        with_cursors(temp.path(), 1..400);
        let steps = Arc::new(Steps::default());
        compact(temp.path(), FRESH, &[], false, steps.clone()).unwrap();
        let steps = steps.0.lock().unwrap();
        assert_eq!(steps.iter().map(|step| step.0).collect::<Vec<_>>(), ["reading", "writing", "reading back"]);
        // A file's header is read twice, and space that was reserved at its end is not read.
        let (old, new) = (steps[0], steps[2]);
        assert!(old.1 > 10_000 && old.2 > 0 && old.2 <= old.1 + 1_000, "{old:?}");
        assert!(new.1 > 5_000 && new.2.abs_diff(new.1) <= 1_000, "{new:?}");
    }

    #[test]
    fn files_are_taken_oldest_first() {
        let temp = TempDir::new();
        for name in ["log-0000000012", "checkpoint-0000000003", "log-0000000003", "LOCK", "log-0000000004"] {
            temp.write(name, "");
        }
        let found = names(&RealDisk::open(temp.path()).unwrap()).unwrap();
        let found: Vec<String> = found.iter().map(|name| name.text()).collect();
        assert_eq!(found, ["log-0000000003", "checkpoint-0000000003", "log-0000000004", "log-0000000012"]);
    }

    #[test]
    fn new_files_that_are_withdrawn_do_not_come_back() {
        for seed in 0..20 {
            let disk = SimulatedDisk::new(seed);
            for name in ["log-0000000004", "log-0000000005", "log-0000000006", "checkpoint-0000000006"] {
                disk.create(name).unwrap();
            }
            disk.sync_dir().unwrap();
            // The checkpoint is removed first; its error is returned and does not stop the others.
            disk.fail_at(disk.operations(), DiskFault::Broken);
            assert!(withdraw(&disk, 4).is_err());
            assert_eq!(disk.list().unwrap(), ["checkpoint-0000000006", "log-0000000004"]);
            disk.fail_at(disk.operations() + 1, DiskFault::Broken);
            assert!(withdraw(&disk, 4).is_err(), "it may come back");
            disk.create("checkpoint-0000000006").unwrap();
            withdraw(&disk, 4).unwrap();
            disk.crash();
            assert_eq!(disk.list().unwrap(), ["log-0000000004"]);
        }
    }
}
