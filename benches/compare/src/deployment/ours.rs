//! pushrelay's own processes: certificates, hub and edges, each with a configuration file as an operator would write it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::path_text;
use crate::Result;
use crate::process::{Process, Spec};

/// An authority with a hub's certificate and those of the edges `edge-000`, `edge-001`, ….
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them by `pushrelay pki`.
    pub fn make(program: &Path, folder: &Path, edges: usize) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        let pki = |arguments: &[&str]| -> Result<()> {
            let folder = path_text(folder);
            let all = [&["pki"], arguments, &["--dir", &folder]].concat();
            let output = Command::new(program).args(&all).output()?;
            match output.status.success() {
                true => Ok(()),
                false => Err(format!("{all:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
            }
        };
        pki(&["init"])?;
        pki(&["hub", "127.0.0.1"])?;
        for edge in 0..edges {
            pki(&["edge", &edge_name(edge), "--label", &format!("IDC=DC{edge:03}")])?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The certificate and key of `name`, and the authority's certificate under `authority`.
    fn section(&self, authority: &str, name: &str) -> String {
        let path = |file: &str| path_text(&self.folder.join(file));
        format!(
            "{authority} = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            path("ca.pem"),
            path(&format!("{name}.pem")),
            path(&format!("{name}.key"))
        )
    }
}

/// The name of an edge.
pub fn edge_name(number: usize) -> String {
    format!("edge-{number:03}")
}

/// A running hub.
pub struct Hub {
    pub process: Process,
    /// The address for scrapes.
    pub web: SocketAddr,
    /// The address for edges.
    pub edges: SocketAddr,
}

impl Hub {
    pub fn start(program: &Path, certificates: &Certificates, folder: &Path, durable: bool) -> Result<Self> {
        let tls = certificates.section("client_ca_file", "hub");
        let own = format!("[hub]\nlisten_address = [\"127.0.0.1:0\"]\n\n[hub.tls]\n{tls}");
        let mut process = start(program, folder, "hub", "hub", durable, &own)?;
        let web = process.await_address("face=web")?;
        let edges = process.await_address("face=edge")?;
        process.await_ready(web, "/-/ready")?;
        Ok(Self { process, web, edges })
    }
}

/// A running edge.
pub struct Edge {
    pub process: Process,
    /// The address for pushes.
    pub web: SocketAddr,
}

impl Edge {
    pub fn start(
        program: &Path,
        certificates: &Certificates,
        folder: &Path,
        name: &str,
        hub: SocketAddr,
        durable: bool,
        send_interval: Option<&str>,
    ) -> Result<Self> {
        let tls = certificates.section("ca_file", name);
        let interval = send_interval.map_or(String::new(), |interval| format!("send_interval = \"{interval}\"\n"));
        let own = format!("[[uplink]]\nhub = \"{hub}\"\n{interval}\n[uplink.tls]\n{tls}");
        let mut process = start(program, folder, "edge", name, durable, &own)?;
        let web = process.await_address("face=web")?;
        Ok(Self { process, web })
    }
}

/// Starts a node without a hub, in memory, with these further sections.
pub fn start_alone(program: &Path, folder: &Path, sections: &str) -> Result<(Process, SocketAddr)> {
    let mut process = start(program, folder, "edge", "alone", false, sections)?;
    let web = process.await_address("face=web")?;
    process.await_ready(web, "/-/ready")?;
    Ok((process, web))
}

fn start(program: &Path, folder: &Path, role: &str, name: &str, durable: bool, own: &str) -> Result<Process> {
    let storage = if durable { path_text(&folder.join(name)) } else { String::new() };
    let file = folder.join(format!("{name}.toml"));
    let web = "[web]\nlisten_address = [\"127.0.0.1:0\"]";
    fs::write(&file, format!("{web}\n\n[storage]\npath = {storage:?}\n\n{own}"))?;
    Process::start(Spec {
        program: program.to_owned(),
        arguments: vec![role.into(), "--config.file".into(), path_text(&file)],
        log: folder.join(format!("{name}.log")),
    })
}
