//! The handshakes with an edge at a hub's own listener: the PROXY protocol, TLS unless it is off, the request for the link.
//! An edge is known by its certificate, or by a token in the request.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::hub::HubLinks;
use super::incoming::{EdgeStream, FailedIncoming, Handshaken, RestOfHandshake};
use super::peer::{EdgeCredential, LinkPeer, UNKNOWN_TOKEN};
use super::refusals::RefusalKind;
use crate::model::LabelSet;
use crate::net::counted::{Counted, Traffic};
use crate::net::failures::FailureKind;
use crate::net::forwarded;
use crate::net::identity::{EdgeIdentity, EdgeName};
use crate::net::tls::{self, Acceptor, RefusedPeer, TlsPeer};
use crate::net::token::TokenDigest;
use crate::net::websocket::{self, LinkPurpose, LinkRequest, WebSocketError};
use crate::wire::message::PLAIN_BYTES_MAX;

/// How an edge reached the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineSecrecy {
    /// The hub ends TLS.
    Encrypted,
    /// A box in front of the hub ends TLS, or the connection does not leave this host.
    BehindBox,
    /// Everybody in between can read the connection.
    InTheClear,
}

/// The reason to refuse an edge by its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedRequest {
    pub kind: Option<RefusalKind>,
    pub text: String,
}

const NO_CREDENTIALS: &str = "a link needs a certificate or a token, and this end showed none: get a certificate with `pushrelay join`, or set \
     uplink.token_file; a box in between that ends TLS lets no certificate pass";
const TOKEN_IN_THE_CLEAR: &str = "the request came without TLS, and so did its token: everything in between could read it. Make another token, and let \
     the edge use TLS; a box that ends TLS in front of the hub must be in hub.trusted_proxies";
const NEEDS_TLS: &str =
    "this hub takes edges over TLS: the edge has uplink.plaintext, or a box in between took TLS away";

impl HubLinks {
    /// The handshakes with an edge that connected from `peer`; `hop` is the address that a balancer named, or `peer`.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        (peer, hop): (SocketAddr, SocketAddr),
    ) -> Result<(Handshaken<EdgeStream>, Arc<Traffic>), FailedIncoming> {
        let mut first = [0];
        let seen = stream.peek(&mut first).await;
        // An HTTP method begins with a letter, a TLS record with 22.
        let is_plain = matches!(seen, Ok(1..)) && first[0].is_ascii_alphabetic();
        let stream = Counted::new(stream);
        let wire = stream.traffic().clone();
        let handshaken = match &self.acceptor {
            None => self.upgrade(Either::Right(stream), None, self.secrecy(peer), hop).await?,
            Some(_) if is_plain => return Err(self.refuse_plain(stream).await),
            Some(acceptor) => {
                let (stream, certified) = self.encrypted(acceptor, stream).await?;
                self.upgrade(Either::Left(stream), certified, LineSecrecy::Encrypted, hop).await?
            }
        };
        Ok((handshaken, wire))
    }

    async fn encrypted(
        &self,
        acceptor: &Acceptor,
        stream: Counted<TcpStream>,
    ) -> Result<(tls::Stream<Counted<TcpStream>>, Option<TlsPeer>), FailedIncoming> {
        let (stream, peer) = acceptor.accept(stream).await.map_err(|refused| {
            let RefusedPeer { error, claimed_name, stream } = refused;
            let (kind, reason) = (error.failure(), error.to_string());
            self.refusals.count(error.certificate_refusal().map(RefusalKind::Certificate));
            FailedIncoming { kind, reason, claimed_name, rest: RestOfHandshake::Alert(stream) }
        })?;
        match peer {
            Ok(peer) => Ok((stream, peer)),
            Err(error) => {
                self.refusals.count(error.certificate_refusal().map(RefusalKind::Certificate));
                let (kind, reason, claimed_name) = (FailureKind::Refused, error.to_string(), None);
                let rest = RestOfHandshake::Refusal(Box::new(stream));
                Err(FailedIncoming { kind, reason, claimed_name, rest })
            }
        }
    }

    /// Answers a request without TLS at a listener that needs it.
    async fn refuse_plain(&self, stream: Counted<TcpStream>) -> FailedIncoming {
        let mut has_token = false;
        let mut is_link = false;
        let refuse = |request: &LinkRequest| {
            (is_link, has_token) = (true, request.token.is_some());
            Err(format!(
                "{NEEDS_TLS}{}",
                if has_token { "; make another token, as this one could be read" } else { "" }
            ))
        };
        let error = match websocket::accept_if(stream, self.bytes_max(), refuse).await {
            Ok(_) => return FailedIncoming::answered(FailureKind::Protocol, NEEDS_TLS.into()),
            Err(error) => error,
        };
        if has_token {
            self.refusals.count(RefusalKind::TokenInTheClear);
        }
        match is_link {
            true => FailedIncoming::answered(FailureKind::Refused, error.to_string()),
            false => FailedIncoming::answered(FailureKind::Protocol, "HTTP without TLS".into()),
        }
    }

    /// The request for a link on an open connection.
    async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        certified: Option<TlsPeer>,
        line: LineSecrecy,
        hop: SocketAddr,
    ) -> Result<Handshaken<S>, FailedIncoming> {
        let is_anonymous = certified.is_none();
        let (mut refused, mut peer, mut address) = (None, None, hop);
        let admit = |request: &LinkRequest| {
            address = self.source(request, hop);
            peer = self.authenticate(request, certified, line).map_err(|refusal| {
                let text = refusal.text.clone();
                refused = Some(refusal);
                text
            })?;
            Ok(())
        };
        let upgraded = websocket::accept_if(stream, self.bytes_max(), admit).await;
        match (upgraded, refused) {
            (Ok((socket, purpose)), _) => Ok(Handshaken { socket, peer, purpose, address }),
            (Err(error), Some(refused)) => {
                self.refusals.count(refused.kind);
                Err(FailedIncoming::answered(FailureKind::Refused, error.to_string()))
            }
            // A check of a balancer, or a client that does not know that it needs a certificate.
            (Err(error @ WebSocketError::BadRequest { .. }), None) if is_anonymous => {
                Err(FailedIncoming::answered(FailureKind::NoCertificate, error.to_string()))
            }
            (Err(error), None) => Err(FailedIncoming::answered(error.failure(), error.to_string())),
        }
    }

    /// Bytes of a message of an edge, at most.
    pub(super) fn bytes_max(&self) -> usize {
        self.session.link.message_bytes_max.max(PLAIN_BYTES_MAX)
    }

    /// How private a connection from `peer` without TLS is.
    pub(super) fn secrecy(&self, peer: SocketAddr) -> LineSecrecy {
        let ip = peer.ip().to_canonical();
        match ip.is_loopback() || self.trusted_proxies.iter().any(|proxy| proxy.has(ip)) {
            true => LineSecrecy::BehindBox,
            false => LineSecrecy::InTheClear,
        }
    }

    /// The address from which a request comes: trusted boxes name it in a header.
    pub(super) fn source(&self, request: &LinkRequest, hop: SocketAddr) -> SocketAddr {
        forwarded::source(hop, &self.trusted_proxies, |name| request.values(name))
    }

    /// The name of the edge that has a token with this digest.
    pub(super) fn name_of_token(&self, digest: &TokenDigest) -> Option<EdgeName> {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.name_of_token(digest).cloned()
    }

    /// The edge of a request, by its token or else by its certificate; `None` if it asks for a certificate without either.
    pub(super) fn authenticate(
        &self,
        request: &LinkRequest,
        certified: Option<TlsPeer>,
        line: LineSecrecy,
    ) -> Result<Option<LinkPeer>, RefusedRequest> {
        let refused = |kind: Option<RefusalKind>, text: &str| Err(RefusedRequest { kind, text: text.into() });
        if request.purpose == LinkPurpose::Enrol {
            return match (&self.enrolment, line) {
                (None, _) => refused(None, request.purpose.refusal()),
                (Some(_), LineSecrecy::Encrypted) => Ok(certified.map(LinkPeer::from)),
                (Some(_), _) => refused(None, "a certificate is issued over TLS with the hub itself only"),
            };
        }
        match (&request.token, certified) {
            (Some(_), _) if line == LineSecrecy::InTheClear => {
                refused(Some(RefusalKind::TokenInTheClear), TOKEN_IN_THE_CLEAR)
            }
            (Some(digest), _) => match self.name_of_token(digest) {
                Some(name) => {
                    let identity = EdgeIdentity { name, labels: LabelSet::default() };
                    Ok(Some(LinkPeer { identity, credential: EdgeCredential::Token(*digest) }))
                }
                None => refused(Some(RefusalKind::UnknownToken), UNKNOWN_TOKEN),
            },
            (None, Some(peer)) => Ok(Some(peer.into())),
            (None, None) => refused(Some(RefusalKind::NoCredentials), NO_CREDENTIALS),
        }
    }
}
