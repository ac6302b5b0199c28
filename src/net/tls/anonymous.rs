//! TLS of a client that shows no certificate of its own: it verifies the server's, of version 1.2 or later.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::TlsError;
use super::files::{bundled_authorities, load_authorities};
use super::provider::provider;
use super::{ALPN, Stream};

/// Connects to servers whose certificates one of its authorities has signed.
#[derive(Clone)]
pub struct AnonymousConnector(Arc<ClientConfig>);

impl fmt::Debug for AnonymousConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnonymousConnector").finish_non_exhaustive()
    }
}

impl AnonymousConnector {
    /// For gateways: every certificate in the file must be usable as an authority.
    ///
    /// # Errors
    /// If the file cannot be read or used.
    pub fn for_gateways(ca_file: &Path) -> Result<Self, TlsError> {
        Self::new(load_authorities(ca_file)?.0)
    }

    /// For `https` proxies: the file may be the system's bundle, of which unusable certificates are left out.
    ///
    /// # Errors
    /// If it cannot be read, or has no usable certificate.
    pub fn for_proxies(ca_file: &Path) -> Result<Self, TlsError> {
        Self::new(bundled_authorities(ca_file)?)
    }

    fn new(roots: RootCertStore) -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Performs a handshake with the server at `host`.
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
