//! Write timestamps, which order writes between nodes, and revisions, which order changes within one store.

use std::fmt;

/// A node's identity in write timestamps. It orders writes of the same instant. It is random, drawn when the store is
/// created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// The time of a write: nanoseconds since the Unix epoch, then the node that wrote. Each is later than all that its
/// node has seen for the group.
///
/// The zero timestamp is before every write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteTimestamp {
    /// Nanoseconds since the Unix epoch, corrected by the clock offset to the hub.
    pub time_ns: u64,
    /// The node that wrote.
    pub node: NodeId,
}

/// The latest time of a write timestamp, in the year 2262. Peers accept none that is later, and a node makes none.
pub const STAMP_NS_MAX: u64 = i64::MAX as u64;

impl WriteTimestamp {
    /// The timestamp before every write.
    pub const ZERO: WriteTimestamp = WriteTimestamp { time_ns: 0, node: NodeId(0) };

    /// A timestamp of `node` at `now_ns`, or just after `seen` if the clock is behind it. If a hostile peer has used
    /// [`STAMP_NS_MAX`], no write can be later; the greater node id then decides.
    pub fn after(now_ns: u64, seen: WriteTimestamp, node: NodeId) -> WriteTimestamp {
        WriteTimestamp { time_ns: now_ns.max(seen.time_ns.saturating_add(1)).min(STAMP_NS_MAX), node }
    }

    /// The next timestamp: no other is between the two. `None` after the last one.
    pub fn next(self) -> Option<WriteTimestamp> {
        let WriteTimestamp { time_ns, node: NodeId(node) } = self;
        match node.checked_add(1) {
            Some(node) => Some(WriteTimestamp { time_ns, node: NodeId(node) }),
            None => (time_ns < STAMP_NS_MAX).then_some(WriteTimestamp { time_ns: time_ns + 1, node: NodeId(0) }),
        }
    }

    /// Whether this is [`WriteTimestamp::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

/// The order in which one store applied changes; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision that follows.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

/// A store's identity, drawn at random when it is created. A copy of the files keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub u64);

/// One opening of a store, with a random number. Two copies of a store, or a store and its rolled-back self, have
/// different epochs as soon as they are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A point in a store's history: a revision, and the epoch in which the store reached it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The epoch.
    pub epoch: Epoch,
    /// The revision.
    pub revision: Revision,
}

macro_rules! hex_display {
    ($($id:ident),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    )*};
}
hex_display!(NodeId, StoreId, Epoch);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_between_a_timestamp_and_the_next() {
        let stamp = |time_ns, node| WriteTimestamp { time_ns, node: NodeId(node) };
        assert_eq!(stamp(7, 3).next(), Some(stamp(7, 4)));
        assert_eq!(stamp(7, u64::MAX).next(), Some(stamp(8, 0)));
        assert_eq!(stamp(STAMP_NS_MAX, 3).next(), Some(stamp(STAMP_NS_MAX, 4)));
        assert_eq!(stamp(STAMP_NS_MAX, u64::MAX).next(), None);
    }

    #[test]
    fn a_timestamp_is_later_than_those_seen_whatever_the_clock_says() {
        let seen = WriteTimestamp { time_ns: 1_000, node: NodeId(9) };
        assert!(WriteTimestamp::after(10, seen, NodeId(1)) > seen);
        assert_eq!(WriteTimestamp::after(2_000, seen, NodeId(1)).time_ns, 2_000);
        let end = WriteTimestamp { time_ns: STAMP_NS_MAX, node: NodeId(9) };
        assert_eq!(WriteTimestamp::after(10, end, NodeId(1)).time_ns, STAMP_NS_MAX, "no later than peers take");
        assert_eq!(WriteTimestamp::after(u64::MAX, seen, NodeId(1)).time_ns, STAMP_NS_MAX);
    }
}
