//! The links of a running node: sockets, timers and tasks around the pure endpoints of [`crate::session`].
//!
//! [`driver`] moves one connection at either end. [`edge`] dials a hub and dials again when the link ends; [`hub`] accepts
//! edges and decides which may join. [`status`] is the state of every link as metrics and pages show it,
//! `peer_info` fills in the handshake, and [`backoff`] says when to dial again.

pub mod backoff;
pub mod driver;
pub mod edge;
pub mod hub;
mod peer_info;
pub mod status;
