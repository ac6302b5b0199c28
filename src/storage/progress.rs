//! The newest checkpoint, shared by the log and the checkpoint that is being written.

use std::sync::atomic::AtomicU64;

/// The newest checkpoint; the log and the checkpoint being written, if any, share it.
#[derive(Debug, Default)]
pub(super) struct CheckpointProgress {
    /// Number of the newest durable checkpoint.
    pub number: AtomicU64,
    /// Its length in bytes.
    pub bytes: AtomicU64,
}
