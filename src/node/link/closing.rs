//! The reasons with which a node ends sessions.

use crate::net::tls::TlsError;
use crate::session::Refused;
use crate::wire::CloseReason;

/// The delay asked of a retired edge.
const RETIRED_RETRY_MS: u64 = 60_000;

/// The reason for a peer whose certificate does not verify any more.
pub(super) fn close_unverified(error: &TlsError) -> Refused {
    Refused { reason: CloseReason::Unauthorized, text: error.to_string(), retry_after_ms: None }
}

/// The reason for an edge that the hub's configuration does not admit any more.
pub(super) fn close_refused(text: String) -> Refused {
    Refused { reason: CloseReason::Unauthorized, text, retry_after_ms: None }
}

/// The reason for an edge that an operator retired.
pub(super) fn close_retired() -> Refused {
    let text = "an operator retired the edge at the hub; forget it there to let it connect again".into();
    Refused { reason: CloseReason::Unauthorized, text, retry_after_ms: Some(RETIRED_RETRY_MS) }
}

/// The reason for an edge that shall get the hub's renewed certificate.
pub(super) fn close_renewed() -> Refused {
    let text = "the hub's certificate was renewed: connect again to get the new one".into();
    Refused { reason: CloseReason::Shutdown, text, retry_after_ms: Some(0) }
}
