//! TLS of an end that joins: it has no certificate and no authorities yet.
//!
//! It accepts any certificate at the handshake, because the authority arrives over that connection. Before it sends
//! anything secret, it verifies the hub's certificate by that authority ([`Authorities::verify_hub`]), whose fingerprint
//! its invitation contains.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::ALPN;
use super::connector::{ClientSide, Connector};
use super::error::TlsError;
use super::files::{authorities, certificates};
use super::peer::{PeerChain, unix_time};
use super::provider::provider;

/// Accepts every certificate whose key the server has.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Connector {
    /// A connector of an end that joins: it shows no certificate, and does not verify the hub's. The caller must.
    ///
    /// # Errors
    /// If the library does not support TLS 1.3.
    pub fn for_joining() -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        let (config, roots) = (Some(Arc::new(config)), Arc::new(RootCertStore::empty()));
        Ok(Self::of(ClientSide { config, chain: Vec::new(), roots, verifier: None, token: None }))
    }
}

/// Certificates of authorities, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    pem: String,
    certificates: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("pem", &self.pem).finish_non_exhaustive()
    }
}

impl Authorities {
    /// Parses certificates; `source` names where they are from in errors.
    ///
    /// # Errors
    /// If there is none, or one cannot be used.
    pub fn from_pem(pem: String, source: &Path) -> Result<Self, TlsError> {
        authorities(source, pem.as_bytes())?;
        let certificates = certificates(source, pem.as_bytes())?;
        Ok(Self { pem, certificates })
    }

    /// The certificates as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Whether both have the same certificates.
    pub fn are_the_same(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }

    /// The SHA-256 fingerprint of each certificate.
    pub fn fingerprints(&self) -> impl Iterator<Item = [u8; 32]> {
        self.certificates.iter().map(|der| {
            let mut fingerprint = [0; 32];
            fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
            fingerprint
        })
    }

    /// Verifies that the certificate of the hub `host` is signed by one of these authorities whose fingerprint
    /// `is_trusted`.
    ///
    /// # Errors
    /// If it is not, or has expired, or is for another host.
    pub fn verify_hub(
        &self,
        host: &str,
        hub: &PeerChain,
        is_trusted: impl Fn(&[u8; 32]) -> bool,
        now: SystemTime,
    ) -> Result<(), TlsError> {
        let unverified = |error| TlsError::PeerUnverified(io::Error::other(error));
        let mut roots = RootCertStore::empty();
        for (der, fingerprint) in self.certificates.iter().zip(self.fingerprints()) {
            if is_trusted(&fingerprint) {
                roots.add(der.clone()).map_err(unverified)?;
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|error| TlsError::Settings(error.to_string()))?;
        let (leaf, intermediates) = hub.split().ok_or_else(|| unverified(rustls::Error::NoCertificatesPresented))?;
        verifier.verify_server_cert(leaf, intermediates, &name, &[], unix_time(now)).map(drop).map_err(unverified)
    }
}
