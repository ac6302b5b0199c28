//! The errors of certificate files and of TLS handshakes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::{AlertDescription, CertificateError as Refusal};
use thiserror::Error;

use super::explain::explain;
use super::problem::Problem;
use crate::net::certificate::{CertificateError, date};
use crate::net::failures::FailureKind;

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
    /// The file is PEM but contains no list of revoked certificates.
    #[error(
        "{0:?} has no list of revoked certificates: `pushrelay pki revoke` writes one, with a -----BEGIN X509 CRL----- block"
    )]
    NoRevocationList(PathBuf),
    /// A list of revoked certificates cannot be used.
    #[error(
        "the list of revoked certificates in {path:?} cannot be used: {reason}; `pushrelay pki revoke` writes a right one"
    )]
    BadRevocationList {
        /// The path of the file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The private key does not belong to the certificate.
    #[error(
        "the key in {key:?} does not match the certificate in {cert:?}: copy the two that were made together \
         (`openssl pkey -in KEY -pubout` and `openssl x509 -in CERT -noout -pubkey` print the same for them)"
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The private key's file.
        key: PathBuf,
    },
    /// The certificate or key can be read, but is of no use.
    #[error("{path:?} cannot be used: {problem}")]
    Unfit {
        /// The path of the file.
        path: PathBuf,
        /// The problem.
        problem: Problem,
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
    /// The certificate of an established connection does not verify any more.
    #[error("the certificate of the other end does not verify any more: {}", explain(.0))]
    PeerUnverified(io::Error),
    /// The edge's certificate contains no valid identity.
    #[error("the edge's certificate is refused: {0}")]
    Identity(CertificateError),
}

/// The reasons for which a certificate of the other end is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateRefusal {
    /// No known authority signed it.
    WrongAuthority,
    /// It has expired.
    Expired,
    /// It is not yet valid.
    NotYetValid,
    /// It is revoked.
    Revoked,
    /// It is for the other end of a connection.
    WrongPurpose,
    /// It does not name an edge.
    NoIdentity,
    /// It is wrong in another way.
    Unusable,
}

impl TlsError {
    /// The file that the error is about. If a key and a certificate do not match, it is the key's.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::NoCertificate(path) | Self::NoKey(path) | Self::NoRevocationList(path) => Some(path),
            Self::Unreadable { path, .. }
            | Self::NotPem { path, .. }
            | Self::BadCertificate { path, .. }
            | Self::BadKey { path, .. }
            | Self::BadRevocationList { path, .. }
            | Self::Unfit { path, .. }
            | Self::Expired { path, .. }
            | Self::NotYetValid { path, .. } => Some(path),
            Self::Mismatch { key, .. } => Some(key),
            Self::Settings(_) | Self::BadHost(_) | Self::Handshake(_) | Self::PeerUnverified(_) | Self::Identity(_) => {
                None
            }
        }
    }

    /// The reason for which the other end's certificate is refused; `None` if the error is another one.
    pub fn certificate_refusal(&self) -> Option<CertificateRefusal> {
        let error = match self {
            Self::Handshake(error) | Self::PeerUnverified(error) => error,
            Self::Identity(_) => return Some(CertificateRefusal::NoIdentity),
            _ => return None,
        };
        match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(refusal) => Some(match refusal {
                Refusal::UnknownIssuer | Refusal::BadSignature => CertificateRefusal::WrongAuthority,
                Refusal::Expired | Refusal::ExpiredContext { .. } => CertificateRefusal::Expired,
                Refusal::NotValidYet | Refusal::NotValidYetContext { .. } => CertificateRefusal::NotYetValid,
                Refusal::Revoked => CertificateRefusal::Revoked,
                Refusal::InvalidPurpose | Refusal::InvalidPurposeContext { .. } => CertificateRefusal::WrongPurpose,
                _ => CertificateRefusal::Unusable,
            }),
            _ => None,
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

impl TlsError {
    /// Whether the other end's certificate is signed by an authority that is not known here.
    pub fn is_unknown_issuer(&self) -> bool {
        let Self::Handshake(error) = self else { return false };
        matches!(
            error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
            Some(rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature
            ))
        )
    }

    /// Whether it is a doubt: the certificate may be meant as it is.
    pub fn is_doubt(&self) -> bool {
        matches!(self, Self::Unfit { problem, .. } if problem.is_doubt())
    }

    /// The rule for a certificate with these problems that is to take the place of the one in use: a certificate that
    /// cannot be used does not take the place of another one.
    ///
    /// # Errors
    /// The first problem that is no doubt, unless the certificate is the one in use.
    pub fn check_successor(is_the_same: bool, problems: Vec<Self>) -> Result<(), Self> {
        match problems.into_iter().find(|problem| !problem.is_doubt()) {
            Some(problem) if !is_the_same => Err(problem),
            _ => Ok(()),
        }
    }
}
