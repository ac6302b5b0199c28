//! The failure of a `store` command.

use std::io;

/// The reason why a command failed; its text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub(super) String);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot print: {error}"))
    }
}
