//! Whose a page is: the node's role, name and site.

use crate::gateway::pages::PageOwner;
use crate::node::link::uplink_credentials::UplinkCredentials;
use crate::node::options::{NodeOptions, NodeRole};

/// The owner of this node's pages. An edge or relay has the name of its certificate, any other node that of the host.
pub fn page_owner(options: &NodeOptions, uplinks: &[UplinkCredentials]) -> PageOwner {
    let role = match (options.role, uplinks.is_empty()) {
        (NodeRole::Hub, true) => "hub",
        (NodeRole::Hub, false) => "relay",
        (NodeRole::Edge, false) => "edge",
        (NodeRole::Edge, true) => "gateway",
    };
    let certificate = uplinks.first().and_then(|credentials| credentials.certificate.as_ref());
    let identity = certificate.and_then(|credentials| credentials.certificate().edge().ok());
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (name, site) = match identity {
        Some(identity) => (identity.name.as_str().to_owned(), identity.labels.clone()),
        None => (host(), Default::default()),
    };
    PageOwner { role, name: name.into(), site: site.into() }
}
