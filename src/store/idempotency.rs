//! The keys of pushes that add: a repeat is answered as the first one, and adds nothing.
//!
//! Windows end by the monotonic clock, so a wall clock that is set forward ends none of them. Only across a restart the
//! wall clock decides: it says how much of a window had passed when the process began to look for keys. A key from later
//! than that gets a whole window.

use std::collections::{HashMap, VecDeque};

use super::record::KeyRecord;

/// How long a key is remembered, unless the configuration says otherwise: ten minutes.
pub const IDEMPOTENCY_WINDOW_NS: u64 = 600 * 1_000_000_000;
/// Keys remembered at once, at most. Further pushes with new keys are refused meanwhile.
pub const IDEMPOTENCY_KEYS_MAX: usize = 1_000_000;

/// The key of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The digest of the group and the key.
    pub key: u128,
    /// The digest of the body.
    pub body: u128,
}

/// Two clocks at the same moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyTime {
    /// The clock of this node, since the Unix epoch.
    pub(super) wall_ns: u64,
    /// The monotonic clock.
    pub(super) monotonic_ns: u64,
}

/// The relation of a push to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyState {
    /// Its key is new.
    New,
    /// The same push was applied.
    Applied,
    /// Another push with its key was applied.
    OfAnotherBody,
    /// Its key is new, but no more keys can be remembered.
    Full,
}

/// The keys of the last pushes.
#[derive(Debug)]
pub(super) struct IdempotencyKeys {
    by_key: HashMap<u128, Remembered>,
    /// The keys in the order in which they were applied.
    order: VecDeque<u128>,
    /// The last ones that are not durable yet.
    drafted: usize,
    /// The time of the first look-up of this process.
    begun: Option<KeyTime>,
    window_ns: u64,
    len_max: usize,
}

/// A key that is remembered.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    record: KeyRecord,
    /// The monotonic clock when it was applied; `None` if that was before the process began.
    applied_ns: Option<u64>,
}

impl IdempotencyKeys {
    /// No keys; they are remembered for that time.
    pub(super) fn new(window_ns: u64) -> Self {
        let (by_key, order) = (HashMap::new(), VecDeque::new());
        Self { by_key, order, drafted: 0, begun: None, window_ns, len_max: IDEMPOTENCY_KEYS_MAX }
    }

    /// Looks for the key of a push, after dropping those whose window is over.
    pub(super) fn look_up(&mut self, IdempotencyKey { key, body }: IdempotencyKey, now: KeyTime) -> KeyState {
        let begun = *self.begun.get_or_insert(now);
        let window_ns = self.window_ns;
        let is_over = |remembered: &Remembered| {
            let (since_ns, before_ns) = match remembered.applied_ns {
                Some(applied_ns) => (applied_ns, 0),
                None => (begun.monotonic_ns, begun.wall_ns.saturating_sub(remembered.record.time_ns)),
            };
            now.monotonic_ns.saturating_sub(since_ns).saturating_add(before_ns) >= window_ns
        };
        while self.order.len() > self.drafted
            && let Some(first) = self.order.front()
            && self.by_key.get(first).is_none_or(is_over)
        {
            self.by_key.remove(first);
            self.order.pop_front();
        }
        match self.by_key.get(&key).filter(|remembered| !is_over(remembered)) {
            Some(Remembered { record, .. }) if record.body == body => KeyState::Applied,
            Some(_) => KeyState::OfAnotherBody,
            None if self.order.len() >= self.len_max => KeyState::Full,
            None => KeyState::New,
        }
    }

    /// Drafts a key that is new, and that is applied when the monotonic clock shows `applied_ns`.
    pub(super) fn draft(&mut self, record: KeyRecord, applied_ns: u64) {
        self.by_key.insert(record.key, Remembered { record, applied_ns: Some(applied_ns) });
        self.order.push_back(record.key);
        self.drafted += 1;
    }

    pub(super) fn commit(&mut self) {
        self.drafted = 0;
    }

    /// The number of keys that are remembered.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Forgets the keys of the draft.
    pub(super) fn abort(&mut self) {
        for _ in 0..std::mem::take(&mut self.drafted) {
            self.order.pop_back().map(|key| self.by_key.remove(&key));
        }
    }

    /// Adds a key of the disk. The oldest ones make room.
    pub(super) fn restore(&mut self, record: KeyRecord) {
        if self.by_key.insert(record.key, Remembered { record, applied_ns: None }).is_none() {
            self.order.push_back(record.key);
        }
        if self.order.len() > self.len_max {
            self.order.pop_front().map(|key| self.by_key.remove(&key));
        }
    }

    /// The keys in the order in which they were applied, those of the draft excluded.
    pub(super) fn durable(&self) -> Vec<KeyRecord> {
        let keys = self.order.iter().take(self.order.len() - self.drafted);
        keys.filter_map(|key| Some(self.by_key.get(key)?.record)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;

    fn record(key: u128, time_ns: u64) -> KeyRecord {
        KeyRecord { key, body: key + 1, time_ns, revision: Revision(1) }
    }

    fn at(wall_ns: u64, monotonic_ns: u64) -> KeyTime {
        KeyTime { wall_ns, monotonic_ns }
    }

    fn state(keys: &mut IdempotencyKeys, key: u128, body: u128, ns: u64) -> KeyState {
        keys.look_up(IdempotencyKey { key, body }, at(ns, ns))
    }

    #[test]
    fn a_key_is_known_until_its_window_is_over() {
        let mut keys = IdempotencyKeys::new(10);
        assert_eq!(state(&mut keys, 1, 2, 5), KeyState::New);
        keys.draft(record(1, 5), 5);
        assert_eq!(state(&mut keys, 1, 2, 5), KeyState::Applied, "in one transaction, too");
        assert_eq!(state(&mut keys, 1, 3, 5), KeyState::OfAnotherBody);
        keys.abort();
        assert_eq!(state(&mut keys, 1, 2, 5), KeyState::New, "the first one was not durable");
        keys.draft(record(1, 5), 5);
        keys.commit();
        assert_eq!(state(&mut keys, 1, 2, 14), KeyState::Applied);
        assert_eq!((state(&mut keys, 1, 2, 15), keys.by_key.len(), keys.order.len()), (KeyState::New, 0, 0));
    }

    #[test]
    fn a_clock_that_is_set_ends_no_window() {
        let mut keys = IdempotencyKeys::new(10);
        keys.draft(record(1, 1_000), 20);
        keys.commit();
        let key = IdempotencyKey { key: 1, body: 2 };
        for wall_ns in [1_000, 9_000, 5] {
            assert_eq!(keys.look_up(key, at(wall_ns, 29)), KeyState::Applied, "the clock shows {wall_ns}");
        }
        assert_eq!((keys.look_up(key, at(1_000, 30)), keys.order.len()), (KeyState::New, 0));
    }

    #[test]
    fn a_window_goes_on_after_a_restart_and_no_key_is_kept_for_years() {
        let restored = |wall_ns: u64| {
            let mut keys = IdempotencyKeys::new(10);
            keys.restore(record(1, 1_000));
            // Another push shows when the process began.
            keys.look_up(IdempotencyKey { key: 7, body: 7 }, at(wall_ns, 100));
            keys
        };
        let key = IdempotencyKey { key: 1, body: 2 };
        // The wall clock at the start, and the time that is left of the window.
        for (begun_ns, left_ns) in [(1_000, 10), (1_004, 6), (5, 10)] {
            let last_ns = 100 + left_ns - 1;
            assert_eq!(restored(begun_ns).look_up(key, at(9_000, last_ns)), KeyState::Applied, "{begun_ns}");
            let mut keys = restored(begun_ns);
            assert_eq!((keys.look_up(key, at(5, last_ns + 1)), keys.order.len()), (KeyState::New, 0), "{begun_ns}");
        }
        assert_eq!(restored(1_010).look_up(key, at(1_010, 100)), KeyState::New);
    }

    #[test]
    fn keys_are_bounded() {
        let mut keys = IdempotencyKeys { len_max: 2, ..IdempotencyKeys::new(10) };
        for key in 0..2 {
            keys.draft(record(key, 5), 5);
        }
        keys.commit();
        assert_eq!([state(&mut keys, 9, 0, 6), state(&mut keys, 1, 2, 6)], [KeyState::Full, KeyState::Applied]);
        keys.restore(record(2, 7));
        assert_eq!(keys.durable(), [record(1, 5), record(2, 7)]);
        assert_eq!(state(&mut keys, 9, 0, 17), KeyState::New);
    }
}
