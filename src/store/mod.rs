//! Layer 2: all groups of one node, in memory: the writer and its draft for the commit engine, and the published state for
//! scrapes and links.
//!
//! # Parts
//!
//! ```text
//!            write, merge                     commit
//! requests ───────────────▶ Store ──────────────────────────▶ Published ───▶ scrapes, links, pages
//!                           ├─ Staged: the draft               └─ View: groups, blocks, changes
//!                           └─ Index: names and series shown
//! ```
//!
//! - [`Store`] is the one writer. It has no lock and no disk: its owner applies writes to a draft, makes
//!   [`Store::records`] durable, and then commits or aborts the draft as a whole.
//! - `Staged` is that draft: the new state of each changed group over the published state.
//! - [`Published`] is a cheap handle to the durable state. Any thread reads from it. Inside is the `View`: the groups
//!   by id, the blocks of families that a scrape shows, and the groups by revision for links.
//! - [`index::Index`] knows the names, types and series that are shown, and so whether another family can be shown too.
//!   It follows the draft and can undo it.
//!
//! # Groups
//!
//! A [`GroupEntry`] is one version of a group: its state ([`crate::model::Group`]) and, for the header and each family,
//! a [`FamilyMeta`] (revision, origin, suppressed or not). Entries are immutable and shared; a change makes a new
//! entry.
//!
//! # Conflicts
//!
//! Pushgateway refuses a push whose metrics conflict with others. This store does so too, except for changes that a
//! peer merges: the peer would send a refused change again forever. A family that conflicts is then *suppressed*:
//! stored and sent on, but not shown. It is shown as soon as the family that it conflicts with is gone. If sites push
//! one name with several types, the type of most sites is shown in the end ([`MixedTypes`]).
//!
//! # Groups that add up
//!
//! The contributions of a group lie beside each other among its families. Only their sum is shown, under the name that
//! they share: the first of them has it in its [`entry::FamilyState`], the others show nothing (`adding`).
//! `idempotency` remembers the keys of pushes that must not be added twice.
//!
//! # Durability
//!
//! Nothing is published before the caller has made it durable. `restore` builds a store from its records;
//! [`Store::checkpoint`] returns the records that restore the published state.
//!
//! # Files
//!
//! `writer` has the store's main methods; `merging` (the changes of peers), `admission` (which families are shown), `mixed_types` (which type of a name
//! is shown), `address` (which group a request means), `explain` (why a push is refused), [`expiry`] and `expiry_rules`
//! (which groups expire), `restore` and `corrections` (of the write timestamps of a wrong clock) add to the same `impl`.
//! `quota` bounds what one subject pushes. `staged` and `group_change` are the draft, `view`,
//! [`blocks`], [`piece_cache`] and `changed` the published state, [`selection`] the part of it that a filtered scrape
//! shows, [`info`](StoreInfo) what a handshake needs of it. [`conflict`](Conflict), [`refusal`](StoreRefusal),
//! [`record`] and [`scope`] define shared types, [`schemas`] shares equal schemas between groups, and `activity` counts the
//! writes to each group.

mod activity;
mod adding;
mod address;
mod admission;
pub mod blocks;
mod changed;
mod conflict;
mod corrections;
pub mod entry;
pub mod expiry;
mod expiry_rules;
mod explain;
mod group_change;
mod idempotency;
mod increment;
pub mod index;
mod info;
mod merging;
mod mixed_types;
pub mod piece_cache;
mod quota;
pub mod record;
mod refusal;
mod restore;
pub mod schemas;
pub mod scope;
pub mod selection;
mod staged;
mod unconfirmed;
pub mod view;
pub mod writer;

#[cfg(test)]
mod tests;

pub use activity::ActivityCounts;
pub use blocks::{Block, Chunk, ShownFamily};
pub use conflict::{Conflict, PushConflicts};
pub use entry::{GroupEntry, SuppressedFamily};
pub use expiry::{ExpiryView, ExpiryWalk};
pub use expiry_rules::{EXPIRY_RULES_MAX, ExpiryRule, ExpiryRules};
pub use idempotency::{IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_WINDOW_NS, IdempotencyKey};
pub use increment::{CONTRIBUTORS_MAX, DateSum, Increment, SumCodec};
pub use info::StoreInfo;
pub use mixed_types::MixedTypes;
pub use piece_cache::{CachedPiece, EncodingKey};
pub use quota::{Quota, WriteTerms};
pub use record::{FamilyMeta, FamilyMetas, GroupRecord, Identity, KeyRecord, PeerCursor, Record};
pub use refusal::StoreRefusal;
pub use scope::Scope;
pub use unconfirmed::{AheadWrites, CLOCK_NS_MIN, ClockComparison, Correction};
pub use view::{ChangeSet, Counts, GroupTimes, PUSH_FAILURE_TIME, PUSH_TIME, PeerChange, Published};
pub use writer::{Committed, Rules, Store, StoreLimits, WriteOp, WriteTime};
