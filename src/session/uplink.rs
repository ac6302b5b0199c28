//! The duties of an edge's node when a session with a hub reports an event, besides status, metrics and logs.

use crate::model::Revision;

use super::event::SessionEvent;

/// A duty of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkDuty {
    /// If the hub's clock can be right: correct write timestamps by this difference of its clock and this node's, in
    /// nanoseconds, and confirm the store's clock by it.
    SetClockOffset(i64),
    /// Tell the committer that the hub's cursor is at least here, then call [`UplinkDuties::ack_reported`]. If the
    /// committer's queue is full, do nothing.
    ReportAck(Revision),
}

/// The duties of one session at an edge.
#[derive(Clone, Copy, Debug)]
pub struct UplinkDuties {
    is_first: bool,
    /// The cursor of the hub that the committer does not know of yet.
    unreported_ack: Option<Revision>,
}

impl UplinkDuties {
    /// For a session with the hub of the uplink number `uplink`.
    pub fn new(uplink: usize) -> Self {
        Self { is_first: uplink == 0, unreported_ack: None }
    }

    /// The duty that an event brings. `is_confirmed` is whether a hub has confirmed the store's clock.
    pub fn of(&mut self, event: &SessionEvent, is_confirmed: impl FnOnce() -> bool) -> Option<UplinkDuty> {
        match event {
            SessionEvent::PeerCursor(revision) => self.unreported_ack = Some(*revision),
            // An ack that the committer could not take is reported with the next message, a heartbeat at the latest. Without
            // that, an ack followed by no push would never let its tombstones go.
            SessionEvent::Heard => {}
            // The first hub configured gives the time, so that two hubs do not pull the write timestamps apart. Until a
            // clock is confirmed, any hub does.
            SessionEvent::ClockOffset(offset_ns) => {
                let gives_time = self.is_first || !is_confirmed();
                return gives_time.then_some(UplinkDuty::SetClockOffset(*offset_ns));
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
        let mut of = |event: SessionEvent| duties.of(&event, || true);
        assert_eq!(of(SessionEvent::Heard), None);
        assert_eq!(of(SessionEvent::PeerAcked(Revision(3))), None, "the hub's cursor is not there yet");
        assert_eq!(of(SessionEvent::PeerCursor(Revision(3))), report(3));
        assert_eq!(of(SessionEvent::PeerLag { lag_ns: 0, head: Revision(0) }), None);
        assert_eq!(of(SessionEvent::Heard), report(3));
        assert_eq!(of(SessionEvent::PeerCursor(Revision(2))), report(2), "a hub that lost its disk has less");
        duties.ack_reported();
        assert_eq!(duties.of(&SessionEvent::Heard, || true), None);
    }

    #[test]
    fn the_first_hub_gives_the_time_and_any_hub_until_the_clock_is_confirmed() {
        let of = |uplink, is_confirmed| UplinkDuties::new(uplink).of(&SessionEvent::ClockOffset(5), || is_confirmed);
        let set = Some(UplinkDuty::SetClockOffset(5));
        assert_eq!((of(0, true), of(0, false)), (set, set));
        assert_eq!((of(1, true), of(1, false)), (None, set));
    }
}
