//! Since when changes wait for the other end: what an edge says of itself in heartbeats, and a node in its metrics.

use std::collections::VecDeque;

use crate::model::Revision;

/// Revisions whose times are remembered, at most.
const LAG_MARKS_MAX: usize = 4_096;

/// Since when changes wait to be held by the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    held: Revision,
    /// Revisions not held, each with the time at which the store had moved there.
    marks: VecDeque<(Revision, u64)>,
}

impl Lag {
    /// The store moved to `head`. Beyond `LAG_MARKS_MAX` the newest mark stands for all that follow: the oldest is what
    /// counts.
    pub fn moved(&mut self, head: Revision, now_ns: u64) {
        let last = self.marks.back().map_or(self.held, |(last, _)| *last);
        if head <= last.max(self.held) {
            return;
        }
        let full = self.marks.len() >= LAG_MARKS_MAX;
        match self.marks.back_mut() {
            Some((last, _)) if full => *last = head,
            _ => self.marks.push_back((head, now_ns)),
        }
    }

    /// The other side holds all up to here. This may be less than before: it may have lost its disk.
    pub fn held(&mut self, revision: Revision) {
        self.held = revision;
        while self.marks.front().is_some_and(|(first, _)| *first <= revision) {
            self.marks.pop_front();
        }
    }

    /// The age of the oldest change that waits, in nanoseconds; 0 if none does.
    pub fn oldest_ns(&self, now_ns: u64) -> u64 {
        self.marks.front().map_or(0, |(_, since_ns)| now_ns.saturating_sub(*since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_does_not_lag_when_its_head_is_told_late() {
        let mut lag = Lag::default();
        lag.moved(Revision(5), 100);
        lag.held(Revision(6));
        lag.moved(Revision(6), 200);
        assert_eq!(lag.oldest_ns(300), 0);
        lag.moved(Revision(7), 300);
        lag.moved(Revision(8), 400);
        lag.held(Revision(7));
        assert_eq!(lag.oldest_ns(1_000), 600);
        lag.held(Revision(8));
        lag.held(Revision(2));
        lag.moved(Revision(8), 2_000);
        assert_eq!(lag.oldest_ns(2_100), 100, "the other side lost what it held");
    }

    #[test]
    fn marks_are_bounded_and_none_is_forgotten() {
        let mut lag = Lag::default();
        for revision in 1..=2 * LAG_MARKS_MAX as u64 {
            lag.moved(Revision(revision), revision);
        }
        assert_eq!(lag.marks.len(), LAG_MARKS_MAX);
        lag.held(Revision(2 * LAG_MARKS_MAX as u64 - 1));
        assert!(lag.oldest_ns(u64::MAX) > 0);
        lag.held(Revision(2 * LAG_MARKS_MAX as u64));
        assert_eq!(lag.oldest_ns(u64::MAX), 0);
    }
}
