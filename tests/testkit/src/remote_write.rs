//! Messages of remote write, decoded by prost.

use prost::Message;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<WrittenLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WrittenSample>,
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
}

/// A sample: labels, the bits of the value, and the time in milliseconds.
pub type DecodedSample = (Vec<(String, String)>, u64, i64);

/// The samples of an uncompressed message 1.0. Panics unless labels are sorted and not empty, and each series has one sample.
pub fn decode(message: &[u8]) -> Vec<DecodedSample> {
    let request = WriteRequest::decode(message).unwrap();
    assert_eq!(request.encode_to_vec(), message, "there is nothing else, and defaults are left out");
    let series = request.timeseries.into_iter().map(|series| {
        let labels: Vec<_> = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
        assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels:?}");
        let [sample] = &series.samples[..] else { panic!("one sample a series") };
        (labels, sample.value.to_bits(), sample.timestamp)
    });
    series.collect()
}
