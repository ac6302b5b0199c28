//! A key that an edge makes itself, and its request for a certificate (PKCS #10), which proves that it has the key.

use std::fmt;

use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PublicKey, PublicKeyData};
use rustls_pki_types::CertificateSigningRequestDer;

use super::AuthorityError;
use crate::net::certificate::Certificate;

/// The private key of an edge.
pub struct EdgeKey(KeyPair);

impl fmt::Debug for EdgeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeKey").finish_non_exhaustive()
    }
}

impl EdgeKey {
    /// Makes a key.
    ///
    /// # Errors
    /// If the library cannot.
    pub fn generate() -> Result<Self, AuthorityError> {
        KeyPair::generate().map(Self).map_err(AuthorityError::Signing)
    }

    /// Reads a key from PEM; a certificate beside it is skipped.
    ///
    /// # Errors
    /// If there is no key, or it cannot be used.
    pub fn from_pem(pem: &str) -> Result<Self, AuthorityError> {
        let begin = pem.find("-----BEGIN PRIVATE KEY-----").unwrap_or(0);
        KeyPair::from_pem(&pem[begin..]).map(Self).map_err(AuthorityError::BadRequest)
    }

    /// The key as PEM. Secret: it must not be logged.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Whether a certificate (DER) is for this key.
    pub fn is_of(&self, certificate_der: &[u8]) -> bool {
        Certificate::key_der(certificate_der).is_some_and(|key| key == self.0.subject_public_key_info())
    }

    /// The request for a certificate, as DER. It has no name: the authority knows the edge's.
    ///
    /// # Errors
    /// If the library cannot sign it.
    pub fn request(&self) -> Result<Vec<u8>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(AuthorityError::Signing)?;
        Ok(request.der().to_vec())
    }
}

/// A request for a certificate whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest(PublicKey);

impl CertificateRequest {
    /// Parses a request from DER, and verifies its signature.
    ///
    /// # Errors
    /// If it is none, or the signature is wrong.
    pub fn from_der(der: &[u8]) -> Result<Self, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        request.map(|request| Self(request.public_key)).map_err(AuthorityError::BadRequest)
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// The public key as DER (SubjectPublicKeyInfo).
    pub fn key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
}
