//! The edge at the other end of an incoming connection: by its certificate, or by its token.

use std::time::SystemTime;

use crate::net::identity::EdgeIdentity;
use crate::net::tls::{PeerChain, TlsPeer};
use crate::net::token::TokenDigest;

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
