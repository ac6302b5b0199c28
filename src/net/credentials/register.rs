//! The authority's books: the certificates that edges have, and the list of those that are revoked.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::{CredentialsError, Directory, write_file};
use crate::net::certificate::{Certificate, Revocation, RevocationList, Serial};
use crate::net::identity::EdgeName;

/// Certificates of one edge that are valid at once, at most. An edge that renews without end would otherwise lengthen the
/// list that its revocation writes, beyond what a hub reads.
pub const CERTIFICATES_MAX: usize = 32;

/// The result of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The file of the list.
    pub list: PathBuf,
    /// The certificates that this call revoked.
    pub certificates: usize,
}

/// A certificate of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IssuedCertificate {
    serial: Serial,
    not_after: SystemTime,
}

/// Held while the books are read and changed.
#[derive(Debug)]
pub(super) struct BooksLock(#[expect(dead_code, reason = "the lock ends when the file is closed")] File);

impl Directory {
    /// The file of the list of revoked certificates.
    pub fn revocation_list(&self) -> PathBuf {
        self.0.join("crl.pem")
    }

    /// Waits until nobody else changes the books.
    pub(super) fn lock(&self) -> Result<BooksLock, CredentialsError> {
        let failed = |error| CredentialsError::Io { doing: "lock", path: self.0.clone(), error };
        let directory = File::open(&self.0).map_err(failed)?;
        directory.lock().map_err(failed)?;
        Ok(BooksLock(directory))
    }

    /// Records a certificate, so that it can be revoked by the edge's name. Expired ones are forgotten. The caller has the
    /// lock.
    pub(super) fn record(
        &self,
        name: &EdgeName,
        certificate_pem: &str,
        now: SystemTime,
    ) -> Result<(), CredentialsError> {
        let path = self.issued_file(name);
        let folder = path.parent().expect("a file in a folder");
        let failed = |error| CredentialsError::Io { doing: "create", path: folder.into(), error };
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => super::give_to_owner(folder).map_err(failed)?,
        }
        let mut issued = self.issued(name, now)?;
        if issued.len() >= CERTIFICATES_MAX {
            // Those on the list need not be revoked again.
            let revoked: BTreeSet<Serial> = self.revoked()?.into_iter().map(|revoked| revoked.serial).collect();
            issued.retain(|issued| !revoked.contains(&issued.serial));
        }
        if issued.len() >= CERTIFICATES_MAX {
            return Err(CredentialsError::TooManyCertificates { name: name.as_str().into(), count: issued.len() });
        }
        issued.extend(certificates_of(certificate_pem.as_bytes()).into_iter().take(1));
        let line = |issued: &IssuedCertificate| {
            let seconds = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            format!("{} {seconds}\n", issued.serial)
        };
        write_file(&path, &issued.iter().map(line).collect::<String>(), 0o644, true)
    }

    /// Revokes every certificate of the edge `name` that is known and valid still, and the one in the file `certificate`;
    /// signs the list anew, even if nothing is to be revoked.
    ///
    /// # Errors
    /// If there is no authority, no certificate of that name is known, or the list cannot be written.
    pub fn revoke(
        &self,
        name: Option<&EdgeName>,
        certificate: Option<&Path>,
        now: SystemTime,
    ) -> Result<Revoked, CredentialsError> {
        let authority = self.authority()?;
        let _lock = self.lock()?;
        let mut serials: Vec<Serial> = Vec::new();
        if let Some(name) = name {
            serials.extend(self.issued(name, now)?.into_iter().map(|issued| issued.serial));
            let own =
                fs::read(self.files(name.as_str()).certificate).map(|pem| certificates_of(&pem)).unwrap_or_default();
            serials.extend(own.into_iter().take(1).filter(|own| own.not_after > now).map(|own| own.serial));
        }
        if let Some(path) = certificate {
            let failed = |error| CredentialsError::Io { doing: "read", path: path.into(), error };
            let read = certificates_of(&fs::read(path).map_err(failed)?).into_iter().next();
            serials.push(read.ok_or_else(|| CredentialsError::NoCertificate(path.into()))?.serial);
        }
        if let (Some(name), true) = (name, serials.is_empty()) {
            if self.remove_invitations_of(name.as_str())? > 0 {
                return Ok(Revoked { list: self.revocation_list(), certificates: 0 });
            }
            return Err(CredentialsError::NothingToRevoke(name.as_str().into()));
        }
        let mut revoked = self.revoked()?;
        let before = revoked.len();
        let mut known: BTreeSet<Serial> = revoked.iter().map(|revoked| revoked.serial.clone()).collect();
        let fresh = serials.into_iter().filter(|serial| known.insert(serial.clone()));
        revoked.extend(fresh.map(|serial| Revocation { serial, at: now }));
        let list = self.revocation_list();
        write_file(&list, &authority.revocation_list(&revoked, now)?, 0o644, true)?;
        // Afterwards: a damaged invitation must not keep a certificate valid.
        if let Some(name) = name {
            self.remove_invitations_of(name.as_str())?;
        }
        Ok(Revoked { list, certificates: revoked.len() - before })
    }

    /// Whether a certificate is on the list.
    ///
    /// # Errors
    /// If the list or the authority cannot be read.
    pub fn is_revoked(&self, serial: &Serial) -> Result<bool, CredentialsError> {
        Ok(self.revoked()?.iter().any(|revoked| revoked.serial == *serial))
    }

    /// The certificates on the list of this authority; none if there is no list.
    fn revoked(&self) -> Result<Vec<Revocation>, CredentialsError> {
        let path = self.revocation_list();
        let pem = match fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CredentialsError::Io { doing: "read", path, error }),
        };
        let authority = self.files("ca").certificate;
        let failed = |error| CredentialsError::Io { doing: "read", path: authority.clone(), error };
        let authority = CertificateDer::from_pem_slice(&fs::read(&authority).map_err(failed)?)
            .map_err(|_| CredentialsError::NoCertificate(authority.clone()))?;
        let foreign = |reason| CredentialsError::ForeignList { path: path.clone(), reason };
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| foreign("it is damaged"))?;
        if lists.is_empty() {
            return Err(foreign("it has no -----BEGIN X509 CRL----- block"));
        }
        let mut revoked = Vec::new();
        for list in lists {
            let parsed = RevocationList::from_der(&list).ok_or_else(|| foreign("it is damaged"))?;
            match RevocationList::is_signed_by(&list, &authority) {
                Some(true) => revoked.extend(parsed.revoked),
                Some(false) => return Err(foreign("the key of ca.pem did not sign it")),
                None => return Err(foreign("it is of another authority than ca.pem")),
            }
        }
        Ok(revoked)
    }

    fn issued_file(&self, name: &EdgeName) -> PathBuf {
        self.0.join("issued").join(name.as_str())
    }

    /// The recorded certificates of an edge that are valid at `now`.
    fn issued(&self, name: &EdgeName, now: SystemTime) -> Result<Vec<IssuedCertificate>, CredentialsError> {
        let path = self.issued_file(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CredentialsError::Io { doing: "read", path, error }),
        };
        let mut issued = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (serial, seconds) = line.split_once(' ').unwrap_or((line, ""));
            let serial = serial.parse().map_err(|error| CredentialsError::DamagedRegister {
                path: path.clone(),
                line: index + 1,
                error,
            })?;
            // A date that cannot be read counts as far away: to revoke too much is the safe side.
            let seconds = seconds.parse().unwrap_or(u64::from(u32::MAX));
            let not_after =
                UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(now + Duration::from_secs(1));
            issued.push(IssuedCertificate { serial, not_after });
        }
        issued.retain(|issued| issued.not_after > now);
        Ok(issued)
    }
}

/// The certificates in PEM; other contents are skipped.
fn certificates_of(pem: &[u8]) -> Vec<IssuedCertificate> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    certificates
        .filter_map(|der| {
            Some(IssuedCertificate {
                serial: Serial::of(&der)?,
                not_after: Certificate::from_der(&der).ok()?.not_after,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::credentials::IssueOptions;
    use crate::net::identity::EdgeIdentity;
    use crate::net::testing::TempDir;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn every_certificate_of_a_name_is_revoked_but_not_the_next_one() {
        let (temp, now) = (TempDir::new(), SystemTime::now());
        let directory = Directory::new(temp.path());
        let issue = |days| IssueOptions { now, days: Some(days), force: true };
        directory.init(issue(9)).unwrap();
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1").unwrap();
        let name = &identity.name;
        let serial = |path: &Path| certificates_of(&fs::read(path).unwrap())[0].serial.clone();
        let own = directory.files("syq-1").certificate;
        assert!(matches!(directory.revoke(Some(name), None, now), Err(CredentialsError::NothingToRevoke(_))));
        let serials: Vec<Serial> = [1, 5, 6]
            .map(|days| {
                directory.edge(&identity, issue(days)).unwrap();
                serial(&own)
            })
            .into();
        let later = now + 2 * DAY;
        assert_eq!(directory.revoke(Some(name), None, later).unwrap().certificates, 2, "one has expired");
        assert_eq!(directory.revoke(Some(name), None, later).unwrap().certificates, 0, "they are on the list");
        let is_revoked = |serial: &Serial| directory.is_revoked(serial).unwrap();
        assert_eq!(serials.iter().map(is_revoked).collect::<Vec<_>>(), [false, true, true]);
        directory.edge(&identity, issue(7)).unwrap();
        assert!(!is_revoked(&serial(&own)));
        assert_eq!(directory.revoke(None, Some(&own), now).unwrap().certificates, 1);
        // Another authority begins another list.
        directory.init(issue(9)).unwrap();
        assert!(!is_revoked(&serials[1]));
    }

    #[test]
    fn a_list_that_is_damaged_or_foreign_is_no_empty_list() {
        let (temp, other, now) = (TempDir::new(), TempDir::new(), SystemTime::now());
        let issue = IssueOptions { now, days: None, force: false };
        let (directory, foreign) = (Directory::new(temp.path()), Directory::new(other.path()));
        directory.init(issue).unwrap();
        foreign.init(issue).unwrap();
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1").unwrap();
        directory.edge(&identity, issue).unwrap();
        let own = fs::read_to_string(directory.revocation_list()).unwrap();
        let others = fs::read_to_string(foreign.revocation_list()).unwrap();
        for (list, reason) in [
            (String::new(), "it has no -----BEGIN"),
            (own.replace("-----END", "-----EN"), "no list of this authority"),
            (own.replacen('M', "N", 1), "no list of this authority"),
            (others.clone(), "no list of this authority"),
            (format!("{own}{others}"), "no list of this authority"),
        ] {
            fs::write(directory.revocation_list(), &list).unwrap();
            let error = directory.revoke(Some(&identity.name), None, now).unwrap_err().to_string();
            assert!(error.contains("crl.pem") && error.contains(reason), "{list}: {error}");
            assert_eq!(fs::read_to_string(directory.revocation_list()).unwrap(), list, "it is not replaced");
        }
        fs::write(directory.revocation_list(), own).unwrap();
        assert_eq!(directory.revoke(Some(&identity.name), None, now).unwrap().certificates, 1);
    }

    #[test]
    fn a_damaged_register_is_an_error() {
        let temp = TempDir::new();
        fs::create_dir(temp.path().join("issued")).unwrap();
        temp.write("issued/a", "ab12 99999999999\nnonsense\n");
        let error = Directory::new(temp.path()).issued(&"a".parse().unwrap(), SystemTime::now()).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
