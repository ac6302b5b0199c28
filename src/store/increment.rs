//! A push that adds, and the parts of sums that only the formats of pushes know.

use super::idempotency::IdempotencyKey;
use crate::model::{Family, GaugeRule, MetricType, NativeSum, ValueLayout};

/// The contributors of a group to which this node adds another one, at most. Each start of a node that adds to the group
/// is one. Peers may bring more.
pub const CONTRIBUTORS_MAX: usize = 1_024;

/// A push that adds.
#[derive(Clone, Debug)]
pub struct Increment {
    /// The values to add.
    pub families: Vec<Family>,
    /// How gauges are combined.
    pub gauges: GaugeRule,
    /// The key by which a repeat is recognized.
    pub key: Option<IdempotencyKey>,
}

/// Makes the raw metric of a series of a sum that began at a time, in nanoseconds since the Unix epoch, from its type,
/// layout, values, and the raw metric with its native buckets.
pub type DateSum = fn(MetricType, &ValueLayout, &[f64], &[u8], u64) -> Vec<u8>;

/// The parts of sums that only the formats of pushes know.
#[derive(Clone, Copy, Debug)]
pub struct SumCodec {
    /// Adds native histograms.
    pub native: NativeSum,
    /// Makes raw metrics with a created timestamp. Without it, sums have none.
    pub dated: Option<DateSum>,
}

impl Default for SumCodec {
    /// Without native histograms and created timestamps.
    fn default() -> Self {
        Self { native: |_, _| Err("native histograms cannot be added here".into()), dated: None }
    }
}
