//! The hub's end of the conversation.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::issuer::EnrolmentResult;
use super::{EnrolmentAnswer, Offer, encoded};
use crate::net::identity::EdgeIdentity;
use crate::net::websocket::WebSocket;
use crate::node::link::closing::close_retired;
use crate::node::link::hub::HubLinks;
use crate::node::link::peer::LinkPeer;

/// The time for a whole enrolment.
const ENROLMENT_TIMEOUT: Duration = Duration::from_secs(30);

impl HubLinks {
    /// Answers a request for a certificate: of an edge that showed one, or of somebody unknown.
    pub(crate) async fn answer_enrolment<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut socket: WebSocket<S>,
        peer: Option<LinkPeer>,
        address: SocketAddr,
    ) {
        let Some(enrolment) = &self.enrolment else { return };
        let exchange = async {
            let _permit = match &peer {
                Some(_) => enrolment.renewals.acquire().await.ok()?,
                None => enrolment.strangers.try_acquire().ok()?,
            };
            let answer = match tokio::task::block_in_place(|| enrolment.authorities()) {
                Ok(authorities) => {
                    socket.sender.send(encoded(&Offer { authorities })).await.ok()?;
                    let frame = socket.receiver.receive().await.ok()??;
                    tokio::task::block_in_place(|| {
                        enrolment.answer(&frame, peer.as_ref(), address.ip(), |identity| {
                            // The certificate may have expired, or be revoked, since the handshake.
                            peer.as_ref().map_or(Ok(()), |peer| self.verify(peer)).map_err(|reason| reason.text)?;
                            self.may_enrol(identity)
                        })
                    })
                }
                Err(error) => {
                    warn!(error, "the authority's files cannot be used: no certificate was issued");
                    Err((
                        EnrolmentResult::Failed,
                        "the hub cannot issue certificates now: its log has the reason".into(),
                    ))
                }
            };
            let message = match answer {
                Ok((EdgeIdentity { name, labels }, certificate, result)) => {
                    enrolment.count(result);
                    let edge = name.as_str();
                    match result {
                        EnrolmentResult::Renewed => info!(edge, %address, "an edge renewed its certificate"),
                        _ => info!(edge, %address, %labels, "an edge joined: it has a certificate"),
                    }
                    EnrolmentAnswer::Certificate(certificate)
                }
                Err((result, reason)) => {
                    enrolment.count(result);
                    let edge = peer.as_ref().map(|peer| peer.identity.name.as_str());
                    match self.slots.failures().is_new(address, &reason) {
                        true => warn!(edge, %address, reason, "no certificate was issued"),
                        false => debug!(edge, %address, reason, "no certificate was issued, again"),
                    }
                    EnrolmentAnswer::Refused(reason)
                }
            };
            socket.sender.send(encoded(&message)).await.ok()?;
            socket.sender.close().await.ok()?;
            // The edge reads the answer before it ends its side.
            while let Ok(Some(_)) = socket.receiver.receive().await {}
            Some(())
        };
        if !matches!(timeout(ENROLMENT_TIMEOUT, exchange).await, Ok(Some(()))) {
            enrolment.count(EnrolmentResult::Failed);
            debug!(%address, "an enrolment did not end");
        }
    }

    /// Whether an edge may have a certificate.
    ///
    /// # Errors
    /// The reason why not.
    fn may_enrol(&self, identity: &EdgeIdentity) -> Result<(), String> {
        if self.edges.is_retired(identity.name.as_str()) {
            return Err(close_retired().text);
        }
        self.check_name(identity)
    }
}
