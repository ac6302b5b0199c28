//! The certificate of the other end of a connection: kept to verify it again, and to name a client that was refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::net::certificate::{Certificate, Serial};

/// The certificate of a peer with its intermediate certificates, as the peer sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChain {
    pub(super) certificates: Arc<[CertificateDer<'static>]>,
    /// The earliest end of validity among them.
    pub not_after: SystemTime,
}

impl PeerChain {
    /// The chain of a connection; `None` if the peer sent no certificate.
    pub(super) fn of(connection: &rustls::CommonState) -> Option<Self> {
        let certificates: Arc<[_]> =
            connection.peer_certificates()?.iter().map(|der| der.clone().into_owned()).collect();
        let ends = certificates.iter().filter_map(|der| Some(Certificate::from_der(der).ok()?.not_after));
        let not_after = ends.min()?;
        Some(Self { certificates, not_after })
    }

    /// The serial number of the certificate; `None` if it cannot be read.
    pub fn serial(&self) -> Option<Serial> {
        Serial::of(self.certificates.first()?)
    }

    /// The certificate itself, and the intermediate ones.
    pub(super) fn split(&self) -> Option<(&CertificateDer<'static>, &[CertificateDer<'static>])> {
        self.certificates.split_first()
    }
}

/// The time as the verifiers of the library have it.
pub(super) fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The verifier of one connection: keeps the certificate that it refuses, so that the hub can name it.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    refused: Mutex<Option<CertificateDer<'static>>>,
}

impl RecordingVerifier {
    pub fn new(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self { inner, refused: Mutex::new(None) }
    }

    /// The name of an edge in the certificate that was refused. Nobody vouches for it.
    pub fn claimed_name(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let identity = Certificate::from_der(&refused).ok()?.edge().ok()?;
        Some(identity.name.as_str().to_owned())
    }
}

impl ClientCertVerifier for RecordingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.inner.verify_client_cert(end_entity, intermediates, now).inspect_err(|_| {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
