//! Balancers in TCP mode in front of a hub, with the configurations of `docs/how-to/put-a-balancer-before-a-hub.md`: the hub
//! sees the edge's address if it trusts the balancer, and refuses the header otherwise.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Folder, Node, Process, Site, eventually, skip};

/// The address from which the balancers connect to the hub: edges come from 127.0.0.1.
const BALANCER: &str = "127.0.0.9";

/// A balancer that runs. It ends by SIGTERM, so that no worker of it is left.
struct Balancer(Process);

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.signal("TERM");
        let until = Instant::now() + Duration::from_secs(10);
        while self.0.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The configuration that the page has in that language, with these addresses.
fn documented(language: &str, listen: SocketAddr, hub: SocketAddr) -> String {
    let page = include_str!("../../docs/how-to/put-a-balancer-before-a-hub.md");
    let fence = format!("```{language}\n");
    let block = page.split(&*fence).nth(1).and_then(|rest| rest.split("```").next());
    let block = block.unwrap_or_else(|| panic!("the page has no block of {language}"));
    block.replace("192.0.2.2:9443", &listen.to_string()).replace("192.0.2.1:9443", &hub.to_string())
}

fn started(mut command: Command, listen: SocketAddr) -> Balancer {
    let mut process = Process::spawn(&mut command);
    eventually("the balancer listens", || {
        assert!(process.is_alive(), "the balancer ended:\n{}", process.output());
        TcpStream::connect(listen).ok()
    });
    Balancer(process)
}

fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("hubs behind {name} are not tried: it is not here"));
    }
    found
}

/// Links an edge through a balancer to a hub that trusts it, and tries a hub that does not.
fn tries(start: impl Fn(&Path, SocketAddr, SocketAddr) -> Balancer) {
    for trusts in [true, false] {
        let site = Site::new();
        site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
        let key = if trusts { format!("[hub]\ntrusted_proxies = ['{BALANCER}']\n") } else { "[hub]\n".into() };
        let config = site.hub_config("hub").replace("[hub]\n", &key);
        let mut hub = Node::new(Role::Hub, site.path(), "hub", &config);
        hub.start();
        let folder = Folder::new();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _balancer = start(folder.path(), listen, hub.edge_listener());
        let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
        let store = site.path().join("syq-1");
        let config = edge_config(&store, listen, &site.cert("ca.pem"), &cert, &key);
        let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &config);
        edge.start();
        if trusts {
            edge.push("job/a", "behind 1\n");
            hub.shows("behind", &[("IDC", "SYQ")], 1.0);
            let line =
                hub.process().line("the edge is linked", |line| line.contains("edge linked").then(|| line.to_owned()));
            assert!(line.contains(" address=127.0.0.1:"), "{line}");
        } else {
            let refused = format!("and {BALANCER} is not in hub.trusted_proxies");
            hub.process().line("the header is refused", |line| line.contains(&refused).then_some(()));
        }
    }
}

#[test]
fn haproxy_names_the_edges_address_to_a_hub_that_trusts_it() {
    let Some(program) = program("haproxy") else { return };
    for version in ["send-proxy-v2", "send-proxy"] {
        tries(|folder, listen, hub| {
            let config =
                documented("haproxy", listen, hub).replace("send-proxy-v2", &format!("{version} source {BALANCER}"));
            let file = folder.join("haproxy.cfg");
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new(&program);
            command.arg("-db").arg("-f").arg(file);
            started(command, listen)
        });
    }
}

#[test]
fn nginx_names_the_edges_address_to_a_hub_that_trusts_it() {
    let Some(program) = program("nginx") else { return };
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    if !module.is_file() {
        return skip("hubs behind nginx are not tried: it has no stream module here (Debian: libnginx-mod-stream)");
    }
    tries(|folder, listen, hub| {
        let documented = documented("nginx", listen, hub);
        let bound = documented.replace("proxy_protocol on;", &format!("proxy_protocol on;\nproxy_bind {BALANCER};"));
        let config = format!(
            "load_module {};\ndaemon off; worker_processes 1; pid nginx.pid; error_log stderr; events {{}}\n{bound}",
            module.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(&program);
        command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
        started(command, listen)
    });
}
