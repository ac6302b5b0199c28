//! A disk in memory that fails and loses power on request.
//!
//! The disk is as unreliable as a real one may be. At a crash, data that was not synced is lost, kept or torn sector
//! by sector, in any order, names in the directory included. After a failed sync the data is lost or kept for good,
//! and the next sync succeeds without it. All randomness comes from the seed.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pushrelay::storage::{Disk, DiskFile, DiskLock};

/// The unit that reaches the disk whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The ways in which an operation can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No space is left (`ENOSPC`).
    Full,
    /// The device failed (`EIO`).
    Broken,
}

impl DiskFault {
    fn error(self) -> io::Error {
        match self {
            DiskFault::Full => io::Error::new(io::ErrorKind::StorageFull, "simulated: no space left"),
            DiskFault::Broken => io::Error::other("simulated: input/output error"),
        }
    }
}

/// A simulated directory; clones share it.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Mutex<DiskState>>);

#[derive(Debug)]
struct DiskState {
    random: u64,
    /// Number of operations that change something, syncs included.
    operations: u64,
    faults: BTreeMap<u64, DiskFault>,
    halt_at: Option<u64>,
    capacity_bytes: Option<u64>,
    is_full_late: bool,
    /// Number of starts: a file opened before a crash cannot be used after it.
    life: u64,
    locked: Option<Arc<()>>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileChange>,
}

#[derive(Clone, Debug)]
enum FileChange {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, u64),
    Remove(String),
    Rename { from: String, to: String, inode: u64 },
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(DiskState {
            random: seed,
            operations: 0,
            faults: BTreeMap::new(),
            halt_at: None,
            capacity_bytes: None,
            is_full_late: false,
            life: 0,
            locked: None,
            inodes: BTreeMap::new(),
            next_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of operations so far that change something, syncs included.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes the operation with that number (the first is 0) fail.
    pub fn fail_at(&self, operation: u64, fault: DiskFault) {
        self.state().faults.insert(operation, fault);
    }

    /// Cancels all planned faults.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// Makes every operation from that number on fail without any effect, until [`SimulatedDisk::kill`] or
    /// [`SimulatedDisk::crash`].
    pub fn halt_at(&self, operation: u64) {
        self.state().halt_at = Some(operation);
    }

    /// Limits the bytes of all files together; writes beyond fail as on a full disk.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// If set, writes beyond the capacity succeed and the syncs after them fail, as on file systems that allocate
    /// late.
    pub fn set_full_late(&self, late: bool) {
        self.state().is_full_late = late;
    }

    /// Kills the process while the machine continues: open files and locks are dead, unsynced data is still readable
    /// and still not durable, and planned faults are cancelled.
    pub fn kill(&self) {
        let state = &mut *self.state();
        state.life += 1;
        state.locked = None;
        state.halt_at = None;
        state.faults.clear();
    }

    /// Cuts the power and restores it: as [`SimulatedDisk::kill`], and unsynced data is lost, kept or torn.
    pub fn crash(&self) {
        self.kill();
        let state = &mut *self.state();
        for change in std::mem::take(&mut state.pending_names) {
            if state.random.coin() {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let kept: Vec<u64> = state.names.values().copied().collect();
        state.inodes.retain(|inode, _| kept.contains(inode));
        for inode in state.inodes.values_mut() {
            inode.tear(&mut state.random);
            inode.bytes = inode.durable.clone();
        }
    }

    /// Changes the bytes of a file durably, without the store's knowledge. Returns `false` if there is no such file.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let state = &mut *self.state();
        let Some(inode) = state.names.get(name).and_then(|inode| state.inodes.get_mut(inode)) else { return false };
        change(&mut inode.bytes);
        inode.durable = inode.bytes.clone();
        inode.pending.clear();
        true
    }

    fn file(&self, state: &DiskState, inode: u64) -> Box<dyn DiskFile> {
        Box::new(SimulatedFile { disk: self.clone(), inode, life: state.life })
    }
}

/// Pseudo-random numbers (SplitMix64).
trait Random {
    fn next(&mut self) -> u64;
    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

impl Random for u64 {
    fn next(&mut self) -> u64 {
        *self = self.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *self;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, inode) => drop(names.insert(name, inode)),
            Self::Remove(name) => drop(names.remove(&name)),
            Self::Rename { from, to, inode } => {
                names.remove(&from);
                names.insert(to, inode);
            }
        }
    }
}

impl FileChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: new } => write(bytes, *offset, new),
            Self::Truncate { len } => bytes.resize(*len, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

impl Inode {
    /// Applies unsynced changes to the disk at random.
    fn tear(&mut self, random: &mut u64) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                FileChange::Truncate { .. } if random.coin() => change.apply(&mut self.durable),
                FileChange::Truncate { .. } => {}
                FileChange::Write { offset, bytes } => match random.next() % 4 {
                    0 => {}
                    1 => write(&mut self.durable, offset, &bytes),
                    _ => self.tear_write(offset, &bytes, random),
                },
            }
        }
    }

    fn tear_write(&mut self, offset: usize, bytes: &[u8], random: &mut u64) {
        let mut at = 0;
        while at < bytes.len() {
            let end = (((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset).min(bytes.len());
            if random.coin() {
                write(&mut self.durable, offset + at, &bytes[at..end]);
            }
            at = end;
        }
    }
}

impl DiskState {
    /// Counts an operation and returns its outcome.
    fn begin(&mut self) -> io::Result<()> {
        let operation = self.operations;
        self.operations += 1;
        if self.halt_at.is_some_and(|at| operation >= at) {
            return Err(io::Error::other("simulated: the machine is off"));
        }
        self.faults.remove(&operation).map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn is_halted(&self) -> bool {
        self.halt_at.is_some_and(|at| self.operations > at)
    }

    /// Bytes of all named files, except one that is in use.
    fn used(&self) -> usize {
        self.names.values().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.bytes.len()).sum()
    }

    fn is_beyond(&self, bytes: usize) -> bool {
        self.capacity_bytes.is_some_and(|capacity| bytes as u64 > capacity)
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }

    fn rename_in(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl Disk for SimulatedDisk {
    fn name(&self) -> String {
        "the simulated disk".into()
    }

    fn lock(&self) -> Result<DiskLock, TryLockError> {
        let mut state = self.state();
        if state.locked.as_ref().is_some_and(|lock| Arc::strong_count(lock) > 1) {
            return Err(TryLockError::WouldBlock);
        }
        let lock = Arc::new(());
        state.locked = Some(lock.clone());
        Ok(lock)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin()?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, name.to_owned()));
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.rename_in(NameChange::Set(name.to_owned(), inode));
        Ok(self.file(&state, inode))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let inode = state.inode(name)?;
        Ok(self.file(&state, inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let inode = state.inode(from)?;
        state.rename_in(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let mut file = self.open(name)?;
        file.truncate(len)?;
        file.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.inode(name)?;
        state.rename_in(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.begin()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    life: u64,
}

impl SimulatedFile {
    fn with<T>(&self, act: impl FnOnce(&mut DiskState, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.disk.state();
        let dead = || io::Error::other("simulated: opened before a crash");
        if state.life != self.life {
            return Err(dead());
        }
        let mut inode = state.inodes.remove(&self.inode).ok_or_else(dead)?;
        let result = act(state, &mut inode);
        state.inodes.insert(self.inode, inode);
        result
    }
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|_, inode| Ok(inode.bytes.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|_, inode| {
            let start = inode.bytes.len().min(offset as usize);
            let len = buffer.len().min(inode.bytes.len() - start);
            buffer[..len].copy_from_slice(&inode.bytes[start..start + len]);
            Ok(len)
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state, inode| {
            let begun = state.begin();
            let used = state.used();
            let end = (offset as usize + bytes.len()).max(inode.bytes.len());
            let (result, written) = match begun {
                Err(error) if state.is_halted() => return Err(error),
                Err(error) => (Err(error), state.random.next() as usize % (bytes.len() + 1)),
                Ok(()) if !state.is_full_late && state.is_beyond(used + end) => {
                    let free = (state.capacity_bytes.unwrap_or(0) as usize).saturating_sub(used);
                    (Err(DiskFault::Full.error()), free.saturating_sub(offset as usize).min(bytes.len()))
                }
                Ok(()) => (Ok(()), bytes.len()),
            };
            let change = FileChange::Write { offset: offset as usize, bytes: bytes[..written].to_vec() };
            change.apply(&mut inode.bytes);
            inode.pending.push(change);
            result
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with(|state, inode| {
            state.begin()?;
            let change = FileChange::Truncate { len: len as usize };
            change.apply(&mut inode.bytes);
            inode.pending.push(change);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state, inode| match state.begin() {
            Ok(()) if state.is_full_late && state.is_beyond(state.used() + inode.bytes.len()) => {
                inode.tear(&mut state.random);
                Err(DiskFault::Full.error())
            }
            Ok(()) => {
                let pending = std::mem::take(&mut inode.pending);
                pending.iter().for_each(|change| change.apply(&mut inode.durable));
                Ok(())
            }
            Err(error) if state.is_halted() => Err(error),
            Err(error) => {
                inode.tear(&mut state.random);
                Err(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_by_chance_what_was_not() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..50 {
            let disk = SimulatedDisk::new(seed);
            let mut file = disk.create("a").unwrap();
            file.write_at(0, &[1; 600]).unwrap();
            file.sync().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(600, &[2; 2000]).unwrap();
            disk.crash();
            assert!(file.len().is_err(), "an old handle is dead");
            let mut bytes = vec![0; 3000];
            let len = disk.open("a").unwrap().read_at(0, &mut bytes).unwrap();
            assert_eq!(bytes[..600], [1; 600]);
            match bytes[600..len].iter().filter(|b| **b == 2).count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 0 && lost > 0 && torn > 0);
    }

    #[test]
    fn a_name_is_durable_only_when_the_directory_is_synced() {
        let mut kept = 0;
        for seed in 0..50 {
            let disk = SimulatedDisk::new(seed);
            disk.create("a").unwrap().sync().unwrap();
            disk.crash();
            kept += disk.list().unwrap().len();
        }
        assert!(0 < kept && kept < 50);
    }

    #[test]
    fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
        let disk = SimulatedDisk::new(0);
        disk.set_capacity(Some(100));
        let mut file = disk.create("a").unwrap();
        assert_eq!(file.write_at(0, &[0; 101]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_capacity(None);
        file.write_at(0, &[0; 101]).unwrap();
    }
}
