//! Floor 5: a running node.
//!
//! [`lifecycle`] starts a node from its [`options`], runs it and stops it. [`threads`] are the threads that its tasks run
//! on. [`http`] serves the Pushgateway API, scrapes and pages. [`writer`] commits writes to the store, and [`draft`] applies
//! the changes of peers; [`uplink`] and [`downlink`] are the ends of links, both driven by [`link`]; [`links`] records the
//! status of each link, and `above` which hubs are above this one. [`metrics`], [`summary`], [`certificates`], [`clock`],
//! [`backoff`] and [`error`] are what their names say.

mod above;
pub mod backoff;
pub mod certificates;
pub mod clock;
pub mod downlink;
pub mod draft;
pub mod error;
pub mod http;
pub mod lifecycle;
pub mod link;
pub mod links;
pub mod metrics;
mod open_store;
pub mod options;
pub mod summary;
pub mod threads;
pub mod uplink;
pub mod writer;

pub use error::StartError;
pub use lifecycle::Node;
