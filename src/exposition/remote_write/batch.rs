//! The series of one message, version 1.0 (`prometheus.WriteRequest`) or 2.0 (`io.prometheus.write.v2.Request`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use prost::Message;

use super::metadata::type_number;
use super::native::WrittenHistogram;
use super::samples::SampleSink;
use super::symbols::Symbols;
use crate::exposition::protobuf::wire::{bytes_len, put_bytes, put_double, put_length, put_uint, varint_len};
use crate::model::Schema;

/// The size at which a message is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Samples.
    pub samples_max: usize,
    /// Bytes before compression. One series may cross it.
    pub bytes_max: usize,
}

/// The form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageForm {
    /// Version 1.0: each series has the text of its labels.
    V1,
    /// Version 2.0: labels are numbers of a table of texts.
    V2 {
        /// Whether each series has the type, help and unit of its metric.
        has_metadata: bool,
    },
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
    /// A float sample that is being encoded.
    sample: Vec<u8>,
    /// The samples are stale markers, whatever their values are.
    is_stale: bool,
    /// The parts of a message 2.0.
    second: Option<SecondVersion>,
}

/// The parts that only a message 2.0 has.
#[derive(Debug)]
struct SecondVersion {
    has_metadata: bool,
    symbols: Symbols,
    /// The schema of which `metadata` is.
    schema: Option<Arc<Schema>>,
    /// The metadata field of the next series.
    metadata: Vec<u8>,
    /// When counting of the next series began; 0 if that is not known.
    start_ms: i64,
    /// A series that is being encoded.
    series: Vec<u8>,
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
    pub fn new(form: MessageForm, timestamp_ms: i64, limits: BatchLimits) -> Self {
        let second = match form {
            MessageForm::V1 => None,
            MessageForm::V2 { has_metadata } => Some(SecondVersion {
                has_metadata,
                symbols: Symbols::new(),
                schema: None,
                metadata: Vec::new(),
                start_ms: 0,
                series: Vec::new(),
            }),
        };
        Self {
            timestamp_ms,
            limits,
            body: Vec::new(),
            ends: Vec::new(),
            left_out: 0,
            sample: Vec::new(),
            is_stale: false,
            second,
        }
    }

    /// The same for stale markers: whatever values are passed, the samples end their series.
    pub fn of_markers(form: MessageForm, timestamp_ms: i64, limits: BatchLimits) -> Self {
        Self { is_stale: true, ..Self::new(form, timestamp_ms, limits) }
    }

    /// Whether a limit is reached.
    pub fn is_full(&self) -> bool {
        let symbols = self.second.as_ref().map_or(0, |second| second.symbols.fields().len());
        self.ends.len() >= self.limits.samples_max || self.body.len() + symbols >= self.limits.bytes_max
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
    pub fn message(&self, part: &MessagePart) -> Cow<'_, [u8]> {
        let end = |at: usize| at.checked_sub(1).map_or(0, |at| self.ends[at] as usize);
        let series = &self.body[end(part.0.start)..end(part.0.end)];
        match &self.second {
            None => series.into(),
            Some(second) => [second.symbols.fields(), series].concat().into(),
        }
    }

    /// Adds a series with one sample: the field of the sample is `number`, with this content.
    fn put(&mut self, labels: &[u8], number: u8, sample: &[u8]) {
        let body = &mut self.body;
        match &mut self.second {
            None => {
                // A histogram is field 4, after the exemplars.
                let number = if number == HISTOGRAM { HISTOGRAM_V1 } else { number };
                put_length(1, labels.len() + bytes_len(sample.len()), body);
                body.extend_from_slice(labels);
                put_bytes(number, sample, body);
            }
            Some(second) => {
                let SecondVersion { symbols, metadata, start_ms, series, .. } = second;
                series.clear();
                symbols.put_labels(labels, series);
                let start_len = if *start_ms > 0 { 1 + varint_len(*start_ms as u64) } else { 0 };
                let length = bytes_len(series.len()) + bytes_len(sample.len()) + metadata.len() + start_len;
                put_length(5, length, body);
                put_bytes(1, series, body);
                put_bytes(number, sample, body);
                body.extend_from_slice(metadata);
                // Until 2025 the specification had the start timestamp here, and later in the sample.
                if *start_ms > 0 {
                    put_uint(6, *start_ms as u64, body);
                }
            }
        }
        self.ends.push(u32::try_from(body.len()).unwrap_or(u32::MAX));
    }

    /// When counting of the next series began, if messages of this form say it.
    fn start_ms(&self) -> Option<i64> {
        self.second.as_ref().map(|second| second.start_ms).filter(|start_ms| *start_ms > 0 && !self.is_stale)
    }

    /// Whether a series with such labels still fits; it counts as left out otherwise.
    fn fits(&mut self, labels: &[u8]) -> bool {
        let symbols = self.second.as_ref().map_or(0, |second| second.symbols.fields().len());
        let bytes = self.body.len().saturating_add(symbols).saturating_add(labels.len());
        let fits = bytes <= self.limits.bytes_max.saturating_add(SERIES_BYTES_MAX);
        self.left_out += u64::from(!fits);
        fits
    }
}

/// The field of a float sample in a series.
const SAMPLE: u8 = 2;
/// The field of a histogram in a series 2.0.
const HISTOGRAM: u8 = 3;
/// The field of a histogram in a series 1.0.
const HISTOGRAM_V1: u8 = 4;

impl SampleSink for WriteBatch {
    fn begin(&mut self, schema: &Arc<Schema>) {
        let Some(second) = self.second.as_mut().filter(|second| second.has_metadata) else { return };
        if self.is_stale || second.schema.as_ref().is_some_and(|last| Arc::ptr_eq(last, schema)) {
            return;
        }
        let mut entry = Vec::new();
        if let Some(number) = type_number(schema.metric_type()) {
            put_uint(1, number, &mut entry);
        }
        for (number, text) in [(3, schema.help()), (4, schema.unit())] {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                put_uint(number, u64::from(second.symbols.number(text.as_bytes())), &mut entry);
            }
        }
        second.metadata.clear();
        if !entry.is_empty() {
            put_bytes(5, &entry, &mut second.metadata);
        }
        second.schema = Some(schema.clone());
    }

    fn start(&mut self, start_ms: i64) {
        if let Some(second) = &mut self.second {
            // A receiver may write a zero at that time, which must be before the sample.
            second.start_ms = Some(start_ms).filter(|start| (1..self.timestamp_ms).contains(start)).unwrap_or_default();
        }
    }

    fn sample(&mut self, labels: &[u8], value: f64) {
        if !self.fits(labels) {
            return;
        }
        let value = if self.is_stale { super::STALE_NAN } else { value };
        let mut sample = std::mem::take(&mut self.sample);
        sample.clear();
        // As in Go, a field with its default is left out.
        if value.to_bits() != 0 {
            put_double(1, value, &mut sample);
        }
        put_uint(2, self.timestamp_ms as u64, &mut sample);
        if let Some(start_ms) = self.start_ms() {
            put_uint(3, start_ms as u64, &mut sample);
        }
        self.put(labels, SAMPLE, &sample);
        self.sample = sample;
    }

    fn histogram(&mut self, labels: &[u8], mut histogram: WrittenHistogram) {
        if !self.fits(labels) {
            return;
        }
        histogram.timestamp = self.timestamp_ms;
        histogram.start_timestamp = self.start_ms().unwrap_or_default();
        self.put(labels, HISTOGRAM, &histogram.encode_to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_series_cannot_grow_a_batch_without_bound() {
        for form in [MessageForm::V1, MessageForm::V2 { has_metadata: true }] {
            let mut batch = WriteBatch::new(form, 1, BatchLimits { samples_max: 2_000, bytes_max: 1 << 20 });
            for at in 0..40 {
                let mut label = Vec::new();
                put_bytes(1, b"a", &mut label);
                put_bytes(2, &vec![at; (1 << 20) - 12], &mut label);
                let mut labels = Vec::new();
                put_bytes(1, &label, &mut labels);
                batch.sample(&labels, 1.0);
            }
            let counts = (batch.whole().len(), batch.left_out());
            assert!(counts == (16, 24) || counts == (17, 23), "{counts:?}");
            assert!(batch.message(&batch.whole()).len() <= (1 << 20) + SERIES_BYTES_MAX + (1 << 10));
        }
    }
}
