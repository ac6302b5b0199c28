//! A running node.

pub mod clock;
pub mod metrics;
pub mod summary;
