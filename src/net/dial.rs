//! Dialling a hub: TCP, then TLS, then the WebSocket handshake. Each step has a time limit.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::HostPort;
use super::counted::{Counted, Traffic};
use super::tls::{self, Connector, TlsError};
use super::websocket::{self, WebSocket, WebSocketError};

/// The stream below a link's WebSocket.
pub type LinkStream = tls::Stream<Counted<TcpStream>>;

/// The limits of dialling a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// Time for the name look-up and the TCP connection.
    pub connect_timeout: Duration,
    /// Time for the TLS and WebSocket handshakes together.
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
    /// The name look-up or the TCP connection failed.
    #[error("cannot connect to the hub {hub}: {error}")]
    Connect {
        /// The hub that was dialled.
        hub: HostPort,
        /// The operating system's error.
        error: io::Error,
    },
    /// A step exceeded its time limit.
    #[error("cannot connect to the hub {hub}: {step} took longer than {} s", .after.as_secs_f64())]
    TimedOut {
        /// The hub that was dialled.
        hub: HostPort,
        /// The step: `connecting` or `the handshake`.
        step: &'static str,
        /// The time limit.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error("cannot connect to the hub {hub}: {error}")]
    Tls {
        /// The hub that was dialled.
        hub: HostPort,
        /// The error of the handshake.
        error: TlsError,
    },
    /// The WebSocket handshake failed.
    #[error("cannot connect to the hub {hub}: {error}")]
    WebSocket {
        /// The hub that was dialled.
        hub: HostPort,
        /// The error of the handshake.
        error: WebSocketError,
    },
}

/// Connects to a hub. Cancel-safe: a connection that is not complete is dropped.
///
/// # Errors
/// If a step fails or exceeds its time limit.
pub async fn dial(hub: &HostPort, connector: &Connector, limits: &DialLimits) -> Result<Dialled, DialError> {
    let timed_out = |step, after| DialError::TimedOut { hub: hub.clone(), step, after };
    let failed = |error| DialError::Connect { hub: hub.clone(), error };
    let stream = timeout(limits.connect_timeout, TcpStream::connect((hub.host(), hub.port())))
        .await
        .map_err(|_| timed_out("connecting", limits.connect_timeout))?
        .map_err(failed)?;
    // Messages are written whole, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true).map_err(failed)?;
    let peer = stream.peer_addr().map_err(failed)?;
    let stream = Counted::new(stream);
    let wire = stream.traffic().clone();
    let handshaken = timeout(limits.handshake_timeout, handshake(hub, connector, stream, limits.message_bytes_max));
    let connection = handshaken.await.map_err(|_| timed_out("the handshake", limits.handshake_timeout))??;
    Ok(Dialled { connection, peer, wire })
}

async fn handshake(
    hub: &HostPort,
    connector: &Connector,
    stream: Counted<TcpStream>,
    message_bytes_max: usize,
) -> Result<WebSocket<LinkStream>, DialError> {
    let stream =
        connector.connect(hub.host(), stream).await.map_err(|error| DialError::Tls { hub: hub.clone(), error })?;
    websocket::connect(stream, hub, message_bytes_max)
        .await
        .map_err(|error| DialError::WebSocket { hub: hub.clone(), error })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::credentials::{Directory, IssueOptions};
    use crate::net::identity::EdgeIdentity;
    use crate::net::testing::TempDir;
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
            Credentials::load(&TlsFiles { ca_file, cert_file: own.certificate, key_file: own.key }).unwrap()
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
        assert!(matches!(error, DialError::Connect { .. }) && error.to_string().contains(&hub.to_string()), "{error}");
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
        assert!(matches!(error, DialError::TimedOut { step: "the handshake", .. }), "{error}");
    }
}
