//! The open session: both ends send and receive changes, and notice when the other end is gone.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Position, Revision};
use crate::wire::{ClockSample, CloseReason, Heartbeat, Message, PeerInfo};

use super::event::{Config, Event, MILLISECOND_NS, OriginFilter, SessionAction, SessionEvent, SessionTime};
use super::fault::SessionFault;
use super::health::HealthReports;
use super::lag::Lag;
use super::offset::Offset;
use super::progress::PeerProgress;
use super::receiving::Receiving;
use super::sending::Sending;

/// A peer is dead after this many heartbeat intervals without a byte.
pub(super) const HEARTBEATS_MISSED_MAX: u64 = 3;
/// The shortest allowed interval of heartbeats.
pub const HEARTBEAT_NS_MIN: u64 = 100 * MILLISECOND_NS;
/// The longest allowed interval of heartbeats.
pub const HEARTBEAT_NS_MAX: u64 = 60_000 * MILLISECOND_NS;
/// The smallest bound on messages that a peer may announce.
pub const MESSAGE_BYTES_MIN: u64 = 64 << 10;

/// The time without a byte after which a peer is dead, for an interval of heartbeats.
pub fn silence_max(heartbeat_ns: u64) -> Duration {
    Duration::from_nanos(HEARTBEATS_MISSED_MAX * heartbeat_ns.clamp(HEARTBEAT_NS_MIN, HEARTBEAT_NS_MAX))
}

/// Refuses a bound on messages that is too small to be useful.
pub(super) fn check_message_bytes_max(message_bytes_max: u64) -> Result<(), SessionFault> {
    if message_bytes_max < MESSAGE_BYTES_MIN {
        let text = format!("a bound of {message_bytes_max} bytes a message is under {MESSAGE_BYTES_MIN}");
        return Err(SessionFault::protocol(text));
    }
    Ok(())
}

/// The end of the link that this is. It matters only in a resync, in which the hub sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEnd {
    Edge,
    Hub,
}

/// The result of the handshake.
pub(super) struct Agreement<'a> {
    pub end: LinkEnd,
    pub config: Config,
    pub heartbeat_ns: u64,
    /// This end's store at the start of the session.
    pub theirs: &'a PeerInfo,
    /// The peer's bound on messages.
    pub message_bytes_max: u64,
    /// The positions to resume from: the peer's cursor for our store and ours for the peer's; `None` for a resync.
    pub resume: Option<(Revision, Position)>,
    /// How far the stores have each other's changes.
    pub progress: PeerProgress,
    /// The peer takes changes from this end before its own half of a resync is acknowledged.
    pub sends_early: bool,
    pub offset: Offset,
    pub lag: Lag,
}

/// The state of an open session.
#[derive(Debug)]
pub(super) struct OpenSession {
    end: LinkEnd,
    sending: Sending,
    receiving: Receiving,
    /// Whether the peer may send its half of a resync: the hub sends its half first.
    peer_may_resync: bool,
    offset: Offset,
    head: Revision,
    lag: Lag,
    heartbeat_ns: u64,
    heartbeat_due_ns: u64,
    heard_ns: u64,
    progress_ns: u64,
    progress_due_ns: u64,
    acked: AckedReporter,
    cursor: AckedReporter,
    health: HealthReports,
}

/// Delays the report of an acknowledged revision until everything is durable that the peer sent before the ack.
///
/// An update sent before the ack may contain a group as it was before a delete that the peer now has. If that update were
/// committed after the tombstone was dropped, it would revive the group.
#[derive(Clone, Copy, Debug, Default)]
struct AckedReporter {
    reported: Option<Revision>,
    /// The revision to report once this many commits are durable.
    due: Option<(Revision, u64)>,
}

impl AckedReporter {
    /// The revisions to report: the peer has everything up to `revision`, this end asked for `asked` commits, and
    /// `durable` of them are.
    fn due(&mut self, revision: Revision, asked: u64, durable: u64) -> impl Iterator<Item = Revision> + use<> {
        let mut next = || {
            if self.due.is_none() && self.reported.is_none_or(|reported| reported < revision) {
                self.due = Some((revision, asked));
            }
            let (due, _) = self.due.take_if(|(_, commits)| *commits <= durable)?;
            self.reported = Some(due);
            Some(due)
        };
        // The one that waited, and the newest one.
        let (waited, newest) = (next(), next());
        waited.into_iter().chain(newest)
    }
}

impl OpenSession {
    /// Opens the session; `head` is the newest published revision.
    pub fn open(
        agreement: Agreement<'_>,
        head: Revision,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Self {
        let Agreement {
            end,
            config,
            heartbeat_ns,
            theirs,
            message_bytes_max,
            resume,
            progress,
            sends_early,
            offset,
            lag,
        } = agreement;
        let PeerProgress { acked, after, .. } = progress;
        let message_bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let cursor = resume.map(|(_, cursor)| cursor);
        let filter = OriginFilter { origin: theirs.store, after };
        let mut sending = Sending::new(filter, head, acked, &config, message_bytes_max);
        match resume {
            Some(_) => sending.resume(now.monotonic_ns, actions),
            None if end == LinkEnd::Hub => sending.resync(now.monotonic_ns, actions),
            None if sends_early => sending.send_early(),
            None => {}
        }
        let mut session = Self {
            end,
            sending,
            receiving: Receiving::new(theirs.store, theirs.epoch(), cursor, end == LinkEnd::Hub),
            peer_may_resync: resume.is_some() || end == LinkEnd::Edge,
            offset,
            head,
            lag,
            heartbeat_ns,
            heartbeat_due_ns: now.monotonic_ns.saturating_add(heartbeat_ns),
            heard_ns: now.monotonic_ns,
            progress_ns: config.progress_ns,
            progress_due_ns: now.monotonic_ns.saturating_add(config.progress_ns),
            acked: AckedReporter::default(),
            cursor: AckedReporter::default(),
            health: HealthReports::default(),
        };
        session.lag.acked(session.sending.acked());
        session.lag.moved(head, now.wall_ns);
        session.report_acked(actions);
        session
    }

    /// When [`Event::Tick`] is due.
    pub fn next_timeout(&self) -> u64 {
        let due_ns = self.heartbeat_due_ns.min(self.dead_ns()).min(self.progress_due_ns);
        let next = [self.sending.next_timeout(), self.receiving.next_timeout()];
        next.into_iter().flatten().fold(due_ns, u64::min)
    }

    /// Whether a new head can change anything now.
    pub fn wants_heads(&self) -> bool {
        self.sending.wants_heads()
    }

    fn dead_ns(&self) -> u64 {
        self.heard_ns.saturating_add(HEARTBEATS_MISSED_MAX * self.heartbeat_ns)
    }

    /// Handles an event, except those that end a session in any state.
    pub fn handle(
        &mut self,
        event: Event,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<(), SessionFault> {
        match event {
            Event::Message(message) => {
                self.heard_ns = now.monotonic_ns;
                self.message(message, now, actions)?;
            }
            Event::Heard => self.heard_ns = now.monotonic_ns,
            Event::Head(head) => {
                self.head = self.head.max(head);
                self.lag.moved(head, now.wall_ns);
                self.sending.publish(head, now.monotonic_ns, actions);
            }
            Event::Health(health) => self.health.set(health),
            Event::Read(batch) => self.sending.read(batch, now.monotonic_ns, actions),
            Event::Committed { id, suppressed } => {
                let half_done = self.receiving.committed(id, suppressed, now.monotonic_ns, actions)?;
                if half_done {
                    self.peer_sent_all(now, actions);
                }
            }
            Event::Tick => self.tick(now, actions)?,
            Event::Stop(refused) => {
                self.receiving.send_pending_ack(actions);
                return Err(refused.into());
            }
            // The other events belong to the handshake, or the endpoint handled them.
            _ => {}
        }
        self.lag.acked(self.sending.acked());
        self.report_acked(actions);
        Ok(())
    }

    fn report_acked(&mut self, actions: &mut VecDeque<SessionAction>) {
        let (asked, durable) = self.receiving.commits();
        let notify = |event| SessionAction::Notify(event);
        let acked = self.acked.due(self.sending.acked(), asked, durable);
        actions.extend(acked.map(|revision| notify(SessionEvent::PeerAcked(revision))));
        let cursor = self.cursor.due(self.sending.cursor(), asked, durable);
        actions.extend(cursor.map(|revision| notify(SessionEvent::PeerCursor(revision))));
    }

    fn message(
        &mut self,
        message: Message,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<(), SessionFault> {
        match message {
            // Before, it may send what is new: changes that say nothing of how far the peer has come.
            Message::Update(update) if self.peer_may_resync || update.is_early() => {
                self.receiving.update(update, actions)
            }
            Message::Ack(mut ack) => {
                let suppressed = std::mem::take(&mut ack.held_back);
                if !suppressed.is_empty() {
                    actions.push_back(SessionAction::Notify(SessionEvent::Suppressed(suppressed)));
                }
                if self.sending.ack(ack, self.offset.round_trip_ns(), now.monotonic_ns, actions)? {
                    self.sent_all(actions);
                }
                Ok(())
            }
            Message::Heartbeat(heartbeat) => {
                let (lag_ns, head) = (heartbeat.lag_ns, heartbeat.head);
                self.read_clock(heartbeat.clock, now, actions);
                actions.push_back(SessionAction::Notify(SessionEvent::PeerLag { lag_ns, head }));
                let health = self.health.received(heartbeat.health);
                actions.extend(health.map(|health| SessionAction::Notify(SessionEvent::PeerHealth(health))));
                Ok(())
            }
            other => Err(SessionFault::unexpected(&other)),
        }
    }

    fn read_clock(&mut self, clock: ClockSample, now: SessionTime, actions: &mut VecDeque<SessionAction>) {
        let offset_ns = self.offset.read(clock, now);
        actions.extend(offset_ns.map(|offset_ns| SessionAction::Notify(SessionEvent::ClockOffset(offset_ns))));
    }

    /// The peer's half of a resync is durable here.
    fn peer_sent_all(&mut self, now: SessionTime, actions: &mut VecDeque<SessionAction>) {
        match self.end {
            LinkEnd::Edge => self.sending.resync(now.monotonic_ns, actions),
            LinkEnd::Hub => actions.push_back(SessionAction::Notify(SessionEvent::ResyncCompleted)),
        }
    }

    /// This end's half of a resync is durable at the peer.
    fn sent_all(&mut self, actions: &mut VecDeque<SessionAction>) {
        match self.end {
            LinkEnd::Hub => self.peer_may_resync = true,
            LinkEnd::Edge => {
                self.receiving.complete(actions);
                actions.push_back(SessionAction::Notify(SessionEvent::ResyncCompleted));
            }
        }
    }

    fn tick(&mut self, now: SessionTime, actions: &mut VecDeque<SessionAction>) -> Result<(), SessionFault> {
        if now.monotonic_ns >= self.dead_ns() {
            let silent_ms = (now.monotonic_ns - self.heard_ns) / MILLISECOND_NS;
            return Err(SessionFault::new(CloseReason::Silence, format!("nothing heard for {silent_ms} ms")));
        }
        if now.monotonic_ns >= self.heartbeat_due_ns {
            self.heartbeat_due_ns = now.monotonic_ns.saturating_add(self.heartbeat_ns);
            let (clock, lag_ns) = (self.offset.reading(now), self.lag.oldest_ns(now.wall_ns));
            let heartbeat = Heartbeat { clock, head: self.head, lag_ns, health: self.health.take_changes() };
            actions.push_back(SessionAction::Send(Message::Heartbeat(heartbeat)));
        }
        if now.monotonic_ns >= self.progress_due_ns {
            self.progress_due_ns = now.monotonic_ns.saturating_add(self.progress_ns);
            self.sending.send_progress(now.monotonic_ns, actions);
        }
        self.sending.step(now.monotonic_ns, actions);
        self.receiving.step(now.monotonic_ns, actions);
        Ok(())
    }
}
