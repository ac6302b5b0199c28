//! The last hour of each edge, for the plots on the hub's page: one sample a minute.
//!
//! An edge has 60 samples of 8 bytes each, so the 10,000 edges that a hub's roll may have take some 7 MB at most.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The samples of an edge.
pub const SAMPLES_MAX: usize = 60;

/// The state of an edge that a sample is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeReading {
    /// Whether it is connected.
    pub is_connected: bool,
    /// Its counter of pushes; `None` if it reports none.
    pub pushes: Option<u64>,
    /// The age of its oldest change that is known to be missing, in nanoseconds.
    pub lag_ns: u64,
}

/// The state of an edge at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EdgeSample {
    /// Pushes a second since the sample before; `None` if the edge was away or reports none.
    pub pushes_per_second: Option<f32>,
    /// The lag in milliseconds; `None` if the edge was away.
    pub lag_ms: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct EdgeHistory {
    samples: VecDeque<EdgeSample>,
    /// The counter of pushes, and when it was read.
    last: Option<(u64, u64)>,
}

impl EdgeHistory {
    fn sample_of(&self, edge: EdgeReading, now_ns: u64) -> EdgeSample {
        if !edge.is_connected {
            return EdgeSample::default();
        }
        let rate = edge.pushes.zip(self.last).and_then(|(pushes, (before, at_ns))| {
            // An edge that restarted counts from 0.
            let seconds = now_ns.saturating_sub(at_ns) as f64 / 1e9;
            let new = pushes.checked_sub(before).unwrap_or(pushes);
            (seconds >= 1.0).then(|| (new as f64 / seconds) as f32)
        });
        let lag_ms = u32::try_from(edge.lag_ns / 1_000_000).unwrap_or(u32::MAX);
        EdgeSample { pushes_per_second: rate, lag_ms: Some(lag_ms) }
    }
}

/// The histories of all edges.
#[derive(Debug, Default)]
pub struct EdgeHistories(Mutex<BTreeMap<String, EdgeHistory>>);

impl EdgeHistories {
    /// Takes a sample of each edge, and forgets those that are not on the roll any more.
    pub fn sample(&self, edges: impl IntoIterator<Item = (String, EdgeReading)>, now_ns: u64) {
        let mut histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *histories);
        for (name, edge) in edges {
            let mut history = before.remove(&name).unwrap_or_default();
            let sample = history.sample_of(edge, now_ns);
            if history.samples.len() >= SAMPLES_MAX {
                history.samples.pop_front();
            }
            history.samples.push_back(sample);
            history.last = edge.pushes.filter(|_| edge.is_connected).map(|pushes| (pushes, now_ns));
            histories.insert(name, history);
        }
    }

    /// The last hour of an edge, the oldest sample first, and its present state as the last one. There are always as many:
    /// nothing is known of the time before the first sample.
    pub fn of(&self, name: &str, edge: EdgeReading, now_ns: u64) -> Vec<EdgeSample> {
        let histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let history = histories.get(name).cloned().unwrap_or_default();
        drop(histories);
        let now = history.sample_of(edge, now_ns);
        let missing = SAMPLES_MAX - history.samples.len();
        std::iter::repeat_n(EdgeSample::default(), missing).chain(history.samples).chain([now]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_NS: u64 = 60_000_000_000;

    fn edge(pushes: u64) -> EdgeReading {
        EdgeReading { is_connected: true, pushes: Some(pushes), lag_ns: 0 }
    }

    #[test]
    fn an_hour_is_kept_of_each_edge_on_the_roll() {
        let histories = EdgeHistories::default();
        for minute in 0..100 {
            let mut edges = vec![("syq-1".to_owned(), edge(minute * 120))];
            edges.extend((minute < 50).then(|| ("bj-1".to_owned(), edge(0))));
            histories.sample(edges, minute * MINUTE_NS);
        }
        let hour = histories.of("syq-1", edge(99 * 120 + 30), 99 * MINUTE_NS + 30_000_000_000);
        assert_eq!(hour.len(), SAMPLES_MAX + 1);
        assert!(hour[..SAMPLES_MAX].iter().all(|sample| sample.pushes_per_second == Some(2.0)));
        assert_eq!(hour[SAMPLES_MAX], EdgeSample { pushes_per_second: Some(1.0), lag_ms: Some(0) });
        assert_eq!(histories.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn an_edge_that_is_away_or_restarts_has_no_wrong_rate() {
        let histories = EdgeHistories::default();
        let away = EdgeReading { is_connected: false, ..edge(600) };
        for (minute, edge) in [edge(600), away, edge(1_200), edge(60)].into_iter().enumerate() {
            histories.sample(vec![("syq-1".to_owned(), edge)], minute as u64 * MINUTE_NS);
        }
        let hour = histories.of("syq-1", edge(60), 4 * MINUTE_NS);
        let rates: Vec<_> = hour[SAMPLES_MAX - 4..].iter().map(|sample| sample.pushes_per_second).collect();
        assert_eq!(rates, [None, None, None, Some(1.0), Some(0.0)]);
        assert_eq!(hour[SAMPLES_MAX - 3].lag_ms, None, "it was away");
    }
}
