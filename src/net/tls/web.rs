//! TLS of the gateway, with the options of Prometheus's exporter-toolkit: TLS 1.2 and 1.3, optional client
//! certificates, selectable cipher suites and curves, HTTP/2 by ALPN. Files can be read again without closing a
//! connection.
//!
//! Sessions are resumed only if clients present no certificates: a resumed session does not present its certificate
//! again.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError as Refusal, DigitallySignedStruct, DistinguishedName, Error, ProtocolVersion, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};

use super::files::{authorities, certificates, key, parse, read, unusable_certificate, unusable_key};
use super::problem::{CertificateUse, Problem};
use super::provider::provider;
use super::{Stream, TlsError, examine, load, store};
use crate::net::certificate::Certificate;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// PEM data, or the file that contains it.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file. It is read again at every reload.
    File(PathBuf),
    /// Inline data from the configuration.
    Inline {
        /// The option that contains it, such as `web.tls.cert`, for messages.
        key: &'static str,
        /// The PEM data.
        text: String,
    },
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            // The text may be a private key.
            Self::Inline { key, .. } => write!(f, "<{key}>"),
        }
    }
}

impl Pem {
    /// The path for messages: the file, or the name of the option.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Inline { key, .. } => Path::new(key),
        }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::File(path) => read(path),
            Self::Inline { text, .. } => Ok(text.clone().into_bytes()),
        }
    }
}

/// The policy for client certificates, by the names of Go's `tls.ClientAuthType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    #[default]
    NoClientCert,
    /// A certificate is requested, not required, and its signature is not verified.
    RequestClientCert,
    /// A certificate is required; its signature is not verified.
    RequireAnyClientCert,
    /// A certificate is not required; a given one must be signed by an authority.
    VerifyClientCertIfGiven,
    /// A certificate signed by an authority is required.
    RequireAndVerifyClientCert,
}

impl ClientAuth {
    /// Whether a given certificate must be signed by an authority.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyClientCertIfGiven | Self::RequireAndVerifyClientCert)
    }

    fn requires(self) -> bool {
        matches!(self, Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert)
    }
}

impl FromStr for ClientAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "NoClientCert" | "" => Self::NoClientCert,
            "RequestClientCert" => Self::RequestClientCert,
            // `RequireClientCert` is the toolkit's older name.
            "RequireAnyClientCert" | "RequireClientCert" => Self::RequireAnyClientCert,
            "VerifyClientCertIfGiven" => Self::VerifyClientCertIfGiven,
            "RequireAndVerifyClientCert" => Self::RequireAndVerifyClientCert,
            _ => {
                return Err(format!(
                    "{text:?} is none of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven and RequireAndVerifyClientCert"
                ));
            }
        })
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A TLS version that the gateway supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            "TLS10" | "TLS11" => Err(format!("{text} is not secure (RFC 8996) and not spoken here: TLS12 or TLS13")),
            _ => Err(format!("{text:?} is neither TLS12 nor TLS13")),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS12",
            Self::Tls13 => "TLS13",
        })
    }
}

/// A supported cipher suite, by its IANA name, which Go uses too.
#[derive(Clone, Copy)]
pub struct Suite(SupportedCipherSuite);

impl PartialEq for Suite {
    fn eq(&self, other: &Self) -> bool {
        self.0.suite() == other.0.suite()
    }
}

impl Eq for Suite {}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = provider().cipher_suites.clone();
        let found = all.iter().find(|suite| Suite(**suite).to_string() == text);
        found.map(|suite| Self(*suite)).ok_or_else(|| {
            let names: Vec<String> = all.iter().map(|suite| Self(*suite).to_string()).collect();
            format!("the cipher suite {text:?} is not to be had here: there are {}", names.join(", "))
        })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{:?}", self.0.suite()).replace("TLS13_", "TLS_"))
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An elliptic curve for the key exchange, by Go's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST's curve of 256 bits.
    CurveP256,
    /// NIST's curve of 384 bits.
    CurveP384,
    /// Curve25519.
    X25519,
}

impl Curve {
    fn group(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::CurveP256 => kx_group::SECP256R1,
            Self::CurveP384 => kx_group::SECP384R1,
            Self::X25519 => kx_group::X25519,
        }
    }
}

impl FromStr for Curve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "CurveP256" => Ok(Self::CurveP256),
            "CurveP384" => Ok(Self::CurveP384),
            "X25519" => Ok(Self::X25519),
            _ => Err(format!("the curve {text:?} is not to be had here: there are CurveP256, CurveP384 and X25519")),
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The TLS settings of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebTls {
    /// The gateway's certificate, followed by the intermediate certificates.
    pub cert: Pem,
    /// The gateway's private key.
    pub key: Pem,
    /// The authorities that sign client certificates.
    pub client_ca: Option<Pem>,
    /// The policy for client certificates.
    pub client_auth: ClientAuth,
    /// If not empty, a client's certificate must be for one of these: DNS names, IP addresses, e-mail addresses or
    /// URIs.
    pub client_allowed_sans: Vec<String>,
    /// The lowest accepted version.
    pub min_version: TlsVersion,
    /// The highest accepted version.
    pub max_version: TlsVersion,
    /// The cipher suites of TLS 1.2 in order of preference; empty for all. TLS 1.3 always has all of its own.
    pub cipher_suites: Vec<Suite>,
    /// Whether the server's order of cipher suites wins over the client's.
    pub prefer_server_cipher_suites: bool,
    /// The curves in order of preference; empty for the library's default.
    pub curve_preferences: Vec<Curve>,
}

impl WebTls {
    /// The files that a load reads, to be watched for changes.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten().filter_map(|pem| match pem {
            Pem::File(path) => Some(path.as_path()),
            Pem::Inline { .. } => None,
        })
    }

    /// Whether a client must present a certificate. If it must be for one of the allowed subjects, there must be one.
    pub fn requires_certificate(&self) -> bool {
        self.client_auth.requires() || !self.client_allowed_sans.is_empty()
    }

    /// Whether a certificate, key or authority is in the configuration and not in a file of its own.
    pub fn has_inline_pem(&self) -> bool {
        let all = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter().flatten().any(|pem| matches!(pem, Pem::Inline { .. }))
    }

    fn load(&self, http2: bool) -> Result<Loaded, TlsError> {
        let chain = certificates(self.cert.path(), &self.cert.read()?)?;
        let certificate = parse(self.cert.path(), &chain[0])?;
        let key = key(self.key.path(), &self.key.read()?)?;
        let provider = Arc::new(self.provider());
        let versions: Vec<_> = [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)]
            .into_iter()
            .filter(|(version, _)| (self.min_version..=self.max_version).contains(version))
            .map(|(_, version)| version)
            .collect();
        let problems = examine::chain_problems(&chain, CertificateUse::Gateway);
        let unusable = |error: Error| match error {
            Error::InconsistentKeys(_) => {
                TlsError::Mismatch { cert: self.cert.path().into(), key: self.key.path().into() }
            }
            Error::InvalidCertificate(error) => {
                unusable_certificate(self.cert.path(), &error, problems.first().cloned())
            }
            other => {
                let weak = problems.iter().find(|problem| matches!(problem, Problem::WeakKey { .. }));
                unusable_key(self.key.path(), &other, weak.cloned())
            }
        };
        let verifier = self.verifier(&provider)?;
        let own = chain[0].clone();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = if http2 { vec![HTTP2.to_vec(), HTTP1.to_vec()] } else { vec![HTTP1.to_vec()] };
        config.ignore_client_order = self.prefer_server_cipher_suites;
        if self.client_auth != ClientAuth::NoClientCert {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let verifies = self.client_auth.verifies();
        Ok(Loaded { config: Arc::new(config), verifies, certificate, own, problems, path: self.cert.path().into() })
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = CryptoProvider::clone(&provider());
        if !self.cipher_suites.is_empty() {
            provider.cipher_suites.retain(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
            let chosen = self.cipher_suites.iter().map(|suite| suite.0);
            provider.cipher_suites.extend(chosen.filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2));
        }
        if !self.curve_preferences.is_empty() {
            provider.kx_groups = self.curve_preferences.iter().map(|curve| curve.group()).collect();
        }
        provider
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        if self.client_auth == ClientAuth::NoClientCert {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let chain = match (&self.client_ca, self.client_auth.verifies()) {
            (Some(pem), true) => {
                let (roots, _) = authorities(pem.path(), &pem.read()?)?;
                let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
                let built = builder
                    .build()
                    .map_err(|error| TlsError::BadCertificate { path: pem.path().into(), reason: error.to_string() });
                Some(built?)
            }
            (None, true) => {
                return Err(TlsError::Settings(format!("{} needs client_ca_file to verify with", self.client_auth)));
            }
            (_, false) => None,
        };
        let allowed: BTreeSet<String> = self.client_allowed_sans.iter().cloned().collect();
        let mandatory = self.requires_certificate();
        Ok(Arc::new(ClientVerifier { chain, mandatory, allowed, provider: provider.clone() }))
    }
}

/// Verifies a client's certificate according to the settings.
#[derive(Debug)]
struct ClientVerifier {
    /// Verifies the signature by an authority, if that is configured.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
    /// The allowed subjects; empty for all.
    allowed: BTreeSet<String>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        let names = Certificate::subjects(end_entity).map_err(|_| Error::InvalidCertificate(Refusal::BadEncoding))?;
        if !self.allowed.is_empty() && !names.iter().any(|name| self.allowed.contains(name)) {
            return Err(Error::InvalidCertificate(Refusal::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }

    // The client's possession of the private key is always verified.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The protocol over TLS, as negotiated by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, also if the client did not negotiate.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection after the handshake.
pub struct WebConnection<S> {
    /// The encrypted stream.
    pub stream: Stream<S>,
    /// The negotiated protocol.
    pub protocol: Protocol,
    /// The names of the client's certificate, if it presented one and the gateway verifies certificates.
    pub certificate: Vec<String>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Whether a client's certificate must be signed by an authority.
    verifies: bool,
    certificate: Certificate,
    own: CertificateDer<'static>,
    problems: Vec<Problem>,
    path: PathBuf,
}

/// The gateway's end of TLS.
#[derive(Debug)]
pub struct WebAcceptor(RwLock<Arc<Loaded>>);

impl WebAcceptor {
    /// Reads the files that the settings name. HTTP/2 is offered if `http2`.
    ///
    /// # Errors
    /// If a file cannot be read or used, or the settings contradict each other.
    pub fn new(settings: &WebTls, http2: bool) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(settings.load(http2)?))))
    }

    /// Replaces the files' contents by those of `fresh`, for later handshakes.
    pub fn replace(&self, fresh: &Self) {
        store(&self.0, load(&fresh.0));
    }

    /// Checks that `fresh` can take this one's place.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn check_successor(&self, fresh: &Self, now: SystemTime) -> Result<(), TlsError> {
        let is_the_same = load(&self.0).certificate == load(&fresh.0).certificate;
        TlsError::check_successor(is_the_same, fresh.problems(now))
    }

    /// Everything for which clients would or might refuse the gateway's certificate at `now`.
    pub fn problems(&self, now: SystemTime) -> Vec<TlsError> {
        let loaded = load(&self.0);
        let mut problems: Vec<_> = loaded.certificate.problem(&loaded.path, now).into_iter().collect();
        let unfit = |problem: &Problem| TlsError::Unfit { path: loaded.path.clone(), problem: problem.clone() };
        problems.extend(loaded.problems.iter().map(unfit));
        problems
    }

    /// The doubt about a certificate that is not for `name`, which the option `key` has.
    pub fn check_name(&self, name: &str, key: &'static str) -> Option<TlsError> {
        let loaded = load(&self.0);
        let problem = examine::name_problem(&loaded.own, name, key)?;
        Some(TlsError::Unfit { path: loaded.path.clone(), problem })
    }

    /// The error if the gateway's certificate is not valid at `now`.
    pub fn check(&self, now: SystemTime) -> Option<TlsError> {
        let loaded = load(&self.0);
        loaded.certificate.problem(&loaded.path, now)
    }

    /// The end of the certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        load(&self.0).certificate.not_after
    }

    /// Performs a handshake.
    ///
    /// # Errors
    /// If the client has no acceptable certificate, or no version, cipher suite or curve in common with the gateway. The
    /// client was sent an alert then; the stream is returned for [`super::linger`].
    pub async fn accept<S>(&self, stream: S) -> Result<WebConnection<S>, (TlsError, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = load(&self.0);
        let acceptor = tokio_rustls::TlsAcceptor::from(loaded.config.clone());
        let accepted = acceptor.accept(stream).into_fallible().await;
        let stream = accepted.map_err(|(error, stream)| (TlsError::Handshake(error), stream))?;
        let connection = stream.get_ref().1;
        let protocol = if connection.alpn_protocol() == Some(HTTP2) { Protocol::Http2 } else { Protocol::Http1 };
        let chain = connection.peer_certificates().filter(|_| loaded.verifies);
        let certificate = chain.and_then(|chain| Certificate::names(chain.first()?).ok()).unwrap_or_default();
        Ok(WebConnection { stream: stream.into(), protocol, certificate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gos() {
        for name in ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"] {
            assert_eq!(name.parse::<Suite>().unwrap().to_string(), name);
        }
        let error = "TLS_RSA_WITH_AES_128_CBC_SHA".parse::<Suite>().unwrap_err();
        assert!(error.contains("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), "{error}");
        for name in ["RequestClientCert", "RequireAndVerifyClientCert", "NoClientCert"] {
            assert_eq!(name.parse::<ClientAuth>().unwrap().to_string(), name);
        }
        assert_eq!("RequireClientCert".parse(), Ok(ClientAuth::RequireAnyClientCert));
        assert!("TLS10".parse::<TlsVersion>().unwrap_err().contains("TLS12"));
        assert!("CurveP521".parse::<Curve>().unwrap_err().contains("CurveP384"));
    }

    #[test]
    fn an_inline_key_is_not_shown() {
        let pem = Pem::Inline { key: "web.tls.key", text: "SECRET".into() };
        assert_eq!(format!("{pem:?}"), "<web.tls.key>");
    }
}
