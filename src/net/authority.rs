//! A small certificate authority, for operators who have none and for the demo.
//!
//! It signs two kinds of certificates: for a hub (its host names, for server authentication) and for an edge (its
//! identity as a URI, see [`super::identity`], for client authentication). Keys are ECDSA P-256 and are generated here,
//! or at the edge, which sends a request for a certificate ([`CertificateRequest`]). It also signs the list of revoked
//! certificates.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use thiserror::Error;
use time::OffsetDateTime;

use super::certificate::{Revocation, Serial};
use super::identity::EdgeIdentity;

mod request;

pub use request::{CertificateRequest, EdgeKey};

/// Days for which the authority's own certificate is valid.
pub const AUTHORITY_DAYS: u32 = 3_650;
/// Days for which a hub's or an edge's certificate is valid: the most that common TLS clients accept.
pub const LEAF_DAYS: u32 = 825;
/// The upper bound of a validity, in days: a hundred years. It keeps dates within the range that X.509 can express.
pub const DAYS_MAX: u32 = 36_500;
/// Host names and addresses that one certificate may contain, at most.
pub const HOSTS_MAX: usize = 100;

/// The time until a list of revoked certificates would be out of date. Nothing here enforces it; it is long for other
/// programs that do, because the list is signed again only when it changes.
const LIST_DAYS: u32 = 3_650;
/// Bytes of a serial number. They are random, so that no two certificates of an authority have the same.
const SERIAL_BYTES: usize = 16;

/// Certificates are valid from an hour before they are made, because some hosts have slow clocks.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// The time span in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The start of the span.
    pub not_before: SystemTime,
    /// The end of the span.
    pub not_after: SystemTime,
}

impl Validity {
    /// A span that starts an hour before `now` and ends `days` days after it; `days` is cut to [`DAYS_MAX`].
    pub fn days(now: SystemTime, days: u32) -> Self {
        Self::of(now, Duration::from_secs(u64::from(days) * 86_400))
    }

    /// A span that starts an hour before `now` and ends `lifetime` after it; `lifetime` is cut to [`DAYS_MAX`].
    pub fn of(now: SystemTime, lifetime: Duration) -> Self {
        let lifetime = lifetime.min(Duration::from_secs(u64::from(DAYS_MAX) * 86_400));
        Self { not_before: now - BACKDATED, not_after: now + lifetime }
    }
}

/// A new certificate and its private key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, which is public.
    pub certificate_pem: String,
    /// The private key. Secret: it must not be logged.
    pub key_pem: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// The reasons for which a certificate cannot be issued.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The authority's certificate or key cannot be read.
    #[error("the authority's certificate or key cannot be used: {0}")]
    BadAuthority(rcgen::Error),
    /// The text is neither a host name nor an IP address.
    #[error("{0:?} is no host: give the names and addresses by which edges reach the hub, without a port")]
    BadHost(String),
    /// There is no host, or there are more than [`HOSTS_MAX`].
    #[error("{0} hosts: a hub's certificate needs 1 to {HOSTS_MAX}")]
    HostCount(usize),
    /// Generating the key or signing the certificate failed.
    #[error("the certificate could not be made: {0}")]
    Signing(rcgen::Error),
    /// The request for a certificate cannot be used.
    #[error("the request for a certificate cannot be used: {0}")]
    BadRequest(rcgen::Error),
    /// The operating system gave no random serial number.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A certificate authority with its private key: it can sign certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl Authority {
    /// Generates a new authority with a self-signed certificate.
    ///
    /// # Errors
    /// If the key cannot be generated or the certificate cannot be signed.
    pub fn generate(validity: Validity) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Signing)?;
        // A list of revoked certificates is found by the name of its authority: two authorities need two names.
        let mut number = [0; 4];
        getrandom::fill(&mut number)?;
        let mut params = params(&format!("pushrelay authority {:08x}", u32::from_be_bytes(number)), validity);
        // The authority signs leaf certificates only: a path length of 0.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(AuthorityError::Signing)?;
        Ok(Self { certificate_pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// Reads an authority from its certificate and private key.
    ///
    /// # Errors
    /// If one of them is not valid PEM, or they cannot be used.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::BadAuthority)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(AuthorityError::BadAuthority)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.into() })
    }

    /// The authority's own certificate and private key, to be saved.
    pub fn to_pem(&self) -> Issued {
        Issued { certificate_pem: self.certificate_pem.clone(), key_pem: self.issuer.key().serialize_pem() }
    }

    /// Issues a certificate for a hub that edges reach by these names and addresses.
    ///
    /// # Errors
    /// If a host is not valid, if there is none or too many, or if signing fails.
    pub fn hub(&self, hosts: &[String], validity: Validity) -> Result<Issued, AuthorityError> {
        let first = hosts.first().filter(|_| hosts.len() <= HOSTS_MAX).ok_or(AuthorityError::HostCount(hosts.len()))?;
        let mut params = params(first, validity);
        params.subject_alt_names = hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Issues a certificate for an edge, with a new key.
    ///
    /// # Errors
    /// If signing fails.
    pub fn edge(&self, identity: &EdgeIdentity, validity: Validity) -> Result<Issued, AuthorityError> {
        self.sign(edge_params(identity, validity)?)
    }

    /// Issues a certificate for an edge that made its key itself. Only the public key of the request counts; returns the
    /// certificate as PEM.
    ///
    /// # Errors
    /// If signing fails.
    pub fn edge_of(
        &self,
        request: &CertificateRequest,
        identity: &EdgeIdentity,
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        self.sign_for(edge_params(identity, validity)?, request.public_key())
    }

    /// Signs a list of revoked certificates, as PEM.
    ///
    /// # Errors
    /// If signing fails.
    pub fn revocation_list(&self, revoked: &[Revocation], now: SystemTime) -> Result<String, AuthorityError> {
        let number = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = u64::try_from(number).unwrap_or(i64::MAX as u64).to_be_bytes();
        let revoked = revoked.iter().map(|revocation| RevokedCertParams {
            serial_number: SerialNumber::from_slice(revocation.serial.bytes()),
            revocation_time: OffsetDateTime::from(revocation.at),
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: OffsetDateTime::from(now - BACKDATED),
            next_update: OffsetDateTime::from(Validity::days(now, LIST_DAYS).not_after),
            crl_number: SerialNumber::from_slice(&number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(AuthorityError::Signing)
    }

    fn sign(&self, params: CertificateParams) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Signing)?;
        Ok(Issued { certificate_pem: self.sign_for(params, &key)?, key_pem: key.serialize_pem() })
    }

    fn sign_for(&self, mut params: CertificateParams, key: &impl PublicKeyData) -> Result<String, AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(random_serial()?.bytes()));
        Ok(params.signed_by(key, &self.issuer).map_err(AuthorityError::Signing)?.pem())
    }
}

/// A random serial number; it is positive and begins with no zero.
fn random_serial() -> Result<Serial, getrandom::Error> {
    let mut bytes = [0; SERIAL_BYTES];
    getrandom::fill(&mut bytes)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(Serial::new(&bytes))
}

fn edge_params(identity: &EdgeIdentity, validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(identity.name.as_str(), validity);
    let uri = identity.to_uri().try_into().map_err(AuthorityError::Signing)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    params
}

fn host_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || AuthorityError::BadHost(host.into());
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // The first label may be a star.
    let labels = host.strip_prefix("*.").unwrap_or(host);
    if host.len() > 253 || !labels.split('.').all(label) {
        return Err(bad());
    }
    Ok(SanType::DnsName(host.try_into().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::net::certificate::Certificate;

    fn read(issued: &Issued) -> Certificate {
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
        Certificate::from_der(&der).unwrap()
    }

    #[test]
    fn an_edge_is_who_its_certificate_says() {
        let validity = Validity::days(SystemTime::now(), 10);
        let authority = Authority::generate(validity).unwrap();
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=S%C3%BCd%20%26").unwrap();
        let authority = Authority::from_pem(&authority.to_pem().certificate_pem, &authority.to_pem().key_pem).unwrap();
        let certificate = read(&authority.edge(&identity, validity).unwrap());
        assert_eq!(certificate.edge().unwrap(), identity);
        assert_eq!(certificate.common_name.as_deref(), Some("syq-1"));
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds(certificate.not_after), seconds(validity.not_after));
        assert_eq!(seconds(certificate.not_before), seconds(validity.not_before));
    }

    #[test]
    fn a_text_that_is_no_host_is_refused() {
        let validity = Validity::days(SystemTime::now(), u32::MAX);
        let authority = Authority::generate(validity).unwrap();
        let hub = |hosts: &[&str]| authority.hub(&hosts.iter().map(|&h| h.into()).collect::<Vec<_>>(), validity);
        for host in ["", "a:9443", "https://a", "a..b", "*", "ü", &"a".repeat(64)] {
            assert!(matches!(hub(&[host]), Err(AuthorityError::BadHost(_))), "{host}");
        }
        assert!(matches!(hub(&[]), Err(AuthorityError::HostCount(0))));
        hub(&["hub.example.org", "*.example.org", "127.0.0.1", "::1", "localhost"]).unwrap();
    }

    #[test]
    fn keys_never_print() {
        let issued = Authority::generate(Validity::days(SystemTime::now(), 1)).unwrap();
        assert!(!format!("{issued:?}{:?}", issued.to_pem()).contains("PRIVATE"));
    }
}
