//! A running node.

pub mod clock;
pub mod links;
pub mod metrics;
pub mod options;
pub mod summary;
