//! A running system under comparison: the server that is pushed to, and the server that shows the pushes.

mod kind;
mod ours;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use kind::Kind;
pub use ours::{Certificates, Edge, Hub, edge_name, start_alone};

use crate::Result;
use crate::fetch::Client;
use crate::peers::Peers;
use crate::process::{Process, Spec, free_address};
use crate::proxy::Proxy;

/// How long a push may take to be shown.
const SHOWN_PATIENCE: Duration = Duration::from_secs(60);

/// A row's requirements of a deployment, besides its kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Put a proxy in front of the hub, or of the server that vmagent forwards to.
    pub proxied: bool,
    /// Pushgateway saves its state at this interval; other servers keep their own ways.
    pub saving: Option<&'static str>,
    /// vmagent speaks Prometheus's remote write instead of its own protocol.
    pub remote_write: bool,
    /// The interval of the edge's updates; `None` keeps the default.
    pub send_interval: Option<&'static str>,
}

/// The inputs for a deployment's start.
pub struct Site<'a> {
    pub peers: &'a Peers,
    pub certificates: Option<&'a Certificates>,
    /// A folder for this deployment alone; it is emptied first.
    pub folder: PathBuf,
}

/// A running deployment.
pub struct Deployment {
    pub kind: Kind,
    /// The server that is pushed to.
    pub front: Option<Process>,
    /// The server that it forwards to.
    pub back: Option<Process>,
    /// The address for pushes.
    pub push: SocketAddr,
    /// The address that shows everything.
    pub shown: SocketAddr,
    pub link: Option<Proxy>,
    folder: PathBuf,
}

impl Deployment {
    /// Starts everything and waits until it is ready, and linked.
    pub fn start(site: &Site<'_>, kind: Kind, setup: Setup) -> Result<Self> {
        if site.folder.exists() {
            fs::remove_dir_all(&site.folder)?;
        }
        fs::create_dir_all(&site.folder)?;
        match kind {
            Kind::Checked | Kind::Unchecked => Self::pushgateway(site, kind, setup),
            Kind::Vmagent => Self::vmagent(site, setup),
            Kind::FloorSynced | Kind::Floor => Self::floor(site, kind),
            Kind::Ours | Kind::OursInMemory => Self::ours(site, kind, setup),
        }
    }

    fn single(site: &Site<'_>, kind: Kind, process: Process, address: SocketAddr) -> Result<Self> {
        let folder = site.folder.clone();
        let mut deployment =
            Self { kind, front: Some(process), back: None, push: address, shown: address, link: None, folder };
        deployment.await_ready()?;
        Ok(deployment)
    }

    fn pushgateway(site: &Site<'_>, kind: Kind, setup: Setup) -> Result<Self> {
        let address = free_address()?;
        let program = site.peers.pushgateway.clone().ok_or("pushgateway is missing")?;
        let file = setup.saving.map_or(String::new(), |_| path_text(&site.folder.join("state")));
        let mut arguments = vec![
            format!("--web.listen-address={address}"),
            format!("--persistence.file={file}"),
            format!("--persistence.interval={}", setup.saving.unwrap_or("5m")),
        ];
        if kind == Kind::Unchecked {
            arguments.push(UNCHECKED.into());
        }
        let spec = Spec { program, arguments, log: site.folder.join("pushgateway.log") };
        Self::single(site, kind, Process::start(spec)?, address)
    }

    fn floor(site: &Site<'_>, kind: Kind) -> Result<Self> {
        let address = free_address()?;
        let mut arguments = vec!["floor".to_owned(), address.to_string()];
        if kind == Kind::FloorSynced {
            arguments.push(path_text(&site.folder.join("log")));
        }
        let spec = Spec { program: std::env::current_exe()?, arguments, log: site.folder.join("floor.log") };
        Self::single(site, kind, Process::start(spec)?, address)
    }

    fn vmagent(site: &Site<'_>, setup: Setup) -> Result<Self> {
        let missing = "vmagent or victoria-metrics is missing";
        let shown = free_address()?;
        let arguments = vec![
            format!("-httpListenAddr={shown}"),
            format!("-storageDataPath={}", path_text(&site.folder.join("victoria-metrics"))),
            "-retentionPeriod=1d".into(),
            "-search.latencyOffset=0s".into(),
            "-search.disableCache".into(),
        ];
        let program = site.peers.victoria_metrics.clone().ok_or(missing)?;
        let mut back = Process::start(Spec { program, arguments, log: site.folder.join("victoria-metrics.log") })?;
        back.await_ready(shown, "/health")?;
        let link = if setup.proxied { Some(Proxy::start(shown)?) } else { None };
        let target = link.as_ref().map_or(shown, |link| link.address);
        let push = free_address()?;
        let mut arguments = vec![
            format!("-httpListenAddr={push}"),
            format!("-remoteWrite.url=http://{target}/api/v1/write"),
            format!("-remoteWrite.tmpDataPath={}", path_text(&site.folder.join("vmagent"))),
        ];
        if setup.remote_write {
            arguments.push("-remoteWrite.forcePromProto=true".into());
        }
        let program = site.peers.vmagent.clone().ok_or(missing)?;
        let front = Process::start(Spec { program, arguments, log: site.folder.join("vmagent.log") })?;
        let folder = site.folder.clone();
        let (front, back) = (Some(front), Some(back));
        let mut deployment = Self { kind: Kind::Vmagent, front, back, push, shown, link, folder };
        deployment.await_ready()?;
        Ok(deployment)
    }

    fn ours(site: &Site<'_>, kind: Kind, setup: Setup) -> Result<Self> {
        let program = site.peers.ours.as_deref().ok_or("pushrelay is missing")?;
        let certificates = site.certificates.ok_or("no certificates were made")?;
        let durable = kind == Kind::Ours;
        let hub = Hub::start(program, certificates, &site.folder, durable)?;
        let link = if setup.proxied { Some(Proxy::start(hub.edges)?) } else { None };
        let target = link.as_ref().map_or(hub.edges, |link| link.address);
        let edge = Edge::start(program, certificates, &site.folder, "edge-000", target, durable, setup.send_interval)?;
        let mut deployment = Self {
            kind,
            front: Some(edge.process),
            back: Some(hub.process),
            push: edge.web,
            shown: hub.web,
            link,
            folder: site.folder.clone(),
        };
        deployment.await_ready()?;
        deployment.await_link()?;
        Ok(deployment)
    }

    /// The process that is pushed to.
    pub fn front(&self) -> &Process {
        self.front.as_ref().expect("only restarting takes it out, and puts one back or fails the deployment")
    }

    /// Its processes: first the one that is pushed to.
    pub fn processes(&self) -> Vec<&Process> {
        self.front.iter().chain(&self.back).collect()
    }

    /// The process that shows everything.
    pub fn shower(&self) -> &Process {
        match &self.back {
            Some(back) => back,
            None => self.front(),
        }
    }

    /// The part before `/job/…` in the path of a push.
    pub fn prefix(&self) -> &'static str {
        match self.kind {
            Kind::Vmagent => "/api/v1/import/prometheus/metrics",
            _ => "/metrics",
        }
    }

    fn await_ready(&mut self) -> Result<()> {
        let path = if self.kind == Kind::Vmagent { "/health" } else { "/-/ready" };
        let address = self.push;
        self.front.as_mut().ok_or("it was ended")?.await_ready(address, path)
    }

    /// Waits until the hub shows a push, then deletes it.
    fn await_link(&self) -> Result<()> {
        let path = "/metrics/job/probe";
        Client::new(self.push).put(path, "probe_linked 1\n")?;
        self.await_shown("probe_linked")
    }

    /// Waits until the page that shows everything contains a text.
    pub fn await_shown(&self, text: &str) -> Result<()> {
        let (deadline, mut client) = (Instant::now() + SHOWN_PATIENCE, Client::new(self.shown));
        while !client.text("/metrics", true)?.contains(text) {
            if Instant::now() > deadline {
                return Err(format!("{text} was not shown within {SHOWN_PATIENCE:?}").into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until all its processes are idle.
    pub fn settle(&self) {
        for process in self.processes() {
            process.settle();
        }
    }

    /// Ends the server that is pushed to, by SIGTERM or SIGKILL, and starts it again; returns the time until it was
    /// ready.
    pub fn restart(&mut self, killed: bool) -> Result<Duration> {
        self.restart_with(killed, |_| ())
    }

    /// Turns the checks of a Pushgateway on that was filled without them.
    pub fn check_again(&mut self) -> Result<()> {
        self.restart_with(false, |spec| spec.arguments.retain(|argument| argument != UNCHECKED))?;
        self.kind = Kind::Checked;
        Ok(())
    }

    fn restart_with(&mut self, killed: bool, change: impl FnOnce(&mut Spec)) -> Result<Duration> {
        let front = self.front.take().ok_or("it was ended")?;
        let mut spec = if killed { front.kill()? } else { front.stop()? };
        change(&mut spec);
        let front = self.front.insert(Process::start(spec)?);
        if self.kind.is_ours() {
            let address = front.await_address("face=web")?;
            if self.shown == self.push {
                self.shown = address;
            }
            self.push = address;
        }
        self.await_ready()?;
        Ok(self.front().started().elapsed())
    }

    /// The names of all files that it has.
    pub fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.clone()]);
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        (self.link, self.front, self.back) = (None, None, None);
        // Logs of a failed start stay until the next start; the data of a large store should not.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

const UNCHECKED: &str = "--push.disable-consistency-check";

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
