//! Layer 3: the link's sessions as pure state machines. `docs/reference/protocol.md` states their invariants.
//!
//! A driver owns the socket, the clock and the store. It passes frames and results in as [`Event`]s and performs the
//! [`SessionAction`]s that come out; [`Connection`] says in which order. The node (`node/link/driver.rs`) and the
//! simulation (`tests/simulation`) drive the same [`Connection`].
//!
//! Read in this order: [`event`] (inputs and outputs), [`resume`] (may two stores resume?), `sending` and `receiving` (one
//! direction each), `pace` (when updates go), `open` (the session after the handshake), `edge` and `hub` (the handshakes),
//! [`endpoint`] (the rules of every state), [`connection`] (frames around an endpoint), [`offset`] (the difference of two
//! clocks), [`lag`] (the age of changes that wait), [`admission`] (the sessions of a hub) and [`upstream`] (detection of
//! loops).

pub mod admission;
pub mod connection;
mod edge;
pub mod endpoint;
pub mod event;
mod fault;
mod hub;
pub mod lag;
pub mod offset;
mod open;
mod pace;
mod receiving;
pub mod resume;
mod sending;
#[cfg(test)]
mod tests;
pub mod upstream;

pub use admission::{Admission, AdmitDecision, AdmittedSession, SessionId};
pub use connection::{Connection, DEFLATE_LEVEL, FrameEncoder};
pub use edge::EdgeConfig;
pub use endpoint::Endpoint;
pub use event::{
    Admitted, BATCH_BYTES_MAX, Batch, Closed, CommitId, Config, Established, Event, HubConfig, OriginFilter, PROGRESS_NS,
    Refused, SessionAction, SessionEvent, SessionTime,
};
pub use lag::Lag;
pub use open::{HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, MESSAGE_BYTES_MIN};
pub use upstream::UpstreamStores;
