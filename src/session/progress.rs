//! How far two stores have each other's changes, as far as a process knows without their cursors.
//!
//! The cursors of a resync count only once it is complete ([`super::receiving`]). On a line that breaks more often than a
//! resync takes, none would ever be complete. So each end remembers what the other acknowledged: the other durably has it
//! for as long as its store is not opened again. The next resync with the same opening of that store begins there.
//!
//! An end may leave out its changes up to `acked` only if neither end has dropped a tombstone that the other lacks:
//!
//! - the sender's own dropped tombstones are all acknowledged (`acked ≥` its watermark), so that the peer has the deletes;
//! - those that the peer dropped are all received (`received ≥` the peer's watermark). Otherwise the sender may have a
//!   group that the peer deleted and forgot; only sending it makes the two equal again.

use crate::model::{Epoch, LabelSet, Position, Revision, StoreId};
use crate::wire::PeerInfo;

/// The progress of the exchange with one peer's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer's store, and the epoch that began when it was opened.
    pub(super) store: StoreId,
    pub(super) epoch: Epoch,
    /// The site labels of the edge. With others, a hub stores everything under other names.
    pub(super) site: LabelSet,
    /// The peer durably has this store's changes up to here.
    pub(super) acked: Revision,
    /// This store durably has the peer's changes up to here.
    pub(super) received: Revision,
    /// The peer knows all changes that came from its store and that this store applied after this revision.
    pub(super) after: Revision,
}

impl PeerProgress {
    /// The progress at the start of a session. `resume` has the two cursors if the session resumes; otherwise the stores
    /// resync, from the progress `known` of earlier sessions if that still holds.
    pub(super) fn at_start(
        resume: Option<(Revision, Position)>,
        known: Option<PeerProgress>,
        ours: &PeerInfo,
        theirs: &PeerInfo,
        site: &LabelSet,
    ) -> Self {
        let holds = |known: &PeerProgress| {
            (known.store, known.epoch, &known.site) == (theirs.store, theirs.epoch(), site)
                && (ours.gc_watermark..=ours.head).contains(&known.acked)
                && known.received >= theirs.gc_watermark
        };
        let (acked, received, after) = match resume {
            // The peer has every change that came from it.
            Some((acked, cursor)) => (acked, cursor.revision, Revision(0)),
            None => match known.filter(holds) {
                Some(known) => return known,
                None => (Revision(0), Revision(0), ours.head),
            },
        };
        Self { store: theirs.store, epoch: theirs.epoch(), site: site.clone(), acked, received, after }
    }

    /// The peer durably has this store's changes up to here.
    pub fn acked(&self) -> Revision {
        self.acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::EpochStart;

    fn info(store: u64, epoch: u64, head: u64, gc_watermark: u64) -> PeerInfo {
        PeerInfo {
            node: String::new(),
            software: String::new(),
            store: StoreId(store),
            epochs: vec![EpochStart { epoch: Epoch(epoch), revision: Revision(0) }],
            head: Revision(head),
            gc_watermark: Revision(gc_watermark),
            cursors: Vec::new(),
            identity: String::new(),
        }
    }

    #[test]
    fn a_resync_continues_only_where_no_end_can_lack_a_delete() {
        let site = LabelSet::new([("IDC", "SYQ")]);
        let known = PeerProgress {
            store: StoreId(2),
            epoch: Epoch(7),
            site: site.clone(),
            acked: Revision(40),
            received: Revision(20),
            after: Revision(5),
        };
        let begins = |ours: &PeerInfo, theirs: &PeerInfo, site: &LabelSet| {
            PeerProgress::at_start(None, Some(known.clone()), ours, theirs, site).acked.0
        };
        let (ours, theirs) = (info(1, 3, 50, 40), info(2, 7, 30, 20));
        assert_eq!(begins(&ours, &theirs, &site), 40);
        assert_eq!(begins(&ours, &info(3, 7, 30, 0), &site), 0, "another store");
        assert_eq!(begins(&ours, &info(2, 8, 30, 0), &site), 0, "opened again: it may have lost something");
        assert_eq!(begins(&ours, &theirs, &LabelSet::new([("IDC", "BJ")])), 0, "another site");
        assert_eq!(begins(&info(1, 3, 50, 41), &theirs, &site), 0, "a tombstone of ours is gone unacknowledged");
        assert_eq!(begins(&ours, &info(2, 7, 30, 21), &site), 0, "a tombstone of theirs is gone unseen");
        let fresh = PeerProgress::at_start(None, None, &ours, &theirs, &site);
        assert_eq!((fresh.acked, fresh.after), (Revision(0), Revision(50)));
    }
}
