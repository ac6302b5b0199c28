//! The one writer of a node, in the order of `node/commit/handle.rs`: a batch is drafted, made durable, published, answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushrelay::model::{GroupId, LabelSet, Position, Revision, StoreId};
use pushrelay::session::{CommitId, Event as Input};
use pushrelay::store::{Record, Scope, WriteOp};
use pushrelay::wire::{ConflictReport, Delta};

use super::bug::Bug;
use super::content::Content;
use super::node::Batch;
use super::{Checked, ConnId, Event, MILLISECOND, NodeId, SECOND, World, Wrong};

/// Something asked of the writer.
#[derive(Debug)]
pub enum Job {
    Push {
        target: Target,
        action: WriteOp,
    },
    Wipe,
    Merge {
        conn: ConnId,
        end: usize,
        id: CommitId,
        scope: Scope,
        deltas: Vec<Delta>,
        peer: StoreId,
        position: Position,
    },
    PeerInfo {
        conn: ConnId,
        end: usize,
    },
    Held {
        uplink: usize,
        revision: Revision,
    },
    HeldBack {
        scope: Scope,
        reports: Vec<ConflictReport>,
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
    Commit { conn: ConnId, end: usize, id: CommitId, merged: Result<Vec<ConflictReport>, String> },
}

/// Of each group, what families with which first value a batch has to show when it is published.
pub type Due = BTreeMap<GroupId, BTreeMap<Arc<str>, u64>>;

/// A batch while it is drafted.
#[derive(Default)]
pub(super) struct Drafted {
    pub(super) answers: Vec<Answer>,
    pub(super) shown: Due,
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
                Some(Job::Merge { deltas, .. }) => blocks || !running.store.has_capacity_for(deltas.len()),
                Some(Job::PeerInfo { .. } | Job::Wipe) => true,
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

    pub(super) fn running(&mut self, at: NodeId) -> &mut super::node::Running {
        self.nodes[at].running.as_mut().expect("looked at before")
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
                let committed = running.drafted.publish(&mut running.store).expect("there was something to write");
                let shown_all = (!committed.sites.is_empty()).then(Arc::default);
                for site in committed.sites.iter().filter(|site| !site.is_empty()).chain(&shown_all) {
                    let watch = running.watches.entry(site.clone()).or_default();
                    watch.version += 1;
                    watch.head = committed.head;
                }
                self.check_shown(at, &shown)?;
                self.wake(at);
            }
            Ok(false) => {
                running.drafted.publish(&mut running.store);
            }
            Err(_) if ignored => {
                running.drafted.publish(&mut running.store);
            }
            Err(error) => {
                running.drafted.abort(&mut running.store);
                failed = Some(error);
            }
        }
        for answer in answers {
            match (answer, &failed) {
                (Answer::Push, None) => self.count("push answered 200"),
                (Answer::Refused, None) => self.count("push answered 400"),
                (Answer::Push | Answer::Refused, Some(_)) => self.count("push answered 503"),
                (Answer::Commit { conn, end, id, merged: Ok(held_back) }, None) => {
                    self.handle(conn, end, Input::Committed { id, suppressed: held_back });
                }
                (Answer::Commit { conn, end, merged: Err(error), .. }, _) => {
                    self.handle(conn, end, Input::CommitFailed(error));
                }
                (Answer::Commit { conn, end, .. }, Some(error)) => {
                    self.handle(conn, end, Input::CommitFailed(error.clone()));
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
