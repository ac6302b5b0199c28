//! HTTP's `CONNECT` (RFC 9110, section 9.3.6), as real proxies answer it.
//!
//! The request always has `Host`: Apache refuses it otherwise. Nothing is sent before the whole head of a 2xx answer was
//! read: privoxy loses what comes before. The answer may be HTTP/1.0 and have any reason phrase. The body of a refusal is
//! read up to a bound, for its words; then the connection is dropped. hyper's tunnel keeps neither status nor body, so
//! this is written by hand, on the parser that hyper uses.

use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::{ProxyError, ProxyRefusal};
use super::login::{ProxyLogin, Secret};
use super::words::{in_one_line, words};
use crate::net::address::HostPort;

/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of an answer, at most.
const HEADERS_MAX: usize = 128;
/// Bytes of a refusal's body that are read.
const BODY_BYTES_MAX: usize = 16 << 10;
/// The time for a refusal's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Characters of a reason phrase or a header that an error shows, at most.
const CHARS_MAX: usize = 100;

/// A header that is added to `CONNECT`. Its value is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectHeader {
    name: String,
    value: Secret,
}

impl fmt::Debug for ConnectHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.name, self.value)
    }
}

/// The reasons for which a header cannot be added to `CONNECT`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectHeaderError {
    /// The name is no name of a header.
    #[error("{0:?} is no name of a header")]
    Name(String),
    /// The value has characters that a header cannot have.
    #[error("the value of {0} has characters that a header cannot have")]
    Value(String),
    /// The header has another source.
    #[error("{0} is not set here: it comes from the hub's address, or from proxy_username and proxy_password_file")]
    Taken(String),
}

impl ConnectHeader {
    /// A header.
    ///
    /// # Errors
    /// If name or value are not valid, or the request has the header anyway.
    pub fn new(name: String, value: String) -> Result<Self, ConnectHeaderError> {
        const TAKEN: [&str; 5] = ["host", "proxy-authorization", "content-length", "transfer-encoding", "connection"];
        let in_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(in_token) {
            return Err(ConnectHeaderError::Name(name));
        }
        if TAKEN.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(ConnectHeaderError::Taken(name));
        }
        if value.chars().any(|c| c != '\t' && c.is_control()) {
            return Err(ConnectHeaderError::Value(name));
        }
        Ok(Self { name, value: Secret::new(value) })
    }
}

/// Asks for a tunnel to `target`; returns the proxy's answer in one line. Afterwards the stream is the tunnel.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &HostPort,
    login: Option<&ProxyLogin>,
    headers: &[ConnectHeader],
) -> Result<String, ProxyError> {
    stream.write_all(request(target, login, headers).as_bytes()).await.map_err(ProxyError::Io)?;
    stream.flush().await.map_err(ProxyError::Io)?;
    let mut received = Vec::new();
    loop {
        let head = read_head(stream, &mut received).await?;
        if (100..200).contains(&head.status) {
            continue;
        }
        let status = format!("{} {}", head.status, head.reason);
        if (200..300).contains(&head.status) {
            // The other end of a tunnel to a hub never speaks first, so bytes behind the head are a page.
            if received.is_empty() && !head.has_page {
                return Ok(in_one_line(&format!("{} {status}", head.version), CHARS_MAX));
            }
            let body = read_body(stream, received, &head).await;
            return Err(ProxyError::Page { status, words: words(&body) });
        }
        let body = read_body(stream, received, &head).await;
        return Err(ProxyError::Refused(Box::new(ProxyRefusal {
            status: head.status,
            reason: head.reason,
            words: words(&body),
            schemes: head.schemes,
            location: head.location,
            target: target.clone(),
            username: login.map(|login| login.username.clone()),
        })));
    }
}

fn request(target: &HostPort, login: Option<&ProxyLogin>, headers: &[ConnectHeader]) -> String {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("user-agent")) {
        request += concat!("User-Agent: pushrelay/", env!("CARGO_PKG_VERSION"), "\r\n");
    }
    if let Some(ProxyLogin { username, password }) = login {
        let pair = STANDARD.encode(format!("{username}:{}", password.reveal()));
        request += &format!("Proxy-Authorization: Basic {pair}\r\n");
    }
    for ConnectHeader { name, value } in headers {
        request += &format!("{name}: {}\r\n", value.reveal());
    }
    request + "\r\n"
}

/// The head of an answer.
#[derive(Debug, Default)]
struct AnswerHead {
    version: &'static str,
    status: u16,
    reason: String,
    schemes: Vec<String>,
    location: Option<String>,
    /// The length of the body, if the head has it.
    body_bytes: Option<usize>,
    /// Whether the head announces a body, which a tunnel does not have.
    has_page: bool,
}

/// Reads up to the end of a head. Bytes that follow it stay in `received`.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, received: &mut Vec<u8>) -> Result<AnswerHead, ProxyError> {
    loop {
        if let Some((head, len)) = parse(received)? {
            received.drain(..len);
            return Ok(head);
        }
        if received.len() >= HEAD_BYTES_MAX {
            return Err(ProxyError::Malformed(format!("its head is longer than {HEAD_BYTES_MAX} bytes")));
        }
        let mut more = [0; 4 << 10];
        let len = stream.read(&mut more).await.map_err(closed)?;
        match len {
            0 if received.is_empty() => return Err(ProxyError::Closed),
            0 => return Err(ProxyError::Malformed("it ends inside its head".into())),
            len => received.extend_from_slice(&more[..len]),
        }
    }
}

fn closed(error: io::Error) -> ProxyError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ProxyError::Closed,
        _ => ProxyError::Io(error),
    }
}

/// The head at the beginning of `bytes`, with its length; `None` if it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(AnswerHead, usize)>, ProxyError> {
    const BEGIN: &[u8] = b"HTTP/";
    let begin = &bytes[..bytes.len().min(BEGIN.len())];
    if !BEGIN.starts_with(begin) {
        return Err(ProxyError::NotHttp(match begin {
            [21 | 22, 3, ..] => "it speaks TLS; write https:// into uplink.proxy_url",
            [0 | 5, ..] => "it seems to speak SOCKS; write socks5h:// into uplink.proxy_url",
            _ => "is that the port of an HTTP proxy?",
        }));
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config.ignore_invalid_headers_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
    let parsed = config.parse_response(&mut response, bytes);
    let httparse::Status::Complete(len) = parsed.map_err(|error| ProxyError::Malformed(error.to_string()))? else {
        return Ok(None);
    };
    let mut head = AnswerHead {
        version: if response.version == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" },
        status: response.code.unwrap_or_default(),
        reason: in_one_line(response.reason.unwrap_or_default(), CHARS_MAX),
        ..AnswerHead::default()
    };
    for header in response.headers {
        let value = String::from_utf8_lossy(header.value);
        match header.name.to_ascii_lowercase().as_str() {
            "proxy-authenticate" => head.schemes.extend(schemes(&value)),
            "location" => head.location = Some(in_one_line(&value, CHARS_MAX)),
            "content-length" => head.body_bytes = value.trim().parse().ok(),
            "content-type" => head.has_page |= value.trim_start().to_ascii_lowercase().starts_with("text/html"),
            // Squid's name of the error.
            "x-squid-error" => head.reason = format!("{}, {}", head.reason, in_one_line(&value, CHARS_MAX)),
            _ => {}
        }
    }
    head.has_page |= head.body_bytes.is_some_and(|bytes| bytes > 0);
    Ok(Some((head, len)))
}

/// The names of the schemes in a challenge: words that are not followed by an equals sign, at the beginning or after a
/// comma.
fn schemes(challenge: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in challenge.split(',') {
        let first = part.split_whitespace().next().unwrap_or_default();
        let is_name = !first.is_empty() && first.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_name && names.len() < 8 {
            names.push(in_one_line(first, CHARS_MAX));
        }
    }
    names
}

/// The body behind a head, or as much of it as arrives in time.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, mut body: Vec<u8>, head: &AnswerHead) -> Vec<u8> {
    let bytes_max = head.body_bytes.unwrap_or(usize::MAX).min(BODY_BYTES_MAX);
    let read = async {
        let mut more = [0; 4 << 10];
        while body.len() < bytes_max {
            match stream.read(&mut more).await {
                Ok(len @ 1..) => body.extend_from_slice(&more[..len]),
                _ => return,
            }
        }
    };
    // A proxy that keeps the connection open and gives no length is read for this long.
    let _ = timeout(BODY_TIMEOUT, read).await;
    body
}
