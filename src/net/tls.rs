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
use std::time::{Duration, SystemTime};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::certificate::{Certificate, CertificateError};
use super::identity::EdgeIdentity;
use files::{
    ListedAuthority, load_authorities, parse, read_certificates, read_key, unusable_certificate, unusable_key,
};
use peer::{RecordingVerifier, unix_time};
use problem::{CertificateUse, Problem};
use provider::provider;
use revocations::{RevocationLists, client_verifier, load_lists};

mod anonymous;
mod connector;
mod error;
mod examine;
mod explain;
mod files;
mod joining;
mod peer;
pub mod problem;
mod provider;
mod receiver;
mod revocations;
pub mod web;

pub use anonymous::AnonymousConnector;
pub use connector::{Connector, MaybeEncrypted, Renewals};
pub use error::{CertificateRefusal, TlsError};
pub use explain::{explain, is_certificate_required, is_of_tls};
pub use files::{ShownCertificate, show};
pub use joining::Authorities;
pub use peer::PeerChain;
pub use receiver::{ReceiverConnector, ReceiverTlsFiles};

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
    /// The revoked certificates of the peers; `None` if there is no such list.
    pub crl_file: Option<PathBuf>,
    /// Whether clients without a certificate get past the handshake: to ask for one, or to show a token.
    pub anonymous: bool,
    /// The end that this is.
    pub used_by: CertificateUse,
}

/// The files of one end of a link, read and checked against each other.
pub struct Credentials {
    files: TlsFiles,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate: Certificate,
    intermediates: Vec<Certificate>,
    authorities: Vec<ListedAuthority>,
    lists: RevocationLists,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files. [`Credentials::problems`] says whether the peers accept the certificates.
    ///
    /// # Errors
    /// If a file cannot be read or used, or the key does not belong to the certificate.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let (roots, authorities) = load_authorities(&files.ca_file)?;
        let chain = read_certificates(&files.cert_file)?;
        let key = read_key(&files.key_file)?;
        let (roots, files) = (Arc::new(roots), files.clone());
        let certificate = parse(&files.cert_file, &chain[0])?;
        let intermediates = chain[1..].iter().map(|der| parse(&files.cert_file, der)).collect::<Result<_, _>>()?;
        let lists = load_lists(files.crl_file.as_deref(), authorities.iter().map(|authority| &authority.der))?;
        let credentials = Self { files, roots, chain, key, certificate, intermediates, authorities, lists };
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
                Ok(credentials) => errors.extend(credentials.problems(now)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Everything for which peers would or might refuse the certificates at `now`. Such a problem does not keep a node
    /// from starting: an edge that has one must still accept pushes.
    pub fn problems(&self, now: SystemTime) -> Vec<TlsError> {
        let mut problems = self.own_problems(now);
        let used_by = self.files.used_by;
        let ca_file = &self.files.ca_file;
        let authorities: Vec<_> = self.authorities.iter().map(|authority| authority.der.clone()).collect();
        if problems.is_empty() {
            let path = examine::path_problem(&self.chain, &authorities, &self.roots, (used_by, ca_file), now);
            problems.extend(path.map(|problem| self.unfit(&self.files.cert_file, problem)));
        }
        problems
            .extend(examine::authority_problems(&authorities).into_iter().map(|problem| self.unfit(ca_file, problem)));
        let dates = self.authorities.iter().filter_map(|authority| authority.certificate.problem(ca_file, now));
        problems.extend(dates);
        problems
    }

    /// The problems of this end's own certificate at `now`, whatever the authorities are.
    pub fn own_problems(&self, now: SystemTime) -> Vec<TlsError> {
        let file = &self.files.cert_file;
        let dates = std::iter::once(&self.certificate).chain(&self.intermediates);
        let mut problems: Vec<_> = dates.filter_map(|certificate| certificate.problem(file, now)).collect();
        let of_chain = examine::chain_problems(&self.chain, self.files.used_by);
        problems.extend(of_chain.into_iter().map(|problem| self.unfit(file, problem)));
        if self.files.used_by == CertificateUse::Edge
            && let Err(error) = self.certificate.edge()
        {
            problems.push(self.unfit(file, Problem::NoIdentity(error)));
        }
        problems
    }

    /// The doubt about a hub's certificate that is not for `name`, which the option `key` has.
    pub fn check_name(&self, name: &str, key: &'static str) -> Option<TlsError> {
        let problem = examine::name_problem(&self.chain[0], name, key)?;
        Some(self.unfit(&self.files.cert_file, problem))
    }

    fn unfit(&self, path: &Path, problem: Problem) -> TlsError {
        TlsError::Unfit { path: path.into(), problem }
    }

    /// This end's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Each certificate (this end's and the authorities') with its file.
    pub fn certificates(&self) -> impl Iterator<Item = (&Path, &Certificate)> {
        let own = (&*self.files.cert_file, &self.certificate);
        std::iter::once(own).chain(self.authorities.iter().map(|ca| (&*self.files.ca_file, &ca.certificate)))
    }

    /// The certificates that should have been renewed at `now`: this end's and the authorities'.
    pub fn expiring(&self, now: SystemTime) -> Vec<TlsError> {
        let late = self.certificates().filter(|(_, certificate)| certificate.warning_time() < now);
        late.map(|(path, certificate)| TlsError::Expired { path: path.into(), not_after: certificate.not_after })
            .collect()
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

    fn server_side(&self) -> Result<ServerSide, TlsError> {
        let verifier = client_verifier(&self.roots, &self.lists, (&self.files.ca_file, self.files.anonymous))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(error))?;
        let side = ServerSide {
            verifier,
            resolver: config.cert_resolver,
            chain: self.chain.clone(),
            roots: self.roots.clone(),
            authorities: self.authorities.iter().map(|authority| authority.der.clone()).collect(),
            files: self.files.clone(),
        };
        // A configuration that works once works for each connection.
        side.config(side.verifier.clone()).map_err(|error| self.unusable(error))?;
        Ok(side)
    }

    fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let builder = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider());
        builder
            .build()
            .map_err(|error| TlsError::BadCertificate { path: self.files.ca_file.clone(), reason: error.to_string() })
    }

    fn unusable(&self, error: rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { cert: self.files.cert_file.clone(), key: self.files.key_file.clone() }
            }
            rustls::Error::InvalidCertificate(error) => {
                let first = examine::chain_problems(&self.chain, self.files.used_by).into_iter().next();
                unusable_certificate(&self.files.cert_file, &error, first)
            }
            other => {
                let chain = examine::chain_problems(&self.chain, self.files.used_by).into_iter();
                let weak = chain.into_iter().find(|problem| matches!(problem, Problem::WeakKey { .. }));
                unusable_key(&self.files.key_file, &other, weak)
            }
        }
    }
}

/// The hub's end of TLS: accepts edges with a certificate from its authority.
#[derive(Debug)]
pub struct Acceptor(RwLock<Arc<ServerSide>>);

/// The parts of the configuration of each connection.
#[derive(Clone, Debug)]
struct ServerSide {
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
    /// The hub's own certificate, and the intermediate ones.
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    authorities: Vec<CertificateDer<'static>>,
    files: TlsFiles,
}

impl ServerSide {
    fn config(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// A stream after its handshake, with the edge if it showed a certificate, or the reason why that names none.
type AcceptedStream<S> = (Stream<S>, Result<Option<TlsPeer>, TlsError>);

/// An edge whose handshake failed.
#[derive(Debug)]
pub struct RefusedPeer<S> {
    /// The reason.
    pub error: TlsError,
    /// The name in its certificate, if that is why it was refused. Nobody vouches for this name.
    pub claimed_name: Option<String>,
    /// The stream, for [`linger`].
    pub stream: S,
}

impl Acceptor {
    /// An acceptor with these credentials.
    ///
    /// # Errors
    /// If the credentials cannot be used for a server.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(credentials.server_side()?))))
    }

    /// Replaces the credentials by those of `fresh`, for later handshakes.
    pub fn replace(&self, fresh: &Self) {
        store(&self.0, load(&fresh.0));
    }

    /// Takes the list of revoked certificates as it is now in the file, for later handshakes and [`Acceptor::verify`].
    ///
    /// # Errors
    /// If the file cannot be read or used; the old list stays.
    pub fn read_revocations(&self, crl_file: &Path) -> Result<(), TlsError> {
        let side = load(&self.0);
        let lists = load_lists(Some(crl_file), side.authorities.iter())?;
        let verifier = client_verifier(&side.roots, &lists, (&side.files.ca_file, side.files.anonymous))?;
        store(&self.0, Arc::new(ServerSide { verifier, ..ServerSide::clone(&side) }));
        Ok(())
    }

    /// Whether both have the same certificate of the hub.
    pub fn has_certificate_of(&self, other: &Self) -> bool {
        load(&self.0).chain == load(&other.0).chain
    }

    /// Verifies the certificate of an edge that was accepted before, by the authorities of now.
    ///
    /// # Errors
    /// If it does not verify.
    pub fn verify(&self, peer: &PeerChain, now: SystemTime) -> Result<(), TlsError> {
        let unverified = |error| TlsError::PeerUnverified(io::Error::other(error));
        let (leaf, intermediates) = peer.split().ok_or_else(|| unverified(rustls::Error::NoCertificatesPresented))?;
        let verified = load(&self.0).verifier.verify_client_cert(leaf, intermediates, unix_time(now));
        verified.map(drop).map_err(unverified)
    }

    /// Performs a handshake and returns the edge's identity (`None` if it showed no certificate, and needs none to ask for
    /// one), or the reason why its certificate has none: the connection can then carry that reason.
    ///
    /// # Errors
    /// If the handshake fails. The edge was sent an alert then; the stream is returned for [`linger`].
    pub async fn accept<S>(&self, stream: S) -> Result<AcceptedStream<S>, RefusedPeer<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let side = load(&self.0);
        let verifier = Arc::new(RecordingVerifier::new(side.verifier.clone()));
        let config = match side.config(verifier.clone()) {
            Ok(config) => config,
            Err(error) => {
                let error = TlsError::Handshake(io::Error::other(error));
                return Err(RefusedPeer { error, claimed_name: None, stream });
            }
        };
        let accepted = tokio_rustls::TlsAcceptor::from(config).accept(stream).into_fallible().await;
        let stream = accepted.map_err(|(error, stream)| RefusedPeer {
            error: TlsError::Handshake(error),
            claimed_name: verifier.claimed_name(),
            stream,
        })?;
        if stream.get_ref().1.peer_certificates().is_none() {
            return Ok((stream.into(), Ok(None)));
        }
        let chain = PeerChain::of(stream.get_ref().1).ok_or(CertificateError::NoIdentity);
        let peer = chain.and_then(|chain| {
            let (leaf, _) = chain.split().ok_or(CertificateError::NoIdentity)?;
            let certificate = Certificate::from_der(leaf)?;
            let validity = (certificate.not_before, certificate.not_after);
            Ok(TlsPeer { identity: certificate.edge()?, validity, chain })
        });
        Ok((stream.into(), peer.map(Some).map_err(TlsError::Identity)))
    }
}

/// The alert `internal_error`: the bytes for a client whose connection is closed before its handshake. [`explain`] has
/// words for it.
pub const REFUSAL: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The time for which a refused connection is still read.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a refused client that are read, at most.
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// Ends a refused connection so that the client can read the reason: a socket that is closed with unread bytes resets the
/// connection, and the reason may be lost.
pub async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let ended = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The client may be gone.
    let _ = tokio::time::timeout(LINGER, ended).await;
}

/// The edge at the other end of an accepted connection, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// The edge's identity.
    pub identity: EdgeIdentity,
    /// The begin and the end of validity of its certificate.
    pub validity: (SystemTime, SystemTime),
    /// The certificate, to verify it again.
    pub chain: PeerChain,
}

/// The certificate of the hub at the other end of a stream.
pub fn hub_chain<S>(stream: &Stream<S>) -> Option<PeerChain> {
    PeerChain::of(stream.get_ref().1)
}

/// The certificate of the other end, with the names that it is for; `None` if it cannot be read.
pub fn peer_certificate<S>(stream: &Stream<S>) -> Option<(Certificate, Vec<String>)> {
    let der = stream.get_ref().1.peer_certificates()?.first()?;
    Some((Certificate::from_der(der).ok()?, Certificate::subjects(der).ok()?))
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

#[cfg(test)]
mod tests;
