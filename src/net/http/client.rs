//! A client of a node's HTTP API, for the command line: one connection a request, HTTP/1.1.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::whole_body::WholeBody;
use crate::net::tls::AnonymousConnector;
use crate::net::tls::TlsError;

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an answer. A delete of a million groups takes a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// The type of a body.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The reasons for which a node gives no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The URL cannot be used.
    #[error(
        "{0:?} is no URL of a node: write http://HOST:PORT or https://HOST:PORT, with the prefix of the node if it has one"
    )]
    Url(String),
    /// The URL has a user, and perhaps a password, which the message must not show.
    #[error(
        "the URL of the node has a user or password: write the name into --user, and the password into a file for \
         --password-file"
    )]
    UrlUser,
    /// TLS needs an authority.
    #[error("https needs --ca-file: the certificate of the authority that signed the node's certificate")]
    NoAuthority,
    /// The name, password or token has characters that a header cannot have.
    #[error("the password cannot be sent: it has characters that a header cannot have")]
    Password,
    /// The node cannot be reached.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Host and port.
        address: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The TLS handshake failed, or the authority's file cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The node disconnected, or sent no HTTP.
    #[error("no answer from {address}: {reason}")]
    Http {
        /// Host and port.
        address: String,
        /// The reason.
        reason: String,
    },
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// The address of a node, and how to speak to it.
pub struct Client {
    host: String,
    port: u16,
    /// The host as it stands in the URL, with its port if there is one.
    authority: String,
    /// The prefix of all paths, without a slash at its end.
    prefix: String,
    tls: Option<AnonymousConnector>,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the node at that URL. `ca_file` has the authority of the node's certificate, `user` is a name and a
    /// password.
    ///
    /// # Errors
    /// The URL, the file or the password cannot be used.
    pub fn new(url: &str, ca_file: Option<&Path>, user: Option<(&str, &str)>) -> Result<Self, ClientError> {
        if url.contains('@') {
            return Err(ClientError::UrlUser);
        }
        let bad = || ClientError::Url(url.to_owned());
        let uri: hyper::Uri = url.parse().map_err(|_| bad())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(bad());
        }
        let tls = match (is_tls, ca_file) {
            (false, _) => None,
            (true, Some(file)) => Some(AnonymousConnector::for_gateways(file)?),
            (true, None) => return Err(ClientError::NoAuthority),
        };
        let basic = user.map(|(name, password)| format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))));
        let authorization = basic.map(|text| HeaderValue::try_from(text).map_err(|_| ClientError::Password));
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls,
            authorization: authorization.transpose()?,
        })
    }

    /// The client with a bearer token.
    ///
    /// # Errors
    /// The token has characters that a header cannot have.
    pub fn with_token(self, token: &str) -> Result<Self, ClientError> {
        let authorization = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::Password)?;
        Ok(Self { authorization: Some(authorization), ..self })
    }

    /// Sends a request to that path below the prefix, and waits for the whole answer. A body that is not empty is in the
    /// text format.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn request(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let address = (&*self.host, self.port);
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {} s", CONNECT_TIMEOUT.as_secs()));
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(late()));
        let stream = connected.map_err(|error| ClientError::Connect { address: self.authority.clone(), error })?;
        match &self.tls {
            None => self.exchange(stream, method, path, body).await,
            Some(tls) => {
                let handshake = timeout(CONNECT_TIMEOUT, tls.connect(&self.host, stream));
                let stream = handshake.await.unwrap_or_else(|_| Err(TlsError::Handshake(late())))?;
                self.exchange(stream, method, path, body).await
            }
        }
    }

    fn failure(&self, reason: impl fmt::Display) -> ClientError {
        ClientError::Http { address: self.authority.clone(), reason: reason.to_string() }
    }

    async fn exchange<S>(&self, stream: S, method: &str, path: &str, body: Bytes) -> Result<Answer, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let answered = async {
            let handshake = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.map_err(|error| self.failure(error))?;
            let request = hyper::Request::builder().method(method).uri(format!("{}{path}", self.prefix));
            let request = request.header(HOST, &self.authority);
            let request = match &self.authorization {
                Some(authorization) => request.header(AUTHORIZATION, authorization),
                None => request,
            };
            let request = match body.is_empty() {
                true => request,
                false => request.header(CONTENT_TYPE, TEXT),
            };
            let request = request.body(WholeBody::new(body)).map_err(|error| self.failure(error))?;
            let answer = async {
                let response = sender.send_request(request).await.map_err(|error| self.failure(error))?;
                let status = response.status().as_u16();
                let mut incoming = response.into_body();
                let mut body = Vec::new();
                while let Some(frame) =
                    std::future::poll_fn(|cx| std::pin::Pin::new(&mut incoming).poll_frame(cx)).await
                {
                    let frame = frame.map_err(|error| self.failure(error))?;
                    body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                    if body.len() > ANSWER_BYTES_MAX {
                        return Err(self.failure("the answer is too large"));
                    }
                }
                Ok(Answer { status, body })
            };
            tokio::pin!(answer);
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                ended = connection => if let Err(error) = ended { return Err(self.failure(error)) },
            }
            // The connection has ended, and with it all of the answer has arrived.
            answer.await
        };
        timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| Err(self.failure("it took too long")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let client = |url: &str| Client::new(url, None, None).map(|client| (client.host, client.port, client.prefix));
        let read = |host: &str, port: u16, prefix: &str| (host.to_owned(), port, prefix.to_owned());
        assert_eq!(client("http://hub:9091").unwrap(), read("hub", 9091, ""));
        assert_eq!(client("http://[::1]:9091/pg/").unwrap(), read("::1", 9091, "/pg"));
        assert_eq!(client("http://hub/").unwrap(), read("hub", 80, ""));
        for bad in ["", "hub:9091", "hub", "ftp://hub", "http://", "http://hub/?x=1", "/metrics"] {
            assert!(matches!(client(bad), Err(ClientError::Url(_))), "{bad}");
        }
        for with_user in ["http://u:secret@hub", "u:secret@hub"] {
            let error = client(with_user).unwrap_err();
            assert!(matches!(error, ClientError::UrlUser) && !error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(client("https://hub"), Err(ClientError::NoAuthority)));
    }
}
