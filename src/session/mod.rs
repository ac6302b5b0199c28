//! Floor 3: both ends of the link as pure state machines (`docs/reference/protocol.md` states their laws).
//!
//! An end is told of [`Event`]s and asks for [`SessionAction`]s; it reads no clock, opens no socket and waits for nothing. The
//! driver decodes messages, performs the actions in their order, and calls [`Edge::handle`] or [`Hub::handle`] with
//! [`Event::Tick`] when [`Edge::next_timeout`] has come.
//!
//! Read in this order: [`event`] (what goes in and out), [`resume`] (may two stores go on where they were), `sending`
//! and `receiving` (one direction each), `pace` (when updates go), `peer` (what both ends do once they know each other),
//! [`edge`] and [`hub`] (the handshakes), [`offset`] (whose clock is right), [`lag`] (what waits, since when) and
//! [`admission`] (which sessions a hub has).

pub mod admission;
pub mod edge;
pub mod event;
pub mod hub;
pub mod lag;
pub mod offset;
mod pace;
mod peer;
mod receiving;
pub mod resume;
mod sending;
#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmitDecision, AdmittedSession, SessionId};
pub use edge::{Edge, EdgeConfig};
pub use event::{
    Admitted, Batch, Closed, CommitId, Config, Established, Event, HubConfig, OriginFilter, Refused, SessionAction,
    SessionTime,
};
pub use hub::Hub;
pub use lag::Lag;
pub use peer::{HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, MESSAGE_BYTES_MIN};
