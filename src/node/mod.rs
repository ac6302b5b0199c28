//! Layer 5: a running node, assembled from the layers below for the command line.
//!
//! [`lifecycle`] starts a node from its [`options`], runs it and stops it, and `reload` replaces some of them meanwhile.
//! [`threads`] are the threads that its tasks run on, and `descriptors` bounds connections by the open files that the
//! system allows. [`commit`] makes writes durable and publishes them. `expiry` deletes groups
//! whose lifetime has ended, and `held_back` logs which sites have metrics that are not shown. [`http`] serves the Pushgateway API, scrapes and pages, and [`link`] runs the ends of links.
//! [`metrics`], [`summary`], [`certificates`], [`clock`], [`health`] and [`error`] are what their names say.

pub mod certificates;
pub mod clock;
pub mod commit;
mod descriptors;
pub mod error;
mod expiry;
pub mod health;
mod held_back;
pub mod http;
pub mod lifecycle;
pub mod link;
pub mod metrics;
mod open_store;
pub mod options;
pub mod random;
mod reload;
pub mod remote_write;
pub mod summary;
pub mod threads;

pub use error::StartError;
pub use lifecycle::Node;
