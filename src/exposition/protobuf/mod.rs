//! The protobuf format: `io.prometheus.client.MetricFamily` messages, each after its length.

mod lenient;
pub mod message;
mod parse;
mod parts;
mod print;
mod render;
pub(super) mod wire;

#[cfg(test)]
mod tests;

pub use parse::{ProtobufError, parse};
pub use parts::is_raw_metric;
pub(crate) use print::enum_name;
pub use render::ProtobufRenderer;
