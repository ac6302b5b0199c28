//! The text format, version 0.0.4.

mod collect;
mod cursor;
mod parse;
mod render;

pub use parse::{ParseError, parse};
pub use render::Renderer;
