//! Long work on the files of a store, observed step by step: a command shows a person how far it is.

use std::fmt;
use std::fs::TryLockError;
use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, DiskLock};

/// Observes long work on a store.
pub trait StepObserver: fmt::Debug + Send + Sync {
    /// A step begins. `bytes` is how many bytes of files it reads; 0 if that is not known.
    fn step(&self, name: &'static str, bytes: u64);
    /// The step has read so many more bytes.
    fn advance(&self, bytes: u64);
}

/// Nobody observes.
impl StepObserver for () {
    fn step(&self, _: &'static str, _: u64) {}

    fn advance(&self, _: u64) {}
}

/// A directory whose reads are observed.
#[derive(Debug)]
pub(super) struct ObservedDisk<D> {
    pub disk: D,
    pub observer: Arc<dyn StepObserver>,
}

impl<D: Disk> Disk for ObservedDisk<D> {
    fn name(&self) -> String {
        self.disk.name()
    }

    fn lock(&self) -> Result<DiskLock, TryLockError> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(name)?;
        Ok(Box::new(ObservedFile { file, observer: self.observer.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        self.disk.cut(name, len)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

#[derive(Debug)]
struct ObservedFile {
    file: Box<dyn DiskFile>,
    observer: Arc<dyn StepObserver>,
}

impl DiskFile for ObservedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(offset, buffer)?;
        self.observer.advance(read as u64);
        Ok(read)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}
