//! Links over networks in which not every address works.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Node, Site, eventually, node::Role, skip};

/// A listener that accepts nothing, and the connections that fill its queue: the kernel drops every further SYN, as a
/// firewall does. `None` if this kernel answers it.
fn swallowing(address: SocketAddr) -> Option<(TcpListener, Vec<TcpStream>)> {
    let listener = TcpListener::bind(address).ok()?;
    let mut filling = Vec::new();
    while filling.len() < 10_000 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => filling.push(stream),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return Some((listener, filling)),
            Err(_) => return None,
        }
    }
    None
}

/// Whether a process can have its own `/etc/hosts`, and the resolver returns the IPv6 address of `hub.test` first.
fn resolves_ipv6_first(hosts: &str) -> bool {
    let script = format!("mount --bind '{hosts}' /etc/hosts && getent ahosts hub.test");
    let asked = Command::new("unshare").args(["-m", "bash", "-c", &script]).output();
    asked.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("::1 "))
}

/// The name of the hub has an IPv6 address that a firewall swallows, and an IPv4 address that works.
#[test]
fn an_edge_links_at_once_past_an_address_that_swallows_packets() {
    let site = Site::new();
    site.pki(&["hub", "hub.test", "--force"]);
    let mut hub = site.hub();
    hub.start();
    let port = hub.edge_listener().port();
    let hosts = site.path().join("hosts");
    std::fs::write(&hosts, "::1 hub.test\n127.0.0.1 hub.test\n").unwrap();
    let hosts = hosts.to_str().unwrap();
    let Some(_swallowing) = swallowing((Ipv6Addr::LOCALHOST, port).into()) else {
        return skip("this machine has no IPv6 address that swallows packets");
    };
    if !resolves_ipv6_first(hosts) {
        return skip("a process cannot have its own /etc/hosts here (unshare -m, as root), or prefers IPv4");
    }
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let config = edge_config(&site.path().join("syq-1"), hub.edge_listener(), &site.cert("ca.pem"), &cert, &key);
    let config = config.replace(&hub.edge_listener().to_string(), &format!("hub.test:{port}"));
    let script = format!("mount --bind '{hosts}' /etc/hosts");
    let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &config).after(&["unshare", "-m"], &script);
    // Without staggered attempts, each takes uplink.connect_timeout, 10 s. A busy machine delays one or another.
    let mut fastest = Duration::MAX;
    for round in 0..5 {
        edge.start_listening();
        let begun = Instant::now();
        eventually(&format!("the edge is linked, round {round}"), || {
            (edge.page().values("pushrelay_uplink_connected", &[]) == [1.0]).then_some(())
        });
        fastest = fastest.min(begun.elapsed());
        edge.kill();
        if fastest < Duration::from_secs(1) {
            return;
        }
    }
    panic!("linked after {fastest:?}");
}

/// The log line names every address of the name, each with its own failure.
#[test]
fn the_log_names_each_address_of_a_hub_with_its_failure() {
    let site = Site::new();
    let hosts = site.path().join("hosts");
    std::fs::write(&hosts, "::1 hub.test\n127.0.0.1 hub.test\n").unwrap();
    let hosts = hosts.to_str().unwrap();
    if !resolves_ipv6_first(hosts) {
        return skip("a process cannot have its own /etc/hosts here (unshare -m, as root), or prefers IPv4");
    }
    // A port on which nothing listens: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let config = edge_config(&site.path().join("syq-1"), free, &site.cert("ca.pem"), &cert, &key);
    let config = config.replace(&free.to_string(), &format!("hub.test:{}", free.port()));
    let script = format!("mount --bind '{hosts}' /etc/hosts");
    let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &config).after(&["unshare", "-m"], &script);
    edge.start();
    let line =
        edge.process().line("no link to the hub", |line| line.contains("no link to the hub").then(|| line.to_owned()));
    let port = free.port();
    for failure in [format!("[::1]:{port}: Connection refused"), format!("127.0.0.1:{port}: Connection refused")] {
        assert!(line.contains(&failure), "{failure} in {line}");
    }
}
