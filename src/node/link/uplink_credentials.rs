//! The credentials of an uplink: a certificate, a token, or both.

use crate::net::identity::EdgeIdentity;
use crate::net::tls::{Connector, Credentials, TlsError};
use crate::net::token::BearerToken;
use crate::node::error::StartError;
use crate::node::options::{UplinkOptions, UplinkTls};

/// The credentials of an uplink, read from their files.
#[derive(Debug)]
pub struct UplinkCredentials {
    /// The certificate of this end, and the authorities of the hub.
    pub certificate: Option<Credentials>,
    token: Option<BearerToken>,
    tls: UplinkTls,
}

impl UplinkCredentials {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or used.
    pub fn load(uplink: &UplinkOptions) -> Result<Self, StartError> {
        let certificate = uplink.tls.certificate().map(Credentials::load).transpose()?;
        let token = uplink.token_file.as_deref().map(BearerToken::read).transpose()?;
        let credentials = Self { certificate, token, tls: uplink.tls.clone() };
        credentials.connector()?;
        Ok(credentials)
    }

    /// The end of links that has these credentials.
    ///
    /// # Errors
    /// If they cannot be used for a client.
    pub fn connector(&self) -> Result<Connector, TlsError> {
        match (&self.certificate, &self.token, &self.tls) {
            (Some(certificate), token, _) => Connector::new(certificate, token.clone()),
            (None, Some(token), UplinkTls::Authorities(ca_file)) => Connector::with_token(ca_file, token.clone()),
            (None, Some(token), _) => Ok(Connector::in_the_clear(token.clone())),
            // The configuration requires one of both.
            (None, None, _) => Err(TlsError::Settings("an uplink needs a certificate or a token".into())),
        }
    }

    /// The identity of the edge by its certificate, if it has one.
    pub fn identity(&self) -> Option<EdgeIdentity> {
        self.certificate.as_ref()?.certificate().edge().ok()
    }

    /// The trouble of an edge that the hub knows by the identity with this URI, if that is not its own.
    pub fn mismatch(&self, known_as: &str) -> Option<String> {
        mismatch(&self.identity()?, known_as)
    }

    /// The name of the edge by its certificate; empty if it has none.
    pub fn name(&self) -> String {
        let Some(credentials) = &self.certificate else { return String::new() };
        let certificate = credentials.certificate();
        let certified = certificate.edge().ok().map(|identity| identity.name.as_str().to_string());
        certified.or(certificate.common_name.clone()).unwrap_or_default()
    }
}

/// The trouble of an edge whose certificate has the identity `own`, and that the hub knows by the one with this URI.
pub(super) fn mismatch(own: &EdgeIdentity, known_as: &str) -> Option<String> {
    let known = EdgeIdentity::from_uri(known_as).ok().filter(|known| known.differs_from(own))?;
    Some(format!(
        "the hub knows this edge as {:?} with the site labels {}, and its certificate says {:?} with {}: something in between \
         ends TLS and dials the hub with a certificate of its own; let it pass TLS as it is, or give the edge a token",
        known.name.as_str(),
        known.labels,
        own.name.as_str(),
        own.labels
    ))
}
