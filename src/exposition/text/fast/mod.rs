//! Fast paths of the text parser. This folder may be deleted without a change of behaviour.
//!
//! Most pushes repeat the series of the push before, with other values. [`SameSeriesReader`] reads such a body and makes
//! nothing but values; it gives `None` for every other body, which then goes to [`super::parse()`]. It tries two ways,
//! the faster first:
//!
//! 1. [`template`]: the bytes between the numbers are the same as in an earlier body, so only the numbers are read.
//! 2. [`line_schema`]: each line is compared with the series of the group's schemas.
//!
//! `tests` of [`same_series`] hold both to the parser: the same families, or `None`.

mod line_schema;
mod same_series;
mod template;

pub use same_series::SameSeriesReader;
