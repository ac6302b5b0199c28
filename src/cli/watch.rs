//! Detects changes of the files that protect the gateway: certificates that another program renews, and the file of
//! `--web.config.file`, which programs of the Prometheus family read again without a request.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use crate::node::options::WebSecurity;

/// Interval between two checks of the files.
const INTERVAL: Duration = Duration::from_secs(4);
/// A changed file must stay the same for this long, so that a file is not read while another program writes it.
const SETTLING: Duration = Duration::from_secs(1);

/// The files, and their state at the last check.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<FileVersion>>,
    /// The reason why the new contents could not be used, if they could not.
    failure: Option<String>,
}

/// The metadata that differs after a change: device, inode, length, and time of the last change of contents or
/// permissions.
type FileVersion = (u64, u64, u64, i64, i64);

impl Watch {
    /// Watches the files that these options name.
    pub fn new(security: &WebSecurity) -> Self {
        let files = files(security);
        let seen = versions(&files);
        Self { files, seen, failure: None }
    }

    /// Returns when a file has changed and then stays the same, or when a failed reload has to be tried again.
    pub async fn changed(&mut self) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(INTERVAL).await;
            let seen = versions(&self.files);
            if seen == self.seen && self.failure.is_none() {
                continue;
            }
            sleep(SETTLING).await;
            if versions(&self.files) == seen {
                self.seen = seen;
                return;
            }
        }
    }

    /// Records that the new contents could not be used, so that every check tries again. Returns whether the reason is
    /// a new one.
    pub fn failed(&mut self, reason: &str) -> bool {
        let news = self.failure.as_deref() != Some(reason);
        self.failure = Some(reason.into());
        news
    }

    /// Records that the new contents are in use, and watches the files that these options name. The state of files
    /// that were watched before is kept, so that a change since they were read is still noticed.
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
    async fn a_file_is_read_when_its_writer_has_finished() {
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
    async fn a_failure_is_tried_again_and_reported_once() {
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
