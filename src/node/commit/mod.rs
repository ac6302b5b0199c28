//! Group commit: writes that arrive together are made durable with one sync, published, and answered.
//!
//! [`handle`] is the interface for HTTP requests and links. [`queue`] holds the pushes that wait, and the leader lock;
//! [`worker`] performs the commands on the store and commits them. [`command`] lists the commands, and [`notify`] wakes the
//! links after a commit.

mod command;
mod handle;
mod notify;
mod queue;
mod worker;

pub use command::{Retention, StoreInfo, WriteError};
pub use handle::{Committer, PendingMerge};

#[cfg(test)]
mod tests;
