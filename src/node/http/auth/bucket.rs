//! Rate limits as token buckets.

use std::time::Duration;

use tokio::time::Instant;

/// A rate limit: `burst` requests at once, and one more per `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The time between two requests at the sustained rate.
    pub interval: Duration,
    /// Requests at once; at least 1.
    pub burst: u32,
}

/// A token bucket. Its state is the time at which it will be full again.
#[derive(Debug)]
pub struct TokenBucket {
    limit: Option<RateLimit>,
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// A full one; without a limit, it is never empty.
    pub fn full(limit: Option<RateLimit>) -> Self {
        Self { limit, full_at: None }
    }

    /// Takes a token, if there is one at `now`.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(RateLimit { interval, burst }) = self.limit else { return Ok(()) };
        let full_at = self.full_at.unwrap_or(now).max(now) + interval;
        match (full_at - now).checked_sub(interval.saturating_mul(burst)).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(wait),
            None => {
                self.full_at = Some(full_at);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let limit = RateLimit { interval: Duration::from_secs(1), burst: 3 };
        let mut bucket = TokenBucket::full(Some(limit));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let passed = |bucket: &mut TokenBucket, ms| (0..5).filter(|_| bucket.take(at(ms)).is_ok()).count();
        assert_eq!(passed(&mut bucket, 0), 3);
        assert_eq!(passed(&mut bucket, 999), 0);
        assert_eq!(bucket.take(at(999)), Err(Duration::from_millis(1)));
        assert_eq!(passed(&mut bucket, 1_000), 1);
        assert_eq!(passed(&mut bucket, 3_500), 2);
        assert_eq!(passed(&mut bucket, 60_000), 3);
        assert!((0..1_000).all(|_| TokenBucket::full(None).take(start).is_ok()));
    }
}
