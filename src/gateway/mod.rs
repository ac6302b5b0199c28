//! Layer 3: Pushgateway's API without sockets: requests to store operations to replies, for the HTTP service of a node.
//!
//! A request passes these steps:
//!
//! 1. [`Router::route`] finds the [`Route`] from method and URL alone, before a body is read, or answers at once.
//!    [`path`] reads the grouping key.
//! 2. [`body`] decompresses and parses a pushed body.
//! 3. The node carries out the route.
//! 4. [`HttpReply`], [`query`] and [`pages`] build the answer.
//!
//! Statuses, headers and bodies are those of Pushgateway 1.11, as recorded from it. Deliberate differences have a
//! comment in the code.

mod accept_encoding;
pub mod adding;
pub mod base64url;
pub mod body;
pub mod group_sort;
pub mod groups;
mod hint;
pub mod instant;
pub mod lifetime;
mod media_type;
mod misdirected;
mod oddity;
pub mod pages;
pub mod parameters;
pub mod path;
pub mod query;
mod quote;
pub mod receipt;
pub mod reply;
mod retiring;
pub mod rights;
pub mod route;
pub mod route_config;
mod table;
mod url;

pub use accept_encoding::accepts_gzip;
pub use body::{BodyReader, BodyRules, Headers, PushError};
pub use oddity::PathOddity;
pub use reply::HttpReply;
pub use route::{Route, Router};
pub use route_config::RouteConfig;
