//! When to try again: the only file that names `backoff`, and only for its schedule.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Waits that double from `min` to `max`, each drawn at random from nothing to twice its length (full jitter), for ever.
pub struct Schedule(ExponentialBackoff);

impl Schedule {
    /// A schedule at its beginning.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: min,
            initial_interval: min,
            randomization_factor: 1.0,
            multiplier: 2.0,
            max_interval: max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// How long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// It worked: begin again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_never_end() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut schedule = Schedule::new(min, max);
        let waits: Vec<Duration> = (0..1_000).map(|_| schedule.next_wait()).collect();
        assert!(waits[0] <= 2 * min);
        assert!(waits.iter().all(|wait| *wait <= 2 * max));
        assert!(waits[20..].iter().any(|wait| *wait > max));
        schedule.reset();
        assert!(schedule.next_wait() <= 2 * min);
    }
}
