//! The counts of a receiver, for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Family;
use crate::node::metrics::{counter, gauge};

/// The counts of one receiver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteWriteCounts {
    /// Samples that the receiver accepted, markers included.
    pub samples: u64,
    /// Bytes of messages, compressed, each attempt counted.
    pub bytes: u64,
    /// Samples that the receiver refused, by reason.
    pub failed_samples: BTreeMap<&'static str, u64>,
    /// Messages that were sent again.
    pub retried: u64,
    /// Changes to another form of messages, by reason.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// The reason for which the last tick was not written completely; empty if it was.
    pub last_error: String,
    /// Samples that were not written, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Ticks that were left out, because the one before took too long.
    pub skipped_ticks: u64,
    /// When a tick was last written completely, in nanoseconds since the epoch; 0 if none was.
    pub last_success_ns: u64,
    /// The duration of the last tick.
    pub tick_seconds: f64,
}

/// The status of one receiver.
#[derive(Debug)]
pub struct RemoteWriteStatus {
    /// The name of the receiver.
    pub receiver: String,
    /// Its URL, without the query.
    pub url: String,
    counts: Mutex<RemoteWriteCounts>,
}

/// The samples were not sent before the next tick replaced them.
pub(super) const DROPPED_LATE: &str = "late";
/// The reason of samples of a series that is too large for a message.
pub(super) const DROPPED_TOO_LARGE: &str = "too_large";
/// The samples have the labels of series of the node itself.
pub(super) const DROPPED_DUPLICATE: &str = "duplicate";

impl RemoteWriteStatus {
    /// The status of a receiver to which nothing was written.
    pub fn new(receiver: String, url: String) -> Arc<Self> {
        Arc::new(Self { receiver, url, counts: Mutex::default() })
    }

    /// A status with each count.
    #[cfg(test)]
    pub fn example() -> Arc<Self> {
        let status = Self::new("receiver".into(), "http://vm:8428/".into());
        status.update(|counts| {
            counts.failed_samples.insert("other", 1);
            counts.dropped.insert(DROPPED_LATE, 1);
            counts.fallbacks.insert("media_type", 1);
        });
        status
    }

    /// The present counts.
    pub fn counts(&self) -> RemoteWriteCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the counts.
    pub(super) fn update(&self, change: impl FnOnce(&mut RemoteWriteCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The metrics of all receivers.
pub fn gather_remote_writes(receivers: &[Arc<RemoteWriteStatus>]) -> Vec<Family> {
    let receivers: Vec<(&str, RemoteWriteCounts)> =
        receivers.iter().map(|status| (&*status.receiver, status.counts())).collect();
    if receivers.is_empty() {
        return Vec::new();
    }
    let of = |value: fn(&RemoteWriteCounts) -> f64| {
        receivers.iter().map(move |(receiver, counts)| ([("receiver", *receiver)], value(counts)))
    };
    let by_reason = |counts: fn(&RemoteWriteCounts) -> &BTreeMap<&'static str, u64>| {
        receivers.iter().flat_map(move |(receiver, all)| {
            counts(all).iter().map(move |(reason, n)| ([("receiver", *receiver), ("reason", *reason)], *n as f64))
        })
    };
    let name = |name: &str| format!("pushrelay_remote_write_{name}");
    vec![
        counter(&name("bytes_total"), "Bytes of messages sent to the receiver, compressed.", of(|n| n.bytes as f64)),
        counter(&name("dropped_total"), "Samples not sent to the receiver.", by_reason(|n| &n.dropped)),
        counter(&name("failed_samples_total"), "Samples that the receiver refused.", by_reason(|n| &n.failed_samples)),
        counter(
            &name("fallbacks_total"),
            "Changes to a form of messages that the receiver knows.",
            by_reason(|n| &n.fallbacks),
        ),
        gauge(
            &name("last_success_timestamp_seconds"),
            "When a tick was last written completely; 0 if none was.",
            of(|n| (n.last_success_ns / 1_000_000) as f64 / 1e3),
        ),
        counter(&name("retried_total"), "Messages sent again to the receiver.", of(|n| n.retried as f64)),
        counter(&name("samples_total"), "Samples that the receiver accepted.", of(|n| n.samples as f64)),
        counter(
            &name("skipped_ticks_total"),
            "Ticks left out, as the one before took too long.",
            of(|n| n.skipped_ticks as f64),
        ),
        gauge(&name("tick_duration_seconds"), "Duration of the last tick.", of(|n| n.tick_seconds)),
    ]
}
