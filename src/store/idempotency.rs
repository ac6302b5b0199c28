//! The keys of pushes that add: a repeat is answered as the first one, and adds nothing.

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
    by_key: HashMap<u128, KeyRecord>,
    /// The keys in the order in which they were applied.
    order: VecDeque<u128>,
    /// The last ones that are not durable yet.
    drafted: usize,
    window_ns: u64,
    len_max: usize,
}

impl IdempotencyKeys {
    /// No keys; they are remembered for that time.
    pub(super) fn new(window_ns: u64) -> Self {
        let (by_key, order) = (HashMap::new(), VecDeque::new());
        Self { by_key, order, drafted: 0, window_ns, len_max: IDEMPOTENCY_KEYS_MAX }
    }

    /// Looks for the key of a push, after dropping those whose window is over.
    pub(super) fn look_up(&mut self, IdempotencyKey { key, body }: IdempotencyKey, now_ns: u64) -> KeyState {
        // A time far ahead is of a clock that was set back since.
        let is_over = |record: &KeyRecord| record.time_ns.abs_diff(now_ns) >= self.window_ns;
        while self.order.len() > self.drafted
            && let Some(first) = self.order.front()
            && self.by_key.get(first).is_none_or(is_over)
        {
            self.by_key.remove(first);
            self.order.pop_front();
        }
        match self.by_key.get(&key).filter(|record| !is_over(record)) {
            Some(record) if record.body == body => KeyState::Applied,
            Some(_) => KeyState::OfAnotherBody,
            None if self.order.len() >= self.len_max => KeyState::Full,
            None => KeyState::New,
        }
    }

    /// Drafts a key that is new.
    pub(super) fn draft(&mut self, record: KeyRecord) {
        self.by_key.insert(record.key, record);
        self.order.push_back(record.key);
        self.drafted += 1;
    }

    pub(super) fn commit(&mut self) {
        self.drafted = 0;
    }

    /// Forgets the keys of the draft.
    pub(super) fn abort(&mut self) {
        for _ in 0..std::mem::take(&mut self.drafted) {
            self.order.pop_back().map(|key| self.by_key.remove(&key));
        }
    }

    /// Adds a key of the disk. The oldest ones make room.
    pub(super) fn restore(&mut self, record: KeyRecord) {
        if self.by_key.insert(record.key, record).is_none() {
            self.order.push_back(record.key);
        }
        if self.order.len() > self.len_max {
            self.order.pop_front().map(|key| self.by_key.remove(&key));
        }
    }

    /// The keys in the order in which they were applied, those of the draft excluded.
    pub(super) fn durable(&self) -> Vec<KeyRecord> {
        let keys = self.order.iter().take(self.order.len() - self.drafted);
        keys.filter_map(|key| self.by_key.get(key).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;

    fn record(key: u128, time_ns: u64) -> KeyRecord {
        KeyRecord { key, body: key + 1, time_ns, revision: Revision(1) }
    }

    fn state(keys: &mut IdempotencyKeys, key: u128, body: u128, now_ns: u64) -> KeyState {
        keys.look_up(IdempotencyKey { key, body }, now_ns)
    }

    #[test]
    fn a_key_is_known_until_its_window_is_over() {
        let mut keys = IdempotencyKeys::new(10);
        assert_eq!(state(&mut keys, 1, 2, 5), KeyState::New);
        keys.draft(record(1, 5));
        assert_eq!(state(&mut keys, 1, 2, 5), KeyState::Applied, "in one transaction, too");
        assert_eq!(state(&mut keys, 1, 3, 5), KeyState::OfAnotherBody);
        keys.abort();
        assert_eq!(state(&mut keys, 1, 2, 5), KeyState::New, "the first one was not durable");
        keys.draft(record(1, 5));
        keys.commit();
        assert_eq!(state(&mut keys, 1, 2, 14), KeyState::Applied);
        assert_eq!((state(&mut keys, 1, 2, 15), keys.by_key.len(), keys.order.len()), (KeyState::New, 0, 0));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_key_for_years() {
        let mut keys = IdempotencyKeys::new(10);
        keys.draft(record(1, 1_000));
        keys.commit();
        assert_eq!(state(&mut keys, 1, 2, 995), KeyState::Applied, "within the window");
        assert_eq!((state(&mut keys, 1, 2, 5), keys.order.len()), (KeyState::New, 0));
    }

    #[test]
    fn keys_are_bounded() {
        let mut keys = IdempotencyKeys { len_max: 2, ..IdempotencyKeys::new(10) };
        for key in 0..2 {
            keys.draft(record(key, 5));
        }
        keys.commit();
        assert_eq!([state(&mut keys, 9, 0, 6), state(&mut keys, 1, 2, 6)], [KeyState::Full, KeyState::Applied]);
        keys.restore(record(2, 7));
        assert_eq!(keys.durable(), [record(1, 5), record(2, 7)]);
        assert_eq!(state(&mut keys, 9, 0, 15), KeyState::New);
    }
}
