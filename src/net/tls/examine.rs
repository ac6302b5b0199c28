//! Examination of an end's own certificates: would the peers accept them?

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError as Refusal, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::problem::{CertificateUse, Problem, words};
use super::provider::provider;
use crate::net::certificate::{Certificate, Profile};

/// The name of the certificate in a sentence.
fn name(index: usize, profile: &Profile) -> String {
    if index == 0 { "the certificate".into() } else { format!("the intermediate certificate of {}", profile.subject) }
}

/// The problems of a chain that an end presents, whoever its peer is. The certificate's dates and identity are not
/// considered.
pub(super) fn chain_problems(chain: &[CertificateDer<'_>], needed: CertificateUse) -> Vec<Problem> {
    let profiles: Vec<Profile> = chain.iter().filter_map(|der| Profile::of(der)).collect();
    let Some(own) = profiles.first() else { return Vec::new() };
    let mut problems = Vec::new();
    if own.version < 3 {
        problems.push(Problem::OldVersion { version: own.version, needed });
        // All that follows is in extensions.
        return problems;
    }
    // HTTP clients accept a certificate that is its own authority.
    if own.is_authority && needed != CertificateUse::Gateway {
        problems.push(Problem::IsAuthority { needed });
    }
    let wanted = if needed == CertificateUse::Edge { "clientAuth" } else { "serverAuth" };
    if let Some(found) = &own.purposes
        && !found.iter().any(|purpose| purpose == wanted)
    {
        let found = if found.is_empty() { "nothing".into() } else { found.join(" and ") };
        problems.push(Problem::WrongPurpose { found, needed });
    }
    if !own.signs {
        problems.push(Problem::NoDigitalSignature { needed });
    }
    if needed != CertificateUse::Edge && Certificate::subjects(&chain[0]).is_ok_and(|names| names.is_empty()) {
        problems.push(Problem::NoNames { needed });
    }
    for (index, profile) in profiles.iter().enumerate() {
        // No peer verifies the signature of an authority by itself.
        if let Some(algorithm) = profile.weak_signature().filter(|_| !profile.is_self_signed) {
            problems.push(Problem::WeakSignature { subject: name(index, profile), algorithm });
        }
        if let Some(key) = &profile.weak_key {
            problems.push(Problem::WeakKey { subject: name(index, profile), key: key.clone() });
        }
    }
    problems
}

/// The problems of a file of authorities.
pub(super) fn authority_problems(authorities: &[CertificateDer<'_>]) -> Vec<Problem> {
    let profiles = authorities.iter().filter_map(|der| Profile::of(der));
    // Version 1 has no extension that says so. A certificate that is its own authority can be listed alone.
    let others = profiles.filter(|profile| profile.version >= 3 && !profile.is_authority && !profile.is_self_signed);
    others.map(|Profile { subject, issuer, .. }| Problem::NotAnAuthority { subject, issuer }).collect()
}

/// The problem that a peer would have with the chain if it had the same authorities as this end.
pub(super) fn path_problem(
    chain: &[CertificateDer<'static>],
    authorities: &[CertificateDer<'_>],
    roots: &Arc<RootCertStore>,
    (needed, ca_file): (CertificateUse, &Path),
    now: SystemTime,
) -> Option<Problem> {
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let refusal = verify(chain, roots, needed, now).err()?;
    let profiles: Vec<Profile> = chain.iter().filter_map(|der| Profile::of(der)).collect();
    let last = last_of_chain(&profiles);
    let end = profiles.get(last)?;
    let ca_file = ca_file.to_path_buf();
    match refusal {
        Refusal::UnknownIssuer if last == 0 && profiles.len() > 1 && !end.is_self_signed => {
            Some(Problem::BrokenChain { issuer: end.issuer.clone() })
        }
        Refusal::UnknownIssuer => {
            let issuer = if end.is_self_signed { "itself".into() } else { end.issuer.clone() };
            Some(Problem::UnknownIssuer { subject: name(last, end), issuer, ca_file })
        }
        Refusal::BadSignature => {
            let is_known = authorities.iter().filter_map(|der| Profile::of(der)).any(|ca| ca.subject == end.issuer);
            is_known.then(|| Problem::OtherAuthority { issuer: end.issuer.clone(), ca_file })
        }
        // These are reported for the certificates themselves.
        Refusal::Expired
        | Refusal::ExpiredContext { .. }
        | Refusal::NotValidYet
        | Refusal::NotValidYetContext { .. }
        | Refusal::NotValidForName
        | Refusal::NotValidForNameContext { .. } => None,
        other => {
            let text = format!("{other:?}");
            Some(Problem::Refused(words(&text).map_or_else(|| other.to_string(), str::to_owned)))
        }
    }
}

/// The index of the last certificate of the file that is reached from the first one, from issuer to issuer.
fn last_of_chain(profiles: &[Profile]) -> usize {
    let mut at = 0;
    for _ in profiles {
        let issuer = &profiles[at].issuer;
        let next = profiles.iter().enumerate().find(|(i, profile)| *i != at && profile.subject == *issuer);
        match next {
            Some((next, _)) if !profiles[at].is_self_signed => at = next,
            _ => break,
        }
    }
    at
}

fn verify(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    needed: CertificateUse,
    now: UnixTime,
) -> Result<(), Refusal> {
    let (own, intermediates) = chain.split_first().ok_or(Refusal::BadEncoding)?;
    let verified = match needed {
        CertificateUse::Edge => {
            let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
            let Ok(verifier) = builder.build() else { return Ok(()) };
            verifier.verify_client_cert(own, intermediates, now).map(drop)
        }
        CertificateUse::Hub | CertificateUse::Gateway => {
            let builder = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
            let Ok(verifier) = builder.build() else { return Ok(()) };
            verifier.verify_server_cert(own, intermediates, &one_name(own), &[], now).map(drop)
        }
    };
    match verified {
        Err(rustls::Error::InvalidCertificate(refusal)) => Err(refusal),
        _ => Ok(()),
    }
}

/// A name for which the certificate is valid, if it has any.
fn one_name(own: &CertificateDer<'_>) -> ServerName<'static> {
    let names = Certificate::subjects(own).unwrap_or_default();
    let found = names.into_iter().find_map(|name| ServerName::try_from(name.replacen('*', "a", 1)).ok());
    found.unwrap_or_else(|| ServerName::from(IpAddr::from([127, 0, 0, 1])))
}

/// The problem of a certificate that is not for a configured name.
pub(super) fn name_problem(own: &CertificateDer<'_>, name: &str, key: &'static str) -> Option<Problem> {
    let wanted = ServerName::try_from(name.to_owned()).ok()?;
    let parsed = rustls::server::ParsedCertificate::try_from(own).ok()?;
    rustls::client::verify_server_name(&parsed, &wanted).err()?;
    let names = Certificate::subjects(own).unwrap_or_default();
    let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
    Some(Problem::OtherName { names, name: name.into(), key })
}
