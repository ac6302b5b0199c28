//! The reasons for which a node cannot start, or cannot take new options while it runs.

use std::fmt;

use crate::net::listen::ListenError;
use crate::net::tls::TlsError;
use crate::storage::OpenError;

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Listen(ListenError),
    /// The sockets that systemd passes on cannot be listened on.
    Passed(std::io::Error),
    /// Certificates cannot be used.
    Tls(TlsError),
    /// The store cannot be opened.
    Store(OpenError),
    /// The store cannot be written.
    Storage(String),
    /// The operating system refuses what every process has: threads, randomness.
    System(String),
    /// What a reload asks for is not done while the node runs, or not unasked.
    Restart(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Passed(error) => write!(f, "cannot listen as systemd says (web.systemd_socket): {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Storage(text) | Self::System(text) | Self::Restart(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
