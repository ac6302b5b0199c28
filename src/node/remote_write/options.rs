//! `[[remote_write]]`: a receiver.

use std::time::Duration;

use crate::exposition::Escaping;
use crate::model::LabelSet;
use crate::net::http::sender::{ReceiverUrl, SenderOptions};
use crate::selector::Selectors;

/// A receiver, and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWriteOptions {
    /// The name in metrics and logs.
    pub name: String,
    /// The URL to post to.
    pub url: ReceiverUrl,
    /// The time between two ticks.
    pub interval: Duration,
    /// `mode`, and with `on-change` the time after which all series are written again (`refresh`).
    pub refresh: Option<Duration>,
    /// The time for one request.
    pub remote_timeout: Duration,
    /// The series to write; `None` for all.
    pub selectors: Option<Selectors>,
    /// Headers that are added to each request.
    pub headers: Vec<(String, String)>,
    /// Labels that are added to series that have no label of that name.
    pub external_labels: LabelSet,
    /// `job` and `instance` of the node's own metrics, as a scrape configuration gives them.
    pub target_labels: LabelSet,
    /// The escaping of names.
    pub escaping: Escaping,
    /// `protobuf_message`: the version of messages.
    pub protobuf_message: ProtobufMessage,
    /// Whether native histograms are written, in place of their classic buckets.
    pub send_native_histograms: bool,
    /// `metadata_config`: the time between two writes of types and help texts; `None` for none.
    pub metadata_interval: Option<Duration>,
    /// Login, TLS and proxy.
    pub sender: SenderOptions,
    /// `queue_config`: batches, parallel requests and pauses.
    pub queue: QueueOptions,
}

impl RemoteWriteOptions {
    /// The default of `interval`.
    pub const INTERVAL: Duration = Duration::from_secs(15);
    /// The shortest interval.
    pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
    /// The longest interval: Prometheus no longer shows a sample after five minutes.
    pub const INTERVAL_MAX: Duration = Duration::from_secs(240);
    /// The default of `refresh`: less than the five minutes for which Prometheus shows a sample.
    pub const REFRESH: Duration = Duration::from_secs(120);
    /// The default of `remote_timeout`, as in Prometheus.
    pub const REMOTE_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of `metadata_config.send_interval`, as in Prometheus.
    pub const METADATA_INTERVAL: Duration = Duration::from_secs(60);
    /// The default of `job`.
    pub const JOB: &str = "pushrelay";
}

/// The times at which series are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// All at each interval.
    #[default]
    Interval,
    /// Each when it changed, and all when `refresh` has passed.
    OnChange,
}

/// The version of messages; the names are those of Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtobufMessage {
    /// `prometheus.WriteRequest`: 1.0.
    #[default]
    V1,
    /// `io.prometheus.write.v2.Request`: 2.0.
    V2,
}

/// `queue_config`: the names are those of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Samples in one request, at most.
    pub max_samples_per_send: usize,
    /// Requests at once, at most; each has a connection.
    pub max_shards: usize,
    /// The first pause before a request is sent again.
    pub min_backoff: Duration,
    /// The longest pause before a request is sent again.
    pub max_backoff: Duration,
}

impl QueueOptions {
    /// The largest `max_samples_per_send`.
    pub const SAMPLES_MAX: usize = 100_000;
    /// The largest `max_shards`.
    pub const SHARDS_MAX: usize = 64;
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            max_samples_per_send: 2_000,
            max_shards: 4,
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_secs(5),
        }
    }
}
