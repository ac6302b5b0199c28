//! Ends sessions of a hub: those whose certificate or token does not verify any more, those of a retired edge, and those that shall
//! get the hub's renewed certificate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::closing::{close_refused, close_renewed, close_retired, close_unverified};
use super::hub::HubLinks;
use super::peer::{EdgeCredential, LinkPeer, UNKNOWN_TOKEN};
use super::refusals::RefusalKind;
use crate::session::{Refused, SessionId};

/// The time between two looks for certificates that expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
/// Links that move to a renewed certificate of the hub in a second, at most.
const MOVED_PER_SECOND: usize = 20;

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

    /// Ends every session whose credential does not verify any more: the certificate's authority was removed, it expired or
    /// was revoked; or the token was removed.
    pub fn end_unverified(&self) {
        self.end_failing(|_| true);
    }

    /// Ends every session whose token is none of the edge's any more.
    pub fn end_removed_tokens(&self) {
        self.end_failing(|peer| peer.chain().is_none());
    }

    /// Verifies the credentials of some sessions again, and ends those that fail.
    fn end_failing(&self, is_meant: impl Fn(&LinkPeer) -> bool) {
        self.verifications.fetch_add(1, Ordering::AcqRel);
        let sessions: Vec<(SessionId, LinkPeer)> =
            self.sessions().live.iter().map(|(session, live)| (*session, live.peer.clone())).collect();
        for (session, peer) in sessions.into_iter().filter(|(_, peer)| is_meant(peer)) {
            if let Err(reason) = self.verify(&peer) {
                let (edge, error) = (peer.identity.name.as_str(), &reason.text);
                match peer.chain() {
                    Some(_) => warn!(edge, error, "the edge's certificate does not verify any more: its link ends"),
                    None => warn!(edge, "the edge's token was removed: its link ends"),
                }
                self.end(session, reason);
            }
        }
    }

    /// Ends the sessions of certificates that expire, until the node stops.
    pub async fn end_expired(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EXPIRY_INTERVAL) => {}
            }
            let now = SystemTime::now();
            if self.sessions().live.values().any(|live| live.peer.chain().is_some_and(|chain| chain.not_after < now)) {
                tokio::task::block_in_place(|| self.end_unverified());
            }
        }
    }

    /// Moves all present sessions to connections with the hub's renewed certificate, a few a second: each edge connects
    /// again and resumes. Returns when all were asked to.
    pub async fn move_sessions(self: Arc<Self>, stop: CancellationToken) {
        let mut sessions: Vec<SessionId> = self.sessions().live.keys().copied().collect();
        info!(links = sessions.len() as u64, "the hub's certificate was renewed: its links move to the new one");
        while !sessions.is_empty() {
            for session in sessions.split_off(sessions.len().saturating_sub(MOVED_PER_SECOND)) {
                self.end(session, close_renewed());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    fn end(&self, session: SessionId, reason: Refused) {
        if let Some(live) = self.sessions().live.get(&session) {
            live.end.send_replace(Some(reason));
        }
    }

    /// Takes an edge out of service: ends its session, and refuses it from now on. Returns whether the edge is known.
    pub fn retire(&self, name: &str) -> bool {
        let now_ns = self.clock.wall_ns();
        if self.edges.update_known(name, |edge| edge.retired_ns = now_ns.max(1)).is_none() {
            return false;
        }
        self.edges.record(name, |_| ());
        for live in self.sessions().live.values().filter(|live| live.peer.identity.name.as_str() == name) {
            live.end.send_replace(Some(close_retired()));
        }
        true
    }
}
