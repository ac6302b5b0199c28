//! Links through real proxies, each as Debian's package configures it, and with the configuration of
//! `docs/how-to/behind-a-corporate-proxy.md`. A proxy that is not installed is skipped loudly; `.ci/run` installs all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::{bash, run};
use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Folder, Node, Process, Site, eventually, skip};

/// The port of the hub in the documented configurations.
const HUB_PORT: &str = "9443";

/// A program, wherever a package may put it; reports a skip if it is missing.
fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("links through {name} are not tried: it is not here (Debian: {package})"));
    }
    found
}

/// A proxy that runs. It ends by SIGTERM: the workers of Apache and Dante survive a master that is killed.
struct Proxy {
    process: Process,
    listen: SocketAddr,
    _folder: Folder,
}

impl Proxy {
    /// Starts a proxy by a function from its folder and address to its command, and waits until it listens.
    fn start(command: impl Fn(&Path, SocketAddr) -> Command) -> Proxy {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = Folder::new();
        let mut process = Process::spawn(&mut command(folder.path(), listen));
        eventually("the proxy listens", || {
            assert!(process.is_alive(), "the proxy ended:\n{}", process.output());
            TcpStream::connect(listen).ok()
        });
        Proxy { process, listen, _folder: folder }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.signal("TERM");
        let until = Instant::now() + Duration::from_secs(10);
        while self.process.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// The configuration that the page has in that language, for clients on loopback and a hub at that port.
fn documented(language: &str, hub: SocketAddr) -> String {
    let page = include_str!("../../docs/how-to/behind-a-corporate-proxy.md");
    let fence = format!("```{language}\n");
    let block = page.split(&*fence).nth(1).and_then(|rest| rest.split("```").next());
    let block = block.unwrap_or_else(|| panic!("the page has no block of {language}"));
    block.replace(HUB_PORT, &hub.port().to_string()).replace("192.0.2.0/24", "127.0.0.0/8")
}

/// Debian's configuration of squid, with `added` in the place of its folder for additions.
fn squid(program: &Path, added: &str) -> Proxy {
    Proxy::start(|folder, listen| {
        let debian = std::fs::read_to_string("/etc/squid/squid.conf").unwrap();
        let (port, include) = ("\nhttp_port 3128\n", "\ninclude /etc/squid/conf.d/*.conf\n");
        assert!(debian.contains(port) && debian.contains(include), "squid's configuration is another one");
        let config = debian.replace(port, &format!("\nhttp_port {listen}\n")).replace(include, &format!("\n{added}\n"));
        let config = format!(
            "{config}\npid_filename none\naccess_log none\ncache_log /dev/null\ncache_store_log none\npinger_enable off\n\
             shutdown_lifetime 0 seconds\nconnect_timeout 2 seconds\ndns_timeout 2 seconds\nvisible_hostname proxy.test\n"
        );
        let mut command = Command::new(program);
        command.arg("-N").arg("-f").arg(written(folder, "squid.conf", &config));
        command
    })
}

/// Apache as a forward proxy; `tls` are the lines of its own TLS.
fn apache(program: &Path, allowed: &str, tls: &str) -> Proxy {
    Proxy::start(|folder, listen| {
        let modules = ["mpm_event", "authz_core", "authz_host", "proxy", "proxy_connect", "socache_shmcb", "ssl"];
        let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
        let config = format!(
            "ServerRoot {0}\n{2}ServerName localhost\nPidFile {0}/apache.pid\nErrorLog /dev/stderr\nListen {listen}\n\
             {1}{tls}{allowed}",
            folder.display(),
            modules.concat(),
            if skip::is_root() { "User www-data\nGroup www-data\n" } else { "" }
        );
        let mut command = Command::new(program);
        command.arg("-f").arg(written(folder, "apache.conf", &config)).arg("-DFOREGROUND");
        command
    })
}

fn microsocks(program: &Path, arguments: &[&str]) -> Proxy {
    Proxy::start(|_, listen| {
        let mut command = Command::new(program);
        command.args(["-i", "127.0.0.1", "-p", &listen.port().to_string()]).args(arguments);
        command
    })
}

/// A site with a running hub that edges reach at this address.
fn site() -> (Site, Node) {
    let site = Site::new();
    site.pki(&["hub", "localhost", "--force"]);
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let mut hub = site.hub();
    hub.start();
    (site, hub)
}

/// The configuration of an edge whose uplink has these further lines.
fn config(site: &Site, hub: &str, lines: &str) -> String {
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let any = "127.0.0.1:1".parse().unwrap();
    let config = edge_config(&site.path().join("syq-1"), any, &site.cert("ca.pem"), &cert, &key);
    config.replace("hub = \"127.0.0.1:1\"\n", &format!("hub = \"{hub}\"\nconnect_timeout = \"5s\"\n{lines}\n"))
}

fn edge(site: &Site, hub: &str, lines: &str) -> Node {
    let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &config(site, hub, lines));
    edge.start();
    edge
}

/// The hub's address by name, so that the proxy resolves it.
fn by_name(hub: &Node) -> String {
    format!("localhost:{}", hub.edge_listener().port())
}

/// An edge with these lines links to the hub, and a push arrives.
#[track_caller]
fn links(site: &Site, hub: &Node, lines: &str) {
    let mut edge = edge(site, &by_name(hub), lines);
    let push = format!("through{} 1\n", edge.web().port());
    edge.push("job/a", &push);
    hub.shows(push.split(' ').next().unwrap(), &[("IDC", "SYQ")], 1.0);
    let log = edge.stop().1;
    assert!(log.contains("the uplink goes through a proxy"), "{log}");
    std::fs::remove_dir_all(edge.store()).unwrap();
}

/// An edge with these lines has no link; its log says why, and its metrics in which step.
#[track_caller]
fn fails(site: &Site, hub: &str, lines: &str, reasons: &[&str], step: &str) {
    let mut edge = edge(site, hub, lines);
    edge.process().line(&format!("one of {reasons:?}"), |line| {
        (line.contains("no link to the hub") && reasons.iter().any(|reason| line.contains(reason))).then_some(())
    });
    let counted = || edge.page().values("pushrelay_uplink_dial_failures_total", &[("step", step)])[0] > 0.0;
    eventually("the failure is counted", || counted().then_some(()));
    edge.stop();
    std::fs::remove_dir_all(edge.store()).unwrap();
}

/// A port on which nothing listens: it was free a moment ago.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn squid_refuses_other_ports_than_443_until_it_is_told() {
    let Some(program) = program("squid", "squid") else { return };
    let (site, hub) = site();
    let as_it_comes = squid(&program, "");
    let url = format!("proxy_url = 'http://{}'", as_it_comes.listen);
    let refused = "it refuses a tunnel to localhost:";
    fails(&site, &by_name(&hub), &url, &[refused], "proxy");
    let port = hub.edge_listener().port();
    let words = "(403 Forbidden, ERR_ACCESS_DENIED 0: ERROR The requested URL could not be retrieved";
    fails(&site, &by_name(&hub), &url, &[words], "proxy");
    fails(&site, &by_name(&hub), &url, &[&format!("have port {port} allowed at the proxy")], "proxy");
    let allowed = squid(&program, &documented("squid", hub.edge_listener()));
    let url = format!("proxy_url = 'http://{}'", allowed.listen);
    links(&site, &hub, &url);
    // Nobody listens, and a name that does not resolve: with Debian's resolver squid may be silent for long.
    let free = free();
    let nobody = squid(&program, &format!("acl SSL_ports port {free} {port}"));
    let url = format!("proxy_url = 'http://{}'\nproxy_timeout = '20s'", nobody.listen);
    let reached = format!("it could not reach localhost:{free} (503 Service Unavailable, ERR_CONNECT_FAIL 111");
    fails(&site, &format!("localhost:{free}"), &url, &[&reached], "proxy");
    let unknown = format!("no-such-name.invalid:{port}");
    let reasons = [&format!("it could not reach {unknown} (50"), "it gave no answer within"];
    fails(&site, &unknown, &url, &reasons, "proxy");
}

#[test]
fn a_login_is_checked_and_a_corrected_password_is_taken_without_a_restart() {
    let Some(program) = program("squid", "squid") else { return };
    let (site, hub) = site();
    let users = Folder::new();
    let hash = bash("openssl passwd -apr1 hunter2");
    let users = written(users.path(), "users", &format!("edge-syq-1:{}\n", hash.trim()));
    bash(&format!("chmod 644 {users:?}; chmod 755 {:?}", users.parent().unwrap()));
    let proxy = squid(
        &program,
        &format!(
            "acl SSL_ports port {}\nauth_param basic program /usr/lib/squid/basic_ncsa_auth {}\n\
             acl users proxy_auth REQUIRED\nhttp_access allow users\nhttp_access deny all",
            hub.edge_listener().port(),
            users.display()
        ),
    );
    let url = format!("proxy_url = 'http://{}'", proxy.listen);
    let required = "; it offers Basic): set uplink.proxy_username and uplink.proxy_password_file";
    fails(&site, &by_name(&hub), &url, &[required], "proxy");
    let password = written(site.path(), "proxy-password", "swordfish\n");
    let lines = format!("{url}\nproxy_username = 'edge-syq-1'\nproxy_password_file = '{}'", password.display());
    let mut edge = edge(&site, &by_name(&hub), &lines);
    edge.process().line("the user is refused", |line| {
        line.contains("and refuses the user \\\"edge-syq-1\\\": check uplink.proxy_username").then_some(())
    });
    std::fs::write(&password, "hunter2\n").unwrap();
    edge.push("job/a", "corrected 1\n");
    hub.shows("corrected", &[("IDC", "SYQ")], 1.0);
    std::fs::write(&password, "").unwrap();
    edge.process().line("an empty password is not taken", |line| {
        (line.contains("credentials have changed, but cannot be used") && line.contains("it is empty")).then_some(())
    });
    let checked = run(site.path(), &["check-config", "syq-1.toml"]);
    assert!(
        checked.code == Some(1) && checked.output.contains("cannot read the proxy's password"),
        "{}",
        checked.output
    );
    std::fs::write(&password, "hunter2\n").unwrap();
    let checked = run(site.path(), &["check-config", "syq-1.toml"]);
    let status = edge.get("/status").text() + &edge.get("/api/v1/status").text() + &edge.get("/metrics").text();
    let shown = checked.output + &status + &edge.stop().1;
    assert!(shown.contains("through the proxy http://") && shown.contains("edge-syq-1"), "{shown}");
    for secret in ["hunter2", "swordfish", "aHVudGVyMg"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[test]
fn a_proxy_that_wants_ntlm_is_reached_through_cntlm() {
    let Some(program_squid) = program("squid", "squid") else { return };
    let (site, hub) = site();
    let helper = "/usr/lib/squid/ntlm_fake_auth";
    let proxy = squid(
        &program_squid,
        &format!(
            "acl SSL_ports port {}\nauth_param ntlm program {helper}\nacl users proxy_auth REQUIRED\n\
             http_access allow users\nhttp_access deny all",
            hub.edge_listener().port()
        ),
    );
    let password = written(site.path(), "proxy-password", "hunter2\n");
    let url = format!(
        "proxy_url = 'http://{}'\nproxy_username = 'a'\nproxy_password_file = '{}'",
        proxy.listen,
        password.display()
    );
    let reason = "it offers NTLM): pushrelay logs in with Basic only; run a helper such as cntlm or px on this host";
    fails(&site, &by_name(&hub), &url, &[reason], "proxy");
    let Some(cntlm) = program("cntlm", "cntlm") else { return };
    let helper = Proxy::start(|folder, listen| {
        let block = documented("cntlm", hub.edge_listener());
        let block = block.replace("proxy.example.org:3128", &proxy.listen.to_string());
        let block = block.replace("127.0.0.1:3128", &listen.to_string());
        // Squid's helper does not know the later form.
        let block = block.replace("PassNTLMv2 ", "Auth NT\nPassNT ");
        let mut command = Command::new(&cntlm);
        command.arg("-f").arg("-c").arg(written(folder, "cntlm.conf", &block));
        command
    });
    links(&site, &hub, &format!("proxy_url = 'http://{}'", helper.listen));
}

#[test]
fn apache_refuses_other_ports_than_443_until_it_is_told_and_passes_over_tls_too() {
    let Some(program) = program("apache2", "apache2") else { return };
    let (site, hub) = site();
    let allow = |ports: &str| format!("ProxyRequests On\n{ports}<Proxy \"*\">\nRequire local\n</Proxy>\n");
    let as_it_comes = apache(&program, &allow(""), "");
    let url = format!("proxy_url = 'http://{}'", as_it_comes.listen);
    fails(&site, &by_name(&hub), &url, &["it refuses a tunnel to localhost:"], "proxy");
    let hub_port = documented("apache", hub.edge_listener());
    let allowed = apache(&program, &hub_port, "");
    links(&site, &hub, &format!("proxy_url = 'http://{}'", allowed.listen));
    let free = free();
    let open = apache(&program, &allow(&format!("AllowCONNECT {free}\n")), "");
    let url = format!("proxy_url = 'http://{}'", open.listen);
    fails(&site, &format!("localhost:{free}"), &url, &[&format!("it could not reach localhost:{free} (503 ")], "proxy");
    fails(&site, &format!("no-such-name.invalid:{free}"), &url, &["it could not reach no-such-name.invalid"], "proxy");
    let tls = format!(
        "SSLEngine On\nSSLCertificateFile {}\nSSLCertificateKeyFile {}\n",
        site.cert("hub.pem").display(),
        site.cert("hub.key").display()
    );
    let encrypted = apache(&program, &hub_port, &tls);
    let port = encrypted.listen.port();
    let url = format!("proxy_url = 'https://localhost:{port}'\nproxy_ca_file = '{}'", site.cert("ca.pem").display());
    links(&site, &hub, &url);
    let in_the_clear = format!("proxy_url = 'http://localhost:{port}'");
    let reasons = ["it does not do CONNECT (400 ", "it speaks TLS;", "it closed the connection without an answer"];
    fails(&site, &by_name(&hub), &in_the_clear, &reasons, "proxy");
    let other = Site::new();
    let wrong = format!("proxy_url = 'https://localhost:{port}'\nproxy_ca_file = '{}'", other.cert("ca.pem").display());
    fails(&site, &by_name(&hub), &wrong, &["(of the proxy itself: uplink.proxy_ca_file has the authority"], "proxy");
}

#[test]
fn tinyproxy_passes_as_it_comes() {
    let Some(program) = program("tinyproxy", "tinyproxy") else { return };
    let (site, hub) = site();
    let start = |more: &str| {
        Proxy::start(|folder, listen| {
            let debian = std::fs::read_to_string("/etc/tinyproxy/tinyproxy.conf").unwrap();
            let own = |line: &&str| !["Port ", "LogFile ", "PidFile "].iter().any(|key| line.starts_with(key));
            let config: String = debian.lines().filter(own).flat_map(|line| [line, "\n"]).collect();
            let config = format!("{config}Port {}\nListen 127.0.0.1\n{more}", listen.port());
            let mut command = Command::new(&program);
            command.arg("-d").arg("-c").arg(written(folder, "tinyproxy.conf", &config));
            command
        })
    };
    let proxy = start("");
    let url = format!("proxy_url = 'http://{}'", proxy.listen);
    links(&site, &hub, &url);
    let free = free();
    fails(&site, &format!("localhost:{free}"), &url, &[&format!("it could not reach localhost:{free} (500 ")], "proxy");
    fails(&site, "no-such-name.invalid:443", &url, &["it could not reach no-such-name.invalid:443 (500 "], "proxy");
    let restricted = start("ConnectPort 443\n");
    let url = format!("proxy_url = 'http://{}'", restricted.listen);
    fails(&site, &by_name(&hub), &url, &["it refuses a tunnel to localhost:"], "proxy");
    let allowed = start(&documented("tinyproxy", hub.edge_listener()));
    links(&site, &hub, &format!("proxy_url = 'http://{}'", allowed.listen));
}

#[test]
fn privoxy_passes_as_it_comes() {
    let Some(program) = program("privoxy", "privoxy") else { return };
    let (site, hub) = site();
    let proxy = Proxy::start(|folder, listen| {
        let debian = std::fs::read_to_string("/etc/privoxy/config").unwrap();
        let own = |line: &&str| !["listen-address", "logfile ", "logdir "].iter().any(|key| line.starts_with(key));
        let config: String = debian.lines().filter(own).flat_map(|line| [line, "\n"]).collect();
        let config = format!("{config}listen-address {listen}\nlogdir {}\n", folder.display());
        let mut command = Command::new(&program);
        command.arg("--no-daemon").arg(written(folder, "config", &config));
        command
    });
    let url = format!("proxy_url = 'http://{}'", proxy.listen);
    links(&site, &hub, &url);
    let free = free();
    fails(&site, &format!("localhost:{free}"), &url, &[&format!("it could not reach localhost:{free} (503 ")], "proxy");
    fails(&site, "no-such-name.invalid:443", &url, &["it could not reach no-such-name.invalid:443 (404 "], "proxy");
}

#[test]
fn dante_passes_what_its_rules_allow() {
    let Some(program) = program("danted", "dante-server") else { return };
    let (site, hub) = site();
    let start = |rules: &dyn Fn(SocketAddr) -> String| {
        Proxy::start(|folder, listen| {
            let config =
                format!("logoutput: stderr\nuser.privileged: root\nuser.unprivileged: nobody\n{}", rules(listen));
            let mut command = Command::new(&program);
            command.arg("-f").arg(written(folder, "danted.conf", &config)).arg("-p").arg(folder.join("danted.pid"));
            command
        })
    };
    let with_port = |hub: SocketAddr| {
        let block = documented("dante", hub);
        move |listen: SocketAddr| block.replace("192.0.2.1", "127.0.0.1").replace("1080", &listen.port().to_string())
    };
    let proxy = start(&with_port(hub.edge_listener()));
    for scheme in ["socks5h", "socks5"] {
        links(&site, &hub, &format!("proxy_url = '{scheme}://{}'", proxy.listen));
    }
    let url = format!("proxy_url = 'socks5h://{}'", proxy.listen);
    fails(&site, "localhost:1", &url, &["its rules forbid a tunnel to localhost:1"], "proxy");
    let unknown = format!("no-such-name.invalid:{}", hub.edge_listener().port());
    fails(&site, &unknown, &url, &["it could not reach no-such-name.invalid"], "proxy");
    let http = format!("proxy_url = 'http://{}'", proxy.listen);
    fails(
        &site,
        &by_name(&hub),
        &http,
        &["it closed the connection without an answer", "it seems to speak SOCKS"],
        "proxy",
    );
}

#[test]
fn microsocks_passes_with_and_without_a_login() {
    let Some(program) = program("microsocks", "microsocks") else { return };
    let (site, hub) = site();
    let open = microsocks(&program, &[]);
    for scheme in ["socks5h", "socks5"] {
        links(&site, &hub, &format!("proxy_url = '{scheme}://{}'", open.listen));
    }
    let url = format!("proxy_url = 'socks5h://{}'", open.listen);
    let free = free();
    fails(&site, &format!("localhost:{free}"), &url, &["nothing listens there (connection refused)"], "proxy");
    fails(&site, "no-such-name.invalid:443", &url, &["it could not reach no-such-name.invalid:443"], "proxy");
    // A name that is resolved here.
    let url = format!("proxy_url = 'socks5://{}'", open.listen);
    fails(&site, "no-such-name.invalid:443", &url, &["its name cannot be resolved"], "names");
    let closed = microsocks(&program, &["-u", "edge", "-P", "hunter2"]);
    let url = format!("proxy_url = 'socks5h://{}'", closed.listen);
    fails(&site, &by_name(&hub), &url, &["it requires a login: set uplink.proxy_username"], "proxy");
    let with = |password: &str| {
        let file = written(site.path(), "proxy-password", password);
        format!("{url}\nproxy_username = 'edge'\nproxy_password_file = '{}'", file.display())
    };
    fails(&site, &by_name(&hub), &with("wrong"), &["it refuses the user", "check uplink.proxy_username"], "proxy");
    links(&site, &hub, &with("hunter2"));
}

/// A listener that answers each connection with these bytes, after something arrived. It lasts as long as the test.
fn answering(answer: &'static [u8], closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer);
            if !closes {
                open.push(stream);
            }
        }
    });
    address
}

#[test]
fn a_proxy_that_hangs_closes_or_sends_a_page_is_reported() {
    let (site, hub) = site();
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 22\r\n\r\n<h1>Please log in</h1>";
    let unreachable = SocketAddr::from(([127, 0, 0, 1], free()));
    for (proxy, reason, step) in [
        (answering(b"", false), "it gave no answer within 1 s (uplink.proxy_timeout)", "proxy"),
        (answering(b"", true), "it closed the connection without an answer", "proxy"),
        (answering(page, false), "sent a page instead of a tunnel", "proxy"),
        // The tunnel opens, and what is behind it is no hub.
        (answering(b"HTTP/1.1 200 OK\r\n\r\n", true), "TLS handshake failed: ", "tls"),
        (unreachable, "Connection refused", "addresses"),
    ] {
        let lines = format!("proxy_url = 'http://{proxy}'\nproxy_timeout = '1s'");
        fails(&site, &by_name(&hub), &lines, &[reason], step);
    }
    let unknown = "proxy_url = 'http://no-such-proxy.invalid:3128'";
    fails(&site, &by_name(&hub), unknown, &["through the proxy http://no-such-proxy.invalid:3128: its name"], "names");
}

#[test]
fn the_environment_names_the_proxy_only_if_it_is_asked() {
    let Some(program) = program("microsocks", "microsocks") else { return };
    let (site, hub) = site();
    let proxy = microsocks(&program, &["-u", "edge", "-P", "hunter2"]);
    let url = format!("socks5h://edge:hunter2@{}", proxy.listen);
    let start = |lines: &str, no_proxy: &str| {
        let edge = Node::new(Role::Edge, site.path(), "syq-1", &config(&site, &by_name(&hub), lines));
        let mut edge = edge.env("ALL_PROXY", &url).env("NO_PROXY", no_proxy);
        edge.start();
        eventually("the edge is linked", || {
            (edge.page().values("pushrelay_uplink_connected", &[]) == [1.0]).then_some(())
        });
        let shown = edge.get("/status").text() + &edge.stop().1;
        assert!(!shown.contains("hunter2"), "{shown}");
        shown.contains("the uplink goes through a proxy")
    };
    assert!(!start("", ""));
    assert!(start("proxy_from_environment = true", "example.org"));
    assert!(!start("proxy_from_environment = true", "example.org,localhost"));
    assert!(!start("proxy_from_environment = true\nno_proxy = ['localhost']", ""));
}
