#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! pushrelay: the Prometheus Pushgateway API behind firewalls, and one scrape for all of it.
//!
//! The rooms in reading order, floor by floor; a floor imports only the floors below it (`docs/architecture.md`).

// Floor 1
pub mod compression;
pub mod model;
// Floor 2
pub mod exposition;
pub mod store;
pub mod wire;
// Floor 3
pub mod gateway;
pub mod session;
// Floor 4
pub mod net;
pub mod storage;
// Floor 5
pub mod node;
// Floor 6
pub mod cli;
pub mod config;
