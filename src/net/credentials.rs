//! Files of certificates and private keys, all in one directory: `ca.pem` and `ca.key`, `hub.pem` and `hub.key`,
//! `NAME.pem` and `NAME.key`; and the authority's books in it: `crl.pem`, the list of revoked certificates, and
//! `issued/NAME`, the serial numbers of an edge's certificates that are valid still; and the open invitations, in
//! `invitations/`.
//!
//! A key file has mode 0600 from the moment it exists. An existing file is overwritten only on request, and then the
//! new file replaces it atomically. Files that root makes belong to the owner of the directory, so that a hub that runs as
//! another user can read them. The books are changed under a lock on the directory, because the program and a hub may
//! change them at once.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use thiserror::Error;

use super::authority::{AUTHORITY_DAYS, Authority, AuthorityError, Issued, LEAF_DAYS, Validity};
use super::certificate::BadSerial;
use super::identity::EdgeIdentity;
use super::tls::TlsError;

mod enrolment;
mod register;

pub use enrolment::{EnrolmentError, INVITATION_LIFETIME};
pub use register::Revoked;

/// Names that an edge cannot have, because files of these names belong to the authority and the hub.
pub const RESERVED_NAMES: [&str; 3] = ["ca", "crl", "hub"];

/// Options for issuing a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssueOptions {
    /// The time from which the validity counts.
    pub now: SystemTime,
    /// Days of validity; `None` for [`AUTHORITY_DAYS`] or [`LEAF_DAYS`].
    pub days: Option<u32>,
    /// Whether existing files are replaced.
    pub force: bool,
}

/// The files of a certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
}

/// A directory of certificates and private keys, with the authority's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(PathBuf);

/// The reasons for which files cannot be made.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The directory contains no authority yet.
    #[error("there is no authority in {0:?}: make one with `pushrelay pki init`")]
    NoAuthority(PathBuf),
    /// The file exists already.
    #[error("{0:?} exists already: move it away, or replace it with --force")]
    Exists(PathBuf),
    /// The name is reserved: see [`RESERVED_NAMES`].
    #[error("an edge cannot be called {0:?}: {0}.pem is another's certificate")]
    ReservedName(String),
    /// A file or directory could not be read or written.
    #[error("cannot {doing} {path:?}: {error}")]
    Io {
        /// The operation that failed: `read`, `write` or `create`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The certificate cannot be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No certificate of the edge is known.
    #[error(
        "no certificate of {0:?} is known here that is valid still: name the file of one with --certificate FILE, or one \
         that expired needs no revocation"
    )]
    NothingToRevoke(String),
    /// The file has no certificate.
    #[error("{0:?} has no certificate")]
    NoCertificate(PathBuf),
    /// The authority's key can be read by others.
    #[error("{path:?} signs certificates and can be read by others (mode {mode:o}): chmod 600 {path:?}")]
    OpenKey {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The authority's certificate cannot be used.
    #[error("{0}")]
    Tls(Box<TlsError>),
    /// Too many invitations are open.
    #[error("{0} invitations are open: revoke edges that shall not come, or wait until some expire")]
    TooManyInvitations(usize),
    /// An edge has too many certificates that are valid still.
    #[error(
        "{name:?} has {count} certificates that are valid still, and gets no more: wait until one expires, or revoke them \
         (`pushrelay pki revoke {name}`) and give the edge another"
    )]
    TooManyCertificates {
        /// The edge's name.
        name: String,
        /// The number of its certificates.
        count: usize,
    },
    /// The list of revoked certificates is damaged, or another authority's.
    #[error(
        "{path:?} is no list of this authority: {reason}; put the right one back, or move it away to begin an empty one, in \
         which no certificate is revoked"
    )]
    ForeignList {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// An invitation cannot be read.
    #[error("the invitation {0:?} is damaged: remove it, and invite its edge again")]
    DamagedInvitation(PathBuf),
    /// A line of the register is damaged.
    #[error("{path:?} is damaged, line {line}: {error}")]
    DamagedRegister {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The damage.
        error: BadSerial,
    },
}

impl Directory {
    /// The directory at `path`. It is created when the first file is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The paths of the files of that name (`ca`, `hub` or an edge's name), whether or not they exist.
    pub fn files(&self, name: &str) -> KeyPairFiles {
        KeyPairFiles { certificate: self.0.join(format!("{name}.pem")), key: self.0.join(format!("{name}.key")) }
    }

    /// Creates an authority.
    ///
    /// # Errors
    /// If the files exist and are not to be replaced, cannot be written, or the certificate cannot be issued.
    pub fn init(&self, issue: IssueOptions) -> Result<KeyPairFiles, CredentialsError> {
        let files = self.files("ca");
        self.create()?;
        let _lock = self.lock()?;
        let list = self.revocation_list();
        check_free([&files.certificate, &files.key, &list], issue.force)?;
        let authority = Authority::generate(Validity::days(issue.now, issue.days.unwrap_or(AUTHORITY_DAYS)))?;
        let files = self.write(files, &authority.to_pem(), issue.force)?;
        // The list of an authority that is replaced says nothing of the certificates of this one.
        write_file(&list, &authority.revocation_list(&[], issue.now)?, 0o644, true)?;
        Ok(files)
    }

    /// Creates a hub's certificate and private key; `hosts` are the names and addresses by which edges reach it.
    ///
    /// # Errors
    /// If there is no authority, the files exist and are not to be replaced, cannot be written, or the certificate
    /// cannot be issued.
    pub fn hub(&self, hosts: &[String], issue: IssueOptions) -> Result<KeyPairFiles, CredentialsError> {
        let files = self.files("hub");
        check_free([&files.certificate, &files.key], issue.force)?;
        self.write(files, &self.authority()?.hub(hosts, leaf(issue))?, issue.force)
    }

    /// Creates an edge's certificate and private key.
    ///
    /// # Errors
    /// If the name is reserved, there is no authority, the files exist and are not to be replaced, cannot be written,
    /// or the certificate cannot be issued.
    pub fn edge(&self, identity: &EdgeIdentity, issue: IssueOptions) -> Result<KeyPairFiles, CredentialsError> {
        let name = identity.name.as_str();
        if RESERVED_NAMES.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(CredentialsError::ReservedName(name.into()));
        }
        let files = self.files(name);
        check_free([&files.certificate, &files.key], issue.force)?;
        let issued = self.authority()?.edge(identity, leaf(issue))?;
        let _lock = self.lock()?;
        self.record(&identity.name, &issued.certificate_pem, issue.now)?;
        self.write(files, &issued, issue.force)
    }

    fn authority(&self) -> Result<Authority, CredentialsError> {
        let files = self.files("ca");
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => CredentialsError::NoAuthority(self.0.clone()),
                _ => CredentialsError::Io { doing: "read", path: path.into(), error },
            })
        };
        Ok(Authority::from_pem(&read(&files.certificate)?, &read(&files.key)?)?)
    }

    fn write(&self, files: KeyPairFiles, issued: &Issued, force: bool) -> Result<KeyPairFiles, CredentialsError> {
        self.create()?;
        write_file(&files.key, &issued.key_pem, 0o600, force)?;
        write_file(&files.certificate, &issued.certificate_pem, 0o644, force)?;
        Ok(files)
    }
}

impl Directory {
    fn create(&self) -> Result<(), CredentialsError> {
        let failed = |error| CredentialsError::Io { doing: "create", path: self.0.clone(), error };
        fs::create_dir_all(&self.0).map_err(failed)
    }
}

fn leaf(issue: IssueOptions) -> Validity {
    Validity::days(issue.now, issue.days.unwrap_or(LEAF_DAYS))
}

/// Checks that none of the files exists before one is made, so that no half of a pair is left behind.
fn check_free<const N: usize>(files: [&PathBuf; N], force: bool) -> Result<(), CredentialsError> {
    let taken = files.into_iter().find(|path| path.symlink_metadata().is_ok());
    match taken {
        Some(path) if !force => Err(CredentialsError::Exists(path.clone())),
        _ => Ok(()),
    }
}

/// Writes a file under a temporary name and then moves it. If nothing may be replaced, the move is a hard link, which
/// fails if the target has appeared meanwhile.
fn write_file(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), CredentialsError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => CredentialsError::Exists(path.into()),
        _ => CredentialsError::Io { doing: "write", path: path.into(), error },
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let unwritable = |error| CredentialsError::Io { doing: "write", path: path.into(), error };
    let (mut file, draft) = open_draft(path, &options).map_err(unwritable)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| give_to_owner(&draft))
        .and_then(|()| if force { fs::rename(&draft, path) } else { fs::hard_link(&draft, path) });
    // After a rename the temporary file is gone already.
    let _ = fs::remove_file(&draft);
    written.and_then(|()| sync_folder_of(path)).map_err(failed)
}

/// Makes the names in a file's folder durable: an edge that was revoked must not be valid again after a power cut.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

/// Opens a new file beside `path`. Several threads may write the same file at once, and a process that was killed may have
/// left a file of that name.
fn open_draft(path: &Path, options: &OpenOptions) -> io::Result<(fs::File, PathBuf)> {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    let mut attempts = 0;
    loop {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.{}.new", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed)));
        let draft = PathBuf::from(draft);
        match options.open(&draft) {
            Ok(file) => return Ok((file, draft)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < DRAFTS_MAX => attempts += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Names of drafts that are tried, at most.
const DRAFTS_MAX: u32 = 1_000;

/// Replaces a file atomically; a new one has that mode.
///
/// # Errors
/// If it cannot be written.
pub fn replace_file(path: &Path, text: &str, mode: u32) -> Result<(), CredentialsError> {
    write_file(path, text, mode, true)
}

/// Gives a file that root made to the owner of its directory.
fn give_to_owner(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let Some(owner) = path.parent().and_then(|parent| parent.metadata().ok()).map(|data| (data.uid(), data.gid()))
    else {
        return Ok(());
    };
    let is_root = rustix::process::geteuid().is_root();
    if is_root && owner.0 != 0 { chown(path, Some(owner.0), Some(owner.1)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    fn issue(force: bool) -> IssueOptions {
        IssueOptions { now: SystemTime::now(), days: None, force }
    }

    #[test]
    fn keys_are_their_owners_alone_and_nothing_is_overwritten() {
        let temp = TempDir::new();
        let directory = Directory::new(temp.path().join("certs"));
        let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1").unwrap();
        let none = directory.edge(&identity, issue(false)).unwrap_err();
        assert!(none.to_string().contains("pushrelay pki init"), "{none}");

        directory.init(issue(false)).unwrap();
        let files = directory.edge(&identity, issue(false)).unwrap();
        let key = fs::read(&files.key).unwrap();
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&files.key).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
        let again = directory.edge(&identity, issue(false)).unwrap_err();
        assert!(again.to_string().contains("--force"), "{again}");
        assert_eq!(fs::read(&files.key).unwrap(), key);
        directory.edge(&identity, issue(true)).unwrap();
        assert_ne!(fs::read(&files.key).unwrap(), key);
        let names = fs::read_dir(temp.path().join("certs")).unwrap().count();
        assert_eq!(names, 6, "ca, edge, crl.pem and issued, and no drafts");
    }

    #[test]
    fn a_draft_that_was_left_behind_keeps_nothing_from_being_written() {
        let temp = TempDir::new();
        let path = temp.path().join("a.pem");
        for number in 0..200 {
            temp.write(&format!("a.pem.{}.{number}.new", std::process::id()), "");
        }
        temp.write(&format!("a.pem.{}.new", std::process::id()), "");
        write_file(&path, "x", 0o600, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        let written: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| write_file(&path, "y", 0o600, true))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }

    #[test]
    fn an_authority_is_made_under_the_lock() {
        let temp = TempDir::new();
        let directory = Directory::new(temp.path());
        directory.init(issue(false)).unwrap();
        let lock = directory.lock().unwrap();
        let before = fs::read(directory.files("ca").key).unwrap();
        std::thread::scope(|scope| {
            let made = scope.spawn(|| directory.init(issue(true)));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!made.is_finished() && fs::read(directory.files("ca").key).unwrap() == before);
            drop(lock);
            made.join().unwrap().unwrap();
        });
        assert_ne!(fs::read(directory.files("ca").key).unwrap(), before);
        fs::remove_file(directory.files("ca").key).unwrap();
        fs::remove_file(directory.files("ca").certificate).unwrap();
        let error = directory.init(issue(false)).unwrap_err().to_string();
        assert!(error.contains("crl.pem"), "a list of another authority is not lost unasked: {error}");
    }

    #[test]
    fn an_edge_cannot_take_anothers_files() {
        let temp = TempDir::new();
        let directory = Directory::new(temp.path());
        directory.init(issue(false)).unwrap();
        for name in ["ca", "crl", "hub", "HUB"] {
            let identity = EdgeIdentity::from_uri(&format!("pushrelay://edge/{name}")).unwrap();
            assert!(matches!(directory.edge(&identity, issue(true)), Err(CredentialsError::ReservedName(_))));
        }
    }
}
