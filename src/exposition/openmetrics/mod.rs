//! OpenMetrics text, version 1.0: a strict reader.
//!
//! Pushgateway reads such bodies as the older text format: it refuses the types that only OpenMetrics has, and takes
//! `_total` and `_created` for metrics of their own. With `push.openmetrics = true` a body of the type
//! `application/openmetrics-text`, or with the last line `# EOF`, is read here instead.
//!
//! ```text
//! body      = { line LF } "# EOF" [ LF ]
//! line      = "# HELP " name " " text | "# TYPE " name " " type | "# UNIT " name " " unit | sample
//! sample    = ( name [ labels ] | labels ) " " number [ " " timestamp ] [ " # " labels " " number [ " " timestamp ] ]
//! labels    = "{" [ label { "," label } ] "}"
//! label     = name "=" quoted | quoted         the latter is the metric's name: once, first, without a name before it
//! ```
//!
//! Names are bare or quoted, the latter for names that are not legacy names. There are no other blanks, empty lines or
//! comments. The lines of a family are together, its metadata before its samples; so are the samples of one set of
//! labels. A sample that belongs to no family with metadata is of the type `unknown`.
//!
//! Families become what Prometheus makes of them when it scrapes such a page:
//!
//! | type of `x` | samples | stored as |
//! |---|---|---|
//! | `counter` | `x_total`, `x_created` | counter `x_total` |
//! | `gauge` | `x` | gauge `x` |
//! | `histogram` | `x_bucket`, `x_count`, `x_sum`, `x_created` | histogram `x` |
//! | `gaugehistogram` | `x_bucket`, `x_gcount`, `x_gsum` | gauge histogram `x` |
//! | `summary` | `x`, `x_count`, `x_sum`, `x_created` | summary `x` |
//! | `info` | `x_info` | gauge `x_info` |
//! | `stateset` | `x` | gauge `x` |
//! | `unknown` | `x` | untyped `x` |
//!
//! `_created` becomes the created timestamp (the start time) of its series; exemplars and units stay with theirs. The
//! protobuf page shows them.
//!
//! Two rules of the specification are not checked, because clients do not keep them: numbers in `le` and `quantile` need
//! not be canonical (prom-client writes `le="1"`), and the values of quantiles may be negative.

mod error;
mod family;
mod line;
mod parse;

#[cfg(test)]
mod tests;

pub use error::OpenMetricsError;
pub use parse::parse;
