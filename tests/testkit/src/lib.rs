#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! The test support of pushrelay: nodes as processes with certificates and a network between them, an HTTP client, a
//! strict parser of scrapes, a disk that fails, the simulation, the functions of the fuzz targets, and a reader of the
//! source.
//!
//! Tests, benchmarks and fuzz targets share this crate, so that the product has no public item for tests only. Without
//! the feature `product` it needs the standard library alone.

#[cfg(feature = "product")]
pub mod disk;
pub mod folder;
pub mod http;
pub mod line;
pub mod mount;
pub mod node;
pub mod page;
pub mod process;
pub mod protobuf;
#[cfg(feature = "product")]
pub mod remote_write;
#[cfg(feature = "product")]
pub mod simulation;
pub mod site;
pub mod skip;
pub mod source;
#[cfg(feature = "product")]
pub mod targets;
#[cfg(feature = "product")]
pub mod tls;
pub mod wait;

#[cfg(feature = "product")]
pub use disk::SimulatedDisk;
pub use folder::Folder;
pub use http::Reply;
pub use line::Line;
pub use node::Node;
pub use page::Page;
pub use process::Process;
#[cfg(feature = "product")]
pub use pushrelay;
pub use site::Site;
pub use skip::skip;
pub use wait::eventually;
