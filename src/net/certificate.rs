//! The parts of an X.509 certificate that the node reads: subject, validity, and the identity of an edge.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::identity::{self, EdgeIdentity, EdgeName, IdentityError};

mod revocation;

pub use revocation::{BadSerial, Revocation, RevocationList, Serial};

/// A certificate that expires within this time causes a warning, unless its whole validity is short.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// The parts of a certificate that the node uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name, if there is one.
    pub common_name: Option<String>,
    /// The start of the validity.
    pub not_before: SystemTime,
    /// The end of the validity.
    pub not_after: SystemTime,
    /// The URIs among the subject alternative names.
    pub uris: Vec<String>,
}

/// The reasons for which a certificate gives no identity of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is no X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// Two of its subject alternative names are URIs of an edge.
    #[error("two subject alternative names begin with {:?}: an edge is one", identity::URI_PREFIX)]
    TwoIdentities,
    /// It has neither the URI of an edge nor a common name.
    #[error("no subject alternative name begins with {:?}, and there is no common name either", identity::URI_PREFIX)]
    NoIdentity,
    /// Its URI or common name is not a valid identity.
    #[error("the edge's identity cannot be read: {0}")]
    BadIdentity(IdentityError),
}

impl Certificate {
    /// Parses a certificate from DER.
    ///
    /// # Errors
    /// If it is not an X.509 certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |error: &dyn fmt::Display| CertificateError::Malformed(error.to_string());
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        let common_name = parsed.subject().iter_common_name().next();
        let names = parsed.subject_alternative_name().map_err(|error| malformed(&error))?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(uri.to_string()),
            _ => None,
        });
        Ok(Self {
            common_name: common_name.and_then(|name| name.as_str().ok()).map(Into::into),
            not_before: from_timestamp(parsed.validity().not_before.timestamp()),
            not_after: from_timestamp(parsed.validity().not_after.timestamp()),
            uris: uris.collect(),
        })
    }

    /// The public key of a certificate as DER (SubjectPublicKeyInfo); `None` if it is no X.509 certificate.
    pub fn key_der(der: &[u8]) -> Option<Vec<u8>> {
        X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed.public_key().raw.to_vec())
    }

    /// When its holder shall renew it: after two thirds of its validity.
    pub fn renewal_time(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.checked_sub(lifetime / 3).unwrap_or(self.not_before)
    }

    /// When it should have been renewed: 14 days before it expires, or a quarter of its validity if that is shorter.
    pub fn warning_time(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.checked_sub(EXPIRY_WARNING.min(lifetime / 4)).unwrap_or(self.not_before)
    }

    /// All subjects of a certificate by its subject alternative names: DNS names, e-mail addresses, IP addresses and
    /// URIs.
    ///
    /// # Errors
    /// If it is not an X.509 certificate.
    pub fn subjects(der: &[u8]) -> Result<Vec<String>, CertificateError> {
        let malformed = |error: &dyn fmt::Display| CertificateError::Malformed(error.to_string());
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        let names = parsed.subject_alternative_name().map_err(|error| malformed(&error))?;
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                Some(name.to_string())
            }
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            },
            _ => None,
        });
        Ok(names.collect())
    }

    /// The common name of a certificate, and its [subjects](Certificate::subjects).
    ///
    /// # Errors
    /// If it is not an X.509 certificate.
    pub fn names(der: &[u8]) -> Result<Vec<String>, CertificateError> {
        let mut names = Self::subjects(der)?;
        names.extend(Self::from_der(der)?.common_name);
        Ok(names)
    }

    /// The edge that the certificate is for, by its URI. Without a URI it is the common name, with no labels, so that
    /// certificates of an authority that knows nothing of pushrelay work too: the hub's `[[hub.edge]]` sections then
    /// give the labels.
    ///
    /// # Errors
    /// If there are two URIs of an edge, no URI and no common name, or the identity is not valid.
    pub fn edge(&self) -> Result<EdgeIdentity, CertificateError> {
        let mut uris = self.uris.iter().filter(|uri| uri.starts_with(identity::URI_PREFIX));
        match (uris.next(), uris.next()) {
            (Some(_), Some(_)) => Err(CertificateError::TwoIdentities),
            (Some(uri), None) => EdgeIdentity::from_uri(uri).map_err(CertificateError::BadIdentity),
            (None, _) => {
                let name = self.common_name.as_ref().ok_or(CertificateError::NoIdentity)?;
                let name: EdgeName = name.parse().map_err(CertificateError::BadIdentity)?;
                Ok(EdgeIdentity { name, labels: Default::default() })
            }
        }
    }
}

/// The parts of a certificate that decide whether peers accept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The version, from 1.
    pub version: u32,
    /// The subject, in quotes.
    pub subject: String,
    /// The issuer, in quotes.
    pub issuer: String,
    /// Whether subject and issuer are the same.
    pub is_self_signed: bool,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
    /// The extended key usages, if they are restricted.
    pub purposes: Option<Vec<String>>,
    /// Whether the key usage allows signatures.
    pub signs: bool,
    /// The OID of the signature.
    pub signature: String,
    /// Kind and size of a key that TLS does not accept here.
    pub weak_key: Option<String>,
}

/// The OIDs of signatures that the library verifies: ECDSA, RSA and RSA-PSS with SHA-256, SHA-384 and SHA-512, Ed25519,
/// and ML-DSA.
const SIGNATURES: [&str; 11] = [
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.2.840.10045.4.3.4",
    "1.2.840.113549.1.1.10",
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.3.101.112",
    "2.16.840.1.101.3.4.3.17",
    "2.16.840.1.101.3.4.3.18",
    "2.16.840.1.101.3.4.3.19",
];

/// The names of algorithms that the library does not verify.
const OLD_SIGNATURES: [(&str, &str); 9] = [
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.113549.1.1.14", "SHA-224"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10045.4.3.1", "SHA-224"),
    ("1.2.840.10040.4.3", "DSA and SHA-1"),
    ("2.16.840.1.101.3.4.3.2", "DSA"),
    ("1.3.101.113", "Ed448"),
];

const RSA_KEY: &str = "1.2.840.113549.1.1.1";
const RSA_PSS_KEY: &str = "1.2.840.113549.1.1.10";
const EC_KEY: &str = "1.2.840.10045.2.1";
/// Ed25519 and ML-DSA.
const OTHER_KEYS: [&str; 4] =
    ["1.3.101.112", "2.16.840.1.101.3.4.3.17", "2.16.840.1.101.3.4.3.18", "2.16.840.1.101.3.4.3.19"];
/// P-256, P-384 and P-521.
const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];

impl Profile {
    /// Parses a certificate from DER; `None` if it is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let signature = parsed.signature_algorithm.algorithm.to_id_string();
        let usage = parsed.key_usage().ok()?;
        Some(Self {
            version: parsed.version().0 + 1,
            subject: format!("\"{}\"", parsed.subject()),
            issuer: format!("\"{}\"", parsed.issuer()),
            is_self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            is_authority: parsed.is_ca(),
            purposes: purposes(&parsed),
            signs: usage.is_none_or(|usage| usage.value.digital_signature()),
            signature,
            weak_key: weak_key(&parsed),
        })
    }

    /// The algorithm of the signature, if it is one that the library does not verify.
    pub fn weak_signature(&self) -> Option<String> {
        if SIGNATURES.contains(&self.signature.as_str()) {
            return None;
        }
        let name = OLD_SIGNATURES.iter().find(|(oid, _)| *oid == self.signature).map(|(_, name)| *name);
        Some(name.map_or_else(|| format!("the algorithm {}", self.signature), str::to_owned))
    }
}

fn purposes(parsed: &X509Certificate<'_>) -> Option<Vec<String>> {
    let usage = parsed.extended_key_usage().ok()??.value;
    let known = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let mut names: Vec<String> = known.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| (*name).into()).collect();
    names.extend(usage.other.iter().map(|oid| oid.to_id_string()));
    Some(names)
}

/// The kind and size of a key that TLS does not accept here.
fn weak_key(parsed: &X509Certificate<'_>) -> Option<String> {
    let key = parsed.public_key();
    let algorithm = key.algorithm.algorithm.to_id_string();
    match algorithm.as_str() {
        RSA_KEY | RSA_PSS_KEY => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if (2_048..=8_192).contains(&rsa.key_size()) => None,
            Ok(PublicKey::RSA(rsa)) => Some(format!("RSA of {} bits", rsa.key_size())),
            _ => None,
        },
        EC_KEY => {
            let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok())?.to_id_string();
            (!CURVES.contains(&curve.as_str())).then(|| format!("ECDSA on the curve {curve}"))
        }
        other if OTHER_KEYS.contains(&other) => None,
        other => Some(format!("of the algorithm {other}")),
    }
}

/// A time in the format of messages: `2027-03-01 12:00:00 UTC`.
pub fn date(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (hour, minute, second) = time.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", time.date())
}

/// Times before 1970 become 1970: no certificate from then is valid now.
fn from_timestamp(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_readable() {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(86_399)), "1970-01-01 23:59:59 UTC");
    }

    #[test]
    fn a_short_certificate_warns_later_than_it_is_renewed() {
        let of = |hours: u64| Certificate {
            common_name: None,
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + Duration::from_secs(hours * 3_600),
            uris: Vec::new(),
        };
        let hours = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600;
        assert_eq!((hours(of(24).renewal_time()), hours(of(24).warning_time())), (16, 18));
        let long = of(825 * 24);
        assert_eq!((hours(long.renewal_time()), hours(long.warning_time())), (550 * 24, 811 * 24));
    }

    #[test]
    fn data_that_is_no_certificate_is_refused() {
        for der in [&b""[..], b"\x30", b"\x30\x80", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert!(matches!(Certificate::from_der(der), Err(CertificateError::Malformed(_))));
        }
    }

    #[test]
    fn an_edge_is_named_by_uri_or_common_name() {
        let of = |uris: &[&str], common_name: Option<&str>| Certificate {
            common_name: common_name.map(Into::into),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH,
            uris: uris.iter().map(|&uri| uri.into()).collect(),
        };
        let uri = "pushrelay://edge/a?IDC=SYQ";
        assert_eq!(of(&["https://x/", uri], Some("b")).edge().unwrap().name.as_str(), "a");
        assert_eq!(of(&[], Some("b")).edge().unwrap().name.as_str(), "b");
        assert_eq!(of(&[uri, uri], None).edge(), Err(CertificateError::TwoIdentities));
        assert_eq!(of(&[], None).edge(), Err(CertificateError::NoIdentity));
        assert!(matches!(of(&[], Some("a b")).edge(), Err(CertificateError::BadIdentity(_))));
    }
}
