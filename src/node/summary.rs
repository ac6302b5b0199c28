//! Summaries as Pushgateway has them: count, sum, and quantiles of what was observed lately.
//!
//! Quantiles are exact over the last `WINDOW` observations, rather than estimates over a time: enough to see what a push
//! costs, at a cost of a store and an addition each.

use std::sync::{Mutex, PoisonError};

use crate::model::{Num, ValueLayout};

/// Observations that quantiles are taken of.
const WINDOW: usize = 1_024;
/// The quantiles that Pushgateway's own summaries have.
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
    /// Notes one observation.
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

    /// What the values of [`WindowedSummary::values`] are.
    pub fn points() -> ValueLayout {
        ValueLayout::Summary { quantiles: QUANTILES.map(Num).into(), has_sum: true, has_count: true }
    }

    /// Quantiles (NaN before the first observation), sum and count.
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

    /// Whether anything was observed.
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
