//! `pushrelay demo` as a user runs it right after the build.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Folder, Page, Process, eventually, http};

/// The addresses of all `http://` URLs in the output.
fn addresses(process: &Process) -> BTreeSet<SocketAddr> {
    let output = process.output();
    let urls = output.split("http://").skip(1);
    let address = |url: &str| url[..url.find(|c: char| !"0123456789.:".contains(c)).unwrap_or(url.len())].parse().ok();
    urls.filter_map(address).collect()
}

/// The text without the port of each address.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "127.0.0.1:" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The scrape of a node, if it is up and its text is valid.
fn page(address: SocketAddr) -> Option<Page> {
    let reply = http::request(address, "GET", "/metrics", &[], b"").ok().filter(|reply| reply.status == 200)?;
    Some(Page::parse(&reply.text()).unwrap())
}

#[test]
fn it_shows_both_sites_at_the_hub_until_interrupted() {
    let folder = Folder::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushrelay"));
    command.arg("demo").current_dir(folder.path()).env("TMPDIR", folder.path());
    for flag in ["--web.listen-address", "--hub.listen-address", "--syq.listen-address", "--bj.listen-address"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    let mut process = Process::spawn(&mut command);

    let addresses = eventually("the URLs of a hub and two edges", || {
        assert!(process.is_alive(), "{}", process.output());
        Some(addresses(&process)).filter(|addresses| addresses.len() >= 3)
    });
    let hub = eventually("sample pushes of both places at one of them", || {
        let shows = |address: &&SocketAddr| {
            let page = page(**address);
            page.is_some_and(|page| ["SYQ", "BJ"].iter().all(|idc| !page.samples_with("IDC", idc).is_empty()))
        };
        addresses.iter().find(shows).copied()
    });

    let printed = process.lines();
    let command = printed.iter().find(|line| line.contains("curl ") && line.contains("/metrics/job/"));
    let command = command.unwrap_or_else(|| panic!("no command to push with in:\n{}", process.output()));
    bash(command.trim_start_matches([' ', '$']));
    assert!(http::request(hub, "GET", "/", &[], b"").unwrap().status == 200);

    let tutorial = include_str!("../../docs/tutorial/demo.md");
    let shown = tutorial.split_once("-- demo\n").unwrap().1.split_once("```").unwrap().0;
    assert_eq!(
        without_ports(&printed.join("\n")).trim(),
        without_ports(shown).trim(),
        "printed (left) and in the tutorial"
    );

    process.signal("INT");
    assert_eq!(process.wait().code(), Some(0), "{}", process.output());
    assert!(!process.output().contains("panicked"), "{}", process.output());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "throw-away files are thrown away: {left:?}");
}
