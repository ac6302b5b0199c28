//! A node at the limits of the operating system: descriptors, threads, inodes. It continues, and its messages say which
//! limit to raise.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use pushrelay_testkit::mount::Mount;
use pushrelay_testkit::process::{bash, gives_up};
use pushrelay_testkit::{Node, Page, Site, eventually, http, node::Role, skip};

/// The limits on connections with 256 open files: 64 are kept, and 8 for the uplink.
const OPEN_FILES_MAX: usize = 256;
const CONNECTIONS_MAX: f64 = 184.0;

/// Pushes to group `number` and keeps the connection.
fn push_and_keep(web: SocketAddr, number: usize) -> TcpStream {
    let mut stream = http::connect(web).unwrap();
    let head = format!("PUT /metrics/job/j{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nv 1\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 4 << 10];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "client {number}");
    stream
}

fn of_web(page: &Page, name: &str) -> Option<f64> {
    page.value(name, &[("face", "web")])
}

fn shed(page: &Page, reason: &str) -> f64 {
    page.value("pushrelay_connections_shed_total", &[("face", "web"), ("reason", reason)]).unwrap()
}

/// More clients than the node may open files push once and keep their connections. Every push is answered, scrapes are
/// too, and the link can be dialled again.
#[test]
fn kept_connections_leave_descriptors_for_scrapes_and_the_link() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    // The soft limit is far below: the node raises it to the hard one.
    let script = format!("ulimit -Sn 100 && ulimit -Hn {OPEN_FILES_MAX}");
    let mut edge = site.edge("syq-1", "SYQ", &hub).after(&[], &script);
    edge.start();
    let web = edge.web();
    let kept: Vec<_> = (0..2 * OPEN_FILES_MAX).map(|number| push_and_keep(web, number)).collect();
    let page = edge.page();
    assert_eq!(of_web(&page, "pushrelay_connections_max"), Some(CONNECTIONS_MAX));
    assert!(page.value("process_open_fds", &[]).unwrap() < OPEN_FILES_MAX as f64);
    assert_eq!(page.value("process_max_fds", &[]), Some(OPEN_FILES_MAX as f64));
    assert!(shed(&page, "idle") >= kept.len() as f64 - CONNECTIONS_MAX, "{}", shed(&page, "idle"));
    assert_eq!((shed(&page, "full"), shed(&page, "accept_error")), (0.0, 0.0));
    hub.break_connections();
    edge.push("job/late", "late 1\n");
    hub.shows("late", &[], 1.0);
    let said = edge.process().output();
    assert_eq!(said.matches("connections are short").count(), 1, "one line a minute: {said}");
}

/// The clients that keep their connections are those that push again, and the idlest are closed first.
#[test]
fn a_client_that_pushes_often_keeps_its_connection() {
    let site = Site::new();
    let script = format!("ulimit -n {OPEN_FILES_MAX}");
    let mut hub = site.hub().flags(&["--hub.connections-max=1"]).after(&[], &script);
    hub.start();
    let mut busy = push_and_keep(hub.web(), 0);
    let mut kept = Vec::new();
    for number in 1..2 * OPEN_FILES_MAX {
        kept.push(push_and_keep(hub.web(), number));
        if number % 50 == 0 {
            busy.write_all(b"PUT /metrics/job/j0 HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nv 2\n").unwrap();
            let mut answer = [0; 4 << 10];
            let length = busy.read(&mut answer).unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "push {number}");
        }
    }
}

/// All connections are busy: their requests never end. Scrapes and health checks are still answered.
#[test]
fn busy_connections_leave_some_for_scrapes_and_health_checks() {
    let site = Site::new();
    let mut hub = site.hub().flags(&["--limits.connections-max=100", "--limits.body-timeout=50s"]);
    hub.start();
    let begin = |number: usize| {
        let mut stream = http::connect(hub.web()).unwrap();
        let head = format!("PUT /metrics/job/j{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nv");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut busy: Vec<_> = (0..88).map(begin).collect();
    let open = || of_web(&hub.page(), "pushrelay_connections");
    eventually("all are open", || (open() >= Some(89.0)).then_some(()));
    for _ in 0..30 {
        assert_eq!(hub.get("/-/healthy").status, 200);
        let refused = hub.request("PUT", "/metrics/job/j", &[], b"v 1\n");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.text(), "too many connections (limits.connections_max)\n");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert!(shed(&hub.page(), "full") >= 30.0);
    for stream in &mut busy {
        stream.write_all(b" 1\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200", "a push that was begun is answered");
    }
}

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
    let use_up = format!(
        "cd '{}' && for i in $(seq 100); do : > filler$i || break; done 2>/dev/null || true",
        hub.store().display()
    );
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
