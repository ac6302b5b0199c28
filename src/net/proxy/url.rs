//! Where a proxy is, and which protocol it speaks: `SCHEME://HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::login::Secret;
use crate::net::address::{AddressError, HostPort};

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyScheme {
    /// HTTP's `CONNECT` in the clear. The link inside is encrypted nevertheless.
    Http,
    /// HTTP's `CONNECT` over TLS.
    Https,
    /// SOCKS5; names are resolved here.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

impl ProxyScheme {
    /// Each with its name, and the port if a URL has none.
    const ALL: [(Self, &'static str, u16); 4] = [
        (Self::Http, "http", 80),
        (Self::Https, "https", 443),
        (Self::Socks5, "socks5", 1080),
        (Self::Socks5h, "socks5h", 1080),
    ];

    /// The name of the scheme.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(scheme, ..)| *scheme == self).map_or("", |(_, name, _)| name)
    }

    /// Whether it is SOCKS5, with names resolved at either end.
    pub fn is_socks(self) -> bool {
        matches!(self, Self::Socks5 | Self::Socks5h)
    }
}

/// Where a proxy is, and which protocol it speaks. It has no user and no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    scheme: ProxyScheme,
    address: HostPort,
}

/// The reasons for which a text is no URL of a proxy. No message has the text, which may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProxyUrlError {
    /// The scheme is missing or unknown.
    #[error(
        "a proxy's URL begins with http://, https://, socks5:// (names are resolved here) or socks5h:// (by the proxy), \
         like \"http://proxy.example.org:3128\""
    )]
    Scheme,
    /// There is something behind the port.
    #[error("a proxy's URL ends with its port, like \"http://proxy.example.org:3128\"")]
    Path,
    /// The URL has a user.
    #[error("write the user into proxy_username, and the password into a file that proxy_password_file names")]
    Login,
    /// The address is not valid.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl ProxyUrl {
    /// The protocol.
    pub fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    /// The address of the proxy.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Parses a URL that may have a user and a password, and may lack the scheme `http`, as variables of the environment
    /// have it.
    ///
    /// # Errors
    /// If it is no URL of a proxy.
    pub(super) fn with_login(text: &str) -> Result<(Self, Option<(String, Secret)>), ProxyUrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let Some((login, address)) = rest.rsplit_once('@') else { return Ok((parse(scheme, rest)?, None)) };
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok((parse(scheme, address)?, Some((decoded(username), Secret::new(decoded(password))))))
    }
}

fn parse(scheme: &str, rest: &str) -> Result<ProxyUrl, ProxyUrlError> {
    let known = ProxyScheme::ALL.iter().find(|(_, name, _)| scheme.eq_ignore_ascii_case(name));
    let (scheme, _, port) = *known.ok_or(ProxyUrlError::Scheme)?;
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.contains(['/', '?', '#']) {
        return Err(ProxyUrlError::Path);
    }
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port { address.parse()? } else { format!("{address}:{port}").parse()? };
    Ok(ProxyUrl { scheme, address })
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ProxyUrlError::Scheme)?;
        if rest.contains('@') {
            return Err(ProxyUrlError::Login);
        }
        parse(scheme, rest)
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_print_with_their_port() {
        for (text, printed) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("HTTP://proxy/", "http://proxy:80"),
            ("https://proxy.example.org", "https://proxy.example.org:443"),
            ("socks5://[::1]:1081", "socks5://[::1]:1081"),
            ("socks5h://[::1]", "socks5h://[::1]:1080"),
        ] {
            assert_eq!(text.parse::<ProxyUrl>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn each_mistake_has_its_error_and_none_shows_a_password() {
        let error = |text: &str| text.parse::<ProxyUrl>().unwrap_err();
        for text in ["proxy:3128", "ftp://proxy:3128", "socks4://proxy:1080", "://"] {
            assert_eq!(error(text), ProxyUrlError::Scheme, "{text}");
        }
        assert_eq!(error("http://proxy:3128/pac"), ProxyUrlError::Path);
        assert!(matches!(error("http://:3128"), ProxyUrlError::Address(_)));
        assert!(matches!(error("http://proxy:port"), ProxyUrlError::Address(_)));
        let login = error("http://user:hunter2@proxy:3128");
        assert_eq!(login, ProxyUrlError::Login);
        assert!(!login.to_string().contains("hunter2"));
    }

    #[test]
    fn a_variable_of_the_environment_may_have_a_login_and_no_scheme() {
        let (url, login) = ProxyUrl::with_login("http://us%40er:p%3Ass@proxy:3128").unwrap();
        let (username, password) = login.unwrap();
        assert_eq!((url.to_string().as_str(), username.as_str()), ("http://proxy:3128", "us@er"));
        assert_eq!((password.reveal(), format!("{password:?}").as_str()), ("p:ss", "<secret>"));
        let (url, login) = ProxyUrl::with_login("proxy:3128").unwrap();
        assert_eq!((url.to_string().as_str(), login), ("http://proxy:3128", None));
    }
}
