//! The simulated disk of `pushrelay-testkit`, for unit tests.
//!
//! The testkit depends on this crate as a library, and implements that library's [`Disk`]. Unit tests compile this crate
//! once more, with its own `Disk`: another trait with the same methods, which this module implements by passing on.

use std::fs::TryLockError;
use std::io;

use pushrelay_testkit::SimulatedDisk;
use pushrelay_testkit::pushrelay::storage as library;

use super::disk::{Disk, DiskFile, DiskLock};

impl Disk for SimulatedDisk {
    fn name(&self) -> String {
        library::Disk::name(self)
    }

    fn lock(&self) -> Result<DiskLock, TryLockError> {
        library::Disk::lock(self)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        library::Disk::list(self)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SimulatedFile(library::Disk::create(self, name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SimulatedFile(library::Disk::open(self, name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        library::Disk::rename(self, from, to)
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        library::Disk::cut(self, name, len)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        library::Disk::remove(self, name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        library::Disk::sync_dir(self)
    }
}

#[derive(Debug)]
struct SimulatedFile(Box<dyn library::DiskFile>);

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}
