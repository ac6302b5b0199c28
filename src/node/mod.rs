//! Floor 5: a running node.
//!
//! [`running`] assembles one from its [`options`] and runs it. [`writer`] says who writes to the store, and when; [`service`]
//! answers HTTP requests, [`scrape`] prints pages; [`uplink`] and [`downlink`] are the ends of links, both driven by
//! [`link`], with [`links`] knowing what became of them. [`metrics`], [`summary`], [`clock`] and [`backoff`] are what
//! their names say.

pub mod backoff;
pub mod clock;
pub mod downlink;
pub mod link;
pub mod links;
pub mod metrics;
pub mod options;
pub mod running;
pub mod scrape;
pub mod service;
pub mod summary;
pub mod uplink;
pub mod writer;

pub use running::{Node, StartError};
