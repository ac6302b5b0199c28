//! The pace of updates that trickle: when the next one goes, and whether its acknowledgement may wait.
//!
//! If updates are so far apart that each would be acknowledged long before the next, no update waits for an ack, and one
//! ack each would be a third of the bytes on the wire. So the peer may acknowledge several together.

/// The pause after an update, for each group in it: about the time that the hub needs for one.
const PAUSE_NS_PER_GROUP: u64 = 250_000;
/// Pauses below 1 ms are skipped: tokio's timers have millisecond resolution, and a change would wait for longer.
const PAUSE_NS_MIN: u64 = 1_000_000;
/// The longest pause: frequent pushes are shown at most this much later.
const PAUSE_NS_MAX: u64 = 10_000_000;
/// The longest delay of an acknowledgement that may wait. The sender learns this much later what its peer has.
pub(super) const ACK_DELAY_NS: u64 = 200_000_000;

/// The state of the pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval_ns: u64,
    /// Changes that trickle are not read before this, by the monotonic clock.
    next_ns: u64,
    /// When the last update was sent.
    sent_ns: Option<u64>,
    /// The round trip of the last update that was acknowledged at once.
    round_ns: Option<u64>,
}

impl Pace {
    /// A pace with at least this interval between updates.
    pub fn new(interval_ns: u64) -> Self {
        Self { interval_ns, next_ns: 0, sent_ns: None, round_ns: None }
    }

    /// An update is sent. An empty one, which only carries the revision reached, delays nothing.
    pub fn sent(&mut self, groups: usize, now_ns: u64) {
        self.sent_ns = Some(now_ns);
        if groups > 0 {
            self.next_ns = now_ns.saturating_add(self.interval_ns.max(pause_ns(groups)));
        }
    }

    /// The peer has acknowledged at once an update sent at `sent_ns`.
    pub fn acked(&mut self, sent_ns: u64, now_ns: u64) {
        self.round_ns = Some(now_ns.saturating_sub(sent_ns));
    }

    /// Whether an update sent now follows long after the ack of the previous one, and yet soon enough for one ack to cover
    /// both. If it does not follow long after, waiting for the ack lets changes conflate.
    pub fn is_calm(&self, now_ns: u64) -> bool {
        let (Some(sent_ns), Some(round_ns)) = (self.sent_ns, self.round_ns) else { return false };
        let gap_ns = now_ns.saturating_sub(sent_ns);
        round_ns.saturating_mul(2) <= gap_ns && gap_ns <= ACK_DELAY_NS
    }

    /// When the next update may go.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Whether the pause lasts, and is so short that the session need not see heads until it ends. With a longer interval
    /// the session sees them, so that the age of waiting changes is known.
    pub fn is_pausing(&self, now_ns: u64) -> bool {
        self.interval_ns <= PAUSE_NS_MAX && now_ns < self.next_ns
    }
}

/// The pause after an update of so many groups. Up to some thousand pushes a second nothing is delayed; with more, updates
/// carry more groups, which makes the pauses longer, up to the longest.
fn pause_ns(groups: usize) -> u64 {
    let earned_ns = (groups as u64).saturating_mul(PAUSE_NS_PER_GROUP).min(PAUSE_NS_MAX);
    if earned_ns < PAUSE_NS_MIN { 0 } else { earned_ns }
}
