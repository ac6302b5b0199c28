//! Group commit: writes that arrive together are made durable with one sync, published, and answered.
//!
//! `handle` is the interface for HTTP requests and links. `queue` has the leader lock: whoever holds it commits for
//! all, through the `worker`, which drives the [`Engine`](crate::commit::Engine). `waiting` lists the writes that
//! wait, `command` the messages to the worker, and `notify` wakes the links after a commit.

mod command;
mod handle;
mod notify;
mod queue;
mod waiting;
mod worker;

pub use handle::{Committer, PendingMerge};

#[cfg(test)]
mod tests;
