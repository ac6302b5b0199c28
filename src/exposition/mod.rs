//! Text, protobuf and JSON exposition formats, in and out.
//!
//! In: [`text::parse`] and [`protobuf::parse`] make [`RawFamily`]s of a body, borrowing from it; a raw family becomes a
//! [`crate::model::Family`] once the labels of its group are known ([`RawFamily::family`]). Out: [`text::TextRenderer`] and
//! [`protobuf::ProtobufRenderer`] print what a scrape shows, in the format that [`negotiate()`] chose; [`json`] prints what the query
//! API shows.
//!
//! All of it behaves as Pushgateway 1.11 and its parser (prometheus/common, `expfmt`) do, errors included, but where those
//! drop the connection or print a page that cannot be scraped; such places say so.

pub mod detail;
pub mod json;
mod labels;
pub mod limits;
pub mod name;
pub mod native;
pub mod negotiate;
pub mod number;
pub mod protobuf;
pub mod raw;
pub mod text;

pub use limits::{Limit, PushLimits};
pub use name::{Escaping, NameValidation};
pub use negotiate::{Encoding, Format, negotiate};
pub use raw::{PushRefusal, RawFamily, RawLabel};
