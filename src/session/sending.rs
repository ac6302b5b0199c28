//! One direction of the link, at its sender: what is read, sent and acknowledged.
//!
//! While changes trickle, one update is on its way at a time, and what changes meanwhile conflates in the store until it is
//! acknowledged. Then the next follows, after a pause if the one before had many groups ([`super::pace`]). Framing, syncing
//! and acknowledging an update costs both ends several times what its first change does. Where pushes are rare, the pause is
//! over before the next comes, and several updates are acknowledged together; where they are frequent, many share an update.
//! Where updates are to be some time apart ([`super::Config::send_interval_ns`]), they are. To catch up, while the store says
//! that there is more, nothing is waited for and up to [`WINDOW`] are on their way. What holds nothing for the peer is not
//! sent; the peer is told of such revisions now and then, so that it need not look at them again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::model::{GroupId, LabelSet, Revision};
use crate::wire::{Ack, Cost, Delta, Message, Update};

use super::event::{Batch, Config, OriginFilter, SessionAction};
use super::pace::Pace;
use super::peer::SessionFault;

/// Updates that may be unacknowledged at once.
pub(super) const WINDOW: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendPhase {
    /// The peer has to send first.
    Waiting,
    /// Sending all there is; up to this revision it is a resync.
    Resyncing { goal: Revision },
    /// Sending what changes.
    Live,
}

#[derive(Clone, Copy, Debug)]
struct Unacked {
    upto: Revision,
    last_of_resync: bool,
    ack_may_wait: bool,
    sent_ns: u64,
}

/// The sender's state.
#[derive(Debug)]
pub(super) struct Sending {
    skip: OriginFilter,
    batch_bytes_max: usize,
    message_bytes_max: usize,
    pace: Pace,
    /// Whether there is a pause, as far as is known.
    pausing: bool,
    phase: SendPhase,
    /// The store has published up to here,
    head: Revision,
    /// all up to here has been read,
    read: Revision,
    /// put into an update,
    told: Revision,
    /// and is known to be held by the peer.
    held: Revision,
    reading: bool,
    more: bool,
    /// Updates of one batch for which there was no room in the window.
    waiting: VecDeque<Update>,
    unacked: VecDeque<Unacked>,
    sent: u64,
    acked: u64,
}

impl Sending {
    /// A sender that waits.
    pub fn new(skip: OriginFilter, head: Revision, config: &Config, message_bytes_max: usize) -> Self {
        let zero = Revision(0);
        Self {
            skip,
            batch_bytes_max: config.batch_bytes_max.min(message_bytes_max),
            message_bytes_max,
            pace: Pace::new(config.send_interval_ns),
            pausing: false,
            phase: SendPhase::Waiting,
            head,
            read: zero,
            told: zero,
            held: zero,
            reading: false,
            more: false,
            waiting: VecDeque::new(),
            unacked: VecDeque::new(),
            sent: 0,
            acked: 0,
        }
    }

    /// Goes on after what the peer holds.
    pub fn go_on(&mut self, held: Revision, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        (self.phase, self.read, self.told, self.held) = (SendPhase::Live, held, held, held);
        self.step(now_ns, actions);
    }

    /// Sends all there is.
    pub fn resync(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        self.phase = SendPhase::Resyncing { goal: self.head };
        self.step(now_ns, actions);
    }

    /// The store has published up to here.
    pub fn publish(&mut self, head: Revision, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        self.head = self.head.max(head);
        self.step(now_ns, actions);
    }

    /// What was asked to be read is here.
    pub fn read(&mut self, batch: Batch, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        if !std::mem::take(&mut self.reading) {
            return;
        }
        // A batch that makes no headway says nothing new about there being more.
        self.more = batch.more && batch.upto > self.read;
        self.read = self.read.max(batch.upto);
        self.head = self.head.max(self.read);
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
            self.told = if partial { self.told } else { self.read };
            let last_of_resync = last_of_resync && !partial;
            self.waiting.push_back(Update { upto: self.told, partial, last_of_resync, deltas, ..Update::default() });
        }
        self.step(now_ns, actions);
    }

    /// The peer has made updates durable. Tells whether that completes this half of a resync.
    pub fn ack(&mut self, ack: Ack, now_ns: u64, actions: &mut VecDeque<SessionAction>) -> Result<bool, SessionFault> {
        let count = ack.updates.checked_sub(self.acked).filter(|count| *count > 0 && ack.updates <= self.sent);
        let Some(count) = count else {
            let (updates, acked, sent) = (ack.updates, self.acked, self.sent);
            return Err(SessionFault::protocol(format!(
                "an ack of {updates} updates, where {acked} to {sent} are expected"
            )));
        };
        let acked: Vec<Unacked> = self.unacked.drain(..count as usize).collect();
        let upto = acked.last().map_or(self.held, |unacked| unacked.upto);
        if upto != ack.revision {
            let revision = ack.revision;
            return Err(SessionFault::protocol(format!("an ack of revision {revision}, where {upto} was sent")));
        }
        if let Some(last) = acked.last()
            && !last.ack_may_wait
        {
            self.pace.acked(last.sent_ns, now_ns);
        }
        self.acked = ack.updates;
        self.held = self.held.max(upto);
        self.step(now_ns, actions);
        Ok(acked.iter().any(|unacked| unacked.last_of_resync))
    }

    /// Tells the peer how far the store is, if it was not told.
    pub fn tell_progress(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        let idle = self.phase == SendPhase::Live && self.waiting.is_empty() && !self.awaits_ack();
        if idle && self.told < self.read {
            self.told = self.read;
            self.waiting.push_back(Update { upto: self.told, ..Update::default() });
            self.step(now_ns, actions);
        }
    }

    /// Sends what waits and reads what is wanted, as far as the window and the interval allow.
    pub fn step(&mut self, now_ns: u64, actions: &mut VecDeque<SessionAction>) {
        while self.unacked.len() < WINDOW
            && let Some(mut update) = self.waiting.pop_front()
        {
            update.ack_may_wait = self.ack_may_wait(&update, now_ns);
            let Update { upto, last_of_resync, ack_may_wait, .. } = update;
            self.unacked.push_back(Unacked { upto, last_of_resync, ack_may_wait, sent_ns: now_ns });
            self.sent += 1;
            self.pace.sent(update.deltas.len(), now_ns);
            actions.push_back(SessionAction::Send(Message::Update(update)));
        }
        let idle = self.unacked.is_empty();
        if idle && self.phase == SendPhase::Live {
            // What was read and not sent, the peer had.
            self.held = self.held.max(self.read);
        }
        self.pausing = self.pace.is_pausing(now_ns);
        if self.wants_to_read() && self.due_ns() <= now_ns {
            self.reading = true;
            let (since, skip, bytes_max) = (self.read, self.skip, self.batch_bytes_max);
            actions.push_back(SessionAction::Read { since, skip, bytes_max });
        }
    }

    /// Whether the acknowledgement of an update that is sent now may wait: it is neither for changes to conflate, nor to
    /// make room for more.
    fn ack_may_wait(&self, update: &Update, now_ns: u64) -> bool {
        let trickles = self.phase == SendPhase::Live && !self.more && self.waiting.is_empty() && !self.awaits_ack();
        let room = self.unacked.len() + 1 < WINDOW;
        trickles && room && !update.last_of_resync && self.pace.is_calm(now_ns)
    }

    /// Whether the last update is to be acknowledged at once, and nothing is sent that trickles until it is.
    fn awaits_ack(&self) -> bool {
        self.unacked.back().is_some_and(|last| !last.ack_may_wait)
    }

    fn wants_to_read(&self) -> bool {
        let wanted = match self.phase {
            SendPhase::Waiting => false,
            SendPhase::Resyncing { .. } => true,
            SendPhase::Live => self.more || self.head > self.read,
        };
        let room = !self.awaits_ack() || (self.more && self.unacked.len() < WINDOW);
        wanted && room && self.waiting.is_empty() && !self.reading
    }

    /// When to read next. To catch up, nothing is waited for.
    fn due_ns(&self) -> u64 {
        let trickles = self.phase == SendPhase::Live && !self.more;
        if trickles { self.pace.next_ns() } else { 0 }
    }

    /// When [`Sending::step`] has something to do again, if only the time is in its way.
    pub fn next_timeout(&self) -> Option<u64> {
        let pause = (self.pausing && !self.awaits_ack()).then_some(self.pace.next_ns());
        if self.wants_to_read() { Some(self.due_ns()) } else { pause }
    }

    /// Whether it makes a difference now what the store publishes. Where it does not, it will when the peer acknowledges or
    /// the time of [`Sending::next_timeout`] has come, and to hear of every change meanwhile would be for nothing.
    pub fn listens(&self) -> bool {
        self.phase != SendPhase::Live || !(self.awaits_ack() || self.pausing)
    }

    /// The peer holds all of this store's changes up to here.
    pub fn held(&self) -> Revision {
        self.held
    }
}

/// Cuts a batch into updates that the peer takes: between groups, or where one group is too large, between its families.
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
    // The header goes even if no family can.
    parts.push(part(from, delta.group.families().len()), cost);
}

fn unsendable(id: &GroupId, family: Option<&Arc<str>>, cost: Cost, bytes_max: usize) -> SessionAction {
    SessionAction::Unsendable { id: id.clone(), family: family.cloned(), bytes: cost.bytes(), bytes_max }
}

#[derive(Default)]
struct UpdateSplitter {
    bytes_max: usize,
    whole: Vec<Vec<Delta>>,
    current: Vec<Delta>,
    /// The groups of the current part: an update names none twice, but a batch may. A group can come in parts, and groups of
    /// several places can be shown as one.
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
    use crate::wire::{Decoder, Encoder};

    fn live(config: &Config) -> (Sending, VecDeque<SessionAction>) {
        let skip = OriginFilter { origin: crate::model::StoreId(9), after: Revision(0) };
        let (mut sending, mut actions) = (Sending::new(skip, Revision(0), config, 1 << 20), VecDeque::new());
        sending.go_on(Revision(0), 0, &mut actions);
        (sending, actions)
    }

    fn read(upto: u64, more: bool) -> Batch {
        Batch { deltas: Vec::new(), upto: Revision(upto), more }
    }

    #[test]
    fn while_there_is_more_it_is_read_whatever_was_heard_of_the_head() {
        let (mut sending, mut actions) = live(&Config::default());
        sending.publish(Revision(10), 0, &mut actions);
        assert!(matches!(actions.drain(..).collect::<Vec<_>>()[..], [SessionAction::Read { since: Revision(0), .. }]));
        sending.read(read(10, true), 0, &mut actions);
        assert!(matches!(actions.drain(..).collect::<Vec<_>>()[..], [SessionAction::Read { since: Revision(10), .. }]));
        sending.read(read(10, true), 0, &mut actions);
        assert!(actions.is_empty(), "a batch without headway says nothing of there being more");
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
        // The first and the last family would have room in one update, but there is one between them that has none.
        let torn = put("a", vec![gauge("a", 100), gauge("b", 10_000), gauge("c", 100)]);
        let mut actions = VecDeque::new();
        for (deltas, updates) in [
            (vec![torn.clone(), put("b", vec![gauge("a", 1)])], 2),
            // As groups of two places that are shown under one key.
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
        let Some(SessionAction::Unsendable { family, .. }) = actions.pop_front() else {
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
        let Some(SessionAction::Unsendable { id, family: None, bytes, bytes_max }) = actions.pop_front() else {
            panic!("the group is left out")
        };
        assert!(id == large.id && bytes > bytes_max && actions.is_empty());
    }

    #[test]
    fn progress_that_is_told_keeps_no_change_waiting() {
        let second_ns = 1_000_000_000;
        let (mut sending, mut actions) = live(&Config { send_interval_ns: 10 * second_ns, ..Config::default() });
        sending.publish(Revision(5), 0, &mut actions);
        sending.read(read(5, false), 0, &mut actions);
        sending.tell_progress(0, &mut actions);
        assert!(
            matches!(actions.back(), Some(SessionAction::Send(Message::Update(update))) if update.upto == Revision(5))
        );
        let ack = Ack { updates: 1, revision: Revision(5), ..Ack::default() };
        assert!(!sending.ack(ack, second_ns, &mut actions).unwrap());
        actions.clear();
        sending.publish(Revision(6), second_ns, &mut actions);
        assert!(matches!(actions.drain(..).collect::<Vec<_>>()[..], [SessionAction::Read { .. }]));
    }
}
