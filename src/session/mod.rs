//! Layer 3: the sessions of a link as pure state machines, for the link drivers of a node and for the simulation.
//! `docs/reference/protocol.md` states their invariants.
//!
//! A driver owns the socket, the clock and the store. It passes frames and results in as [`Event`]s and performs the
//! [`SessionAction`]s that come out; [`Connection`] says in which order. The node (`node/link/driver.rs`) and the
//! simulation (`tests/testkit/src/simulation`) drive the same [`Connection`].
//!
//! Read in this order: [`event`] (inputs and outputs), [`resume`] (may two stores resume?), `sending` and `receiving` (one
//! direction each), `pace` (when updates go), `batch_size` (how large they are), `progress` (where a resync begins), `open`
//! (the session after the handshake), `edge` and `hub` (the handshakes), [`endpoint`] (the rules of every state),
//! [`connection`] (frames around an endpoint), [`offset`] (the difference of two clocks), [`lag`] (the age of changes that
//! wait), `health` (the reports in heartbeats), [`joining`] (how edges join a hub) with [`admission`] (one session a name), [`peer_info`] and [`upstream`]
//! (detection of loops), and [`uplink`] (the duties of an edge's node).

pub mod admission;
mod batch_size;
pub mod connection;
mod edge;
pub mod endpoint;
pub mod event;
mod fault;
mod health;
mod hub;
pub mod joining;
pub mod lag;
pub mod offset;
mod open;
mod pace;
pub mod peer_info;
mod progress;
mod receiving;
pub mod resume;
mod sending;
#[cfg(test)]
mod tests;
pub mod uplink;
pub mod upstream;

pub use admission::{Admission, AdmitDecision, AdmittedSession, SessionId};
pub use connection::{Connection, DEFLATE_LEVEL, FrameEncoder};
pub use edge::EdgeConfig;
pub use endpoint::Endpoint;
pub use event::{
    Admitted, BATCH_BYTES_MAX, Batch, Closed, CommitId, Config, Established, Event, HubConfig, OriginFilter,
    PROGRESS_NS, Refused, SessionAction, SessionEvent, SessionTime,
};
pub use joining::{HubSessions, JoinStep, Joining, REPLACE_NS_MAX};
pub use lag::Lag;
pub use open::{HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, MESSAGE_BYTES_MIN, silence_max};
pub use peer_info::NodeName;
pub use progress::PeerProgress;
pub use uplink::{UplinkDuties, UplinkDuty};
pub use upstream::UpstreamStores;
