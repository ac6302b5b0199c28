//! Floor 3: Pushgateway requests → store operations → replies, free of sockets.
//!
//! A request's way: [`Router::route`] decides from method and URL alone, before a body is read, what is asked
//! ([`Route`]), or answers at once; [`path`] reads the grouping key; [`body`] decodes and parses what was pushed. The node
//! carries the route out, and [`HttpReply`], [`query`] and [`pages`] say what came of it.
//!
//! Statuses, headers and bodies are those of Pushgateway 1.11, recorded from the real one; where it is broken and ours
//! is right instead, the place says so.

mod accept_encoding;
pub mod base64url;
pub mod body;
pub mod instant;
mod media_type;
pub mod pages;
pub mod path;
pub mod query;
mod quote;
pub mod reply;
pub mod route;
pub mod route_config;
mod table;
mod url;

pub use accept_encoding::accepts_gzip;
pub use body::{BodyReader, BodyRules, Headers, PushError};
pub use reply::HttpReply;
pub use route::{Route, Router};
pub use route_config::RouteConfig;
