//! Reading the files of certificates and keys, with an error for each way in which a file is something else.

use std::fmt;
use std::io;
use std::path::Path;

use rustls::{CertificateError as Refusal, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;
use super::problem::{Problem, contents, words};
use crate::net::certificate::{Certificate, Profile};

/// An authority of the file.
pub(super) struct ListedAuthority {
    pub der: CertificateDer<'static>,
    pub certificate: Certificate,
}

pub(super) fn unusable_certificate(path: &Path, error: &Refusal, problem: Option<Problem>) -> TlsError {
    match problem.or_else(|| words(&format!("{error:?}")).map(|text| Problem::Refused(text.into()))) {
        Some(problem) => TlsError::Unfit { path: path.into(), problem },
        None => TlsError::BadCertificate { path: path.into(), reason: error.to_string() },
    }
}

pub(super) fn unusable_key(path: &Path, error: &rustls::Error, problem: Option<Problem>) -> TlsError {
    match problem {
        Some(problem) => TlsError::Unfit { path: path.into(), problem },
        None => TlsError::BadKey { path: path.into(), reason: error.to_string() },
    }
}

pub(super) fn load_authorities(path: &Path) -> Result<(RootCertStore, Vec<ListedAuthority>), TlsError> {
    authorities(path, &read(path)?)
}

/// The authorities of a file that may be the system's bundle, of which unusable certificates are left out.
pub(super) fn bundled_authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(certificates(path, &read(path)?)?).0 == 0 {
        let reason = "none of its certificates can be an authority".into();
        return Err(TlsError::BadCertificate { path: path.into(), reason });
    }
    Ok(roots)
}

/// Parses the authorities from PEM that was read from `path`.
pub(super) fn authorities(path: &Path, pem: &[u8]) -> Result<(RootCertStore, Vec<ListedAuthority>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut authorities = Vec::new();
    for der in certificates(path, pem)? {
        authorities.push(ListedAuthority { certificate: parse(path, &der)?, der: der.clone() });
        roots.add(der).map_err(|error| TlsError::BadCertificate { path: path.into(), reason: error.to_string() })?;
    }
    Ok((roots, authorities))
}

pub(super) fn parse(path: &Path, der: &[u8]) -> Result<Certificate, TlsError> {
    Certificate::from_der(der)
        .map_err(|error| TlsError::BadCertificate { path: path.into(), reason: error.to_string() })
}

/// A certificate of a file, for a person.
#[derive(Clone, Debug)]
pub struct ShownCertificate {
    /// Dates and identity.
    pub certificate: Certificate,
    /// The parts that decide whether peers accept it.
    pub profile: Profile,
    /// Its subject alternative names.
    pub names: Vec<String>,
}

/// Reads all certificates of a file.
///
/// # Errors
/// If the file cannot be read, or has no certificate.
pub fn show(path: &Path) -> Result<Vec<ShownCertificate>, TlsError> {
    let shown = |der: &CertificateDer<'_>| {
        let malformed =
            || TlsError::BadCertificate { path: path.into(), reason: "its extensions cannot be read".into() };
        let (certificate, profile) = (parse(path, der)?, Profile::of(der).ok_or_else(malformed)?);
        Ok(ShownCertificate { certificate, profile, names: Certificate::subjects(der).unwrap_or_default() })
    };
    read_certificates(path)?.iter().map(shown).collect()
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path, &read(path)?)
}

/// Parses certificates, at least one.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| not_pem(path, &error))?;
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    Err(match contents(pem, "certificate") {
        Some((found, remedy)) => {
            TlsError::Unfit { path: path.into(), problem: Problem::NotACertificate { found, remedy } }
        }
        None => TlsError::NoCertificate(path.into()),
    })
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    key(path, &read(path)?)
}

pub(super) fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unfit = |problem| TlsError::Unfit { path: path.into(), problem };
    // PKCS #8 has a label for encrypted keys, OpenSSL's older format a header in the block.
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(unfit(Problem::EncryptedKey));
    }
    match PrivateKeyDer::pem_slice_iter(pem).next() {
        Some(key) => key.map_err(|error| not_pem(path, &error)),
        None => Err(match contents(pem, "key") {
            Some((found, remedy)) => unfit(Problem::NotAKey { found, remedy }),
            None => TlsError::NoKey(path.into()),
        }),
    }
}

pub(super) fn not_pem(path: &Path, error: &dyn fmt::Display) -> TlsError {
    TlsError::NotPem { path: path.into(), reason: error.to_string() }
}

/// Bytes of a certificate file, at most. A larger file is something else.
const FILE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
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
