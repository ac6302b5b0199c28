//! The contents of an update: groups, or parts of groups, under their grouping keys.

use crate::model::bytes::number_len;
use crate::model::{Family, Group, GroupId, encoded_len_max};

/// Groups in one update, at most.
pub const GROUPS_MAX: usize = 65_536;
/// Families in one update, at most.
pub const FAMILIES_MAX: usize = 262_144;
/// Values in one update, at most: as many as a push of 64 MiB can have.
pub const VALUES_MAX: usize = 8 << 20;

/// A change to one group, for [`Group::merge`].
///
/// The site of the id is not sent: an edge sends its own groups, and the hub adds the site of the session. A decoded
/// delta has an empty site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The group's id.
    pub id: GroupId,
    /// The change: some of the group's families, and its whole header.
    pub group: Group,
}

/// The share of an update's bounds that deltas take. Bytes are an upper bound of the bytes on the wire before
/// compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    groups: usize,
    families: usize,
    values: usize,
    bytes: usize,
}

/// Bytes of an update without deltas, at most.
const UPDATE_BYTES: usize = 128;
/// Bytes of a group without key and families, at most: number, flags, stamps, walls and lifetime.
const GROUP_BYTES: usize = 208;
/// Bytes of a family without schema, values and raw metrics, at most.
const FAMILY_BYTES: usize = 64;
/// Bytes of a value, at most: eight, either raw or as the difference of two mantissas of at most 2^53, and two for a
/// run of its own.
const VALUE_BYTES: usize = 10;
/// Bytes of a length, at most.
const LENGTH_BYTES: usize = 10;

impl Cost {
    /// The cost of a group's key and header.
    pub fn of_header(delta: &Delta) -> Cost {
        let labels = delta.id.key.iter().map(|label| label.name.len() + label.value.len() + 2 * LENGTH_BYTES);
        Cost { groups: 1, bytes: GROUP_BYTES + labels.sum::<usize>(), ..Cost::default() }
    }

    /// The cost of a family. It is the maximum, since the sender does not know here what the peer already has of the
    /// family.
    pub fn of_family(family: &Family) -> Cost {
        let raw_metrics = family.raw_metrics().map_or(0, |o| o.iter().map(|o| number_len(o.len()) + o.len()).sum());
        let values = family.values().len();
        let bytes = FAMILY_BYTES + encoded_len_max(family.schema()) + VALUE_BYTES * values + raw_metrics;
        Cost { families: 1, values, bytes, ..Cost::default() }
    }

    /// The sum of two costs.
    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            groups: self.groups + other.groups,
            families: self.families + other.families,
            values: self.values + other.values,
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Whether an update of at most `bytes_max` bytes can carry this.
    pub fn fits(self, bytes_max: usize) -> bool {
        self.groups <= GROUPS_MAX
            && self.families <= FAMILIES_MAX
            && self.values <= VALUES_MAX
            && self.bytes.saturating_add(UPDATE_BYTES) <= bytes_max
    }

    /// Bytes on the wire before compression, at most.
    pub fn bytes(self) -> usize {
        self.bytes
    }
}
