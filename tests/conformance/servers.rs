//! The servers of the cases: pushrelay nodes, and a Pushgateway if one is installed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::case::Suite;
use crate::outcome::Server;
use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::logfmt;
use pushrelay_testkit::{Node, Process, Site};

/// The versions whose behaviour is recorded.
const VERSION: &str = "1.11.";

/// An edge with its hub, or a hub alone, started with the flags of a suite.
pub struct Ours {
    node: Node,
    /// The hub of an edge.
    _hub: Option<Node>,
    _site: Site,
}

impl Ours {
    /// Starts a node.
    pub fn start(role: Role, suite: &Suite) -> Ours {
        let site = Site::new();
        let flags: Vec<&str> = suite.flags.iter().map(String::as_str).chain(["--web.enable-admin-api"]).collect();
        let mut hub = site.hub();
        if role == Role::Hub {
            let mut node = hub.flags(&flags);
            node.start_at(&suite.prefix);
            return Ours { node, _hub: None, _site: site };
        }
        hub.start();
        let mut node = site.edge("syq-1", "SYQ", &hub).flags(&flags);
        node.start_at(&suite.prefix);
        Ours { node, _hub: Some(hub), _site: site }
    }

    /// The server as cases use it.
    pub fn server(&self, suite: &Suite) -> Server {
        Server::new(self.address(), suite)
    }

    /// The address of the gateway.
    pub fn address(&self) -> SocketAddr {
        self.node.web()
    }
}

/// A Pushgateway: a process started here, or one that runs already.
pub struct Theirs {
    address: SocketAddr,
    _process: Option<Process>,
}

impl Theirs {
    /// Starts the one that [`pushgateway`] found with the flags of a suite. With `PUSHGATEWAY=ADDRESS`, takes that one;
    /// then `None` for suites that need flags.
    pub fn start(binary: &PathBuf, suite: &Suite) -> Option<Theirs> {
        if let Ok(address) = std::env::var("PUSHGATEWAY") {
            let address = address.parse().expect("PUSHGATEWAY is an address, as 127.0.0.1:9091");
            return suite.flags.is_empty().then_some(Theirs { address, _process: None });
        }
        let mut command = Command::new(binary);
        command.args(["--web.listen-address=127.0.0.1:0", "--web.enable-admin-api"]).args(&suite.flags);
        let mut process = Process::spawn(&mut command);
        let address = process.line("a line that says where Pushgateway listens", |line| {
            let fields = logfmt(line);
            let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
            (field("msg") == Some("Listening on")).then(|| field("address")?.parse().ok()).flatten()
        });
        Some(Theirs { address, _process: Some(process) })
    }

    /// The server as cases use it.
    pub fn server(&self, suite: &Suite) -> Server {
        Server::new(self.address, suite)
    }
}

/// The binary named by `PUSHGATEWAY_BIN`, or else the first `pushgateway` of the path, if it is of the recorded
/// version; or why there is none.
pub fn pushgateway() -> Result<PathBuf, String> {
    if std::env::var_os("PUSHGATEWAY").is_some() {
        return Ok(PathBuf::new());
    }
    let named = std::env::var_os("PUSHGATEWAY_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("pushgateway")).filter(|file| file.is_file());
    let Some(binary) = named.or_else(|| found.next()) else {
        return Err("no pushgateway on the path, and PUSHGATEWAY_BIN names none".to_owned());
    };
    let output = Command::new(&binary).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", binary.display()))?;
    let version = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let wanted = version.contains(&format!("version {VERSION}"));
    wanted.then_some(binary).ok_or_else(|| format!("not Pushgateway {VERSION}x: {}", version.trim()))
}
