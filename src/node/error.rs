//! The reasons for which a node cannot start, or cannot take new options while it runs.

use thiserror::Error;

use crate::net::listen::ListenError;
use crate::net::tls::TlsError;
use crate::storage::OpenError;

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The sockets that systemd passes on cannot be listened on.
    #[error("cannot listen as systemd says (web.systemd_socket): {0}")]
    Passed(std::io::Error),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store cannot be written.
    #[error("{0}")]
    Storage(String),
    /// The operating system gives no random numbers.
    #[error("the system has no randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// The operating system gives no thread, or no handle for a listener.
    #[error("{0}")]
    System(String),
    /// What a reload asks for is not done while the node runs, or not unasked.
    #[error("{0}")]
    Restart(String),
}
