//! The committer of a node: the product's engine with a queue, a disk and links that are slow, fail and die.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushrelay::commit::engine::changed_scopes;
use pushrelay::commit::{self, CommitFailure, Effect, ReplyTokens};
use pushrelay::model::GroupId;
use pushrelay::session::{CommitId, Event as Input};
use pushrelay::store::{Committed, Record, Scope};
use pushrelay::wire::ConflictReport;

use super::bug::Bug;
use super::content::Content;
use super::expiry::Sweep;
use super::{Checked, ConnId, Event, MILLISECOND, NodeId, SECOND, World, Wrong};

/// Replies of the simulation: each says where it goes.
pub enum Replies {}

impl ReplyTokens for Replies {
    type Write = Due;
    type Merge = MergeReply;
    type Info = InfoReply;
}

pub type Command = commit::Command<Replies>;

/// The families, each with its first value, that each group must show.
type Shown = BTreeMap<GroupId, BTreeMap<Arc<str>, u64>>;

/// The families of a group, each with its first value, that must be shown once the push is answered 200.
#[derive(Debug, Default)]
pub struct Due {
    pub id: Option<GroupId>,
    /// Whether families that earlier pushes of the transaction set stay.
    pub adds: bool,
    pub families: BTreeMap<Arc<str>, u64>,
    /// The sweep of expired groups that ends with this.
    pub sweep: Option<Sweep>,
    /// The increment of a push that adds.
    pub increment: Option<usize>,
}

#[derive(Debug)]
pub enum MergeReply {
    /// To an end of a connection.
    Session { conn: ConnId, end: usize, id: CommitId },
    /// To the caller of a push that [`Bug::WallClockStamps`] made a merge.
    Push(Due),
}

/// To an end of a connection.
#[derive(Debug)]
pub struct InfoReply {
    pub conn: ConnId,
    pub end: usize,
}

impl World {
    /// Puts a command into a node's queue.
    pub fn ask(&mut self, at: NodeId, command: Command) {
        let wait = self.random.span(MILLISECOND / 100, 20 * MILLISECOND);
        let now = self.now;
        let node = &mut self.nodes[at];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        running.queue.push_back(command);
        if running.batch.is_none() && !running.begin_due {
            running.begin_due = true;
            let at_ns = (now + wait).max(running.stalled_until);
            self.at(at_ns, Event::Begin { node: at, life });
        }
    }

    /// Planted: the command overtakes those that wait.
    pub fn ask_first(&mut self, at: NodeId, command: Command) {
        self.ask(at, command);
        let Some(running) = &mut self.nodes[at].running else { return };
        running.queue.rotate_right(1);
    }

    /// Drafts the commands that wait, and makes the records durable.
    pub fn begin_batch(&mut self, at: NodeId, life: u64) -> Checked {
        if self.nodes[at].life != life || self.nodes[at].running.is_none() {
            return Ok(());
        }
        self.check_recovery()?;
        let most = self.random.between(1, 12);
        let alone = self.is(Bug::ConflictRefusesUpdate);
        for _ in 0..most {
            let running = self.running(at);
            running.begin_due = false;
            let engine = &running.engine;
            let Some(command) = running.queue.front() else { break };
            let is_first = engine.replies_len() == 0 && engine.records().is_empty();
            let merges_alone = alone && matches!(command, Command::Merge { .. }) && !is_first;
            if merges_alone || engine.must_commit_before(command) || engine.must_commit() {
                break;
            }
            let Some(command) = running.queue.pop_front() else { break };
            self.draft(at, command)?;
        }
        let result = if alone && self.has_suppressed(at) {
            Err("planted: a family conflicts".into())
        } else {
            self.make_durable(at)
        };
        self.ended_draft(at, result.is_ok());
        if let Err(error) = &result {
            self.nodes[at].failures += 1;
            if self.is(Bug::FailureIgnored) {
                let records = self.running(at).engine.records().to_vec();
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
        running.batch = Some(result);
        let wait = self.random.span(MILLISECOND / 100, 50 * MILLISECOND);
        self.after(wait, Event::End { node: at, life });
        Ok(())
    }

    pub(super) fn running(&mut self, at: NodeId) -> &mut super::node::Running {
        self.nodes[at].running.as_mut().expect("looked at before")
    }

    /// Whether the draft has a family that conflicts.
    fn has_suppressed(&mut self, at: NodeId) -> bool {
        self.running(at).engine.records().iter().any(|record| match record {
            Record::Group(group) => (0..group.group.families().len()).any(|i| group.families.get(i).suppressed),
            _ => false,
        })
    }

    /// Commits the records to the log, in one transaction unless [`Bug::CursorApart`] splits it.
    fn make_durable(&mut self, at: NodeId) -> Result<(), String> {
        let apart = self.is(Bug::CursorApart);
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return Ok(()) };
        let records = running.engine.records().to_vec();
        if records.is_empty() {
            return Ok(());
        }
        let transactions = if apart { split_cursor(&records) } else { vec![records.clone()] };
        for part in transactions {
            let committed = match &mut running.log {
                Some(log) => log.commit(&part).map_err(|error| error.to_string()),
                None => Ok(()),
            };
            if let Err(error) = committed {
                node.doubtful.push(part);
                return Err(error);
            }
            if apart {
                node.durable = node.durable.with(&part);
                node.doubtful.clear();
            }
        }
        self.made_durable(at, &records);
        Ok(())
    }

    /// These records survive from now on.
    pub fn made_durable(&mut self, at: NodeId, records: &[Record]) {
        self.nodes[at].doubtful.clear();
        self.durable_deletes(at, records);
        for record in records {
            self.before_record(at, record);
            self.nodes[at].durable.apply(record);
            self.after_record(at, record);
        }
        self.made_known(at, records);
    }

    /// Passes the result of the disk to the engine, and performs the effects.
    pub fn end_batch(&mut self, at: NodeId, life: u64) -> Checked {
        if self.nodes[at].life != life {
            return Ok(());
        }
        let (now, ignored) = (self.store_now(at), self.is(Bug::FailureIgnored));
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let Some(result) = running.batch.take() else { return Ok(()) };
        let durable = match result {
            Err(text) if !ignored => Err(CommitFailure { text, is_retryable: true }),
            _ => Ok(()),
        };
        running.engine.finish(durable, now);
        self.perform_effects(at)?;
        self.checkpoint_if_due(at)?;
        self.next_batch(at);
        Ok(())
    }

    /// Performs the effects of the engine, and checks that the pushes that are answered 200 are shown.
    pub(super) fn perform_effects(&mut self, at: NodeId) -> Checked {
        let mut due = BTreeMap::new();
        while let Some(effect) = self.nodes[at].running.as_mut().and_then(|running| running.engine.poll_effect()) {
            match effect {
                Effect::Published(committed) => self.published(at, &committed),
                // The simulation marks no sequence as one of a resync.
                Effect::Returned(groups) => unreachable!("{groups:?}"),
                Effect::Expired(_) => self.count("state: groups expired"),
                Effect::DeletedAtPeer(_) => {}
                Effect::ClockCorrected { groups, .. } => self.trace(|| format!("{at} corrected {groups} groups")),
                Effect::ClockAhead(ahead) => {
                    self.trace(|| format!("{at} wrote to {} groups ahead of time", ahead.groups))
                }
                Effect::SweepAgain => self.ask(at, Command::Sweep),
                Effect::MixedTypes(_) => self.count("state: a name had several types"),
                Effect::Written { reply: Due { sweep: Some(sweep), .. }, result } => {
                    if result.is_ok() {
                        self.check_swept(at, sweep)?;
                    }
                }
                Effect::Written { reply, result } => self.written(at, reply, result, &mut due),
                Effect::Merged { reply: MergeReply::Push(reply), result } => {
                    self.written(at, reply, result.map(drop), &mut due);
                }
                Effect::Merged { reply: MergeReply::Session { conn, end, id }, result } => {
                    // A merge after a push may be later than it, or move its group to a site.
                    due.clear();
                    self.merged(at, (conn, end), id, result);
                }
                Effect::Info { reply: InfoReply { conn, end }, info } => {
                    let info = Box::new(self.altered_info(conn, info));
                    let wait = self.random.span(MILLISECOND / 100, 30 * MILLISECOND);
                    self.after(wait, Event::Info { conn, end, info });
                }
            }
        }
        self.check_shown(at, &due)
    }

    /// Notifies the links that follow a changed scope.
    fn published(&mut self, at: NodeId, committed: &Committed) {
        let running = self.running(at);
        for scope in changed_scopes(committed) {
            let site = match scope {
                Scope::Site(site) if site.is_empty() => continue,
                Scope::Site(site) => site,
                Scope::Shown => Arc::default(),
            };
            let watch = running.watches.entry(site).or_default();
            watch.version += 1;
            watch.head = committed.head;
        }
        self.wake(at);
    }

    fn written(&mut self, at: NodeId, reply: Due, result: Result<(), commit::WriteError>, due: &mut Shown) {
        if let Some(number) = reply.increment {
            let is_applied = match &result {
                Ok(()) => Some(true),
                Err(commit::WriteError::Refused(_)) => Some(false),
                Err(_) => None,
            };
            self.answered_increment(at, number, reply.id.as_ref(), is_applied);
        }
        match result {
            Ok(()) => self.count("push answered 200"),
            Err(commit::WriteError::Refused(_)) => return self.count("push answered 400"),
            Err(_) => return self.count("push answered 503"),
        }
        let Due { id: Some(id), adds, families, .. } = reply else { return };
        let shown = due.entry(id).or_default();
        if !adds {
            shown.clear();
        }
        shown.extend(families);
    }

    fn merged(
        &mut self,
        at: NodeId,
        (conn, end): (ConnId, usize),
        id: CommitId,
        result: Result<Vec<ConflictReport>, commit::WriteError>,
    ) {
        match result {
            Ok(reports) => {
                if !reports.is_empty() {
                    self.count("state: a family was held back");
                    self.trace(|| format!("{at} holds back {}", super::commands::describe_reports(&reports)));
                }
                if self.is(Bug::AckBeforeSync) {
                    return;
                }
                self.handle(conn, end, Input::Committed { id, suppressed: reports });
            }
            Err(_) if self.is(Bug::AckBeforeSync) => {}
            Err(error) => self.handle(conn, end, Input::CommitFailed(error.to_string())),
        }
    }

    fn next_batch(&mut self, at: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let is_due = !running.queue.is_empty() || running.engine.must_commit();
        if is_due && running.batch.is_none() && !running.begin_due {
            running.begin_due = true;
            let at_ns = now.max(running.stalled_until);
            self.at(at_ns, Event::Begin { node: at, life });
        }
    }

    /// A push that was answered 200 is shown.
    fn check_shown(&mut self, at: NodeId, shown: &Shown) -> Checked {
        let Some(running) = &self.nodes[at].running else { return Ok(()) };
        let published = running.engine.store().published();
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
            let mut records: Vec<Record> = running.engine.store().checkpoint().collect();
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
        while self.nodes[at]
            .running
            .as_ref()
            .is_some_and(|r| r.batch.is_some() || !r.queue.is_empty() || r.engine.must_commit())
        {
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
        Record::Key(key) => (4, key.revision.0, None),
    }
}
