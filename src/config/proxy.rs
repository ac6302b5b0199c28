//! The proxy of an uplink: `uplink.proxy_url` and the keys that belong to it, or the environment if it is asked for.

use std::env;

use super::reader::{ConfigReader, Section};
use crate::net::proxy::{
    ConnectHeader, NoProxy, NoProxyRule, ProxyEnvironment, ProxyOptions, ProxyPassword, ProxyScheme, ProxyUrl,
};

/// Bytes of a name or a password that SOCKS5 can carry.
const SOCKS_BYTES_MAX: usize = 255;

/// Reads the proxy of the uplink of a section; `None` if it has none.
pub(super) fn proxy<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>) -> Option<ProxyOptions> {
    let before = reader.mistakes_len();
    // An empty text counts as not given, as in the commented file.
    let url = reader.maybe_text(section, "proxy_url");
    let username = reader.maybe_text(section, "proxy_username");
    let password_file = reader.maybe_file(section, "proxy_password_file");
    let ca_file = reader.maybe_file(section, "proxy_ca_file");
    let headers = reader.table(section, "proxy_connect_headers", true);
    let mut no_proxy: Vec<NoProxyRule> = reader.list(section, "no_proxy", Vec::new());
    let from_environment = reader.value(section, "proxy_from_environment", false);
    let timeout = reader.value(section, "proxy_timeout", ProxyOptions::TIMEOUT);
    let url = match url.as_deref().map(str::parse::<ProxyUrl>).transpose() {
        Ok(url) => url,
        Err(error) => {
            reader.mistake(section, "proxy_url", error.to_string());
            None
        }
    };
    if reader.mistakes_len() > before {
        return None;
    }
    let needing_a_proxy = [
        ("proxy_username", username.is_some()),
        ("proxy_password_file", password_file.is_some()),
        ("proxy_ca_file", ca_file.is_some()),
        ("proxy_connect_headers", !headers.is_empty()),
    ];
    let login = match (username, password_file) {
        (Some(username), Some(file)) => Some((username, ProxyPassword::File(file))),
        (None, None) => None,
        (Some(_), None) => {
            let text = "a user needs a password: add proxy_password_file = …, a file that contains it alone";
            reader.mistake(section, "proxy_username", text.into());
            None
        }
        (None, Some(_)) => {
            let text = "a password needs a user: add proxy_username = …";
            reader.mistake(section, "proxy_password_file", text.into());
            None
        }
    };
    let (url, login) = match (url, from_environment) {
        (Some(_), true) => {
            let text = "either proxy_url names the proxy, or the environment does: remove one of the two";
            reader.mistake(section, "proxy_from_environment", text.into());
            return None;
        }
        (Some(url), false) => (url, login),
        (None, true) => match ProxyEnvironment::read(|name| env::var(name).ok()) {
            Ok(Some(environment)) => {
                no_proxy.extend(environment.no_proxy.0);
                let named = environment.login.map(|(user, password)| (user, ProxyPassword::Environment(password)));
                (environment.url, login.or(named))
            }
            Ok(None) => return None,
            Err(text) => {
                reader.mistake(section, "proxy_from_environment", text);
                return None;
            }
        },
        (None, false) => {
            for (name, _) in needing_a_proxy.into_iter().filter(|(_, is_given)| *is_given) {
                let text = format!("{name} has no use without a proxy: add proxy_url = …, or remove it");
                reader.mistake(section, name, text);
            }
            return None;
        }
    };
    if let Some((username, _)) = &login {
        check_username(reader, section, url.scheme(), username);
    }
    if url.scheme() == ProxyScheme::Https && ca_file.is_none() {
        let text = "an https proxy needs proxy_ca_file, the authorities of its certificate, such as \
                    /etc/ssl/certs/ca-certificates.crt";
        reader.mistake(section, "proxy_url", text.into());
    }
    if url.scheme() != ProxyScheme::Https && ca_file.is_some() && !from_environment {
        let text = format!("proxy_ca_file has no use with {}://: it is for https proxies", url.scheme().name());
        reader.mistake(section, "proxy_ca_file", text);
    }
    if url.scheme().is_socks() && !headers.is_empty() {
        let text = "proxy_connect_headers has no use with SOCKS5: it is for http and https proxies";
        reader.mistake(section, "proxy_connect_headers", text.into());
    }
    let mut connect_headers = Vec::new();
    for (name, value) in headers {
        match ConnectHeader::new(name, value) {
            Ok(header) => connect_headers.push(header),
            Err(error) => reader.mistake(section, "proxy_connect_headers", error.to_string()),
        }
    }
    let options = ProxyOptions { url, login, ca_file, connect_headers, no_proxy: NoProxy(no_proxy), timeout };
    reader.note_proxy(section, &options);
    Some(options)
}

fn check_username<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>, scheme: ProxyScheme, username: &str) {
    let wrong = match username {
        name if name.contains(char::is_control) => Some("a user's name has no control characters".to_owned()),
        name if !scheme.is_socks() && name.contains(':') => Some("a user's name has no colon in HTTP".to_owned()),
        name if scheme.is_socks() && name.len() > SOCKS_BYTES_MAX => {
            Some(format!("a user's name has at most {SOCKS_BYTES_MAX} bytes in SOCKS5"))
        }
        _ => None,
    };
    if let Some(text) = wrong {
        reader.mistake(section, "proxy_username", text);
    }
}
