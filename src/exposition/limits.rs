//! Rules for one push: bounds, so that no body costs more work or memory than its size justifies.

/// The treatment of samples that have a timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampRule {
    /// The push is refused, as by Pushgateway.
    #[default]
    Refuse,
    /// The sample is stored without its timestamp.
    Strip,
}

/// Bounds on one push, and its rule for timestamps. The size of the body is checked before it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushLimits {
    /// Bytes in one line of the text format; default 1 MiB.
    pub line_bytes_max: usize,
    /// Labels of one series, without those of the group; default 1,000.
    pub labels_per_series_max: usize,
    /// Series in one push; default 2,000,000.
    pub series_max: usize,
    /// Metric families in one push; default 200,000.
    pub families_max: usize,
    /// Parts of one protobuf metric, not counting its labels: buckets, quantiles, spans, native counts, exemplars and
    /// their labels. 65,536, not configurable: about a hundred times what clients send. In text each part takes a line.
    pub parts_per_series_max: usize,
    /// Values in one protobuf body; 8 Mi, not configurable. It is more than fits into 64 MiB as series with labels or
    /// as buckets with bounds, and equals the bound on one update of the link.
    pub values_max: usize,
    /// The treatment of timestamps; by default the push is refused.
    pub timestamps: TimestampRule,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            line_bytes_max: 1 << 20,
            labels_per_series_max: 1_000,
            series_max: 2_000_000,
            families_max: 200_000,
            parts_per_series_max: 1 << 16,
            values_max: 8 << 20,
            timestamps: TimestampRule::Refuse,
        }
    }
}

/// A bound that a push crossed, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// [`PushLimits::line_bytes_max`].
    #[error("line longer than the limit of {0} bytes (limits.line_bytes_max)")]
    LineBytes(usize),
    /// [`PushLimits::labels_per_series_max`].
    #[error("more than the limit of {0} labels in one series (limits.series_labels_max)")]
    LabelsPerSeries(usize),
    /// [`PushLimits::series_max`].
    #[error("more than the limit of {0} series in one push (limits.push_series_max): split it")]
    Series(usize),
    /// [`PushLimits::families_max`].
    #[error("more than the limit of {0} metric families in one push (limits.push_families_max): split it")]
    Families(usize),
    /// [`PushLimits::parts_per_series_max`].
    #[error("more than the limit of {0} buckets, quantiles, exemplars and the like in one series")]
    PartsPerSeries(usize),
    /// [`PushLimits::values_max`].
    #[error("more than the limit of {0} values in one push: split it")]
    Values(usize),
}
