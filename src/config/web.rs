//! `[web.tls]`, `[web.basic_auth_users]` and their like: what the gateway asks of clients and says to them, from the
//! file and flags, or from a file of Pushgateway's own kind ([`super::web_file`]).

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Reader, Section};
use super::web_file;
use crate::net::tls::web::{ClientAuth, Curve, Pem, Suite, TlsVersion, WebTls};
use crate::node::http::auth::guard::{ExtraHeader, GuardRules, RateLimit};
use crate::node::http::auth::passwords::{PasswordHash, Users};
use crate::node::options::WebSecurity;

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
    /// What all of it comes to: TLS, if anything is said about it. An error names the key that it is about.
    pub fn settle(self) -> Result<Option<WebTls>, (&'static str, String)> {
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
                format!("client_ca_file counts for nothing with client_auth_type {client_auth}: set one that verifies");
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

/// A limit on the rate, if the interval is one.
pub(super) fn rate_limit(interval: Option<Duration>, burst: Option<usize>) -> Result<Option<RateLimit>, String> {
    match (interval, burst.and_then(|burst| u32::try_from(burst).ok()).filter(|burst| *burst > 0)) {
        (None, _) => Ok(None),
        (Some(interval), Some(burst)) => Ok(Some(RateLimit { interval, burst })),
        (Some(_), None) => Err("with an interval, a burst of at least 1 request is needed: none would pass".into()),
    }
}

pub(super) fn security<'a>(reader: &mut Reader<'a>, web: Section<'a>) -> WebSecurity {
    let config_file: Option<PathBuf> = reader.maybe_file(web, "config_file");
    let own = own_security(reader, web);
    let Some(file) = config_file else { return own };
    if own != WebSecurity::default() || reader.is_given(web, "http2") {
        let text = "this file and [web.tls], [web.headers], [web.basic_auth_users], [web.rate_limit] or web.http2 both say \
                    how to protect the gateway: keep one of them";
        reader.mistake(web, "config_file", text.into());
    }
    match web_file::read(&file) {
        Ok((security, spans)) => {
            if let Some(tls) = &security.tls {
                reader.note_web_file_tls(&file, spans, tls);
            }
            WebSecurity { config_file: Some(file), ..security }
        }
        Err(mistakes) => {
            reader.add_mistakes(mistakes);
            own
        }
    }
}

fn own_security<'a>(reader: &mut Reader<'a>, web: Section<'a>) -> WebSecurity {
    let default = WebSecurity::default();
    let http2 = reader.value(web, "http2", default.http2);
    let tls = tls(reader, web);
    let mut headers = Vec::new();
    for (name, value) in reader.table(web, "headers", false) {
        match ExtraHeader::new(&name, &value) {
            Ok(header) => headers.push(header),
            Err(text) => reader.mistake(web, "headers", text),
        }
    }
    let mut users = std::collections::BTreeMap::new();
    for (name, hash) in reader.table(web, "basic_auth_users", true) {
        match user(&name, &hash) {
            Ok(hash) => drop(users.insert(name, hash)),
            Err(text) => reader.mistake(web, "basic_auth_users", text),
        }
    }
    let section = reader.section(web, "web.rate_limit");
    let (interval, burst) = (reader.maybe(section, "interval"), reader.maybe(section, "burst"));
    if interval.is_none() && burst.is_some() {
        reader.mistake(section, "burst", "a burst counts for nothing without an interval".into());
    }
    let rate_limit = rate_limit(interval, burst).unwrap_or_else(|text| {
        reader.mistake(section, "interval", text);
        None
    });
    WebSecurity { tls, http2, guard: GuardRules { headers, users: Users::new(users), rate_limit }, config_file: None }
}

/// Checks a user's name and hash.
pub(super) fn user(name: &str, hash: &str) -> Result<PasswordHash, String> {
    if name.contains(':') {
        return Err(format!("the user {name:?} could never sign in: a colon ends a name"));
    }
    PasswordHash::parse(hash).map_err(|text| format!("the password of {name:?}: {text}"))
}

fn tls<'a>(reader: &mut Reader<'a>, web: Section<'a>) -> Option<WebTls> {
    let section = reader.section(web, "web.tls");
    let mut pem = |file: &'static str, inline: &'static str, key: &'static str| {
        let path = reader.maybe_file(section, file).map(Pem::File);
        let text = reader.secret(section, inline).map(|text| Pem::Inline { key, text });
        if path.is_some() && text.is_some() {
            reader.mistake(section, inline, format!("{inline} and {file} are both given: keep one"));
        }
        path.or(text)
    };
    let cert = pem("cert_file", "cert", "web.tls.cert");
    let key = pem("key_file", "key", "web.tls.key");
    let client_ca = pem("client_ca_file", "client_ca", "web.tls.client_ca");
    let before = reader.mistakes_len();
    let raw = TlsSection {
        cert,
        key,
        client_ca,
        client_auth: reader.maybe(section, "client_auth_type"),
        client_allowed_sans: reader.list(section, "client_allowed_sans", Vec::new()),
        min_version: reader.maybe(section, "min_version"),
        max_version: reader.maybe(section, "max_version"),
        cipher_suites: reader.list(section, "cipher_suites", Vec::new()),
        prefer_server_cipher_suites: reader.maybe(section, "prefer_server_cipher_suites"),
        curve_preferences: reader.list(section, "curve_preferences", Vec::new()),
    };
    match raw.settle() {
        Ok(tls) => {
            if let Some(tls) = &tls {
                reader.note_web_tls(section, tls);
            }
            tls
        }
        Err((name, text)) => {
            // A value that could not be read may be the very one that is missing.
            if reader.mistakes_len() == before {
                reader.mistake(section, name, text);
            }
            None
        }
    }
}
