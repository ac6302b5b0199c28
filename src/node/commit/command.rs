//! Messages to the commit worker.

use tokio::sync::oneshot;

use crate::commit::{self, ReplyTokens, WriteError};
use crate::storage::CheckpointError;
use crate::store::StoreInfo;
use crate::wire::ConflictReport;

/// Sends the outcome of a command to the task that waits for it.
pub(super) type Responder<T> = oneshot::Sender<Result<T, WriteError>>;

/// Replies of a node: each is sent on a channel.
pub(super) enum Channels {}

impl ReplyTokens for Channels {
    type Write = Responder<()>;
    type Merge = Responder<Vec<ConflictReport>>;
    type Info = oneshot::Sender<StoreInfo>;
}

pub(super) type Command = commit::Command<Channels>;

/// A message to the commit worker.
pub(super) enum WorkerMessage {
    /// Writes wait in the queue.
    Waiting,
    /// Perform a command.
    Perform(Command),
    /// A checkpoint has ended.
    Checkpointed(Result<(), CheckpointError>),
    /// Stop after this message.
    Stop,
}
