//! May two stores go on where they were?
//!
//! A position is a point of a store's history. It is still a point of it if the store's lineage reached that revision in
//! that opening: rolled-back, copied, wiped and new stores all lack it. Only if each side's position of the other is good
//! do both go on from them; otherwise both start over, since what one lost the other may have left out.

use crate::model::{Epoch, Position, Revision};
use crate::wire::{Facts, Opening};

/// Whether a store of this lineage, whose newest revision is `head`, passed through `held`.
///
/// An opening covers the revisions from its own up to that of the next opening, both included: nothing was written in
/// between the end of one and the begin of the other.
pub fn covers(lineage: &[Opening], head: Revision, held: Position) -> bool {
    let Some(at) = lineage.iter().position(|opening| opening.epoch == held.epoch) else {
        return false;
    };
    let end = lineage.get(at + 1).map_or(head, |next| next.revision);
    held.epoch != Epoch(0) && lineage[at].revision <= held.revision && held.revision <= end.min(head)
}

/// The positions from which the two go on, as (what `b` holds of `a`, what `a` holds of `b`); `None` if they must
/// exchange.
pub fn resume(a: &Facts, b: &Facts) -> Option<(Revision, Revision)> {
    let (of_a, of_b) = (b.held_of(a.store)?, a.held_of(b.store)?);
    let good = covers(&a.lineage, a.head, of_a) && covers(&b.lineage, b.head, of_b);
    good.then_some((of_a.revision, of_b.revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StoreId;
    use crate::wire::Hold;

    fn lineage(openings: &[(u64, u64)]) -> Vec<Opening> {
        openings.iter().map(|(e, r)| Opening { epoch: Epoch(*e), revision: Revision(*r) }).collect()
    }

    fn at(epoch: u64, revision: u64) -> Position {
        Position { epoch: Epoch(epoch), revision: Revision(revision) }
    }

    #[test]
    fn a_position_is_good_in_the_opening_that_reached_it() {
        let lineage = lineage(&[(7, 0), (8, 50), (9, 80)]);
        let good = |held| covers(&lineage, Revision(90), held);
        assert!(good(at(7, 0)) && good(at(7, 50)) && good(at(8, 50)) && good(at(8, 80)) && good(at(9, 90)));
        assert!(!good(at(7, 51)), "rolled back to 50 before it was opened again");
        assert!(!good(at(9, 91)), "beyond the head");
        assert!(!good(at(9, 79)), "before the opening");
        assert!(!good(at(6, 10)), "an opening of another copy");
        assert!(!covers(&[], Revision(0), at(0, 0)) && !covers(&[], Revision(1), at(1, 1)));
    }

    #[test]
    fn both_positions_must_be_good() {
        let facts = |store, openings: &[(u64, u64)], head, holds: &[(u64, Position)]| Facts {
            node: String::new(),
            software: String::new(),
            store: StoreId(store),
            lineage: lineage(openings),
            head: Revision(head),
            holds: holds.iter().map(|(s, p)| Hold { store: StoreId(*s), position: *p }).collect(),
        };
        let edge = facts(1, &[(5, 0)], 10, &[(3, at(1, 1)), (2, at(6, 20))]);
        let hub = facts(2, &[(6, 0)], 30, &[(1, at(5, 9))]);
        assert_eq!(resume(&edge, &hub), Some((Revision(9), Revision(20))));
        let rolled_back = Facts { head: Revision(19), ..hub.clone() };
        assert_eq!(resume(&edge, &rolled_back), None);
        assert_eq!(resume(&Facts { holds: vec![], ..edge.clone() }, &hub), None);
        assert_eq!(resume(&edge, &Facts { store: StoreId(4), ..hub }), None);
    }
}
