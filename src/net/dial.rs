//! Dialling a hub: TCP, then TLS, then the WebSocket, each within its time.

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
use super::websocket::{self, Connection, WebSocketError};

/// The stream under a link's WebSocket.
pub type LinkStream = tls::Stream<Counted<TcpStream>>;

/// How a hub is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// For name look-up and the TCP connection.
    pub connect_timeout: Duration,
    /// For TLS and the WebSocket's handshake together.
    pub handshake_timeout: Duration,
    /// The largest message taken from the hub.
    pub message_bytes_max: usize,
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialled {
    /// The link.
    pub connection: Connection<LinkStream>,
    /// The address that answered.
    pub peer: SocketAddr,
    /// Bytes on the wire, TLS records and handshakes included.
    pub wire: Arc<Traffic>,
}

/// Why a hub could not be reached.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name could not be looked up, or nobody took the connection.
    #[error("cannot connect to the hub {hub}: {error}")]
    Connect {
        /// The hub.
        hub: HostPort,
        /// What the system said.
        error: io::Error,
    },
    /// A step took too long.
    #[error("cannot connect to the hub {hub}: {step} took longer than {} s", .after.as_secs_f64())]
    TimedOut {
        /// The hub.
        hub: HostPort,
        /// The step: `connecting` or `the handshake`.
        step: &'static str,
        /// The bound.
        after: Duration,
    },
    /// TLS failed.
    #[error("cannot connect to the hub {hub}: {error}")]
    Tls {
        /// The hub.
        hub: HostPort,
        /// Why.
        error: TlsError,
    },
    /// The WebSocket's handshake failed.
    #[error("cannot connect to the hub {hub}: {error}")]
    WebSocket {
        /// The hub.
        hub: HostPort,
        /// Why.
        error: WebSocketError,
    },
}

/// Connects to a hub. Cancel-safe: what was begun is dropped.
pub async fn dial(hub: &HostPort, connector: &Connector, limits: &DialLimits) -> Result<Dialled, DialError> {
    let timed_out = |step, after| DialError::TimedOut { hub: hub.clone(), step, after };
    let failed = |error| DialError::Connect { hub: hub.clone(), error };
    let stream = timeout(limits.connect_timeout, TcpStream::connect((hub.host(), hub.port())))
        .await
        .map_err(|_| timed_out("connecting", limits.connect_timeout))?
        .map_err(failed)?;
    // Messages are written whole: waiting to fill a packet only delays them.
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
) -> Result<Connection<LinkStream>, DialError> {
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
        // Five bytes, a masked frame's header of six, a TLS 1.3 record's header, type and tag of 22.
        assert_eq!(framed, 33);
    }

    #[tokio::test]
    async fn nobody_there_names_the_hub() {
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
