//! Groups, revisions, conflicts and what a scrape sees.
//!
//! [`writer`] is the one writer: it drafts (`staged`), and publishes what the caller made durable (`restore` is its way back
//! from the disk). [`view`] is what is published, for everybody to read. Between them [`index`] says what can stand beside
//! what, [`entry`] is a group with its bookkeeping, `admission` decides which of its families are shown, `address` finds the
//! group that is meant, `changed` knows which groups changed when, [`scope`] is what of all this a link carries, [`blocks`]
//! what a scrape shows, [`piece_cache`] what it keeps of them, [`record`] what goes to the disk, [`schemas`] keeps equal schemas once.

mod address;
mod admission;
pub mod blocks;
mod changed;
mod conflict;
pub mod entry;
mod group_change;
pub mod index;
pub mod piece_cache;
pub mod record;
mod refusal;
mod restore;
pub mod schemas;
pub mod scope;
mod staged;
pub mod view;
pub mod writer;

#[cfg(test)]
mod tests;

pub use blocks::{Block, Chunk, ShownFamily};
pub use conflict::Conflict;
pub use entry::{GroupEntry, SuppressedFamily};
pub use piece_cache::{CacheBudget, CachedPiece, EncodingKey};
pub use record::{FamilyMeta, FamilyMetas, GroupRecord, Identity, PeerCursor, Record};
pub use refusal::StoreRefusal;
pub use scope::Scope;
pub use view::{ChangeSet, Counts, GroupTimes, PUSH_FAILURE_TIME, PUSH_TIME, PeerChange, Published};
pub use writer::{Committed, Rules, Store, StoreLimits, WriteOp, WriteTime};
