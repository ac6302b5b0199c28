//! The table of problems of certificates and keys: what is wrong, and how to make a right one. `docs/reference/certificates.md`
//! has a row for each, and so has the test `each_problem_of_a_certificate_has_its_sentence`.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::net::certificate::CertificateError;

/// The end of a connection that presents a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUse {
    /// An edge, to its hub.
    Edge,
    /// A hub, to its edges.
    Hub,
    /// The gateway, to HTTP clients.
    Gateway,
}

impl CertificateUse {
    fn purpose(self) -> &'static str {
        match self {
            Self::Edge => "clientAuth",
            Self::Hub | Self::Gateway => "serverAuth",
        }
    }

    /// The command that makes a right certificate.
    fn command(self) -> &'static str {
        match self {
            Self::Edge => "`pushrelay pki edge NAME --label IDC=…`",
            Self::Hub | Self::Gateway => "`pushrelay pki hub HOST`",
        }
    }
}

impl fmt::Display for CertificateUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "an edge",
            Self::Hub => "a hub",
            Self::Gateway => "the gateway",
        })
    }
}

/// A problem of a certificate or a key that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The private key is encrypted.
    #[error(
        "the key is encrypted with a passphrase, which nobody can enter here: write it without one \
         (`openssl pkey -in FILE -out NEW`), readable for the node's user only"
    )]
    EncryptedKey,
    /// The key's file contains something else.
    #[error("it has {found} and no private key: {remedy}")]
    NotAKey {
        /// The contents.
        found: &'static str,
        /// The way to get a key.
        remedy: &'static str,
    },
    /// The certificate's file contains something else.
    #[error("it has {found} and no certificate: {remedy}")]
    NotACertificate {
        /// The contents.
        found: &'static str,
        /// The way to get a certificate.
        remedy: &'static str,
    },
    /// The certificate is of a version without extensions.
    #[error(
        "the certificate is X.509 version {version}, which says nothing about its use: sign it again as version 3 \
         (`openssl x509 -req … -extfile FILE`), or make one with {}", .needed.command()
    )]
    OldVersion {
        /// The version, from 1.
        version: u32,
        /// The end that uses it.
        needed: CertificateUse,
    },
    /// The certificate of an end is that of an authority.
    #[error(
        "the certificate is that of an authority (basicConstraints CA:TRUE), which no peer accepts from {needed}: let \
         the authority sign one with CA:FALSE, or make one with {}", .needed.command()
    )]
    IsAuthority {
        /// The end that uses it.
        needed: CertificateUse,
    },
    /// The extended key usage does not allow the certificate's use.
    #[error(
        "the certificate is for {found} only (extendedKeyUsage), and {needed} needs {}: add `extendedKeyUsage = {}` \
         when it is signed, or make one with {}", .needed.purpose(), .needed.purpose(), .needed.command()
    )]
    WrongPurpose {
        /// The purposes that the certificate has.
        found: String,
        /// The end that uses it.
        needed: CertificateUse,
    },
    /// The key usage does not allow signatures.
    #[error(
        "the key usage of the certificate is without digitalSignature, which TLS 1.3 needs: add \
         `keyUsage = critical, digitalSignature` when it is signed, or make one with {}", .needed.command()
    )]
    NoDigitalSignature {
        /// The end that uses it.
        needed: CertificateUse,
    },
    /// The signature's algorithm is not accepted.
    #[error(
        "{subject} is signed with {algorithm}, which TLS peers refuse: let the authority sign it with SHA-256 \
         (`openssl x509 -req -sha256 …`)"
    )]
    WeakSignature {
        /// The certificate.
        subject: String,
        /// The algorithm.
        algorithm: String,
    },
    /// The certificate's key is not accepted.
    #[error(
        "the key of {subject} is {key}: TLS here takes ECDSA on P-256, P-384 or P-521, Ed25519, and RSA of 2048 to 8192 \
         bits; make another one (`openssl ecparam -name prime256v1 -genkey -noout`)"
    )]
    WeakKey {
        /// The certificate.
        subject: String,
        /// Kind and size of the key.
        key: String,
    },
    /// The certificate has no name for servers.
    #[error(
        "the certificate has no subject alternative name, and clients ignore the common name: add \
         `subjectAltName = DNS:HOST` (or IP:ADDRESS) when it is signed, or make one with {}", .needed.command()
    )]
    NoNames {
        /// The end that uses it.
        needed: CertificateUse,
    },
    /// The certificate is not for a configured name.
    #[error(
        "the certificate is for {names}, not for {name} ({key}): clients that use this name will refuse it; make one \
         with `pushrelay pki hub {name}`, or sign one with this name as subjectAltName"
    )]
    OtherName {
        /// The names that the certificate has.
        names: String,
        /// The configured name.
        name: String,
        /// The option that has it.
        key: &'static str,
    },
    /// The certificate does not name an edge.
    #[error("hubs refuse the certificate: {0}; make one with {edge}", edge = CertificateUse::Edge.command())]
    NoIdentity(CertificateError),
    /// The certificates of the file are no chain.
    #[error(
        "the certificate is signed by {issuer}, which does not follow in the file: it needs the certificate first, then \
         that of {issuer}, then that of the authority above it, and so on"
    )]
    BrokenChain {
        /// The issuer.
        issuer: String,
    },
    /// The issuer is unknown here.
    #[error(
        "{subject} is signed by {issuer}, which is neither in this file nor in {ca_file:?}: if that is an intermediate \
         authority, add its certificate behind the other one (`cat CERT INTERMEDIATE`); else the CA file at this or the \
         other end may be the wrong one"
    )]
    UnknownIssuer {
        /// The certificate.
        subject: String,
        /// The issuer.
        issuer: String,
        /// The file of the authorities.
        ca_file: PathBuf,
    },
    /// The authority has the right name, but another key.
    #[error(
        "{ca_file:?} has an authority with the name {issuer}, but another key signed the certificate: take the CA file \
         that was made with the key, or let this authority sign the certificate"
    )]
    OtherAuthority {
        /// The issuer.
        issuer: String,
        /// The file of the authorities.
        ca_file: PathBuf,
    },
    /// A certificate of the file of authorities is no authority's.
    #[error(
        "{subject} is no authority (it has no basicConstraints CA:TRUE): put the certificate of {issuer}, which signed \
         it, into the file"
    )]
    NotAnAuthority {
        /// The certificate.
        subject: String,
        /// The issuer.
        issuer: String,
    },
    /// A verifier like those of peers refuses the certificate.
    #[error("peers refuse the certificate: {0}")]
    Refused(String),
}

impl Problem {
    /// Whether the certificate may be meant as it is: the other end can have other authorities, and a client other names
    /// or other rules.
    pub fn is_doubt(&self) -> bool {
        match self {
            Self::OtherName { .. }
            | Self::BrokenChain { .. }
            | Self::UnknownIssuer { .. }
            | Self::OtherAuthority { .. } => true,
            Self::NoNames { needed } | Self::NoDigitalSignature { needed } => *needed == CertificateUse::Gateway,
            _ => false,
        }
    }
}

/// What a file contains whose PEM blocks are not the wanted ones, and how to get these from it.
pub(super) fn contents(text: &[u8], wanted: &str) -> Option<(&'static str, &'static str)> {
    let text = String::from_utf8_lossy(text);
    let has = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
    let is_key = wanted == "key";
    let known: [(&str, bool, &str, &str); 7] = [
        (
            "CERTIFICATE REQUEST",
            !is_key,
            "a request for a certificate",
            "let the authority sign it, and use its answer",
        ),
        (
            "NEW CERTIFICATE REQUEST",
            !is_key,
            "a request for a certificate",
            "let the authority sign it, and use its answer",
        ),
        (
            "TRUSTED CERTIFICATE",
            !is_key,
            "a certificate in OpenSSL's own form",
            "convert it (`openssl x509 -in FILE -out NEW`)",
        ),
        ("PKCS7", !is_key, "a PKCS #7 bundle", "convert it (`openssl pkcs7 -in FILE -print_certs -out NEW`)"),
        ("OPENSSH PRIVATE KEY", is_key, "a key in OpenSSH's form", "convert it (`ssh-keygen -p -m PKCS8 -f FILE`)"),
        ("PUBLIC KEY", is_key, "a public key", "use the private key that belongs to it"),
        ("CERTIFICATE", is_key, "a certificate", "use the file of the key that was made with it"),
    ];
    if let Some((_, _, found, remedy)) = known.into_iter().find(|(label, fits, ..)| *fits && has(label)) {
        return Some((found, remedy));
    }
    // An ASN.1 sequence of more than 127 bytes, as DER has it.
    let is_der = text.as_bytes().first() == Some(&0x30) && !text.contains("-----BEGIN");
    is_der.then_some(match is_key {
        true => (
            "binary data (DER or PKCS #12)",
            "convert it (`openssl pkey -inform der -in FILE -out NEW`, or `openssl pkcs12 -in FILE -nodes -nocerts -out NEW`)",
        ),
        false => (
            "binary data (DER or PKCS #12)",
            "convert it (`openssl x509 -inform der -in FILE -out NEW`, or `openssl pkcs12 -in FILE -nokeys -out NEW`)",
        ),
    })
}

/// The words for an error of the library that verifies certificates, which has only a name for it.
pub(super) fn words(library: &str) -> Option<&'static str> {
    let known = [
        (
            "UnsupportedCertVersion",
            "it is of an X.509 version before 3, which says nothing about its use: sign it again as version 3",
        ),
        ("CaUsedAsEndEntity", "it is that of an authority (CA:TRUE): let the authority sign one with CA:FALSE"),
        ("EndEntityUsedAsCa", "an intermediate certificate is no authority (it has no basicConstraints CA:TRUE)"),
        ("PathLenConstraintViolated", "an authority of the chain may not sign other authorities (pathlen)"),
        ("NameConstraintViolation", "an authority of the chain may not sign for this name (nameConstraints)"),
        ("UnhandledCriticalExtension", "it has a critical extension that is not known here"),
        ("MalformedExtensions", "its extensions cannot be read"),
        ("MalformedDnsIdentifier", "a name in it is no DNS name"),
        ("MaximumSignatureChecksExceeded", "its chain is too long"),
        ("MaximumPathDepthExceeded", "its chain is too long"),
        ("EmptyEkuExtension", "its extended key usage is empty"),
    ];
    known.into_iter().find(|(name, _)| library.contains(name)).map(|(_, words)| words)
}
