//! Latencies of single requests. All are kept; the load bounds their number.

use std::time::Duration;

/// A sample of durations.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    nanoseconds: Vec<u64>,
    sorted: bool,
}

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.nanoseconds.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.sorted = false;
    }

    pub fn len(&self) -> usize {
        self.nanoseconds.len()
    }

    /// The quantile, in milliseconds: the smallest latency that `share` of all do not exceed.
    pub fn quantile_ms(&mut self, share: f64) -> f64 {
        if !self.sorted {
            self.nanoseconds.sort_unstable();
            self.sorted = true;
        }
        let rank = (share * self.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.len().max(1)) - 1;
        self.nanoseconds.get(at).map_or(f64::NAN, |nanoseconds| *nanoseconds as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_were_seen() {
        let mut latencies = Latencies::default();
        assert!(latencies.quantile_ms(0.5).is_nan());
        for milliseconds in (1..=100).rev() {
            latencies.add(Duration::from_millis(milliseconds));
        }
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| latencies.quantile_ms(share)), [1.0, 50.0, 99.0, 100.0]);
    }
}
