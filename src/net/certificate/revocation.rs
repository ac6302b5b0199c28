//! Lists of revoked certificates (CRLs, RFC 5280), and the serial numbers that they contain.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::from_timestamp;

/// Bytes of a serial number, at most (RFC 5280, section 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// The serial number of a certificate: its bytes, without zeros in front. As text it is hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// A serial number of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].into())
    }

    /// The serial number of a certificate; `None` if it is no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        X509Certificate::from_der(der).ok().map(|(_, parsed)| Self::new(parsed.raw_serial()))
    }

    /// The bytes, without zeros in front.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no serial number: write its bytes in hexadecimal")]
pub struct BadSerial(String);

impl FromStr for Serial {
    type Err = BadSerial;

    fn from_str(text: &str) -> Result<Self, BadSerial> {
        let bad = || BadSerial(text.chars().take(2 * SERIAL_BYTES_MAX).collect());
        if text.is_empty() || !text.len().is_multiple_of(2) || text.len() > 2 * SERIAL_BYTES_MAX || !text.is_ascii() {
            return Err(bad());
        }
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad());
        Ok(Self::new(&(0..text.len()).step_by(2).map(byte).collect::<Result<Vec<u8>, _>>()?))
    }
}

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The serial number of the certificate.
    pub serial: Serial,
    /// When it was revoked.
    pub at: SystemTime,
}

/// The contents of a list of revoked certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// The issuer, in quotes.
    pub issuer: String,
    /// The revoked certificates.
    pub revoked: Vec<Revocation>,
}

impl RevocationList {
    /// Parses a list from DER; `None` if it is none.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, parsed) = CertificateRevocationList::from_der(der).ok()?;
        let revoked = parsed.iter_revoked_certificates().map(|revoked| Revocation {
            serial: Serial::new(revoked.raw_serial()),
            at: from_timestamp(revoked.revocation_date.timestamp()),
        });
        Some(Self { issuer: format!("\"{}\"", parsed.issuer()), revoked: revoked.collect() })
    }

    /// Whether the authority signed a list; `None` if the list is of another authority, or one of them cannot be parsed.
    pub fn is_signed_by(list: &[u8], authority: &[u8]) -> Option<bool> {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        let (_, authority) = X509Certificate::from_der(authority).ok()?;
        let is_issuer = list.issuer().as_raw() == authority.subject().as_raw();
        is_issuer.then(|| list.verify_signature(authority.public_key()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_the_same_with_zeros_in_front() {
        let serial: Serial = "00a1b2".parse().unwrap();
        assert_eq!((serial.to_string(), serial.bytes()), ("a1b2".into(), &[0xa1, 0xb2][..]));
        for bad in ["", "a", "zz", "ää", &"00".repeat(21)] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
        assert_eq!((Serial::of(b"junk"), RevocationList::from_der(b"junk")), (None, None));
    }
}
