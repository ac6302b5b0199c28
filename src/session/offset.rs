//! The offset of the peer's wall clock, measured with clock readings that travel on heartbeats.
//!
//! As in NTP (RFC 5905, section 8): a reading is sent at `t1` by our clock, received at `t2` and echoed at `t3` by the
//! peer's, and returns at `t4` by ours. The peer's clock is then `((t2 - t1) + (t3 - t4)) / 2` ahead, with an error of at
//! most half the time on the way. Of the last eight samples, the one with the shortest way counts. If either clock was set
//! meanwhile, the samples contradict each other, and the old ones are dropped.

use std::collections::VecDeque;

use crate::wire::{ClockSample, Echo};

use super::event::{MILLISECOND_NS, SessionTime};

/// The number of samples kept.
const SAMPLES_MAX: usize = 8;
/// The drift between two samples, in nanoseconds, above which a clock was set.
const DRIFT_NS: i128 = 5 * MILLISECOND_NS as i128;

#[derive(Clone, Copy, Debug)]
struct Sample {
    offset_ns: i128,
    way_ns: i128,
}

/// The measurements of one connection.
#[derive(Clone, Debug, Default)]
pub struct Offset {
    samples: VecDeque<Sample>,
    /// The peer's last reading, for the next echo.
    echo: Option<Echo>,
    /// Our wall clock minus our monotonic clock at the last sample.
    set_ns: Option<i128>,
}

impl Offset {
    /// The reading to send now.
    pub fn reading(&self, now: SessionTime) -> ClockSample {
        ClockSample { sent_ns: now.wall_ns, echo: self.echo }
    }

    /// Records the peer's reading; returns the offset if the reading contains an echo.
    pub fn read(&mut self, clock: ClockSample, now: SessionTime) -> Option<i64> {
        self.echo = Some(Echo { sent_ns: clock.sent_ns, received_ns: now.wall_ns });
        self.notice_setting(now);
        let echo = clock.echo?;
        let [t1, t2, t3, t4] = [echo.sent_ns, echo.received_ns, clock.sent_ns, now.wall_ns].map(i128::from);
        let way_ns = (t4 - t1) - (t3 - t2);
        if way_ns < 0 || t3 < t2 {
            return None;
        }
        let sample = Sample { offset_ns: ((t2 - t1) + (t3 - t4)) / 2, way_ns };
        let apart =
            |old: &Sample| (old.offset_ns - sample.offset_ns).abs() > (old.way_ns + sample.way_ns) / 2 + DRIFT_NS;
        if self.samples.iter().any(apart) {
            self.samples.clear();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let best = self.samples.iter().min_by_key(|sample| sample.way_ns)?;
        i64::try_from(best.offset_ns).ok()
    }

    /// The shortest round trip of the samples, in nanoseconds, without the time that the peer held an echo; 0 if there is
    /// no sample.
    pub fn round_trip_ns(&self) -> u64 {
        let shortest = self.samples.iter().map(|sample| sample.way_ns).min();
        shortest.and_then(|way_ns| u64::try_from(way_ns).ok()).unwrap_or_default()
    }

    /// Drops the samples if our clock was set since.
    fn notice_setting(&mut self, now: SessionTime) {
        let set_ns = i128::from(now.wall_ns) - i128::from(now.monotonic_ns);
        if self.set_ns.is_some_and(|before| (before - set_ns).abs() > DRIFT_NS) {
            self.samples.clear();
        }
        self.set_ns = Some(set_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    /// Two clocks, `ahead` apart, that send each other readings over ways of the given length.
    struct Clocks {
        ours: Offset,
        theirs: Offset,
        monotonic_ns: u64,
        wall_ns: u64,
        ahead_ns: u64,
    }

    impl Clocks {
        fn new(ahead_ns: u64) -> Self {
            let (ours, theirs) = (Offset::default(), Offset::default());
            Self { ours, theirs, monotonic_ns: 0, wall_ns: 10 * HOUR_NS, ahead_ns }
        }

        fn pass(&mut self, ns: u64) -> (SessionTime, SessionTime) {
            self.monotonic_ns += ns;
            self.wall_ns += ns;
            let now = SessionTime { monotonic_ns: self.monotonic_ns, wall_ns: self.wall_ns };
            (now, SessionTime { wall_ns: self.wall_ns + self.ahead_ns, ..now })
        }

        fn round(&mut self, there_ns: u64, wait_ns: u64, back_ns: u64) -> Option<i64> {
            let (now, _) = self.pass(0);
            let sent = self.ours.reading(now);
            let (_, now) = self.pass(there_ns);
            self.theirs.read(sent, now);
            let (_, now) = self.pass(wait_ns);
            let answer = self.theirs.reading(now);
            let (now, _) = self.pass(back_ns);
            self.ours.read(answer, now)
        }
    }

    proptest! {
        #[test]
        fn the_clock_offset_is_wrong_by_half_a_round_trip_at_most(
            ahead_ns in 0..HOUR_NS,
            ways in proptest::collection::vec((0..50_000_000u64, 0..5_000_000_000u64, 0..50_000_000u64), 1..20),
        ) {
            let mut clocks = Clocks::new(ahead_ns);
            let mut best_ns = u64::MAX;
            for (at, (there_ns, wait_ns, back_ns)) in ways.iter().enumerate() {
                best_ns = if at < SAMPLES_MAX { best_ns.min(there_ns + back_ns) } else { 100_000_000 };
                let offset_ns = clocks.round(*there_ns, *wait_ns, *back_ns).unwrap();
                prop_assert!((offset_ns - ahead_ns as i64).unsigned_abs() <= best_ns / 2 + 1);
            }
        }

        #[test]
        fn any_clock_sample_of_a_peer_is_safe(readings in proptest::collection::vec(any::<[u64; 5]>(), 0..20)) {
            let mut offset = Offset::default();
            for [sent_ns, echo_sent_ns, received_ns, monotonic_ns, wall_ns] in readings {
                let echo = Some(Echo { sent_ns: echo_sent_ns, received_ns });
                offset.read(ClockSample { sent_ns, echo }, SessionTime { monotonic_ns, wall_ns });
            }
        }
    }

    #[test]
    fn a_jump_of_a_clock_is_measured() {
        let mut clocks = Clocks::new(HOUR_NS);
        for _ in 0..8 {
            assert_eq!(clocks.round(1_000_000, 0, 1_000_000), Some(HOUR_NS as i64));
        }
        clocks.ahead_ns = 0;
        assert_eq!(clocks.round(5_000_000, 0, 5_000_000), Some(0), "theirs");
        clocks.wall_ns -= HOUR_NS;
        clocks.ahead_ns = HOUR_NS;
        assert_eq!(clocks.round(9_000_000, 0, 9_000_000), Some(HOUR_NS as i64), "ours");
    }
}
