//! Certificates over the link's own port: both ends.
//!
//! The subprotocol `pushrelay.enrol.v1` has three WebSocket messages of JSON. The hub sends its authorities; the edge sends
//! a request for a certificate, with the secret of an invitation or, if it showed a certificate, without; the hub sends the
//! certificate or the reason of a refusal. `docs/reference/protocol.md` specifies them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

mod attempts;
pub mod edge;
pub mod hub;
pub mod issuer;

/// The hub's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    /// The authorities of the hub and of its edges, as PEM.
    authorities: String,
}

/// The edge's message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ask {
    /// The secret of the invitation, in base64url; none to renew a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// The request for a certificate (PKCS #10, DER), in base64.
    request: String,
}

impl Ask {
    fn new(secret: Option<String>, request: &[u8]) -> Self {
        Self { secret, request: STANDARD.encode(request) }
    }

    fn request(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.request).ok()
    }
}

/// The hub's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EnrolmentAnswer {
    /// The certificate, as PEM.
    Certificate(String),
    /// The reason of a refusal, for people.
    Refused(String),
}

fn encoded(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("texts are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_reference_has_them() {
        let ask = Ask::new(None, b"abc");
        assert_eq!(encoded(&ask), br#"{"request":"YWJj"}"#);
        assert_eq!(ask.request().unwrap(), b"abc");
        let ask: Ask = serde_json::from_slice(br#"{"secret":"x","request":"!"}"#).unwrap();
        assert_eq!((ask.secret.as_deref(), ask.request()), (Some("x"), None));
        assert_eq!(encoded(&EnrolmentAnswer::Refused("no".into())), br#"{"refused":"no"}"#);
        assert_eq!(encoded(&Offer { authorities: "x".into() }), br#"{"authorities":"x"}"#);
        let page = include_str!("../../../../docs/reference/protocol.md");
        for key in ["\"authorities\"", "\"secret\"", "\"request\"", "\"certificate\"", "\"refused\""] {
            assert!(page.contains(key), "{key}");
        }
    }
}
