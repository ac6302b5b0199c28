#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! pushrelay: the Prometheus Pushgateway API behind firewalls, and one scrape for all of it.
//!
//! The modules in reading order, layer by layer; a layer imports only the layers below it (`docs/architecture.md`).

// Layer 1
pub mod compression;
pub mod model;
pub mod selector;
// Layer 2
pub mod exposition;
pub mod store;
pub mod wire;
// Layer 3
pub mod commit;
pub mod gateway;
pub mod session;
// Layer 4
pub mod net;
pub mod storage;
// Layer 5
pub mod node;
// Layer 6
pub mod cli;
pub mod config;
