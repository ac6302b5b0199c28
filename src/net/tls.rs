//! TLS of the link: 1.3 alone, both ends with certificates, files that can be read again without dropping a connection.
//!
//! Sessions are not resumed: a resumed one would not show its certificate again, and so would outlive the certificate's
//! expiry or the authority's removal. A link lives for hours; the handshake saved is worth nothing.
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
use super::identity::EdgeIdentity;

pub mod web;

/// An encrypted stream, of either end.
pub type Stream<S> = tokio_rustls::TlsStream<S>;

const ALPN: &[u8] = b"http/1.1";

/// The files of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities of which one must have signed the other end's certificate.
    pub ca_file: PathBuf,
    /// This end's certificate, then those between it and its authority.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// What is wrong with a file or a handshake.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {path:?}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is no PEM.
    #[error("{path:?} is no PEM file: {reason}")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is PEM, without a certificate.
    #[error("{0:?} has no certificate: it needs a -----BEGIN CERTIFICATE----- block")]
    NoCertificate(PathBuf),
    /// The file is PEM, without a private key.
    #[error("{0:?} has no private key: it needs a -----BEGIN PRIVATE KEY----- block")]
    NoKey(PathBuf),
    /// A certificate in the file cannot be used.
    #[error("the certificate in {path:?} cannot be used: {reason}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The key in the file cannot be used.
    #[error("the key in {path:?} cannot be used: {reason}")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The key is not that of the certificate.
    #[error("the key in {key:?} does not match the certificate in {cert:?}")]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// What was asked for cannot be had together.
    #[error("TLS cannot be spoken as it is set up: {0}")]
    Settings(String),
    /// The certificate is valid no more.
    #[error("the certificate in {path:?} is valid until {} only: replace it", date(*.not_after))]
    Expired {
        /// The file.
        path: PathBuf,
        /// Until when it was.
        not_after: SystemTime,
    },
    /// The certificate is not yet valid.
    #[error("the certificate in {path:?} is valid from {} only: check the clock", date(*.not_before))]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// From when it will be.
        not_before: SystemTime,
    },
    /// The host is neither a DNS name nor an address.
    #[error("{0:?} is no name or address that a certificate can be for")]
    BadHost(String),
    /// The other end refused, or was refused.
    #[error("TLS handshake failed: {}", explain(.0))]
    Handshake(io::Error),
    /// The edge's certificate does not say who it is.
    #[error("the edge's certificate is refused: {0}")]
    Identity(CertificateError),
}

impl TlsError {
    /// The file that it is about; of two that do not match, the key's.
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
}

/// One end's files, read and found to fit each other.
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
    /// Reads the files. Whether the certificates are valid by now is another question: see [`Credentials::check`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let (roots, authorities) = load_authorities(&files.ca_file)?;
        let chain = read_certificates(&files.cert_file)?;
        let key = read_key(&files.key_file)?;
        let certificate = parse(&files.cert_file, &chain[0])?;
        let credentials = Self { files: files.clone(), roots: Arc::new(roots), chain, key, certificate, authorities };
        // The client's configuration is the cheaper one to see whether key and certificate fit.
        credentials.client_config()?;
        Ok(credentials)
    }

    /// Everything that is wrong with the files at `now`, not the first thing alone: for people who correct a
    /// configuration.
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

    /// When each certificate expires, with the file it is from: this end's and those of the authorities.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, SystemTime)> {
        let own = (&*self.files.cert_file, self.certificate.not_after);
        let authorities = self.authorities.iter().map(|ca| (&*self.files.ca_file, ca.not_after));
        std::iter::once(own).chain(authorities)
    }

    /// What of the certificates is not valid at `now`. An error here does not keep a node from starting: an edge whose
    /// certificate has expired must still take pushes.
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

/// The hub's end: takes edges that show a certificate of its authority.
#[derive(Debug)]
pub struct Acceptor(RwLock<Arc<ServerConfig>>);

impl Acceptor {
    /// An acceptor with these credentials.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(credentials.server_config()?)))
    }

    /// Takes the credentials of a fresh one for the handshakes to come.
    pub fn replace(&self, fresh: &Self) {
        store(&self.0, load(&fresh.0));
    }

    /// Shakes hands, and says who is there.
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

/// Who is at the other end of an accepted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// The edge.
    pub identity: EdgeIdentity,
    /// Until when its certificate is valid.
    pub not_after: SystemTime,
}

/// An edge's end: connects to a hub whose certificate is of its authority and for the hub's host.
#[derive(Debug)]
pub struct Connector(RwLock<Arc<ClientConfig>>);

impl Connector {
    /// A connector with these credentials.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(credentials.client_config()?)))
    }

    /// Takes the credentials of a fresh one for the handshakes to come.
    pub fn replace(&self, fresh: &Self) {
        store(&self.0, load(&fresh.0));
    }

    /// Shakes hands. A hub that refuses this end's certificate says so only afterwards, in the first bytes read.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<Stream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let connector = tokio_rustls::TlsConnector::from(load(&self.0));
        Ok(connector.connect(name, stream).await.map_err(TlsError::Handshake)?.into())
    }
}

/// What an error of an encrypted stream means, and what to do about it; the error itself if it is not TLS's.
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
        // Another authority of the same name is none.
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
    // A poisoned lock holds a whole `Arc` nevertheless.
    config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
}

fn store<T>(config: &RwLock<Arc<T>>, new: Arc<T>) {
    *config.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = new;
}

impl Certificate {
    /// Why it is not valid at `now`, if it is not; `path` is where it was read.
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

/// The authorities in PEM that was read from `path`.
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

/// At least one certificate.
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

/// A file of certificates is small: more than this is some other file.
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
