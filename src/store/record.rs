//! The records that a store writes to its disk and reads back, in transactions.

use std::sync::Arc;

use crate::model::{Epoch, Group, GroupId, LabelSet, NodeId, Position, Revision, StoreId, WriteTimestamp};

/// Bookkeeping of one family, or of a group's header (clear timestamp, deletion, push times).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyMeta {
    /// The revision at which this store applied it.
    pub revision: Revision,
    /// The peer's store from which it came exactly as it is; `None` if it was written here, or (headers only) merged
    /// here from fields of several writers.
    pub origin: Option<StoreId>,
    /// Whether it is suppressed: stored, but not shown, because it conflicts with an earlier family.
    pub suppressed: bool,
}

/// The bookkeeping of a group's families, in their order. Mostly one change wrote all families; then it is stored once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilyMetas {
    /// All families have this one.
    Same(FamilyMeta),
    /// One for each family; they differ.
    Each(Box<[FamilyMeta]>),
}

impl FamilyMetas {
    /// The bookkeeping of the family at that index.
    pub fn get(&self, at: usize) -> FamilyMeta {
        match self {
            Self::Same(meta) => *meta,
            Self::Each(metas) => metas[at],
        }
    }
}

impl Default for FamilyMetas {
    /// For no families, or for families without bookkeeping yet.
    fn default() -> Self {
        Self::Same(FamilyMeta::default())
    }
}

impl FromIterator<FamilyMeta> for FamilyMetas {
    fn from_iter<I: IntoIterator<Item = FamilyMeta>>(metas: I) -> Self {
        let mut builder = FamilyMetasBuilder::default();
        metas.into_iter().for_each(|meta| builder.push(meta));
        builder.finish()
    }
}

/// Builds [`FamilyMetas`] one by one.
#[derive(Default)]
pub(super) struct FamilyMetasBuilder {
    /// The number of families so far, and the bookkeeping of all of them, unless `each` is used.
    same: (usize, FamilyMeta),
    /// The bookkeeping of each family, once they differ.
    each: Vec<FamilyMeta>,
}

impl FamilyMetasBuilder {
    pub(super) fn push(&mut self, meta: FamilyMeta) {
        match &mut self.same {
            _ if !self.each.is_empty() => self.each.push(meta),
            (0, same) => *same = meta,
            (len, same) if *same != meta => self.each.extend(std::iter::repeat_n(*same, *len).chain([meta])),
            _ => {}
        }
        self.same.0 += 1;
    }

    pub(super) fn finish(self) -> FamilyMetas {
        if self.each.is_empty() { FamilyMetas::Same(self.same.1) } else { FamilyMetas::Each(self.each.into()) }
    }
}

/// A change to a group, or a whole group. Reading it back merges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Which group.
    pub id: GroupId,
    /// The change, merged by the rules of [`crate::model::group`].
    pub group: Group,
    /// The bookkeeping of the header.
    pub header: FamilyMeta,
    /// The bookkeeping of the families.
    pub families: FamilyMetas,
}

/// How far this store has the changes of a peer's store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCursor {
    /// The position up to which it has all changes.
    pub position: Position,
    /// The site under which the changes were merged. Under another site, this store has none of them.
    pub site: Arc<LabelSet>,
}

/// A push with an `Idempotency-Key` that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The digest of the group and the key.
    pub key: u128,
    /// The digest of the body.
    pub body: u128,
    /// When it was applied, by the clock of this node, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// A revision of its own. It changes no group.
    pub revision: Revision,
}

/// One entry of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The store was opened: from here on its positions have this epoch.
    Opened {
        /// The epoch.
        epoch: Epoch,
        /// The store's revision then.
        revision: Revision,
    },
    /// A group changed.
    Group(GroupRecord),
    /// A tombstone was dropped. Later write timestamps stay after `stamp`.
    Forgotten {
        /// Which group.
        id: GroupId,
        /// The group's latest write timestamp.
        stamp: WriteTimestamp,
        /// The revision of its last change: who holds less of this store must resync with it.
        revision: Revision,
    },
    /// All changes of a peer's store up to this position are here.
    Cursor {
        /// The peer's store.
        peer: StoreId,
        /// How far this store has its changes.
        cursor: PeerCursor,
    },
    /// A push with an `Idempotency-Key` was applied.
    Key(KeyRecord),
}

/// The identity of a store. It is written when the store is created, and changes only in a repair that lost data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The store's id.
    pub store: StoreId,
    /// The node's id in write timestamps.
    pub node: NodeId,
}
