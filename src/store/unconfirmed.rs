//! Writes whose timestamps were made before this node's clock was compared with that of a peer.
//!
//! A clock that starts far in the past gives a push an earlier write timestamp than an older push has that only the
//! peer knows: the older one would win, although the newer one was answered. So a store that has peers records the
//! groups that it writes to, with the reading of the monotonic clock, until a comparison confirms the right time
//! (`corrections`). Then the writes get the timestamps that a right clock would have given them.
//!
//! Until then, a clock that is known to be wrong (`corrections`) cannot decide at all: if a peer sends a later
//! write to such a group, this node's own one is made later still, because it was answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use crate::model::{GroupId, STAMP_NS_MAX, WriteTimestamp};

/// A clock that shows an earlier time, in nanoseconds since the Unix epoch, is wrong: 2023-01-01, before this program.
pub const CLOCK_NS_MIN: u64 = 1_672_531_200_000_000_000;

/// The groups written to since the start whose write timestamps are not confirmed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Unconfirmed(Arc<Mutex<ClockState>>);

#[derive(Debug, Default)]
pub(super) struct ClockState {
    /// `None` once the clock is confirmed, and in a store without peers.
    pub(super) groups: Option<HashMap<GroupId, UnconfirmedWrites>>,
    /// The clock is known to be wrong.
    pub(super) is_doubted: bool,
    /// Groups whose write timestamps were corrected.
    corrected: u64,
    /// Groups with writes of a clock that was ahead.
    pub(super) ahead: u64,
    /// Corrections of the draft.
    corrected_drafted: u64,
    /// The last times that the draft has changed, as they were, oldest first.
    last_drafted: Vec<(GroupId, u64)>,
}

/// The unconfirmed writes to one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnconfirmedWrites {
    /// The time of the first timestamp; this node's later ones in the group are unconfirmed too.
    pub(super) first_ns: u64,
    /// The time of the last timestamp.
    pub(super) last_ns: u64,
    /// The time of the last write by this node's clock.
    pub(super) clock_ns: u64,
    /// The monotonic clock at the last write.
    pub(super) monotonic_ns: u64,
    /// The monotonic clock at the last accepted push; `None` if none was accepted since the start.
    pub(super) accepted_ns: Option<u64>,
}

/// The outcome of a comparison of this node's clock with the right time.
#[derive(Debug, Default)]
pub struct ClockComparison {
    /// The corrections to be made with [`Store::correct`](super::Store::correct).
    pub corrections: Vec<Correction>,
    /// The writes of a clock that was ahead, which nothing can correct.
    pub ahead: AheadWrites,
}

/// Groups with writes of a clock that was ahead. A write timestamp cannot become earlier: others may have seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AheadWrites {
    /// The number of groups.
    pub groups: u64,
    /// The longest time by which the clock was ahead, in nanoseconds.
    pub ahead_ns: u64,
}

/// A correction of one group's write timestamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    pub(super) id: GroupId,
    pub(super) first_ns: u64,
    pub(super) shift_ns: u64,
}

impl Correction {
    /// The time by which the timestamps become later.
    pub fn shift_ns(&self) -> u64 {
        self.shift_ns
    }
}

impl Unconfirmed {
    pub(super) fn lock(&self) -> MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().groups.as_ref().map_or(0, |groups| groups.len())
    }

    pub(super) fn contains(&self, id: &GroupId) -> bool {
        self.lock().groups.as_ref().is_some_and(|groups| groups.contains_key(id))
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.lock().groups.is_none()
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.lock().is_doubted
    }

    pub(super) fn corrected(&self) -> u64 {
        self.lock().corrected
    }

    pub(super) fn ahead(&self) -> u64 {
        self.lock().ahead
    }

    /// Counts a correction of the draft.
    pub(super) fn note_corrected(&self) {
        self.lock().corrected_drafted += 1;
    }

    /// The draft is durable.
    pub(super) fn commit(&self) {
        let mut state = self.lock();
        state.corrected += std::mem::take(&mut state.corrected_drafted);
        state.last_drafted.clear();
    }

    /// The draft is discarded, and with it the timestamps of its corrections.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.corrected_drafted = 0;
        let ClockState { groups, last_drafted, .. } = &mut *state;
        for (id, last_ns) in last_drafted.drain(..).rev() {
            if let Some(writes) = groups.as_mut().and_then(|groups| groups.get_mut(&id)) {
                writes.last_ns = last_ns;
            }
        }
    }

    /// Records a write. The number of groups is bounded by that of the store.
    pub(super) fn note(&self, id: &GroupId, stamp_ns: u64, clock_ns: u64, monotonic_ns: u64) {
        let mut state = self.lock();
        let Some(groups) = &mut state.groups else { return };
        let before = groups.get(id);
        let first_ns = before.map_or(stamp_ns, |writes| writes.first_ns);
        let accepted_ns = before.and_then(|writes| writes.accepted_ns);
        let writes = UnconfirmedWrites { first_ns, last_ns: stamp_ns, clock_ns, monotonic_ns, accepted_ns };
        match groups.get_mut(id) {
            Some(present) => *present = writes,
            None => drop(groups.insert(id.clone(), writes)),
        }
    }

    /// Records that a write was an accepted push.
    pub(super) fn note_accepted(&self, id: &GroupId, monotonic_ns: u64) {
        if let Some(writes) = self.lock().groups.as_mut().and_then(|groups| groups.get_mut(id)) {
            writes.accepted_ns = Some(monotonic_ns);
        }
    }

    /// The monotonic clock at the last accepted push to a group, if its timestamp is not confirmed.
    pub(super) fn accepted_ns(&self, id: &GroupId) -> Option<u64> {
        self.lock().groups.as_ref()?.get(id)?.accepted_ns
    }

    /// The correction that makes this node's writes to a group later than `other`, if the clock is doubted.
    pub(super) fn after(&self, id: &GroupId, other: WriteTimestamp) -> Option<Correction> {
        let mut state = self.lock();
        let ClockState { is_doubted: true, groups, last_drafted, .. } = &mut *state else { return None };
        let writes = groups.as_mut()?.get_mut(id)?;
        let shift_ns = other.time_ns.checked_sub(writes.last_ns)?.saturating_add(1);
        let first_ns = writes.first_ns;
        last_drafted.push((id.clone(), writes.last_ns));
        writes.last_ns = writes.last_ns.saturating_add(shift_ns).min(STAMP_NS_MAX);
        Some(Correction { id: id.clone(), first_ns, shift_ns })
    }
}
