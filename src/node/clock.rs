//! The node's clocks: the time of writes, corrected by the hub's clock, and a monotonic clock for timeouts.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::store;

/// The resolution of write timestamps: shorter than a push takes to arrive and be answered.
const TICK_NS: u64 = 100_000;

/// The time of a write, from the wall clock and its offset to the hub's clock. Both are cut to tenths of a millisecond,
/// which takes fewer bytes on the link and on the disk.
pub fn reading(wall_ns: u64, offset_ns: i64, monotonic_ns: u64) -> store::WriteTime {
    let wall_ns = wall_ns / TICK_NS * TICK_NS;
    let offset_ns = offset_ns / TICK_NS as i64 * TICK_NS as i64;
    store::WriteTime { wall_ns, stamp_ns: wall_ns.saturating_add_signed(offset_ns), monotonic_ns }
}

/// The wall clock with its offset to the hub's clock, and a monotonic clock.
#[derive(Debug)]
pub struct Clock {
    /// Follows the paused time of tests.
    started: Instant,
    offset_ns: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), offset_ns: AtomicI64::new(0) }
    }
}

impl Clock {
    /// The wall clock in nanoseconds since the Unix epoch; 0 if it is before the epoch.
    pub fn wall_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since this clock was created. Never decreases.
    pub fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time of a write that happens now; see [`reading`].
    pub fn now(&self) -> store::WriteTime {
        reading(self.wall_ns(), self.offset_ns(), self.monotonic_ns())
    }

    /// Whether the wall clock shows a time that cannot be right.
    pub fn is_wrong(&self) -> bool {
        self.wall_ns() < store::CLOCK_NS_MIN
    }

    /// Compares this clock with that of a peer, which is `offset_ns` ahead. Returns the right time and the monotonic
    /// clock at this moment; `None` if both clocks are wrong.
    ///
    /// A clock that cannot be right corrects none, so that one hub with a wrong clock does not give a site wrong write
    /// timestamps.
    pub fn compared(&self, offset_ns: i64) -> Option<(u64, u64)> {
        let (wall_ns, monotonic_ns) = (self.wall_ns(), self.monotonic_ns());
        let right_ns = wall_ns.saturating_add_signed(offset_ns);
        (right_ns >= store::CLOCK_NS_MIN).then_some((right_ns, monotonic_ns))
    }

    /// Sets the hub's clock minus this one, in nanoseconds.
    pub fn set_offset_ns(&self, offset_ns: i64) {
        self.offset_ns.store(offset_ns, Ordering::Relaxed);
    }

    /// The hub's clock minus this one in nanoseconds, as last measured.
    pub fn offset_ns(&self) -> i64 {
        self.offset_ns.load(Ordering::Relaxed)
    }
}
