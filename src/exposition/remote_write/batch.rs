//! The series of one `WriteRequest` message, version 1.0.

use std::ops::Range;

use super::samples::SampleSink;
use crate::exposition::protobuf::wire::{bytes_len, put_double, put_length, put_uint, varint_len};

/// The size at which a message is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Samples.
    pub samples_max: usize,
    /// Bytes before compression. One series may cross it.
    pub bytes_max: usize,
}

/// Series of one message, each with one sample of one time.
#[derive(Debug)]
pub struct WriteBatch {
    timestamp_ms: i64,
    limits: BatchLimits,
    body: Vec<u8>,
    /// The end of each series in `body`.
    ends: Vec<u32>,
    /// Samples that did not fit.
    left_out: u64,
    /// The samples are stale markers, whatever their values are.
    is_stale: bool,
}

/// Bytes of one series, with all its buckets, that a batch takes beyond its limit, at most.
const SERIES_BYTES_MAX: usize = 16 << 20;

/// A range of the series of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessagePart(Range<usize>);

impl MessagePart {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no sample.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Both halves; `None` if it has one sample.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.0.start + self.0.len() / 2;
        (self.0.len() > 1).then_some([Self(self.0.start..middle), Self(middle..self.0.end)])
    }
}

impl WriteBatch {
    /// An empty batch of samples of that time, in milliseconds since the Unix epoch.
    pub fn new(timestamp_ms: i64, limits: BatchLimits) -> Self {
        Self { timestamp_ms, limits, body: Vec::new(), ends: Vec::new(), left_out: 0, is_stale: false }
    }

    /// The same for stale markers: whatever values are passed, the samples end their series.
    pub fn of_markers(timestamp_ms: i64, limits: BatchLimits) -> Self {
        Self { is_stale: true, ..Self::new(timestamp_ms, limits) }
    }

    /// Whether a limit is reached.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= self.limits.samples_max || self.body.len() >= self.limits.bytes_max
    }

    /// The number of samples that were left out: a series repeats its labels for each bucket, and one series can have more
    /// than a message takes: 16 MiB beyond the limit of the batch.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of it.
    pub fn whole(&self) -> MessagePart {
        MessagePart(0..self.ends.len())
    }

    /// The message with a part of the series, not compressed.
    pub fn message(&self, part: &MessagePart) -> &[u8] {
        let end = |at: usize| at.checked_sub(1).map_or(0, |at| self.ends[at] as usize);
        &self.body[end(part.0.start)..end(part.0.end)]
    }
}

impl SampleSink for WriteBatch {
    fn sample(&mut self, labels: &[u8], value: f64) {
        if self.body.len().saturating_add(labels.len()) > self.limits.bytes_max.saturating_add(SERIES_BYTES_MAX) {
            self.left_out += 1;
            return;
        }
        let value = if self.is_stale { super::STALE_NAN } else { value };
        // As in Go, a field with its default is left out.
        let value_len = if value.to_bits() == 0 { 0 } else { 1 + size_of::<f64>() };
        let sample_len = value_len + 1 + varint_len(self.timestamp_ms as u64);
        let body = &mut self.body;
        put_length(1, labels.len() + bytes_len(sample_len), body);
        body.extend_from_slice(labels);
        put_length(2, sample_len, body);
        if value_len > 0 {
            put_double(1, value, body);
        }
        put_uint(2, self.timestamp_ms as u64, body);
        self.ends.push(u32::try_from(body.len()).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_series_cannot_grow_a_batch_without_bound() {
        let mut batch = WriteBatch::new(1, BatchLimits { samples_max: 2_000, bytes_max: 1 << 20 });
        let labels = vec![0; 1 << 20];
        for _ in 0..40 {
            batch.sample(&labels, 1.0);
        }
        assert_eq!((batch.whole().len(), batch.left_out()), (16, 24));
        assert!(batch.message(&batch.whole()).len() <= (1 << 20) + SERIES_BYTES_MAX);
    }
}
