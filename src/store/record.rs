//! What a store writes to its disk and reads back: records, in transactions.

use std::sync::Arc;

use crate::model::{Epoch, Group, GroupId, LabelSet, NodeId, Position, Revision, StoreId, WriteTimestamp};

/// Bookkeeping of one family, or of a group's header (clear timestamp, deletion, times).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyMeta {
    /// When this store applied it.
    pub revision: Revision,
    /// The peer's store it came from, exactly as it stands; `None` if it was written here, or merged here of several
    /// writers' fields (headers only).
    pub origin: Option<StoreId>,
    /// Whether it is held back: kept, not shown, because it conflicts with what was there first.
    pub suppressed: bool,
}

/// The marks of a group's families, in their order. Mostly one change wrote them all, and then it is kept once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilyMetas {
    /// All families have this one.
    Same(FamilyMeta),
    /// They have these; some differ.
    Each(Box<[FamilyMeta]>),
}

impl FamilyMetas {
    /// The mark of the family at that place.
    pub fn get(&self, at: usize) -> FamilyMeta {
        match self {
            Self::Same(mark) => *mark,
            Self::Each(marks) => marks[at],
        }
    }
}

impl Default for FamilyMetas {
    /// Of no families, or of some that are not marked yet.
    fn default() -> Self {
        Self::Same(FamilyMeta::default())
    }
}

impl FromIterator<FamilyMeta> for FamilyMetas {
    fn from_iter<I: IntoIterator<Item = FamilyMeta>>(marks: I) -> Self {
        let mut builder = FamilyMetasBuilder::default();
        marks.into_iter().for_each(|mark| builder.push(mark));
        builder.finish()
    }
}

/// Makes [`FamilyMetas`] of one after the other.
#[derive(Default)]
pub(super) struct FamilyMetasBuilder {
    /// So many were this one.
    same: (usize, FamilyMeta),
    /// All, once some differ.
    each: Vec<FamilyMeta>,
}

impl FamilyMetasBuilder {
    pub(super) fn push(&mut self, mark: FamilyMeta) {
        match &mut self.same {
            _ if !self.each.is_empty() => self.each.push(mark),
            (0, same) => *same = mark,
            (len, same) if *same != mark => self.each.extend(std::iter::repeat_n(*same, *len).chain([mark])),
            _ => {}
        }
        self.same.0 += 1;
    }

    pub(super) fn finish(self) -> FamilyMetas {
        if self.each.is_empty() { FamilyMetas::Same(self.same.1) } else { FamilyMetas::Each(self.each.into()) }
    }
}

/// A change to a group, or a whole group: the same thing, merged when read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Which group.
    pub id: GroupId,
    /// What changed, by the law of [`crate::model::group`].
    pub group: Group,
    /// The mark of the header.
    pub header: FamilyMeta,
    /// The marks of the families.
    pub families: FamilyMetas,
}

/// What a store holds of a peer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCursor {
    /// All changes up to here.
    pub position: Position,
    /// The place under which they were merged: under another, nothing is held yet.
    pub site: Arc<LabelSet>,
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
    /// A tombstone was dropped; stamps stay later than `stamp`.
    Forgotten {
        /// Which group.
        id: GroupId,
        /// Its latest stamp.
        stamp: WriteTimestamp,
        /// The revision of its last change: who holds less of this store must resync with it.
        revision: Revision,
    },
    /// All changes of a peer's store up to this position are here.
    Cursor {
        /// The peer's store.
        peer: StoreId,
        /// What is held of it.
        cursor: PeerCursor,
    },
}

/// Who a store is; written when it is created, and never changed but by a repair that lost something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The store.
    pub store: StoreId,
    /// The node that stamps.
    pub node: NodeId,
}
