//! TLS of the link: version 1.3 only, certificates at both ends. Files can be read again without closing a connection.
//!
//! Sessions are not resumed. A resumed session does not present its certificate again, and so could outlive the
//! certificate's expiry or the authority's removal. A link lasts for hours, so a saved handshake is worth nothing.
//!
//! The gateway's own TLS is in [`web`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError as Refusal, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::certificate::{Certificate, CertificateError, date};
use super::failures::FailureKind;
use super::identity::EdgeIdentity;

pub mod web;

/// An encrypted stream, of the client or the server.
pub type Stream<S> = tokio_rustls::TlsStream<S>;

const ALPN: &[u8] = b"http/1.1";

/// The files of one end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities; one of them must have signed the peer's certificate.
    pub ca_file: PathBuf,
    /// This end's certificate, followed by the intermediate certificates.
    pub cert_file: PathBuf,
    /// This end's private key.
    pub key_file: PathBuf,
}

/// The errors of certificate files and of TLS handshakes.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {path:?}: {error}")]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The file is not PEM.
    #[error("{path:?} is no PEM file: {reason}")]
    NotPem {
        /// The path of the file.
        path: PathBuf,
        /// The message of the library.
        reason: String,
    },
    /// The file is PEM but contains no certificate.
    #[error("{0:?} has no certificate: it needs a -----BEGIN CERTIFICATE----- block")]
    NoCertificate(PathBuf),
    /// The file is PEM but contains no private key.
    #[error("{0:?} has no private key: it needs a -----BEGIN PRIVATE KEY----- block")]
    NoKey(PathBuf),
    /// A certificate in the file cannot be used.
    #[error("the certificate in {path:?} cannot be used: {reason}")]
    BadCertificate {
        /// The path of the file.
        path: PathBuf,
        /// The message of the library.
        reason: String,
    },
    /// The private key in the file cannot be used.
    #[error("the key in {path:?} cannot be used: {reason}")]
    BadKey {
        /// The path of the file.
        path: PathBuf,
        /// The message of the library.
        reason: String,
    },
    /// The private key does not belong to the certificate.
    #[error("the key in {key:?} does not match the certificate in {cert:?}")]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The private key's file.
        key: PathBuf,
    },
    /// The settings contradict each other.
    #[error("TLS cannot be spoken as it is set up: {0}")]
    Settings(String),
    /// The certificate has expired.
    #[error("the certificate in {path:?} is valid until {} only: replace it", date(*.not_after))]
    Expired {
        /// The path of the file.
        path: PathBuf,
        /// The end of its validity.
        not_after: SystemTime,
    },
    /// The certificate is not yet valid.
    #[error("the certificate in {path:?} is valid from {} only: check the clock", date(*.not_before))]
    NotYetValid {
        /// The path of the file.
        path: PathBuf,
        /// The start of its validity.
        not_before: SystemTime,
    },
    /// The host is neither a DNS name nor an address.
    #[error("{0:?} is no name or address that a certificate can be for")]
    BadHost(String),
    /// The handshake failed, or one end refused the other.
    #[error("TLS handshake failed: {}", explain(.0))]
    Handshake(io::Error),
    /// The edge's certificate contains no valid identity.
    #[error("the edge's certificate is refused: {0}")]
    Identity(CertificateError),
}

impl TlsError {
    /// The file that the error is about. If a key and a certificate do not match, it is the key's.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NoCertificate(path) | Self::NoKey(path) => Some(path),
            Self::Unreadable { path, .. }
            | Self::NotPem { path, .. }
            | Self::BadCertificate { path, .. }
            | Self::BadKey { path, .. }
            | Self::Expired { path, .. }
            | Self::NotYetValid { path, .. } => Some(path),
            Self::Mismatch { key, .. } => Some(key),
            Self::Settings(_) | Self::BadHost(_) | Self::Handshake(_) | Self::Identity(_) => None,
        }
    }

    /// The kind of a failed handshake with an incoming connection.
    pub fn failure(&self) -> FailureKind {
        let Self::Handshake(error) = self else { return FailureKind::Refused };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(
                rustls::Error::InvalidMessage(_)
                | rustls::Error::PeerIncompatible(_)
                | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
            ) => FailureKind::Protocol,
            Some(rustls::Error::NoCertificatesPresented) => FailureKind::NoCertificate,
            Some(_) => FailureKind::Refused,
            None => FailureKind::of_io(error),
        }
    }
}

/// The files of one end of a link, read and checked against each other.
pub struct Credentials {
    files: TlsFiles,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate: Certificate,
    authorities: Vec<Certificate>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files. [`Credentials::check`] checks the validity of the certificates.
    ///
    /// # Errors
    /// If a file cannot be read or used, or the key does not belong to the certificate.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let (roots, authorities) = load_authorities(&files.ca_file)?;
        let chain = read_certificates(&files.cert_file)?;
        let key = read_key(&files.key_file)?;
        let certificate = parse(&files.cert_file, &chain[0])?;
        let credentials = Self { files: files.clone(), roots: Arc::new(roots), chain, key, certificate, authorities };
        // Building the client's configuration is the cheaper way to check that key and certificate match.
        credentials.client_config()?;
        Ok(credentials)
    }

    /// All errors of the files at `now`, not only the first one, so that an operator can correct them together.
    pub fn examine(files: &TlsFiles, now: SystemTime) -> Vec<TlsError> {
        let mut errors = Vec::new();
        let authorities = load_authorities(&files.ca_file).map(drop);
        let chain = read_certificates(&files.cert_file).and_then(|chain| parse(&files.cert_file, &chain[0])).map(drop);
        let key = read_key(&files.key_file).map(drop);
        errors.extend([authorities, chain, key].into_iter().filter_map(Result::err));
        if errors.is_empty() {
            match Self::load(files) {
                Ok(credentials) => errors.extend(credentials.check(now)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// This end's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The end of validity of each certificate (this end's and the authorities') with its file.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, SystemTime)> {
        let own = (&*self.files.cert_file, self.certificate.not_after);
        let authorities = self.authorities.iter().map(|ca| (&*self.files.ca_file, ca.not_after));
        std::iter::once(own).chain(authorities)
    }

    /// The certificates that are not valid at `now`. Such an error does not keep a node from starting: an edge with an
    /// expired certificate must still accept pushes.
    pub fn check(&self, now: SystemTime) -> Vec<TlsError> {
        let own = (&self.files.cert_file, &self.certificate);
        let all = std::iter::once(own).chain(self.authorities.iter().map(|ca| (&self.files.ca_file, ca)));
        all.filter_map(|(path, certificate)| certificate.problem(path, now)).collect()
    }

    fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider()).build().map_err(|error| {
                TlsError::BadCertificate { path: self.files.ca_file.clone(), reason: error.to_string() }
            })?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn unusable(&self, error: rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { cert: self.files.cert_file.clone(), key: self.files.key_file.clone() }
            }
            rustls::Error::InvalidCertificate(error) => {
                TlsError::BadCertificate { path: self.files.cert_file.clone(), reason: error.to_string() }
            }
            other => TlsError::BadKey { path: self.files.key_file.clone(), reason: other.to_string() },
        }
    }
}

/// The hub's end of TLS: accepts edges with a certificate from its authority.
#[derive(Debug)]
pub struct Acceptor(RwLock<Arc<ServerConfig>>);

impl Acceptor {
    /// An acceptor with these credentials.
    ///
    /// # Errors
    /// If the credentials cannot be used for a server.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(credentials.server_config()?)))
    }

    /// Replaces the credentials by those of `fresh`, for later handshakes.
    pub fn replace(&self, fresh: &Self) {
        store(&self.0, load(&fresh.0));
    }

    /// Performs a handshake and returns the edge's identity.
    ///
    /// # Errors
    /// If the handshake fails, or the edge's certificate has no valid identity.
    pub async fn accept<S>(&self, stream: S) -> Result<(Stream<S>, TlsPeer), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = tokio_rustls::TlsAcceptor::from(load(&self.0));
        let stream = acceptor.accept(stream).await.map_err(TlsError::Handshake)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = certificates.first().ok_or(TlsError::Identity(CertificateError::NoIdentity))?;
        let certificate = Certificate::from_der(leaf).map_err(TlsError::Identity)?;
        let identity = certificate.edge().map_err(TlsError::Identity)?;
        Ok((stream.into(), TlsPeer { identity, not_after: certificate.not_after }))
    }
}

/// The edge at the other end of an accepted connection, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// The edge's identity.
    pub identity: EdgeIdentity,
    /// The end of validity of its certificate.
    pub not_after: SystemTime,
}

/// An edge's end of TLS: connects to a hub with a certificate from its authority for the hub's host.
#[derive(Debug)]
pub struct Connector(RwLock<Arc<ClientConfig>>);

impl Connector {
    /// A connector with these credentials.
    ///
    /// # Errors
    /// If the credentials cannot be used for a client.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(credentials.client_config()?)))
    }

    /// Replaces the credentials by those of `fresh`, for later handshakes.
    pub fn replace(&self, fresh: &Self) {
        store(&self.0, load(&fresh.0));
    }

    /// Performs a handshake. If the hub refuses this end's certificate, the error appears only later, at the first
    /// read.
    ///
    /// # Errors
    /// If `host` is not valid, or the handshake fails.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<Stream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let connector = tokio_rustls::TlsConnector::from(load(&self.0));
        Ok(connector.connect(name, stream).await.map_err(TlsError::Handshake)?.into())
    }
}

/// Explains an error of an encrypted stream, with its likely cause. An error that is not of TLS is returned as it is.
pub fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(refusal)) => explain_refusal(refusal),
        Some(rustls::Error::AlertReceived(alert)) => explain_alert(*alert),
        Some(rustls::Error::NoCertificatesPresented) => {
            "the other end showed no certificate, and one is required".into()
        }
        Some(rustls::Error::PeerIncompatible(_)) => "the other end does not speak TLS 1.3".into(),
        Some(rustls::Error::InvalidMessage(_)) => "the other end does not speak TLS".into(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the other end closed the connection".into(),
        None => error.to_string(),
    }
}

fn explain_refusal(refusal: &Refusal) -> String {
    let why = match refusal {
        // An authority with the same name but another key gives `BadSignature`.
        Refusal::UnknownIssuer | Refusal::BadSignature => "it is not signed by an authority of this end's CA file",
        Refusal::Expired | Refusal::ExpiredContext { .. } => "it has expired (or this host's clock is wrong)",
        Refusal::NotValidYet | Refusal::NotValidYetContext { .. } => {
            "it is not yet valid (or this host's clock is wrong)"
        }
        Refusal::NotValidForName | Refusal::NotValidForNameContext { .. } => "it is for another host",
        Refusal::InvalidPurpose | Refusal::InvalidPurposeContext { .. } => {
            "it is not meant for this end of a connection"
        }
        _ => "it is not valid",
    };
    format!("the other end's certificate is refused: {why} ({refusal})")
}

fn explain_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "this end's certificate is not signed by an authority that it trusts"
        }
        AlertDescription::CertificateExpired => "this end's certificate has expired",
        AlertDescription::CertificateRequired => "it requires a certificate",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown => "it does not accept this end's certificate",
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
        _ => "it ended the handshake",
    };
    format!("the other end refused: {why} ({alert:?})")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn load<T>(config: &RwLock<Arc<T>>) -> Arc<T> {
    // A poisoned lock still contains a complete `Arc`.
    config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
}

fn store<T>(config: &RwLock<Arc<T>>, new: Arc<T>) {
    *config.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = new;
}

impl Certificate {
    /// The error if the certificate is not valid at `now`; `path` is the file it came from.
    fn problem(&self, path: &Path, now: SystemTime) -> Option<TlsError> {
        if self.not_after < now {
            Some(TlsError::Expired { path: path.into(), not_after: self.not_after })
        } else if self.not_before > now {
            Some(TlsError::NotYetValid { path: path.into(), not_before: self.not_before })
        } else {
            None
        }
    }
}

fn load_authorities(path: &Path) -> Result<(RootCertStore, Vec<Certificate>), TlsError> {
    authorities(path, &read(path)?)
}

/// Parses the authorities from PEM that was read from `path`.
fn authorities(path: &Path, pem: &[u8]) -> Result<(RootCertStore, Vec<Certificate>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut authorities = Vec::new();
    for der in certificates(path, pem)? {
        authorities.push(parse(path, &der)?);
        roots.add(der).map_err(|error| TlsError::BadCertificate { path: path.into(), reason: error.to_string() })?;
    }
    Ok((roots, authorities))
}

fn parse(path: &Path, der: &[u8]) -> Result<Certificate, TlsError> {
    Certificate::from_der(der)
        .map_err(|error| TlsError::BadCertificate { path: path.into(), reason: error.to_string() })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path, &read(path)?)
}

/// Parses certificates, at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| not_pem(path, &error))?;
    if certificates.is_empty() { Err(TlsError::NoCertificate(path.into())) } else { Ok(certificates) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    key(path, &read(path)?)
}

fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let key = PrivateKeyDer::pem_slice_iter(pem).next();
    key.ok_or_else(|| TlsError::NoKey(path.into()))?.map_err(|error| not_pem(path, &error))
}

fn not_pem(path: &Path, error: &dyn fmt::Display) -> TlsError {
    TlsError::NotPem { path: path.into(), reason: error.to_string() }
}

/// Bytes of a certificate file, at most. A larger file is something else.
const FILE_BYTES_MAX: u64 = 4 << 20;

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
            Err(TlsError::NotPem { path: path.into(), reason: format!("it is larger than {FILE_BYTES_MAX} bytes") })
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(TlsError::Unreadable { path: path.into(), error }),
    }
}

#[cfg(test)]
mod tests;
