//! The kinds of servers that are compared.

use crate::peers::Peers;

/// A kind of server, as it heads a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pushgateway with its defaults.
    Checked,
    /// Pushgateway that does not check pushes.
    Unchecked,
    /// vmagent, forwarding to VictoriaMetrics.
    Vmagent,
    /// The floor with its log.
    FloorSynced,
    /// The floor without a log.
    Floor,
    /// Edge and hub with their defaults.
    Ours,
    /// Edge and hub without a disk.
    OursInMemory,
}

impl Kind {
    /// In the order of the columns.
    pub const ALL: [Kind; 7] =
        [Self::Checked, Self::Unchecked, Self::Vmagent, Self::FloorSynced, Self::Floor, Self::Ours, Self::OursInMemory];

    /// The column's head, and the name for `--servers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checked => "pushgateway",
            Self::Unchecked => "pushgateway-unchecked",
            Self::Vmagent => "vmagent",
            Self::FloorSynced => "floor-synced",
            Self::Floor => "floor",
            Self::Ours => "pushrelay",
            Self::OursInMemory => "pushrelay-in-memory",
        }
    }

    /// Whether this is pushrelay.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursInMemory)
    }

    /// Whether its binaries are there.
    pub fn is_present(self, peers: &Peers) -> bool {
        match self {
            Self::Checked | Self::Unchecked => peers.pushgateway.is_some(),
            Self::Vmagent => peers.vmagent.is_some() && peers.victoria_metrics.is_some(),
            Self::FloorSynced | Self::Floor => true,
            Self::Ours | Self::OursInMemory => peers.ours.is_some(),
        }
    }
}
