//! The duties of an edge's node when a session with a hub reports an event, besides status, metrics and logs.

use crate::model::Revision;

use super::event::SessionEvent;

/// A duty of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkDuty {
    /// Correct write timestamps by this difference of the hub's clock and this node's, in nanoseconds.
    SetClockOffset(i64),
    /// Tell the committer that the hub has all changes up to here, then call [`UplinkDuties::ack_reported`]. If the
    /// committer's queue is full, do nothing.
    ReportAck(Revision),
}

/// The duties of one session at an edge.
#[derive(Clone, Copy, Debug)]
pub struct UplinkDuties {
    is_first: bool,
    /// The revision that the hub has and the committer does not know of yet.
    unreported_ack: Option<Revision>,
}

impl UplinkDuties {
    /// For a session with the hub of the uplink number `uplink`.
    pub fn new(uplink: usize) -> Self {
        Self { is_first: uplink == 0, unreported_ack: None }
    }

    /// The duty that an event brings.
    pub fn of(&mut self, event: &SessionEvent) -> Option<UplinkDuty> {
        match event {
            SessionEvent::PeerAcked(revision) => self.unreported_ack = Some(*revision),
            // An ack that the committer could not take is reported with the next message, a heartbeat at the latest. Without
            // that, an ack followed by no push would never let its tombstones go.
            SessionEvent::Heard => {}
            // The first hub configured gives the time, so that two hubs do not pull the write timestamps apart.
            SessionEvent::ClockOffset(offset_ns) => {
                return self.is_first.then_some(UplinkDuty::SetClockOffset(*offset_ns));
            }
            _ => return None,
        }
        self.unreported_ack.map(UplinkDuty::ReportAck)
    }

    /// The committer knows of the last ack.
    pub fn ack_reported(&mut self) {
        self.unreported_ack = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_is_reported_until_the_committer_takes_it() {
        let mut duties = UplinkDuties::new(1);
        let report = |revision| Some(UplinkDuty::ReportAck(Revision(revision)));
        assert_eq!(duties.of(&SessionEvent::Heard), None);
        assert_eq!(duties.of(&SessionEvent::PeerAcked(Revision(3))), report(3));
        assert_eq!(duties.of(&SessionEvent::PeerLag(0)), None);
        assert_eq!(duties.of(&SessionEvent::Heard), report(3));
        assert_eq!(duties.of(&SessionEvent::PeerAcked(Revision(2))), report(2), "a hub that lost its disk has less");
        duties.ack_reported();
        assert_eq!(duties.of(&SessionEvent::Heard), None);
    }

    #[test]
    fn the_first_hub_gives_the_time() {
        let offset = SessionEvent::ClockOffset(5);
        assert_eq!(UplinkDuties::new(0).of(&offset), Some(UplinkDuty::SetClockOffset(5)));
        assert_eq!(UplinkDuties::new(1).of(&offset), None);
    }
}
