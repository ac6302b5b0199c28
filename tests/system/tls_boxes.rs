//! Boxes that end TLS in front of a hub, with the configurations of `docs/how-to/put-a-hub-behind-a-tls-proxy.md`: an edge
//! with a token links through them, at the address of the hub's page, and the hub knows the edge's address.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::run;
use pushrelay_testkit::{Node, Process, Site, eventually, skip, tls};

const PAGE: &str = include_str!("../../docs/how-to/put-a-hub-behind-a-tls-proxy.md");

/// A box that runs. It ends by SIGTERM: workers of Apache and nginx survive a master that is killed.
struct Running(Process);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.signal("TERM");
        let until = Instant::now() + Duration::from_secs(10);
        while self.0.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The block of the page in that language.
fn documented(language: &str, number: usize) -> &'static str {
    let fence = format!("```{language}\n");
    let block = PAGE.split(&*fence).nth(number + 1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("the page has no block {number} of {language}"))
}

fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("hubs behind {name} are not tried: it is not here"));
    }
    found
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file
}

/// A site with a hub that takes edges with tokens at its gateway's listener, and the token of `syq-1`.
struct Behind {
    site: Site,
    hub: Node,
    listen: SocketAddr,
}

impl Behind {
    fn new() -> Self {
        let site = Site::new();
        // As the page says, but for the name of the file.
        let made = run(site.path(), &["pki", "token", "syq-1", "--label", "IDC=SYQ", "--out", "syq-1.token"]);
        assert_eq!(made.code, Some(0), "{}", made.output);
        let store = site.path().join("hub");
        let options = documented("toml", 0).replace("127.0.0.1:9091", "127.0.0.1:0");
        let config = format!("{options}\n[storage]\npath = {store:?}\n{}", made.output);
        let mut hub = Node::new(Role::Hub, site.path(), "hub", &config).without_edge_listener();
        hub.start();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { site, hub, listen }
    }

    /// The documented configuration of a box, with the addresses and files of this site.
    fn configured(&self, language: &str) -> String {
        let key = fs::read_to_string(self.site.cert("hub.key")).unwrap();
        let cert = fs::read_to_string(self.site.cert("hub.pem")).unwrap();
        written(self.site.path(), "hub-with-key.pem", &(cert + &key));
        let file = |path: PathBuf| path.display().to_string();
        documented(language, 0)
            .replace("https://hub.example.org", &format!("https://127.0.0.1:{}", self.listen.port()))
            .replace("192.0.2.2:443", &self.listen.to_string())
            .replace("192.0.2.2", "127.0.0.1")
            .replace("127.0.0.1:9091", &self.hub.web().to_string())
            .replace("/etc/ssl/hub-with-key.pem", &file(self.site.path().join("hub-with-key.pem")))
            .replace("/etc/ssl/hub.pem", &file(self.site.cert("hub.pem")))
            .replace("/etc/ssl/hub.key", &file(self.site.cert("hub.key")))
    }

    /// Starts a box, and waits until it listens.
    fn start(&self, mut command: Command) -> Running {
        let mut process = Process::spawn(&mut command);
        eventually("the box listens", || {
            assert!(process.is_alive(), "the box ended:\n{}", process.output());
            TcpStream::connect(self.listen).ok()
        });
        Running(process)
    }

    /// The edge of the page, which dials the box.
    fn edge(&self) -> Node {
        let uplink = documented("toml", 1)
            .replace("hub.example.org:443", &self.listen.to_string())
            .replace("/etc/ssl/certs/ca-certificates.crt", &self.site.cert("ca.pem").display().to_string())
            .replace("[uplink.tls]", "backoff_min = \"20ms\"\nbackoff_max = \"300ms\"\n[uplink.tls]");
        let store = self.site.path().join("syq-1");
        let config = format!("[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = {store:?}\n{uplink}");
        let mut edge = Node::new(Role::Edge, self.site.path(), "syq-1", &config);
        edge.start();
        edge
    }

    /// Pushes at the edge; the push arrives at the hub, with the address of the edge, and the page is behind the box too.
    fn links(&mut self) -> Node {
        let edge = self.edge();
        edge.push("job/a", "behind 1\n");
        self.hub.shows("behind", &[("job", "a"), ("IDC", "SYQ")], 1.0);
        // The connection is of the box and has a port; the header that names the edge has none.
        let line =
            self.hub.process().line("the edge is linked", |line| line.contains("edge linked").then(|| line.to_owned()));
        assert!(line.contains(" address=127.0.0.1 "), "{line}");
        let edges = self.hub.get("/api/v1/edges").text();
        assert!(
            edges.contains(r#""address":"127.0.0.1""#) && edges.contains(r#""authenticated_by":"token""#),
            "{edges}"
        );
        let mut stream = tls::connect(self.listen, &self.site.cert("ca.pem"), b"http/1.1");
        let mut page = String::new();
        stream
            .write_all(
                format!("GET /?tab=edges HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.listen).as_bytes(),
            )
            .unwrap();
        stream.read_to_string(&mut page).ok();
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("syq-1"), "{page}");
        edge
    }

    /// A box that passes no WebSocket: the edge's log says so.
    fn says_that_upgrades_are_not_passed(&self, command: Command) {
        let _running = self.start(command);
        let mut edge = self.edge();
        edge.process()
            .line("the reason", |line| line.contains("does not pass the upgrade to a WebSocket").then_some(()));
    }
}

fn nginx(folder: &Path, program: &Path, documented: &str) -> Command {
    let config = format!(
        "daemon off; worker_processes 1; pid nginx.pid; events {{}}\nhttp {{\naccess_log off;\n{documented}\n}}\n"
    );
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(written(folder, "nginx.conf", &config)).args(["-e", "stderr"]);
    command
}

#[test]
fn an_edge_with_a_token_links_through_nginx() {
    let Some(program) = program("nginx") else { return };
    let mut behind = Behind::new();
    let config = behind.configured("nginx");
    let folder = behind.site.path().to_owned();
    {
        let _running = behind.start(nginx(&folder, &program, &config));
        behind.links();
    }
    let other = Behind::new();
    let without =
        other.configured("nginx").replace("proxy_http_version 1.1;", "").replace("proxy_set_header Upgrade", "#");
    other.says_that_upgrades_are_not_passed(nginx(other.site.path(), &program, &without));
}

#[test]
fn an_edge_with_a_token_links_through_haproxy() {
    let Some(program) = program("haproxy") else { return };
    let mut behind = Behind::new();
    let file = written(behind.site.path(), "haproxy.cfg", &behind.configured("haproxy"));
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    let _running = behind.start(command);
    behind.links();
}

fn apache(folder: &Path, program: &Path, listen: SocketAddr, documented: &str) -> Command {
    let modules = ["mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http"];
    let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let config = format!(
        "ServerRoot {0}\n{2}ServerName localhost\nPidFile {0}/apache.pid\nErrorLog /dev/stderr\nListen {listen}\n{1}{documented}",
        folder.display(),
        modules.concat(),
        // Apache does not run as root.
        if skip::is_root() { "User www-data\nGroup www-data\n" } else { "" }
    );
    let mut command = Command::new(program);
    command.arg("-f").arg(written(folder, "apache.conf", &config)).arg("-DFOREGROUND");
    command
}

#[test]
fn an_edge_with_a_token_links_through_apache() {
    let Some(program) = program("apache2") else { return };
    let mut behind = Behind::new();
    let (folder, config) = (behind.site.path().to_owned(), behind.configured("apache"));
    {
        let _running = behind.start(apache(&folder, &program, behind.listen, &config));
        behind.links();
    }
    let other = Behind::new();
    let without = other.configured("apache").replace(" upgrade=websocket", "");
    other.says_that_upgrades_are_not_passed(apache(other.site.path(), &program, other.listen, &without));
}

#[test]
fn an_edge_with_a_token_links_through_caddy() {
    let Some(program) = program("caddy") else { return };
    let mut behind = Behind::new();
    let config = format!("{{\n    admin off\n    auto_https disable_redirects\n}}\n{}", behind.configured("caddyfile"));
    let folder = behind.site.path();
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(written(folder, "Caddyfile", &config));
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    let _running = behind.start(command);
    behind.links();
}

#[test]
fn a_box_that_dials_with_a_certificate_of_its_own_is_noticed_at_both_ends() {
    let Some(program) = program("nginx") else { return };
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    site.pki(&["edge", "box", "--label", "IDC=DMZ"]);
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = |name: &str| site.cert(name).display().to_string();
    let config = format!(
        "server {{ listen {listen} ssl; ssl_certificate {}; ssl_certificate_key {};\nlocation / {{\n\
         proxy_pass https://{}; proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; proxy_ssl_protocols TLSv1.3;\n\
         proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}\n",
        file("hub.pem"),
        file("hub.key"),
        hub.edge_listener(),
        file("box.pem"),
        file("box.key"),
    );
    let mut process =
        Process::spawn(&mut nginx(site.path(), &program, &config.replace("listen ", "ssl_protocols TLSv1.3; listen ")));
    eventually("the box listens", || {
        assert!(process.is_alive(), "the box ended:\n{}", process.output());
        TcpStream::connect(listen).ok()
    });
    let _running = Running(process);
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let mut edge = site.edge_with("syq-1", listen, &site.cert("syq-1.pem"), &site.cert("syq-1.key"));
    edge.start();
    let line = edge.process().line("the edge notices", |line| {
        line.contains("the hub knows this edge by another certificate").then(|| line.to_owned())
    });
    assert!(line.contains("level=ERROR") && line.contains("box") && line.contains("SYQ"), "{line}");
    edge.shows("pushrelay_uplink_identity_mistaken", &[], 1.0);
    hub.process().line("the hub notices", |line| {
        line.contains("an edge is known by the certificate of something in between").then_some(())
    });
    hub.shows("pushrelay_edge_trouble", &[("edge", "box"), ("reason", "identity_mistaken")], 1.0);
    let edges = hub.get("/api/v1/edges").text();
    assert!(edges.contains(r#""own_identity":"pushrelay://edge/syq-1?IDC=SYQ""#), "{edges}");
    let doctor = run(site.path(), &["doctor", "--config.file", "syq-1.toml"]);
    assert!(
        doctor.code == Some(1) && doctor.output.contains("dials the hub with a certificate of its own"),
        "{}",
        doctor.output
    );
}
