//! A full, read-only or damaged disk: the node refuses pushes with a reason, loses no acknowledged write, and recovers.
//!
//! A file system cannot be remounted read-only while a process has a file of it open for writing (the kernel says *busy*),
//! and one that the kernel itself turned read-only is not writable again before it was unmounted. So the read-only test has
//! two parts: 503 and scrapes while it is read-only, and every answered push after `umount`, `fsck`, `mount` and a start.

use std::path::{Path, PathBuf};

use pushrelay_testkit::mount::Mount;
use pushrelay_testkit::process::{bash, gives_up};
use pushrelay_testkit::{Node, Page, Site, eventually, http};

/// A push of some kilobytes, different each time; returns its status.
fn push_much(node: &Node, number: usize) -> u16 {
    let body: String = (0..400).map(|i| format!("v{{i=\"{i}\"}} {number}.{i}\n")).collect();
    let path = format!("/metrics/job/j/group/{number}");
    node.request("PUT", &path, &[], body.as_bytes()).status
}

fn shown(node: &Node, number: usize) -> bool {
    shown_on(&node.page(), number)
}

fn shown_on(page: &Page, number: usize) -> bool {
    !page.values("v", &[("group", &number.to_string()), ("i", "7")]).is_empty()
}

#[test]
fn a_full_disk_refuses_pushes_and_recovers() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    let Some(_mount) = Mount::new(&edge.store(), "size=3m") else { return };
    edge.start();
    assert_eq!(push_much(&edge, 0), 200);
    hub.shows("pushrelay_edge_pushes_total", &[("edge", "syq-1"), ("IDC", "SYQ")], 1.0);

    let filler = edge.store().join("filler");
    bash(&format!("dd if=/dev/zero of='{}' bs=4k 2>/dev/null || true", filler.display()));
    let mut accepted = vec![0];
    let refused = (1..5_000).find(|number| match push_much(&edge, *number) {
        200 => {
            accepted.push(*number);
            false
        }
        status => {
            assert_eq!(status, 503, "a full disk is a 503");
            true
        }
    });
    let refused = refused.expect("a full disk refuses pushes");
    assert!(!shown(&edge, refused), "what was refused is not shown");
    hub.shows("pushrelay_edge_trouble", &[("edge", "syq-1"), ("IDC", "SYQ"), ("reason", "store_failing")], 1.0);
    hub.shows("pushrelay_edge_healthy", &[("edge", "syq-1"), ("IDC", "SYQ")], 0.0);
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    hub.shows("pushrelay_edge_store_failing", &[("edge", "syq-1")], 1.0);
    assert!(shown(&edge, 0), "a scrape goes on");
    hub.shows("v", &[("group", "0"), ("i", "7")], 0.7);

    std::fs::remove_file(filler).unwrap();
    eventually("pushes are accepted again", || (push_much(&edge, 100_000) == 200).then_some(()));
    accepted.push(100_000);
    hub.shows("pushrelay_edge_healthy", &[("edge", "syq-1")], 1.0);
    edge.restart();
    let page = edge.page();
    for number in accepted {
        assert!(shown_on(&page, number), "group {number} was acknowledged");
    }
    assert!(!shown_on(&page, refused), "what was refused does not come back");
    hub.shows("v", &[("group", "100000"), ("i", "7")], 100_000.7);
}

/// The state of a file system after a disk error: the kernel keeps it read-only until it is unmounted and checked.
#[test]
fn a_disk_that_turns_read_only_refuses_pushes_and_loses_nothing() {
    let site = Site::new();
    let (mut hub, image) = (site.hub(), site.path().join("image"));
    let Some(mount) = Mount::ext4(&hub.store(), &image) else { return };
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    edge.start();
    edge.push("job/j/group/edge", "v 1\n");
    hub.push("job/j/group/hub", "v 2\n");
    hub.shows("v", &[("group", "edge")], 1.0);

    if !mount.fail() {
        return;
    }
    for _ in 0..3 {
        let reply = hub.request("PUT", "/metrics/job/j/group/refused", &[], b"v 3\n");
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("check the disk"), "{}", reply.text());
    }
    edge.push("job/j/group/meanwhile", "v 4\n");
    let page = hub.page();
    assert_eq!(page.values("v", &[("group", "hub")]), [2.0], "a scrape goes on");
    assert!(page.values("v", &[("group", "refused")]).is_empty());
    assert!(page.values("v", &[("group", "meanwhile")]).is_empty(), "what is not durable is not shown");
    assert!(page.values("pushrelay_store_commit_failures_total", &[])[0] >= 3.0);
    assert!(hub.stop().0.is_some(), "it ends at SIGTERM");

    mount.unmount();
    bash(&format!("e2fsck -fy '{}' >/dev/null 2>&1 || [ $? -le 2 ]", image.display()));
    let Some(_mount) = Mount::ext4(&hub.store(), &image) else { return };
    hub.start();
    for (group, value) in [("edge", 1.0), ("hub", 2.0), ("meanwhile", 4.0)] {
        hub.shows("v", &[("group", group)], value);
    }
    assert!(hub.page().values("v", &[("group", "refused")]).is_empty(), "what was refused does not come back");
    hub.push("job/j/group/refused", "v 3\n");
    assert!(edge.process().is_alive());
}

#[test]
fn a_read_only_disk_is_named() {
    let site = Site::new();
    let mut hub = site.hub();
    let Some(_mount) = Mount::new(&hub.store(), "ro") else { return };
    let store = hub.store().display().to_string();
    gives_up(hub.spawn(), &store);
}

/// Every file of a store.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files
}

/// Flips a byte in the middle of the written part of the store's largest file.
fn damage(store: &Path) {
    let written = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    };
    let file = files(store).into_iter().max_by_key(written).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = written(&file) / 2;
    assert!(middle > 1_000, "{} is too short to be the store", file.display());
    bytes[middle] ^= 0x55;
    std::fs::write(&file, bytes).unwrap();
}

#[test]
fn a_damaged_store_keeps_what_is_intact_and_the_link_restores_the_rest() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    for number in 0..50 {
        assert_eq!(push_much(&edge, number), 200);
    }
    hub.shows("v", &[("group", "49"), ("i", "7")], 49.7);
    hub.cut();
    assert_eq!(edge.stop().0, Some(0));
    damage(&edge.store());

    edge.start();
    let page = edge.page();
    let intact = (0..50).filter(|number| shown_on(&page, *number)).count();
    assert!(intact >= 40, "only {intact} of 50 groups survived one flipped byte");
    if intact < 50 {
        let said = edge.process().output();
        assert!(said.contains("level=WARN") || said.contains("level=ERROR"), "the loss is reported:\n{said}");
    }
    hub.join();
    eventually("the edge has all its groups again", || {
        let page = edge.page();
        (0..50).all(|number| shown_on(&page, number)).then_some(())
    });
    let page = hub.page();
    for number in 0..50 {
        assert!(shown_on(&page, number), "group {number}: no resync deletes anything");
    }
}

#[test]
fn a_store_of_garbage_is_an_error_or_a_fresh_start_but_no_crash() {
    let (_site, _hub, mut edge) = Site::with_one_edge();
    edge.push("job/j", "v 1\n");
    edge.kill();
    for file in files(&edge.store()) {
        let len = std::fs::metadata(&file).unwrap().len() as usize;
        std::fs::write(&file, vec![0xa5; len]).unwrap();
    }
    let process = edge.spawn();
    let ready = |line: &str| line.contains("msg=listening").then_some(()).or(line.contains("face=web").then_some(()));
    let ended = eventually("it starts or gives up", || {
        if process.lines().iter().any(|line| ready(line).is_some()) {
            return Some(None);
        }
        (!process.is_alive()).then(|| Some(process.wait()))
    });
    let said = process.output();
    assert!(!said.contains("panicked"), "{said}");
    match ended {
        Some(status) => assert!(status.code().is_some_and(|code| code != 0), "{status}: {said}"),
        None => assert!(said.contains("level=WARN") || said.contains("level=ERROR"), "the loss is reported:\n{said}"),
    }
}

/// A push that was answered `200` survives a kill right after it.
#[test]
fn every_answered_push_survives_a_kill_at_once() {
    let (_site, _hub, mut edge) = Site::with_one_edge();
    for number in 0..10 {
        let path = format!("/metrics/job/j/group/{number}");
        let reply = http::request(edge.web(), "PUT", &path, &[], b"v{i=\"7\"} 1\n").unwrap();
        edge.kill();
        assert_eq!(reply.status, 200);
        edge.start();
        assert!(shown(&edge, number), "group {number}");
    }
}
