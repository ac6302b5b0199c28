//! The reasons for which a node cannot start, or cannot take new options while it runs.

use thiserror::Error;

use crate::net::credentials::CredentialsError;
use crate::net::http::sender::SenderFileError;
use crate::net::listen::ListenError;
use crate::net::proxy::ProxyFileError;
use crate::net::tls::TlsError;
use crate::net::token::TokenFileError;
use crate::storage::OpenError;

/// The reasons for which a node cannot start or reload.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The sockets that systemd passes on cannot be used.
    #[error("cannot listen as systemd says (web.systemd_socket): {0}")]
    Passed(std::io::Error),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of a token cannot be used.
    #[error("uplink.token_file: {0}")]
    Token(#[from] TokenFileError),
    /// The files of a proxy cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyFileError),
    /// The files of a receiver of remote write cannot be used.
    #[error(transparent)]
    Receiver(#[from] SenderFileError),
    /// The authority's files cannot be used.
    #[error("hub.enrol.dir: {0}")]
    Enrolment(#[from] CredentialsError),
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
    /// The new options need a restart, or drop a requirement of clients without an operator's request.
    #[error("{0}")]
    Restart(String),
}
