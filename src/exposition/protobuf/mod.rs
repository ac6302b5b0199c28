//! The protobuf format: `io.prometheus.client.MetricFamily` messages, each after its length.

pub mod message;
mod parse;
mod print;
mod render;
mod wire;

pub use parse::{ParseError, parse};
pub(crate) use print::enum_name;
pub use render::Renderer;
