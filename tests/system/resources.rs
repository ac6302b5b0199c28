//! A node at the limits of the operating system: threads, inodes. It continues, and its messages say which limit to
//! raise.

use std::process::Command;

use pushrelay_testkit::mount::Mount;
use pushrelay_testkit::process::{bash, gives_up};
use pushrelay_testkit::{Node, Site, node::Role, skip};

/// A user who has no other process: a limit on its threads counts those of the test alone.
const USER: &str = "54321";

/// A standalone node of another user, for limits that do not hold for root. `None`, with a message, if the machine does
/// not allow it.
fn unprivileged(folder: &std::path::Path, script: &str, config: &str) -> Option<Node> {
    let may = format!("setpriv --reuid={USER} --clear-groups test -r '{}'", folder.display());
    bash(&format!("chmod 755 '{}'", folder.display()));
    if !Command::new("bash").args(["-c", &may]).status().is_ok_and(|status| status.success()) {
        skip("a process cannot have another user here (setpriv, as root), or cannot read the folder of the tests");
        return None;
    }
    let config = format!("[web]\nlisten_address = [\"127.0.0.1:0\"]\n{config}\n[storage]\npath = \"\"\n");
    let user = format!("--reuid={USER}");
    Some(Node::new(Role::Edge, folder, "alone", &config).after(&["setpriv", &user, "--clear-groups"], script))
}

#[test]
fn a_start_without_threads_says_which_limit_to_raise() {
    let site = Site::new();
    let Some(mut node) = unprivileged(site.path(), "ulimit -u 4", "") else { return };
    gives_up(node.spawn(), "ulimit -u");
}

/// The user's limit of threads is reached while the node runs. Nothing panics, and nothing waits for ever.
#[test]
fn a_running_node_needs_no_further_thread() {
    let site = Site::new();
    // The password is "fakepassword".
    let users = "[web.basic_auth_users]\na = \"$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\"";
    let Some(mut node) = unprivileged(site.path(), "true", users) else { return };
    node.start_listening();
    let id = node.process().id();
    bash(&format!("setpriv --reuid={USER} --clear-groups prlimit --pid {id} --nproc=1:1"));
    let auth = [("authorization", "Basic YTpmYWtlcGFzc3dvcmQ=")];
    let body: String = (0..100_000).map(|i| format!("v{{i=\"{i}\"}} {i}\n")).collect();
    for round in 0..3 {
        // Verifying a password, parsing a large push and rendering a scrape are long work.
        let request = |method, path: &str, body: &[u8]| node.request(method, path, &auth, body);
        assert_eq!(request("PUT", "/metrics/job/j", body.as_bytes()).status, 200, "round {round}");
        let page = request("GET", "/metrics", b"");
        assert!(page.status == 200 && page.text().contains("v{i=\"99999\",instance=\"\",job=\"j\"} 99999"));
        let wrong = [("authorization", &*format!("Basic YTp{round}"))];
        assert_eq!(node.request("GET", "/metrics", &wrong, b"").status, 401);
    }
    let (code, said) = node.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// No file can be created, though there is space. Pushes go on in the log that is there; a start names the cause.
#[test]
fn used_up_inodes_are_named_and_lose_nothing() {
    let site = Site::new();
    let mut hub = site.hub();
    let Some(_mount) = Mount::new(&hub.store(), "nr_inodes=40") else { return };
    hub.start();
    hub.push("job/before", "v 1\n");
    let use_up = format!("cd '{}' && for i in $(seq 100); do : > filler$i || break; done 2>/dev/null || true", hub.store().display());
    bash(&use_up);
    // The checkpoint that is due after 16 MiB of log needs a file.
    let padding = "x".repeat(900 << 10);
    let mut round = 0;
    while !hub.process().output().contains("no checkpoint can be begun") {
        assert!(round < 100, "no checkpoint was due");
        hub.put("job/large", &format!("w{{round=\"{round}{padding}\"}} 1\n"));
        round += 1;
    }
    let said = hub.process().output();
    assert!(said.contains("bytes or inodes, see df -h and df -i"), "{said}");
    hub.push("job/after", "v 2\n");
    hub.kill();
    gives_up(hub.spawn(), "bytes or inodes, see df -h and df -i");
    hub.kill();
    bash(&format!("rm '{}'/filler*", hub.store().display()));
    hub.start();
    assert_eq!(hub.page().values("v", &[("job", "before")]), [1.0]);
    assert_eq!(hub.page().values("v", &[("job", "after")]), [2.0]);
}
