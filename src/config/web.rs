//! `[web.tls]`, `[web.basic_auth_users]` and similar sections: how the gateway authenticates clients, and which
//! headers it sends. They come from the file and flags, or from a web configuration file ([`super::web_file`]).

use std::path::PathBuf;

use super::reader::{ConfigReader, Section};
use super::web_checks::{self, TlsSection};
use super::web_file;
use crate::net::tls::web::{Pem, WebTls};
use crate::net::token::TokenDigest;
use crate::node::http::auth::guard::{ExtraHeader, GuardRules};
use crate::node::http::auth::passwords::Users;
use crate::node::http::auth::tokens::Tokens;
use crate::node::options::WebSecurity;

pub(super) fn security<'a>(reader: &mut ConfigReader<'a>, web: Section<'a>) -> WebSecurity {
    let mut security = security_without_tokens(reader, web);
    security.guard.tokens = tokens(reader, web);
    security
}

/// The bearer tokens. A web configuration file has none, so they may stand beside one.
fn tokens<'a>(reader: &mut ConfigReader<'a>, web: Section<'a>) -> Tokens {
    let mut digests: Vec<(String, TokenDigest)> = Vec::new();
    for (name, digest) in reader.table(web, "tokens", true) {
        match digest.trim().parse::<TokenDigest>() {
            Ok(digest) => match digests.iter().find(|(_, known)| *known == digest) {
                Some((other, _)) => {
                    let text = format!("the tokens {other:?} and {name:?} are the same: each name needs its own token");
                    reader.mistake(web, "tokens", text);
                }
                None => digests.push((name, digest)),
            },
            Err(text) => reader.mistake(web, "tokens", format!("the token {name:?}: {text}")),
        }
    }
    Tokens::new(digests)
}

fn security_without_tokens<'a>(reader: &mut ConfigReader<'a>, web: Section<'a>) -> WebSecurity {
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

fn own_security<'a>(reader: &mut ConfigReader<'a>, web: Section<'a>) -> WebSecurity {
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
        match web_checks::user(&name, &hash) {
            Ok(hash) => drop(users.insert(name, hash)),
            Err(text) => reader.mistake(web, "basic_auth_users", text),
        }
    }
    let section = reader.section(web, "web.rate_limit");
    let (interval, burst) = (reader.maybe(section, "interval"), reader.maybe(section, "burst"));
    if interval.is_none() && burst.is_some() {
        reader.mistake(section, "burst", "a burst has no effect without an interval".into());
    }
    let rate_limit = web_checks::rate_limit(interval, burst).unwrap_or_else(|text| {
        reader.mistake(section, "interval", text);
        None
    });
    let guard = GuardRules { headers, users: Users::new(users), tokens: Tokens::default(), rate_limit };
    WebSecurity { tls, http2, guard, config_file: None }
}

fn tls<'a>(reader: &mut ConfigReader<'a>, web: Section<'a>) -> Option<WebTls> {
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
    match raw.build() {
        Ok(tls) => {
            if let Some(tls) = &tls {
                reader.note_web_tls(section, tls);
            }
            tls
        }
        Err((name, text)) => {
            // The missing value may be one that could not be read, and that mistake is reported already.
            if reader.mistakes_len() == before {
                reader.mistake(section, name, text);
            }
            None
        }
    }
}
