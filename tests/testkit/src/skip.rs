//! Tests that this machine cannot run.

use std::path::Path;

/// Reports that a test cannot run here. On a CI machine, which should have everything, that is a failure.
pub fn skip(reason: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!(ci && is_root() && Path::new("/usr/bin/apt-get").exists()), "CI must not skip this: {reason}");
    report(reason);
}

/// Reports that a test does not run here, on any machine.
pub fn report(reason: &str) {
    // This writes to the descriptor directly: the test harness captures `eprintln!`, and a skip must be visible.
    let line = format!("\nSKIPPED: {reason}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    // scripts/test-runner counts the lines of this file, so that a skipped test is not a passed one.
    if let Some(path) = std::env::var_os("PUSHRELAY_SKIPPED") {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{test}: {}\n", reason.replace('\n', " ")).as_bytes()).unwrap();
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    uid == Some("0")
}
