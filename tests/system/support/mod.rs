//! The base of the system tests: processes, sites with certificates, an HTTP client, a strict parser of scrapes.

pub mod http;
pub mod line;
pub mod mount;
pub mod node;
pub mod page;
pub mod process;
pub mod protobuf;
pub mod site;
pub mod tls;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use http::Reply;
pub use line::Line;
pub use node::Node;
pub use page::Page;
pub use process::Process;
pub use site::Site;

/// The time limit of a condition. It is long because CI may run much else on two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `probe` until it returns a value; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        // The pause only leaves the processor to the awaited process. It is not a wait for the condition.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reports that a test cannot run here. On a CI machine, which should have everything, that is a failure.
pub fn skip(reason: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!(ci && is_root() && Path::new("/usr/bin/apt-get").exists()), "CI must not skip this: {reason}");
    // This writes to the descriptor directly: the test harness captures `eprintln!`, and a skip must be visible.
    let line = format!("\nSKIPPED: {reason}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    uid == Some("0")
}

/// A temporary folder, removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder.
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
