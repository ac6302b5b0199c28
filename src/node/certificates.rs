//! The credentials of the node: who uses which files, loading with warnings, the certificates in use, and their metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{error, warn};

use super::error::StartError;
use super::link::uplink_credentials::UplinkCredentials;
use super::metrics::gauge;
use super::options::{NodeOptions, RemoteWriteOptions, UplinkOptions, WebSecurity};
use crate::model::Family;
use crate::net::address::HostPort;
use crate::net::certificate::Certificate;
use crate::net::http::sender::{SenderFileError, SenderKeys};
use crate::net::proxy::{ProxyFileError, ProxyKeys, ProxyOptions};
use crate::net::tls::{Acceptor, Connector, Credentials, TlsError, TlsFiles};

/// A part of the node that has credentials of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialsUser {
    /// The gateway: its certificate, the authorities of clients, and the passwords.
    Gateway,
    /// The listener for edges.
    Hub,
    /// The list of revoked certificates of edges, at the listener for them.
    Revocations,
    /// The uplink to that hub.
    Uplink(HostPort),
    /// The receiver of remote write of that name.
    RemoteWrite(String),
}

impl fmt::Display for CredentialsUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Hub => f.write_str("hub"),
            Self::Revocations => f.write_str("revocations"),
            Self::Uplink(hub) => write!(f, "uplink {hub}"),
            Self::RemoteWrite(receiver) => write!(f, "remote_write {receiver}"),
        }
    }
}

impl CredentialsUser {
    /// Every user of credentials in these options, with the files that it reads.
    pub fn all(options: &NodeOptions) -> Vec<(Self, Vec<PathBuf>)> {
        let link = |files: &TlsFiles| vec![files.ca_file.clone(), files.cert_file.clone(), files.key_file.clone()];
        let uplink = |uplink: &UplinkOptions| {
            let of_proxy = uplink.proxy.iter().flat_map(ProxyOptions::files).map(PathBuf::from);
            let all = uplink.tls.files().into_iter().chain(uplink.token_file.clone()).chain(of_proxy);
            (Self::Uplink(uplink.hub.clone()), all.collect())
        };
        let mut users: Vec<_> = options.uplinks.iter().map(uplink).collect();
        let hub = options.hub.as_ref().and_then(|hub| hub.tls.as_ref());
        users.extend(hub.map(|files| (Self::Hub, link(files))));
        let crl_file = hub.and_then(|files| files.crl_file.clone());
        users.extend(crl_file.map(|file| (Self::Revocations, vec![file])));
        let remote_write = |options: &RemoteWriteOptions| {
            (Self::RemoteWrite(options.name.clone()), options.sender.files().map(PathBuf::from).collect::<Vec<_>>())
        };
        users.extend(options.remote_writes.iter().map(remote_write).filter(|(_, files)| !files.is_empty()));
        if options.web.security != WebSecurity::default() {
            users.push((Self::Gateway, gateway_files(&options.web.security)));
        }
        users
    }

    /// The uplink of these options that this is.
    pub(super) fn uplink<'a>(&self, options: &'a NodeOptions) -> Option<&'a UplinkOptions> {
        let Self::Uplink(hub) = self else { return None };
        options.uplinks.iter().find(|uplink| uplink.hub == *hub)
    }
}

impl CredentialsUser {
    /// Reads the credentials of a receiver of remote write; `None` if this is none of these options.
    ///
    /// # Errors
    /// If a file cannot be read or used.
    pub(super) fn load_receiver(&self, options: &NodeOptions) -> Result<Option<SenderKeys>, SenderFileError> {
        let Self::RemoteWrite(name) = self else { return Ok(None) };
        let receiver = options.remote_writes.iter().find(|receiver| receiver.name == *name);
        receiver.map(|receiver| SenderKeys::load(&receiver.sender)).transpose()
    }

    /// Reads the secrets of the proxy of an uplink; `None` if it has no proxy.
    ///
    /// # Errors
    /// If a file cannot be read or used.
    pub(super) fn load_proxy(&self, options: &NodeOptions) -> Result<Option<ProxyKeys>, ProxyFileError> {
        self.uplink(options).and_then(|uplink| uplink.proxy.as_ref()).map(ProxyKeys::load).transpose()
    }
}

fn gateway_files(security: &WebSecurity) -> Vec<PathBuf> {
    let tls = security.tls.iter().flat_map(|tls| tls.files());
    security.config_file.iter().map(PathBuf::as_path).chain(tls).map(Into::into).collect()
}

/// The certificates that are in use, by user, and whether the files on disk could be read when they last changed.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<UsersOfCredentials>);

#[derive(Debug, Default)]
struct UsersOfCredentials {
    /// Whether the last read succeeded.
    readable: BTreeMap<CredentialsUser, bool>,
    links: BTreeMap<CredentialsUser, LinkInUse>,
}

#[derive(Debug)]
struct LinkInUse {
    own: Certificate,
    /// When each file expires, and when it should have been renewed, in seconds since the epoch. If a file contains several
    /// certificates, the earliest times.
    expiries: BTreeMap<String, (u64, u64)>,
}

fn earliest<'a>(certificates: impl Iterator<Item = (&'a Path, &'a Certificate)>) -> BTreeMap<String, (u64, u64)> {
    let mut files = BTreeMap::new();
    for (path, certificate) in certificates {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let times = (seconds(certificate.not_after), seconds(certificate.warning_time()));
        let first = files.entry(path.display().to_string()).or_insert(times);
        *first = earlier(*first, times);
    }
    files
}

fn earlier(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0.min(other.0), one.1.min(other.1))
}

impl Certificates {
    /// Records the certificate that a user of links uses, and the expiries of the files.
    pub fn in_use<'a>(
        &self,
        user: &CredentialsUser,
        own: &Certificate,
        certificates: impl Iterator<Item = (&'a Path, &'a Certificate)>,
    ) {
        self.lock().links.insert(user.clone(), LinkInUse { own: own.clone(), expiries: earliest(certificates) });
    }

    /// Records that a user of links has no certificate.
    pub fn not_in_use(&self, user: &CredentialsUser) {
        self.lock().links.remove(user);
    }

    /// Records whether the credentials of a user could be read.
    pub fn read(&self, user: &CredentialsUser, succeeded: bool) {
        self.lock().readable.insert(user.clone(), succeeded);
    }

    /// Records that the credentials of these users could be read, and that there are no other users.
    pub fn all_read(&self, users: impl IntoIterator<Item = CredentialsUser>) {
        self.lock().readable = users.into_iter().map(|user| (user, true)).collect();
    }

    /// Checks that credentials can take the place of those that the user has.
    ///
    /// # Errors
    /// The reason why they cannot.
    pub(super) fn check(&self, user: &CredentialsUser, fresh: &Credentials, now: SystemTime) -> Result<(), TlsError> {
        let is_the_same = self.lock().links.get(user).is_none_or(|present| present.own == *fresh.certificate());
        TlsError::check_successor(is_the_same, fresh.own_problems(now))
    }

    /// When the first of the certificates that links use expires, in seconds since the epoch.
    pub fn first_expiry_seconds(&self) -> Option<u64> {
        self.lock().links.values().flat_map(|user| user.expiries.values()).map(|times| times.0).min()
    }

    /// The files of the links' certificates, each with the seconds since the Unix epoch at which the first of its certificates
    /// expires, and at which it should have been renewed.
    pub fn files(&self) -> Vec<(String, u64, u64)> {
        let users = self.lock();
        let mut files: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (file, times) in users.links.values().flat_map(|user| &user.expiries) {
            let first = files.entry(file).or_insert(*times);
            *first = earlier(*first, *times);
        }
        files.into_iter().map(|(file, times)| (file.to_owned(), times.0, times.1)).collect()
    }

    /// Whether files have changed and cannot be used.
    pub fn is_failing(&self) -> bool {
        self.lock().readable.values().any(|readable| !readable)
    }

    /// The metrics of expiries and of reading.
    pub fn gather(&self) -> Vec<Family> {
        let (files, users) = (self.files(), self.lock());
        let expiries = || files.iter().map(|(file, expiry, warning)| (file.as_str(), (*expiry, *warning)));
        let mut families = Vec::new();
        if !files.is_empty() {
            let series = expiries().map(|(file, times)| ([("file", file)], times.0 as f64));
            let help = "When the certificates of this node in the file expire: its own, and those of authorities.";
            families.push(gauge("pushrelay_certificate_expiry_timestamp_seconds", help, series));
            let series = expiries().map(|(file, times)| ([("file", file)], times.1 as f64));
            let help = "When the certificates of this node in the file should have been renewed.";
            families.push(gauge("pushrelay_certificate_warning_timestamp_seconds", help, series));
        }
        if !users.readable.is_empty() {
            let names: Vec<_> = users.readable.iter().map(|(user, ok)| (user.to_string(), *ok)).collect();
            let series = names.iter().map(|(user, ok)| ([("used_by", user.as_str())], f64::from(u8::from(*ok))));
            let help = "Whether the credentials' files, as they are now, could be read; if not, older ones are in use.";
            families.push(gauge("pushrelay_credentials_last_read_successful", help, series));
        }
        families
    }

    fn lock(&self) -> MutexGuard<'_, UsersOfCredentials> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates, keys and tokens of all configured links.
pub(super) struct LoadedCredentials {
    pub uplinks: Vec<UplinkCredentials>,
    pub hub: Option<Credentials>,
}

impl LoadedCredentials {
    /// The certificates of all links, with their users.
    pub fn users<'a>(&'a self, options: &'a NodeOptions) -> impl Iterator<Item = (CredentialsUser, &'a Credentials)> {
        let uplinks = options.uplinks.iter().zip(&self.uplinks);
        let uplinks = uplinks.filter_map(|(uplink, credentials)| {
            Some((CredentialsUser::Uplink(uplink.hub.clone()), credentials.certificate.as_ref()?))
        });
        uplinks.chain(self.hub.iter().map(|credentials| (CredentialsUser::Hub, credentials)))
    }
}

/// Reads the credentials of all links.
pub(super) fn load_credentials(options: &NodeOptions) -> Result<LoadedCredentials, StartError> {
    let hub = options.hub.as_ref().and_then(|hub| hub.tls.as_ref());
    Ok(LoadedCredentials {
        uplinks: options.uplinks.iter().map(UplinkCredentials::load).collect::<Result<_, _>>()?,
        hub: hub.map(Credentials::load).transpose()?,
    })
}

/// Logs what is wrong with certificates, and which of them expire soon. A node whose certificate cannot be used still
/// accepts pushes.
pub(super) fn log_problems(credentials: &Credentials) {
    let now = SystemTime::now();
    let problems = credentials.problems(now);
    for problem in &problems {
        if problem.is_doubt() {
            warn!(%problem, "the other end of a link may refuse a certificate");
        } else {
            error!(%problem, "a certificate cannot be used now: links will fail until it is replaced");
        }
    }
    if problems.iter().all(TlsError::is_doubt) {
        for problem in credentials.expiring(now) {
            warn!(%problem, "a certificate expires within 14 days");
        }
    }
}

/// Credentials that were read again and can take the place of those in use.
pub(super) struct FreshEnd<'a> {
    pub user: CredentialsUser,
    /// The certificate, if there is one.
    pub credentials: Option<&'a Credentials>,
    pub side: LinkSide,
}

/// The part of a link that uses credentials.
pub(super) enum LinkSide {
    Hub(Acceptor),
    Uplink(Connector, Option<ProxyKeys>),
}

impl<'a> FreshEnd<'a> {
    /// Checks that the credentials of the hub can take the place of those that it has.
    ///
    /// # Errors
    /// The reason why they cannot.
    pub fn of_hub(in_use: &Certificates, credentials: &'a Credentials) -> Result<Self, TlsError> {
        let user = CredentialsUser::Hub;
        in_use.check(&user, credentials, SystemTime::now())?;
        Ok(Self { user, credentials: Some(credentials), side: LinkSide::Hub(Acceptor::new(credentials)?) })
    }

    /// The same for an uplink; `proxy` has the secrets of its proxy.
    ///
    /// # Errors
    /// The reason why they cannot.
    pub fn of_uplink(
        in_use: &Certificates,
        hub: &HostPort,
        fresh: &'a UplinkCredentials,
        proxy: Option<ProxyKeys>,
    ) -> Result<Self, TlsError> {
        let (user, credentials) = (CredentialsUser::Uplink(hub.clone()), fresh.certificate.as_ref());
        credentials.map_or(Ok(()), |credentials| in_use.check(&user, credentials, SystemTime::now()))?;
        Ok(Self { user, credentials, side: LinkSide::Uplink(fresh.connector()?, proxy) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_expire_in_a_file_counts() {
        let of = |seconds| Certificate {
            common_name: None,
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + std::time::Duration::from_secs(seconds),
            uris: Vec::new(),
        };
        let files = [(Path::new("ca.pem"), &of(16)), (Path::new("a.pem"), &of(8)), (Path::new("ca.pem"), &of(12))];
        let files: Vec<_> = earliest(files.into_iter()).into_iter().collect();
        assert_eq!(files, [("a.pem".into(), (8, 6)), ("ca.pem".into(), (12, 9))]);
    }

    #[test]
    fn a_user_that_a_reload_removes_is_no_longer_shown() {
        let certificates = Certificates::default();
        let shown = || certificates.gather().iter().map(|family| family.schema().series_len()).sum::<usize>();
        certificates.all_read([CredentialsUser::Gateway, CredentialsUser::Hub]);
        certificates.read(&CredentialsUser::Gateway, false);
        assert_eq!(shown(), 2);
        certificates.all_read([CredentialsUser::Hub]);
        assert_eq!(shown(), 1);
        certificates.all_read([]);
        assert_eq!(certificates.gather().len(), 0);
    }
}
