//! The two nodes as processes, with certificates made by the same binary.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pushrelay_testkit::Line;

const START: Duration = Duration::from_secs(30);

/// A running node.
pub struct Node {
    /// `edge` or `hub`.
    pub name: &'static str,
    /// Its process.
    pub process: Child,
    /// The address of its gateway.
    pub web: SocketAddr,
    /// The directory of its store.
    pub store: PathBuf,
    log: PathBuf,
}

/// The edge and the hub.
pub struct Site {
    /// Sends to the hub through the line.
    pub edge: Node,
    /// Accepts the edge.
    pub hub: Node,
}

impl Site {
    /// Makes certificates, and starts both nodes in `dir`.
    pub fn start(binary: &Path, dir: &Path, line: &Line) -> Result<Site, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let arguments: [&[&str]; 3] = [&["init"], &["hub", "127.0.0.1"], &["edge", "soak", "--label", "IDC=SOAK"]];
        for arguments in arguments {
            let done = Command::new(binary).arg("pki").args(arguments).arg("--force").current_dir(dir).output();
            let done = done.map_err(|error| format!("{}: {error}", binary.display()))?;
            if !done.status.success() {
                return Err(format!("pki {arguments:?}: {}", String::from_utf8_lossy(&done.stderr)));
            }
        }
        let hub = Node::start(binary, dir, "hub", &hub_config())?;
        line.lead_to(hub.listening("edge")?);
        let edge = Node::start(binary, dir, "edge", &edge_config(line.address()))?;
        Ok(Site { edge, hub })
    }

    /// Lets connections through a cut line again.
    pub fn repair(&self, line: &Line) -> Result<(), String> {
        line.lead_to(self.hub.listening("edge")?);
        Ok(())
    }

    /// Makes both nodes read their configuration again.
    pub fn reload(&self) -> Result<(), String> {
        self.edge.signal("HUP")?;
        self.hub.signal("HUP")
    }

    /// Log lines that a soak must not produce.
    pub fn complaints(&self) -> Vec<String> {
        let expected =
            ["no link to the hub", "edge gone", "connection to the edges' listener refused", "write refused"];
        let mut found = Vec::new();
        for node in [&self.edge, &self.hub] {
            let log = fs::read_to_string(&node.log).unwrap_or_default();
            let bad = |line: &&str| {
                (line.contains("level=WARN") || line.contains("level=ERROR") || line.contains("panicked"))
                    && !expected.iter().any(|text| line.contains(text))
            };
            found.extend(log.lines().filter(bad).take(20).map(|line| format!("{}: {line}", node.name)));
        }
        found
    }

    /// Stops both in order, the edge first.
    pub fn stop(mut self) -> Result<(), String> {
        for node in [&mut self.edge, &mut self.hub] {
            node.signal("TERM")?;
            let status = node.process.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("the {} ended with {status}", node.name));
            }
        }
        Ok(())
    }
}

fn hub_config() -> String {
    // Deletes are remembered for minutes, so that within an hour their number levels off.
    "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"hub\"\ntombstone_retention = \"5m\"\n[hub]\n\
     listen_address = [\"127.0.0.1:0\"]\n[hub.tls]\ncert_file = \"certs/hub.pem\"\nkey_file = \"certs/hub.key\"\n\
     client_ca_file = \"certs/ca.pem\"\n"
        .to_owned()
}

fn edge_config(hub: SocketAddr) -> String {
    format!(
        "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"edge\"\n[[uplink]]\nhub = \"{hub}\"\n\
         backoff_max = \"5s\"\n[uplink.tls]\nca_file = \"certs/ca.pem\"\ncert_file = \"certs/soak.pem\"\n\
         key_file = \"certs/soak.key\"\n"
    )
}

impl Node {
    fn start(binary: &Path, dir: &Path, name: &'static str, config: &str) -> Result<Node, String> {
        let (file, log) = (dir.join(name).with_extension("toml"), dir.join(name).with_extension("log"));
        let in_dir = |error| format!("{}: {error}", dir.display());
        fs::write(&file, config).map_err(in_dir)?;
        let out = File::create(&log).map_err(in_dir)?;
        let err = out.try_clone().map_err(in_dir)?;
        let config = format!("{name}.toml");
        let process = Command::new(binary)
            .args([name, "--config.file", &config])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node { name, process, web: nowhere, store: dir.join(name), log };
        node.web = node.listening("web")?;
        Ok(node)
    }

    /// Waits for the node's log line that says where that server listens.
    fn listening(&self, face: &str) -> Result<SocketAddr, String> {
        let started = Instant::now();
        let face = format!("face={face}");
        while started.elapsed() < START {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let line = log.lines().find(|line| line.contains("msg=listening") && line.contains(&face));
            let address = line.and_then(|line| line.split_once("address=")?.1.split(' ').next()?.parse().ok());
            if let Some(address) = address {
                return Ok(address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the {} does not start; see {}", self.name, self.log.display()))
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        let sent = status.map_err(|error| format!("kill: {error}"))?.success();
        if sent { Ok(()) } else { Err(format!("the {} is gone; see {}", self.name, self.log.display())) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // This does nothing to a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
