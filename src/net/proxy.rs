//! The proxy between an edge and its hub: which targets it serves, its secrets, and the tunnel that it opens.
//!
//! `url` and `no_proxy` are the values of the configuration. `connect` speaks HTTP's `CONNECT`, `socks` SOCKS5, and
//! `error` says what a proxy answered instead of a tunnel. A name is resolved by the proxy, except with `socks5`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::either::Either;

use super::address::HostPort;
use super::counted::Counted;
use super::tls::{self, AnonymousConnector, TlsError};

mod connect;
mod environment;
mod error;
mod login;
mod no_proxy;
mod socks;
mod url;
mod words;

pub use connect::ConnectHeader;
pub use environment::ProxyEnvironment;
pub use error::ProxyError;
pub use login::Secret;
pub use no_proxy::{NoProxy, NoProxyRule};
pub use url::{ProxyScheme, ProxyUrl};

use login::ProxyLogin;

/// The stream that carries a link: a TCP connection, or the encrypted connection to a proxy.
pub type Carrier = Either<Counted<TcpStream>, Box<tls::Stream<Counted<TcpStream>>>>;

/// The source of the proxy's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyPassword {
    /// A file that contains it, and a line end perhaps.
    File(PathBuf),
    /// A variable of the environment.
    Environment(Secret),
}

/// The proxy of an uplink, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// Where the proxy is, and which protocol it speaks.
    pub url: ProxyUrl,
    /// The user's name and password, if the proxy requires them.
    pub login: Option<(String, ProxyPassword)>,
    /// The authorities of the proxy's certificate; needed for `https` only.
    pub ca_file: Option<PathBuf>,
    /// Headers that are added to `CONNECT`.
    pub connect_headers: Vec<ConnectHeader>,
    /// The targets that are dialled without the proxy.
    pub no_proxy: NoProxy,
    /// The time for the proxy to open a tunnel, TLS with the proxy included.
    pub timeout: Duration,
}

impl ProxyOptions {
    /// The default of `timeout`. It is long because a proxy may wait for its own resolver and its own connection.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// The files that are read again when they change.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let password = match &self.login {
            Some((_, ProxyPassword::File(file))) => Some(file.as_path()),
            _ => None,
        };
        password.into_iter().chain(self.ca_file.as_deref())
    }
}

/// The reasons for which the files of a proxy cannot be used.
#[derive(Debug, Error)]
pub enum ProxyFileError {
    /// The password cannot be read.
    #[error("cannot read the proxy's password from {path:?}: {reason}")]
    Password {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ProxyFileError {
    /// The file that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Password { path, .. } => Some(path),
            Self::Tls(error) => error.path(),
        }
    }
}

/// The secrets of a proxy, read from their files.
#[derive(Clone, Debug)]
pub struct ProxyKeys {
    login: Option<ProxyLogin>,
    tls: Option<AnonymousConnector>,
}

/// Bytes of a password file, at most. A larger file is something else.
const PASSWORD_BYTES_MAX: u64 = 1 << 10;

impl ProxyKeys {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or used.
    pub fn load(options: &ProxyOptions) -> Result<Self, ProxyFileError> {
        let login = match &options.login {
            Some((username, password)) => {
                let password = match password {
                    ProxyPassword::File(path) => read_password(path)?,
                    ProxyPassword::Environment(password) => password.clone(),
                };
                Some(ProxyLogin { username: username.clone(), password })
            }
            None => None,
        };
        let tls = options.ca_file.as_deref().map(AnonymousConnector::for_proxies).transpose()?;
        Ok(Self { login, tls })
    }
}

fn read_password(path: &Path) -> Result<Secret, ProxyFileError> {
    read_secret(path, PASSWORD_BYTES_MAX).map_err(|reason| ProxyFileError::Password { path: path.into(), reason })
}

/// Reads a file of at most `bytes_max` bytes that contains a password alone, and a line end perhaps.
///
/// # Errors
/// The reason why it has none.
pub(in crate::net) fn read_secret(path: &Path, bytes_max: u64) -> Result<Secret, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes: a password alone belongs there"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password {
        "" => Err("it is empty".into()),
        text if text.contains(char::is_control) => Err("it has several lines, or control characters".into()),
        text => Ok(Secret::new(text.into())),
    }
}

/// The proxy of an uplink. Its secrets can be replaced.
#[derive(Debug)]
pub struct Proxy {
    options: ProxyOptions,
    keys: RwLock<Arc<ProxyKeys>>,
}

impl Proxy {
    /// A proxy with these secrets, which are those of `options`.
    pub fn new(options: ProxyOptions, keys: ProxyKeys) -> Self {
        Self { options, keys: RwLock::new(Arc::new(keys)) }
    }

    /// Replaces the secrets, for later tunnels.
    pub fn replace(&self, fresh: ProxyKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
    }

    /// Where the proxy is.
    pub fn url(&self) -> &ProxyUrl {
        &self.options.url
    }

    /// Whether a target is dialled through the proxy.
    pub fn serves(&self, target: &HostPort) -> bool {
        !self.options.no_proxy.has(target)
    }

    /// Asks the proxy at the other end of `stream` for a tunnel to `target`. Returns the tunnel, and the proxy's answer.
    ///
    /// # Errors
    /// If the proxy opens none in time.
    pub async fn open(&self, stream: Counted<TcpStream>, target: &HostPort) -> Result<(Carrier, String), ProxyError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let limit = self.options.timeout;
        let opened = timeout(limit, self.tunnel(stream, target, &keys)).await;
        opened.map_err(|_| ProxyError::TimedOut { target: target.clone(), after: limit })?
    }

    async fn tunnel(
        &self,
        mut stream: Counted<TcpStream>,
        target: &HostPort,
        keys: &ProxyKeys,
    ) -> Result<(Carrier, String), ProxyError> {
        let (login, headers) = (keys.login.as_ref(), &self.options.connect_headers);
        match self.options.url.scheme() {
            ProxyScheme::Http => {
                let answer = connect::open(&mut stream, target, login, headers).await?;
                Ok((Either::Left(stream), answer))
            }
            ProxyScheme::Https => {
                let tls = keys.tls.as_ref().ok_or(ProxyError::NoAuthorities)?;
                let mut stream =
                    tls.connect(self.options.url.address().host(), stream).await.map_err(ProxyError::Tls)?;
                let answer = connect::open(&mut stream, target, login, headers).await?;
                Ok((Either::Right(Box::new(stream)), answer))
            }
            ProxyScheme::Socks5 | ProxyScheme::Socks5h => {
                let answer = socks::open(&mut stream, target, login).await?;
                Ok((Either::Left(stream), answer))
            }
        }
    }
}

/// The address as a target.
pub(in crate::net) fn target_of(address: &SocketAddr) -> Option<HostPort> {
    address.to_string().parse().ok()
}

#[cfg(test)]
mod tests;
