//! The size of the batches in which an end catches up, and how many updates are on their way at once: together about as
//! much as the line carries in a second.
//!
//! A change that is made meanwhile waits behind what is on its way. On a thin line, large updates would delay it by
//! minutes, and a line that breaks would lose all of an update that has not arrived. So an end begins with little. It
//! sends more at once as long as acknowledgements return soon, and less when they return late.

use super::event::MILLISECOND_NS;

/// The number of updates that may be unacknowledged at once: enough to keep both ends busy while an ack travels.
pub(super) const WINDOW: usize = 4;

/// The bytes on their way at first: half a second at 64 kbit/s.
const FIRST_BYTES: usize = 4 << 10;
/// The smallest batch, in bytes.
const BYTES_MIN: usize = 2 << 10;
/// More is sent at once if an acknowledgement needs less than this, beside the round trip.
const SOON_NS: u64 = 500 * MILLISECOND_NS;
/// Less is sent at once if an acknowledgement needs more than this, beside the round trip.
const LATE_NS: u64 = 1_000 * MILLISECOND_NS;

/// The present size of batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSize {
    /// About the bytes that may be on their way at once.
    window_bytes: usize,
    batch_bytes_max: usize,
    /// When the window was last made smaller: acknowledgements of updates sent before say nothing of it.
    reduced_ns: u64,
}

impl BatchSize {
    /// Batches of at most `batch_bytes_max` bytes.
    pub fn new(batch_bytes_max: usize) -> Self {
        Self { window_bytes: FIRST_BYTES, batch_bytes_max, reduced_ns: 0 }
    }

    /// The size of the next batch, in bytes.
    pub fn bytes(&self) -> usize {
        (self.window_bytes / WINDOW).max(BYTES_MIN).min(self.batch_bytes_max)
    }

    /// The number of updates that may be on their way at once.
    pub fn updates(&self) -> usize {
        (self.window_bytes / self.bytes().max(1)).clamp(1, WINDOW)
    }

    /// An update that was sent at `sent_ns` is acknowledged now. `is_full` says whether it was one of a backlog, as only
    /// those show that the line could carry more.
    pub fn acked(&mut self, sent_ns: u64, now_ns: u64, round_trip_ns: u64, is_full: bool) {
        let line_ns = now_ns.saturating_sub(sent_ns).saturating_sub(round_trip_ns);
        if line_ns > LATE_NS && sent_ns >= self.reduced_ns {
            self.window_bytes = (self.window_bytes / 2).max(BYTES_MIN);
            self.reduced_ns = now_ns;
        } else if line_ns < SOON_NS && is_full {
            self.window_bytes = (self.window_bytes + self.bytes()).min(self.batch_bytes_max.saturating_mul(WINDOW));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000 * MILLISECOND_NS;

    #[test]
    fn batches_follow_the_line() {
        let mut size = BatchSize::new(1 << 20);
        assert_eq!((size.bytes(), size.updates()), (2 << 10, 2));
        size.acked(0, SECOND_NS, SECOND_NS * 3 / 5, true);
        assert_eq!((size.bytes(), size.updates()), (2 << 10, 3), "the round trip says nothing of the capacity");
        size.acked(0, 0, 0, false);
        size.acked(0, SECOND_NS * 3 / 4, 0, true);
        assert_eq!(size.updates(), 3, "no backlog; neither soon nor late");
        (0..60).for_each(|_| size.acked(0, 0, 0, true));
        assert_eq!((size.bytes(), size.updates()), (1 << 20, 4));
        size.acked(SECOND_NS, 3 * SECOND_NS, 0, true);
        size.acked(2 * SECOND_NS, 4 * SECOND_NS, 0, true);
        assert_eq!(size.bytes(), 512 << 10, "the second one was sent before the window became smaller");
        (2..30).for_each(|at| size.acked(2 * at * SECOND_NS, 2 * (at + 1) * SECOND_NS, 0, true));
        assert_eq!((size.bytes(), size.updates()), (2 << 10, 1));
        assert_eq!(BatchSize::new(1 << 10).bytes(), 1 << 10, "the bound of the node is smaller");
    }
}
