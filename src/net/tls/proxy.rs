//! TLS with an `https` proxy: version 1.2 or later, the proxy's certificate is checked, and this end shows none.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::TlsError;
use super::files::{certificates, read};
use super::provider::provider;
use super::{ALPN, Stream};

/// The client's end of TLS with a proxy.
#[derive(Clone)]
pub struct ProxyTls(Arc<ClientConfig>);

impl fmt::Debug for ProxyTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyTls").finish_non_exhaustive()
    }
}

impl ProxyTls {
    /// Reads the authorities of proxies' certificates. The file may be the system's bundle, of which unusable
    /// certificates are left out.
    ///
    /// # Errors
    /// If it cannot be read, or has no usable certificate.
    pub fn load(ca_file: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates(ca_file, &read(ca_file)?)?).0 == 0 {
            let reason = "none of its certificates can be an authority".into();
            return Err(TlsError::BadCertificate { path: ca_file.into(), reason });
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Performs a handshake with the proxy at `host`.
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
