//! TLS for a client of a gateway: it verifies the server's certificate and shows none of its own.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::TlsError;
use super::files::load_authorities;
use super::provider::provider;
use super::{ALPN, Stream};

/// Connects to gateways whose certificates one of the authorities has signed.
#[derive(Clone, Debug)]
pub struct WebConnector(Arc<ClientConfig>);

impl WebConnector {
    /// Trusts the authorities of that file.
    ///
    /// # Errors
    /// If the file cannot be read or used.
    pub fn new(ca_file: &Path) -> Result<Self, TlsError> {
        let (roots, _) = load_authorities(ca_file)?;
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| TlsError::Settings(error.to_string()))?.with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Performs a handshake.
    ///
    /// # Errors
    /// If `host` is not valid, or the handshake fails.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<Stream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let connector = tokio_rustls::TlsConnector::from(self.0.clone());
        Ok(connector.connect(name, stream).await.map_err(TlsError::Handshake)?.into())
    }
}
