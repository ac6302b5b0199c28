//! The issuer of a hub: signs certificates for edges with an invitation, and for those that renew theirs.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;
use tracing::warn;

use super::Ask;
use super::attempts::WrongInvitations;
use crate::model::Family;
use crate::net::authority::{CertificateRequest, Validity};
use crate::net::credentials::{CredentialsError, Directory, EnrolmentError};
use crate::net::identity::EdgeIdentity;
use crate::net::invitation::InvitationSecret;
use crate::net::tls::{Authorities, PeerChain};
use crate::node::link::peer::LinkPeer;
use crate::node::metrics::counter;
use crate::node::options::{EnrolmentOptions, HubOptions};

/// Renewals at once, at most; further ones wait.
const RENEWALS_MAX: usize = 32;
/// Enrolments at once of clients without a certificate, at most; further ones are refused. They take no place of a renewal.
const STRANGERS_MAX: usize = 32;

/// The results of enrolments; their names are values of the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnrolmentResult {
    Joined,
    Renewed,
    Unknown,
    Expired,
    Used,
    Refused,
    Limited,
    Failed,
}

impl EnrolmentResult {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Joined, "joined"),
        (Self::Renewed, "renewed"),
        (Self::Unknown, "unknown"),
        (Self::Expired, "expired"),
        (Self::Used, "used"),
        (Self::Refused, "refused"),
        (Self::Limited, "limited"),
        (Self::Failed, "failed"),
    ];
}

/// A refusal: its result for metrics, and the reason for the edge and the log.
pub(super) type EnrolmentRefusal = (EnrolmentResult, String);

/// The enrolment of a hub.
#[derive(Debug)]
pub struct Enrolment {
    directory: Directory,
    lifetime: Duration,
    /// The authorities of the edges' certificates; a reload can name another file.
    client_ca_file: Mutex<PathBuf>,
    wrong: Mutex<WrongInvitations>,
    pub(super) renewals: Semaphore,
    pub(super) strangers: Semaphore,
    counts: [AtomicU64; EnrolmentResult::ALL.len()],
}

impl Enrolment {
    /// The enrolment of a hub with these options; `None` if it has none.
    ///
    /// # Errors
    /// If the authority's files cannot be used.
    pub fn new(hub: &HubOptions) -> Result<Option<Self>, CredentialsError> {
        let (Some(EnrolmentOptions { directory, certificate_lifetime }), Some(tls)) = (&hub.enrolment, &hub.tls) else {
            return Ok(None);
        };
        let directory = Directory::new(directory);
        directory.check_authority()?;
        Ok(Some(Self {
            directory,
            lifetime: *certificate_lifetime,
            client_ca_file: Mutex::new(tls.ca_file.clone()),
            wrong: Mutex::default(),
            renewals: Semaphore::new(RENEWALS_MAX),
            strangers: Semaphore::new(STRANGERS_MAX),
            counts: Default::default(),
        }))
    }

    /// The authorities of the edges' certificates are in that file from now on.
    pub fn follow(&self, client_ca_file: &Path) {
        *self.client_ca_file.lock().unwrap_or_else(PoisonError::into_inner) = client_ca_file.into();
    }

    /// The counters as a metric.
    pub fn gather(&self) -> Family {
        let counts = EnrolmentResult::ALL.iter().zip(&self.counts);
        let series = counts.map(|((_, name), count)| ([("result", *name)], count.load(Ordering::Relaxed) as f64));
        counter("pushrelay_hub_enrolments_total", "Edges that asked for a certificate, by the result.", series)
    }

    pub(super) fn count(&self, result: EnrolmentResult) {
        self.counts[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The authority that signs, and those of the edges' certificates: an edge trusts them all from now on.
    pub(super) fn authorities(&self) -> Result<String, String> {
        let own = self.directory.authorities().map_err(|error| error.to_string())?;
        let file = self.client_ca_file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pem = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let all = Authorities::from_pem(pem, &file).map_err(|error| error.to_string())?;
        let has = |fingerprint| all.fingerprints().any(|other| other == fingerprint);
        let is_listed = own.fingerprints().all(has);
        Ok(if is_listed { all.pem().to_owned() } else { format!("{}{}", own.pem(), all.pem()) })
    }

    fn validity(&self, now: SystemTime) -> Validity {
        Validity::of(now, self.lifetime)
    }

    /// Signs a certificate as asked; returns the edge's identity with it. `admit` says, right before, whether the edge may
    /// connect.
    pub(super) fn answer(
        &self,
        frame: &[u8],
        peer: Option<&LinkPeer>,
        address: IpAddr,
        admit: impl Fn(&EdgeIdentity) -> Result<(), String>,
    ) -> Result<(EdgeIdentity, String, EnrolmentResult), EnrolmentRefusal> {
        let failed = |text: &str| (EnrolmentResult::Failed, text.to_owned());
        let ask: Ask = serde_json::from_slice(frame).map_err(|_| failed("the message is none of an enrolment"))?;
        let request = ask.request().ok_or_else(|| failed("the request for a certificate is no base64"))?;
        let request = CertificateRequest::from_der(&request).map_err(|error| failed(&error.to_string()))?;
        let admit = |identity: &EdgeIdentity| admit(identity).map_err(|text| (EnrolmentResult::Refused, text));
        let now = SystemTime::now();
        match (&ask.secret, peer) {
            (Some(secret), _) => {
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                if !wrong.may_try(address, Instant::now()) {
                    let text = "too many wrong invitations came from this address: wait a minute";
                    return Err((EnrolmentResult::Limited, text.into()));
                }
                let joined = self.join(&admit, secret, &request, now);
                if matches!(
                    joined,
                    Err((EnrolmentResult::Unknown | EnrolmentResult::Expired | EnrolmentResult::Used, _))
                ) {
                    wrong.count(address, Instant::now());
                }
                joined.map(|(identity, certificate)| (identity, certificate, EnrolmentResult::Joined))
            }
            (None, Some(peer)) => {
                admit(&peer.identity)?;
                let serial = peer
                    .chain()
                    .and_then(PeerChain::serial)
                    .ok_or_else(|| failed("the certificate has no serial number"))?;
                let certificate = self
                    .directory
                    .renew(&peer.identity, &serial, &request, self.validity(now), now)
                    .map_err(refusal)?;
                Ok((peer.identity.clone(), certificate, EnrolmentResult::Renewed))
            }
            (None, None) => Err(failed("neither an invitation nor a certificate was shown")),
        }
    }

    fn join(
        &self,
        admit: &impl Fn(&EdgeIdentity) -> Result<(), EnrolmentRefusal>,
        secret: &str,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<(EdgeIdentity, String), EnrolmentRefusal> {
        let secret = InvitationSecret::from_base64(secret).map_err(|_| refusal(EnrolmentError::Unknown))?;
        // An edge that may not connect does not use up its invitation.
        admit(&self.directory.invited(&secret, now).map_err(refusal)?)?;
        self.directory.redeem(&secret, request, self.validity(now), now).map_err(refusal)
    }
}

fn refusal(error: EnrolmentError) -> EnrolmentRefusal {
    let result = match &error {
        EnrolmentError::Unknown => EnrolmentResult::Unknown,
        EnrolmentError::Expired => EnrolmentResult::Expired,
        EnrolmentError::Used => EnrolmentResult::Used,
        EnrolmentError::Revoked => EnrolmentResult::Refused,
        EnrolmentError::TooMany(_) => EnrolmentResult::Limited,
        // The paths of the hub are not the edge's business.
        EnrolmentError::Books(error) => {
            warn!(%error, "the authority's files cannot be used: no certificate was issued");
            return (EnrolmentResult::Failed, "the hub cannot issue certificates now: its log has the reason".into());
        }
    };
    (result, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_is_counted_under_its_name() {
        for (at, (result, _)) in EnrolmentResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, at);
        }
    }
}
