//! The packages of `scripts/package`, the services, and what a node tells systemd.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pushrelay_testkit::folder::project;
use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Folder, Node, skip};

/// A service is more exposed than this if a line of its protection is missing.
const EXPOSURE_MAX: f64 = 2.0;

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The files below a folder with their contents, by their paths in it.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in std::fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn packages_have_the_same_bytes_twice_and_all_files() {
    if !is_there("dpkg-deb") {
        return skip("no packages are made: no dpkg-deb");
    }
    let folder = Folder::new();
    // A small program instead of the real one, which a test build has with all its symbols.
    let program = folder.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_pushrelay"))).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let package = |out: &str| {
        let out = folder.path().join(out);
        let mut command = Command::new(project().join("scripts/package"));
        command.args(["--binary", program.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let output = command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        contents(&out)
    };
    let (first, second) = (package("a"), package("b"));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    assert!(first == second, "the bytes of {:?} differ", first.keys());
    let deb = first.keys().find(|name| name.ends_with(".deb")).expect("a Debian package");
    let listed = Command::new("dpkg-deb").arg("-c").arg(folder.path().join("a").join(deb)).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for file in [
        "/usr/bin/pushrelay",
        "/usr/lib/systemd/system/pushrelay-edge.service",
        "/usr/lib/systemd/system/pushrelay-hub.service",
        "/usr/lib/sysusers.d/pushrelay.conf",
        "/etc/default/pushrelay",
        "/etc/pushrelay/hub.toml",
        "/usr/share/man/man1/pushrelay-exec.1.gz",
        "/usr/share/bash-completion/completions/pushrelay",
    ] {
        assert!(listed.contains(&format!(" .{file}\n")), "no {file} in {listed}");
    }
    let arch = deb.trim_end_matches(".deb").rsplit('_').next().unwrap();
    for file in ["Containerfile", "rootfs/usr/bin/pushrelay"] {
        let path = format!("container-{arch}/{file}");
        assert!(first.contains_key(&path), "no {path} in {:?}", first.keys());
    }
}

#[test]
fn the_services_are_little_exposed() {
    if !is_there("systemd-analyze") {
        return skip("the services are not analyzed: no systemd-analyze");
    }
    for role in ["edge", "hub"] {
        let service = project().join(format!("packaging/pushrelay-{role}.service"));
        let mut command = Command::new("systemd-analyze");
        let output = command.args(["security", "--offline=true", "--no-pager"]).arg(&service).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some((_, level)) = text.split_once("Overall exposure level for ") else {
            return skip(&format!("this systemd-analyze does not tell: {}", String::from_utf8_lossy(&output.stderr)));
        };
        let level: f64 = level.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(level <= EXPOSURE_MAX, "{role}: {text}");
    }
}

#[test]
fn a_node_tells_systemd_that_it_is_ready_and_that_it_stops() {
    let folder = Folder::new();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let told = || {
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let config = "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"\"\n";
    let path = folder.path().join("notify").display().to_string();
    let mut node = Node::new(Role::Edge, folder.path(), "edge", config).env("NOTIFY_SOCKET", &path);
    node.start();
    assert_eq!(told(), "READY=1");
    assert_eq!(node.stop().0, Some(0));
    assert_eq!(told(), "STOPPING=1");
}
