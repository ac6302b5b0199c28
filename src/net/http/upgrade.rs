//! Requests that turn their connection into another protocol: the link of an edge at the gateway's listener.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{InFlight, Incoming, Response};
use crate::net::websocket::{NoLinkRequest, UpgradeRequest};

/// The work on a connection after its upgrade.
pub(super) type Continuation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection whose response has still to be sent.
#[derive(Debug)]
pub struct PendingUpgrade(OnUpgrade);

/// A connection after the response.
#[derive(Debug)]
pub struct UpgradedStream(TokioIo<Upgraded>);

impl PendingUpgrade {
    /// Waits until the response is sent.
    ///
    /// # Errors
    /// If the connection fails before.
    pub async fn stream(self) -> io::Result<UpgradedStream> {
        Ok(UpgradedStream(TokioIo::new(self.0.await.map_err(io::Error::other)?)))
    }
}

impl AsyncRead for UpgradedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, into)
    }
}

impl AsyncWrite for UpgradedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Incoming {
    /// Reads the request as one for a link.
    ///
    /// # Errors
    /// If it is none.
    pub fn link_request(&self) -> Result<UpgradeRequest, NoLinkRequest> {
        UpgradeRequest::of(&self.parts.headers)
    }

    /// Whether the client asks for another protocol on this connection.
    pub(super) fn asks_for_upgrade(&self) -> bool {
        self.parts.extensions.get::<OnUpgrade>().is_some()
    }

    /// The connection, for a response made with [`Response::upgrading`]; `None` if it cannot be upgraded, as over HTTP/2.
    pub fn take_upgrade(&mut self) -> Option<PendingUpgrade> {
        self.parts.extensions.remove::<OnUpgrade>().map(PendingUpgrade)
    }
}

impl Response {
    /// Lets `continuation` run on the connection once the response is sent. The connection counts as in use until it ends.
    pub fn upgrading(mut self, continuation: impl Future<Output = ()> + Send + 'static) -> Self {
        self.0.body_mut().continuation = Some(Box::pin(continuation));
        self
    }
}

/// The place of the continuation between a response and its connection.
#[derive(Clone, Default)]
pub(super) struct Upgrade(Arc<Mutex<Option<(Continuation, InFlight)>>>);

impl Upgrade {
    pub fn put(&self, continuation: Continuation, in_flight: InFlight) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((continuation, in_flight));
    }

    /// Runs the continuation, if there is one, to its end.
    pub async fn run(self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((continuation, _in_flight)) = taken {
            continuation.await;
        }
    }
}
