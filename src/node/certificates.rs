//! The node's own certificates and authorities as a metric: when what stands in each file expires.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics::gauge;
use crate::model::Family;

/// The expiry of each file, in seconds since the epoch: of several certificates in one file, the first to expire.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<BTreeMap<String, u64>>);

impl Certificates {
    /// Takes what was read, in place of what was read before.
    pub fn replace<'a>(&self, read: impl IntoIterator<Item = (&'a Path, SystemTime)>) {
        let mut files = BTreeMap::new();
        for (path, not_after) in read {
            let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let first = files.entry(path.display().to_string()).or_insert(seconds);
            *first = seconds.min(*first);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// The metric; nothing if the node has no certificate.
    pub fn gather(&self) -> Option<Family> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = files.iter().map(|(file, seconds)| ([("file", file.as_str())], *seconds as f64));
        let help = "When the certificates of this node in the file expire: its own, and those of authorities.";
        (!files.is_empty()).then(|| gauge("pushrelay_certificate_expiry_timestamp_seconds", help, series))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
