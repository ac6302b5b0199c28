//! Remote write: shown families as the samples that a Prometheus which scrapes them writes to a receiver.
//!
//! # Labels
//!
//! - The labels of a sample are those of its group and its own, `__name__`, and `le` or `quantile`, sorted by their names.
//!   Labels with empty values are left out: a receiver takes `a=""` and no `a` for one series.
//! - `le` and `quantile` are written as Prometheus 3 stores them: `1.0`, not `1`.
//! - External labels are added where a series has no label of that name, or an empty one.
//!
//! # Values
//!
//! A classic histogram is one sample a bucket, with `+Inf` from the count if it lacks that bucket, and `_sum` and `_count`;
//! a summary likewise. All NaN are Prometheus's ordinary NaN, because one NaN ends a series: [`STALE_NAN`]. Negative zero is
//! 0, as in the text format.
//!
//! If native histograms are written, a histogram that is native is one sample of that kind, and its classic buckets are
//! left out: so does a Prometheus that scrapes native histograms. An exemplar is not written.
//!
//! # Messages
//!
//! [`SampleEncoder`] passes the samples of a family to a [`SampleSink`]. [`WriteBatch`] is such a sink: it collects the series
//! of one message, bounded in number and bytes, and can be divided, because receivers refuse a message as a whole. In a
//! message 1.0 each series has the text of its labels, and a [`MetadataMessage`] has the types and help texts; in a
//! message 2.0 all texts stand in one table, and each series has the metadata and the start timestamp.

mod batch;
mod labels;
mod metadata;
mod native;
mod samples;
mod symbols;

#[cfg(test)]
mod tests;

pub use batch::{BatchLimits, MessageForm, MessagePart, WriteBatch};
pub use labels::ExternalLabels;
pub use metadata::MetadataMessage;
pub use native::{WrittenHistogram, native_schema};
pub use samples::{SampleEncoder, SampleSink, samples_len};

/// The value that ends a series (Prometheus's stale marker).
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// The NaN that is an ordinary value.
const ORDINARY_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// The value as a scrape of the text format yields it.
fn scraped_value(value: f64) -> f64 {
    if value.is_nan() {
        ORDINARY_NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}
