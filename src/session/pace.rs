//! When the next update goes, where changes trickle, and whether its acknowledgement may wait.
//!
//! Where updates come so far apart that each would be acknowledged long before the next, nothing waits for that, and
//! acknowledging each would be a third of the bytes on the wire. So the peer may acknowledge several together.

/// The shortest time from an update to the next, for each group in it: about what the hub takes for an update.
const PAUSE_NS_PER_GROUP: u64 = 250_000;
/// Shorter pauses are none: timers are no finer, so that what comes meanwhile would wait for longer.
const PAUSE_NS_MIN: u64 = 1_000_000;
/// And at most: what is pushed often is shown that much later, and no later.
const PAUSE_NS_MAX: u64 = 10_000_000;
/// How long an acknowledgement that may wait does so, at most: that much later the sender knows what its peer holds.
pub(super) const ACK_DELAY_NS: u64 = 200_000_000;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval_ns: u64,
    /// Before this, by the monotonic clock, nothing is read that trickles.
    next_ns: u64,
    /// When the last update went.
    sent_ns: Option<u64>,
    /// How long the last acknowledgement took that was to come at once.
    round_ns: Option<u64>,
}

impl Pace {
    /// Where updates are to be so far apart, at least.
    pub fn new(interval_ns: u64) -> Self {
        Self { interval_ns, next_ns: 0, sent_ns: None, round_ns: None }
    }

    /// An update goes. What only tells how far the store is keeps nothing waiting.
    pub fn sent(&mut self, groups: usize, now_ns: u64) {
        self.sent_ns = Some(now_ns);
        if groups > 0 {
            self.next_ns = now_ns.saturating_add(self.interval_ns.max(pause_ns(groups)));
        }
    }

    /// An update that went then is acknowledged, and that was not to wait.
    pub fn acked(&mut self, sent_ns: u64, now_ns: u64) {
        self.round_ns = Some(now_ns.saturating_sub(sent_ns));
    }

    /// Whether an update comes long after the one before would have been acknowledged, and yet so soon that one
    /// acknowledgement can be of both. Where it is not long after, to wait for the acknowledgement lets changes conflate.
    pub fn is_calm(&self, now_ns: u64) -> bool {
        let (Some(sent_ns), Some(round_ns)) = (self.sent_ns, self.round_ns) else { return false };
        let gap_ns = now_ns.saturating_sub(sent_ns);
        round_ns.saturating_mul(2) <= gap_ns && gap_ns <= ACK_DELAY_NS
    }

    /// When the next may go.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Whether that time is still to come, and so near that what changes until then need not be heard of: where updates are
    /// to be further apart, it is, so that since when changes wait is known.
    pub fn is_pausing(&self, now_ns: u64) -> bool {
        self.interval_ns <= PAUSE_NS_MAX && now_ns < self.next_ns
    }
}

/// How long after an update of so many groups the next comes at the earliest. Up to some thousand pushes a second nothing is
/// delayed; where there are more, updates come to carry more groups, which earns longer pauses, up to the longest.
fn pause_ns(groups: usize) -> u64 {
    let earned_ns = (groups as u64).saturating_mul(PAUSE_NS_PER_GROUP).min(PAUSE_NS_MAX);
    if earned_ns < PAUSE_NS_MIN { 0 } else { earned_ns }
}
