//! Checks of the options that protect the gateway; the section `[web]` and a web configuration file have them in common.

use std::time::Duration;

use crate::net::tls::web::{ClientAuth, Curve, Pem, Suite, TlsVersion, WebTls};
use crate::node::http::auth::bucket::RateLimit;
use crate::node::http::auth::passwords::PasswordHash;

/// `[web.tls]` as it is given.
#[derive(Debug, Default)]
pub(super) struct TlsSection {
    pub cert: Option<Pem>,
    pub key: Option<Pem>,
    pub client_ca: Option<Pem>,
    pub client_auth: Option<ClientAuth>,
    pub client_allowed_sans: Vec<String>,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
    pub cipher_suites: Vec<Suite>,
    pub prefer_server_cipher_suites: Option<bool>,
    pub curve_preferences: Vec<Curve>,
}

impl TlsSection {
    /// The checked TLS options; `None` if none is given.
    ///
    /// # Errors
    /// The key that is wrong or missing, and a message.
    pub fn build(self) -> Result<Option<WebTls>, (&'static str, String)> {
        let client_auth = self.client_auth.unwrap_or_default();
        let said = self.cert.is_some()
            || self.key.is_some()
            || self.client_ca.is_some()
            || self.client_auth.is_some()
            || !self.client_allowed_sans.is_empty()
            || self.min_version.is_some()
            || self.max_version.is_some()
            || !self.cipher_suites.is_empty()
            || self.prefer_server_cipher_suites.is_some()
            || !self.curve_preferences.is_empty();
        if !said {
            return Ok(None);
        }
        let missing = |name| (name, format!("TLS needs {name}, the file of a certificate's {}", part(name)));
        let cert = self.cert.ok_or_else(|| missing("cert_file"))?;
        let key = self.key.ok_or_else(|| missing("key_file"))?;
        if self.client_ca.is_some() && !client_auth.verifies() {
            let text =
                format!("client_ca_file has no effect with client_auth_type {client_auth}: set one that verifies");
            return Err(("client_ca_file", text));
        }
        if self.client_ca.is_none() && client_auth.verifies() {
            return Err(("client_auth_type", format!("{client_auth} needs client_ca_file to verify with")));
        }
        if !self.client_allowed_sans.is_empty() && !client_auth.verifies() {
            let text = format!(
                "client_allowed_sans protects nothing with client_auth_type {client_auth}, since anybody can make a \
                 certificate for one of these: set one that verifies, and client_ca_file"
            );
            return Err(("client_allowed_sans", text));
        }
        let min_version = self.min_version.unwrap_or(TlsVersion::Tls12);
        let max_version = self.max_version.unwrap_or(TlsVersion::Tls13);
        if min_version > max_version {
            return Err(("min_version", format!("{min_version} is more than max_version, {max_version}")));
        }
        Ok(Some(WebTls {
            cert,
            key,
            client_ca: self.client_ca,
            client_auth,
            client_allowed_sans: self.client_allowed_sans,
            min_version,
            max_version,
            cipher_suites: self.cipher_suites,
            prefer_server_cipher_suites: self.prefer_server_cipher_suites.unwrap_or(true),
            curve_preferences: self.curve_preferences,
        }))
    }
}

fn part(name: &str) -> &'static str {
    if name == "key_file" { "key" } else { "chain" }
}

/// The rate limit, if an interval is given.
///
/// # Errors
/// A message, if an interval is given without a burst.
pub(super) fn rate_limit(interval: Option<Duration>, burst: Option<usize>) -> Result<Option<RateLimit>, String> {
    match (interval, burst.and_then(|burst| u32::try_from(burst).ok()).filter(|burst| *burst > 0)) {
        (None, _) => Ok(None),
        (Some(interval), Some(burst)) => Ok(Some(RateLimit { interval, burst })),
        (Some(_), None) => Err("with an interval, a burst of at least 1 request is needed: none would pass".into()),
    }
}

/// Checks a user's name and password hash.
///
/// # Errors
/// A message, if the name contains a colon or the hash is not bcrypt's.
pub(super) fn user(name: &str, hash: &str) -> Result<PasswordHash, String> {
    if name.contains(':') {
        return Err(format!("the user {name:?} could never sign in: a colon ends a name"));
    }
    PasswordHash::parse(hash).map_err(|text| format!("the password of {name:?}: {text}"))
}
