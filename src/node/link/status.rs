//! The status of a link, for metrics, logs and pages, and that of each uplink at an edge.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::verdicts::Verdicts;
use crate::model::{Family, Revision};
use crate::net::counted::Traffic;
use crate::net::dial::DialFailures;
use crate::node::metrics::{counter, gauge};
use crate::node::options::VerdictRule;
use crate::session::{Lag, SessionEvent};

/// The status of one link: its present state, and counts over all its connections.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus {
    /// Whether a session is established.
    pub connected: bool,
    /// When the last session was established, in nanoseconds since the epoch; 0 if none was.
    pub connected_since_ns: u64,
    /// When the last message of the peer arrived, in nanoseconds since the epoch; 0 if none did.
    pub last_seen_ns: u64,
    /// Sessions established.
    pub sessions: u64,
    /// Sessions that began with a resync.
    pub resyncs: u64,
    /// Bytes on the wire, TLS included.
    pub wire: ByteCounters,
    /// Bytes of messages before compression.
    pub messages: ByteCounters,
    /// Our revision up to which the peer has our changes.
    pub acknowledged: Revision,
    /// The peer's revision up to which we have its changes.
    pub received: Revision,
    /// The peer's wall clock minus ours, in nanoseconds.
    pub clock_offset_ns: i64,
    /// Changes of the edge's store that the hub does not have (edges only).
    pub lag: Lag,
    /// Families that the peer reported as suppressed, each push of one counted.
    pub suppressed: u64,
    /// Attempts to link that failed, by the step that they reached (edges only).
    pub dial_failures: DialFailures,
    /// Renewals of the certificate by the hub: those that succeeded, and attempts that failed (edges only).
    pub renewals: (u64, u64),
    /// Whether the hub knows this edge by another certificate than its own (edges only).
    pub is_mistaken: bool,
    /// The reason for which the last connection or attempt ended; empty if none did.
    pub last_error: String,
}

impl LinkStatus {
    /// Records an event of the session. The ends add the fields that only one of them has.
    pub fn apply(&mut self, event: &SessionEvent, now_ns: u64) {
        match event {
            SessionEvent::Established(established) => {
                self.connected = true;
                self.connected_since_ns = now_ns;
                self.last_seen_ns = now_ns;
                self.sessions += 1;
                self.resyncs += u64::from(established.resync);
            }
            SessionEvent::PeerAcked(revision) => self.acknowledged = *revision,
            SessionEvent::Received(revision) => self.received = *revision,
            SessionEvent::ClockOffset(offset_ns) => self.clock_offset_ns = *offset_ns,
            SessionEvent::Suppressed(reports) => self.suppressed += reports.len() as u64,
            SessionEvent::Heard => self.last_seen_ns = now_ns,
            SessionEvent::ResyncCompleted
            | SessionEvent::PeerCursor(_)
            | SessionEvent::ReceivedUpto(_)
            | SessionEvent::Head(_)
            | SessionEvent::PeerLag { .. }
            | SessionEvent::PeerHealth(_)
            | SessionEvent::Unsendable { .. } => {}
        }
    }
}

/// The bytes of all connections of a link, past and present.
#[derive(Clone, Debug, Default)]
pub struct ByteCounters {
    before: (u64, u64),
    now: Arc<Traffic>,
}

impl ByteCounters {
    /// Adds the counts of a new connection from now on.
    pub fn follow(&mut self, traffic: Arc<Traffic>) {
        self.before = (self.sent(), self.received());
        self.now = traffic;
    }

    /// Bytes sent.
    pub fn sent(&self) -> u64 {
        self.before.0 + self.now.sent_bytes()
    }

    /// Bytes received.
    pub fn received(&self) -> u64 {
        self.before.1 + self.now.received_bytes()
    }
}

/// The status of one uplink, and a notification of its changes.
#[derive(Debug)]
pub struct UplinkStatus {
    /// The hub's address, as configured.
    pub hub: String,
    /// The conflicts that the hub reported, if pushes into them are refused.
    pub verdicts: Option<Verdicts>,
    state: Mutex<LinkStatus>,
    changed: Notify,
}

impl UplinkStatus {
    /// An uplink that was never connected.
    pub fn new(hub: String) -> Self {
        Self { hub, verdicts: None, state: Mutex::default(), changed: Notify::new() }
    }

    /// Remembers the conflicts that the hub reports, if pushes into them are refused.
    #[must_use]
    pub fn with_verdicts(self, rule: VerdictRule) -> Self {
        Self { verdicts: (rule == VerdictRule::Reject).then(Verdicts::default), ..self }
    }

    /// Waits until the hub has all changes up to `head`, however long that takes.
    pub async fn acknowledged(&self, head: Revision) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.get().acknowledged >= head {
                return;
            }
            changed.await;
        }
    }

    /// Changes the status, and wakes those that wait for a change.
    pub fn update<T>(&self, change: impl FnOnce(&mut LinkStatus) -> T) -> T {
        let changed = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        changed
    }

    /// A copy of the status.
    pub fn get(&self) -> LinkStatus {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the hub has all changes up to `head`. Returns at once if there is no link: the next one may take long.
    pub async fn delivered(&self, head: Revision) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let link = self.get();
            if !link.connected || link.acknowledged >= head {
                return;
            }
            changed.await;
        }
    }
}

/// The uplinks as metrics.
pub fn gather_uplinks(uplinks: &[Arc<UplinkStatus>], head: Revision, now_ns: u64) -> Vec<Family> {
    if uplinks.is_empty() {
        return Vec::new();
    }
    let links: Vec<LinkStatus> = uplinks.iter().map(|uplink| uplink.get()).collect();
    let labels = uplinks.iter().map(|uplink| vec![("hub", uplink.hub.as_str())]);
    let rows: Vec<(Vec<(&str, &str)>, &LinkStatus)> = labels.zip(&links).collect();
    let each = |value: fn(&LinkStatus) -> f64| rows.iter().map(move |(labels, link)| (labels.clone(), value(link)));
    let dial_failures = rows.iter().flat_map(|(labels, link)| {
        let counts = link.dial_failures.counts();
        counts.map(move |(step, count)| ([labels.as_slice(), &[("step", step.name())]].concat(), count as f64))
    });
    let renewals = rows.iter().flat_map(|(labels, link)| {
        let counts = [("success", link.renewals.0), ("failure", link.renewals.1)];
        counts.map(|(result, count)| ([labels.as_slice(), &[("result", result)]].concat(), count as f64))
    });
    let behind = rows.iter().map(|(labels, link)| (labels.clone(), head.0.saturating_sub(link.acknowledged.0) as f64));
    let mut families = vec![
        gauge(
            "pushrelay_uplink_connected",
            "Whether this edge is connected to the hub.",
            each(|link| f64::from(u8::from(link.connected))),
        ),
        gauge(
            "pushrelay_uplink_acknowledged_revision",
            "The revision of this edge's store up to which the hub holds its changes.",
            each(|link| link.acknowledged.0 as f64),
        ),
        gauge(
            "pushrelay_uplink_pending_revisions",
            "Revisions of this edge's store that the hub does not hold yet.",
            behind,
        ),
        gauge(
            "pushrelay_uplink_lag_seconds",
            "Age of the oldest change that the hub does not hold yet.",
            rows.iter().map(|(labels, link)| (labels.clone(), link.lag.oldest_ns(now_ns) as f64 / 1e9)),
        ),
        gauge(
            "pushrelay_uplink_identity_mistaken",
            "Whether the hub knows this edge by another certificate than its own.",
            each(|link| f64::from(u8::from(link.connected && link.is_mistaken))),
        ),
        gauge(
            "pushrelay_uplink_clock_offset_seconds",
            "The hub's wall clock minus this edge's.",
            each(|link| link.clock_offset_ns as f64 / 1e9),
        ),
        counter(
            "pushrelay_uplink_certificate_renewals_total",
            "Attempts to let the hub renew this edge's certificate, by their result.",
            renewals,
        ),
        counter(
            "pushrelay_uplink_dial_failures_total",
            "Attempts to link to the hub that failed, by the last step that they reached.",
            dial_failures,
        ),
        counter(
            "pushrelay_uplink_held_back_families_total",
            "Families pushed here that the hub keeps but does not show, since they cannot stand beside what is shown there.",
            each(|link| link.suppressed as f64),
        ),
        counter(
            "pushrelay_uplink_reconnects_total",
            "Sessions with the hub after the first.",
            each(|link| link.sessions.saturating_sub(1) as f64),
        ),
    ];
    families.extend(traffic("pushrelay_uplink", &rows));
    families
}

/// The metrics that both ends of a link have.
pub(super) fn traffic(prefix: &str, rows: &[(Vec<(&str, &str)>, &LinkStatus)]) -> Vec<Family> {
    let each = |value: fn(&LinkStatus) -> f64| rows.iter().map(move |(labels, link)| (labels.clone(), value(link)));
    let name = |rest: &str| format!("{prefix}_{rest}");
    vec![
        counter(
            &name("wire_sent_bytes_total"),
            "Bytes sent on the wire, after compression, TLS included.",
            each(|link| link.wire.sent() as f64),
        ),
        counter(
            &name("wire_received_bytes_total"),
            "Bytes received on the wire, before decompression, TLS included.",
            each(|link| link.wire.received() as f64),
        ),
        counter(
            &name("message_sent_bytes_total"),
            "Bytes of messages sent, before compression.",
            each(|link| link.messages.sent() as f64),
        ),
        counter(
            &name("message_received_bytes_total"),
            "Bytes of messages received, after decompression.",
            each(|link| link.messages.received() as f64),
        ),
        counter(&name("sessions_total"), "Sessions established.", each(|link| link.sessions as f64)),
        counter(
            &name("resyncs_total"),
            "Sessions in which the two stores exchanged all they have, since they did not know each other.",
            each(|link| link.resyncs as f64),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn delivery_ends_when_the_hub_has_everything_or_the_link_ends() {
        let uplink = UplinkStatus::new("hub:9443".into());
        uplink.delivered(Revision(9)).await;
        uplink.update(|link| link.connected = true);
        let mut delivered = pin!(uplink.delivered(Revision(9)));
        for revision in [7, 8] {
            assert_eq!(delivered.as_mut().now_or_never(), None, "the hub has {revision} of 9");
            uplink.update(|link| link.acknowledged = Revision(revision));
        }
        assert_eq!(delivered.as_mut().now_or_never(), None);
        uplink.update(|link| link.acknowledged = Revision(9));
        assert_eq!(delivered.as_mut().now_or_never(), Some(()));
        uplink.update(|link| link.connected = false);
        uplink.delivered(Revision(10)).await;
    }
}
