//! The sending direction of a session: changes are read, sent and acknowledged.
//!
//! While changes trickle, one update is in flight at a time, and changes made meanwhile conflate in the store until it is
//! acknowledged. Then the next update goes, after a pause if the previous one had many groups ([`super::pace`]). Framing,
//! syncing and acknowledging an update costs both ends several times as much as its first change. If pushes are rare, the
//! pause ends before the next push, and one ack covers several updates; if they are frequent, many share an update.
//! [`super::Config::send_interval_ns`] sets a longer interval between updates. To catch up, as long as the store has more,
//! nothing waits and up to [`WINDOW`] updates are in flight, each of a size that suits the line ([`super::batch_size`]).
//! The newest changes overtake the backlog ([`Overtaking`]). Revisions that contain nothing for the peer are
//! not sent; now and then an empty update carries the revision reached, so that the peer need not look at them again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::model::{GroupId, LabelSet, Revision};
use crate::wire::{Ack, Cost, Delta, Message, Update};

use super::batch_size::{BatchSize, WINDOW};
use super::event::{Batch, Config, OriginFilter, SessionAction, SessionEvent};
use super::fault::SessionFault;
use super::pace::Pace;

/// The number of revisions at the head that overtake a backlog from its start: about what is pushed while an edge dials.
const NEWEST: u64 = 32;
/// A backlog of fewer revisions is sent in order: nothing waits for long behind it.
const BACKLOG_MIN: u64 = 4 * NEWEST;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendPhase {
    /// The peer sends its half of a resync first.
    Waiting,
    /// Sends everything; up to this revision it is a resync.
    Resyncing { goal: Revision },
    /// Sends changes as they happen.
    Live,
}

#[derive(Clone, Copy, Debug)]
struct Unacked {
    upto: Revision,
    last_of_resync: bool,
    ack_may_wait: bool,
    /// It is one of a backlog.
    is_full: bool,
    sent_ns: u64,
}

/// The kinds of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The oldest changes that the peer lacks.
    Oldest,
    /// The newest changes, while older ones wait.
    Newest,
}

/// Changes that overtake a backlog: those of the revisions after `from`, up to `upto`, are sent already. They are sent in
/// updates that carry the revision which the oldest changes have reached, so that no cursor runs ahead. When the oldest
/// ones reach `from`, they continue after `upto`.
#[derive(Clone, Copy, Debug)]
struct Overtaking {
    from: Revision,
    upto: Revision,
    /// The last batch was one of these: the next one is of the backlog, if there is any, so that it is never starved.
    was_last: bool,
}

/// The state of the sending direction.
#[derive(Debug)]
pub(super) struct Sending {
    skip: OriginFilter,
    batch_size: BatchSize,
    message_bytes_max: usize,
    pace: Pace,
    /// Whether the last step was within a pause.
    pausing: bool,
    phase: SendPhase,
    /// The newest published revision.
    head: Revision,
    /// All changes up to here are read.
    read: Revision,
    /// All changes up to here are in an update.
    packed: Revision,
    /// The peer has all changes up to here.
    acked: Revision,
    /// The peer's cursor is at least here: it acknowledged an update up to this revision, or resumed from it.
    cursor: Revision,
    reading: Option<Kind>,
    more: bool,
    overtaking: Option<Overtaking>,
    /// Updates of one batch that wait for room in the window.
    waiting: VecDeque<Update>,
    unacked: VecDeque<Unacked>,
    /// The number of updates sent.
    updates_sent: u64,
    /// The number of updates acknowledged.
    updates_acked: u64,
}

impl Sending {
    /// A sender that waits. The peer has this store's changes up to `acked`.
    pub fn new(skip: OriginFilter, head: Revision, acked: Revision, config: &Config, message_bytes_max: usize) -> Self {
        let zero = Revision(0);
        Self {
            skip,
            batch_size: BatchSize::new(config.batch_bytes_max.min(message_bytes_max)),
            message_bytes_max,
            pace: Pace::new(config.send_interval_ns),
            pausing: false,
            phase: SendPhase::Waiting,
            head,
            read: zero,
            packed: zero,
            acked,
            cursor: zero,
            reading: None,
            more: false,
            overtaking: None,
            waiting: VecDeque::new(),
            unacked: VecDeque::new(),
            updates_sent: 0,
            updates_acked: 0,
        }
    }

    /// Starts after the peer's cursor: what it has acknowledged.
    pub fn resume(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        (self.phase, self.read, self.packed) = (SendPhase::Live, self.acked, self.acked);
        self.cursor = self.acked;
        self.step(now_ns, actions);
    }

    /// Lets the newest changes overtake, although the peer sends its half of a resync first.
    pub fn send_early(&mut self) {
        self.overtake();
    }

    /// Starts with everything that the peer has not acknowledged, in this or an earlier session.
    pub fn resync(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        (self.read, self.packed) = (self.acked, self.acked);
        self.overtake();
        self.phase = SendPhase::Resyncing { goal: self.head };
        self.step(now_ns, actions);
    }

    /// The store has published its changes up to `head`.
    pub fn publish(&mut self, head: Revision, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        self.head = self.head.max(head);
        self.step(now_ns, actions);
    }

    /// Packs the batch that was requested into updates.
    pub fn read(&mut self, batch: Batch, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        match self.reading.take() {
            None => return,
            Some(Kind::Newest) => self.pack_newest(batch, actions),
            Some(Kind::Oldest) => self.pack_oldest(batch, actions),
        }
        self.step(now_ns, actions);
    }

    fn pack_newest(&mut self, batch: Batch, actions: &mut VecDeque<SessionAction>) {
        if let Some(overtaking) = &mut self.overtaking {
            (overtaking.upto, overtaking.was_last) = (overtaking.upto.max(batch.upto), true);
        }
        self.head = self.head.max(batch.upto);
        for deltas in split(batch.deltas, self.message_bytes_max, actions) {
            self.waiting.push_back(Update { upto: self.packed, deltas, ..Update::default() });
        }
    }

    fn pack_oldest(&mut self, batch: Batch, actions: &mut VecDeque<SessionAction>) {
        // A batch that makes no progress is no evidence that there is more.
        self.more = batch.more && batch.upto > self.read;
        self.read = self.read.max(batch.upto);
        self.head = self.head.max(self.read);
        match &mut self.overtaking {
            Some(overtaking) if self.read < overtaking.from => overtaking.was_last = false,
            Some(overtaking) => {
                self.read = self.read.max(overtaking.upto);
                self.overtaking = None;
            }
            None if self.more => self.overtake(),
            None => {}
        }
        let last_of_resync = match self.phase {
            SendPhase::Resyncing { goal } => self.read >= goal || !self.more,
            SendPhase::Waiting | SendPhase::Live => false,
        };
        if last_of_resync {
            self.phase = SendPhase::Live;
        }
        let mut parts = split(batch.deltas, self.message_bytes_max, actions);
        if parts.is_empty() && last_of_resync {
            parts.push(Vec::new());
        }
        let count = parts.len();
        for (at, deltas) in parts.into_iter().enumerate() {
            let partial = at + 1 < count;
            self.packed = if partial { self.packed } else { self.read };
            let last_of_resync = last_of_resync && !partial;
            self.waiting.push_back(Update { upto: self.packed, partial, last_of_resync, deltas, ..Update::default() });
        }
    }

    /// From now on, the newest changes overtake the others.
    fn overtake(&mut self) {
        let is_long = self.head.0.saturating_sub(self.acked.0) >= BACKLOG_MIN;
        let from = if is_long { Revision(self.head.0 - NEWEST).max(self.read) } else { self.head };
        let overtaking = Overtaking { from, upto: from, was_last: false };
        self.overtaking.get_or_insert(overtaking);
    }

    /// The peer has made updates durable. Returns whether that completes this half of a resync.
    ///
    /// # Errors
    /// If the ack does not fit the updates that were sent.
    pub fn ack(
        &mut self,
        ack: Ack,
        round_trip_ns: u64,
        now_ns: u64,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<bool, SessionFault> {
        let count =
            ack.updates.checked_sub(self.updates_acked).filter(|count| *count > 0 && ack.updates <= self.updates_sent);
        let Some(count) = count else {
            let (updates, acked, sent) = (ack.updates, self.updates_acked, self.updates_sent);
            return Err(SessionFault::protocol(format!(
                "an ack of {updates} updates, where {acked} to {sent} are expected"
            )));
        };
        let acked: Vec<Unacked> = self.unacked.drain(..count as usize).collect();
        let upto = acked.last().map_or(self.acked, |unacked| unacked.upto);
        if upto != ack.revision {
            let revision = ack.revision;
            return Err(SessionFault::protocol(format!("an ack of revision {revision}, where {upto} was sent")));
        }
        if let Some(last) = acked.last()
            && !last.ack_may_wait
        {
            self.pace.acked(last.sent_ns, now_ns);
            self.batch_size.acked(last.sent_ns, now_ns, round_trip_ns, last.is_full);
        }
        self.updates_acked = ack.updates;
        self.acked = self.acked.max(upto);
        self.cursor = self.cursor.max(upto);
        self.step(now_ns, actions);
        Ok(acked.iter().any(|unacked| unacked.last_of_resync))
    }

    /// Sends the revision reached, if the peer does not have it.
    pub fn send_progress(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        let idle = self.phase == SendPhase::Live && self.waiting.is_empty() && !self.awaits_ack();
        if idle && self.packed < self.read {
            self.packed = self.read;
            self.waiting.push_back(Update { upto: self.packed, ..Update::default() });
            self.step(now_ns, actions);
        }
    }

    /// Sends waiting updates and requests a read, as far as the window and the pace allow.
    pub fn step(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        while self.unacked.len() < WINDOW
            && let Some(mut update) = self.waiting.pop_front()
        {
            update.ack_may_wait = self.ack_may_wait(&update, now_ns);
            let Update { upto, last_of_resync, ack_may_wait, .. } = update;
            let is_full = self.more;
            self.unacked.push_back(Unacked { upto, last_of_resync, ack_may_wait, is_full, sent_ns: now_ns });
            self.updates_sent += 1;
            self.pace.sent(update.deltas.len(), now_ns);
            actions.push_back(SessionAction::Send(Message::Update(update)));
        }
        let idle = self.unacked.is_empty();
        if idle && self.phase == SendPhase::Live {
            // Every change that was read and not sent came from the peer.
            self.acked = self.acked.max(self.read);
        }
        self.pausing = self.pace.is_pausing(now_ns);
        let wanted = self.wanted().into_iter().flatten();
        if let Some(kind) = { wanted }.find(|kind| self.due_ns(*kind) <= now_ns) {
            self.reading = Some(kind);
            let since = match (kind, self.overtaking) {
                (Kind::Newest, Some(overtaking)) => overtaking.upto,
                _ => self.read,
            };
            let (skip, bytes_max) = (self.skip, self.batch_size.bytes());
            actions.push_back(SessionAction::Read { since, skip, bytes_max });
        }
    }

    /// Whether the ack of an update that is sent now may wait: neither changes nor further updates wait for it.
    fn ack_may_wait(&self, update: &Update, now_ns: u64) -> bool {
        let trickles = self.phase == SendPhase::Live && !self.more && self.waiting.is_empty() && !self.awaits_ack();
        let room = self.unacked.len() + 1 < WINDOW;
        trickles && room && !update.last_of_resync && self.pace.is_calm(now_ns)
    }

    /// Whether the peer acknowledges the last update at once. Until then, changes that trickle wait.
    fn awaits_ack(&self) -> bool {
        self.unacked.back().is_some_and(|last| !last.ack_may_wait)
    }

    /// The kinds of batches to read, the preferred one first.
    fn wanted(&self) -> [Option<Kind>; 2] {
        if self.reading.is_some() || !self.waiting.is_empty() {
            return [None, None];
        }
        let catches_up = self.more && self.unacked.len() < self.batch_size.updates();
        let has_room = !self.awaits_ack() || catches_up;
        let oldest = match self.phase {
            SendPhase::Waiting => false,
            SendPhase::Resyncing { .. } => true,
            SendPhase::Live => self.more || self.head > self.read,
        };
        let newest = self.overtaking.filter(|overtaking| self.head > overtaking.upto);
        let [oldest, newest_kind] = [(oldest, Kind::Oldest), (newest.is_some(), Kind::Newest)]
            .map(|(wanted, kind)| (wanted && has_room).then_some(kind));
        if newest.is_some_and(|newest| newest.was_last) { [oldest, newest_kind] } else { [newest_kind, oldest] }
    }

    /// When to read. To catch up, nothing waits.
    fn due_ns(&self, kind: Kind) -> u64 {
        let trickles = self.phase == SendPhase::Live && !self.more;
        if trickles || kind == Kind::Newest { self.pace.next_ns() } else { 0 }
    }

    /// When [`Sending::step`] is due, if it only waits for time to pass.
    pub fn next_timeout(&self) -> Option<u64> {
        let pause = (self.pausing && !self.awaits_ack()).then_some(self.pace.next_ns());
        let wanted = self.wanted().into_iter().flatten().map(|kind| self.due_ns(kind)).min();
        wanted.or(pause)
    }

    /// Whether a new head could cause a send now. If not, the next ack or [`Sending::next_timeout`] looks at the head again,
    /// and the driver need not report heads until then.
    pub fn wants_heads(&self) -> bool {
        self.phase != SendPhase::Live || self.overtaking.is_some() || !(self.awaits_ack() || self.pausing)
    }

    /// The peer has all of this store's changes up to here.
    pub fn acked(&self) -> Revision {
        self.acked
    }

    /// The peer's durable cursor for this store is at least here. It can be behind [`Sending::acked`], because changes that
    /// are left out move no cursor.
    pub fn cursor(&self) -> Revision {
        self.cursor
    }
}

/// Splits a batch into updates that the peer accepts: between groups, or, if one group is too large, between its families.
fn split(deltas: Vec<Delta>, bytes_max: usize, actions: &mut VecDeque<SessionAction>) -> Vec<Vec<Delta>> {
    let mut parts = UpdateSplitter { bytes_max, ..UpdateSplitter::default() };
    for delta in deltas {
        let families = delta.group.families().iter().map(|f| Cost::of_family(&f.family));
        let cost = families.fold(Cost::of_header(&delta), Cost::plus);
        if cost.fits(bytes_max) {
            parts.push(delta, cost);
        } else {
            split_group(&delta, &mut parts, actions);
        }
    }
    parts.end();
    parts.whole
}

fn split_group(delta: &Delta, parts: &mut UpdateSplitter, actions: &mut VecDeque<SessionAction>) {
    let header = Cost::of_header(delta);
    if !header.fits(parts.bytes_max) {
        return actions.push_back(unsendable(&delta.id, None, header, parts.bytes_max));
    }
    let part = |from, to| Delta { id: delta.id.clone(), group: delta.group.part(|i, _| (from..to).contains(&i)) };
    let (mut from, mut cost) = (0, header);
    for (at, family) in delta.group.families().iter().enumerate() {
        let family_cost = Cost::of_family(&family.family);
        if cost.plus(family_cost).fits(parts.bytes_max) {
            cost = cost.plus(family_cost);
            continue;
        }
        if from < at {
            parts.push(part(from, at), cost);
        }
        (from, cost) = (at, header.plus(family_cost));
        if !cost.fits(parts.bytes_max) {
            actions.push_back(unsendable(&delta.id, Some(family.family.name()), cost, parts.bytes_max));
            (from, cost) = (at + 1, header);
        }
    }
    // The header is sent even if no family fits.
    parts.push(part(from, delta.group.families().len()), cost);
}

fn unsendable(id: &GroupId, family: Option<&Arc<str>>, cost: Cost, bytes_max: usize) -> SessionAction {
    let bytes = cost.bytes();
    SessionAction::Notify(SessionEvent::Unsendable { id: id.clone(), family: family.cloned(), bytes, bytes_max })
}

#[derive(Default)]
struct UpdateSplitter {
    bytes_max: usize,
    whole: Vec<Vec<Delta>>,
    current: Vec<Delta>,
    /// The groups of the current part. An update names no group twice, but a batch may: a group can come in parts, and
    /// groups of several sites can be shown as one.
    named: HashSet<Arc<LabelSet>>,
    cost: Cost,
}

impl UpdateSplitter {
    fn push(&mut self, delta: Delta, cost: Cost) {
        if !self.cost.plus(cost).fits(self.bytes_max) || self.named.contains(&delta.id.key) {
            self.end();
        }
        self.named.insert(delta.id.key.clone());
        self.cost = self.cost.plus(cost);
        self.current.push(delta);
    }

    fn end(&mut self) {
        self.cost = Cost::default();
        self.named.clear();
        if !self.current.is_empty() {
            self.whole.push(std::mem::take(&mut self.current));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, FamilyBuilder, Group, MetricType, NodeId, PushTime, ValueLayout, WriteTimestamp};
    use crate::session::tests::config;
    use crate::wire::{Decoder, Encoder};

    fn live(config: &Config) -> (Sending, VecDeque<SessionAction>) {
        let skip = OriginFilter { origin: crate::model::StoreId(9), after: Revision(0) };
        let (mut sending, mut actions) =
            (Sending::new(skip, Revision(0), Revision(0), config, 1 << 20), VecDeque::new());
        sending.resume(0, &mut actions);
        (sending, actions)
    }

    fn read(upto: u64, more: bool) -> Batch {
        Batch { deltas: Vec::new(), upto: Revision(upto), more }
    }

    #[test]
    fn a_backlog_is_read_on_whatever_the_head() {
        let (mut sending, mut actions) = live(&config());
        sending.publish(Revision(10), 0, &mut actions);
        assert!(matches!(actions.drain(..).collect::<Vec<_>>()[..], [SessionAction::Read { since: Revision(0), .. }]));
        sending.read(read(10, true), 0, &mut actions);
        assert!(matches!(actions.drain(..).collect::<Vec<_>>()[..], [SessionAction::Read { since: Revision(10), .. }]));
        sending.read(read(10, true), 0, &mut actions);
        assert!(actions.is_empty(), "a batch without progress is no evidence that there is more");
    }

    fn gauge(name: &str, series: usize) -> Family {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        for at in 0..series {
            builder.series(&[("at", &format!("{at:05}"))], &ValueLayout::Single, &[at as f64], None);
        }
        builder.finish().unwrap()
    }

    fn put(job: &str, families: Vec<Family>) -> Delta {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        Delta { id: GroupId::local(LabelSet::new([("job", job)])), group: Group::put(moment, families) }
    }

    #[test]
    fn no_update_names_a_group_twice() {
        // The first and the last family fit into one update, but the one between them fits into none.
        let torn = put("a", vec![gauge("a", 100), gauge("b", 10_000), gauge("c", 100)]);
        let mut actions = VecDeque::new();
        for (deltas, updates) in [
            (vec![torn.clone(), put("b", vec![gauge("a", 1)])], 2),
            // As groups of two sites that are shown under one key.
            (vec![put("a", vec![gauge("a", 1)]), put("b", Vec::new()), put("a", vec![gauge("b", 1)])], 2),
        ] {
            let parts = split(deltas, 64 << 10, &mut actions);
            assert_eq!(parts.len(), updates);
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(64 << 10));
            for deltas in parts {
                let (message, mut bytes) = (Message::Update(Update { deltas, ..Update::default() }), Vec::new());
                encoder.encode(&message, &mut bytes);
                assert_eq!(decoder.decode(&bytes).unwrap(), message);
            }
        }
        let Some(SessionAction::Notify(SessionEvent::Unsendable { family, .. })) = actions.pop_front() else {
            panic!("one family is too large")
        };
        assert!(family.as_deref() == Some("b") && actions.is_empty());
    }

    #[test]
    fn a_key_too_large_for_the_peer_is_reported() {
        let mut actions = VecDeque::new();
        let large = put(&"a".repeat(64 << 10), vec![gauge("a", 1), gauge("b", 1)]);
        let other = put("b", vec![gauge("a", 1)]);
        assert_eq!(split(vec![large.clone(), other.clone()], 64 << 10, &mut actions), [[other]]);
        let Some(SessionAction::Notify(SessionEvent::Unsendable { id, family: None, bytes, bytes_max })) =
            actions.pop_front()
        else {
            panic!("the group is left out")
        };
        assert!(id == large.id && bytes > bytes_max && actions.is_empty());
    }

    #[test]
    fn a_progress_update_does_not_delay_the_next_change() {
        let second_ns = 1_000_000_000;
        let (mut sending, mut actions) = live(&Config { send_interval_ns: 10 * second_ns, ..config() });
        sending.publish(Revision(5), 0, &mut actions);
        sending.read(read(5, false), 0, &mut actions);
        sending.send_progress(0, &mut actions);
        assert!(
            matches!(actions.back(), Some(SessionAction::Send(Message::Update(update))) if update.upto == Revision(5))
        );
        let ack = Ack { updates: 1, revision: Revision(5), ..Ack::default() };
        assert!(!sending.ack(ack, 0, second_ns, &mut actions).unwrap());
        actions.clear();
        sending.publish(Revision(6), second_ns, &mut actions);
        assert!(matches!(actions.drain(..).collect::<Vec<_>>()[..], [SessionAction::Read { .. }]));
    }
}
