//! Type, help and unit of metrics: in messages of their own (version 1.0), and with each series (version 2.0).

use crate::exposition::protobuf::wire::{put_bytes, put_uint};
use crate::model::{Escaping, MetricType, Schema};

/// Metrics of one message, at most, as in Prometheus.
const METRICS_MAX: usize = 2_000;
/// Bytes of a message before compression, about.
const BYTES_MAX: usize = 1 << 20;

/// A message of version 1.0 with the metadata of metrics, which is being filled.
#[derive(Debug)]
pub struct MetadataMessage {
    escaping: Escaping,
    message: Vec<u8>,
    metrics: usize,
    entry: Vec<u8>,
}

impl MetadataMessage {
    /// A message without metrics.
    pub fn new(escaping: Escaping) -> Self {
        Self { escaping, message: Vec::new(), metrics: 0, entry: Vec::new() }
    }

    /// Adds a metric.
    pub fn add(&mut self, schema: &Schema) {
        let entry = &mut self.entry;
        entry.clear();
        // The default, which is left out, is a type that is not known.
        if let Some(number) = type_number(schema.metric_type()) {
            put_uint(1, number, entry);
        }
        put_bytes(2, self.escaping.escape(schema.name()).as_bytes(), entry);
        for (number, text) in [(4, schema.help()), (5, schema.unit())] {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                put_bytes(number, text.as_bytes(), entry);
            }
        }
        put_bytes(3, entry, &mut self.message);
        self.metrics += 1;
    }

    /// Whether it has as many metrics as one message takes.
    pub fn is_full(&self) -> bool {
        self.metrics >= METRICS_MAX || self.message.len() >= BYTES_MAX
    }

    /// The message, not compressed; `None` if it has no metric.
    pub fn finish(self) -> Option<Vec<u8>> {
        (self.metrics > 0).then_some(self.message)
    }
}

/// The number of a type, in both versions. The text format has no gauge histograms, and shows them as histograms.
pub(super) fn type_number(metric_type: MetricType) -> Option<u64> {
    match metric_type {
        MetricType::Counter => Some(1),
        MetricType::Gauge => Some(2),
        MetricType::Histogram | MetricType::GaugeHistogram => Some(3),
        MetricType::Summary => Some(5),
        MetricType::Untyped => None,
    }
}
