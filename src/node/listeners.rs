//! Where a node listens: everything is bound before anything runs, so that what is wrong is said at once.

use tokio::net::TcpListener;

use super::options::NodeOptions;
use super::running::StartError;
use crate::net::listen;

/// The listeners of both faces.
pub struct Listeners {
    /// The gateway's.
    pub web: Vec<TcpListener>,
    /// Those that edges connect to, at a hub.
    pub edges: Vec<TcpListener>,
}

impl Listeners {
    /// Listens where the options say: at addresses, or for the gateway on the sockets that systemd passes on.
    ///
    /// # Errors
    /// If one of them cannot be listened on.
    pub async fn bind(options: &NodeOptions) -> Result<Self, StartError> {
        let mut listeners = Self { web: Vec::new(), edges: Vec::new() };
        if options.web.systemd_socket {
            listeners.web = listen::passed().map_err(StartError::Passed)?;
        } else {
            for address in &options.web.listen_addresses {
                listeners.web.push(listen::bind(address, "web.listen_address").await?);
            }
        }
        for address in options.hub.iter().flat_map(|hub| &hub.listen_addresses) {
            listeners.edges.push(listen::bind(address, "hub.listen_address").await?);
        }
        Ok(listeners)
    }
}
