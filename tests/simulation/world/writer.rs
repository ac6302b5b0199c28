//! The one writer of a node, in the order of `node/writer.rs`: a batch is drafted, made durable, published, answered.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use pushrelay::model::{Group, GroupId, LabelSet, Moment, Position, Revision, Stamp, StoreId};
use pushrelay::session::{CommitId, Event as Told};
use pushrelay::store::{Action, Cursor, Entry, Record, Refusal, Store};
use pushrelay::wire::message::VERDICTS_MAX;
use pushrelay::wire::{Delta, Facts, Hold, Opening, Verdict};

use super::bug::Bug;
use super::content::Content;
use super::node::Batch;
use super::{Checked, ConnId, EDGE, Event, MILLISECOND, NodeId, SECOND, World, Wrong};

/// Something asked of the writer.
#[derive(Debug)]
pub enum Job {
    Push {
        target: Target,
        action: Action,
    },
    Wipe,
    Merge {
        conn: ConnId,
        end: usize,
        id: CommitId,
        place: Arc<LabelSet>,
        deltas: Vec<Delta>,
        peer: StoreId,
        position: Position,
    },
    Facts {
        conn: ConnId,
        end: usize,
    },
    Held {
        uplink: usize,
        revision: Revision,
    },
    HeldBack {
        end: usize,
        place: Arc<LabelSet>,
        verdicts: Vec<Verdict>,
    },
    Sweep,
}

/// Which group is pushed.
#[derive(Clone, Debug)]
pub enum Target {
    Group(GroupId),
    /// As a hub's own API names it.
    Shown(LabelSet),
}

/// To be answered when a batch is durable.
#[derive(Debug)]
pub enum Answer {
    Push,
    Refused,
    Commit { conn: ConnId, end: usize, id: CommitId, merged: Result<Vec<Verdict>, String> },
}

/// Of each group, what families with which first value a batch has to show when it is published.
pub type Due = BTreeMap<GroupId, BTreeMap<Arc<str>, u64>>;

/// A batch while it is drafted.
#[derive(Default)]
struct Drafted {
    answers: Vec<Answer>,
    shown: Due,
}

impl World {
    /// Puts something into a node's queue.
    pub fn ask(&mut self, at: NodeId, job: Job) {
        let wait = self.random.span(MILLISECOND / 100, 20 * MILLISECOND);
        let now = self.now;
        let node = &mut self.nodes[at];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        running.queue.push_back(job);
        if running.batch.is_none() && !running.begin_due {
            running.begin_due = true;
            let at_ns = (now + wait).max(running.stalled_until);
            self.at(at_ns, Event::Begin { node: at, life });
        }
    }

    /// Drafts what waits, and makes it durable.
    pub fn begin_batch(&mut self, at: NodeId, life: u64) -> Checked {
        if self.nodes[at].life != life || self.nodes[at].running.is_none() {
            return Ok(());
        }
        self.check_recovery()?;
        let most = self.random.between(1, 12);
        let mut drafted = Drafted::default();
        for _ in 0..most {
            let blocks = self.is(Bug::HeldBackBlocks);
            let running = self.running(at);
            running.begin_due = false;
            let alone = match running.queue.front() {
                // What may be refused is not drafted together with what was before.
                Some(Job::Merge { deltas, .. }) => blocks || !running.store.has_room(deltas.len()),
                Some(Job::Facts { .. } | Job::Wipe) => true,
                _ => false,
            };
            let begun = !drafted.answers.is_empty() || !running.store.records().is_empty();
            if alone && begun {
                break;
            }
            let Some(job) = running.queue.pop_front() else { break };
            self.perform(at, job, &mut drafted)?;
        }
        let result = self.make_durable(at);
        let Drafted { answers, shown } = drafted;
        if let Err(error) = &result {
            if self.is(Bug::FailureIgnored) {
                let records = self.running(at).store.records().to_vec();
                self.made_known(at, &records);
            }
            self.count("state: a commit failed");
            self.trace(|| format!("{at} cannot commit: {error}"));
        }
        if self.nodes[at].is_halted() {
            self.count("fault: crash between two disk operations");
            let power = self.random.chance(70);
            return self.machine_stops(at, power);
        }
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        running.batch = Some(Batch { answers, result, shown });
        let wait = self.random.span(MILLISECOND / 100, 50 * MILLISECOND);
        self.after(wait, Event::End { node: at, life });
        Ok(())
    }

    fn running(&mut self, at: NodeId) -> &mut super::node::Running {
        self.nodes[at].running.as_mut().expect("looked at before")
    }

    fn perform(&mut self, at: NodeId, job: Job, drafted: &mut Drafted) -> Checked {
        match job {
            Job::Push { target, action } => self.perform_push(at, target, action, drafted),
            Job::Wipe => {
                let live = self.running(at).store.published().groups();
                for entry in live {
                    self.perform_push(at, Target::Group(entry.id.clone()), Action::Delete, drafted)?;
                }
                Ok(())
            }
            Job::Merge { conn, end, id, place, deltas, peer, position } => {
                // What comes with a push in one batch may be later than it, or move its group to its place.
                drafted.shown.clear();
                let merged = self.merge(at, end, place, deltas, peer, position);
                if merged.is_err() {
                    self.running(at).store.abort();
                }
                if self.is(Bug::AckBeforeSync) && merged.is_ok() {
                    self.handle(conn, end, Told::Committed(id));
                } else {
                    drafted.answers.push(Answer::Commit { conn, end, id, merged });
                }
                Ok(())
            }
            Job::Facts { conn, end } => {
                let facts = self.facts(at, conn, end);
                let wait = self.random.span(MILLISECOND / 100, 30 * MILLISECOND);
                self.after(wait, Event::Facts { conn, end, facts: Box::new(facts) });
                Ok(())
            }
            Job::Held { uplink, revision } => {
                if let Some(held) = self.running(at).held.get_mut(uplink) {
                    *held = revision;
                }
                self.forget(at)
            }
            Job::HeldBack { end, place, verdicts } => {
                self.note_failures(at, end, &place, &verdicts);
                Ok(())
            }
            Job::Sweep => self.forget(at),
        }
    }

    /// A peer holds back what groups of this node still have: that counts as a failure of their pushes.
    fn note_failures(&mut self, at: NodeId, end: usize, place: &Arc<LabelSet>, verdicts: &[Verdict]) {
        let (now, mut noted) = (self.store_now(at), HashSet::new());
        for verdict in verdicts {
            let store = &mut self.running(at).store;
            let id = id_of(store, end, place, verdict.key.clone());
            let entry = store.published().group(&id);
            let shown = |entry: &Entry| {
                let (family, state) = entry.family(&verdict.family)?;
                (!state.mark.held).then_some(family.stamp)
            };
            let pushed = entry.and_then(|entry| shown(&entry));
            if pushed == Some(verdict.stamp) && noted.insert(id.clone()) {
                let _ = store.write(id, Action::Refuse, now);
                self.count("state: a verdict moved a failure time");
            }
        }
    }

    fn perform_push(&mut self, at: NodeId, target: Target, action: Action, drafted: &mut Drafted) -> Checked {
        let now = self.store_now(at);
        let wall_clock_stamps = self.is(Bug::WallClockStamps);
        let store = &mut self.running(at).store;
        let id = match target {
            Target::Group(id) => id,
            Target::Shown(shown) => store.resolve(shown),
        };
        let before = store.records().len();
        let due = due(&action);
        let written = if wall_clock_stamps {
            let identity = store.identity();
            let moment = Moment { stamp: Stamp { time_ns: now.stamp_ns, node: identity.node }, wall_ns: now.wall_ns };
            let change = change(action.clone(), moment);
            store.merge(id.clone(), change, identity.store).map(drop)
        } else {
            store.write(id.clone(), action.clone(), now)
        };
        let records: Vec<Record> = store.records()[before.min(store.records().len())..].to_vec();
        let shown = drafted.shown.entry(id.clone()).or_default();
        match (&written, &action) {
            (Err(_), _) | (_, Action::Refuse) => {}
            (Ok(()), Action::Put(_) | Action::Delete) => *shown = due,
            (Ok(()), Action::Post(_)) => shown.extend(due),
        }
        self.oracle.wrote(&records);
        let refused = written.is_err();
        self.trace(|| format!("{at} push {id} {} refused {refused}", describe_action(&action)));
        self.count(if refused { "push refused" } else { "push taken" });
        if self.is(Bug::AnswerBeforeSync) {
            self.made_known(at, &records);
        }
        drafted.answers.push(if refused { Answer::Refused } else { Answer::Push });
        Ok(())
    }

    fn merge(
        &mut self,
        at: NodeId,
        end: usize,
        place: Arc<LabelSet>,
        deltas: Vec<Delta>,
        peer: StoreId,
        position: Position,
    ) -> Result<Vec<Verdict>, String> {
        let blocks = self.is(Bug::HeldBackBlocks);
        let mut verdicts = Vec::new();
        let text: Vec<String> = match self.options.trace {
            true => deltas.iter().map(|d| format!("{}{}", d.id.key, super::content::show(Some(&d.group)))).collect(),
            false => Vec::new(),
        };
        self.trace(|| format!("{at} merges of {peer} up to {position:?}: {}", text.join("; ")));
        let store = &mut self.running(at).store;
        for delta in deltas {
            let key = delta.id.key;
            let id = id_of(store, end, &place, key.clone());
            let held_back = store.merge(id, delta.group, peer).map_err(|refusal: Refusal| refusal.to_string())?;
            let room = VERDICTS_MAX.saturating_sub(verdicts.len());
            verdicts.extend(held_back.into_iter().take(room).map(|held| Verdict {
                key: key.clone(),
                family: held.name,
                stamp: held.stamp,
                text: held.conflict,
            }));
        }
        store.set_cursor(peer, Cursor { position, place });
        if !verdicts.is_empty() {
            self.count("state: a family was held back");
            if blocks {
                return Err("planted: a family conflicts".into());
            }
        }
        Ok(verdicts)
    }

    /// What a store says of itself to a peer: all it holds at an edge, what it holds of that edge at that place at a hub.
    pub fn facts(&mut self, at: NodeId, conn: ConnId, end: usize) -> Facts {
        let asked = self.conns.get(&conn).map(|conn| (conn.peer_store, conn.sides[end].place.clone()));
        let any_place = self.is(Bug::OtherPlaceResumed);
        let said_forgotten = !self.is(Bug::ForgottenNotSaid);
        let name = self.nodes[at].name.clone();
        let store = &self.running(at).store;
        let mut holds: Vec<Hold> = store
            .cursors()
            .iter()
            .filter(|(peer, cursor)| match &asked {
                Some((Some(asked), place)) if end != EDGE => *peer == asked && (any_place || cursor.place == *place),
                _ => true,
            })
            .map(|(store, cursor)| Hold { store: *store, position: cursor.position })
            .collect();
        holds.sort_by_key(|hold| hold.store);
        holds.truncate(pushrelay::wire::message::HOLDS_MAX);
        let openings = store.lineage().iter().map(|p| Opening { epoch: p.epoch, revision: p.revision });
        Facts {
            node: name,
            software: "simulation".into(),
            store: store.identity().store,
            lineage: openings.collect(),
            head: store.published().head(),
            forgotten: if said_forgotten { store.forgotten() } else { Revision(0) },
            holds,
        }
    }

    /// Drops tombstones that every hub holds and that are old enough.
    fn forget(&mut self, at: NodeId) -> Checked {
        let hub_ns = if self.nodes[at].is_hub { self.plan.retention_ns } else { 0 };
        let hub_ns = if self.is(Bug::RetentionIgnored) { 0 } else { hub_ns };
        let stamp_ns = self.store_now(at).stamp_ns;
        let early = self.is(Bug::TombstoneDroppedEarly);
        let running = self.running(at);
        let held = running.held.iter().copied();
        let upto = if early { held.max() } else { held.min() }.unwrap_or(Revision(u64::MAX));
        let before_ns = if hub_ns == 0 { u64::MAX } else { stamp_ns.saturating_sub(hub_ns) };
        let due = running.store.published().tombstones(upto, before_ns, 1_024);
        for entry in &due {
            running.store.forget(&entry.id);
        }
        for entry in due {
            self.count("state: tombstone dropped");
            self.trace(|| format!("{at} forgets {} deleted {:?}", entry.id, entry.group.deleted()));
        }
        Ok(())
    }

    /// One transaction, and a sync. Whether there was something to write.
    fn make_durable(&mut self, at: NodeId) -> Result<bool, String> {
        let apart = self.is(Bug::CursorApart);
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return Ok(false) };
        let records = running.store.records().to_vec();
        if records.is_empty() {
            return Ok(false);
        }
        let transactions = if apart { split_cursor(&records) } else { vec![records] };
        for records in transactions {
            let committed = match &mut running.log {
                Some(log) => log.commit(&records).map_err(|error| error.to_string()),
                None => Ok(()),
            };
            if let Err(error) = committed {
                node.doubtful.push(records);
                return Err(error);
            }
            if apart {
                node.durable = node.durable.with(&records);
                node.doubtful.clear();
            } else {
                self.made_durable(at, &records);
                return Ok(true);
            }
        }
        let records = self.running(at).store.records().to_vec();
        self.made_durable(at, &records);
        Ok(true)
    }

    /// These records survive from now on.
    pub fn made_durable(&mut self, at: NodeId, records: &[Record]) {
        self.nodes[at].doubtful.clear();
        for record in records {
            self.before_record(at, record);
            self.nodes[at].durable.apply(record);
            self.after_record(at, record);
        }
        self.made_known(at, records);
    }

    /// Publishes a batch that is durable, or abandons it, and answers.
    pub fn end_batch(&mut self, at: NodeId, life: u64) -> Checked {
        if self.nodes[at].life != life {
            return Ok(());
        }
        let ignored = self.is(Bug::FailureIgnored);
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let Some(Batch { answers, result, shown }) = running.batch.take() else { return Ok(()) };
        let mut failed = None;
        match result {
            Ok(true) => {
                let committed = running.store.commit();
                let shown_all = (!committed.places.is_empty()).then(Arc::default);
                for place in committed.places.iter().filter(|place| !place.is_empty()).chain(&shown_all) {
                    let watch = running.watches.entry(place.clone()).or_default();
                    watch.version += 1;
                    watch.head = committed.head;
                }
                self.check_shown(at, &shown)?;
                self.wake(at);
            }
            Ok(false) => {}
            Err(_) if ignored => {
                running.store.commit();
            }
            Err(error) => {
                running.store.abort();
                failed = Some(error);
            }
        }
        for answer in answers {
            match (answer, &failed) {
                (Answer::Push, None) => self.count("push answered 200"),
                (Answer::Refused, None) => self.count("push answered 400"),
                (Answer::Push | Answer::Refused, Some(_)) => self.count("push answered 503"),
                (Answer::Commit { conn, end, id, merged: Ok(held_back) }, None) => {
                    if !held_back.is_empty() {
                        self.handle(conn, end, Told::HeldBack(held_back));
                    }
                    self.handle(conn, end, Told::Committed(id));
                }
                (Answer::Commit { conn, end, merged: Err(error), .. }, _) => {
                    self.handle(conn, end, Told::CommitFailed(error));
                }
                (Answer::Commit { conn, end, .. }, Some(error)) => {
                    self.handle(conn, end, Told::CommitFailed(error.clone()));
                }
            }
        }
        self.checkpoint_if_due(at)?;
        self.next_batch(at);
        Ok(())
    }

    fn next_batch(&mut self, at: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        if !running.queue.is_empty() && running.batch.is_none() && !running.begin_due {
            running.begin_due = true;
            let at_ns = now.max(running.stalled_until);
            self.at(at_ns, Event::Begin { node: at, life });
        }
    }

    /// A push that was answered 200 is shown.
    fn check_shown(&mut self, at: NodeId, shown: &Due) -> Checked {
        let Some(running) = &self.nodes[at].running else { return Ok(()) };
        let published = running.store.published();
        for (id, families) in shown {
            let entry = published.group(id);
            for (name, value) in families {
                let found = entry.as_ref().and_then(|entry| entry.group.family(name));
                let bits = found.and_then(|f| f.family.values().first()).map(|value| value.to_bits());
                if bits != Some(*value) {
                    let value = f64::from_bits(*value);
                    return Err(Wrong(format!("node {at} took a push of {id} {name} {value} and does not show it")));
                }
            }
        }
        Ok(())
    }

    fn checkpoint_if_due(&mut self, at: NodeId) -> Checked {
        let life = self.nodes[at].life;
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let Some(log) = &mut running.log else { return Ok(()) };
        if running.checkpoint.is_some() || !log.wants_checkpoint() {
            return Ok(());
        }
        let begun = log.rotate();
        if let Ok(writer) = begun {
            let mut records: Vec<Record> = running.store.checkpoint().collect();
            // The store's order is by chance; the same seed must do the same.
            records.sort_by_cached_key(order);
            running.checkpoint = Some((writer, VecDeque::from(records)));
            self.count("state: checkpoint begun");
            let wait = self.random.span(MILLISECOND, SECOND);
            self.after(wait, Event::Checkpoint { node: at, life });
        }
        self.stop_if_halted(at)
    }

    pub fn checkpoint_step(&mut self, at: NodeId, life: u64) -> Checked {
        let some = self.random.between(1, 20);
        let wait = self.random.span(MILLISECOND, SECOND);
        if self.nodes[at].life != life {
            return Ok(());
        }
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let Some((mut writer, mut records)) = running.checkpoint.take() else { return Ok(()) };
        let mut result = Ok(());
        for _ in 0..some {
            let Some(record) = records.pop_front() else { break };
            result = result.and_then(|()| writer.write(&record));
        }
        match result {
            Ok(()) if records.is_empty() => match writer.finish() {
                Ok(()) => self.count("state: checkpoint finished"),
                Err(_) => self.count("state: checkpoint failed"),
            },
            Ok(()) => {
                self.running(at).checkpoint = Some((writer, records));
                self.after(wait, Event::Checkpoint { node: at, life });
            }
            Err(_) => self.count("state: checkpoint failed"),
        }
        self.stop_if_halted(at)
    }

    fn stop_if_halted(&mut self, at: NodeId) -> Checked {
        if self.nodes[at].is_halted() && self.nodes[at].running.is_some() {
            self.count("fault: crash between two disk operations");
            let power = self.random.chance(70);
            return self.machine_stops(at, power);
        }
        Ok(())
    }

    /// The node ends in order: all that was asked is done, the log is closed.
    pub fn stop_node(&mut self, at: NodeId) -> Checked {
        let life = self.nodes[at].life;
        while self.nodes[at].running.as_ref().is_some_and(|r| r.batch.is_some() || !r.queue.is_empty()) {
            if self.nodes[at].running.as_ref().is_some_and(|running| running.batch.is_none()) {
                self.begin_batch(at, life)?;
            }
            self.end_batch(at, life)?;
        }
        if self.nodes[at].life != life {
            return Ok(());
        }
        self.cut_off(at, false);
        let node = &mut self.nodes[at];
        node.life += 1;
        let Some(running) = node.running.take() else { return Ok(()) };
        let super::node::Running { log, checkpoint, .. } = *running;
        drop(checkpoint);
        if let Some(log) = log {
            let _ = log.close();
        }
        if node.is_halted() {
            node.halt_at = None;
            node.disk.crash();
        }
        if node.diskless {
            node.lost_something = true;
            return self.replace_content(at, Content::default());
        }
        Ok(())
    }
}

/// The group that the peer at the other end calls so.
fn id_of(store: &Store, end: usize, place: &Arc<LabelSet>, key: Arc<LabelSet>) -> GroupId {
    match end {
        EDGE => store.resolve(key),
        _ => GroupId { place: place.clone(), key },
    }
}

/// What a push says that is shown afterwards.
fn due(action: &Action) -> BTreeMap<Arc<str>, u64> {
    match action {
        Action::Put(families) | Action::Post(families) => families
            .iter()
            .filter_map(|family| Some((family.name().clone(), family.values().first()?.to_bits())))
            .collect(),
        Action::Refuse | Action::Delete => BTreeMap::new(),
    }
}

fn change(action: Action, moment: Moment) -> Group {
    match action {
        Action::Put(families) => Group::put(moment, families),
        Action::Post(families) => Group::post(moment, families),
        Action::Refuse => Group::refused(moment),
        Action::Delete => Group::delete(moment.stamp),
    }
}

fn describe_action(action: &Action) -> String {
    let names = |families: &[pushrelay::model::Family]| {
        let each = families.iter().map(|f| format!("{}={:?}", f.name(), f.values().first()));
        each.collect::<Vec<_>>().join(" ")
    };
    match action {
        Action::Put(families) => format!("PUT {}", names(families)),
        Action::Post(families) => format!("POST {}", names(families)),
        Action::Refuse => "refused".into(),
        Action::Delete => "DELETE".into(),
    }
}

fn split_cursor(records: &[Record]) -> Vec<Vec<Record>> {
    let (cursors, others): (Vec<Record>, Vec<Record>) =
        records.iter().cloned().partition(|record| matches!(record, Record::Cursor { .. }));
    [cursors, others].into_iter().filter(|part| !part.is_empty()).collect()
}

fn order(record: &Record) -> (u8, u64, Option<GroupId>) {
    match record {
        Record::Opened { revision, .. } => (0, revision.0, None),
        Record::Cursor { peer, .. } => (1, peer.0, None),
        Record::Forgotten { .. } => (2, 0, None),
        Record::Group(group) => (3, 0, Some(group.id.clone())),
    }
}
