//! Renewal of an edge's certificate: the edge asks the hub for another one before the present one expires, and replaces its
//! files. The node then reads them as those that an operator renewed: the link moves, and is not lost.
//!
//! Each file is replaced atomically, and a crash never leaves a certificate without its key: if certificate and key are one
//! file, the certificate is for a new key; if they are two, it is for the key that is there.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::enrolment::edge::{Granted, ask};
use super::status::UplinkStatus;
use crate::net::address::HostPort;
use crate::net::authority::EdgeKey;
use crate::net::certificate::{Certificate, date};
use crate::net::credentials::replace_file;
use crate::net::dial::Dialler;
use crate::net::tls::{Authorities, PeerChain, TlsFiles};
use crate::node::options::{NodeOptions, UplinkOptions};
use crate::node::random::random_id;

/// The longest time between two looks at the certificate's file: an operator may replace it too.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// The first pause after an attempt that failed, and the longest one.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(1_800);
/// Each edge renews its certificate up to this part of the validity sooner, at random: edges that joined together shall not
/// all ask at once.
const JITTER_PARTS: u32 = 20;

/// The files of a certificate that is renewed.
#[derive(Clone, Debug)]
pub struct RenewalFiles {
    /// The certificate, its key, and the authorities of the hub.
    pub tls: TlsFiles,
    /// Whether the file of authorities is of this uplink alone, so that those of the hub can take its place.
    pub owns_authorities: bool,
}

/// The files in force; `None` while the uplink has no certificate. A reload replaces them.
pub type SharedRenewalFiles = Arc<Mutex<Option<RenewalFiles>>>;

/// A certificate that the hub has issued.
struct Issued {
    key: EdgeKey,
    granted: Granted,
    certificate: Certificate,
    hub_chain: Option<PeerChain>,
}

/// The renewal of the certificate of one uplink.
pub struct Renewal {
    /// The hub.
    pub hub: HostPort,
    /// The files to replace.
    pub files: SharedRenewalFiles,
    /// Dials the hub.
    pub dialler: Arc<Dialler>,
    /// Counts renewals.
    pub state: Arc<UplinkStatus>,
}

impl Renewal {
    /// Renews the certificate again and again until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        let spread =
            f64::from(u32::try_from(random_id().unwrap_or_default() >> 32).unwrap_or_default()) / 2f64.powi(32);
        let mut retry = RETRY_MIN;
        let mut reported = String::new();
        let mut issued = None;
        loop {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let due = match files.as_ref().map(|files| present(&files.tls)) {
                Some(Ok(certificate)) => wait(&certificate, spread, SystemTime::now()),
                // The start or the reload reported the file; it may be right later.
                Some(Err(_)) | None => LOOK_INTERVAL,
            };
            let pause = if let Some(files) = files.filter(|_| due.is_zero()) {
                match self.renew(&files, &mut issued).await {
                    Ok(not_after) => {
                        info!(hub = %self.hub, valid_until = date(not_after), "the certificate was renewed");
                        self.state.update(|link| link.renewals.0 += 1);
                        retry = RETRY_MIN;
                        reported.clear();
                        // The hub may issue certificates whose renewal is due at once.
                        RETRY_MIN
                    }
                    Err(reason) => {
                        self.state.update(|link| link.renewals.1 += 1);
                        if reason != reported {
                            warn!(hub = %self.hub, reason, "the certificate could not be renewed; the node tries again");
                            reported = reason;
                        }
                        retry = (2 * retry).min(RETRY_MAX);
                        retry
                    }
                }
            } else {
                due.min(LOOK_INTERVAL)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Gets another certificate, and puts it in place; returns the end of its validity. One that cannot be written stays in
    /// `issued` and is tried again: a hub issues only so many.
    async fn renew(&self, files: &RenewalFiles, issued: &mut Option<Issued>) -> Result<SystemTime, String> {
        let fresh = match issued.take().filter(|issued| issued.is_usable(&files.tls, SystemTime::now())) {
            Some(issued) => issued,
            None => self.obtain(&files.tls).await?,
        };
        if let Err(reason) = fresh.put_in_place(&files.tls) {
            *issued = Some(fresh);
            return Err(reason);
        }
        if files.owns_authorities
            && let Err(reason) = self.take_authorities(&files.tls.ca_file, &fresh)
        {
            let file = files.tls.ca_file.display();
            warn!(hub = %self.hub, %file, reason, "the authorities that the hub has now could not be written");
        }
        Ok(fresh.certificate.not_after)
    }

    /// Asks the hub for another certificate.
    async fn obtain(&self, files: &TlsFiles) -> Result<Issued, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let present = present(files)?;
        let key = match files.cert_file == files.key_file {
            true => EdgeKey::generate(),
            false => EdgeKey::from_pem(&fs::read_to_string(&files.key_file).map_err(|error| text(&error))?),
        };
        let key = key.map_err(|error| text(&error))?;
        let dialled = self.dialler.dial_enrolment(&mut ()).await.map_err(|error| text(&error))?;
        let hub_chain = dialled.hub_chain;
        // The hub was verified at the handshake.
        let granted = ask(dialled.connection, None, &key, |_| Ok(())).await.map_err(|error| text(&error))?;
        let certificate = check(&granted, &key)?;
        // It may expire earlier than the present one, which can be of years, by hand.
        if certificate.edge().ok() != present.edge().ok() {
            return Err("the hub's certificate is for another edge".into());
        }
        Ok(Issued { key, granted, certificate, hub_chain })
    }

    /// Replaces the authorities of the hub by those that it names, if they verify the hub itself.
    fn take_authorities(&self, path: &Path, issued: &Issued) -> Result<(), String> {
        let fresh = &issued.granted.authorities;
        let pem = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let present = Authorities::from_pem(pem, path).map_err(|error| error.to_string())?;
        let Some(hub_chain) = &issued.hub_chain else { return Ok(()) };
        if fresh.are_the_same(&present)
            || fresh.verify_hub(self.hub.host(), hub_chain, |_| true, SystemTime::now()).is_err()
        {
            return Ok(());
        }
        replace_file(path, fresh.pem(), 0o644).map_err(|error| error.to_string())?;
        info!(hub = %self.hub, file = %path.display(), "the hub has other authorities: the file has them now");
        Ok(())
    }
}

impl Issued {
    /// Whether it can still be put in place of the files: it is valid, and for the key that stays.
    fn is_usable(&self, files: &TlsFiles, now: SystemTime) -> bool {
        let key = || fs::read_to_string(&files.key_file).ok().and_then(|pem| EdgeKey::from_pem(&pem).ok());
        let is_of_key =
            files.cert_file == files.key_file || key().is_some_and(|key| check(&self.granted, &key).is_ok());
        now < self.certificate.not_after && is_of_key
    }

    /// Writes the certificate, with its key if both are one file.
    fn put_in_place(&self, files: &TlsFiles) -> Result<(), String> {
        let pem = &self.granted.certificate_pem;
        let written = match files.cert_file == files.key_file {
            true => replace_file(&files.cert_file, &(self.key.to_pem() + pem), 0o600),
            false => replace_file(&files.cert_file, pem, 0o644),
        };
        written.map_err(|error| error.to_string())
    }
}

/// The certificate in the file.
fn present(files: &TlsFiles) -> Result<Certificate, String> {
    let pem = fs::read(&files.cert_file).map_err(|error| error.to_string())?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|error| error.to_string())?;
    Certificate::from_der(&der).map_err(|error| error.to_string())
}

/// The time until a certificate is to be renewed; `spread` is from 0 to 1.
fn wait(certificate: &Certificate, spread: f64, now: SystemTime) -> Duration {
    let lifetime = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    let sooner = (lifetime / JITTER_PARTS).mul_f64(spread);
    let due = certificate.renewal_time().checked_sub(sooner).unwrap_or(certificate.not_before);
    due.duration_since(now).unwrap_or_default()
}

/// Checks that a certificate is for the key; returns it parsed.
///
/// # Errors
/// If it is not.
pub fn check(granted: &Granted, key: &EdgeKey) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(granted.certificate_pem.as_bytes())
        .map_err(|error| format!("the hub's answer has no certificate: {error}"))?;
    if !key.is_of(&der) {
        return Err("the hub's certificate is for another key".into());
    }
    Certificate::from_der(&der).map_err(|error| error.to_string())
}

impl RenewalFiles {
    /// The files of an uplink among all files that the node reads as authorities.
    pub fn of(uplink: &UplinkOptions, options: &NodeOptions) -> Option<Self> {
        let tls = uplink.tls.certificate()?.clone();
        let of_hub = options.hub.iter().filter_map(|hub| hub.tls.as_ref()).map(|files| files.ca_file.clone());
        let all = options.uplinks.iter().flat_map(|uplink| uplink.tls.files()).chain(of_hub);
        let owns_authorities = all.filter(|file| *file == tls.ca_file).count() == 1;
        Some(Self { tls, owns_authorities })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_or_a_little_sooner() {
        let begin = SystemTime::UNIX_EPOCH;
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let certificate =
            Certificate { common_name: None, not_before: begin, not_after: begin + hours(24), uris: Vec::new() };
        assert_eq!(wait(&certificate, 0.0, begin), hours(16));
        assert_eq!(wait(&certificate, 1.0, begin), hours(16) - hours(24) / 20);
        assert_eq!(wait(&certificate, 0.0, begin + hours(20)), Duration::ZERO);
    }
}
