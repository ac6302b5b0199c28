//! Whether two stores may resume from their cursors.
//!
//! A position is a point in a store's history. It is still a point of that history if the store's lineage reached the
//! revision in that epoch: rolled-back, copied, wiped and new stores all lack it. The position must also not lie before a
//! tombstone that the store has dropped since. Otherwise an edge that was away for longer than a hub keeps tombstones, or a
//! hub that was rolled back behind its own acks, would never learn of that delete. Both ends resume only if each end's
//! cursor for the other is valid; otherwise both resync, because one end may have left out changes that the other lost.

use crate::model::{Epoch, Position, Revision};
use crate::wire::PeerInfo;

/// Whether the store passed through a position, and still has every change made since.
///
/// An epoch covers the revisions from its start up to the start of the next epoch, both included: nothing is written
/// between two epochs.
pub fn covers(info: &PeerInfo, position: Position) -> bool {
    let (epochs, head) = (&info.epochs, info.head);
    let Some(at) = epochs.iter().position(|start| start.epoch == position.epoch) else {
        return false;
    };
    let end = epochs.get(at + 1).map_or(head, |next| next.revision);
    let passed = epochs[at].revision <= position.revision && position.revision <= end.min(head);
    passed && position.epoch != Epoch(0) && position.revision >= info.gc_watermark
}

/// The revisions from which the two resume: (`b`'s cursor for `a`, `a`'s cursor for `b`); `None` if they must resync.
pub fn resume(a: &PeerInfo, b: &PeerInfo) -> Option<(Revision, Revision)> {
    let (of_a, of_b) = (b.cursor_for(a.store)?, a.cursor_for(b.store)?);
    let good = covers(a, of_a) && covers(b, of_b);
    good.then_some((of_a.revision, of_b.revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StoreId;
    use crate::wire::{EpochStart, StoreCursor};

    fn info(store: u64, starts: &[(u64, u64)], head: u64, cursors: &[(u64, Position)]) -> PeerInfo {
        PeerInfo {
            node: String::new(),
            software: String::new(),
            store: StoreId(store),
            epochs: starts.iter().map(|(e, r)| EpochStart { epoch: Epoch(*e), revision: Revision(*r) }).collect(),
            head: Revision(head),
            gc_watermark: Revision(0),
            cursors: cursors.iter().map(|(s, p)| StoreCursor { store: StoreId(*s), position: *p }).collect(),
            identity: String::new(),
        }
    }

    fn at(epoch: u64, revision: u64) -> Position {
        Position { epoch: Epoch(epoch), revision: Revision(revision) }
    }

    #[test]
    fn a_cursor_is_valid_in_the_epoch_that_reached_it() {
        let info = info(1, &[(7, 0), (8, 50), (9, 80)], 90, &[]);
        let good = |position| covers(&info, position);
        assert!(good(at(7, 0)) && good(at(7, 50)) && good(at(8, 50)) && good(at(8, 80)) && good(at(9, 90)));
        assert!(!good(at(7, 51)), "rolled back to 50 before it was opened again");
        assert!(!good(at(9, 91)), "beyond the head");
        assert!(!good(at(9, 79)), "before the opening");
        assert!(!good(at(6, 10)), "an opening of another copy");
    }

    #[test]
    fn the_zero_position_and_an_empty_list_of_epochs_are_refused() {
        assert!(!covers(&info(1, &[], 0, &[]), at(0, 0)));
        assert!(!covers(&info(1, &[(0, 0)], 1, &[]), at(0, 0)));
    }

    #[test]
    fn a_cursor_older_than_a_dropped_tombstone_is_invalid() {
        let info = PeerInfo { gc_watermark: Revision(60), ..info(1, &[(7, 0)], 90, &[]) };
        assert!(covers(&info, at(7, 60)) && !covers(&info, at(7, 59)));
    }

    #[test]
    fn stores_resume_only_if_both_cursors_are_valid() {
        let edge = info(1, &[(5, 0)], 10, &[(3, at(1, 1)), (2, at(6, 20))]);
        let hub = info(2, &[(6, 0)], 30, &[(1, at(5, 9))]);
        assert_eq!(resume(&edge, &hub), Some((Revision(9), Revision(20))));
        let rolled_back = PeerInfo { head: Revision(19), ..hub.clone() };
        assert_eq!(resume(&edge, &rolled_back), None);
        assert_eq!(resume(&PeerInfo { cursors: vec![], ..edge.clone() }, &hub), None);
        assert_eq!(resume(&edge, &PeerInfo { store: StoreId(4), ..hub }), None);
    }
}
