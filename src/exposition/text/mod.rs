//! The text format, version 0.0.4.

mod collect;
mod cursor;
mod known;
mod parse;
mod render;
mod sample;
mod template;

#[cfg(test)]
mod tests;

pub use known::SameSeriesReader;
pub use parse::{TextError, parse};
pub use render::TextRenderer;
