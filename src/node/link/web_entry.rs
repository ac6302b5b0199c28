//! Links at the gateway's listener: one address, and one `location` of a box in front, for pages, pushes and edges.
//!
//! Edges are known by their tokens here. The session runs on the threads of links; the connection, with its slot, stays
//! with the gateway until the session ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::handshake::LineSecrecy;
use super::hub::HubLinks;
use super::incoming::Handshaken;
use crate::net::counted::Counted;
use crate::net::failures::FailureKind;
use crate::net::http::{Incoming, Response};
use crate::net::websocket::{self, LinkPurpose, UpgradeRequest};

/// The link at the gateway's listener.
pub struct WebEntry {
    /// The path of the link, with the prefix of the routes.
    pub path: String,
    /// The links of the hub.
    pub hub_links: Arc<HubLinks>,
    /// The threads of links.
    pub runtime: Handle,
    /// Cancelled when the gateway stops.
    pub stop: CancellationToken,
}

impl WebEntry {
    /// Answers a request for the path of the link.
    pub fn answer(&self, request: &mut Incoming) -> Response {
        let peer = request.peer();
        if request.method() != "GET" {
            return refusal(405, "use GET").header("allow", "GET");
        }
        let upgrade = match request.link_request() {
            Ok(upgrade) => upgrade,
            Err(error) => {
                self.hub_links.slots.failures().record(peer, FailureKind::Protocol, &error.to_string());
                return refusal(error.status, &error.text);
            }
        };
        let link = &upgrade.link;
        let line = match request.is_encrypted() {
            true => LineSecrecy::Encrypted,
            false => self.hub_links.secrecy(peer),
        };
        // This listener asks nobody for a certificate of edges, so that it issues none.
        let line = if link.purpose == LinkPurpose::Enrol { LineSecrecy::InTheClear } else { line };
        let address = self.hub_links.source(link, peer);
        // Before the token is judged, so that a token that is removed meanwhile is judged again.
        let verifications = self.hub_links.verifications.load(Ordering::Acquire);
        let authenticated = self.hub_links.authenticate(link, None, line);
        let peer = match authenticated {
            Ok(peer) => peer,
            Err(refused) => {
                self.hub_links.refusals.count(refused.kind);
                self.hub_links.slots.failures().record(address, FailureKind::Refused, &refused.text);
                return refusal(403, &refused.text).header(websocket::REFUSED, "1");
            }
        };
        let Some(pending) = request.take_upgrade() else {
            return refusal(426, "edges connect over HTTP/1.1");
        };
        let (purpose, bytes_max) = (link.purpose, self.hub_links.bytes_max());
        let (hub_links, stop) = (self.hub_links.clone(), self.stop.child_token());
        let runtime = self.runtime.clone();
        let session = async move {
            let stream = match pending.stream().await {
                Ok(stream) => Counted::new(stream),
                Err(error) => return debug!(%address, %error, "the connection of an edge failed before its session"),
            };
            let wire = stream.traffic().clone();
            let socket = websocket::adopt(stream, purpose, bytes_max).await;
            let handshaken = Handshaken { socket, peer, purpose, address };
            hub_links.serve_socket(handshaken, wire, verifications, stop).await;
        };
        switching(&upgrade).upgrading(async move {
            // A set, so that the session ends with the connection's task.
            let mut tasks = JoinSet::new();
            tasks.spawn_on(session, &runtime);
            tasks.join_next().await;
        })
    }
}

fn switching(upgrade: &UpgradeRequest) -> Response {
    let headers = upgrade.response_headers().into_iter();
    headers.fold(Response::new(101), |response, (name, value)| response.header(name, value))
}

fn refusal(status: u16, text: &str) -> Response {
    Response::new(status).header("content-type", "text/plain; charset=utf-8").body(format!("{text}\n"))
}
