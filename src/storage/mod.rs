//! Floor 4: the store on disk: a log of transactions, and checkpoints that shorten it.
//!
//! The state lives in memory whole, so the disk needs no index and no reads but at start: a commit is one frame appended
//! to a log and one sync (group commit is the caller's: it hands over many records at once). `docs/reference/storage.md`
//! records why this is a log of our own, with measurements.
//!
//! Read in this order: [`disk`] (the few operations that everything else is made of, so that a crash between any two can
//! be tried on [`simulated`]), `frame` (what is intact is known by its checksum), `payload` (records as bytes), `files`
//! (which files there are and what they mean together), [`log`] (commits), [`checkpoint`], [`recovery`] and [`start`]. For the
//! files of a stopped node there are [`inspect`](mod@inspect), on a [`readonly`] directory, and [`compact`](mod@compact).
//!
//! What this room promises:
//!
//! - A commit that returned `Ok` under [`SyncPolicy::Always`] is replayed by every later recovery, whole, unless its
//!   bytes are damaged; then the damage is reported, and everything intact is replayed.
//! - A commit that returned an error is never replayed, and later commits work as soon as the disk does. (Should the disk
//!   fail every attempt at undoing it and the process then die before another commit succeeds, the undone commit may be
//!   found: nobody can write "forget this" on a disk that refuses writes.)
//! - A commit cut short by a crash is replayed whole or not at all.

pub mod checkpoint;
pub mod compact;
pub mod disk;
mod files;
mod frame;
pub mod inspect;
pub mod log;
mod payload;
pub mod readonly;
pub mod recovery;
pub mod simulated;
pub mod start;
#[cfg(test)]
mod trials;

pub use checkpoint::{CheckpointError, CheckpointWriter};
pub use compact::{CompactError, Compacted, Fresh, compact};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use inspect::{InspectError, Inspection, inspect};
pub use log::{CommitError, Log, Options, SyncPolicy};
pub use readonly::ReadOnlyDisk;
pub use recovery::{Damage, Lost, OpenError, Recovered, Report, recover};
pub use simulated::{Fault, SimulatedDisk};
pub use start::begin;
