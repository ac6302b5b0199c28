//! The events of dialling, for `pushrelay doctor`, which shows them.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::error::DialFailure;
use super::way::Way;
use crate::net::address::HostPort;

/// The parts of a hub's certificate that an operator looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCertificate {
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
}

/// A step was taken, or failed. The event borrows from the dialler.
#[derive(Debug)]
pub enum DialEvent<'a> {
    /// A name was resolved.
    Resolved {
        /// The name, with the port: of the hub or of the proxy.
        host: &'a HostPort,
        /// Its addresses, in the order in which they are tried.
        addresses: &'a [SocketAddr],
    },
    /// A TCP connection opened.
    Connected {
        /// The address.
        address: SocketAddr,
    },
    /// The proxy opened a tunnel.
    Tunnelled {
        /// The way.
        way: &'a Way,
        /// The proxy's answer, in one line.
        answer: &'a str,
    },
    /// The TLS handshake with the hub is complete at this end.
    Encrypted {
        /// The hub's certificate.
        certificate: Option<HubCertificate>,
    },
    /// The WebSocket is open.
    Upgraded,
    /// A way to the hub failed; others may follow.
    Failed(&'a DialFailure),
}

/// Watches the steps of dialling.
pub trait DialObserver: Send {
    /// A step was taken, or failed.
    fn seen(&mut self, event: DialEvent<'_>);
}

/// Nobody watches.
impl DialObserver for () {
    fn seen(&mut self, _: DialEvent<'_>) {}
}
