//! Messages of remote write, decoded by prost.

use prost::Message;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<WrittenMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<WrittenLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WrittenSample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<DecodedHistogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WrittenLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WrittenSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WrittenMetadata {
    #[prost(int32, tag = "1")]
    metric_type: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// A native histogram of integers, of either version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecodedHistogram {
    /// The number of observations.
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    /// Their sum.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// The resolution.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// The upper bound of the zero bucket.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// The count of the zero bucket.
    #[prost(uint64, optional, tag = "6")]
    pub zero_count: Option<u64>,
    /// Offset and length of each run of positive buckets.
    #[prost(message, repeated, tag = "11")]
    spans: Vec<DecodedSpan>,
    /// The counts of positive buckets, each as the difference to the one before.
    #[prost(sint64, repeated, tag = "12")]
    pub deltas: Vec<i64>,
    /// The time in milliseconds.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

impl DecodedHistogram {
    /// Offset and length of each run of positive buckets.
    pub fn spans(&self) -> Vec<(i32, u32)> {
        self.spans.iter().map(|span| (span.offset, span.length)).collect()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecodedSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, prost::Message)]
struct RequestV2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeriesV2>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    labels: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WrittenSample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<DecodedHistogram>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<MetadataV2>,
    #[prost(int64, tag = "6")]
    created: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetadataV2 {
    #[prost(int32, tag = "1")]
    metric_type: i32,
    #[prost(uint32, tag = "3")]
    help: u32,
    #[prost(uint32, tag = "4")]
    unit: u32,
}

/// The labels of a series, sorted by their names.
pub type DecodedLabels = Vec<(String, String)>;
/// A sample: labels, the bits of the value, and the time in milliseconds.
pub type DecodedSample = (DecodedLabels, u64, i64);

/// Everything that a message has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodedMessage {
    /// Float samples.
    pub samples: Vec<DecodedSample>,
    /// Native histograms.
    pub histograms: Vec<(DecodedLabels, DecodedHistogram)>,
    /// Metadata: number of the type, name (in messages 2.0: of the series), help and unit.
    pub metadata: Vec<(i32, String, String, String)>,
    /// Start timestamps in milliseconds, by the name of the series.
    pub starts: Vec<(String, i64)>,
}

/// The samples of an uncompressed message 1.0 that has nothing else. Panics unless it is well-formed.
pub fn decode(message: &[u8]) -> Vec<DecodedSample> {
    let decoded = decode_message(message);
    assert!(decoded.histograms.is_empty() && decoded.metadata.is_empty(), "there is nothing but samples");
    decoded.samples
}

/// The content of an uncompressed message 1.0. Panics unless labels are sorted and not empty, and each series has one
/// sample.
pub fn decode_message(message: &[u8]) -> DecodedMessage {
    let request = WriteRequest::decode(message).unwrap();
    assert_eq!(request.encode_to_vec(), message, "there is nothing else, and defaults are left out");
    let mut decoded = DecodedMessage::default();
    for series in request.timeseries {
        let labels = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
        decoded.add(labels, &series.samples, series.histograms);
    }
    let metadata = request.metadata.into_iter();
    decoded.metadata = metadata.map(|metric| (metric.metric_type, metric.name, metric.help, metric.unit)).collect();
    decoded
}

/// The same of a message 2.0.
pub fn decode_v2(message: &[u8]) -> DecodedMessage {
    let request = RequestV2::decode(message).unwrap();
    assert_eq!(request.encode_to_vec(), message, "there is nothing else, and defaults are left out");
    assert_eq!(request.symbols.first().map(String::as_str), Some(""), "the first symbol is empty");
    let distinct: std::collections::BTreeSet<_> = request.symbols.iter().collect();
    assert_eq!(distinct.len(), request.symbols.len(), "each symbol is there once");
    let symbol = |number: u32| request.symbols[number as usize].clone();
    let mut decoded = DecodedMessage::default();
    for series in request.timeseries {
        let labels: DecodedLabels = series.labels.chunks(2).map(|pair| (symbol(pair[0]), symbol(pair[1]))).collect();
        let name = labels.iter().find(|label| label.0 == "__name__").unwrap().1.clone();
        if let Some(metadata) = series.metadata {
            let (help, unit) = (symbol(metadata.help), symbol(metadata.unit));
            decoded.metadata.push((metadata.metric_type, name.clone(), help, unit));
        }
        let starts = series.samples.iter().map(|sample| sample.start_timestamp);
        let mut starts = starts.chain(series.histograms.iter().map(|histogram| histogram.start_timestamp));
        assert!(starts.all(|start| start == series.created), "both generations of the specification have it");
        if series.created > 0 {
            decoded.starts.push((name, series.created));
        }
        decoded.add(labels, &series.samples, series.histograms);
    }
    decoded
}

impl DecodedMessage {
    fn add(&mut self, labels: DecodedLabels, samples: &[WrittenSample], histograms: Vec<DecodedHistogram>) {
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
        assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels:?}");
        match (samples, &histograms[..]) {
            ([sample], []) => self.samples.push((labels, sample.value.to_bits(), sample.timestamp)),
            ([], [histogram]) => self.histograms.push((labels, histogram.clone())),
            _ => panic!("{labels:?} has not one sample"),
        }
    }
}
