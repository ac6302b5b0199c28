//! Dialling a hub, step by step: names, addresses, TLS, transport. Each step has its own time limit, its own errors and a
//! counter ([`DialStep`]); the last step, the hello, belongs to the session.
//!
//! A hub may have several targets: its name, and further addresses. All names are resolved anew for each call, and the
//! addresses race each other ([`race`]). If a later step fails with an address, [`Dialler::dial`] goes on with the others.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::HostPort;
use super::certificate::Certificate;
use super::counted::{Counted, Traffic};
use super::tls::{self, Connector};
use super::websocket::{self, WebSocket};
use race::Race;

mod error;
mod race;
mod step;

pub use error::{DialError, DialFailure, DialStepError};
pub use step::{DialFailures, DialStep};

/// The stream below a link's WebSocket.
pub type LinkStream = tls::Stream<Counted<TcpStream>>;

/// The limits of dialling a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// Time for each name look-up, and then for the TCP connection to any address.
    pub connect_timeout: Duration,
    /// Time for the TLS handshake with one address, and then for the WebSocket handshake.
    pub handshake_timeout: Duration,
    /// Bytes of a message from the hub, decompressed, at most.
    pub message_bytes_max: usize,
}

/// Dials one hub.
pub struct Dialler {
    /// The hub; its certificate must be for this host, whichever target is dialled.
    hub: HostPort,
    /// The hub, and its further addresses.
    targets: Vec<HostPort>,
    limits: DialLimits,
    connector: Connector,
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialler").field("targets", &self.targets).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// An established connection to a hub.
#[derive(Debug)]
pub struct Dialled {
    /// The WebSocket connection.
    pub connection: WebSocket<LinkStream>,
    /// The address that was connected to.
    pub peer: SocketAddr,
    /// Bytes on the wire, including TLS records and handshakes.
    pub wire: Arc<Traffic>,
}

/// A step was taken, or failed. The event borrows from the dialler.
#[derive(Debug)]
pub enum DialEvent<'a> {
    /// A name was resolved.
    Resolved {
        /// The name, with the port.
        target: &'a HostPort,
        /// Its addresses, in the order in which they are tried.
        addresses: &'a [SocketAddr],
    },
    /// A TCP connection opened.
    Connected {
        /// The address.
        address: SocketAddr,
    },
    /// The TLS handshake with the hub is complete at this end.
    Encrypted {
        /// The hub's certificate.
        certificate: Option<Certificate>,
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

impl Dialler {
    /// A dialler of the hub at `hub`, which has these further addresses too.
    pub fn new(hub: HostPort, addresses: &[HostPort], limits: DialLimits, connector: Connector) -> Self {
        let targets = std::iter::once(&hub).chain(addresses).cloned().collect();
        Self { hub, targets, limits, connector }
    }

    /// The TLS end of the links, whose credentials can be replaced.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Connects to the hub. Cancel-safe: a connection that is not complete is dropped.
    ///
    /// # Errors
    /// If each way to the hub fails, or exceeds the time limit of a step.
    pub async fn dial(&self, observer: &mut dyn DialObserver) -> Result<Dialled, DialError> {
        let mut race = Race::new(self.targets.clone(), self.limits.connect_timeout);
        self.dial_any(&mut race, observer).await
    }

    /// Links to the first of the addresses that works.
    async fn dial_any(&self, race: &mut Race, observer: &mut dyn DialObserver) -> Result<Dialled, DialError> {
        let mut failures = Vec::new();
        while let Some((candidate, stream)) = race.next(&mut failures, observer).await {
            let peer = candidate.address;
            match self.handshake(stream, observer).await {
                Ok((connection, wire)) => return Ok(Dialled { connection, peer, wire }),
                Err(error) => {
                    let (order, target) = (candidate.order, race.target(candidate.order).clone());
                    let failure = DialFailure { order, target, address: Some(peer), error };
                    observer.seen(DialEvent::Failed(&failure));
                    failures.push(failure);
                }
            }
        }
        Err(DialError::new(&self.hub, failures))
    }

    /// The steps TLS and transport, on an open connection.
    async fn handshake(
        &self,
        stream: TcpStream,
        observer: &mut dyn DialObserver,
    ) -> Result<(WebSocket<LinkStream>, Arc<Traffic>), DialStepError> {
        let stream = Counted::new(stream);
        let wire = stream.traffic().clone();
        let limit = self.limits.handshake_timeout;
        let encrypted = timeout(limit, self.connector.connect(self.hub.host(), stream)).await;
        let stream = encrypted.map_err(|_| DialStepError::TlsTimedOut(limit))?.map_err(DialStepError::Tls)?;
        observer.seen(DialEvent::Encrypted { certificate: tls::peer_certificate(&stream) });
        let upgraded = timeout(limit, websocket::connect(stream, &self.hub, self.limits.message_bytes_max)).await;
        let connection =
            upgraded.map_err(|_| DialStepError::TransportTimedOut(limit))?.map_err(DialStepError::Transport)?;
        observer.seen(DialEvent::Upgraded);
        Ok((connection, wire))
    }
}

#[cfg(test)]
mod tests;
