//! A response and its body: bytes, or parts that are made while it is sent.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};

use super::InFlight;
use super::upgrade::Continuation;

/// Bytes of a response that hyper gets at once, at most. A response counts as sent when hyper has its last frame.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 10;

/// An HTTP response.
#[derive(Debug)]
pub struct Response(pub(super) hyper::Response<ResponseBody>);

impl Response {
    /// A response with that status, no headers and no body. A number outside 100–999 becomes 500.
    pub fn new(status: u16) -> Self {
        let mut response = hyper::Response::new(ResponseBody::empty());
        *response.status_mut() =
            hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        Self(response)
    }

    /// Adds a header. A name or value that HTTP does not allow is ignored.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_ref()));
        if let (Ok(name), Ok(value)) = pair {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    /// Adds a header unless one of that name is set.
    pub fn header_if_missing(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if self.0.headers().contains_key(name) { self } else { self.header(name, value) }
    }

    /// Sets the body.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.0.body_mut().content = Content::Bytes(bytes.into());
        self
    }

    /// Makes the body a stream of `parts`. If the client takes no bytes for too long, the connection is closed. If a
    /// part fails, the connection is aborted, so that the client notices.
    pub fn parts(mut self, parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        self.0.body_mut().content = Content::Parts(StreamedBody { parts: Box::pin(parts), left: Bytes::new() });
        self
    }

    /// Keeps `guard` until the response is sent or the client disconnects, and drops it then.
    pub fn with_guard(mut self, guard: impl Send + 'static) -> Self {
        self.0.body_mut().guard = Some(Box::new(guard));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }
}

#[derive(Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    Parts(StreamedBody),
    Ended,
}

/// A body that is generated while it is sent, and the rest of its last part that hyper does not have yet.
pub(super) struct StreamedBody {
    parts: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    left: Bytes,
}

impl StreamedBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        while self.left.is_empty() {
            match ready!(self.parts.as_mut().poll_next(cx)) {
                Some(Ok(part)) => self.left = part,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(Ok(frame(&mut self.left))))
    }
}

/// Splits the next frame off the front.
fn frame(left: &mut Bytes) -> Bytes {
    left.split_to(left.len().min(FRAME_BYTES_MAX))
}

impl fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamedBody")
    }
}

/// A response's body in the form that hyper reads. When hyper drops it, the connection is idle again.
pub(super) struct ResponseBody {
    pub content: Content,
    pub in_flight: Option<InFlight>,
    /// Dropped with the body.
    guard: Option<Box<dyn Any + Send>>,
    /// Runs on the connection after the response.
    pub continuation: Option<Continuation>,
}

impl ResponseBody {
    fn empty() -> Self {
        Self { content: Content::Bytes(Bytes::new()), in_flight: None, guard: None, continuation: None }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("content", &self.content).finish_non_exhaustive()
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.content {
            Content::Bytes(bytes) if bytes.is_empty() => None,
            Content::Bytes(bytes) => Some(Ok(Frame::data(frame(bytes)))),
            Content::Parts(made) => ready!(made.poll_next(cx)).map(|frame| frame.map(Frame::data)),
            Content::Ended => None,
        };
        if piece.is_none() {
            self.content = Content::Ended;
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.is_empty(),
            Content::Parts(_) => false,
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Parts(_) => SizeHint::default(),
            Content::Ended => SizeHint::with_exact(0),
        }
    }
}
