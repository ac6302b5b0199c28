//! The ways to a hub: directly, or through a proxy.

use crate::net::address::HostPort;
use crate::net::proxy::ProxyUrl;

/// A way to a hub: directly to a target, or to it through a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The place of the target among those of the configuration.
    pub(super) order: usize,
    /// The name or address of the hub.
    pub target: HostPort,
    /// The proxy.
    pub proxy: Option<ProxyUrl>,
}

impl Way {
    /// The name and port to which the TCP connection goes.
    pub fn first_hop(&self) -> &HostPort {
        self.proxy.as_ref().map_or(&self.target, ProxyUrl::address)
    }
}
