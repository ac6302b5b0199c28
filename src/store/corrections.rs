//! Corrections of the write timestamps of a clock that was behind: see `unconfirmed`.

use foldhash::HashMap;

use super::conflict::ConflictPolicy;
use super::unconfirmed::{AheadWrites, CLOCK_NS_MIN, ClockComparison, Correction, UnconfirmedWrites};
use super::writer::Store;
use crate::model::{Group, GroupId, NodeId, WriteTimestamp};

/// Write timestamps that are wrong by less stay as they are: clocks that are kept right differ by this much.
const CORRECTION_NS_MIN: u64 = 100_000_000;
/// A clock that is behind gives each write to a group a timestamp one nanosecond after the one before: that many writes
/// of it are found after a restart.
const JUST_AFTER_NS: u64 = 1_000_000;

impl Store {
    /// Begins to record writes, in a store that has hubs. Writes that were made with a clock that was certainly wrong,
    /// before the store was opened, count as made at the start of the monotonic clock.
    pub(super) fn begin_unconfirmed(&mut self) {
        if !self.rules.has_hubs {
            return;
        }
        let node = self.identity.node;
        let mut state = self.unconfirmed.lock();
        let groups = state.groups.insert(HashMap::default());
        for entry in self.published.entries() {
            if let Some(first_ns) = first_of_wrong_clock(&entry.group, node) {
                let last_ns = entry.group.latest().time_ns;
                let writes =
                    UnconfirmedWrites { first_ns, last_ns, clock_ns: 0, monotonic_ns: 0, accepted_ns: Some(0) };
                groups.insert(entry.id().clone(), writes);
            }
        }
    }

    /// Records that the clock is known to be wrong. To be called after [`Store::open`], also in a store that has edges
    /// only.
    pub fn doubt_clock(&mut self) {
        let mut state = self.unconfirmed.lock();
        state.is_doubted = true;
        state.groups.get_or_insert_default();
    }

    /// The right time was `right_ns` when the monotonic clock showed `monotonic_ns`. Returns the corrections to be made
    /// with [`Store::correct`], and the writes of a clock that was ahead; later writes are not recorded any more.
    pub fn confirm_clock(&mut self, right_ns: u64, monotonic_ns: u64) -> ClockComparison {
        let mut state = self.unconfirmed.lock();
        state.is_doubted = false;
        let mut comparison = ClockComparison::default();
        for (id, writes) in state.groups.take().unwrap_or_default() {
            let since_ns = monotonic_ns.saturating_sub(writes.monotonic_ns);
            let Some(written_ns) = right_ns.checked_sub(since_ns) else { continue };
            let shift_ns = written_ns.saturating_sub(writes.last_ns);
            if shift_ns >= CORRECTION_NS_MIN {
                comparison.corrections.push(Correction { id, first_ns: writes.first_ns, shift_ns });
            }
            let ahead_ns = writes.clock_ns.saturating_sub(written_ns);
            if ahead_ns >= CORRECTION_NS_MIN {
                let AheadWrites { groups, ahead_ns: most_ns } = comparison.ahead;
                comparison.ahead = AheadWrites { groups: groups + 1, ahead_ns: most_ns.max(ahead_ns) };
            }
        }
        state.ahead += comparison.ahead.groups;
        comparison.corrections.sort_by(|a, b| a.id.cmp(&b.id));
        comparison
    }

    /// Makes this node's unconfirmed writes to a group later. Returns whether there are any.
    pub fn correct(&mut self, correction: &Correction) -> bool {
        let Correction { id, first_ns, shift_ns } = correction;
        let node: NodeId = self.identity.node;
        let Some(entry) = self.staged.get_to_set(id) else { return false };
        let is_wrong = |stamp: WriteTimestamp| stamp.node == node && stamp.time_ns >= *first_ns && !stamp.is_zero();
        let Some(change) = entry.group.restamped(is_wrong, *shift_ns) else { return false };
        let applied = self.apply(&entry, change, None, ConflictPolicy::SuppressAll);
        applied.expect("a conflict is suppressed, and the group is there");
        self.unconfirmed.note_corrected();
        true
    }

    /// Before a peer's change to a group is merged: if this node's own writes to it have timestamps of a clock that is
    /// known to be wrong, they become later than the change.
    pub(super) fn outlive(&mut self, id: &GroupId, other: WriteTimestamp) {
        if let Some(correction) = self.unconfirmed.after(id, other) {
            self.correct(&correction);
        }
    }
}

/// If the last write to a group was this node's, with a clock that was certainly wrong: the earliest time of such writes
/// to it. A group that has later timestamps of a right clock, or of other nodes, shows it by the time of the push, which
/// is that of the clock; the timestamps are then just after those others.
fn first_of_wrong_clock(group: &Group, node: NodeId) -> Option<u64> {
    let latest = group.latest();
    if latest.node != node || latest.is_zero() {
        return None;
    }
    if latest.time_ns < CLOCK_NS_MIN {
        return Some(0);
    }
    let pushed = [group.pushed(), group.failed()].into_iter().flatten().find(|time| time.stamp == latest)?;
    (pushed.wall_ns < CLOCK_NS_MIN).then_some(latest.time_ns - JUST_AFTER_NS)
}
