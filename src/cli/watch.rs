//! Detects changes of the files of credentials: certificates, keys and authorities that another program renews, and files
//! of passwords. A file may be overwritten, renamed into place, or reached by a symbolic link that is swapped.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::node::certificates::CredentialsUser;

/// Interval between two checks of the files.
const INTERVAL: Duration = Duration::from_secs(4);
/// A changed file must stay the same for this long, so that a file is not read while another program writes it.
const SETTLING: Duration = Duration::from_secs(1);
/// The same for the list of revoked certificates: a revoked edge is to be gone within a second.
const URGENT_INTERVAL: Duration = Duration::from_millis(300);
/// A list that is half written does not end in its last line, and cannot be used.
const URGENT_SETTLING: Duration = Duration::from_millis(100);

/// The files of every user of credentials.
#[derive(Debug)]
pub struct Watch {
    users: Vec<WatchedFiles>,
    /// When the files are checked that are not urgent.
    next: Instant,
}

/// The files of one user, and their state when they were last read.
#[derive(Debug)]
struct WatchedFiles {
    user: CredentialsUser,
    files: Vec<PathBuf>,
    seen: Vec<Option<FileVersion>>,
    /// The reason why the new contents could not be used, if they could not.
    failure: Option<String>,
}

/// The metadata that differs after a change: device, inode, length, and time of the last change of contents or
/// permissions, all of the file itself and not of a link to it.
type FileVersion = (u64, u64, u64, i64, i64);

impl WatchedFiles {
    fn new((user, files): (CredentialsUser, Vec<PathBuf>)) -> Self {
        let seen = versions(&files);
        Self { user, files, seen, failure: None }
    }

    /// Whether changes of the files are to be noticed within a second.
    fn is_urgent(&self) -> bool {
        self.user == CredentialsUser::Revocations
    }
}

impl Watch {
    /// Watches the files of these users. Call it before the files are read, so that no change is missed.
    pub fn new(users: Vec<(CredentialsUser, Vec<PathBuf>)>) -> Self {
        Self { users: users.into_iter().map(WatchedFiles::new).collect(), next: Instant::now() + INTERVAL }
    }

    /// Returns the users whose files have changed and then stayed the same, or must be tried again. At least one.
    pub async fn changed(&mut self) -> Vec<CredentialsUser> {
        loop {
            let has_urgent = self.users.iter().any(WatchedFiles::is_urgent);
            let soon = Instant::now() + URGENT_INTERVAL;
            let urgent = has_urgent && soon < self.next;
            sleep_until(if urgent { soon } else { self.next }).await;
            if !urgent {
                self.next = Instant::now() + INTERVAL;
            }
            let settling = if urgent { URGENT_SETTLING } else { SETTLING };
            let changed = self.check(urgent, settling).await;
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// The users whose files have changed, and then stayed the same for that time.
    async fn check(&mut self, urgent: bool, settling: Duration) -> Vec<CredentialsUser> {
        let mut changed = Vec::new();
        let seen: Vec<_> = self.users.iter().map(|watched| versions(&watched.files)).collect();
        let differs = |watched: &WatchedFiles, seen: &Vec<_>| {
            watched.is_urgent() == urgent && (watched.seen != *seen || watched.failure.is_some())
        };
        if !self.users.iter().zip(&seen).any(|(watched, seen)| differs(watched, seen)) {
            return changed;
        }
        sleep(settling).await;
        for (watched, seen) in self.users.iter_mut().zip(seen) {
            if differs(watched, &seen) && versions(&watched.files) == seen {
                watched.seen = seen;
                changed.push(watched.user.clone());
            }
        }
        changed
    }

    /// Records that a user's new files could not be used, so that every check tries again. Returns whether the reason is
    /// a new one.
    pub fn failed(&mut self, user: &CredentialsUser, reason: &str) -> bool {
        let Some(watched) = self.users.iter_mut().find(|watched| watched.user == *user) else { return true };
        let news = watched.failure.as_deref() != Some(reason);
        watched.failure = Some(reason.into());
        news
    }

    /// Records that a user's new files are in use, and watches `files` for it.
    pub fn succeeded(&mut self, user: &CredentialsUser, files: Vec<PathBuf>) {
        let Some(watched) = self.users.iter_mut().find(|watched| watched.user == *user) else { return };
        watched.failure = None;
        if watched.files != files {
            *watched = WatchedFiles::new((user.clone(), files));
        }
    }

    /// Records that everything was read again, and watches the files of `fresh`, which was made before they were read.
    /// The state of files that were watched before stays, so that a change since they were read is still noticed.
    pub fn follow(&mut self, fresh: Watch) {
        let before = std::mem::replace(&mut self.users, fresh.users);
        for watched in before {
            let same = |new: &&mut WatchedFiles| new.user == watched.user && new.files == watched.files;
            if let Some(new) = self.users.iter_mut().find(same) {
                new.seen = watched.seen;
            }
        }
    }
}

/// The state of each file. A check of a few files on a local disk takes microseconds.
fn versions(files: &[PathBuf]) -> Vec<Option<FileVersion>> {
    let mark = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok()?;
        Some((data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()))
    };
    files.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    /// Whether a change is noticed within that time.
    async fn sees(watch: &mut Watch, seconds: u64) -> bool {
        tokio::time::timeout(Duration::from_secs(seconds), watch.changed()).await.is_ok()
    }

    fn of(file: PathBuf) -> Vec<(CredentialsUser, Vec<PathBuf>)> {
        vec![(CredentialsUser::Gateway, vec![file])]
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_once() {
        let temp = TempDir::new();
        let users = of(temp.write("web.yml", "a"));
        let mut watch = Watch::new(users.clone());
        assert!(!sees(&mut watch, 60).await);
        temp.write("web.yml", "ab");
        watch.follow(Watch::new(users));
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
        std::fs::rename(temp.write("new", "cd"), temp.path().join("web.yml")).unwrap();
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
        std::fs::remove_file(temp.path().join("web.yml")).unwrap();
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
        assert!(!sees(&mut Watch::new(Vec::new()), 60).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_link_to_a_folder_is_seen() {
        let temp = TempDir::new();
        for version in ["1", "2"] {
            std::fs::create_dir(temp.path().join(version)).unwrap();
            temp.write(&format!("{version}/tls.key"), "same length");
        }
        let link = |to: &str| {
            std::os::unix::fs::symlink(to, temp.path().join("draft")).unwrap();
            std::fs::rename(temp.path().join("draft"), temp.path().join("..data")).unwrap();
        };
        link("1");
        std::os::unix::fs::symlink("..data/tls.key", temp.path().join("tls.key")).unwrap();
        let mut watch = Watch::new(of(temp.path().join("tls.key")));
        assert!(!sees(&mut watch, 60).await);
        link("2");
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
    }

    #[tokio::test(start_paused = true)]
    async fn each_user_is_named_alone() {
        let temp = TempDir::new();
        let mut users = of(temp.write("web.yml", "a"));
        users.push((CredentialsUser::Hub, vec![temp.write("hub.pem", "a")]));
        let mut watch = Watch::new(users);
        temp.write("hub.pem", "ab");
        assert_eq!(watch.changed().await, [CredentialsUser::Hub]);
        assert!(watch.failed(&CredentialsUser::Hub, "no key"));
        temp.write("web.yml", "ab");
        assert_eq!(watch.changed().await, [CredentialsUser::Gateway, CredentialsUser::Hub]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_of_revoked_certificates_is_seen_within_a_second() {
        let temp = TempDir::new();
        let mut users = of(temp.write("web.yml", "a"));
        users.push((CredentialsUser::Revocations, vec![temp.write("crl.pem", "a")]));
        let mut watch = Watch::new(users);
        assert!(!sees(&mut watch, 7).await);
        temp.write("crl.pem", "ab");
        let seen = tokio::time::timeout(Duration::from_millis(500), watch.changed()).await;
        assert_eq!(seen.unwrap(), [CredentialsUser::Revocations]);
        temp.write("web.yml", "ab");
        assert_eq!(watch.changed().await, [CredentialsUser::Gateway]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_when_its_writer_has_finished() {
        let temp = TempDir::new();
        let mut watch = Watch::new(of(temp.write("web.yml", "")));
        let writing = async {
            for length in 1..30 {
                temp.write("web.yml", &"a".repeat(length));
                sleep(Duration::from_millis(700)).await;
            }
        };
        let seen = async {
            watch.changed().await;
            std::fs::read_to_string(temp.path().join("web.yml")).unwrap().len()
        };
        assert_eq!(tokio::join!(seen, writing).0, 29);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_and_reported_once() {
        let temp = TempDir::new();
        let users = of(temp.write("web.yml", "a"));
        let (mut watch, user) = (Watch::new(users.clone()), CredentialsUser::Gateway);
        temp.write("web.yml", "ab");
        assert!(sees(&mut watch, 6).await && watch.failed(&user, "no key"));
        assert!(sees(&mut watch, 6).await && !watch.failed(&user, "no key"));
        assert!(sees(&mut watch, 6).await && watch.failed(&user, "no certificate"));
        watch.follow(Watch::new(users));
        assert!(!sees(&mut watch, 60).await);
    }
}
