//! A request as the handler sees it, and the reading of its body under limits.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body as _;
use hyper::http::request::Parts;
use thiserror::Error;

use super::{ErrorChain, HttpLimits};
use crate::model::{ByteBudget, ByteReservation};

/// Bytes of a refused request that are read and dropped, at most, and the time for it.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// A request whose head has arrived.
#[derive(Debug)]
pub struct Incoming {
    pub(super) parts: Parts,
    pub(super) body: Option<hyper::body::Incoming>,
    pub(super) peer: SocketAddr,
    pub(super) is_encrypted: bool,
    pub(super) certificate: Arc<[String]>,
    pub(super) limits: Arc<HttpLimits>,
}

impl Incoming {
    /// The method as received; standard methods are in upper case.
    pub fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    /// The path, still percent-encoded.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The query after the question mark, still percent-encoded.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// The first header of that name (in lower case), if it exists and is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// The bytes of the first header of that name (in lower case).
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.parts.headers.get(name).map(|value| value.as_bytes())
    }

    /// All headers of that name (in lower case) that are visible ASCII.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// All headers of that name (in lower case) as text: bytes that are no UTF-8 are replaced.
    pub fn headers_lossy(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    /// Host and port as the client names them: of the `Host` header, or with HTTP/2 of `:authority`.
    pub fn authority(&self) -> Option<&str> {
        self.parts.uri.authority().map(|authority| authority.as_str()).or_else(|| self.header("host"))
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it came over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The names of the client's certificate: its common name and subject alternative names. None if it presented no
    /// certificate, or none that the gateway verifies.
    pub fn certificate(&self) -> &Arc<[String]> {
        &self.certificate
    }

    /// Reads and drops the body of a refused request, up to a limit. If the connection closed while the client is still
    /// sending, the client would lose the response.
    pub async fn discard(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        // The client waits for `100 Continue` before it sends the body. Reading would send it.
        if self.parts.headers.contains_key("expect") {
            return;
        }
        let discarding = async {
            let mut bytes = 0;
            while bytes < DISCARDED_BYTES_MAX
                && let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // After the time limit the client gets the response, whatever it has sent.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT.min(self.limits.body_timeout), discarding).await;
    }

    /// Reads the body, of at most `bytes_max` bytes as they arrive. `key` is the option that sets the limit, for the
    /// error text. A second call returns an empty body.
    ///
    /// # Errors
    /// If the body exceeds a limit or the time limit, or the connection fails.
    pub async fn body(&mut self, bytes_max: usize, key: &'static str) -> Result<Body, BodyError> {
        let empty = || Ok(Body { bytes: Bytes::new(), reservation: None });
        let Some(body) = self.body.take() else { return empty() };
        if body.is_end_stream() {
            return empty();
        }
        let (mut body, timeout) = (body, self.limits.body_timeout);
        let reading = read_body(&mut body, bytes_max, key, &self.limits.budget);
        let read = tokio::time::timeout(timeout, reading).await.unwrap_or(Err(BodyError::TimedOut { after: timeout }));
        if let Err(BodyError::TooLarge { .. } | BodyError::Exhausted(_)) = read {
            // The rest of the body is still to be dropped.
            self.body = Some(body);
        }
        read
    }
}

/// A request's body. Its bytes are reserved in [`HttpLimits::budget`] until it is dropped.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    reservation: Option<ByteReservation>,
}

impl Body {
    /// Reserves more bytes along with the body, such as those of its decompressed form.
    ///
    /// # Errors
    /// If the budget has too few bytes left.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reserve(reservation, bytes))
    }
}

fn reserve(reservation: &mut ByteReservation, bytes: u64) -> Result<(), Exhausted> {
    let bytes_max = reservation.budget().bytes_max();
    if reservation.grow(bytes) { Ok(()) } else { Err(Exhausted { bytes_max }) }
}

impl std::ops::Deref for Body {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// All requests together exceed [`HttpLimits::budget`] at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all requests together already hold {bytes_max} bytes (limits.inflight_bytes_max): try again later")]
pub struct Exhausted {
    /// The limit.
    pub bytes_max: u64,
}

/// The reasons for which a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It exceeds the limit, or its `Content-Length` does.
    #[error("the body is larger than {bytes_max} bytes ({key})")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
        /// The option that sets the limit.
        key: &'static str,
    },
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s (limits.body_timeout)", .after.as_secs_f64())]
    TimedOut {
        /// The time limit.
        after: Duration,
    },
    /// All bodies together exceed the budget at the moment.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The client disconnected, or violated the protocol.
    #[error("the body could not be read: {0}")]
    Broken(String),
}

impl BodyError {
    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::TimedOut { .. } => 408,
            Self::Exhausted(_) => 503,
            Self::Broken(_) => 400,
        }
    }
}

async fn read_body(
    body: &mut hyper::body::Incoming,
    bytes_max: usize,
    key: &'static str,
    budget: &ByteBudget,
) -> Result<Body, BodyError> {
    let too_large = BodyError::TooLarge { bytes_max, key };
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large);
    }
    // Bytes are reserved when they arrive, not when they are announced: an announcement costs a hostile client nothing.
    let mut reservation = budget.empty_reservation();
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| BodyError::Broken(ErrorChain(&error).to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        reserve(&mut reservation, data.len() as u64)?;
        if reservation.bytes() > bytes_max as u64 {
            return Err(too_large);
        }
        // Most bodies are one frame, and are passed on without a copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.into() };
    Ok(Body { bytes, reservation: Some(reservation) })
}
