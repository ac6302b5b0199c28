//! Summaries with Pushgateway's quantiles: count, sum, and quantiles of recent observations.
//!
//! Quantiles are exact over the last `WINDOW` observations, not estimates over a time. That is enough to see the cost
//! of a push, and an observation costs one store and one addition.

use std::sync::{Mutex, PoisonError};

use crate::model::{Num, ValueLayout};

/// The number of observations that quantiles are computed from.
const WINDOW: usize = 1_024;
/// The quantiles of Pushgateway's own summaries.
const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];

/// One series of a summary.
#[derive(Debug, Default)]
pub struct WindowedSummary(Mutex<Observations>);

#[derive(Debug, Default)]
struct Observations {
    recent: Vec<f32>,
    next: usize,
    sum: f64,
    count: u64,
}

impl WindowedSummary {
    /// Records one observation.
    pub fn observe(&self, value: f64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sum += value;
        seen.count += 1;
        let (at, value) = (seen.next, value as f32);
        match seen.recent.get_mut(at) {
            Some(old) => *old = value,
            None => seen.recent.push(value),
        }
        seen.next = (at + 1) % WINDOW;
    }

    /// The layout of the values that [`WindowedSummary::values`] returns.
    pub fn points() -> ValueLayout {
        ValueLayout::Summary { quantiles: QUANTILES.map(Num).into(), has_sum: true, has_count: true }
    }

    /// The quantiles (NaN before the first observation), the sum and the count.
    pub fn values(&self) -> Vec<f64> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted = seen.recent.clone();
        let (sum, count) = (seen.sum, seen.count);
        drop(seen);
        sorted.sort_by(f32::total_cmp);
        let at =
            |quantile: f64| sorted.get((quantile * sorted.len() as f64) as usize).map_or(f64::NAN, |v| f64::from(*v));
        QUANTILES.map(at).into_iter().chain([sum, count as f64]).collect()
    }

    /// The sum of all observations.
    pub fn sum(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sum
    }

    /// Whether there was no observation yet.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_window() {
        let summary = WindowedSummary::default();
        assert!(summary.values()[0].is_nan());
        for i in 0..3_000 {
            summary.observe(f64::from(i));
        }
        let values = summary.values();
        assert_eq!(values[1], 3_000.0 - 512.0);
        assert_eq!(values[3..], [3_000.0 * 2_999.0 / 2.0, 3_000.0]);
    }
}
