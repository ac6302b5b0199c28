//! Layer 2: the exposition formats of Prometheus (text, protobuf, JSON): read for pushes, printed for scrapes and queries.
//!
//! - In: [`text::parse`], [`protobuf::parse`] and [`openmetrics::parse`] read a body into [`RawFamily`]s, which borrow
//!   from it. [`RawFamily::family`] makes a [`crate::model::Family`] of one, with the labels of its group.
//! - Out: [`text::TextRenderer`] and [`protobuf::ProtobufRenderer`] print a scrape, in the format that [`negotiate()`]
//!   chooses. [`json`] prints the answers of the query API.
//!
//! Behaviour and error texts are those of Pushgateway 1.11 and its parser (prometheus/common, `expfmt`). Exceptions are
//! inputs for which Pushgateway drops the connection or prints a page that cannot be scraped; comments name them.

pub mod detail;
pub mod histogram_rules;
pub mod json;
mod labels;
pub mod limits;
pub mod name;
pub mod native;
pub mod native_sum;
pub mod negotiate;
pub mod number;
pub mod openmetrics;
pub mod protobuf;
pub mod raw;
pub mod remote_write;
pub mod text;

pub use histogram_rules::{HistogramFault, raw_metric_fault};
pub use limits::{Limit, PushLimits, TimestampRule};
pub use name::{Escaping, NameValidation};
pub use native_sum::{add_native, date_sum};
pub use negotiate::{Encoding, Format, negotiate};
pub use raw::{PushRefusal, RawFamily, RawLabel};
