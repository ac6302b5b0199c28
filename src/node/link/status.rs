//! The status of each link, for metrics, logs and pages: of each edge at a hub, of each uplink at an edge.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::{Family, LabelSet, Revision};
use crate::net::counted::Traffic;
use crate::net::dial::DialFailures;
use crate::node::metrics::{counter, gauge};
use crate::session::{Lag, SessionEvent};

/// The number of edges remembered. Beyond that, the edge that has been away longest is forgotten.
const EDGES_MAX: usize = 10_000;

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
            | SessionEvent::Head(_)
            | SessionEvent::PeerLag(_)
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

/// The status of one edge at its hub.
#[derive(Clone, Debug, Default)]
pub struct EdgeStatus {
    /// Its site labels.
    pub site: Arc<LabelSet>,
    /// The status of its link.
    pub link: LinkStatus,
    /// The address from which it last connected.
    pub address: Option<SocketAddr>,
    /// When its certificate expires, in seconds since the epoch.
    pub certificate_expiry_seconds: u64,
    /// The age of its oldest change that the hub does not have, as the edge last reported it, in nanoseconds.
    pub reported_lag_ns: u64,
    /// Sessions refused under its name, by reason.
    pub refused: BTreeMap<String, u64>,
}

impl EdgeStatus {
    /// The age of the edge's oldest change that the hub does not have, in nanoseconds. A silent edge cannot report it; its
    /// changes are at most as old as its silence.
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        let silent_ns = now_ns.saturating_sub(self.link.last_seen_ns);
        if self.link.connected { self.reported_lag_ns } else { silent_ns }
    }
}

/// The status of all edges that a hub knows, by name.
#[derive(Default)]
pub struct EdgeRegistry(Mutex<BTreeMap<String, EdgeStatus>>);

impl EdgeRegistry {
    /// Changes the status of an edge, and adds the edge if it is new.
    pub fn update<T>(&self, name: &str, change: impl FnOnce(&mut EdgeStatus) -> T) -> T {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !edges.contains_key(name) && edges.len() >= EDGES_MAX {
            let gone = edges.iter().filter(|(_, edge)| !edge.link.connected);
            if let Some(oldest) = gone.min_by_key(|(_, edge)| edge.link.last_seen_ns).map(|(name, _)| name.clone()) {
                edges.remove(&oldest);
            }
        }
        change(edges.entry(name.to_string()).or_default())
    }

    /// Adds an edge that the configuration names, so that one that never connects is shown as missing.
    pub fn expect(&self, name: &str, site: &LabelSet) {
        self.update(name, |edge| {
            if !edge.link.connected {
                edge.site = Arc::new(site.clone());
            }
        });
    }

    /// A copy of the status of every edge.
    pub fn list(&self) -> Vec<(String, EdgeStatus)> {
        let edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().map(|(name, edge)| (name.clone(), edge.clone())).collect()
    }

    /// The number of edges known.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The edges as metrics, each with its name and its site labels.
    pub fn gather(&self, now_ns: u64) -> Vec<Family> {
        let edges = self.list();
        if edges.is_empty() {
            return Vec::new();
        }
        let rows: Vec<(Vec<(&str, &str)>, &EdgeStatus)> = edges
            .iter()
            .map(|(name, edge)| {
                let site = edge.site.iter().map(|label| (label.name, label.value)).filter(|label| label.0 != "edge");
                (site.chain([("edge", name.as_str())]).collect(), edge)
            })
            .collect();
        let each = |value: fn(&EdgeStatus) -> f64| rows.iter().map(move |(labels, edge)| (labels.clone(), value(edge)));
        // For an edge that never connected, these values are unknown, not zero.
        let heard = || rows.iter().filter(|(_, edge)| edge.link.last_seen_ns > 0);
        let each_heard =
            |value: fn(&EdgeStatus) -> f64| heard().map(move |(labels, edge)| (labels.clone(), value(edge)));
        let refused = rows.iter().flat_map(|(labels, edge)| {
            edge.refused.iter().map(move |(reason, count)| {
                let labels: Vec<_> = labels.iter().copied().chain([("reason", reason.as_str())]).collect();
                (labels, *count as f64)
            })
        });
        let mut families = vec![
            gauge(
                "pushrelay_edge_connected",
                "Whether the edge is connected to this hub.",
                each(|edge| f64::from(u8::from(edge.link.connected))),
            ),
            gauge(
                "pushrelay_edge_last_seen_timestamp_seconds",
                "When the edge was last heard, in seconds since the epoch.",
                each(|edge| edge.link.last_seen_ns as f64 / 1e9),
            ),
            gauge(
                "pushrelay_edge_lag_seconds",
                "Age of the edge's oldest change that is not here yet; of an edge that is away, how long it has not been heard.",
                heard().map(|(labels, edge)| (labels.clone(), edge.lag_ns(now_ns) as f64 / 1e9)),
            ),
            gauge(
                "pushrelay_edge_clock_offset_seconds",
                "The edge's wall clock minus this hub's.",
                each_heard(|edge| edge.link.clock_offset_ns as f64 / 1e9),
            ),
            gauge(
                "pushrelay_edge_certificate_expiry_timestamp_seconds",
                "When the edge's certificate expires, in seconds since the epoch.",
                each_heard(|edge| edge.certificate_expiry_seconds as f64),
            ),
            gauge(
                "pushrelay_edge_revision",
                "The revision of the edge's store up to which its changes are here.",
                each(|edge| edge.link.received.0 as f64),
            ),
        ];
        families.extend(traffic("pushrelay_edge", &each_link(&rows, |edge| &edge.link)));
        families.push(counter("pushrelay_edge_refused_total", "Sessions refused under the edge's name.", refused));
        families
    }
}

/// The status of one uplink, and a notification of its changes.
#[derive(Debug)]
pub struct UplinkStatus {
    /// The hub's address, as configured.
    pub hub: String,
    state: Mutex<LinkStatus>,
    changed: Notify,
}

impl UplinkStatus {
    /// An uplink that was never connected.
    pub fn new(hub: String) -> Self {
        Self { hub, state: Mutex::default(), changed: Notify::new() }
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
            "pushrelay_uplink_clock_offset_seconds",
            "The hub's wall clock minus this edge's.",
            each(|link| link.clock_offset_ns as f64 / 1e9),
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

fn each_link<'a>(
    rows: &[(Vec<(&'a str, &'a str)>, &'a EdgeStatus)],
    link: fn(&EdgeStatus) -> &LinkStatus,
) -> Vec<(Vec<(&'a str, &'a str)>, &'a LinkStatus)> {
    rows.iter().map(|(labels, edge)| (labels.clone(), link(edge))).collect()
}

/// The metrics that both ends of a link have.
fn traffic(prefix: &str, rows: &[(Vec<(&str, &str)>, &LinkStatus)]) -> Vec<Family> {
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

    #[test]
    fn an_edge_that_never_connected_is_shown_as_missing_and_without_lag() {
        let edges = EdgeRegistry::default();
        edges.expect("syq-1", &LabelSet::new([("IDC", "SYQ")]));
        let series = |families: &[Family], name: &str| {
            families.iter().find(|family| family.name().as_ref() == name).map_or(0, |family| family.values().len())
        };
        let families = edges.gather(1_000);
        assert_eq!(series(&families, "pushrelay_edge_connected"), 1);
        assert_eq!(series(&families, "pushrelay_edge_lag_seconds"), 0);
        edges.update("syq-1", |edge| edge.link.last_seen_ns = 400);
        assert_eq!(series(&edges.gather(1_000), "pushrelay_edge_lag_seconds"), 1);
    }

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
