//! Protobuf's text form of metric families, as Go's `prototext` prints it (except white space, which `prototext`
//! randomizes).

use prost::Message;

use super::message::{self, Metric};
use super::wire::{FieldReader, WireValue};
use crate::exposition::number;
use crate::model::MetricType;

/// Appends a well-formed `MetricFamily` message and a line feed; on one line if `compact`.
pub(super) fn family(message: &[u8], compact: bool, into: &mut Vec<u8>) {
    let mut printer = Printer { into, compact, depth: 0, is_first: true };
    let mut fields = FieldReader::new(message);
    while let Ok(Some(field)) = fields.next() {
        match (field.number, field.value) {
            (1, WireValue::Bytes(name)) => printer.string("name", name),
            (2, WireValue::Bytes(help)) => printer.string("help", help),
            (3, WireValue::Varint(number)) => {
                let metric_type = MetricType::from_number(number as i32);
                printer.scalar("type", enum_name(metric_type.unwrap_or(MetricType::Counter)));
            }
            (4, WireValue::Bytes(bytes)) => {
                // It was encoded by this module, or decoded when it was pushed.
                let metric = Metric::decode(bytes).unwrap_or_default();
                printer.message("metric", |printer| printer.metric(&metric));
            }
            _ => {}
        }
    }
    into.push(b'\n');
}

/// The name of a type in protobuf, which the query API uses too.
pub(crate) fn enum_name(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Counter => "COUNTER",
        MetricType::Gauge => "GAUGE",
        MetricType::Summary => "SUMMARY",
        MetricType::Untyped => "UNTYPED",
        MetricType::Histogram => "HISTOGRAM",
        MetricType::GaugeHistogram => "GAUGE_HISTOGRAM",
    }
}

struct Printer<'a> {
    into: &'a mut Vec<u8>,
    compact: bool,
    depth: usize,
    is_first: bool,
}

impl Printer<'_> {
    fn field(&mut self, name: &str) {
        if self.compact {
            if !self.is_first {
                self.into.push(b' ');
            }
        } else {
            self.into.resize(self.into.len() + 2 * self.depth, b' ');
        }
        self.is_first = false;
        self.into.extend_from_slice(name.as_bytes());
        self.into.push(b':');
        if !self.compact {
            self.into.push(b' ');
        }
    }

    fn end(&mut self) {
        if !self.compact {
            self.into.push(b'\n');
        }
    }

    fn scalar(&mut self, name: &str, value: impl ToString) {
        self.field(name);
        self.into.extend_from_slice(value.to_string().as_bytes());
        self.end();
    }

    fn optional(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.scalar(name, value);
        }
    }

    fn double(&mut self, name: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        self.field(name);
        match value {
            f64::INFINITY => self.into.extend_from_slice(b"inf"),
            f64::NEG_INFINITY => self.into.extend_from_slice(b"-inf"),
            value if value.is_nan() => self.into.extend_from_slice(b"nan"),
            value => number::print_signed_zero(value, self.into),
        }
        self.end();
    }

    fn string(&mut self, name: &str, value: &[u8]) {
        self.field(name);
        self.into.push(b'"');
        for chunk in value.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => self.into.extend_from_slice(&[b'\\', c as u8]),
                    '\n' => self.into.extend_from_slice(b"\\n"),
                    '\r' => self.into.extend_from_slice(b"\\r"),
                    '\t' => self.into.extend_from_slice(b"\\t"),
                    c if c < ' ' || c == '\x7f' => {
                        self.into.extend_from_slice(format!("\\x{:02x}", c as u32).as_bytes())
                    }
                    c => self.into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for byte in chunk.invalid() {
                self.into.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
            }
        }
        self.into.push(b'"');
        self.end();
    }

    fn message(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        self.field(name);
        self.into.push(b'{');
        self.end();
        self.depth += 1;
        self.is_first = true;
        body(self);
        self.depth -= 1;
        self.is_first = false;
        if !self.compact {
            self.into.resize(self.into.len() + 2 * self.depth, b' ');
        }
        self.into.push(b'}');
        self.end();
    }

    fn metric(&mut self, metric: &Metric) {
        self.labels(&metric.label);
        if let Some(gauge) = &metric.gauge {
            self.message("gauge", |printer| printer.double("value", gauge.value));
        }
        if let Some(counter) = &metric.counter {
            self.message("counter", |printer| {
                printer.double("value", counter.value);
                printer.exemplars("exemplar", counter.exemplar.as_slice());
                printer.timestamp("created_timestamp", counter.created_timestamp.as_ref());
            });
        }
        if let Some(summary) = &metric.summary {
            self.message("summary", |printer| printer.summary(summary));
        }
        if let Some(untyped) = &metric.untyped {
            self.message("untyped", |printer| printer.double("value", untyped.value));
        }
        self.optional("timestamp_ms", metric.timestamp_ms);
        if let Some(histogram) = &metric.histogram {
            self.message("histogram", |printer| printer.histogram(histogram));
        }
    }

    fn summary(&mut self, summary: &message::Summary) {
        self.optional("sample_count", summary.sample_count);
        self.double("sample_sum", summary.sample_sum);
        for quantile in &summary.quantile {
            self.message("quantile", |printer| {
                printer.double("quantile", quantile.quantile);
                printer.double("value", quantile.value);
            });
        }
        self.timestamp("created_timestamp", summary.created_timestamp.as_ref());
    }

    fn histogram(&mut self, histogram: &message::Histogram) {
        self.optional("sample_count", histogram.sample_count);
        self.double("sample_count_float", histogram.sample_count_float);
        self.double("sample_sum", histogram.sample_sum);
        for bucket in &histogram.bucket {
            self.message("bucket", |printer| {
                printer.optional("cumulative_count", bucket.cumulative_count);
                printer.double("cumulative_count_float", bucket.cumulative_count_float);
                printer.double("upper_bound", bucket.upper_bound);
                printer.exemplars("exemplar", bucket.exemplar.as_slice());
            });
        }
        self.timestamp("created_timestamp", histogram.created_timestamp.as_ref());
        self.optional("schema", histogram.schema);
        self.double("zero_threshold", histogram.zero_threshold);
        self.optional("zero_count", histogram.zero_count);
        self.double("zero_count_float", histogram.zero_count_float);
        let sides = [
            ("negative", &histogram.negative_span, &histogram.negative_delta, &histogram.negative_count),
            ("positive", &histogram.positive_span, &histogram.positive_delta, &histogram.positive_count),
        ];
        for (side, spans, deltas, counts) in sides {
            for span in spans {
                self.message(&format!("{side}_span"), |printer| {
                    printer.optional("offset", span.offset);
                    printer.optional("length", span.length);
                });
            }
            for delta in deltas {
                self.scalar(&format!("{side}_delta"), delta);
            }
            for count in counts {
                self.double(&format!("{side}_count"), Some(*count));
            }
        }
        self.exemplars("exemplars", &histogram.exemplars);
    }

    fn exemplars(&mut self, name: &str, exemplars: &[message::Exemplar]) {
        for exemplar in exemplars {
            self.message(name, |printer| {
                printer.labels(&exemplar.label);
                printer.double("value", exemplar.value);
                printer.timestamp("timestamp", exemplar.timestamp.as_ref());
            });
        }
    }

    fn labels(&mut self, labels: &[message::LabelPair]) {
        for label in labels {
            self.message("label", |printer| {
                for (name, text) in [("name", &label.name), ("value", &label.value)] {
                    if let Some(text) = text {
                        printer.string(name, text);
                    }
                }
            });
        }
    }

    fn timestamp(&mut self, name: &str, timestamp: Option<&message::Timestamp>) {
        let Some(timestamp) = timestamp else { return };
        self.message(name, |printer| {
            printer.optional("seconds", Some(timestamp.seconds).filter(|seconds| *seconds != 0));
            printer.optional("nanos", Some(timestamp.nanos).filter(|nanos| *nanos != 0));
        });
    }
}
