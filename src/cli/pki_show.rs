//! `pushrelay pki show FILE`: the contents of certificates, as far as nodes care.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::net::certificate::date;
use crate::net::tls::{ShownCertificate, TlsError, show};

/// Prints the certificates of the files. Returns whether all are valid at `now`.
///
/// # Errors
/// A file has no certificate.
pub fn print_files(files: &[PathBuf], now: SystemTime, out: &mut dyn Write) -> Result<io::Result<bool>, TlsError> {
    let mut text = String::new();
    let mut all_valid = true;
    for file in files {
        for ShownCertificate { certificate, profile, names } in show(file)? {
            let is_valid = certificate.not_before <= now && now < certificate.not_after;
            all_valid &= is_valid;
            let state = if is_valid { "" } else { ": NOT VALID NOW" };
            let is_client = profile.purposes.iter().flatten().any(|purpose| purpose == "clientAuth");
            let kind = match (profile.is_authority, certificate.edge()) {
                (true, _) => "an authority".to_owned(),
                (false, Ok(edge)) if is_client => match edge.labels.is_empty() {
                    true => format!("the edge {}, without a site", edge.name),
                    false => format!("the edge {} of the site {}", edge.name, edge.labels),
                },
                (false, _) => "a server or client".to_owned(),
            };
            let (start, end) = (date(certificate.not_before), date(certificate.not_after));
            let purposes = profile.purposes.map_or("anything".into(), |purposes| purposes.join(", "));
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            text += &format!(
                "{}: {kind}\n  subject  {}\n  issuer   {}\n  names    {names}\n  valid    {start} to {end}{state}\n  for      {purposes}\n",
                file.display(),
                profile.subject,
                profile.issuer,
            );
        }
    }
    Ok(out.write_all(text.as_bytes()).map(|()| all_valid))
}
