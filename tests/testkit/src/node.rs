//! A hub or an edge as a process that a test starts, kills, wipes and queries.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder::binary;
use super::process::logfmt;
use super::{Line, Page, Process, Reply, eventually, http};

/// The role of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node sends to hubs.
    Edge,
    /// The node accepts edges.
    Hub,
}

/// A node. Its folder, configuration and line outlive its process.
pub struct Node {
    role: Role,
    name: String,
    folder: PathBuf,
    flags: Vec<String>,
    /// The command that starts the binary, given as its further arguments; empty to start it directly.
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    /// The line that edges connect to, if it is a hub. Its address stays the same when the hub restarts.
    line: Option<Line>,
    process: Option<Process>,
    web: Option<SocketAddr>,
    edge_listener: Option<SocketAddr>,
}

impl Node {
    /// A node that is not running. Writes `NAME.toml` into `folder`; the store will be in `NAME`.
    pub fn new(role: Role, folder: &Path, name: &str, config: &str) -> Node {
        std::fs::write(folder.join(name).with_extension("toml"), config).unwrap();
        let line = (role == Role::Hub).then(Line::new);
        let (folder, name) = (folder.to_owned(), name.to_owned());
        let (flags, environment, launcher) = (Vec::new(), Vec::new(), Vec::new());
        Node { role, name, folder, flags, launcher, environment, line, process: None, web: None, edge_listener: None }
    }

    /// For a hub that takes edges at its gateway's listener only.
    pub fn without_edge_listener(mut self) -> Node {
        self.line = None;
        self
    }

    /// Adds command-line flags for later starts.
    pub fn flags(mut self, flags: &[&str]) -> Node {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Runs `script` in a shell before later starts: it can set limits, and mount if `unshare -m` is the `shell`'s
    /// command. The binary replaces the shell, so the process id stays.
    pub fn after(mut self, shell: &[&str], script: &str) -> Node {
        let script = format!("{script} && exec \"$0\" \"$@\"");
        self.launcher = [shell, &["bash", "-c", &script]].concat().iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Sets a variable of the environment for later starts.
    pub fn env(mut self, name: &str, value: &str) -> Node {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder of its store.
    pub fn store(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Starts the process, without waiting for anything.
    pub fn spawn(&mut self) -> &mut Process {
        assert!(self.process.is_none(), "{} is running", self.name);
        let role = if self.role == Role::Hub { "hub" } else { "edge" };
        let mut command = match self.launcher.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.arg(role).arg("--config.file").arg(self.folder.join(&self.name).with_extension("toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process.insert(Process::spawn(command.args(&self.flags).current_dir(&self.folder)))
    }

    /// Starts the process and waits until it is ready.
    pub fn start(&mut self) {
        self.start_at("");
    }

    /// Starts the process and waits until it is ready, for a node with a prefix before its paths.
    pub fn start_at(&mut self, prefix: &str) {
        self.start_listening();
        let ready = || self.try_get(&format!("{prefix}/-/ready")).ok().filter(|reply| reply.status == 200);
        eventually("the node is ready", ready);
    }

    /// Starts the process and waits until it listens, for nodes that do not answer every client.
    pub fn start_listening(&mut self) {
        let has_edge_listener = self.line.is_some();
        let process = self.spawn();
        let web = listening(process, "web");
        let edge_listener = has_edge_listener.then(|| listening(process, "edge"));
        self.web = Some(web);
        self.edge_listener = edge_listener;
        if let (Some(line), Some(address)) = (&self.line, edge_listener) {
            line.lead_to(address);
        }
    }

    /// Kills the process with `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("the node is running").kill();
    }

    /// Kills the process with `kill -9`, then starts it.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Sends SIGTERM; returns the exit code and all output.
    pub fn stop(&mut self) -> (Option<i32>, String) {
        let mut process = self.process.take().expect("the node is running");
        process.signal("TERM");
        let status = process.wait();
        (status.code(), process.output())
    }

    /// Kills the process if it runs, and removes its store.
    pub fn wipe(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        std::fs::remove_dir_all(self.store()).unwrap();
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node is running")
    }

    /// The address of its HTTP service.
    pub fn web(&self) -> SocketAddr {
        self.web.expect("the node was started")
    }

    /// The address at which a hub itself accepts edges, without the line.
    pub fn edge_listener(&self) -> SocketAddr {
        self.edge_listener.expect("the hub was started")
    }

    /// The address at which edges reach this hub.
    pub fn line(&self) -> SocketAddr {
        self.line.as_ref().expect("only a hub has a line").address()
    }

    /// Cuts the line between this hub and its edges until [`Node::join`].
    pub fn cut(&self) {
        self.line.as_ref().expect("only a hub has a line").cut();
    }

    /// Repairs the line.
    pub fn join(&self) {
        self.line.as_ref().expect("only a hub has a line").lead_to(self.edge_listener());
    }

    /// Limits the bytes per second on the line from now on.
    pub fn narrow(&self, bytes_per_second: usize) {
        self.line.as_ref().expect("only a hub has a line").narrow(bytes_per_second);
    }

    /// Lets every connection of the line pass nothing any more, not even its end; new ones pass.
    pub fn swallow(&self) {
        self.line.as_ref().expect("only a hub has a line").swallow();
    }

    /// Closes every connection of the line; new ones pass.
    pub fn break_connections(&self) {
        self.line.as_ref().expect("only a hub has a line").break_connections();
    }

    /// Sends a request that must get a response.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        http::request(self.web(), method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path} at {}: {error}", self.name))
    }

    /// Sends a GET request that may fail.
    ///
    /// # Errors
    /// Returns an error if the node cannot be reached, or disconnects.
    pub fn try_get(&self, path: &str) -> io::Result<Reply> {
        http::request(self.web(), "GET", path, &[], b"")
    }

    /// Sends a GET request.
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    /// Sends a POST to a group, which must be accepted.
    pub fn push(&self, group: &str, body: &str) {
        let reply = self.request("POST", &format!("/metrics/{group}"), &[], body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Sends a PUT to a group, which must be accepted.
    pub fn put(&self, group: &str, body: &str) {
        let reply = self.request("PUT", &format!("/metrics/{group}"), &[], body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Sends a DELETE of a group, which must be accepted.
    pub fn delete(&self, group: &str) {
        let reply = self.request("DELETE", &format!("/metrics/{group}"), &[], b"");
        assert_eq!(reply.status, 202, "{}", reply.text());
    }

    /// The current scrape, which must be valid.
    pub fn page(&self) -> Page {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        Page::parse(&reply.text()).unwrap_or_else(|error| panic!("{} shows no valid page: {error}", self.name))
    }

    /// Waits until a scrape shows exactly one series `name{labels}` (these labels among others) with this value.
    pub fn shows(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut seen = Vec::new();
        let shown = || {
            seen = self.page().values(name, labels);
            (seen == [value]).then_some(())
        };
        eventually(&format!("{} shows {name} {labels:?} {value}", self.name), shown);
    }

    /// Waits until a scrape shows no series `name{labels}`.
    pub fn lacks(&self, name: &str, labels: &[(&str, &str)]) {
        let gone = || self.page().values(name, labels).is_empty().then_some(());
        eventually(&format!("{} shows no {name} {labels:?}", self.name), gone);
    }
}

/// Waits for the address on which `process` reports to listen.
fn listening(process: &mut Process, listener: &str) -> SocketAddr {
    process.line(&format!("a line with the address of the {listener} listener"), |line| {
        let fields = logfmt(line);
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
        let here = field("msg") == Some("listening") && field("face") == Some(listener);
        here.then(|| field("address")?.parse().ok()).flatten()
    })
}
