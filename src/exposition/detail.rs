//! Parts of a pushed metric that the text format cannot express, for the pages: native buckets, exemplars, created
//! timestamps.

use prost::Message;

use super::native::Native;
use super::protobuf::message::{Exemplar, Metric, Timestamp};
use crate::model::LabelSet;

/// The number of exemplars that are shown of a metric, at most.
const EXEMPLARS_MAX: usize = 16;

/// The parts of a metric that the text format cannot express.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// The native histogram, if the metric is one.
    pub native: Option<Native>,
    /// The exemplars: labels and value.
    pub exemplars: Vec<(LabelSet, f64)>,
    /// The time when counting began, in nanoseconds since the Unix epoch.
    pub created_ns: Option<u64>,
}

impl Detail {
    /// Reads a raw metric (`io.prometheus.client.Metric`). The result is empty if it cannot be decoded.
    pub fn of(raw_metric: &[u8]) -> Self {
        let metric = Metric::decode(raw_metric).unwrap_or_default();
        let (mut exemplars, mut created): (Vec<&Exemplar>, _) = (Vec::new(), None);
        if let Some(counter) = &metric.counter {
            exemplars.extend(&counter.exemplar);
            created = created.or(counter.created_timestamp);
        }
        if let Some(summary) = &metric.summary {
            created = created.or(summary.created_timestamp);
        }
        if let Some(histogram) = &metric.histogram {
            exemplars.extend(histogram.bucket.iter().filter_map(|bucket| bucket.exemplar.as_ref()));
            exemplars.extend(&histogram.exemplars);
            created = created.or(histogram.created_timestamp);
        }
        Self {
            native: metric.histogram.as_deref().and_then(Native::of),
            exemplars: exemplars.into_iter().take(EXEMPLARS_MAX).map(example).collect(),
            created_ns: created.and_then(nanoseconds),
        }
    }
}

fn example(exemplar: &Exemplar) -> (LabelSet, f64) {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let labels = exemplar.label.iter().map(|label| (text(&label.name), text(&label.value)));
    (LabelSet::new(labels), exemplar.value.unwrap_or(0.0))
}

fn nanoseconds(timestamp: Timestamp) -> Option<u64> {
    let seconds = u64::try_from(timestamp.seconds).ok()?.checked_mul(1_000_000_000)?;
    seconds.checked_add(u64::try_from(timestamp.nanos).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::protobuf::message::{Counter, LabelPair};

    #[test]
    fn exemplars_and_created_timestamps_are_read() {
        let label = LabelPair { name: Some(b"trace".to_vec()), value: Some(b"x\xff".to_vec()) };
        let exemplar = Exemplar { label: vec![label], value: Some(0.5), timestamp: None };
        let created_timestamp = Some(Timestamp { seconds: 2, nanos: 1 });
        let counter = Counter { value: Some(3.0), exemplar: Some(exemplar), created_timestamp };
        let detail = Detail::of(&Metric { counter: Some(counter), ..Metric::default() }.encode_to_vec());
        let labels = LabelSet::new([("trace", "x\u{fffd}")]);
        assert_eq!(detail, Detail { native: None, exemplars: vec![(labels, 0.5)], created_ns: Some(2_000_000_001) });
        assert_eq!(Detail::of(b"\xff"), Detail::default());
        assert_eq!(nanoseconds(Timestamp { seconds: -1, nanos: 0 }), None);
    }
}
