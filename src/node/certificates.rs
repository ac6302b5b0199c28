//! The certificates and authorities of the node's links: loading with warnings, and the metric of each file's expiry.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{error, warn};

use super::metrics::gauge;
use super::options::{NodeOptions, UplinkOptions};
use crate::model::Family;
use crate::net::tls::{Credentials, TlsError, TlsFiles};

/// A certificate that expires within this time causes a warning at start and at every reload.
pub(super) const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// The expiry of each file in seconds since the epoch. If a file contains several certificates, the earliest expiry.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<BTreeMap<String, u64>>);

impl Certificates {
    /// Replaces all expiries.
    pub fn replace<'a>(&self, read: impl IntoIterator<Item = (&'a Path, SystemTime)>) {
        let mut files = BTreeMap::new();
        for (path, not_after) in read {
            let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let first = files.entry(path.display().to_string()).or_insert(seconds);
            *first = seconds.min(*first);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// The metric of expiries; `None` if the node has no certificate.
    pub fn gather(&self) -> Option<Family> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = files.iter().map(|(file, seconds)| ([("file", file.as_str())], *seconds as f64));
        let help = "When the certificates of this node in the file expire: its own, and those of authorities.";
        (!files.is_empty()).then(|| gauge("pushrelay_certificate_expiry_timestamp_seconds", help, series))
    }
}

/// The certificates and keys of all configured links.
pub(super) struct LoadedCredentials {
    pub uplinks: Vec<Credentials>,
    pub hub: Option<Credentials>,
}

impl LoadedCredentials {
    /// The expiry of each certificate, with its file.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, SystemTime)> {
        self.uplinks.iter().chain(&self.hub).flat_map(Credentials::expiries)
    }
}

/// Reads all certificates, and logs those that are not valid or expire soon. A node with an expired certificate still
/// accepts pushes.
pub(super) fn load_credentials(options: &NodeOptions) -> Result<LoadedCredentials, TlsError> {
    let load = |files: &TlsFiles| {
        let credentials = Credentials::load(files)?;
        let now = SystemTime::now();
        let problems = credentials.check(now);
        for problem in &problems {
            error!(%problem, "a certificate cannot be used now: links will fail until it is replaced");
        }
        if problems.is_empty() {
            for problem in credentials.check(now + EXPIRY_WARNING) {
                warn!(%problem, "a certificate expires within 14 days");
            }
        }
        Ok(credentials)
    };
    Ok(LoadedCredentials {
        uplinks: options.uplinks.iter().map(|uplink: &UplinkOptions| load(&uplink.tls)).collect::<Result<_, _>>()?,
        hub: options.hub.as_ref().map(|hub| load(&hub.tls)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_expire_in_a_file_counts_and_a_reload_replaces_all() {
        let certificates = Certificates::default();
        assert!(certificates.gather().is_none());
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        certificates.replace([(Path::new("ca.pem"), at(9)), (Path::new("a.pem"), at(5)), (Path::new("ca.pem"), at(7))]);
        assert_eq!(certificates.gather().unwrap().values()[..], [5.0, 7.0]);
        certificates.replace([(Path::new("a.pem"), at(6))]);
        assert_eq!(certificates.gather().unwrap().values()[..], [6.0]);
    }
}
