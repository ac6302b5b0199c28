//! A client that posts bodies to one server over kept connections, HTTP/1.1: the sender of remote write.
//!
//! Its credentials (password or token, TLS, proxy) come from files, and can be replaced while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::answer::PostAnswer;
use self::connection::KeptConnection;
pub use self::url::{ReceiverUrl, ReceiverUrlError};
use super::whole_body::WholeBody;
use crate::net::dial::carrier::{self, CarrierError};
use crate::net::dial::{DialEvent, DialObserver};
use crate::net::proxy::{Proxy, ProxyFileError, ProxyKeys, ProxyOptions, read_secret};
use crate::net::tls::{ReceiverConnector, ReceiverTlsFiles, TlsError};

mod answer;
mod connection;
mod url;

/// Bytes of a file with a password or credentials, at most.
const LOGIN_BYTES_MAX: u64 = 16 << 10;
/// The caller bounds the time of the whole request; a single step has this long.
const STEP_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The login at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverLogin {
    /// `basic_auth`: a user, and the file of the password.
    Basic {
        /// The user.
        username: String,
        /// The file that contains the password alone.
        password_file: PathBuf,
    },
    /// `authorization`: a scheme such as `Bearer`, and the file of the credentials.
    Credentials {
        /// The scheme.
        scheme: String,
        /// The file that contains the credentials alone.
        credentials_file: PathBuf,
    },
}

impl ReceiverLogin {
    fn file(&self) -> &Path {
        match self {
            Self::Basic { password_file: file, .. } | Self::Credentials { credentials_file: file, .. } => file,
        }
    }
}

/// The way to a receiver, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderOptions {
    /// The login, if the receiver requires one.
    pub login: Option<ReceiverLogin>,
    /// The files for TLS; needed for `https`.
    pub tls: Option<ReceiverTlsFiles>,
    /// The proxy, if there is one.
    pub proxy: Option<ProxyOptions>,
}

impl SenderOptions {
    /// The files that are read again when they change.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter().flat_map(ReceiverTlsFiles::files);
        let proxy = self.proxy.iter().flat_map(ProxyOptions::files);
        self.login.iter().map(ReceiverLogin::file).chain(tls).chain(proxy)
    }
}

/// The reasons for which the files of a receiver cannot be used.
#[derive(Debug, Error)]
pub enum SenderFileError {
    /// The password or the credentials cannot be read.
    #[error("cannot read the password or credentials of the receiver from {path:?}: {reason}")]
    Login {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The files of the proxy cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyFileError),
}

impl SenderFileError {
    /// The file that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Login { path, .. } => Some(path),
            Self::Tls(error) => error.path(),
            Self::Proxy(error) => error.path(),
        }
    }
}

/// The credentials of a sender, read from their files.
#[derive(Clone, Debug)]
pub struct SenderKeys {
    authorization: Option<HeaderValue>,
    tls: Option<ReceiverConnector>,
    proxy: Option<ProxyKeys>,
}

impl SenderKeys {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or used.
    pub fn load(options: &SenderOptions) -> Result<Self, SenderFileError> {
        let authorization = options.login.as_ref().map(authorization).transpose()?;
        let tls = options.tls.as_ref().map(ReceiverConnector::load).transpose()?;
        let proxy = options.proxy.as_ref().map(ProxyKeys::load).transpose()?;
        Ok(Self { authorization, tls, proxy })
    }
}

fn authorization(login: &ReceiverLogin) -> Result<HeaderValue, SenderFileError> {
    let failed = |reason: String| SenderFileError::Login { path: login.file().into(), reason };
    let secret = read_secret(login.file(), LOGIN_BYTES_MAX).map_err(failed)?;
    let text = match login {
        ReceiverLogin::Basic { username, .. } => {
            format!("Basic {}", STANDARD.encode(format!("{username}:{}", secret.reveal())))
        }
        ReceiverLogin::Credentials { scheme, .. } => format!("{scheme} {}", secret.reveal()),
    };
    let mut value =
        HeaderValue::try_from(text).map_err(|_| failed("it has characters that a header cannot have".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The reasons for which there is no answer.
#[derive(Debug, Error)]
pub enum PostError {
    /// The receiver cannot be reached.
    #[error(transparent)]
    Connect(#[from] CarrierError),
    /// TLS failed.
    #[error("TLS with {host}: {error}")]
    Tls {
        /// The receiver's host.
        host: String,
        /// The error.
        error: TlsError,
    },
    /// The connection ended, or carried no HTTP, while the body was sent or the answer was read.
    #[error("{host} disconnected before it answered: {reason}")]
    Broken {
        /// The receiver's host.
        host: String,
        /// The reason.
        reason: String,
    },
    /// A header or the URL cannot be sent.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

/// A connection to a receiver that is kept between requests.
#[derive(Debug, Default)]
pub struct SenderLane {
    kept: Option<KeptConnection>,
    /// The URL to which the receiver redirected.
    redirected: Option<ReceiverUrl>,
}

impl SenderLane {
    /// Closes the connection, after a request that was not awaited.
    pub fn close(&mut self) {
        self.kept = None;
    }

    /// Sends the next requests to that URL.
    pub fn redirect(&mut self, url: ReceiverUrl) {
        self.kept = None;
        self.redirected = Some(url);
    }

    /// Sends the next requests to the configured URL again.
    pub fn forget_redirection(&mut self) {
        if self.redirected.take().is_some() {
            self.kept = None;
        }
    }
}

/// Posts to one receiver.
#[derive(Debug)]
pub struct HttpSender {
    url: ReceiverUrl,
    headers: HeaderMap,
    proxy: Option<Proxy>,
    keys: RwLock<Arc<SenderKeys>>,
}

impl HttpSender {
    /// A sender to that URL. `headers`, which [`check_header`] accepts, are added to each request; `agent` is the
    /// User-Agent. `keys` are those of `options`.
    pub fn new(
        url: ReceiverUrl,
        agent: &str,
        headers: &[(String, String)],
        options: &SenderOptions,
        keys: SenderKeys,
    ) -> Self {
        let agent = ("User-Agent".to_owned(), agent.to_owned());
        let all = std::iter::once(&agent).chain(headers);
        let map = all.filter_map(|(name, value)| check_header(name, value).ok()).collect();
        let proxy = options.proxy.clone().zip(keys.proxy.clone()).map(|(options, keys)| Proxy::new(options, keys));
        Self { url, headers: map, proxy, keys: RwLock::new(Arc::new(keys)) }
    }

    /// The configured URL.
    pub fn url(&self) -> &ReceiverUrl {
        &self.url
    }

    /// Replaces the credentials, for later requests.
    pub fn replace(&self, keys: SenderKeys) {
        if let (Some(proxy), Some(keys)) = (&self.proxy, &keys.proxy) {
            proxy.replace(keys.clone());
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Posts a body with these headers besides those of the sender, and waits for the whole answer. The caller limits the
    /// time.
    ///
    /// # Errors
    /// If there is no answer. The lane then has no connection, and the next request opens one.
    pub async fn post(
        &self,
        lane: &mut SenderLane,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
    ) -> Result<PostAnswer, PostError> {
        self.post_watched(lane, headers, body, &mut ()).await
    }

    /// The same, with an observer of the steps to the connection.
    ///
    /// # Errors
    /// As [`HttpSender::post`].
    pub async fn post_watched(
        &self,
        lane: &mut SenderLane,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
        observer: &mut dyn DialObserver,
    ) -> Result<PostAnswer, PostError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let url = lane.redirected.as_ref().unwrap_or(&self.url).clone();
        let is_new = lane.kept.is_none();
        let mut kept = match lane.kept.take().filter(KeptConnection::is_open) {
            Some(kept) => kept,
            None => self.connect(&url, &keys, observer).await?,
        };
        let mut answered = kept.exchange(self.request(&url, &keys, headers, body.clone())?).await;
        // The receiver may close a connection that was idle at the moment in which the request begins.
        if !is_new && matches!(&answered, Err(error) if error.is_unsent) {
            kept = self.connect(&url, &keys, observer).await?;
            answered = kept.exchange(self.request(&url, &keys, headers, body)?).await;
        }
        let answer = answered.map_err(|error| PostError::Broken { host: url.host(), reason: error.reason })?;
        if answer.is_reusable {
            lane.kept = Some(kept);
        }
        Ok(answer.answer)
    }

    async fn connect(
        &self,
        url: &ReceiverUrl,
        keys: &SenderKeys,
        observer: &mut dyn DialObserver,
    ) -> Result<KeptConnection, PostError> {
        let carrier = carrier::connect(url.target(), self.proxy.as_ref(), STEP_TIMEOUT, observer).await?;
        let broken = |reason: String| PostError::Broken { host: url.host(), reason };
        if !url.is_tls() {
            return handshake(carrier).await.map_err(broken);
        }
        let failed = |error| PostError::Tls { host: url.host(), error };
        let settings =
            || TlsError::Settings("the receiver redirects to https, and there is no tls_config.ca_file".into());
        let tls = keys.tls.as_ref().ok_or_else(|| failed(settings()))?;
        let stream = tls.connect(url.target().host(), carrier).await.map_err(failed)?;
        observer.seen(DialEvent::Encrypted { certificate: None });
        handshake(stream).await.map_err(broken)
    }

    fn request(
        &self,
        url: &ReceiverUrl,
        keys: &SenderKeys,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
    ) -> Result<hyper::Request<WholeBody>, PostError> {
        let mut request = hyper::Request::post(url.path()).header(HOST, url.authority());
        if let Some(map) = request.headers_mut() {
            // A login, in whatever header, is for the configured receiver, not for one that it names.
            let is_configured = url.is_same_host(&self.url);
            if is_configured {
                map.extend(self.headers.clone());
            }
            for (name, value) in headers {
                map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            if let Some(authorization) = keys.authorization.as_ref().filter(|_| is_configured) {
                map.insert(AUTHORIZATION, authorization.clone());
            }
        }
        request.body(WholeBody::new(body)).map_err(|error| PostError::Request(error.to_string()))
    }
}

/// Headers that the sender sets itself.
const OWN_HEADERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "x-prometheus-remote-write-version",
    "upgrade",
];

/// Checks a header that is to be added to each request.
///
/// # Errors
/// The reason why it cannot be added. It does not show the value.
pub fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name_of = HeaderName::try_from(name).map_err(|_| format!("{name:?} cannot be the name of a header"))?;
    if OWN_HEADERS.contains(&name_of.as_str()) {
        return Err(format!(
            "the header {name} is set by the sender; a login belongs into basic_auth or authorization"
        ));
    }
    let value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of {name} has characters that a header cannot have"))?;
    Ok((name_of, value))
}

async fn handshake<S>(stream: S) -> Result<KeptConnection, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let opened = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| error.to_string())?;
    Ok(KeptConnection::new(sender, async move { drop(connection.await) }))
}

#[cfg(test)]
mod tests;
