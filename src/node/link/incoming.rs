//! Incoming connections of edges, as their handshakes leave them.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::peer::LinkPeer;
use crate::net::counted::Counted;
use crate::net::failures::FailureKind;
use crate::net::tls::{self, MaybeEncrypted};
use crate::net::websocket::{self, LinkPurpose, WebSocket};

/// The stream below the WebSocket of an edge.
pub(super) type EdgeStream = MaybeEncrypted<Counted<TcpStream>>;

/// An incoming connection after its handshakes.
pub(super) struct Handshaken<S> {
    pub socket: WebSocket<S>,
    /// The edge. Without one the connection can only be for an enrolment.
    pub peer: Option<LinkPeer>,
    pub purpose: LinkPurpose,
    /// The address from which it comes.
    pub address: SocketAddr,
}

/// An incoming connection whose handshakes failed.
pub(super) struct FailedIncoming {
    pub kind: FailureKind,
    pub reason: String,
    /// The name in a certificate that was refused.
    pub claimed_name: Option<String>,
    pub rest: RestOfHandshake,
}

impl FailedIncoming {
    pub fn answered(kind: FailureKind, reason: String) -> Self {
        Self { kind, reason, claimed_name: None, rest: RestOfHandshake::Nothing }
    }
}

/// The part of a failed handshake from which the edge learns the reason.
pub(super) enum RestOfHandshake {
    /// The edge must have time to read the alert.
    Alert(Counted<TcpStream>),
    /// The edge's request is to be answered with the reason.
    Refusal(Box<tls::Stream<Counted<TcpStream>>>),
    /// The edge was answered.
    Nothing,
}

impl RestOfHandshake {
    pub async fn end(self, reason: &str) {
        match self {
            Self::Alert(stream) => tls::linger(stream).await,
            Self::Refusal(stream) => websocket::refuse(stream, reason).await,
            Self::Nothing => {}
        }
    }
}
