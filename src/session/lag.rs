//! The age of the oldest change that the peer does not have: an edge sends it in heartbeats, and every node shows it.

use std::collections::VecDeque;

use crate::model::Revision;

/// The number of revisions whose times are remembered.
const LAG_MARKS_MAX: usize = 4_096;

/// The changes that the peer does not have yet, with the time of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    acked: Revision,
    /// Revisions that the peer does not have, each with the time at which the store reached it.
    marks: VecDeque<(Revision, u64)>,
}

impl Lag {
    /// The store moved to `head`. Beyond `LAG_MARKS_MAX` the newest mark stands for all that follow; only the oldest
    /// matters.
    pub fn moved(&mut self, head: Revision, now_ns: u64) {
        let last = self.marks.back().map_or(self.acked, |(last, _)| *last);
        if head <= last.max(self.acked) {
            return;
        }
        let full = self.marks.len() >= LAG_MARKS_MAX;
        match self.marks.back_mut() {
            Some((last, _)) if full => *last = head,
            _ => self.marks.push_back((head, now_ns)),
        }
    }

    /// The peer has all changes up to here. This may be less than before: the peer may have lost its disk.
    pub fn acked(&mut self, revision: Revision) {
        self.acked = revision;
        while self.marks.front().is_some_and(|(first, _)| *first <= revision) {
            self.marks.pop_front();
        }
    }

    /// The age of the oldest change that waits, in nanoseconds; 0 if none waits.
    pub fn oldest_ns(&self, now_ns: u64) -> u64 {
        self.marks.front().map_or(0, |(_, since_ns)| now_ns.saturating_sub(*since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acked_change_does_not_lag_when_its_head_arrives_late() {
        let mut lag = Lag::default();
        lag.moved(Revision(5), 100);
        lag.acked(Revision(6));
        lag.moved(Revision(6), 200);
        assert_eq!(lag.oldest_ns(300), 0);
        lag.moved(Revision(7), 300);
        lag.moved(Revision(8), 400);
        lag.acked(Revision(7));
        assert_eq!(lag.oldest_ns(1_000), 600);
        lag.acked(Revision(8));
        lag.acked(Revision(2));
        lag.moved(Revision(8), 2_000);
        assert_eq!(lag.oldest_ns(2_100), 100, "the peer lost its changes");
    }

    #[test]
    fn revisions_beyond_the_limit_share_the_last_mark() {
        let mut lag = Lag::default();
        for revision in 1..=2 * LAG_MARKS_MAX as u64 {
            lag.moved(Revision(revision), revision);
        }
        assert_eq!(lag.marks.len(), LAG_MARKS_MAX);
        lag.acked(Revision(2 * LAG_MARKS_MAX as u64 - 1));
        assert!(lag.oldest_ns(u64::MAX) > 0);
        lag.acked(Revision(2 * LAG_MARKS_MAX as u64));
        assert_eq!(lag.oldest_ns(u64::MAX), 0);
    }
}
