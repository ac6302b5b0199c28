//! Tests of both ends against each other in memory, with certificates of temporary authorities.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::connector::ClientSide;
use super::*;
use crate::net::credentials::{Directory, IssueOptions, KeyPairFiles};
use crate::net::testing::TempDir;

/// An authority, a hub for `localhost` and an edge, in a temporary directory.
struct Pki {
    temp: TempDir,
    hub: TlsFiles,
    edge: TlsFiles,
}

fn issue(now: SystemTime) -> IssueOptions {
    IssueOptions { now, days: Some(1), force: true }
}

fn files(directory: &Directory, own: KeyPairFiles) -> TlsFiles {
    let used_by = if own.key.ends_with("hub.key") { CertificateUse::Hub } else { CertificateUse::Edge };
    TlsFiles {
        ca_file: directory.files("ca").certificate,
        cert_file: own.certificate,
        key_file: own.key,
        crl_file: None,
        anonymous: false,
        used_by,
    }
}

impl Pki {
    fn new() -> Self {
        Self::at(SystemTime::now())
    }

    /// The edge's certificate is valid for a day from `now`.
    fn at(now: SystemTime) -> Self {
        let temp = TempDir::new();
        let directory = Directory::new(temp.path());
        directory.init(issue(SystemTime::now())).unwrap();
        let hub = files(&directory, directory.hub(&["localhost".into()], issue(SystemTime::now())).unwrap());
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ").unwrap();
        let edge = files(&directory, directory.edge(&identity, issue(now)).unwrap());
        Self { temp, hub, edge }
    }
}

fn acceptor(files: &TlsFiles) -> Acceptor {
    Acceptor::new(&Credentials::load(files).unwrap()).unwrap()
}

fn connector(files: &TlsFiles) -> Connector {
    Connector::new(&Credentials::load(files).unwrap(), None).unwrap()
}

type Accepted = Result<AcceptedStream<DuplexStream>, TlsError>;

/// The hub's result, and the edge's result after it has read a byte: in TLS 1.3 a client learns only then that it was
/// refused.
async fn handshake(acceptor: &Acceptor, connector: &Connector, host: &str) -> (Accepted, Result<u8, String>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let hub = async {
        let mut accepted = acceptor.accept(far).await.map_err(|refused| refused.error);
        if let Ok((stream, _)) = &mut accepted {
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
        }
        accepted
    };
    let edge = async {
        let mut stream = connector.connect(host, near).await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| explain(&error))
    };
    tokio::join!(hub, edge)
}

#[tokio::test]
async fn an_edge_gets_in_with_a_certificate_of_the_authority() {
    let pki = Pki::new();
    let (hub, edge) = handshake(&acceptor(&pki.hub), &connector(&pki.edge), "localhost").await;
    let peer = hub.unwrap().1.unwrap().unwrap();
    assert_eq!(edge.unwrap(), b'!');
    assert_eq!(peer.identity.to_uri(), "pushrelay://edge/syq-1?IDC=SYQ");
    assert_eq!(peer.validity.1, Credentials::load(&pki.edge).unwrap().certificate().not_after);
}

#[tokio::test]
async fn an_edge_of_another_authority_is_refused_with_the_reason() {
    let (pki, other) = (Pki::new(), Pki::new());
    let foreign = TlsFiles { ca_file: pki.edge.ca_file.clone(), ..other.edge.clone() };
    let (hub, edge) = handshake(&acceptor(&pki.hub), &connector(&foreign), "localhost").await;
    let hub = hub.unwrap_err().to_string();
    assert!(hub.contains("not signed by an authority") || hub.contains("not valid"), "{hub}");
    assert!(edge.unwrap_err().contains("the other end refused: this end's certificate is not signed"));
}

#[tokio::test]
async fn a_hub_of_another_authority_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let foreign = TlsFiles { ca_file: pki.hub.ca_file.clone(), ..other.hub.clone() };
    let (hub, edge) = handshake(&acceptor(&foreign), &connector(&pki.edge), "localhost").await;
    assert!(hub.is_err());
    let edge = edge.unwrap_err();
    assert!(edge.contains("certificate is refused"), "{edge}");
}

#[tokio::test]
async fn a_hub_by_another_name_is_refused() {
    let pki = Pki::new();
    let (_, edge) = handshake(&acceptor(&pki.hub), &connector(&pki.edge), "hub.example.org").await;
    let edge = edge.unwrap_err();
    assert!(edge.contains("it is for another host"), "{edge}");
}

#[tokio::test]
async fn an_expired_edge_is_refused_with_the_reason() {
    let pki = Pki::at(SystemTime::now() - Duration::from_secs(3 * 86_400));
    let (hub, edge) = handshake(&acceptor(&pki.hub), &connector(&pki.edge), "localhost").await;
    let (hub, edge) = (hub.unwrap_err().to_string(), edge.unwrap_err());
    assert!(hub.contains("it has expired"), "{hub}");
    assert!(edge.contains("this end's certificate has expired"), "{edge}");
}

#[tokio::test]
async fn a_hub_does_not_serve_as_an_edge() {
    let pki = Pki::new();
    let (hub, _) = handshake(&acceptor(&pki.hub), &connector(&pki.hub), "localhost").await;
    let hub = hub.unwrap_err().to_string();
    assert!(hub.contains("not meant for this end"), "{hub}");
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let pki = Pki::new();
    let (roots, _) = load_authorities(&pki.edge.ca_file).unwrap();
    let roots = Arc::new(roots);
    let bare = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let verifier = Credentials::load(&pki.edge).unwrap().server_verifier().unwrap();
    let (config, chain, verifier, token) = (Some(Arc::new(bare)), Vec::new(), Some(verifier), None);
    let connector = Connector::of(ClientSide { config, chain, roots, verifier, token });
    let (hub, edge) = handshake(&acceptor(&pki.hub), &connector, "localhost").await;
    let (hub, edge) = (hub.unwrap_err().to_string(), edge.unwrap_err());
    assert!(hub.contains("showed no certificate"), "{hub}");
    assert!(edge.contains("it requires a certificate"), "{edge}");
}

#[tokio::test]
async fn a_peer_without_tls_is_refused() {
    let pki = Pki::new();
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = acceptor(&pki.hub).accept(far).await.unwrap_err().error.to_string();
    assert!(error.contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn certificates_are_replaced_without_a_new_acceptor() {
    let (old, new) = (Pki::new(), Pki::new());
    let (acceptor, connector) = (acceptor(&old.hub), connector(&old.edge));
    acceptor.replace(&Acceptor::new(&Credentials::load(&new.hub).unwrap()).unwrap());
    assert!(handshake(&acceptor, &connector, "localhost").await.1.is_err());
    connector.replace(&Connector::new(&Credentials::load(&new.edge).unwrap(), None).unwrap());
    assert!(handshake(&acceptor, &connector, "localhost").await.1.is_ok());
}

#[tokio::test]
async fn a_renewal_is_noticed_and_the_same_files_are_none() {
    let (old, new) = (Pki::new(), Pki::new());
    let connector = connector(&old.edge);
    let mut renewals = connector.renewals();
    let fresh = |files: &TlsFiles| Connector::new(&Credentials::load(files).unwrap(), None).unwrap();
    connector.replace(&fresh(&old.edge));
    assert!(renewals.next().now_or_never().is_none(), "the same files");
    connector.replace(&fresh(&new.edge));
    assert!(renewals.next().now_or_never().is_some());
    let authority = TlsFiles { ca_file: old.edge.ca_file.clone(), ..new.edge.clone() };
    connector.replace(&fresh(&authority));
    assert!(renewals.next().now_or_never().is_some(), "another authority");
    connector.replace(&fresh(&new.edge));
    renewals.skip_to_now();
    assert!(renewals.next().now_or_never().is_none());
}

#[test]
fn each_bad_file_has_its_error() {
    let (pki, other) = (Pki::new(), Pki::new());
    let error = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = pki.edge.clone();
        change(&mut files);
        Credentials::load(&files).unwrap_err().to_string()
    };
    let missing = error(&|files| files.ca_file = "nowhere.pem".into());
    assert!(missing.contains(r#"cannot read "nowhere.pem""#), "{missing}");
    let empty = pki.temp.write("empty.pem", "");
    assert!(error(&|files| files.cert_file = empty.clone()).contains("has no certificate"));
    assert!(error(&|files| files.cert_file = files.key_file.clone()).contains("has no certificate"));
    assert!(
        error(&|files| files.key_file = files.cert_file.clone()).contains("it has a certificate and no private key")
    );
    assert!(error(&|files| files.key_file = other.edge.key_file.clone()).contains("does not match the certificate"));
    let torn = pki.temp.write("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    assert!(error(&|files| files.cert_file = torn.clone()).contains("is no PEM file"));
    let junk = pki.temp.write("junk.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    assert!(error(&|files| files.ca_file = junk.clone()).contains("cannot be used"));
    let junk = pki.temp.write("junk.key", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
    assert!(error(&|files| files.key_file = junk.clone()).contains("cannot be used"));
}

#[test]
fn expiry_is_reported_with_its_date_and_does_not_prevent_loading() {
    let pki = Pki::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    let credentials = Credentials::load(&pki.edge).unwrap();
    let errors = credentials.problems(SystemTime::now());
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("valid until 2020-09-14 12:26:40 UTC only"), "{}", errors[0]);
    let early = credentials.problems(SystemTime::UNIX_EPOCH);
    assert_eq!(early.len(), 2, "the edge's and the authority's");
    assert!(early[0].to_string().contains("is valid from"));
}
