//! The URL of a receiver.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::net::address::HostPort;

/// The URL of a receiver: `http` or `https`, with path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverUrl {
    is_tls: bool,
    target: HostPort,
    /// The host as it stands in the URL, with its port if there is one.
    authority: String,
    /// Path and query.
    path: String,
}

/// The text is no URL of a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiverUrlError {
    /// The URL cannot be used.
    #[error("{0:?} is no URL of a receiver: write it like \"https://mimir.example.org/api/v1/push\"")]
    Bad(String),
    /// The URL has a user, and perhaps a password, which the message must not show.
    #[error("the URL has a user or a password: write them into basic_auth, as username and password_file")]
    User,
}

impl ReceiverUrl {
    /// Whether it is `https`.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Host and port.
    pub fn target(&self) -> &HostPort {
        &self.target
    }

    /// The value of the header `Host`.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The host for messages.
    pub(super) fn host(&self) -> String {
        self.target.to_string()
    }

    pub(super) fn is_same_host(&self, other: &Self) -> bool {
        self.target == other.target && self.is_tls == other.is_tls
    }

    /// The URL to which an answer of this one redirects: absolute, or a path on the same host.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn redirected(&self, location: &str) -> Result<Self, ReceiverUrlError> {
        if location.starts_with('/') && !location.starts_with("//") {
            let scheme = if self.is_tls { "https" } else { "http" };
            return format!("{scheme}://{}{location}", self.authority).parse();
        }
        location.parse()
    }
}

impl FromStr for ReceiverUrl {
    type Err = ReceiverUrlError;

    fn from_str(text: &str) -> Result<Self, ReceiverUrlError> {
        if text.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@')) {
            return Err(ReceiverUrlError::User);
        }
        let bad = || ReceiverUrlError::Bad(text.chars().take(200).collect());
        let uri: hyper::Uri = text.parse().map_err(|_| bad())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(bad)?;
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = format!("{}:{port}", authority.host()).parse().map_err(|_| bad())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { is_tls, target, authority: authority.as_str().to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for ReceiverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        // A query may have a token.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_redirected() {
        let url: ReceiverUrl = "http://vm:8428/api/v1/write?x=secret".parse().unwrap();
        assert_eq!(
            (url.is_tls(), url.target().to_string(), url.path()),
            (false, "vm:8428".into(), "/api/v1/write?x=secret")
        );
        assert_eq!(url.to_string(), "http://vm:8428/api/v1/write");
        assert_eq!("https://[::1]/".parse::<ReceiverUrl>().unwrap().target().to_string(), "[::1]:443");
        assert_eq!(url.redirected("/b").unwrap().to_string(), "http://vm:8428/b");
        assert!(!url.redirected("https://vm:8428/b").unwrap().is_same_host(&url));
        for bad in ["", "vm", "vm:8428/x", "ftp://vm", "http://", "//vm/x"] {
            assert!(matches!(bad.parse::<ReceiverUrl>(), Err(ReceiverUrlError::Bad(_))), "{bad}");
        }
        let error = "http://u:secret@vm/".parse::<ReceiverUrl>().unwrap_err();
        assert!(error == ReceiverUrlError::User && !error.to_string().contains("secret"));
    }
}
