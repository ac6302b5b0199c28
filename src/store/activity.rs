//! Counts of the writes to a group since the node's start: who pushes how much.
//!
//! They belong to the names of a group, which all its versions share. So a count costs no look-up, and there are as many as
//! groups and tombstones in memory, some 80 bytes each. A group that was only read from disk has none.

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A minute in nanoseconds.
const MINUTE_NS: u64 = 60 * 1_000_000_000;

/// The writes to one group since the node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivityCounts {
    /// Pushes that this node answered, refused ones included.
    pub pushes: u64,
    /// Bytes of their bodies as sent.
    pub bytes: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Changes that came over links. Pushes that follow each other quickly may come as one.
    pub updates: u64,
    /// The address from which the last push came.
    pub last_peer: Option<IpAddr>,
    /// The present minute, and the writes in it and in the one before.
    minute: u32,
    in_minute: u32,
    in_minute_before: u32,
}

impl ActivityCounts {
    fn count(&mut self, now_ns: u64) {
        self.turn(now_ns);
        self.in_minute = self.in_minute.saturating_add(1);
    }

    fn turn(&mut self, now_ns: u64) {
        let minute = (now_ns / MINUTE_NS) as u32;
        if minute != self.minute {
            self.in_minute_before = if minute == self.minute.wrapping_add(1) { self.in_minute } else { 0 };
            (self.minute, self.in_minute) = (minute, 0);
        }
    }

    /// Writes in the last full minute, or in the present one if there are more already.
    pub fn per_minute(mut self, now_ns: u64) -> u32 {
        self.turn(now_ns);
        self.in_minute_before.max(self.in_minute)
    }
}

/// The counter of one group.
#[derive(Debug, Default)]
pub(crate) struct Activity(OnceLock<Box<Mutex<ActivityCounts>>>);

impl Activity {
    fn update(&self, change: impl FnOnce(&mut ActivityCounts)) {
        change(&mut self.0.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn counts(&self) -> ActivityCounts {
        self.0
            .get()
            .map_or_else(ActivityCounts::default, |counts| *counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn pushed(&self, bytes: usize, is_refused: bool, peer: IpAddr, now_ns: u64) {
        self.update(|counts| {
            counts.pushes += 1;
            counts.bytes += bytes as u64;
            counts.refused += u64::from(is_refused);
            counts.last_peer = Some(peer);
            counts.count(now_ns);
        });
    }

    pub fn updated(&self, now_ns: u64) {
        self.update(|counts| {
            counts.updates += 1;
            counts.count(now_ns);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_and_their_rate_is_that_of_a_minute() {
        let (activity, peer) = (Activity::default(), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(activity.counts(), ActivityCounts::default());
        let at = |minute: u64, second: u64| minute * MINUTE_NS + second * 1_000_000_000;
        for second in 0..30 {
            activity.pushed(100, second == 3, peer, at(7, second));
        }
        activity.updated(at(7, 40));
        let counts = activity.counts();
        assert_eq!((counts.pushes, counts.bytes, counts.refused, counts.updates), (30, 3_000, 1, 1));
        assert_eq!(counts.last_peer, Some(peer));
        let rates = [at(7, 59), at(8, 0), at(8, 59), at(9, 0)].map(|now_ns| counts.per_minute(now_ns));
        assert_eq!(rates, [31, 31, 31, 0]);
        activity.pushed(1, false, peer, at(8, 1));
        assert_eq!(activity.counts().per_minute(at(8, 2)), 31, "the last full minute");
        activity.pushed(1, false, peer, at(3, 0));
        assert_eq!(activity.counts().per_minute(at(3, 1)), 1, "the clock was set back");
    }
}
