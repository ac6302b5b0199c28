//! The text format, version 0.0.4: the parser, its fast paths, and the renderer.

mod collect;
mod cursor;
mod error;
mod fast;
mod parse;
mod render;

#[cfg(test)]
mod tests;

pub use error::TextError;
pub use fast::SameSeriesReader;
pub use parse::parse;
pub use render::TextRenderer;
