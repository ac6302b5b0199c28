//! The limit on the connections of a listener, and the choice of the idle connection that is closed for a new one.
//!
//! A kept-alive connection between two requests costs a descriptor and is worth little. When few slots are left, the
//! connection that has been idle for longest is closed for each new one, so a new connection rarely waits for a close.
//! If no connection is idle, the last slots are reserved: a connection that takes one of them gets one scrape, health
//! check or other read, and no push. A new connection is refused when no slot is left at all.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::failures::ConnectionFailures;
use super::timeouts::PhaseTracker;

/// Slots that are kept free by closing idle connections, at most.
const SPARE_MAX: usize = 16;
/// A listener keeps one slot of this many free, so that a low limit is still usable.
const SLOTS_PER_SPARE: usize = 8;
/// The time for an idle connection to close before the new one is refused.
const ROOM_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause between two warnings about a lack of connections or descriptors.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Idle connections that one search finds. Each search looks at every connection.
const FOUND_MAX: usize = 64;
/// The pause after a search that found no idle connection.
const SEARCH_PAUSE: Duration = Duration::from_millis(5);

/// A limit on connections, shared by several listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<SlotTable>);

#[derive(Debug)]
struct SlotTable {
    failures: ConnectionFailures,
    permits: Arc<Semaphore>,
    connections_max: usize,
    /// Slots that are kept free by closing idle connections, or else are for reads alone.
    spare: usize,
    tracked: Mutex<TrackedConnections>,
    shed: ShedCounters,
    reported: Mutex<Option<Instant>>,
}

/// The connections whose idle time is known.
#[derive(Debug, Default)]
struct TrackedConnections {
    next: u64,
    by_number: HashMap<u64, PhaseTracker>,
    /// The connections that were idle for longest at the last search, longest first, with the begin of that time. One
    /// that had a request since is skipped, and so the order stays right.
    idlest: VecDeque<(Instant, u64)>,
    found_none: Option<Instant>,
}

impl TrackedConnections {
    /// Takes the connection that has been idle for longest off the list.
    fn take_idlest(&mut self) -> Option<&PhaseTracker> {
        if let Some(number) = self.next_idlest() {
            return self.by_number.get(&number);
        }
        if self.found_none.is_some_and(|searched| searched.elapsed() < SEARCH_PAUSE) {
            return None;
        }
        let idle = self.by_number.iter().filter_map(|(number, tracker)| Some((tracker.idle_since()?, *number)));
        let mut idle: Vec<_> = idle.collect();
        if idle.len() > FOUND_MAX {
            idle.select_nth_unstable(FOUND_MAX);
            idle.truncate(FOUND_MAX);
        }
        idle.sort_unstable();
        self.found_none = idle.is_empty().then(Instant::now);
        self.idlest = idle.into();
        let number = self.next_idlest()?;
        self.by_number.get(&number)
    }

    fn next_idlest(&mut self) -> Option<u64> {
        while let Some((since, number)) = self.idlest.pop_front() {
            if self.by_number.get(&number).and_then(PhaseTracker::idle_since) == Some(since) {
                return Some(number);
            }
        }
        None
    }
}

/// The connections that were closed or refused for lack of room.
#[derive(Debug, Default)]
struct ShedCounters {
    idle: AtomicU64,
    full: AtomicU64,
    accept_error: AtomicU64,
}

/// A connection is known by its phase until this is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    slots: Slots,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slots.tracked().by_number.remove(&self.number);
    }
}

/// The right of one connection to exist, until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pub kind: SlotKind,
    _permit: OwnedSemaphorePermit,
}

/// The use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Any requests, until the connection ends.
    Ordinary,
    /// One scrape, health check or other read: all other connections are busy.
    Reserved,
}

impl Slots {
    /// A limit of that many connections. `face` names the listeners in the log.
    pub fn new(face: &'static str, connections_max: usize) -> Self {
        Self::with(face, connections_max, 0)
    }

    /// The same, with the last slots reserved for reads.
    pub fn with_reserve(face: &'static str, connections_max: usize) -> Self {
        Self::with(face, connections_max, (connections_max / SLOTS_PER_SPARE).min(SPARE_MAX))
    }

    fn with(face: &'static str, connections_max: usize, spare: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(SlotTable {
            failures: ConnectionFailures::new(face),
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            spare,
            tracked: Mutex::default(),
            shed: ShedCounters::default(),
            reported: Mutex::default(),
        }))
    }

    /// Takes a slot for a new connection. If few are left, the connection that has been idle for longest is closed.
    /// `None` if no slot is left and none becomes free in time.
    pub(super) async fn take(&self) -> Option<Slot> {
        let permits = &self.0.permits;
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            let scarce = permits.available_permits() < self.0.spare;
            let kind = match scarce && !self.close_idlest() {
                true => SlotKind::Reserved,
                false => SlotKind::Ordinary,
            };
            if scarce {
                self.report(|| "the limit on connections is reached".into());
            }
            return Some(Slot { kind, _permit: permit });
        }
        let freed = match self.close_idlest() {
            true => timeout(ROOM_TIMEOUT, permits.clone().acquire_owned()).await.ok().and_then(Result::ok),
            false => None,
        };
        if freed.is_none() {
            self.count_refused();
        }
        self.report(|| "the limit on connections is reached".into());
        freed.map(|permit| Slot { kind: SlotKind::Ordinary, _permit: permit })
    }

    /// Counts a connection that was refused, or whose request was, because all others are busy.
    pub(super) fn count_refused(&self) {
        self.0.shed.full.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes room after the operating system refused a descriptor. Whether an idle connection is closed for it.
    pub(super) fn descriptors_exhausted(&self, error: &std::io::Error) -> bool {
        self.0.shed.accept_error.fetch_add(1, Ordering::Relaxed);
        let closed = self.close_idlest();
        self.report(|| format!("cannot accept connections: {error}"));
        closed
    }

    /// Makes a connection known to [`Self::take`].
    pub(super) fn register(&self, tracker: PhaseTracker) -> Registration {
        let mut tracked = self.tracked();
        let number = tracked.next;
        tracked.next += 1;
        tracked.by_number.insert(number, tracker);
        Registration { slots: self.clone(), number }
    }

    /// Asks the connection that has been idle for longest to close. `false` if none is idle.
    fn close_idlest(&self) -> bool {
        let mut tracked = self.tracked();
        let Some(idlest) = tracked.take_idlest() else { return false };
        idlest.ask_to_close();
        self.0.shed.idle.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Logs one line a minute, with the numbers since the start.
    fn report(&self, reason: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut reported = self.0.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_some_and(|last| now.duration_since(last) < REPORT_INTERVAL) {
            return;
        }
        *reported = Some(now);
        let [(_, idle_closed), (_, refused), (_, accept_errors)] = self.shed();
        let (face, connections_max, reason) = (self.face(), self.0.connections_max, reason());
        warn!(face, reason, connections_max, idle_closed, refused, accept_errors, "connections are short");
    }

    fn tracked(&self) -> MutexGuard<'_, TrackedConnections> {
        self.0.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the listeners in the log and the metrics.
    pub fn face(&self) -> &'static str {
        self.0.failures.face()
    }

    /// The counters of connections that came to nothing.
    pub fn failures(&self) -> &ConnectionFailures {
        &self.0.failures
    }

    /// The connections that are open.
    pub fn open(&self) -> usize {
        self.0.connections_max - self.0.permits.available_permits().min(self.0.connections_max)
    }

    /// Connections at once, at most.
    pub fn connections_max(&self) -> usize {
        self.0.connections_max
    }

    /// The connections that were closed or refused for lack of room, by reason: `idle` was closed for a new one, `full`
    /// was refused because none was idle, `accept_error` could not be accepted by the operating system.
    pub fn shed(&self) -> [(&'static str, u64); 3] {
        let ShedCounters { idle, full, accept_error } = &self.0.shed;
        [("idle", idle), ("full", full), ("accept_error", accept_error)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}
