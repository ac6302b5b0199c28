//! The delays before dialling again. This is the only file that names the crate `backoff`.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

use crate::node::random::random_id;

/// An endless series of delays that double from `min` to `max`. Each is drawn at random between zero and twice its length
/// (full jitter), and is at most `max`.
pub struct Schedule(ExponentialBackoff);

impl Schedule {
    /// A schedule at its start.
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

    /// The next delay.
    pub fn next_wait(&mut self) -> Duration {
        let max = self.0.max_interval;
        self.0.next_backoff().unwrap_or(max).min(max)
    }

    /// The next delay if the peer asks for at least `asked`. The delay asked for is lengthened at random by up to a half, so
    /// that peers refused together do not return together.
    pub fn next_wait_of(&mut self, asked: Duration) -> Duration {
        // If the operating system gives no randomness, the delay is not spread.
        let part = random_id().unwrap_or_default() as f64 / u64::MAX as f64;
        self.next_wait().max(asked.mul_f64(1.0 + part / 2.0))
    }

    /// Starts again from the shortest delay.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn the_backoff_grows_to_its_maximum_and_never_stops() {
        let mut schedule = Schedule::new(MIN, MAX);
        let waits: Vec<Duration> = (0..1_000).map(|_| schedule.next_wait()).collect();
        assert!(waits[0] <= 2 * MIN);
        assert!(waits.iter().all(|wait| *wait <= MAX), "the longest wait is the longest");
        assert!(waits[20..].iter().any(|wait| *wait > MAX / 2));
        schedule.reset();
        assert!(schedule.next_wait() <= 2 * MIN);
    }

    #[test]
    fn a_delay_that_the_peer_asks_for_is_spread_and_does_not_reset_the_backoff() {
        let mut schedule = Schedule::new(MIN, MAX);
        let asked = Duration::from_secs(60);
        let waits: Vec<Duration> = (0..100).map(|_| schedule.next_wait_of(asked)).collect();
        assert!(waits.iter().all(|wait| (asked..=asked * 3 / 2).contains(wait)));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
        assert!((0..100).any(|_| schedule.next_wait_of(Duration::ZERO) > MAX / 2));
    }
}
