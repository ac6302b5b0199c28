//! The links of a running node: sockets, timers and tasks around the pure endpoints of [`crate::session`].
//!
//! [`driver`] moves one connection at either end. [`edge`] dials a hub and dials again when the link ends; [`hub`] accepts
//! edges and lets them join by its [`site_rules`], [`refusals`] counts those that may not, and [`ending`] ends their
//! sessions. [`check`] tries a line without a session, and [`enrolment`] gives edges their certificates,
//! which [`renewal`] asks for again. [`status`] is
//! the state of a link as metrics and pages show it, [`edges`] has that of every edge, with its [`trouble`], the
//! changes that are [`missing`] here, its last hour ([`history`], filled by the [`sampler`]) and its [`edge_metrics`], [`roll`] makes that durable, and [`backoff`] says when to dial again.

pub mod backoff;
pub mod check;
mod closing;
pub mod driver;
pub mod edge;
pub mod edge_metrics;
pub mod edges;
pub mod ending;
pub mod enrolment;
mod handshake;
pub mod history;
pub mod hub;
mod incoming;
pub mod missing;
pub mod peer;
pub mod refusals;
pub mod renewal;
pub mod roll;
pub mod sampler;
pub mod site_rules;
pub mod status;
pub mod trouble;
pub mod uplink_credentials;
pub mod verdicts;
pub mod web_entry;
