//! The orders in which groups are listed, the largest first: who pushes most, and which groups are largest.

use crate::store::GroupEntry;

/// An order of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupSort {
    /// Pushes and changes over links in the last minute.
    Rate,
    /// Pushes since the node's start, and changes over links.
    Pushes,
    /// Bytes of these pushes.
    Bytes,
    /// Series that the group has, shown or not.
    Series,
    /// Refused pushes.
    Refused,
}

impl GroupSort {
    /// All of them, with their names in a query.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Rate, "rate"),
        (Self::Pushes, "pushes"),
        (Self::Bytes, "bytes"),
        (Self::Series, "series"),
        (Self::Refused, "refused"),
    ];

    /// The order of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(sort, _)| sort)
    }

    /// The number by which a group is ordered.
    pub fn weight(self, entry: &GroupEntry, now_ns: u64) -> u64 {
        let activity = entry.activity();
        match self {
            Self::Rate => activity.per_minute(now_ns).into(),
            Self::Pushes => activity.pushes.saturating_add(activity.updates),
            Self::Bytes => activity.bytes,
            Self::Series => {
                entry.group.families().iter().map(|family| family.family.schema().series_len() as u64).sum()
            }
            Self::Refused => activity.refused,
        }
    }
}
