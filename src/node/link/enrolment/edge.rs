//! The edge's end: asks a hub for a certificate.

use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{Ask, EnrolmentAnswer, Offer, encoded};
use crate::net::authority::{AuthorityError, EdgeKey};
use crate::net::invitation::InvitationSecret;
use crate::net::tls::{Authorities, TlsError};
use crate::net::websocket::{WebSocket, WebSocketError};

/// The time for each answer of the hub.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The reasons for which an edge gets no certificate.
#[derive(Debug, Error)]
pub enum EnrolmentFailure {
    /// The hub refuses.
    #[error("the hub issues no certificate: {0}")]
    Refused(String),
    /// The hub is not the one of the invitation.
    #[error(
        "the hub is not the one of the invitation, or something in between ends TLS: {0}; nothing secret was sent to it"
    )]
    OtherHub(TlsError),
    /// The line broke.
    #[error("the line broke: {0}")]
    Lost(WebSocketError),
    /// The hub closed the connection.
    #[error("the hub, or something before it, closed the connection and gave no reason: look at the hub's log")]
    Closed,
    /// No answer arrived in time.
    #[error("no answer arrived within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// The answer cannot be used.
    #[error("the hub's answer cannot be used: {0}")]
    BadAnswer(String),
    /// The request for a certificate could not be made.
    #[error(transparent)]
    Request(#[from] AuthorityError),
}

/// A certificate from the hub, and the authorities of the hub.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// The authorities.
    pub authorities: Authorities,
}

/// Asks the hub at the other end for a certificate for `key`: with an invitation, or by the certificate that this end
/// showed. `verify` says whether the hub is the right one, by its authorities, before anything is sent.
///
/// # Errors
/// If it is not, or it issues none.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocket<S>,
    secret: Option<&InvitationSecret>,
    key: &EdgeKey,
    verify: impl FnOnce(&Authorities) -> Result<(), TlsError>,
) -> Result<Granted, EnrolmentFailure> {
    let Offer { authorities } = match received(&mut socket).await? {
        HubMessage::Offer(offer) => offer,
        HubMessage::EnrolmentAnswer(EnrolmentAnswer::Refused(reason)) => return Err(EnrolmentFailure::Refused(reason)),
        HubMessage::EnrolmentAnswer(EnrolmentAnswer::Certificate(_)) => {
            return Err(EnrolmentFailure::BadAnswer("it came too early".into()));
        }
    };
    let source = Path::new("the hub's answer");
    let authorities =
        Authorities::from_pem(authorities, source).map_err(|error| EnrolmentFailure::BadAnswer(error.to_string()))?;
    verify(&authorities).map_err(EnrolmentFailure::OtherHub)?;
    let ask = Ask::new(secret.map(InvitationSecret::to_base64), &key.request()?);
    timeout(ANSWER_TIMEOUT, socket.sender.send(encoded(&ask)))
        .await
        .map_err(|_| EnrolmentFailure::TimedOut)?
        .map_err(EnrolmentFailure::Lost)?;
    let answer = received(&mut socket).await?;
    // The hub may be gone already.
    let _ = timeout(ANSWER_TIMEOUT, socket.sender.close()).await;
    match answer {
        HubMessage::EnrolmentAnswer(EnrolmentAnswer::Certificate(certificate_pem)) => {
            Ok(Granted { certificate_pem, authorities })
        }
        HubMessage::EnrolmentAnswer(EnrolmentAnswer::Refused(reason)) => Err(EnrolmentFailure::Refused(reason)),
        HubMessage::Offer(_) => Err(EnrolmentFailure::BadAnswer("it is another one than was asked for".into())),
    }
}

/// A message of the hub.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum HubMessage {
    Offer(Offer),
    EnrolmentAnswer(EnrolmentAnswer),
}

async fn received<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocket<S>,
) -> Result<HubMessage, EnrolmentFailure> {
    let frame = timeout(ANSWER_TIMEOUT, socket.receiver.receive()).await.map_err(|_| EnrolmentFailure::TimedOut)?;
    let frame = frame.map_err(EnrolmentFailure::Lost)?.ok_or(EnrolmentFailure::Closed)?;
    serde_json::from_slice(&frame).map_err(|error| EnrolmentFailure::BadAnswer(error.to_string()))
}
