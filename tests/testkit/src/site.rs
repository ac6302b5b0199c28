//! A certificate authority and its nodes, set up as in the README's deployment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::node::Role;
use super::process::run;
use super::{Folder, Node};

/// A folder with an authority, a hub's certificate, and the certificates of edges as needed.
pub struct Site {
    folder: Folder,
}

impl Site {
    /// Creates the authority and a certificate for a hub at 127.0.0.1.
    #[expect(clippy::new_without_default, reason = "it runs the binary and writes files")]
    pub fn new() -> Site {
        let site = Site { folder: Folder::new() };
        site.pki(&["init"]);
        site.pki(&["hub", "127.0.0.1"]);
        site
    }

    /// A site with a running hub and two running edges: `syq-1` (IDC=SYQ) and `bj-1` (IDC=BJ).
    pub fn with_two_edges() -> (Site, Node, Node, Node) {
        let site = Site::new();
        let mut hub = site.hub();
        hub.start();
        let (mut syq, mut bj) = (site.edge("syq-1", "SYQ", &hub), site.edge("bj-1", "BJ", &hub));
        syq.start();
        bj.start();
        (site, hub, syq, bj)
    }

    /// A site with a running hub and one running edge, `syq-1` (IDC=SYQ).
    pub fn with_one_edge() -> (Site, Node, Node) {
        let site = Site::new();
        let mut hub = site.hub();
        hub.start();
        let mut edge = site.edge("syq-1", "SYQ", &hub);
        edge.start();
        (site, hub, edge)
    }

    /// The site's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the site's folder `certs`.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.path().join("certs").join(name)
    }

    /// Runs `pushrelay pki`, which must succeed.
    pub fn pki(&self, arguments: &[&str]) {
        let outcome = run(self.path(), &[&["pki"], arguments].concat());
        assert_eq!(outcome.code, Some(0), "pki {arguments:?}: {}", outcome.output);
    }

    /// A hub that is not started yet.
    pub fn hub(&self) -> Node {
        let config = self.hub_config("hub");
        Node::new(Role::Hub, self.path(), "hub", &config)
    }

    /// The configuration of a hub whose store is the folder `store`.
    pub fn hub_config(&self, store: &str) -> String {
        format!(
            "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = {:?}\n[hub]\n\
             listen_address = [\"127.0.0.1:0\"]\n[hub.tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n",
            self.path().join(store),
            self.cert("hub.pem"),
            self.cert("hub.key"),
            self.cert("ca.pem"),
        )
    }

    /// An edge of the data centre `idc` with its own certificate, not started yet.
    pub fn edge(&self, name: &str, idc: &str, hub: &Node) -> Node {
        self.pki(&["edge", name, "--label", &format!("IDC={idc}")]);
        self.edge_with(name, hub.line(), &self.cert(&format!("{name}.pem")), &self.cert(&format!("{name}.key")))
    }

    /// An edge that trusts this site's hubs and presents the given certificate.
    pub fn edge_with(&self, name: &str, hub: SocketAddr, cert: &Path, key: &Path) -> Node {
        let config = edge_config(&self.path().join(name), hub, &self.cert("ca.pem"), cert, key);
        Node::new(Role::Edge, self.path(), name, &config)
    }
}

/// The configuration of an edge. It dials again sooner than by default, so that tests need not wait.
pub fn edge_config(store: &Path, hub: SocketAddr, ca: &Path, cert: &Path, key: &Path) -> String {
    format!(
        "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = {store:?}\n[[uplink]]\nhub = \"{hub}\"\n\
         backoff_min = \"20ms\"\nbackoff_max = \"500ms\"\n[uplink.tls]\nca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {key:?}\n"
    )
}
