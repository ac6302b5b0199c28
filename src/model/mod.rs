//! Floor 1: what a Pushgateway holds, and the law by which copies of it merge.
//!
//! Read in this order: [`label`] (names and values), [`stamp`] (when a write happened, in which order a node applied
//! it), [`schema`], [`values`] and [`family`] (one metric name: what stays and what changes from push to push), [`build`] (the only
//! way to make a family from what was pushed), [`bytes`] and [`encode`] (a schema as bytes, for disk and link), [`site`]
//! (labels of the data centre joining a group) and [`group`] (the last-writer-wins map and its merge). [`mod@excerpt`] is what
//! messages quote of all these.

pub mod build;
pub mod bytes;
pub mod encode;
pub mod excerpt;
pub mod family;
pub mod group;
pub mod label;
pub mod schema;
pub mod site;
pub mod stamp;
pub mod values;

pub use build::{DuplicateSeries, FamilyBuilder};
pub use bytes::Malformed;
pub use encode::{decode_schema, encode_schema, encoded_len_max};
pub use excerpt::{Excerpt, excerpt, excerpt_lossy, excerpt_up_to};
pub use family::{Family, RawMetrics};
pub use group::{Changes, FamilySource, FamilyWalk, Group, GroupFamily, GroupHeader, PushTime};
pub use label::{Label, LabelSet};
pub use schema::{Digest, MetricType, Num, Schema, Series, SeriesIter, SeriesLayout, ValueLayout};
pub use site::GroupId;
pub use stamp::{Epoch, NodeId, Position, Revision, STAMP_NS_MAX, StoreId, WriteTimestamp};
pub use values::Values;
