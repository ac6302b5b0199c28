//! TLS of a client that sends to a server of another project: it verifies the server's certificate, of version 1.2 or
//! later, and may show one of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::TlsError;
use super::files::{bundled_authorities, read_certificates, read_key, unusable_key};
use super::provider::provider;
use super::{ALPN, Stream};

/// The files for TLS with a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverTlsFiles {
    /// The authorities of the receiver's certificate. The file may be the system's bundle.
    pub ca_file: PathBuf,
    /// This node's certificate and private key for the receiver, if it requires one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the receiver's certificate, if it is not the host of the URL.
    pub server_name: Option<String>,
}

impl ReceiverTlsFiles {
    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let own = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        std::iter::once(&self.ca_file).chain(own).map(PathBuf::as_path)
    }
}

/// Connects to receivers.
#[derive(Clone)]
pub struct ReceiverConnector {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl fmt::Debug for ReceiverConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverConnector").finish_non_exhaustive()
    }
}

impl ReceiverConnector {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or used.
    pub fn load(files: &ReceiverTlsFiles) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .with_root_certificates(bundled_authorities(&files.ca_file)?);
        let mut config = match &files.identity {
            None => builder.with_no_client_auth(),
            Some((cert_file, key_file)) => {
                let (chain, key) = (read_certificates(cert_file)?, read_key(key_file)?);
                builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => {
                        TlsError::Mismatch { cert: cert_file.clone(), key: key_file.clone() }
                    }
                    other => unusable_key(key_file, &other, None),
                })?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), server_name: files.server_name.clone() })
    }

    /// Performs a handshake with the receiver at `host`.
    ///
    /// # Errors
    /// If `host` is not valid, or the handshake fails.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<Stream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let connector = tokio_rustls::TlsConnector::from(self.config.clone());
        Ok(connector.connect(name, stream).await.map_err(TlsError::Handshake)?.into())
    }
}
