//! What an update carries: groups, or parts of them, under their grouping keys.

use crate::model::{Group, GroupId};

/// Groups in one update, at most.
pub const GROUPS_MAX: usize = 65_536;
/// Families in one update, at most.
pub const FAMILIES_MAX: usize = 262_144;
/// Values in one update, at most: what a push of 64 MiB can hold.
pub const VALUES_MAX: usize = 8 << 20;

/// A change to one group: what [`Group::merge`] takes.
///
/// The place of the id does not travel: an edge sends its own groups, and the hub adds the place of the session. A
/// decoded delta has the empty place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Which group.
    pub id: GroupId,
    /// What changed: some of its families, and all of its header.
    pub group: Group,
}

/// What a delta may cost in an update, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub groups: usize,
    pub families: usize,
    pub values: usize,
    pub bytes: usize,
}

impl Cost {
    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            groups: self.groups + other.groups,
            families: self.families + other.families,
            values: self.values + other.values,
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub fn fits(self, bytes_max: usize) -> bool {
        self.groups <= GROUPS_MAX
            && self.families <= FAMILIES_MAX
            && self.values <= VALUES_MAX
            && self.bytes <= bytes_max
    }
}
