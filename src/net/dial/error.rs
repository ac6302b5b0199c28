//! The errors of dialling: each way that was tried with its failure, and advice for the person who reads it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use super::step::DialStep;
use super::way::Way;
use crate::net::address::HostPort;
use crate::net::proxy::ProxyError;
use crate::net::tls::{self, TlsError};
use crate::net::websocket::WebSocketError;

/// A hub cannot be reached. It has the failure of every way that was tried.
#[derive(Debug, Error)]
#[error("cannot connect to the hub {hub}: {}", Failures(self))]
pub struct DialError {
    /// The hub that was dialled.
    hub: HostPort,
    /// The failures, in the order of the addresses.
    failures: Vec<DialFailure>,
}

/// The failure of one way to a hub.
#[derive(Debug)]
pub struct DialFailure {
    /// The way.
    pub way: Way,
    /// The address of the hub, or of the proxy, if the failure is of one address.
    pub address: Option<SocketAddr>,
    /// The error.
    pub error: DialStepError,
}

/// The reasons for which a step of dialling fails.
#[derive(Debug, Error)]
pub enum DialStepError {
    /// The name cannot be resolved.
    #[error("its name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// The name has no address.
    #[error("its name has no address")]
    NoAddress,
    /// The resolver did not answer in time.
    #[error("resolving its name took longer than {} s (uplink.connect_timeout)", .0.as_secs_f64())]
    ResolveTimedOut(Duration),
    /// The TCP connection failed.
    #[error(transparent)]
    Connect(io::Error),
    /// The TCP connection took too long.
    #[error("connecting took longer than {} s (uplink.connect_timeout)", .0.as_secs_f64())]
    ConnectTimedOut(Duration),
    /// The proxy opened no tunnel.
    #[error(transparent)]
    Proxy(ProxyError),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(TlsError),
    /// The TLS handshake took too long.
    #[error(
        "the TLS handshake took longer than {} s (link.handshake_timeout): the connection opens, but no answer passes",
        .0.as_secs_f64()
    )]
    TlsTimedOut(Duration),
    /// The WebSocket handshake failed.
    #[error(transparent)]
    Transport(WebSocketError),
    /// The WebSocket handshake took too long.
    #[error(
        "the WebSocket handshake took longer than {} s (link.handshake_timeout): TLS works, but the answer to the \
         upgrade does not pass",
        .0.as_secs_f64()
    )]
    TransportTimedOut(Duration),
}

impl DialStepError {
    /// The step that failed.
    pub fn step(&self) -> DialStep {
        match self {
            Self::Resolve(_) | Self::NoAddress | Self::ResolveTimedOut(_) => DialStep::Names,
            Self::Connect(_) | Self::ConnectTimedOut(_) => DialStep::Addresses,
            Self::Proxy(_) => DialStep::Proxy,
            Self::Tls(_) | Self::TlsTimedOut(_) => DialStep::Tls,
            // A hub refuses a client's certificate after the client's end of the handshake is complete.
            Self::Transport(WebSocketError::Io(error)) if tls::is_of_tls(error) => DialStep::Tls,
            Self::Transport(_) | Self::TransportTimedOut(_) => DialStep::Transport,
        }
    }
}

impl DialError {
    /// The error of an attempt; `failures` has at least one.
    pub(super) fn new(hub: &HostPort, mut failures: Vec<DialFailure>) -> Self {
        // The text must not depend on which attempt lost the race: the edge logs a warning for each new text.
        failures.sort_by_key(|failure| (failure.way.order, failure.address));
        Self { hub: hub.clone(), failures }
    }

    /// Whether the hub is too old to know checks of the line.
    pub fn is_without_checks(&self) -> bool {
        let is_refused = |failure: &DialFailure| match &failure.error {
            DialStepError::Transport(error) => error.is_without_checks(),
            _ => false,
        };
        self.failures.iter().any(is_refused)
    }

    /// Whether the hub takes no client without a certificate.
    pub fn needs_certificate(&self) -> bool {
        let is_needed = |failure: &DialFailure| match &failure.error {
            DialStepError::Transport(WebSocketError::Io(error)) => tls::is_certificate_required(error),
            DialStepError::Tls(TlsError::Handshake(error)) => tls::is_certificate_required(error),
            _ => false,
        };
        self.failures.iter().any(is_needed)
    }

    /// The last step that was reached with any address.
    pub fn step(&self) -> DialStep {
        self.failures.iter().map(|failure| failure.error.step()).max().unwrap_or(DialStep::Names)
    }

    /// Advice for the operator, if it is not in the failures themselves.
    fn advice(&self) -> &'static str {
        let is_proxied = self.failures.iter().any(|failure| failure.way.proxy.is_some());
        let is_inspected = |failure: &DialFailure| match &failure.error {
            DialStepError::Tls(error) => error.is_unknown_issuer(),
            _ => false,
        };
        match self.step() {
            DialStep::Names if is_proxied => {
                "; check the name (`getent ahosts NAME`); socks5h:// lets the proxy resolve the hub's name"
            }
            DialStep::Names => {
                "; check the name (`getent ahosts NAME`), or set uplink.proxy_url if only a proxy resolves outside names"
            }
            DialStep::Addresses if is_proxied => "; check that the proxy runs, and uplink.proxy_url",
            DialStep::Addresses => {
                "; check that the hub runs and the port is right; if only a proxy leads out of this network, set \
                 uplink.proxy_url"
            }
            DialStep::Tls if self.failures.iter().any(is_inspected) => {
                "; if a proxy or firewall in between inspects TLS with an authority of its own, exempt the hub from that"
            }
            _ => "",
        }
    }
}

/// The failures of an attempt. An address is left out where the hub was given by it.
struct Failures<'a>(&'a DialError);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(all) = self;
        for (number, failure) in all.failures.iter().enumerate() {
            f.write_str(if number > 0 { "; " } else { "" })?;
            write_way(f, failure, &all.hub)?;
            write!(f, "{}", failure.error)?;
        }
        f.write_str(all.advice())
    }
}

/// The way of a failure, as far as it is not known from the name of the hub.
fn write_way(f: &mut fmt::Formatter<'_>, failure: &DialFailure, hub: &HostPort) -> fmt::Result {
    let DialFailure { way, address, error } = failure;
    let is_name = way.first_hop().host().parse::<IpAddr>().is_err();
    let address = address.filter(|_| is_name);
    if let Some(proxy) = &way.proxy {
        if way.target != *hub {
            write!(f, "{}, ", way.target)?;
        }
        write!(f, "through the proxy {proxy}")?;
        // An answer of the proxy is the same at each of its addresses.
        if let (Some(address), DialStep::Addresses) = (address, error.step()) {
            write!(f, " ({address})")?;
        }
        return f.write_str(": ");
    }
    match address {
        Some(address) if way.target == *hub => write!(f, "{address}: "),
        Some(address) => write!(f, "{} ({address}): ", way.target),
        None if way.target == *hub => Ok(()),
        None => write!(f, "{}: ", way.target),
    }
}
