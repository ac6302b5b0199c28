//! Whether the files that protect the gateway have changed: certificates that something renews, and the file that
//! `--web.config.file` names, which programs of the Prometheus family read anew without being told.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use crate::node::options::WebSecurity;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(4);
/// How long a file must have stayed as it is: one that is being written is not read half-way.
const SETTLING: Duration = Duration::from_secs(1);

/// The files, as they were when they were last looked at.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<Mark>>,
    /// Why what they say could not be taken.
    failure: Option<String>,
}

/// What is other in a file that has changed: device, inode, length, and when it or its permissions were changed.
type Mark = (u64, u64, u64, i64, i64);

impl Watch {
    /// Watches the files that these options name.
    pub fn new(security: &WebSecurity) -> Self {
        let files = files(security);
        let seen = look(&files);
        Self { files, seen, failure: None }
    }

    /// Ends when a file is other than it was and stays so, or when what failed is to be tried again.
    pub async fn changed(&mut self) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(INTERVAL).await;
            let seen = look(&self.files);
            if seen == self.seen && self.failure.is_none() {
                continue;
            }
            sleep(SETTLING).await;
            if look(&self.files) == seen {
                self.seen = seen;
                return;
            }
        }
    }

    /// What the files say could not be taken: it is tried again at every look. Says whether that is news.
    pub fn failed(&mut self, reason: &str) -> bool {
        let news = self.failure.as_deref() != Some(reason);
        self.failure = Some(reason.into());
        news
    }

    /// What they say was taken: watches the files that these options name. Files that were watched before are not looked
    /// at anew: what changed since they were read is still to be seen.
    pub fn follow(&mut self, security: &WebSecurity) {
        self.failure = None;
        let files = files(security);
        if files != self.files {
            *self = Self::new(security);
        }
    }
}

fn files(security: &WebSecurity) -> Vec<PathBuf> {
    let tls = security.tls.iter().flat_map(|tls| tls.files());
    security.config_file.iter().map(PathBuf::as_path).chain(tls).map(Into::into).collect()
}

/// A few files on a local disk: looking at them takes microseconds.
fn look(files: &[PathBuf]) -> Vec<Option<Mark>> {
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

    /// Whether a change is seen within that time.
    async fn sees(watch: &mut Watch, seconds: u64) -> bool {
        tokio::time::timeout(Duration::from_secs(seconds), watch.changed()).await.is_ok()
    }

    fn of(file: PathBuf) -> WebSecurity {
        WebSecurity { config_file: Some(file), ..WebSecurity::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_once() {
        let temp = TempDir::new();
        let security = of(temp.write("web.yml", "a"));
        let mut watch = Watch::new(&security);
        assert!(!sees(&mut watch, 60).await);
        temp.write("web.yml", "ab");
        watch.follow(&security);
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
        std::fs::rename(temp.write("new", "cd"), temp.path().join("web.yml")).unwrap();
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
        std::fs::remove_file(temp.path().join("web.yml")).unwrap();
        assert!(sees(&mut watch, 6).await && !sees(&mut watch, 60).await);
        assert!(!sees(&mut Watch::new(&WebSecurity::default()), 60).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_is_waited_for() {
        let temp = TempDir::new();
        let mut watch = Watch::new(&of(temp.write("web.yml", "")));
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
    async fn what_failed_is_tried_again_and_told_once() {
        let temp = TempDir::new();
        let security = of(temp.write("web.yml", "a"));
        let mut watch = Watch::new(&security);
        temp.write("web.yml", "ab");
        assert!(sees(&mut watch, 6).await && watch.failed("no key"));
        assert!(sees(&mut watch, 6).await && !watch.failed("no key"));
        assert!(sees(&mut watch, 6).await && watch.failed("no certificate"));
        watch.follow(&security);
        assert!(!sees(&mut watch, 60).await);
    }
}
