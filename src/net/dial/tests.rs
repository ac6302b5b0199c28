//! Dialling over real sockets, with addresses that swallow packets, refuse, or are no hub.

use std::io;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::race::ATTEMPT_DELAY;
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
        Credentials::load(&TlsFiles {
            ca_file,
            cert_file,
            key_file,
            crl_file: None,
            anonymous: false,
            used_by: CertificateUse::Hub,
        })
        .unwrap()
    };
    let hub = load(directory.hub(&["127.0.0.1".into()], issue).unwrap());
    let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ").unwrap();
    let edge = load(directory.edge(&identity, issue).unwrap());
    (Acceptor::new(&hub).unwrap(), Connector::new(&edge, None).unwrap())
}

/// A dialler of the hub, whose targets are these addresses.
fn dialler(hub: &HostPort, addresses: &[SocketAddr], connector: Connector, limits: DialLimits) -> Dialler {
    let targets = addresses.iter().map(|address| address.to_string().parse().unwrap()).collect();
    Dialler { targets, ..Dialler::new(hub.clone(), &[], limits, connector, None) }
}

async fn dial(dialler: &Dialler) -> Result<Dialled, DialError> {
    dialler.dial(&mut ()).await
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
        let mut connection = websocket::accept(stream, &LinkPurpose::ALL, 1_000).await.unwrap().0;
        let message = connection.receiver.receive().await.unwrap().unwrap();
        connection.sender.send(message).await.unwrap();
        (connection, peer)
    };
    let call = async {
        let mut dialled = Dialler::new(hub, &[], LIMITS, connector, None).dial(&mut ()).await.unwrap();
        let before = dialled.wire.sent_bytes();
        dialled.connection.sender.send(&b"hello"[..]).await.unwrap();
        let framed = dialled.wire.sent_bytes() - before;
        assert_eq!(dialled.connection.receiver.receive().await.unwrap().unwrap(), &b"hello"[..]);
        framed
    };
    let ((_connection, peer), framed) = tokio::join!(serve, call);
    assert_eq!(peer.unwrap().identity.name.as_str(), "syq-1");
    // The sum of 5 bytes of text, a masked frame's header of 6, and a TLS 1.3 record's header, type and tag of 22.
    assert_eq!(framed, 33);
}

#[tokio::test]
async fn a_failed_connection_names_the_hub() {
    let (_, connector) = ends();
    let (listener, hub) = loopback().await;
    drop(listener);
    let error = Dialler::new(hub.clone(), &[], LIMITS, connector, None).dial(&mut ()).await.unwrap_err();
    assert_eq!(error.step(), DialStep::Addresses);
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
    let dialler = Dialler::new(hub, &[], limits, connector, None);
    let (dialled, ()) = tokio::join!(dial(&dialler), silent);
    let error = dialled.unwrap_err();
    assert_eq!(error.step(), DialStep::Tls);
    assert!(error.to_string().contains(": the TLS handshake took longer than 0.001 s"), "{error}");
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
    let addresses = [swallowing.local_addr().unwrap(), listener.local_addr().unwrap()];
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
        websocket::accept(stream, &LinkPurpose::ALL, 1_000).await.unwrap().0
    };
    let dialler = dialler(&hub, &addresses, connector, LIMITS);
    let begun = std::time::Instant::now();
    let (_connection, dialled) = tokio::join!(serve, dial(&dialler));
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
    let addresses = [other.local_addr().unwrap(), listener.local_addr().unwrap()];
    let serve = async {
        drop(other.accept().await.unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        let (stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
        websocket::accept(stream, &LinkPurpose::ALL, 1_000).await.unwrap().0
    };
    let dialler = dialler(&hub, &addresses, connector, LIMITS);
    let (_connection, dialled) = tokio::join!(serve, dial(&dialler));
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
    let error = dialler(&hub, &addresses, connector, limits).dial(&mut ()).await.unwrap_err();
    let [swallowing, refusing] = addresses;
    let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
    let expected = format!(
        "cannot connect to the hub {hub}: {swallowing}: connecting took longer than 0.6 s (uplink.connect_timeout); \
         {refusing}: {refused}; check that the hub runs"
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(error.step(), DialStep::Addresses);
}

/// A hub that upgrades one connection.
async fn upgrade_one(acceptor: &Acceptor, listener: TcpListener) -> WebSocket<tls::Stream<Counted<TcpStream>>> {
    let (stream, _) = listener.accept().await.unwrap();
    let (stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
    websocket::accept(stream, &LinkPurpose::ALL, 1_000).await.unwrap().0
}

#[tokio::test]
async fn further_addresses_lead_to_the_hub_if_its_name_does_not() {
    let (acceptor, connector) = ends();
    let (listener, address) = loopback().await;
    let (refusing, hub) = loopback().await;
    drop(refusing);
    let dialler = Dialler::new(hub, std::slice::from_ref(&address), LIMITS, connector, None);
    let (_connection, dialled) = tokio::join!(upgrade_one(&acceptor, listener), dial(&dialler));
    assert_eq!(dialled.unwrap().peer.to_string(), address.to_string());
}

#[tokio::test]
async fn the_last_step_that_was_reached_counts() {
    let (_, connector) = ends();
    let (closing, hub) = loopback().await;
    let unknown: HostPort = "no-such-name.invalid:9443".parse().unwrap();
    let close = async { drop(closing.accept().await.unwrap()) };
    let dialler = Dialler::new(hub, &[unknown], LIMITS, connector, None);
    let (dialled, ()) = tokio::join!(dial(&dialler), close);
    let error = dialled.unwrap_err();
    assert_eq!(error.step(), DialStep::Tls);
    let text = error.to_string();
    assert!(text.contains("TLS handshake failed: ") && text.contains("no-such-name.invalid:9443: its name "), "{text}");
}

#[tokio::test]
async fn a_certificate_that_the_hub_refuses_is_a_failure_of_tls() {
    let (acceptor, _) = ends();
    let (_, other) = ends();
    let (listener, hub) = loopback().await;
    let refuse = async {
        let (stream, _) = listener.accept().await.unwrap();
        let refused = acceptor.accept(Counted::new(stream)).await.map(|_| ()).unwrap_err();
        tls::linger(refused.stream).await;
        refused.error
    };
    let dialler = Dialler::new(hub, &[], LIMITS, other, None);
    let (dialled, _) = tokio::join!(dial(&dialler), refuse);
    assert_eq!(dialled.unwrap_err().step(), DialStep::Tls);
}

#[tokio::test]
async fn an_answer_that_is_no_upgrade_is_a_failure_of_the_transport() {
    let (acceptor, connector) = ends();
    let (listener, hub) = loopback().await;
    let answer = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
        stream.read_buf(&mut Vec::with_capacity(1_000)).await.unwrap();
        stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let dialler = Dialler::new(hub, &[], LIMITS, connector, None);
    let (dialled, ()) = tokio::join!(dial(&dialler), answer);
    let error = dialled.unwrap_err();
    assert_eq!(error.step(), DialStep::Transport, "{error}");
}

#[tokio::test]
async fn a_hub_that_does_not_know_checks_is_recognized() {
    let (acceptor, connector) = ends();
    let (listener, hub) = loopback().await;
    let answer = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, _) = acceptor.accept(Counted::new(stream)).await.unwrap();
        stream.read_buf(&mut Vec::with_capacity(1_000)).await.unwrap();
        let body = "the subprotocol must be pushrelay.v1\n";
        let answer = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let dialler = Dialler::new(hub, &[], LIMITS, connector, None);
    let mut nobody = ();
    let (dialled, ()) = tokio::join!(dialler.dial_check(&mut nobody), answer);
    assert!(dialled.unwrap_err().is_without_checks());
}
