//! Layer 3: the commit engine: the order in which writes become durable, visible and answered, for the group commit of a
//! node and for the simulation.
//!
//! ```text
//! loop {
//!     draft(command)*                  several commands form one transaction
//!     finish(log.commit(records()))    publish or abandon the transaction
//!     poll_effect()*                   notify links, send replies
//! }
//! ```
//!
//! [`Engine`] decides which commands share a transaction, when the transaction is published, and which replies are due.
//! It performs no I/O, reads no clock and starts no thread, so the node (`node/commit`) and the simulation
//! (`tests/testkit/src/simulation`) run the same code. [`command`] lists the commands with their replies and errors;
//! [`transaction`] applies the changes of peers to the store.

pub mod command;
pub mod engine;
pub mod transaction;

#[cfg(test)]
mod sums;

pub use command::{Command, CommitFailure, GroupWrite, ReplyTokens, Retention, WriteError};
pub use engine::{Effect, Engine};
pub use transaction::{DeletedAtPeer, Merge, MergeError, MergeSequence, Publication, Transaction};
