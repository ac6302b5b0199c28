//! Dialling a hub, step by step: names, addresses, proxy, TLS, transport. Each step has its own time limit, its own errors and a
//! counter ([`DialStep`]); the last step, the hello, belongs to the session.
//!
//! A hub may have several targets: its name, and further addresses. All names are resolved anew for each call, and the
//! addresses race each other (`dial/race.rs`). If a later step fails with an address, [`Dialler::dial`] goes on with the others.
//! Through a [`Proxy`], the first two steps lead to the proxy, which resolves the names of the targets, and each target has
//! a tunnel of its own.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::either::Either;

use super::address::HostPort;
use super::counted::{Counted, Traffic};
use super::proxy::{Carrier, Proxy, ProxyKeys, ProxyScheme, target_of};
use super::tls::{self, Connector, MaybeEncrypted, PeerChain};
use super::websocket::{self, LinkPurpose, LinkTarget, WebSocket};
use race::{Candidate, Race, resolve};

pub mod carrier;
mod error;
mod event;
mod race;
mod step;
mod way;

pub use error::{DialError, DialFailure, DialStepError};
pub use event::{DialEvent, DialObserver, HubCertificate};
pub use step::{DialFailures, DialStep};
pub use way::Way;

/// The stream below a link's WebSocket.
pub type LinkStream = MaybeEncrypted<Carrier>;

/// Addresses of a target that are tried through a proxy which does not resolve names, at most.
const SOCKS_ADDRESSES_MAX: usize = 4;

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
    /// The path of the request for the link.
    path: String,
    limits: DialLimits,
    connector: Connector,
    proxy: Option<Proxy>,
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
    /// The address that was connected to: the hub's, or the proxy's.
    pub peer: SocketAddr,
    /// Bytes on the wire, including TLS records and handshakes.
    pub wire: Arc<Traffic>,
    /// The hub's certificate, to verify it again.
    pub hub_chain: Option<PeerChain>,
}

impl Dialler {
    /// A dialler of the hub at `hub`, which has these further addresses too.
    pub fn new(
        hub: HostPort,
        addresses: &[HostPort],
        limits: DialLimits,
        connector: Connector,
        proxy: Option<Proxy>,
    ) -> Self {
        let targets = std::iter::once(&hub).chain(addresses).cloned().collect();
        Self { hub, targets, path: websocket::PATH.into(), limits, connector, proxy }
    }

    /// Asks for the link at that path.
    #[must_use]
    pub fn at(self, path: String) -> Self {
        Self { path, ..self }
    }

    /// The TLS end of the links, whose credentials can be replaced.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Replaces the credentials, for later connections. `keys` are those of the proxy, if there is one.
    pub fn replace(&self, connector: &Connector, keys: Option<ProxyKeys>) {
        self.connector.replace(connector);
        if let (Some(proxy), Some(keys)) = (&self.proxy, keys) {
            proxy.replace(keys);
        }
    }

    /// Connects to the hub. Cancel-safe: a connection that is not complete is dropped.
    ///
    /// # Errors
    /// If each way to the hub fails, or exceeds the time limit of a step.
    pub async fn dial(&self, observer: &mut dyn DialObserver) -> Result<Dialled, DialError> {
        self.dial_for(LinkPurpose::Session, observer).await
    }

    /// Connects to the hub for a check of the line, as [`Dialler::dial`] does for a session.
    ///
    /// # Errors
    /// As [`Dialler::dial`]; or if the hub does not know checks.
    pub async fn dial_check(&self, observer: &mut dyn DialObserver) -> Result<Dialled, DialError> {
        self.dial_for(LinkPurpose::Check, observer).await
    }

    /// Connects to the hub to get a certificate, as [`Dialler::dial`] does for a session.
    ///
    /// # Errors
    /// As [`Dialler::dial`]; or if the hub issues no certificates.
    pub async fn dial_enrolment(&self, observer: &mut dyn DialObserver) -> Result<Dialled, DialError> {
        self.dial_for(LinkPurpose::Enrol, observer).await
    }

    async fn dial_for(&self, purpose: LinkPurpose, observer: &mut dyn DialObserver) -> Result<Dialled, DialError> {
        let mut failures = Vec::new();
        let ways = self.targets.iter().enumerate().map(|(order, target)| {
            let proxy = self.proxy.as_ref().filter(|proxy| proxy.serves(target));
            Way { order, target: target.clone(), proxy: proxy.map(|proxy| proxy.url().clone()) }
        });
        let (direct, proxied): (Vec<_>, Vec<_>) = ways.partition(|way| way.proxy.is_none());
        let directly_first = direct.first().is_some_and(|way| way.order == 0);
        if directly_first && let Some(dialled) = self.dial_directly(&direct, purpose, &mut failures, observer).await {
            return Ok(dialled);
        }
        for (way, proxy) in proxied.iter().zip(self.proxy.iter().cycle()) {
            if let Some(dialled) = self.dial_through((way, proxy), purpose, &mut failures, observer).await {
                return Ok(dialled);
            }
        }
        if !directly_first && let Some(dialled) = self.dial_directly(&direct, purpose, &mut failures, observer).await {
            return Ok(dialled);
        }
        Err(DialError::new(&self.hub, failures))
    }

    /// Links to the first of the addresses that works.
    async fn dial_directly(
        &self,
        ways: &[Way],
        purpose: LinkPurpose,
        failures: &mut Vec<DialFailure>,
        observer: &mut dyn DialObserver,
    ) -> Option<Dialled> {
        let mut race = Race::new(ways.to_vec(), self.limits.connect_timeout);
        while let Some((candidate, stream)) = race.next(failures, observer).await {
            let stream = Counted::new(stream);
            let wire = stream.traffic().clone();
            match self.handshake(Either::Left(stream), purpose, observer).await {
                Ok((connection, hub_chain)) => {
                    let peer = candidate.address;
                    return Some(Dialled { connection, peer, wire, hub_chain });
                }
                Err(error) => fail(race.way(candidate), candidate, error, failures, observer),
            }
        }
        None
    }

    /// Links to a target through the proxy.
    async fn dial_through(
        &self,
        (way, proxy): (&Way, &Proxy),
        purpose: LinkPurpose,
        failures: &mut Vec<DialFailure>,
        observer: &mut dyn DialObserver,
    ) -> Option<Dialled> {
        let destinations = match proxy.url().scheme() {
            ProxyScheme::Socks5 => match resolve(&way.target, self.limits.connect_timeout).await {
                Ok(addresses) => {
                    observer.seen(DialEvent::Resolved { host: &way.target, addresses: &addresses });
                    addresses.iter().filter_map(target_of).take(SOCKS_ADDRESSES_MAX).collect()
                }
                Err(error) => {
                    let failure = DialFailure { way: way.clone(), address: None, error };
                    observer.seen(DialEvent::Failed(&failure));
                    failures.push(failure);
                    return None;
                }
            },
            _ => vec![way.target.clone()],
        };
        for destination in destinations {
            let mut race = Race::new(vec![way.clone()], self.limits.connect_timeout);
            while let Some((candidate, stream)) = race.next(failures, observer).await {
                let stream = Counted::new(stream);
                let wire = stream.traffic().clone();
                let error = match proxy.open(stream, &destination).await {
                    Ok((tunnel, answer)) => {
                        observer.seen(DialEvent::Tunnelled { way, answer: &answer });
                        match self.handshake(tunnel, purpose, observer).await {
                            Ok((connection, hub_chain)) => {
                                let peer = candidate.address;
                                return Some(Dialled { connection, peer, wire, hub_chain });
                            }
                            Err(error) => error,
                        }
                    }
                    Err(error) => DialStepError::Proxy(error),
                };
                let is_answer = !matches!(&error, DialStepError::Proxy(error) if !error.is_answer());
                fail(way, candidate, error, failures, observer);
                if is_answer {
                    // The other addresses of the proxy would lead to the same.
                    break;
                }
            }
        }
        None
    }

    /// The steps TLS and transport, on an open connection.
    async fn handshake(
        &self,
        carrier: Carrier,
        purpose: LinkPurpose,
        observer: &mut dyn DialObserver,
    ) -> Result<(WebSocket<LinkStream>, Option<PeerChain>), DialStepError> {
        let limit = self.limits.handshake_timeout;
        let encrypted = timeout(limit, self.connector.connect(self.hub.host(), carrier)).await;
        let stream = encrypted.map_err(|_| DialStepError::TlsTimedOut(limit))?.map_err(DialStepError::Tls)?;
        let hub_chain = match &stream {
            Either::Left(stream) => {
                observer.seen(DialEvent::Encrypted { certificate: peer_certificate(stream) });
                tls::hub_chain(stream)
            }
            Either::Right(_) => None,
        };
        let token = self.connector.token();
        let target = LinkTarget { hub: &self.hub, path: &self.path, token: token.as_ref() };
        let upgraded = timeout(limit, websocket::connect(stream, target, purpose, self.limits.message_bytes_max)).await;
        let connection =
            upgraded.map_err(|_| DialStepError::TransportTimedOut(limit))?.map_err(DialStepError::Transport)?;
        observer.seen(DialEvent::Upgraded);
        Ok((connection, hub_chain))
    }
}

/// The hub's certificate, as far as it can be read.
fn peer_certificate(stream: &tls::Stream<Carrier>) -> Option<HubCertificate> {
    let (certificate, names) = tls::peer_certificate(stream)?;
    Some(HubCertificate { names, not_before: certificate.not_before, not_after: certificate.not_after })
}

fn fail(
    way: &Way,
    candidate: Candidate,
    error: DialStepError,
    failures: &mut Vec<DialFailure>,
    observer: &mut dyn DialObserver,
) {
    let failure = DialFailure { way: way.clone(), address: Some(candidate.address), error };
    observer.seen(DialEvent::Failed(&failure));
    failures.push(failure);
}

#[cfg(test)]
mod tests;
