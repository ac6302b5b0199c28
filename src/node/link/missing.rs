//! The changes of an edge that are known to be missing at its hub.
//!
//! Heartbeats say how old the oldest of them is. When the edge is away, nothing is known of later ones: the lag of an edge
//! that had delivered everything is 0, however long it is away.

use crate::model::Revision;
use crate::session::SessionEvent;

/// What the hub knows of the changes that an edge has and the hub does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingChanges {
    /// When the oldest of them was made, in nanoseconds since the Unix epoch by the hub's clock; `None` if none is known.
    pub since_ns: Option<u64>,
    /// The edge's revision when it reported them.
    head: Revision,
    /// The edge's revision up to which this session brought its changes.
    received: Revision,
}

impl MissingChanges {
    /// Those that an earlier run of the hub knew of.
    pub fn restored(since_ns: Option<u64>) -> Self {
        Self { since_ns, ..Self::default() }
    }

    /// Records an event of the edge's session.
    pub fn apply(&mut self, event: &SessionEvent, now_ns: u64) {
        match event {
            // The edge may have another store than before.
            SessionEvent::Established(_) => (self.head, self.received) = (Revision(0), Revision(0)),
            SessionEvent::PeerLag { lag_ns: 0, .. } => self.since_ns = None,
            SessionEvent::PeerLag { lag_ns, head } => {
                // The changes may have arrived before the heartbeat that says that they are missing.
                self.since_ns = (self.received < *head).then(|| now_ns.saturating_sub(*lag_ns));
                self.head = *head;
            }
            SessionEvent::Received(revision) | SessionEvent::ReceivedUpto(revision) => {
                self.received = self.received.max(*revision);
                if self.head > Revision(0) && self.received >= self.head {
                    self.since_ns = None;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: &[SessionEvent]) -> Option<u64> {
        let mut missing = MissingChanges::default();
        events.iter().for_each(|event| missing.apply(event, 1_000));
        missing.since_ns
    }

    #[test]
    fn only_changes_that_the_edge_reported_and_did_not_deliver_are_missing() {
        let lag = |lag_ns, head| SessionEvent::PeerLag { lag_ns, head: Revision(head) };
        let received = |revision| SessionEvent::Received(Revision(revision));
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[lag(0, 7)]), None);
        assert_eq!(after(&[received(6), lag(300, 7)]), Some(700));
        assert_eq!(after(&[lag(300, 7), received(7)]), None);
        assert_eq!(after(&[received(7), lag(300, 7)]), None, "the heartbeat was overtaken");
        assert_eq!(after(&[lag(300, 7), SessionEvent::ReceivedUpto(Revision(7))]), None);
        assert_eq!(after(&[lag(300, 7), lag(0, 7)]), None);
    }

    #[test]
    fn a_hub_that_restarts_still_knows_what_is_missing() {
        let mut missing = MissingChanges::restored(Some(400));
        missing.apply(&SessionEvent::Received(Revision(3)), 1_000);
        assert_eq!(missing.since_ns, Some(400), "no heartbeat said that this was all");
        missing.apply(&SessionEvent::PeerLag { lag_ns: 0, head: Revision(3) }, 1_000);
        assert_eq!(missing.since_ns, None);
    }
}
