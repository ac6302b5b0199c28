//! Lists of revoked certificates (CRLs): read and checked, and the verifier of edges' certificates that uses them.
//!
//! A list counts whatever its date for the next update says: a hub that refused every edge because nobody signed the list
//! again would be worse than an old list. Only the edge's own certificate is looked up, not intermediate authorities.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::error::TlsError;
use super::files::{not_pem, read};
use super::provider::provider;
use crate::net::certificate::RevocationList;

/// Lists of revoked certificates, at most one for each authority.
pub(super) type RevocationLists = Vec<CertificateRevocationListDer<'static>>;

/// Reads the lists of a file; none without a file.
///
/// # Errors
/// If the file cannot be read, or one of its lists is of none of the authorities: it would have no effect, or refuse every
/// certificate.
pub(super) fn load_lists<'a>(
    path: Option<&Path>,
    authorities: impl Iterator<Item = &'a CertificateDer<'static>> + Clone,
) -> Result<RevocationLists, TlsError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let bad = |reason: String| TlsError::BadRevocationList { path: path.into(), reason };
    let lists: RevocationLists = CertificateRevocationListDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem(path, &error))?;
    if lists.is_empty() {
        return Err(TlsError::NoRevocationList(path.into()));
    }
    for list in &lists {
        let parsed = RevocationList::from_der(list).ok_or_else(|| bad("it is damaged".into()))?;
        let signed: Vec<bool> =
            authorities.clone().filter_map(|authority| RevocationList::is_signed_by(list, authority)).collect();
        if !signed.contains(&true) {
            let issuer = parsed.issuer;
            return Err(bad(match signed.is_empty() {
                true => format!("it is the list of {issuer}, which is no authority of client_ca_file"),
                false => format!("it is not signed by the key of {issuer} in client_ca_file"),
            }));
        }
    }
    Ok(lists)
}

/// The verifier of edges' certificates; with `anonymous` it takes clients without one. `ca_file` is the file that an error
/// names.
///
/// # Errors
/// If there is no authority.
pub(super) fn client_verifier(
    roots: &Arc<RootCertStore>,
    lists: &RevocationLists,
    (ca_file, anonymous): (&Path, bool),
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .with_crls(lists.iter().cloned())
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status();
    let builder = if anonymous { builder.allow_unauthenticated() } else { builder };
    let built = builder.build();
    built.map_err(|error| TlsError::BadCertificate { path: ca_file.into(), reason: error.to_string() })
}
