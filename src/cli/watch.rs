//! Whether the files that protect the gateway have changed: certificates that something renews, and the file that
//! `--web.config.file` names, which programs of the Prometheus family read anew without being told.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::options::WebSecurity;

/// How often files are looked at: no change waits longer.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The files, as they were when they were last looked at.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<Mark>>,
}

/// What is other in a file that has changed: device, inode, length, and when it or its permissions were changed.
type Mark = (u64, u64, u64, i64, i64);

impl Watch {
    /// Watches the files that these options name.
    pub fn new(security: &WebSecurity) -> Self {
        let files = files(security);
        let seen = look(&files);
        Self { files, seen }
    }

    /// Whether there is anything to watch.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a file has changed since this was last asked.
    pub fn changed(&mut self) -> bool {
        let now = look(&self.files);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }

    /// Watches the files that other options name. Files that were watched before are not looked at anew: what changed
    /// since they were read is still to be seen.
    pub fn follow(&mut self, security: &WebSecurity) {
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

    #[test]
    fn a_change_is_seen_once() {
        let temp = TempDir::new();
        let file = temp.write("web.yml", "a");
        let security = WebSecurity { config_file: Some(file), ..WebSecurity::default() };
        let mut watch = Watch::new(&security);
        assert!(!watch.is_empty() && !watch.changed());
        temp.write("web.yml", "ab");
        watch.follow(&security);
        assert!(watch.changed() && !watch.changed());
        std::fs::rename(temp.write("new", "cd"), temp.path().join("web.yml")).unwrap();
        assert!(watch.changed() && !watch.changed());
        std::fs::remove_file(temp.path().join("web.yml")).unwrap();
        assert!(watch.changed() && !watch.changed());
        assert!(Watch::new(&WebSecurity::default()).is_empty());
    }
}
