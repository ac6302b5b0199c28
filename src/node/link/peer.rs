//! The edge at the other end of an incoming connection: by its certificate, or by its token.

use std::time::SystemTime;

use super::hub::HubLinks;
use super::refusals::RefusalKind;
use crate::net::identity::EdgeIdentity;
use crate::net::tls::{PeerChain, TlsPeer};
use crate::net::token::TokenDigest;
use crate::session::Refused;

use super::closing::{close_refused, close_unverified};

/// An edge that showed who it is.
#[derive(Clone, Debug)]
pub struct LinkPeer {
    /// Its name, and the labels of its certificate; a token has none.
    pub identity: EdgeIdentity,
    /// The credential that it showed.
    pub credential: EdgeCredential,
}

/// The credential of an edge.
#[derive(Clone, Debug)]
pub enum EdgeCredential {
    /// A certificate.
    Certificate {
        /// The begin and the end of its validity.
        validity: (SystemTime, SystemTime),
        /// The certificate, to verify it again.
        chain: PeerChain,
    },
    /// A token, of the `[[hub.edge]]` that has its digest.
    Token(TokenDigest),
}

impl From<TlsPeer> for LinkPeer {
    fn from(peer: TlsPeer) -> Self {
        let TlsPeer { identity, validity, chain } = peer;
        Self { identity, credential: EdgeCredential::Certificate { validity, chain } }
    }
}

impl LinkPeer {
    /// The certificate.
    pub fn chain(&self) -> Option<&PeerChain> {
        match &self.credential {
            EdgeCredential::Certificate { chain, .. } => Some(chain),
            EdgeCredential::Token(_) => None,
        }
    }

    /// The begin and the end of validity of its certificate.
    pub fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        match &self.credential {
            EdgeCredential::Certificate { validity, .. } => Some(*validity),
            EdgeCredential::Token(_) => None,
        }
    }
}

/// The text for an edge whose token the hub does not know.
pub(super) const UNKNOWN_TOKEN: &str = "the hub knows no such token: give the edge's [[hub.edge]] its token_sha256, as `pushrelay pki token NAME` prints it, and \
     reload the hub";

impl HubLinks {
    /// Verifies the credential of an edge that was admitted before, by the authorities, the lists and the tokens of now.
    ///
    /// # Errors
    /// The reason with which its session ends, if it does not verify any more; the refusal is counted.
    pub(super) fn verify(&self, peer: &LinkPeer) -> Result<(), Refused> {
        match (&peer.credential, &self.acceptor) {
            (EdgeCredential::Certificate { chain, .. }, Some(acceptor)) => {
                acceptor.verify(chain, SystemTime::now()).map_err(|error| {
                    self.refusals.count(error.certificate_refusal().map(RefusalKind::Certificate));
                    close_unverified(&error)
                })
            }
            (EdgeCredential::Certificate { .. }, None) => Ok(()),
            (EdgeCredential::Token(digest), _) => {
                if self.name_of_token(digest).as_ref() == Some(&peer.identity.name) {
                    return Ok(());
                }
                self.refusals.count(RefusalKind::UnknownToken);
                Err(close_refused(UNKNOWN_TOKEN.into()))
            }
        }
    }
}
