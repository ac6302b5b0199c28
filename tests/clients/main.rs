//! The common client libraries, each at a pinned version, push to an edge; the tests check the metrics at the hub.
//!
//! Every client does the same with its own job and a grouping key of unusual values: it replaces a group with
//! `client_old`, then with `client_value` 41 and a histogram, then adds `client_value` 42 and `client_added` 7. It also
//! pushes `client_gone` to another group, and deletes that. If a library cannot do a part, a comment in its program
//! names it.
//!
//! Then it does the same at the same edge with a base URL that ends in `/aggregate`, so that its pushes add; and once more
//! with TLS and a password, configured in an exporter-toolkit file as for a Pushgateway.
//!
//! Downloads and builds are cached under `target/clients`. Without its toolchain a client is skipped, and the test
//! prints that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pushrelay_testkit::{Node, Site, skip};

const UTF8: (&str, &str) = ("name", "Προμηθεύς");
const SPACE: (&str, &str) = ("space", "a b+c%d");
/// The same from libraries that encode a space as a plus sign, which is not a space in a path.
const PLUS: (&str, &str) = ("space", "a+b+c%d");
const SLASH: (&str, &str) = ("path", "/var/tmp");
const EMPTY: (&str, &str) = ("empty", "");

/// The programs of a language.
fn source(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(language)
}

/// The folder of a language's downloads and builds.
fn cache(language: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("clients").join(language);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A copy of a language's programs, for tools that write into the source folder.
fn copied(language: &str) -> PathBuf {
    let folder = cache(language);
    run(Command::new("cp").arg("-r").arg(source(language).join(".")).arg(&folder));
    folder
}

/// Whether all tools are installed; prints the one that is not.
fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &&&str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let missing: Vec<_> = tools.iter().filter(|tool| !has(tool)).collect();
    if !missing.is_empty() {
        skip(&format!("a client library is not tried: no {missing:?} here"));
    }
    missing.is_empty()
}

/// Runs a command that must succeed, and returns its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// The base path below which pushes add, for clients that keep the path of their base URL.
const AGGREGATE: Option<&str> = Some("/aggregate");

/// Runs a client against an edge and checks the hub. `group` is its grouping key without the job. `below` is the base path
/// by which its pushes add.
fn drive(client: &Command, jobs: &[&str], group: &[(&str, &str)], below: Option<&str>) {
    drive_plain(client, jobs, group, below);

    let (site, hub, edge) = protected();
    let mut client = copy(client);
    client.env("PUSH_CA", site.cert("ca.pem")).env("SSL_CERT_FILE", site.cert("ca.pem"));
    client.env("PUSH_USER", "alice").env("PUSH_PASSWORD", PASSWORD);
    run(client.arg(format!("https://{}", edge.web())));
    check(&hub, jobs, group);
    hub.lacks("client_old", &[]);
}

/// The same without TLS and password. Then it pushes the same again with the base URL by which pushes add.
fn drive_plain(client: &Command, jobs: &[&str], group: &[(&str, &str)], below: Option<&str>) {
    let (_site, hub, edge) = Site::with_one_edge();
    run(copy(client).arg(format!("http://{}", edge.web())));
    check(&hub, jobs, group);
    hub.lacks("client_old", &[]);
    let Some(below) = below else { return };
    let deleted = edge.request("DELETE", "/api/v1/groups?match[]={job=~%22.%2B%22}", &[], b"");
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    hub.lacks("client_value", &[]);
    run(copy(client).arg(format!("http://{}{below}", edge.web())));
    check(&hub, jobs, group);
    for job in jobs {
        // A push that adds replaces nothing.
        hub.shows("client_old", &[("job", job)], 1.0);
    }
}

/// The command with its arguments and folder, to run it several times.
fn copy(client: &Command) -> Command {
    let mut copy = Command::new(client.get_program());
    copy.args(client.get_args());
    if let Some(folder) = client.get_current_dir() {
        copy.current_dir(folder);
    }
    copy
}

const PASSWORD: &str = "a:b c?";

/// A site whose edge accepts pushes only with TLS and a password.
fn protected() -> (Site, Node, Node) {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let tls = "tls_server_config:\n  cert_file: certs/hub.pem\n  key_file: certs/hub.key\n";
    let file = site.path().join("web-config.yml");
    std::fs::write(&file, format!("{tls}basic_auth_users:\n  alice: {hash}\n")).unwrap();
    let flags = ["--web.config.file", file.to_str().unwrap()];
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&flags);
    edge.start_listening();
    (site, hub, edge)
}

/// Checks the metrics that a client pushed.
fn check(hub: &Node, jobs: &[&str], group: &[(&str, &str)]) {
    for job in jobs {
        let labels = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
            [&[("job", *job), ("IDC", "SYQ"), ("instance", "")], group, more].concat()
        };
        hub.shows("client_value", &labels(&[]), 42.0);
        hub.shows("client_added", &labels(&[]), 7.0);
        hub.shows("client_latency_count", &labels(&[]), 1.0);
        hub.shows("client_latency_sum", &labels(&[]), 0.5);
        hub.shows("client_latency_bucket", &labels(&[("le", "0.1")]), 0.0);
        hub.shows("client_latency_bucket", &labels(&[("le", "1")]), 1.0);
        hub.lacks("client_gone", &[("job", job)]);
        hub.shows("push_failure_time_seconds", &labels(&[]), 0.0);
    }
}

#[test]
fn go_client_golang() {
    if !have(&["go"]) {
        return;
    }
    let (folder, binary) = (cache("go"), cache("go").join("push"));
    let mut build = Command::new("go");
    build.args(["build", "-modcacherw", "-o"]).arg(&binary).arg(".").current_dir(source("go"));
    build
        .env("GOMODCACHE", folder.join("modules"))
        .env("GOCACHE", folder.join("build"))
        .env("GOFLAGS", "-mod=readonly");
    run(build.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0"));
    drive(&Command::new(binary), &["go/client"], &[SLASH, EMPTY, UTF8, PLUS], AGGREGATE);
}

/// The interpreter of a virtual environment with the requirements of a folder.
fn installed(folder: &str) -> PathBuf {
    let requirements = source(folder).join("requirements.txt");
    let folder = cache(folder);
    if !folder.join("bin/python").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    }
    let python = folder.join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
    python
}

/// The interpreter for the tests with `prometheus_client`.
fn python() -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| installed("python")).clone()
}

#[test]
fn python_prometheus_client() {
    if !have(&["python3"]) {
        return;
    }
    let mut client = Command::new(python());
    drive(client.arg(source("python").join("push.py")), &["python/client"], &[SLASH, EMPTY, UTF8, SPACE], AGGREGATE);
}

#[test]
fn python_aioprometheus() {
    if !have(&["python3"]) {
        return;
    }
    let mut client = Command::new(installed("aioprometheus"));
    // The library drops the path of its base URL, so its pushes add only by a rule with `every_path`.
    drive(client.arg(source("aioprometheus").join("push.py")), &["aio/client"], &[SLASH, EMPTY, UTF8, PLUS], None);
}

#[test]
fn java_exporter_pushgateway_and_micrometer() {
    if !have(&["java", "javac", "mvn"]) {
        return;
    }
    let folder = copied("java");
    let mut build = Command::new("mvn");
    build.args(["--batch-mode", "--quiet", "compile", "dependency:copy-dependencies"]).current_dir(&folder);
    build.arg(format!("-Dmaven.repo.local={}", folder.join("repository").display()));
    run(&mut build);
    for (program, job) in [("Push", "java/client"), ("PushMicrometer", "micrometer/client")] {
        let mut client = Command::new("java");
        client.arg("-cp").arg("target/classes:target/dependency/*").arg(program).current_dir(&folder);
        drive(&client, &[job], &[SLASH, EMPTY, UTF8, PLUS], AGGREGATE);
    }
}

#[test]
fn node_prom_client() {
    if !have(&["node", "npm"]) {
        return;
    }
    let folder = copied("node");
    let mut install = Command::new("npm");
    install.args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&folder);
    run(install.env("npm_config_cache", folder.join("cache")));
    let mut client = Command::new("node");
    client.arg(folder.join("push.js"));
    drive(&client, &["node client", "node client gzip"], &[SLASH, EMPTY, UTF8, SPACE], AGGREGATE);
}

#[test]
fn rust_prometheus_and_prometheus_push() {
    // Its HTTP client links OpenSSL.
    if !have(&["pkg-config"]) {
        return;
    }
    if !Command::new("pkg-config").args(["--exists", "openssl"]).status().unwrap().success() {
        return skip("the Rust client is not tried: no OpenSSL to link here (Debian: libssl-dev)");
    }
    let folder = cache("rust");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(source("rust").join("Cargo.toml"));
    run(build.arg("--target-dir").arg(&folder));
    // `prometheus_push` joins URLs: without a slash at the end, it replaces the last part of the path.
    let clients =
        [("prometheus", "rust client", AGGREGATE), ("prometheus_push", "rust push client", Some("/aggregate/"))];
    for (program, job, below) in clients {
        drive(&Command::new(folder.join("debug").join(program)), &[job], &[SLASH, EMPTY, UTF8, SPACE], below);
    }
}

#[test]
fn prometheus_cpp() {
    if !have(&["c++", "pkg-config"]) {
        return;
    }
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "prometheus-cpp-push"]).output().unwrap();
    if !flags.status.success() {
        return skip("the C++ client is not tried: no prometheus-cpp to link here (Debian: prometheus-cpp-dev)");
    }
    let binary = cache("cpp").join("push");
    let mut build = Command::new("c++");
    build.arg(source("cpp").join("push.cpp")).arg("-o").arg(&binary);
    run(build.args(String::from_utf8(flags.stdout).unwrap().split_whitespace()));
    drive_plain(&Command::new(binary), &["cpp client"], &[SLASH, EMPTY, UTF8, SPACE], AGGREGATE);
}

#[test]
fn curl() {
    if have(&["curl", "gzip"]) {
        drive(&Command::new(source("curl").join("push.sh")), &["curl/client"], &[SLASH, EMPTY, UTF8, SPACE], AGGREGATE);
    }
}

/// The clients that keep their connections, where their tools are installed: name and command.
fn pooled() -> Vec<(&'static str, Command)> {
    let source = |file: &str| source("pooled").join(file);
    let mut clients = Vec::new();
    let mut add = |name, program: PathBuf, file: Option<PathBuf>| {
        let mut command = Command::new(program);
        command.args(file);
        clients.push((name, command));
    };
    if have(&["python3"]) {
        add("requests", python(), Some(source("pooled.py")));
    }
    if have(&["node"]) {
        add("node", "node".into(), Some(source("pooled.js")));
    }
    if have(&["java"]) {
        add("java.net.http", "java".into(), Some(source("Pooled.java")));
    }
    if have(&["go"]) {
        let binary = cache("pooled").join("pooled");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&binary).arg(source("pooled.go")).env("GOCACHE", cache("go").join("build"));
        run(build.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0"));
        add("net/http", binary, None);
    }
    clients
}

/// Pushers that keep their connections lose no push: without a limit on idle connections, and with one that is as long
/// as the interval between their pushes. `PUSHRELAY_POOLED_SECONDS` sets other intervals, for a longer trial.
#[test]
fn pooled_connections_lose_no_push() {
    let chosen = std::env::var("PUSHRELAY_POOLED_SECONDS").ok();
    let intervals: Vec<String> = chosen.as_deref().unwrap_or("1").split(',').map(str::to_owned).collect();
    let mut limits = vec![None];
    limits.extend(chosen.is_none().then_some(Some("1s")));
    for limit in limits {
        let site = Site::new();
        let flag = limit.map(|limit| format!("--limits.idle-timeout={limit}"));
        let flags: Vec<&str> = flag.as_deref().into_iter().collect();
        let mut node = site.hub().flags(&flags);
        node.start();
        let url = format!("http://{}", node.web());
        std::thread::scope(|scope| {
            for interval in &intervals {
                for (name, mut client) in pooled() {
                    client.args([&*url, "40", "4", interval]);
                    scope.spawn(move || {
                        let said = run(&mut client);
                        println!("{name}, every {interval} s, limit {limit:?}: {said}");
                        assert!(said.starts_with("failed 0 of 160"), "{name}, every {interval} s, {limit:?}: {said}");
                    });
                }
            }
        });
    }
}
