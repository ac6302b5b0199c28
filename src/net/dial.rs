//! Dialling a hub: TCP, then TLS, then the WebSocket handshake. Each step has a time limit.
//!
//! A hub's name may have several addresses, of which some may not work: an IPv6 address whose packets a firewall drops,
//! or a machine that is down. [`dial`] therefore follows RFC 8305 (Happy Eyeballs): it starts an attempt every 250 ms,
//! alternates between IPv6 and IPv4, and takes the first connection that opens. If the handshakes fail there, it goes on
//! with the remaining addresses. The name is resolved again for each call.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, sleep_until, timeout};

use super::address::HostPort;
use super::counted::{Counted, Traffic};
use super::tls::{self, Connector, TlsError};
use super::websocket::{self, WebSocket, WebSocketError};

/// The pause before the next address is tried while an attempt has no answer (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried, at most.
const ADDRESSES_MAX: usize = 32;

/// The stream below a link's WebSocket.
pub type LinkStream = tls::Stream<Counted<TcpStream>>;

/// The limits of dialling a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// Time for the name look-up, and then for the TCP connection to any address.
    pub connect_timeout: Duration,
    /// Time for the TLS and WebSocket handshakes together, with one address.
    pub handshake_timeout: Duration,
    /// Bytes of a message from the hub, decompressed, at most.
    pub message_bytes_max: usize,
}

/// An established connection to a hub.
#[derive(Debug)]
pub struct Dialled {
    /// The WebSocket connection.
    pub connection: WebSocket<LinkStream>,
    /// The hub's address.
    pub peer: SocketAddr,
    /// Bytes on the wire, including TLS records and handshakes.
    pub wire: Arc<Traffic>,
}

/// The reasons for which a hub cannot be reached.
#[derive(Debug, Error)]
pub enum DialError {
    /// The hub's name cannot be resolved.
    #[error("cannot connect to the hub {hub}: its name cannot be resolved: {error}")]
    Resolve {
        /// The hub that was dialled.
        hub: HostPort,
        /// The error of the resolver.
        error: io::Error,
    },
    /// The resolver did not answer in time.
    #[error("cannot connect to the hub {hub}: resolving its name took longer than {} s", .after.as_secs_f64())]
    ResolveTimedOut {
        /// The hub that was dialled.
        hub: HostPort,
        /// The time limit.
        after: Duration,
    },
    /// No address of the hub could be linked to.
    #[error("cannot connect to the hub {hub}: {}", Attempts { hub, failed })]
    Failed {
        /// The hub that was dialled.
        hub: HostPort,
        /// The addresses of its name, each with its error, in their order.
        failed: Vec<(SocketAddr, AttemptError)>,
    },
}

/// The reasons for which one address of a hub cannot be linked to.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// The TCP connection failed.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// A step exceeded its time limit.
    #[error("{step} took longer than {} s", .after.as_secs_f64())]
    TimedOut {
        /// The step: `connecting` or `the handshake`.
        step: &'static str,
        /// The time limit.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The WebSocket handshake failed.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
}

/// The failures of all addresses. An address is left out where the hub was given by it.
struct Attempts<'a> {
    hub: &'a HostPort,
    failed: &'a [(SocketAddr, AttemptError)],
}

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_address = self.hub.host().parse::<IpAddr>().is_ok();
        for (number, (address, error)) in self.failed.iter().enumerate() {
            f.write_str(if number > 0 { "; " } else { "" })?;
            match by_address {
                true => write!(f, "{error}")?,
                false => write!(f, "{address}: {error}")?,
            }
        }
        Ok(())
    }
}

/// Connects to a hub. Cancel-safe: a connection that is not complete is dropped.
///
/// # Errors
/// If the name cannot be resolved, or a step fails or exceeds its time limit for every address.
pub async fn dial(hub: &HostPort, connector: &Connector, limits: &DialLimits) -> Result<Dialled, DialError> {
    let after = limits.connect_timeout;
    let resolved = timeout(after, lookup_host((hub.host(), hub.port())))
        .await
        .map_err(|_| DialError::ResolveTimedOut { hub: hub.clone(), after })?
        .map_err(|error| DialError::Resolve { hub: hub.clone(), error })?;
    let addresses = interleaved(resolved.collect());
    if addresses.is_empty() {
        let error = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        return Err(DialError::Resolve { hub: hub.clone(), error });
    }
    dial_any(hub, addresses, connector, limits).await
}

/// Links to the first of the addresses that works.
async fn dial_any(
    hub: &HostPort,
    mut addresses: Vec<SocketAddr>,
    connector: &Connector,
    limits: &DialLimits,
) -> Result<Dialled, DialError> {
    let mut failed = Vec::new();
    while let Some((peer, stream)) = connect_any(&mut addresses, limits.connect_timeout, &mut failed).await {
        match handshake(hub, connector, stream, limits).await {
            Ok((connection, wire)) => return Ok(Dialled { connection, peer, wire }),
            Err(error) => failed.push((peer, error)),
        }
    }
    // The text must not depend on which attempt lost the race: the edge logs a warning for each new text.
    failed.sort_by_key(|(address, _)| *address);
    Err(DialError::Failed { hub: hub.clone(), failed })
}

/// The addresses in the resolver's order (RFC 6724), but alternating between the families, so that a family without a
/// route costs one [`ATTEMPT_DELAY`] (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || all.len() >= ADDRESSES_MAX {
            return all;
        }
        all.extend(pair.into_iter().flatten().filter(|address| !all.contains(address)).collect::<Vec<_>>());
    }
}

/// Opens a TCP connection to one of the addresses: tries the next one when an attempt fails, or has no answer within
/// [`ATTEMPT_DELAY`], and drops the other attempts when one succeeds. Removes the address that was reached and those
/// that failed from `addresses`; the latter are added to `failed`. `None` if no address was reached in time.
async fn connect_any(
    addresses: &mut Vec<SocketAddr>,
    limit: Duration,
    failed: &mut Vec<(SocketAddr, AttemptError)>,
) -> Option<(SocketAddr, TcpStream)> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut waiting = addresses.clone().into_iter();
    let mut attempts = FuturesUnordered::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, connect(address).await) });
        } else if attempts.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            Some((address, connected)) = attempts.next() => {
                addresses.retain(|other| *other != address);
                match connected {
                    Ok(stream) => return Some((address, stream)),
                    Err(error) => failed.push((address, error.into())),
                }
            }
            () = sleep_until(deadline) => {
                let timed_out = || AttemptError::TimedOut { step: "connecting", after: limit };
                failed.extend(addresses.drain(..).map(|address| (address, timed_out())));
                return None;
            }
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Messages are written whole, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(
    hub: &HostPort,
    connector: &Connector,
    stream: TcpStream,
    limits: &DialLimits,
) -> Result<(WebSocket<LinkStream>, Arc<Traffic>), AttemptError> {
    let stream = Counted::new(stream);
    let wire = stream.traffic().clone();
    let handshaken = async {
        let stream = connector.connect(hub.host(), stream).await?;
        Ok(websocket::connect(stream, hub, limits.message_bytes_max).await?)
    };
    let after = limits.handshake_timeout;
    let timed_out = |_| AttemptError::TimedOut { step: "the handshake", after };
    let connection: Result<_, AttemptError> = timeout(after, handshaken).await.map_err(timed_out)?;
    Ok((connection?, wire))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::net::credentials::{Directory, IssueOptions};
    use crate::net::identity::EdgeIdentity;
    use crate::net::testing::TempDir;
    use crate::net::tls::problem::CertificateUse;
    use crate::net::tls::{Acceptor, Credentials, TlsFiles};

    const LIMITS: DialLimits = DialLimits {
        connect_timeout: Duration::from_secs(60),
        handshake_timeout: Duration::from_secs(60),
        message_bytes_max: 1_000,
    };

    fn ends() -> (Acceptor, Connector) {
        let temp = TempDir::new();
        let directory = Directory::new(temp.path());
        let issue = IssueOptions { now: SystemTime::now(), days: None, force: false };
        directory.init(issue).unwrap();
        let load = |own: crate::net::credentials::KeyPairFiles| {
            let ca_file = directory.files("ca").certificate;
            let (cert_file, key_file) = (own.certificate, own.key);
            Credentials::load(&TlsFiles { ca_file, cert_file, key_file, used_by: CertificateUse::Hub }).unwrap()
        };
        let hub = load(directory.hub(&["127.0.0.1".into()], issue).unwrap());
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ").unwrap();
        let edge = load(directory.edge(&identity, issue).unwrap());
        (Acceptor::new(&hub).unwrap(), Connector::new(&edge).unwrap())
    }

    async fn loopback() -> (TcpListener, HostPort) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = listener.local_addr().unwrap().to_string().parse().unwrap();
        (listener, hub)
    }

    #[tokio::test]
    async fn a_message_passes_over_real_sockets_and_its_records_are_counted() {
        let (acceptor, connector) = ends();
        let (listener, hub) = loopback().await;
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let (stream, peer) = acceptor.accept(Counted::new(stream)).await.unwrap();
            let peer = peer.unwrap();
            let mut connection = websocket::accept(stream, 1_000).await.unwrap();
            let message = connection.receiver.receive().await.unwrap().unwrap();
            connection.sender.send(message).await.unwrap();
            (connection, peer)
        };
        let call = async {
            let mut dialled = dial(&hub, &connector, &LIMITS).await.unwrap();
            let before = dialled.wire.sent_bytes();
            dialled.connection.sender.send(&b"hello"[..]).await.unwrap();
            let framed = dialled.wire.sent_bytes() - before;
            assert_eq!(dialled.connection.receiver.receive().await.unwrap().unwrap(), &b"hello"[..]);
            framed
        };
        let ((_connection, peer), framed) = tokio::join!(serve, call);
        assert_eq!(peer.identity.name.as_str(), "syq-1");
        // The sum of 5 bytes of text, a masked frame's header of 6, and a TLS 1.3 record's header, type and tag of 22.
        assert_eq!(framed, 33);
    }

    #[tokio::test]
    async fn a_failed_connection_names_the_hub() {
        let (_, connector) = ends();
        let (listener, hub) = loopback().await;
        drop(listener);
        let error = dial(&hub, &connector, &LIMITS).await.unwrap_err();
        assert!(matches!(&error, DialError::Failed { failed, .. } if failed.len() == 1), "{error}");
        assert!(error.to_string().contains(&hub.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_hub_that_says_nothing_is_given_up() {
        let (_, connector) = ends();
        let (listener, hub) = loopback().await;
        let limits = DialLimits { handshake_timeout: Duration::from_millis(1), ..LIMITS };
        let silent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let (dialled, ()) = tokio::join!(dial(&hub, &connector, &limits), silent);
        let error = dialled.unwrap_err();
        assert!(error.to_string().ends_with(": the handshake took longer than 0.001 s"), "{error}");
    }

    /// A listener that drops every further SYN, as a firewall does: its queue is full. Also the connection that fills it.
    async fn swallowing(ip: [u8; 4]) -> (TcpListener, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let filling = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener, filling)
    }

    #[tokio::test]
    async fn an_address_that_swallows_packets_delays_the_link_by_one_attempt() {
        let (acceptor, connector) = ends();
        let (swallowing, _filling) = swallowing([127, 0, 0, 3]).await;
        let (listener, hub) = loopback().await;
        let addresses = vec![swallowing.local_addr().unwrap(), listener.local_addr().unwrap()];
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let (stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
            websocket::accept(stream, 1_000).await.unwrap()
        };
        let begun = std::time::Instant::now();
        let (_connection, dialled) = tokio::join!(serve, dial_any(&hub, addresses, &connector, &LIMITS));
        assert_eq!(dialled.unwrap().peer, listener.local_addr().unwrap());
        // The limit of the whole is 60 s: the margin is for a slow machine.
        let elapsed = begun.elapsed();
        assert!(elapsed >= ATTEMPT_DELAY && elapsed < Duration::from_secs(10), "{elapsed:?}");
    }

    #[tokio::test]
    async fn an_address_without_a_hub_is_passed_over() {
        let (acceptor, connector) = ends();
        let (other, hub) = loopback().await;
        let (listener, _) = loopback().await;
        let addresses = vec![other.local_addr().unwrap(), listener.local_addr().unwrap()];
        let serve = async {
            drop(other.accept().await.unwrap());
            let (stream, _) = listener.accept().await.unwrap();
            let (stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
            websocket::accept(stream, 1_000).await.unwrap()
        };
        let (_connection, dialled) = tokio::join!(serve, dial_any(&hub, addresses, &connector, &LIMITS));
        assert_eq!(dialled.unwrap().peer, listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn every_address_is_named_with_its_failure() {
        let (_, connector) = ends();
        let (swallowing, _filling) = swallowing([127, 0, 0, 3]).await;
        let (refusing, _) = loopback().await;
        let addresses = [swallowing.local_addr().unwrap(), refusing.local_addr().unwrap()];
        drop(refusing);
        let hub: HostPort = "hub.example.org:9443".parse().unwrap();
        let limits = DialLimits { connect_timeout: Duration::from_millis(600), ..LIMITS };
        let error = dial_any(&hub, addresses.into(), &connector, &limits).await.unwrap_err().to_string();
        let [swallowing, refusing] = addresses;
        let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(
            error,
            format!(
                "cannot connect to the hub {hub}: {refusing}: {refused}; \
                 {swallowing}: connecting took longer than 0.6 s"
            )
        );
    }

    #[test]
    fn the_families_alternate_and_the_resolver_says_which_is_first() {
        let parse = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>();
        let resolved = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]);
        let expected = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(resolved), expected);
        assert_eq!(interleaved(parse(&["1.1.1.1:1", "[::1]:1"])), parse(&["1.1.1.1:1", "[::1]:1"]));
        assert_eq!(interleaved(Vec::new()), Vec::new());
        let many = (0..1_000).map(|port| SocketAddr::from(([1, 1, 1, 1], port))).collect();
        assert_eq!(interleaved(many).len(), ADDRESSES_MAX);
    }
}
