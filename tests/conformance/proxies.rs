//! The cases through reverse proxies, each with the configuration of `docs/how-to/put-a-proxy-in-front.md`.
//!
//! A proxy may differ only in the cases of `proxies.toml`, each with its reason. A proxy that is not installed is
//! skipped loudly; `.ci/run` installs all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Folder, Process, eventually, skip};
use serde::Deserialize;

use crate::case::{Suite, folder, suites};
use crate::outcome::Server;
use crate::replay;
use crate::servers::Ours;

/// The addresses in the documented configurations.
const LISTENS: &str = "127.0.0.1:8080";
const LEADS_TO: &str = "127.0.0.1:9091";

/// A reverse proxy.
struct Proxy {
    name: &'static str,
    /// Its program, and Debian's package of it.
    program: &'static str,
    package: &'static str,
    /// The language of its block in the page.
    language: &'static str,
    /// Makes the command that runs it in the foreground, from a folder and the documented configuration, which has the
    /// address `listen`.
    command: fn(program: &Path, folder: &Path, documented: &str, listen: SocketAddr) -> Command,
}

const NGINX: Proxy = Proxy {
    name: "nginx",
    program: "nginx",
    package: "nginx",
    language: "nginx",
    command: |program, folder, documented, _| {
        let config = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\n{documented}}}\n"
        );
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-c").arg(written(folder, "nginx.conf", &config)).args(["-e", "stderr"]);
        command
    },
};

const APACHE: Proxy = Proxy {
    name: "Apache",
    program: "apache2",
    package: "apache2",
    language: "apache",
    command: |program, folder, documented, listen| {
        let modules = ["mpm_event", "authz_core", "proxy", "proxy_http"];
        let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
        let config = format!(
            "ServerRoot {0}\n{2}ServerName localhost\nPidFile {0}/apache.pid\nErrorLog /dev/stderr\nListen {listen}\n\
             {1}{documented}",
            folder.display(),
            modules.concat(),
            // Apache does not run as root.
            if skip::is_root() { "User www-data\nGroup www-data\n" } else { "" }
        );
        let mut command = Command::new(program);
        command.arg("-f").arg(written(folder, "apache.conf", &config)).arg("-DFOREGROUND");
        command
    },
};

const HAPROXY: Proxy = Proxy {
    name: "HAProxy",
    program: "haproxy",
    package: "haproxy",
    language: "haproxy",
    command: |program, folder, documented, _| {
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(written(folder, "haproxy.cfg", documented));
        command
    },
};

const CADDY: Proxy = Proxy {
    name: "Caddy",
    program: "caddy",
    package: "caddy",
    language: "caddyfile",
    command: |program, folder, documented, _| {
        let config = format!("{{\n    admin off\n}}\n{documented}");
        let mut command = Command::new(program);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(written(folder, "Caddyfile", &config));
        command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        command
    },
};

const VARNISH: Proxy = Proxy {
    name: "Varnish",
    program: "varnishd",
    package: "varnish",
    language: "vcl",
    command: |program, folder, documented, listen| {
        let mut command = Command::new(program);
        command.arg("-F").arg("-n").arg(folder).arg("-a").arg(listen.to_string());
        command.arg("-f").arg(written(folder, "gateway.vcl", documented)).args(["-s", "default,16m"]);
        command.args(["-p", "http_req_size=65536", "-p", "http_req_hdr_len=65536", "-p", "workspace_client=262144"]);
        command.args(["-p", "workspace_backend=262144"]);
        command
    },
};

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

impl Proxy {
    /// Its program, wherever a package may put it.
    fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        folders.map(|folder| folder.join(self.program)).find(|file| file.is_file())
    }

    /// The documented configuration, with these addresses.
    fn documented(&self, listen: SocketAddr, node: SocketAddr) -> String {
        let page = include_str!("../../docs/how-to/put-a-proxy-in-front.md");
        let fence = format!("```{}\n", self.language);
        let block = page.split(&*fence).nth(1).and_then(|rest| rest.split("```").next());
        let block = block.unwrap_or_else(|| panic!("the page has no block of {}", self.language));
        let block = block.replace(LISTENS, &listen.to_string()).replace(LEADS_TO, &node.to_string());
        // Caddy's configuration has the port alone, and Varnish's on a line of its own.
        let block = block.replace("http://:8080", &format!("http://:{}", listen.port()));
        block.replace("\"9091\"", &format!("\"{}\"", node.port()))
    }

    /// Starts it in front of a node.
    fn start(&self, program: &Path, node: SocketAddr) -> (Running, SocketAddr, Folder) {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = Folder::new();
        let mut process =
            Process::spawn(&mut (self.command)(program, folder.path(), &self.documented(listen, node), listen));
        eventually(&format!("{} listens", self.name), || {
            assert!(process.is_alive(), "{} ended:\n{}", self.name, process.output());
            TcpStream::connect(listen).ok()
        });
        (Running(process), listen, folder)
    }
}

/// A proxy that runs. It ends by SIGTERM: worker processes of Apache and nginx survive a master that is killed.
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

/// Why some cases differ behind a proxy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    reason: String,
    /// The cases by proxy, as `suite/case`.
    cases: BTreeMap<String, Vec<String>>,
}

fn exceptions() -> Vec<Exception> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        exception: Vec<Exception>,
    }
    let file = folder().join("proxies.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    file.exception
}

/// Replays the cases on a hub behind the proxy: exactly those of `proxies.toml` differ.
fn replay_behind(proxy: &Proxy) {
    let Some(program) = proxy.find() else {
        return skip(&format!(
            "the cases are not tried behind {}: no {} here (Debian: {})",
            proxy.name, proxy.program, proxy.package
        ));
    };
    let expected = exceptions().into_iter().flat_map(|exception| exception.cases.into_iter());
    let excepted: BTreeSet<String> =
        expected.filter(|(name, _)| name == proxy.name).flat_map(|(_, cases)| cases).collect();
    let differing = crate::differing();
    let (mut failures, mut unneeded, mut count) = (Vec::new(), excepted.clone(), 0);
    for suite in suites() {
        let node = Ours::start(Role::Hub, &suite);
        let (_process, address, _folder) = proxy.start(&program, node.address());
        count += suite.cases.len();
        for failure in replay(&Server::new(address, &suite), &suite, &differing) {
            let id = failure.lines().next().unwrap_or_default();
            unneeded.remove(id);
            failures.extend((!excepted.contains(id)).then_some(failure));
        }
    }
    assert!(count > 900, "only {count} cases seen");
    assert!(failures.is_empty(), "{} of {count} cases differ:\n{}", failures.len(), failures.join("\n"));
    assert!(unneeded.is_empty(), "these agree behind {}, and need no exception: {unneeded:?}", proxy.name);
}

#[test]
fn nginx_passes_the_cases() {
    replay_behind(&NGINX);
}

#[test]
fn apache_passes_the_cases() {
    replay_behind(&APACHE);
}

#[test]
fn haproxy_passes_the_cases() {
    replay_behind(&HAPROXY);
}

#[test]
fn caddy_passes_the_cases() {
    replay_behind(&CADDY);
}

#[test]
fn varnish_passes_the_cases() {
    replay_behind(&VARNISH);
}

#[test]
fn the_page_has_the_reason_of_every_exception() {
    let page = include_str!("../../docs/how-to/put-a-proxy-in-front.md");
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let known: BTreeSet<String> = suites()
        .iter()
        .flat_map(|Suite { name, cases, .. }| {
            cases.keys().map(move |case| format!("{name}/{case}")).collect::<Vec<_>>()
        })
        .collect();
    for exception in exceptions() {
        assert!(page.contains(&exception.reason), "not in the page: {}", exception.reason);
        for (proxy, cases) in &exception.cases {
            assert!([NGINX, APACHE, HAPROXY, CADDY, VARNISH].iter().any(|known| known.name == proxy), "{proxy}");
            for case in cases {
                assert!(known.contains(case), "there is no case {case}");
            }
        }
    }
}
