//! Incoming connections that end before their first request or session: checks of balancers, scanners, peers that are
//! refused.
//!
//! Checks and scans are routine: they are counted, and logged at `debug`. A peer that is refused is logged as a warning,
//! once a day for each address and reason.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::address::shown;

/// Failures that are remembered as logged, at most. Others are counted, and logged at `debug`: a scan from many addresses
/// must fill neither the memory nor the log.
const LOGGED_MAX: usize = 1_000;
/// The time after which a failure is logged again.
const LOGGED_FOR: Duration = Duration::from_secs(86_400);

/// The kinds of failed connections; their names are values of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The peer closed the connection, as TCP checks do.
    Closed,
    /// The peer sent nothing, or too slowly.
    Silent,
    /// The peer speaks another protocol: TLS without HTTP or HTTP without TLS, an old TLS, something else.
    Protocol,
    /// The peer showed no certificate where one is required, as TLS checks do.
    NoCertificate,
    /// The peer was refused, or refused this end: its certificate, its authority, its request.
    Refused,
}

impl FailureKind {
    const ALL: [Self; 5] = [Self::Closed, Self::Silent, Self::Protocol, Self::NoCertificate, Self::Refused];

    /// The kind of a failed read or write: of a peer that has gone.
    pub fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Silent } else { Self::Closed }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
            Self::NoCertificate => "no_certificate",
            Self::Refused => "refused",
        }
    }
}

/// The failures at the listeners of one kind since the start.
#[derive(Debug)]
pub struct ConnectionFailures {
    face: &'static str,
    counts: [AtomicU64; FailureKind::ALL.len()],
    logged: Mutex<Logged>,
}

#[derive(Debug)]
struct Logged {
    since: Instant,
    failures: HashSet<(IpAddr, String)>,
}

impl Logged {
    fn is_new(&mut self, address: IpAddr, reason: &str, now: Instant) -> bool {
        if now.duration_since(self.since) >= LOGGED_FOR {
            *self = Self { since: now, failures: HashSet::new() };
        }
        self.failures.len() < LOGGED_MAX && self.failures.insert((address, reason.to_owned()))
    }
}

impl ConnectionFailures {
    /// No failures yet. `face` names the listeners in the log and the metrics.
    pub fn new(face: &'static str) -> Self {
        let logged = Logged { since: Instant::now(), failures: HashSet::new() };
        Self { face, counts: Default::default(), logged: Mutex::new(logged) }
    }

    /// Counts and logs a failure.
    pub fn record(&self, address: SocketAddr, kind: FailureKind, reason: &str) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
        let face = self.face;
        match kind == FailureKind::Refused && self.is_new(address, reason) {
            true => warn!(face, address = shown(address), reason, "incoming connection refused"),
            false => debug!(face, address = shown(address), reason, "incoming connection failed"),
        }
    }

    /// Whether a refusal is to be logged as a warning: the first of this reason from this address today.
    pub fn is_new(&self, address: SocketAddr, reason: &str) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.is_new(address.ip(), reason, Instant::now())
    }

    /// The name of the listeners.
    pub fn face(&self) -> &'static str {
        self.face
    }

    /// The numbers of failures by reason.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FailureKind::ALL.iter().zip(&self.counts).map(|(kind, count)| (kind.name(), count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_new_once_a_day_for_each_address_and_reason() {
        let begun = Instant::now();
        let mut logged = Logged { since: begun, failures: HashSet::new() };
        let [one, other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let mut is_new = |address, reason: &str, after| logged.is_new(address, reason, begun + after);
        let at_once = Duration::ZERO;
        assert_eq!([one, one, other].map(|address| is_new(address, "expired", at_once)), [true, false, true]);
        assert!(is_new(one, "not signed", at_once));
        for number in 0..LOGGED_MAX {
            is_new(one, &number.to_string(), at_once);
        }
        assert!(!is_new(one, "one too many", at_once));
        assert!(is_new(one, "expired", LOGGED_FOR) && !is_new(one, "expired", LOGGED_FOR));
    }

    #[test]
    fn each_kind_is_counted_under_its_name() {
        let failures = ConnectionFailures::new("web");
        for (at, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            (0..=at).for_each(|_| failures.record(([127, 0, 0, 1], 1).into(), kind, ""));
        }
        let counts = [("closed", 1), ("silent", 2), ("protocol", 3), ("no_certificate", 4), ("refused", 5)];
        assert!(failures.counts().eq(counts));
        assert_eq!(FailureKind::of_io(&io::ErrorKind::TimedOut.into()), FailureKind::Silent);
        assert_eq!(FailureKind::of_io(&io::ErrorKind::ConnectionReset.into()), FailureKind::Closed);
    }
}
