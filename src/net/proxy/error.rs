//! The reasons for which a proxy opens no tunnel, each with what an operator can do.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::net::address::HostPort;
use crate::net::tls::{self, TlsError};

/// The reasons for which a proxy opens no tunnel.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The connection to the proxy failed.
    #[error("the connection to it failed: {}", tls::explain(.0))]
    Io(io::Error),
    /// TLS with the proxy failed.
    #[error("{0} (of the proxy itself: uplink.proxy_ca_file has the authority of its certificate)")]
    Tls(TlsError),
    /// There are no authorities for the certificate of an `https` proxy.
    #[error("uplink.proxy_ca_file is not given")]
    NoAuthorities,
    /// The proxy closed the connection.
    #[error(
        "it closed the connection without an answer: is that the port of a proxy of this kind? its log has the reason"
    )]
    Closed,
    /// The proxy did not answer in time.
    #[error(
        "it gave no answer within {} s (uplink.proxy_timeout): it hangs, looks the name of {target} up in vain, or the \
         packets behind it are dropped",
        .after.as_secs_f64()
    )]
    TimedOut {
        /// The target of the tunnel.
        target: HostPort,
        /// The time limit.
        after: Duration,
    },
    /// The answer is not HTTP.
    #[error("it does not answer in HTTP: {0}")]
    NotHttp(&'static str),
    /// The head of the answer cannot be read.
    #[error("its answer cannot be read: {0}")]
    Malformed(String),
    /// The proxy answered with a page instead of a tunnel, although with a status of success.
    #[error(
        "it answered {status:?} and sent a page instead of a tunnel: that is a web server or a login page, not a proxy \
         that does CONNECT; the page: {words:?}"
    )]
    Page {
        /// The status with its reason.
        status: String,
        /// The words of the page.
        words: String,
    },
    /// The proxy refused in HTTP.
    #[error(transparent)]
    Refused(Box<ProxyRefusal>),
    /// The proxy refused in SOCKS5, or does not speak it.
    #[error("{0}")]
    Socks(String),
}

impl ProxyError {
    /// Whether the proxy answered. Its other addresses would answer the same.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Page { .. } | Self::Socks(_))
    }
}

/// An HTTP answer without success.
#[derive(Debug, Error)]
pub struct ProxyRefusal {
    /// The status code.
    pub status: u16,
    /// The reason phrase, and squid's name of the error.
    pub reason: String,
    /// The words of the body.
    pub words: String,
    /// The ways to log in that the proxy offers, if it requires that.
    pub schemes: Vec<String>,
    /// The target of a redirection.
    pub location: Option<String>,
    /// The target of the tunnel.
    pub target: HostPort,
    /// The name with which this end logged in.
    pub username: Option<String>,
}

impl fmt::Display for ProxyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, reason, words, target, .. } = self;
        let answer = match words.as_str() {
            "" => format!("{status} {reason}"),
            words => format!("{status} {reason}: {words}"),
        };
        match status {
            407 => self.explain_login(f),
            403 => {
                write!(f, "it refuses a tunnel to {target} ({answer})")?;
                match target.port() {
                    443 => f.write_str("; have this host and its target allowed at the proxy"),
                    port => write!(
                        f,
                        "; many proxies allow tunnels to port 443 only: have port {port} allowed at the proxy, or let \
                         the hub listen on 443 (hub.listen_address)"
                    ),
                }
            }
            404 | 500 | 502..=504 => write!(
                f,
                "it could not reach {target} ({answer}); check that its resolver knows the name, and that the hub \
                 listens there and is not behind a firewall of the proxy"
            ),
            300..=399 => {
                let location = self.location.as_deref().unwrap_or("nowhere");
                write!(
                    f,
                    "it redirects to {location:?} ({answer}): that is a web server or a login page, not a proxy that does \
                     CONNECT"
                )
            }
            400 | 405 | 501 | 505 => {
                write!(f, "it does not do CONNECT ({answer}): is that the port of an HTTP proxy?")
            }
            _ => write!(f, "it opens no tunnel to {target} ({answer}); its log has the reason"),
        }
    }
}

impl ProxyRefusal {
    fn explain_login(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offers = |wanted: &str| self.schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(wanted));
        let offered = if self.schemes.is_empty() { "nothing".into() } else { self.schemes.join(", ") };
        write!(f, "it requires a login ({} {}; it offers {offered})", self.status, self.reason)?;
        match &self.username {
            Some(username) if offers("Basic") => write!(
                f,
                ", and refuses the user {username:?}: check uplink.proxy_username and uplink.proxy_password_file"
            ),
            None if offers("Basic") => f.write_str(": set uplink.proxy_username and uplink.proxy_password_file"),
            _ if ["NTLM", "Negotiate", "Kerberos"].into_iter().any(offers) => f.write_str(
                ": pushrelay logs in with Basic only; run a helper such as cntlm or px on this host, and let \
                 uplink.proxy_url name it",
            ),
            _ => f.write_str(": pushrelay logs in with Basic only; have that allowed at the proxy"),
        }
    }
}
