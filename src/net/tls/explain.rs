//! Errors of TLS in words for an operator, with their likely cause.

use std::io;

use rustls::{AlertDescription, CertificateError as Refusal};

use super::problem::words;

/// Explains an error of an encrypted stream, with its likely cause. An error that is not of TLS is returned as it is.
pub fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(refusal)) => explain_refusal(refusal),
        Some(rustls::Error::AlertReceived(alert)) => explain_alert(*alert),
        Some(rustls::Error::NoCertificatesPresented) => {
            "the other end showed no certificate, and one is required".into()
        }
        Some(rustls::Error::PeerIncompatible(_)) => "the other end does not speak TLS 1.3".into(),
        Some(rustls::Error::InvalidMessage(_)) => "the other end does not speak TLS".into(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other end closed the connection and gave no reason: look at its log".into()
        }
        None if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            format!("{error}; the other end gave no reason: look at its log")
        }
        None => error.to_string(),
    }
}

/// Whether an error of a stream is of its encryption, and not of the connection below.
pub fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Whether the other end refused this one for showing no certificate.
pub fn is_certificate_required(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)))
}

fn explain_refusal(refusal: &Refusal) -> String {
    let why = match refusal {
        // An authority with the same name but another key gives `BadSignature`.
        Refusal::UnknownIssuer | Refusal::BadSignature => {
            "it is not signed by an authority of this end's CA file, or an intermediate certificate is missing behind it"
                .into()
        }
        Refusal::Expired | Refusal::ExpiredContext { .. } => {
            format!("it has expired (or this host's clock is wrong) ({refusal})")
        }
        Refusal::NotValidYet | Refusal::NotValidYetContext { .. } => {
            format!("it is not yet valid (or this host's clock is wrong) ({refusal})")
        }
        Refusal::Revoked => {
            "it is revoked: an operator put it on the list of revoked certificates (hub.tls.crl_file); if that was a \
             mistake, give the edge a new certificate"
                .into()
        }
        Refusal::NotValidForNameContext { expected, presented } => explain_name(&expected.to_str(), presented),
        Refusal::InvalidPurpose | Refusal::InvalidPurposeContext { .. } => format!(
            "it is not meant for this end of a connection (extendedKeyUsage): an edge needs clientAuth, a hub serverAuth; \
             `pushrelay pki` makes both ({refusal})"
        ),
        Refusal::UnsupportedSignatureAlgorithmContext { .. }
        | Refusal::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an old algorithm such as SHA-1, or with a short key: let the authority sign it with SHA-256 \
             and a key of at least 2048 bits"
                .into()
        }
        other => match words(&format!("{other:?}")) {
            Some(words) => words.into(),
            None => format!("it is not valid ({other})"),
        },
    };
    format!("the other end's certificate is refused: {why}")
}

/// The library writes a name as `DnsName("hub.example.org")` or `IpAddress(127.0.0.1)`.
fn explain_name(expected: &str, presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        name.trim_matches('"').to_owned()
    };
    let names: Vec<String> = presented.iter().map(bare).collect();
    let remedy = format!("make one with `pushrelay pki hub {expected}`, or sign one with this subjectAltName");
    if names.is_empty() {
        return format!(
            "it is for another host: it has no subject alternative name, and {expected:?} was dialled; {remedy}"
        );
    }
    format!(
        "it is for another host: for {}, not for {expected:?}; dial one of these names, or {remedy}",
        names.join(", ")
    )
}

fn explain_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "this end's certificate is not signed by an authority that it trusts, or not in a way that it accepts"
        }
        AlertDescription::CertificateExpired => "this end's certificate has expired, or is not yet valid, by its clock",
        AlertDescription::CertificateRequired => "it requires a certificate",
        AlertDescription::UnsupportedCertificate => {
            "this end's certificate is not meant for this end of a connection (extendedKeyUsage)"
        }
        AlertDescription::CertificateRevoked => {
            "this end's certificate is revoked: if it shall connect again, it needs a new certificate"
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            "it does not accept this end's certificate"
        }
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
        AlertDescription::InternalError => "it has as many connections as it accepts (hub.connections_max), or failed",
        _ => "it ended the handshake",
    };
    format!("the other end refused: {why} ({alert:?}); its log has the details")
}
