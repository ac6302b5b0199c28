//! Invitations, and certificates for edges that made their keys themselves.
//!
//! An invitation is the file `invitations/HASH`, named by the hash of its secret: JSON with the edge's name and site labels,
//! the time when it expires, and the hash of the public key that used it. It is used by one key: a second request with the
//! same key gets a certificate too, because the answer to the first may be lost.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CredentialsError, Directory, RESERVED_NAMES, give_to_owner, write_file};
use crate::net::authority::{CertificateRequest, Validity};
use crate::net::certificate::Serial;
use crate::net::identity::{EdgeIdentity, site_labels};
use crate::net::invitation::{InvitationSecret, InvitationWord, sha256_hex};
use crate::net::tls::{Authorities, TlsError};

/// Invitations that are open at once, at most.
const INVITATIONS_MAX: usize = 10_000;

/// The contents of an invitation's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InvitationFile {
    name: String,
    labels: BTreeMap<String, String>,
    /// In seconds since the epoch.
    expires: u64,
    /// The SHA-256 of the public key that used it.
    #[serde(default)]
    key: Option<String>,
}

/// The reasons for which an edge gets no certificate.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    /// There is no such invitation.
    #[error(
        "the hub knows no such invitation: it was used or expired long ago, or is of another authority; ask for a new one"
    )]
    Unknown,
    /// The invitation has expired.
    #[error("the invitation has expired: ask for a new one (`pushrelay pki invite NAME`)")]
    Expired,
    /// Another key used the invitation.
    #[error(
        "the invitation was used already, with another key: if that was not you, revoke the edge (`pushrelay pki revoke NAME`)"
    )]
    Used,
    /// The certificate that asks for its renewal is revoked.
    #[error("the certificate is revoked: it is not renewed")]
    Revoked,
    /// The edge has too many certificates that are valid still.
    #[error("{0}")]
    TooMany(CredentialsError),
    /// The books cannot be read or written, or the certificate cannot be signed.
    #[error("{0}")]
    Books(CredentialsError),
}

impl From<CredentialsError> for EnrolmentError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::TooManyCertificates { .. } => Self::TooMany(error),
            error => Self::Books(error),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Directory {
    /// Checks that certificates can be signed here: the authority is there, and its key is readable for its owner alone.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check_authority(&self) -> Result<(), CredentialsError> {
        self.authority()?;
        let key = self.files("ca").key;
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&key).map_err(|error| CredentialsError::Io {
            doing: "read",
            path: key.clone(),
            error,
        })?);
        if mode & 0o077 != 0 { Err(CredentialsError::OpenKey { path: key, mode: mode & 0o777 }) } else { Ok(()) }
    }

    /// The authority's certificate.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub fn authorities(&self) -> Result<Authorities, TlsError> {
        let path = self.files("ca").certificate;
        let pem = fs::read_to_string(&path).map_err(|error| TlsError::Unreadable { path: path.clone(), error })?;
        Authorities::from_pem(pem, &path)
    }

    /// Invites an edge until `expires`. Invitations that expired are removed.
    ///
    /// # Errors
    /// If the name is reserved, there is no authority, too many invitations are open, or the file cannot be written.
    pub fn invite(
        &self,
        identity: &EdgeIdentity,
        expires: SystemTime,
        now: SystemTime,
    ) -> Result<InvitationWord, CredentialsError> {
        let name = identity.name.as_str();
        if RESERVED_NAMES.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(CredentialsError::ReservedName(name.into()));
        }
        self.check_authority()?;
        let authorities = self.authorities().map_err(|error| CredentialsError::Tls(Box::new(error)))?;
        let fingerprint = authorities.fingerprints().next().ok_or(CredentialsError::NoAuthority(self.0.clone()))?;
        let word = InvitationWord::generate(&fingerprint).map_err(super::AuthorityError::Random)?;
        let _lock = self.lock()?;
        let folder = self.invitations();
        let failed = |error| CredentialsError::Io { doing: "create", path: folder.clone(), error };
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => give_to_owner(&folder).map_err(failed)?,
        }
        if self.remove_expired(now)? >= INVITATIONS_MAX {
            return Err(CredentialsError::TooManyInvitations(INVITATIONS_MAX));
        }
        let labels = identity.labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect();
        let invitation = InvitationFile { name: name.into(), labels, expires: seconds(expires), key: None };
        self.write_invitation(&word.secret().hash(), &invitation)?;
        Ok(word)
    }

    /// The edge that an invitation is for, if it can be used at `now`.
    ///
    /// # Errors
    /// If it is unknown or has expired.
    pub fn invited(&self, secret: &InvitationSecret, now: SystemTime) -> Result<EdgeIdentity, EnrolmentError> {
        let invitation = self.read_invitation(&secret.hash())?.ok_or(EnrolmentError::Unknown)?;
        if invitation.expires <= seconds(now) {
            return Err(EnrolmentError::Expired);
        }
        let name = invitation.name.parse().map_err(|_| EnrolmentError::Unknown)?;
        let labels = site_labels(invitation.labels.into_iter().collect()).map_err(|_| EnrolmentError::Unknown)?;
        Ok(EdgeIdentity { name, labels })
    }

    /// Uses an invitation: signs a certificate for the key of the request; returns it as PEM.
    ///
    /// # Errors
    /// If the invitation is unknown, has expired, or was used with another key.
    pub fn redeem(
        &self,
        secret: &InvitationSecret,
        request: &CertificateRequest,
        validity: Validity,
        now: SystemTime,
    ) -> Result<(EdgeIdentity, String), EnrolmentError> {
        let _lock = self.lock()?;
        let identity = self.invited(secret, now)?;
        let hash = secret.hash();
        let mut invitation = self.read_invitation(&hash)?.ok_or(EnrolmentError::Unknown)?;
        let key = sha256_hex(&request.key_der());
        if invitation.key.as_ref().is_some_and(|used_by| *used_by != key) {
            return Err(EnrolmentError::Used);
        }
        invitation.key = Some(key);
        // It is used before there is a certificate: a crash in between costs a word, and not its being one-time.
        self.write_invitation(&hash, &invitation)?;
        let certificate = self.sign(&identity, request, validity, now)?;
        Ok((identity, certificate))
    }

    /// Signs another certificate for an edge that showed the one with this serial number; returns it as PEM.
    ///
    /// # Errors
    /// If that one is revoked.
    pub fn renew(
        &self,
        identity: &EdgeIdentity,
        present: &Serial,
        request: &CertificateRequest,
        validity: Validity,
        now: SystemTime,
    ) -> Result<String, EnrolmentError> {
        let _lock = self.lock()?;
        if self.is_revoked(present)? {
            return Err(EnrolmentError::Revoked);
        }
        Ok(self.sign(identity, request, validity, now)?)
    }

    /// Signs a certificate and records it. The caller has the lock: a revocation finds it, or comes before.
    fn sign(
        &self,
        identity: &EdgeIdentity,
        request: &CertificateRequest,
        validity: Validity,
        now: SystemTime,
    ) -> Result<String, CredentialsError> {
        let certificate = self.authority()?.edge_of(request, identity, validity)?;
        self.record(&identity.name, &certificate, now)?;
        Ok(certificate)
    }

    /// Removes the invitations of a name; returns their number. The caller has the lock.
    pub(super) fn remove_invitations_of(&self, name: &str) -> Result<usize, CredentialsError> {
        self.sweep(|invitation| invitation.name == name).map(|(removed, _)| removed)
    }

    /// Removes invitations that expired; returns the number of the others.
    fn remove_expired(&self, now: SystemTime) -> Result<usize, CredentialsError> {
        self.sweep(|invitation| invitation.expires <= seconds(now)).map(|(_, left)| left)
    }

    fn sweep(&self, is_over: impl Fn(&InvitationFile) -> bool) -> Result<(usize, usize), CredentialsError> {
        let folder = self.invitations();
        let (mut removed, mut left) = (0, 0);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
            Err(error) => return Err(CredentialsError::Io { doing: "read", path: folder, error }),
        };
        for entry in entries.flatten() {
            // Other files may lie there: drafts, copies of an editor.
            let name = entry.file_name();
            let Some(hash) = name.to_str().filter(|name| is_hash(name)) else { continue };
            let Some(invitation) = self.read_invitation(hash)? else { continue };
            if is_over(&invitation) {
                removed += usize::from(fs::remove_file(entry.path()).is_ok());
            } else {
                left += 1;
            }
        }
        Ok((removed, left))
    }

    fn invitations(&self) -> PathBuf {
        self.0.join("invitations")
    }

    fn read_invitation(&self, hash: &str) -> Result<Option<InvitationFile>, CredentialsError> {
        let path = self.invitations().join(hash);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|_| CredentialsError::DamagedInvitation(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CredentialsError::Io { doing: "read", path, error }),
        }
    }

    fn write_invitation(&self, hash: &str, invitation: &InvitationFile) -> Result<(), CredentialsError> {
        let json = serde_json::to_string(invitation).map_err(|error| CredentialsError::Io {
            doing: "write",
            path: Path::new(hash).into(),
            error: error.into(),
        })?;
        write_file(&self.invitations().join(hash), &json, 0o600, true)
    }
}

/// Whether a text is a SHA-256 in hexadecimal.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The time for which an invitation can be used, unless another one is asked for.
pub const INVITATION_LIFETIME: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::net::authority::EdgeKey;
    use crate::net::credentials::IssueOptions;
    use crate::net::credentials::register::CERTIFICATES_MAX;
    use crate::net::testing::TempDir;

    fn request(key: &EdgeKey) -> CertificateRequest {
        CertificateRequest::from_der(&key.request().unwrap()).unwrap()
    }

    #[test]
    fn an_invitation_is_used_by_one_key_in_its_time() {
        let (temp, now) = (TempDir::new(), SystemTime::now());
        let directory = Directory::new(temp.path());
        let hour = Duration::from_secs(3_600);
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ").unwrap();
        assert!(directory.invite(&identity, now + hour, now).unwrap_err().to_string().contains("pushrelay pki init"));
        directory.init(IssueOptions { now, days: None, force: false }).unwrap();
        let word = directory.invite(&identity, now + hour, now).unwrap();
        let (one, other) = (EdgeKey::generate().unwrap(), EdgeKey::generate().unwrap());
        let validity = Validity::days(now, 1);
        let redeem =
            |word: &InvitationWord, key: &EdgeKey, at| directory.redeem(word.secret(), &request(key), validity, at);
        let (redeemed, certificate) = redeem(&word, &one, now).unwrap();
        assert_eq!(redeemed, identity);
        assert!(redeem(&word, &one, now).is_ok(), "the answer may have been lost");
        assert!(matches!(redeem(&word, &other, now), Err(EnrolmentError::Used)));
        assert!(matches!(redeem(&word, &one, now + hour), Err(EnrolmentError::Expired)));
        let foreign = InvitationWord::generate(&[0; 32]).unwrap();
        assert!(matches!(redeem(&foreign, &one, now), Err(EnrolmentError::Unknown)));
        // The secret is not in the file, nor its name.
        let files: Vec<_> = fs::read_dir(temp.path().join("invitations")).unwrap().flatten().collect();
        assert_eq!(files.len(), 1);
        let contents = fs::read_to_string(files[0].path()).unwrap() + files[0].file_name().to_str().unwrap();
        assert!(!contents.contains(&word.secret().to_base64()));
        // An invitation that expired is removed by the next one.
        directory.invite(&identity, now + 3 * hour, now + 2 * hour).unwrap();
        assert_eq!(fs::read_dir(temp.path().join("invitations")).unwrap().count(), 1);

        let der = CertificateDer::from_pem_slice(certificate.as_bytes());
        let serial = Serial::of(&der.unwrap()).unwrap();
        let renewed = directory.renew(&identity, &serial, &request(&other), validity, now).unwrap();
        assert_ne!(renewed, certificate);
        assert_eq!(directory.revoke(Some(&identity.name), None, now).unwrap().certificates, 3);
        let refused = directory.renew(&identity, &serial, &request(&other), validity, now);
        assert!(matches!(refused, Err(EnrolmentError::Revoked)));
        assert!(fs::read_dir(temp.path().join("invitations")).unwrap().next().is_none(), "its invitations are gone");
    }

    #[test]
    fn an_edge_that_renews_without_end_gets_no_more_than_its_share_and_returns_after_a_revocation() {
        let (temp, now) = (TempDir::new(), SystemTime::now());
        let directory = Directory::new(temp.path());
        directory.init(IssueOptions { now, days: None, force: false }).unwrap();
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1").unwrap();
        let (key, serial) = (EdgeKey::generate().unwrap(), Serial::new(&[1]));
        let renew = |at| directory.renew(&identity, &serial, &request(&key), Validity::days(at, 1), at);
        for _ in 0..CERTIFICATES_MAX {
            renew(now).unwrap();
        }
        let error = renew(now).unwrap_err();
        assert!(matches!(&error, EnrolmentError::TooMany(_)), "{error}");
        assert!(error.to_string().contains("has 32 certificates that are valid still"), "{error}");
        assert!(renew(now + Duration::from_secs(90_000)).is_ok(), "they have expired");
        let other = EdgeIdentity::from_uri("pushrelay://edge/bj-1").unwrap();
        for _ in 0..CERTIFICATES_MAX {
            directory.renew(&other, &serial, &request(&key), Validity::days(now, 1), now).unwrap();
        }
        assert_eq!(directory.revoke(Some(&other.name), None, now).unwrap().certificates, CERTIFICATES_MAX);
        assert!(directory.renew(&other, &serial, &request(&key), Validity::days(now, 1), now).is_ok());
    }

    #[test]
    fn an_invitation_that_cannot_be_read_stays_and_is_named() {
        let (temp, now) = (TempDir::new(), SystemTime::now());
        let directory = Directory::new(temp.path());
        directory.init(IssueOptions { now, days: None, force: false }).unwrap();
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1").unwrap();
        let word = directory.invite(&identity, now + Duration::from_secs(60), now).unwrap();
        let path = format!("invitations/{}", word.secret().hash());
        let whole = fs::read_to_string(temp.path().join(&path)).unwrap();
        temp.write(&path, &whole[..whole.len() / 2]);
        temp.write("invitations/notes.txt", "mine");
        let hash = word.secret().hash();
        for error in [
            directory.invite(&identity, now + Duration::from_secs(60), now).unwrap_err().to_string(),
            directory.revoke(Some(&identity.name), None, now).unwrap_err().to_string(),
            directory.invited(word.secret(), now).unwrap_err().to_string(),
        ] {
            assert!(error.contains(&hash) && error.contains("is damaged"), "{error}");
        }
        assert!(temp.path().join(&path).exists() && temp.path().join("invitations/notes.txt").exists());
        // Nor does it keep a certificate valid.
        let options = IssueOptions { now, days: None, force: false };
        let files = directory.edge(&identity, options).unwrap();
        assert!(directory.revoke(Some(&identity.name), None, now).unwrap_err().to_string().contains(&hash));
        let pem = fs::read(&files.certificate).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        assert!(directory.is_revoked(&Serial::of(&der).unwrap()).unwrap());
        temp.write(&path, &whole);
        assert_eq!(directory.invited(word.secret(), now).unwrap(), identity);
    }

    #[test]
    fn a_key_that_others_can_read_signs_nothing() {
        let (temp, now) = (TempDir::new(), SystemTime::now());
        let directory = Directory::new(temp.path());
        directory.init(IssueOptions { now, days: None, force: false }).unwrap();
        directory.check_authority().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        fs::set_permissions(temp.path().join("ca.key"), mode).unwrap();
        let error = directory.check_authority().unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("640"), "{error}");
    }
}
