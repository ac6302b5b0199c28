//! Layer 1: the data model of every other module: groups, families and series, and the rule by which copies of a group
//! merge.
//!
//! Read in this order: [`label`] (names and values), [`stamp`] (write timestamps between nodes, revisions within one),
//! [`schema`], [`values`] and [`family`] (one metric name: the part that stays and the part that changes from push to
//! push), [`build`] (makes a family from pushed series), [`bytes`] and [`encode`] (the encoding of a schema, for disk
//! and link), [`site`] (site labels join a group's labels), [`lifetime`] (how long a group lives after a push),
//! [`group`] (the last-writer-wins map and its merge), [`contribution`] and [`sum`] (groups that add up: contributions,
//! and the sums that are shown of them). [`escaping`] escapes names, and finds names that become one by it, [`digest`]
//! hashes keys and bodies, [`mod@truncated`] truncates texts for messages, and [`budget`] bounds the bytes of many
//! holders together.

pub mod budget;
pub mod build;
pub mod bytes;
pub mod contribution;
pub mod digest;
pub mod encode;
pub mod escaping;
pub mod family;
pub mod group;
pub mod label;
pub mod lifetime;
pub mod schema;
pub mod site;
pub mod stamp;
pub mod sum;
pub mod truncated;
pub mod values;

pub use budget::{ByteBudget, ByteReservation};
pub use build::FamilyBuilder;
pub use bytes::Malformed;
pub use contribution::{Contributor, GaugeRule};
pub use digest::content_digest;
pub use encode::{decode_schema, encode_schema, encoded_len_max};
pub use escaping::{AlikeNames, Escaping, alike_labels, scraped_labels};
pub use family::{Family, RawMetrics};
pub use group::{Changes, FamilySource, FamilyWalk, Group, GroupFamily, GroupHeader, PushTime};
pub use label::{Label, LabelSet};
pub use lifetime::{DURATION_MS_MAX, Lifetime, NotALifetime, duration_ms, duration_text};
pub use schema::{Digest, DuplicateSeries, MetricType, Num, Schema, Series, SeriesIter, SeriesLayout, ValueLayout};
pub use site::GroupId;
pub use stamp::{Epoch, NodeId, Position, Revision, STAMP_NS_MAX, StoreId, WriteTimestamp};
pub use sum::{NativeSum, SumError, SumPart};
pub use truncated::{Truncated, truncated, truncated_lossy, truncated_to};
pub use values::Values;
