//! Real Prometheuses, old and new, that scrape a hub.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Folder, Node, Process, Site, eventually, http, skip};

/// Prometheus from `PATH`, or from Debian's package as `scripts/install-prometheus` installs it. Tests run in parallel:
/// the first one installs, and the others wait for it.
pub fn prometheus() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("prometheus")).find(|file| file.is_file());
        found.map_or_else(|| install("install-prometheus", "peers"), Ok)
    };
    FOUND.get_or_init(find).as_deref().map_err(String::clone)
}

/// The newest Prometheus that `scripts/install-peers` finds.
pub fn newest_prometheus() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| install("install-peers", "newest-peers")).as_deref().map_err(String::clone)
}

/// The Prometheus of this machine's Debian release: an older one.
pub fn older_prometheus() -> Result<&'static Path, String> {
    prometheus()
}

fn install(script: &str, folder: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let binary = folder.join("bin/prometheus");
    // The script makes this link last: an incomplete folder has none.
    if binary.exists() {
        return Ok(binary);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
    let output = Command::new(script).arg(&folder).output().map_err(|error| error.to_string())?;
    let reason = || {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        format!("no Prometheus to be had: the script ended with {}: {said}", output.status)
    };
    (output.status.success() && binary.exists()).then_some(binary).ok_or_else(reason)
}

/// A port that was free a moment ago: Prometheus cannot choose one and report it.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const CONFIG: &str = "
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: pushgateway
  honor_labels: true
  static_configs:
    - targets: ['HUB:9091']
      labels: {instance: pushgateway}
";

/// The result of an instant query, as `(value of label, value)` pairs sorted.
pub fn query(prometheus: SocketAddr, expression: &str, label: &str) -> Option<Vec<(String, String)>> {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let reply = http::request(prometheus, "GET", &format!("/api/v1/query?query={escaped}"), &[], b"").ok()?;
    let json = (reply.status == 200).then(|| reply.json())?;
    let pair = |item: &serde_json::Value| {
        let label = item["metric"][label].as_str().unwrap_or_default();
        (label.to_owned(), item["value"][1].as_str().unwrap_or_default().to_owned())
    };
    let mut pairs: Vec<_> = json["data"]["result"].as_array()?.iter().map(pair).collect();
    pairs.sort();
    Some(pairs)
}

/// Starts Prometheus with that configuration.
fn start(binary: &Path, folder: &Folder, text: &str) -> (Process, SocketAddr) {
    start_with(binary, folder, text, &[])
}

/// Starts Prometheus with that configuration and these flags.
pub fn start_with(binary: &Path, folder: &Folder, text: &str, flags: &[&str]) -> (Process, SocketAddr) {
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, text).unwrap();
    let address = free_address();
    let mut command = Command::new(binary);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={address}")).args(flags);
    (Process::spawn(&mut command), address)
}

#[test]
fn prometheus_scrapes_with_a_certificate_and_a_password() {
    let binary = match prometheus() {
        Ok(binary) => binary,
        Err(reason) => return skip(&reason),
    };
    let site = Site::new();
    site.pki(&["edge", "scraper"]);
    let tls = "[web.tls]\ncert_file = 'certs/hub.pem'\nkey_file = 'certs/hub.key'\nclient_ca_file = 'certs/ca.pem'\n\
               client_auth_type = 'RequireAndVerifyClientCert'\n";
    let users = format!("[web.basic_auth_users]\nscraper = '{}'\n", bcrypt::hash("pass", 4).unwrap());
    let hub = site.hub_config("hub").replace("[storage]", &format!("{tls}{users}[storage]"));
    let mut hub = Node::new(Role::Hub, site.path(), "protected", &hub);
    hub.start_listening();

    let certs = site.cert("").display().to_string();
    let secrets = format!(
        "  scheme: https\n  basic_auth: {{username: scraper, password: pass}}\n  tls_config:\n    ca_file: {certs}ca.pem\n\
         \x20   cert_file: {certs}scraper.pem\n    key_file: {certs}scraper.key\n"
    );
    let config = CONFIG.replace("HUB:9091", &hub.web().to_string()).trim_end().to_owned() + "\n" + &secrets;
    let folder = Folder::new();
    let (mut process, address) = start(binary, &folder, &config);
    eventually("Prometheus sees the hub", || {
        assert!(process.is_alive(), "Prometheus ended:\n{}", process.output());
        let up = query(address, "up", "job")?;
        (up == [("pushgateway".to_owned(), "1".to_owned())]).then_some(())
    });
    let expiry = query(address, "pushrelay_web_certificate_expiry_timestamp_seconds > time()", "job").unwrap();
    assert_eq!(expiry.len(), 1);
}

#[test]
fn prometheus_sums_by_idc() {
    let binary = match prometheus() {
        Ok(binary) => binary,
        Err(reason) => return skip(&reason),
    };
    let (_site, hub, syq, bj) = Site::with_two_edges();
    syq.push("job/a", "m{k=\"1\"} 1\nm{k=\"2\"} 2\n");
    syq.push("job/a/instance/i", "m 4\n");
    bj.push("job/a", "m{k=\"1\"} 10\n");
    bj.push("job/b", "m 20\n");

    let folder = Folder::new();
    let (mut process, address) = start(binary, &folder, &CONFIG.replace("HUB:9091", &hub.web().to_string()));

    let mut sums = |expected: &[(&str, &str)]| {
        let mut seen = None;
        let expected: Vec<_> = expected.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect();
        eventually(&format!("Prometheus sums to {expected:?}"), || {
            assert!(process.is_alive(), "Prometheus ended:\n{}", process.output());
            seen = query(address, "sum by (IDC) (m)", "IDC");
            (seen.as_ref() == Some(&expected)).then_some(())
        });
    };
    sums(&[("BJ", "30"), ("SYQ", "7")]);
    syq.delete("job/a");
    bj.push("job/b", "m 21\n");
    sums(&[("BJ", "31"), ("SYQ", "4")]);

    assert_eq!(query(address, "up", "job").unwrap(), [("pushgateway".to_owned(), "1".to_owned())]);
    let instances = query(address, "m{job=\"a\",IDC=\"BJ\"}", "instance").unwrap();
    assert_eq!(instances, [(String::new(), "10".to_owned())], "an empty instance stays empty, as with a Pushgateway");
}
