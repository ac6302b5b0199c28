//! The request for a link: read by the hub from the head of an HTTP request, and made by the edge.

use std::fmt;

use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::header::{self, HeaderMap};
use tokio_tungstenite::tungstenite::http::{StatusCode, Uri};

use super::purpose::{LinkPurpose, OTHER_SUBPROTOCOL, PATH, SUBPROTOCOL};
use crate::net::address::HostPort;
use crate::net::token::{BearerToken, TokenDigest};

/// The scheme of the `Authorization` header with a token.
const BEARER: &str = "Bearer ";
/// The version of WebSockets (RFC 6455).
const WEBSOCKET_VERSION: &str = "13";

/// The end of a link that an edge asks for.
#[derive(Clone, Copy, Debug)]
pub struct LinkTarget<'a> {
    /// The hub, as configured.
    pub hub: &'a HostPort,
    /// The path of the request.
    pub path: &'a str,
    /// The edge's token, if it has one.
    pub token: Option<&'a BearerToken>,
}

impl<'a> LinkTarget<'a> {
    /// The usual path of a hub, without a token.
    pub fn of(hub: &'a HostPort) -> Self {
        Self { hub, path: PATH, token: None }
    }

    /// The request of an edge.
    pub(super) fn request(&self, purpose: LinkPurpose) -> Result<ClientRequestBuilder, String> {
        let uri = format!("wss://{}{}", self.hub, self.path).parse::<Uri>().map_err(|error| error.to_string())?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(purpose.subprotocol());
        Ok(match self.token {
            Some(token) => request.with_header("Authorization", format!("{BEARER}{}", token.reveal())),
            None => request,
        })
    }
}

/// A request for a link, as the hub reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRequest {
    /// The purpose of the connection.
    pub purpose: LinkPurpose,
    /// The digest of the token that the edge showed.
    pub token: Option<TokenDigest>,
    headers: HeaderMap,
}

/// A request that is none for a link: the status and the text of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLinkRequest {
    /// The HTTP status.
    pub status: u16,
    /// The text.
    pub text: String,
}

impl fmt::Display for NoLinkRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an edge: answered {}, {}", self.status, self.text)
    }
}

impl LinkRequest {
    /// Reads the headers of a request for the path of the link.
    ///
    /// # Errors
    /// If it does not ask for a link.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, NoLinkRequest> {
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let offers = |wanted: &LinkPurpose| {
            let mut offers = offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
            offers.any(|offer| offer.trim() == wanted.subprotocol())
        };
        let Some(purpose) = LinkPurpose::ALL.into_iter().find(offers) else {
            return Err(NoLinkRequest { status: 400, text: format!("{OTHER_SUBPROTOCOL} {SUBPROTOCOL}") });
        };
        let authorization = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER.as_bytes()).then(|| TokenDigest::of(token))
        });
        Ok(Self { purpose, token, headers: headers.clone() })
    }

    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

/// A request to an HTTP server that reads heads and writes answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The request for a link.
    pub link: LinkRequest,
    accept_key: String,
}

impl UpgradeRequest {
    /// Reads the headers of a GET request for the path of the link.
    ///
    /// # Errors
    /// If it asks for no WebSocket, or not for a link.
    pub(in crate::net) fn of(headers: &HeaderMap) -> Result<Self, NoLinkRequest> {
        let has = |name, token: &str| {
            let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        };
        if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
            let text = "edges ask for a WebSocket here, and this request has no \"Connection: Upgrade\" and \"Upgrade: websocket\": \
                        a box in between may have removed them";
            return Err(NoLinkRequest { status: StatusCode::UPGRADE_REQUIRED.as_u16(), text: text.into() });
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
        match key {
            Some(accept_key) if has(header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION) => {
                Ok(Self { link: LinkRequest::of(headers)?, accept_key })
            }
            _ => Err(NoLinkRequest {
                status: 400,
                text: "the request for a WebSocket lacks its key or version 13".into(),
            }),
        }
    }

    /// The headers of the response with status 101.
    pub fn response_headers(&self) -> [(&'static str, &str); 4] {
        [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", &self.accept_key),
            ("sec-websocket-protocol", self.link.purpose.subprotocol()),
        ]
    }
}

/// Whether a path is the one of the link, alone or below a prefix of the box in between.
pub(super) fn is_path(path: &str) -> bool {
    path.ends_with(PATH)
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    use super::*;

    #[test]
    fn an_edges_request_is_read_with_its_token_and_answered() {
        let (hub, token) = ("hub.example.org:443".parse().unwrap(), BearerToken::generate().unwrap());
        let target = LinkTarget { hub: &hub, path: "/a/api/v1/relay", token: Some(&token) };
        let request = target.request(LinkPurpose::Check).unwrap().into_client_request().unwrap();
        assert_eq!(
            (request.uri().path(), &request.headers()["host"]),
            ("/a/api/v1/relay", &"hub.example.org:443".parse().unwrap())
        );
        let mut headers = request.headers().clone();
        headers.insert("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        let read = UpgradeRequest::of(&headers).unwrap();
        assert_eq!((read.link.purpose, read.link.token), (LinkPurpose::Check, Some(token.digest())));
        // The example of RFC 6455.
        assert_eq!(read.response_headers()[2].1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (name, status) in [
            ("upgrade", 426),
            ("connection", 426),
            ("sec-websocket-key", 400),
            ("sec-websocket-version", 400),
            ("sec-websocket-protocol", 400),
        ] {
            let mut less = headers.clone();
            less.remove(name);
            assert_eq!(UpgradeRequest::of(&less).unwrap_err().status, status, "{name}");
        }
        for (value, is_token) in [("bearer x", true), ("Basic x", false), ("Bearer", false)] {
            headers.insert("authorization", value.parse().unwrap());
            assert_eq!(LinkRequest::of(&headers).unwrap().token, is_token.then(|| TokenDigest::of(b"x")), "{value}");
        }
    }
}
