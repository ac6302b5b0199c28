//! An edge's end of a link below the WebSocket: TLS with a certificate, or with a token, or with both. A token can go
//! without TLS too, where an operator says so. The credentials can be replaced while links go on.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, io};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::either::Either;

use super::files::{certificates, read};
use super::peer::{PeerChain, unix_time};
use super::provider::provider;
use super::{ALPN, Credentials, Stream, TlsError};
use crate::net::token::BearerToken;

/// The stream below a WebSocket: encrypted, or in the clear.
pub type MaybeEncrypted<S> = Either<Stream<S>, S>;

/// An edge's end of a link: its credentials, and the authorities of the hub's certificate.
#[derive(Debug)]
pub struct Connector(pub(super) watch::Sender<Arc<ClientSide>>);

pub(super) struct ClientSide {
    /// `None` without TLS.
    pub config: Option<Arc<ClientConfig>>,
    /// The certificate of this end; empty if it has none.
    pub chain: Vec<CertificateDer<'static>>,
    pub roots: Arc<RootCertStore>,
    /// `None` at an end that is to get its authorities only, and without TLS.
    pub verifier: Option<Arc<WebPkiServerVerifier>>,
    /// The token that the hub gets in the request for the WebSocket.
    pub token: Option<BearerToken>,
}

impl fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSide").field("token", &self.token).finish_non_exhaustive()
    }
}

impl ClientSide {
    /// Whether the hub sees other credentials, or is verified by others, than with `other`.
    fn differs(&self, other: &Self) -> bool {
        self.chain != other.chain
            || self.roots.roots != other.roots.roots
            || self.token != other.token
            || self.config.is_some() != other.config.is_some()
    }
}

impl Connector {
    /// A connector with these credentials, and with a token besides if there is one.
    ///
    /// # Errors
    /// If the credentials cannot be used for a client.
    pub fn new(credentials: &Credentials, token: Option<BearerToken>) -> Result<Self, TlsError> {
        let config = Some(credentials.client_config()?);
        let (chain, roots) = (credentials.chain.clone(), credentials.roots.clone());
        let verifier = Some(credentials.server_verifier()?);
        Ok(Self::of(ClientSide { config, chain, roots, verifier, token }))
    }

    /// A connector that shows a token and no certificate. A box in front of the hub may end TLS, so version 1.2 of TLS is
    /// accepted too, and the file may be the system's bundle of authorities: those that cannot be used are left out.
    ///
    /// # Errors
    /// If the file cannot be read, or has no usable certificate.
    pub fn with_token(ca_file: &Path, token: BearerToken) -> Result<Self, TlsError> {
        let unusable = |reason: String| TlsError::BadCertificate { path: ca_file.into(), reason };
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates(ca_file, &read(ca_file)?)?).0 == 0 {
            return Err(unusable("none of its certificates can be an authority".into()));
        }
        let roots = Arc::new(roots);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build();
        let verifier = Some(verifier.map_err(|error| unusable(error.to_string()))?);
        let config = Some(Arc::new(config));
        Ok(Self::of(ClientSide { config, chain: Vec::new(), roots, verifier, token: Some(token) }))
    }

    /// A connector that shows a token without TLS: everything in between can read it.
    pub fn in_the_clear(token: BearerToken) -> Self {
        let (config, verifier, roots) = (None, None, Arc::new(RootCertStore::empty()));
        Self::of(ClientSide { config, chain: Vec::new(), roots, verifier, token: Some(token) })
    }

    pub(super) fn of(side: ClientSide) -> Self {
        Self(watch::Sender::new(Arc::new(side)))
    }

    /// Replaces the credentials by those of `fresh`, for later handshakes. Another certificate, another token or other
    /// authorities than before are a renewal.
    pub fn replace(&self, fresh: &Self) {
        let fresh = fresh.0.borrow().clone();
        self.0.send_if_modified(|present| {
            let is_renewal = present.differs(&fresh);
            *present = fresh;
            is_renewal
        });
    }

    /// The token of this end.
    pub fn token(&self) -> Option<BearerToken> {
        self.0.borrow().token.clone()
    }

    /// Verifies the certificate of the hub `host` that was accepted before, by the authorities of now.
    ///
    /// # Errors
    /// If it does not verify.
    pub fn verify(&self, host: &str, hub: &PeerChain, now: SystemTime) -> Result<(), TlsError> {
        let unverified = |error| TlsError::PeerUnverified(io::Error::other(error));
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let (leaf, intermediates) = hub.split().ok_or_else(|| unverified(rustls::Error::NoCertificatesPresented))?;
        let verifier = self.0.borrow().verifier.clone();
        let verifier = verifier.ok_or_else(|| unverified(rustls::Error::UnsupportedNameType))?;
        let verified = verifier.verify_server_cert(leaf, intermediates, &name, &[], unix_time(now));
        verified.map(drop).map_err(unverified)
    }

    /// The renewals from now on.
    pub fn renewals(&self) -> Renewals {
        Renewals(self.0.subscribe())
    }

    /// Performs a handshake, unless TLS is off. If the hub refuses this end's certificate, the error appears only later, at
    /// the first read.
    ///
    /// # Errors
    /// If `host` is not valid, or the handshake fails.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<MaybeEncrypted<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(config) = self.0.borrow().config.clone() else { return Ok(Either::Right(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost(host.into()))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        Ok(Either::Left(connector.connect(name, stream).await.map_err(TlsError::Handshake)?.into()))
    }
}

/// Notices that the credentials of a [`Connector`] were renewed.
#[derive(Debug)]
pub struct Renewals(watch::Receiver<Arc<ClientSide>>);

impl Renewals {
    /// Leaves out the renewals so far: a handshake that begins after this call uses the present credentials.
    pub fn skip_to_now(&mut self) {
        self.0.mark_unchanged();
    }

    /// Waits for the next renewal. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Without a connector there is no renewal any more.
            std::future::pending::<()>().await;
        }
    }
}
