//! Layer 4: the store on disk, for the group commit of a node and for `pushrelay store`: a log of transactions, and
//! checkpoints that shorten it.
//!
//! The whole state is in memory, so the disk needs no index, and reads happen only at start. A commit is one frame
//! appended to a log and one sync; the caller groups many records into one commit. `docs/reference/storage.md`
//! explains, with measurements, why the project has its own log.
//!
//! Read in this order: [`disk`] (the few operations that all others use, so that a simulated disk can crash between any
//! two), `frame` (checksums tell what is intact), `payload` (records as bytes), `files` (the files and how they
//! combine), [`log`] (commits), [`checkpoint`], [`recovery`] and [`mod@open`]. [`inspect`](mod@inspect), on a
//! [`readonly`] directory, and [`compact`](mod@compact) work on the files of a stopped node, and [`backup`](mod@backup) on
//! those of a running one. [`space`] says how much room
//! there is, and [`whole`] replaces small files beside the store.
//!
//! Guarantees:
//!
//! - A commit that returned `Ok` under [`SyncPolicy::Always`] is replayed whole by every later recovery, unless its
//!   bytes are damaged; then the damage is reported, and everything intact is replayed.
//! - A commit that returned an error is never replayed, and later commits work as soon as the disk does. (One
//!   exception: if every attempt to undo the commit fails and the process dies before another commit succeeds, the
//!   next recovery may find the commit. A disk that refuses writes cannot be told to forget it.)
//! - A commit cut short by a crash is replayed whole or not at all.

pub mod backup;
pub mod checkpoint;
pub mod compact;
pub mod disk;
mod files;
mod frame;
pub mod inspect;
pub mod log;
pub mod observed;
pub mod open;
mod payload;
mod progress;
pub mod readonly;
pub mod recovery;
pub mod space;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod trials;
pub mod whole;

pub use backup::{BackupError, backup};
pub use checkpoint::{CheckpointError, CheckpointWriter};
pub use compact::{CompactError, Compacted, Fresh, compact};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use inspect::{InspectError, Inspection, identify, inspect};
pub use log::{CommitError, DiskOptions, Log, SyncPolicy};
pub use observed::StepObserver;
pub use open::open;
pub use readonly::ReadOnlyDisk;
pub use recovery::{Damage, Lost, OpenError, Recovered, Report, recover};
pub use space::DiskSpace;
