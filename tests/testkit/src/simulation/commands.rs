//! Commands of a node's pushers and links, with the mistakes that are planted in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushrelay::commit::{Effect, GroupWrite, Merge, MergeSequence};
use pushrelay::model::{Group, GroupId, LabelSet, Position, PushTime, Revision, StoreId, WriteTimestamp};
use pushrelay::session::{CommitId, Event as Input};
use pushrelay::store::{Record, Scope, StoreInfo, WriteOp, WriteTime};
use pushrelay::wire::{ConflictReport, Delta};

use super::bug::Bug;
use super::committer::{Command, Due, InfoReply, MergeReply};
use super::{Checked, ConnId, HUB, NodeId, World};

/// A push to the group that is shown under these labels.
pub fn push(shown: LabelSet, op: WriteOp) -> Command {
    Command::Write(GroupWrite {
        shown: Arc::new(shown),
        op,
        terms: Default::default(),
        values: 0,
        reply: Due::default(),
    })
}

impl World {
    /// Drafts a command.
    pub(super) fn draft(&mut self, at: NodeId, mut command: Command) -> Checked {
        let now = self.store_now(at);
        self.describe(at, &mut command);
        let is_push = matches!(command, Command::Write(_) | Command::Wipe { .. });
        let early_ack = match &command {
            Command::Merge { reply: MergeReply::Session { conn, end, id }, .. } if self.is(Bug::AckBeforeSync) => {
                Some((*conn, *end, *id))
            }
            _ => None,
        };
        let corrects = matches!(command, Command::ConfirmClock { .. });
        let notes_conflicts = matches!(command, Command::NoteConflicts { .. });
        let before = self.running(at).engine.records().len();
        let is_sweep = matches!(command, Command::Expire { .. });
        let may_expire = self.expiry.is_some() && (is_sweep || matches!(command, Command::Merge { .. }));
        let is_delete = match &command {
            Command::Write(write) => matches!(write.op, WriteOp::Delete),
            Command::Wipe { .. } | Command::Expire { .. } => true,
            _ => false,
        };
        let may_end_sums = self.adding.is_some() && (is_delete || corrects);
        let increment = match &command {
            Command::Write(GroupWrite { reply: Due { increment: Some(number), id: Some(id), .. }, .. }) => {
                let entry = self.running(at).engine.store().drafted(id);
                Some((*number, entry.map(|entry| entry.group.clone())))
            }
            _ => None,
        };
        let content = (may_expire || may_end_sums).then(|| {
            let records = self.running(at).engine.records().to_vec();
            self.nodes[at].durable.with(&records)
        });
        for command in self.planted(at, command, now) {
            self.running(at).engine.draft(command, now);
        }
        let records = self.running(at).engine.records().get(before..).unwrap_or_default().to_vec();
        if let Some((number, group)) = increment {
            self.drafted_increment(at, number, group.as_ref(), &records);
        }
        if let Some(content) = content {
            if corrects {
                self.drafted_corrections(at, &content, &records);
            } else if is_delete {
                self.drafted_deletes(&content, &records);
            }
            self.check_expiries(at, content, &records, is_sweep)?;
        }
        if corrects && !records.is_empty() {
            self.count("state: write timestamps of a wrong clock corrected");
            self.oracle.wrote(&records);
        }
        if is_push {
            self.oracle.wrote(&records);
            if self.is(Bug::AnswerBeforeSync) {
                self.made_known(at, &records);
            }
        }
        for record in &records {
            if notes_conflicts {
                self.count("state: a verdict moved a failure time");
            }
            if let Record::Forgotten { .. } = record {
                self.count("state: tombstone dropped");
                self.trace(|| format!("{at} drops {record:?}"));
            }
        }
        if let Some((conn, end, id)) = early_ack {
            self.handle(conn, end, Input::Committed { id, suppressed: Vec::new() });
        }
        self.perform_effects(at)
    }

    /// Notes what a push must show, and traces the command.
    fn describe(&mut self, at: NodeId, command: &mut Command) {
        match command {
            Command::Write(GroupWrite { shown, op, reply, .. }) => {
                let id = self.running(at).engine.store().resolve(shown.clone());
                let adds = matches!(op, WriteOp::Post(_));
                self.trace(|| format!("{at} push {id} of place {} {}", id.site, describe_action(op)));
                let id = (!matches!(op, WriteOp::Refuse)).then_some(id);
                *reply = Due { id, adds, families: first_values(op), ..std::mem::take(reply) };
            }
            Command::Merge { merge, .. } => self.trace(|| {
                let deltas: Vec<String> = merge.deltas.iter().map(describe_delta).collect();
                format!("{at} merges of {} up to {:?}: {}", merge.peer, merge.position, deltas.join("; "))
            }),
            _ => {}
        }
    }

    /// The commands that the engine gets in place of this one: others where a mistake is planted.
    fn planted(&mut self, at: NodeId, command: Command, now: WriteTime) -> Vec<Command> {
        match command {
            Command::Write(write) if self.is(Bug::WallClockStamps) && !matches!(write.op, WriteOp::Add(_)) => {
                let identity = self.running(at).engine.store().identity();
                let stamp = WriteTimestamp { time_ns: now.stamp_ns, node: identity.node };
                let group = change(write.op, PushTime { stamp, wall_ns: now.wall_ns });
                let id = GroupId { site: Arc::default(), key: write.shown };
                let merge = Merge {
                    scope: Scope::Shown,
                    deltas: vec![Delta { id, group }],
                    peer: identity.store,
                    position: Position::default(),
                    sequence: MergeSequence::default(),
                };
                vec![Command::Merge { merge, reply: MergeReply::Push(write.reply) }]
            }
            Command::Expire { groups, reply } if self.is(Bug::ExpiryStampedLate) => {
                let mut commands = self.as_deletes(at, &groups, now);
                commands.push(Command::Expire { groups: Vec::new(), reply });
                commands
            }
            Command::Write(write) if self.is(Bug::DeleteSparesContributions) && matches!(write.op, WriteOp::Delete) => {
                let spared = self.contributions_spared(at, &write.shown, now);
                let delete = Command::Write(write);
                std::iter::once(delete).chain(spared).collect()
            }
            Command::ConfirmClock { right_ns, monotonic_ns } if self.is(Bug::BirthsNotMoved) => {
                let merge = self.moved_without_births(at, right_ns, now);
                let right_ns = if merge.is_some() { now.wall_ns } else { right_ns };
                std::iter::once(Command::ConfirmClock { right_ns, monotonic_ns }).chain(merge).collect()
            }
            Command::UplinkAcked { revision, .. } if self.is(Bug::TombstoneDroppedEarly) => {
                let uplinks = 0..self.nodes[at].uplinks.len();
                uplinks.map(|uplink| Command::UplinkAcked { uplink, revision }).collect()
            }
            command => vec![command],
        }
    }

    /// Asks the committer to merge an update that an end of a connection received.
    pub fn ask_merge(
        &mut self,
        (conn, end): (ConnId, usize),
        id: CommitId,
        scope: Scope,
        deltas: Vec<Delta>,
        (peer, position): (StoreId, Position),
    ) {
        let at = self.end(conn, end).node;
        let deltas = deltas.into_iter().map(|delta| self.altered_delta(at, delta)).collect();
        let Some(running) = &mut self.nodes[at].running else { return };
        let sequence = running.sequences.entry((conn, end)).or_default().clone();
        let merge = Merge { scope, deltas, peer, position, sequence };
        self.ask(at, Command::Merge { merge, reply: MergeReply::Session { conn, end, id } });
    }

    /// Asks the committer for the state of the store, for the handshake of an end of a connection.
    pub fn ask_info(&mut self, conn: ConnId, end: usize, peer: Option<StoreId>) {
        let at = self.end(conn, end).node;
        self.asked_info(conn, end);
        self.ask(at, Command::Info { peer, reply: InfoReply { conn, end } });
    }

    /// The state of the store for a handshake, read before the commands that wait.
    pub fn info(&mut self, at: NodeId, conn: ConnId, end: usize) -> Option<StoreInfo> {
        let now = self.store_now(at);
        self.asked_info(conn, end);
        let engine = &mut self.running(at).engine;
        engine.draft(Command::Info { peer: None, reply: InfoReply { conn, end } }, now);
        let Some(Effect::Info { info, .. }) = engine.poll_effect() else { return None };
        Some(self.altered_info(conn, info))
    }

    /// The state of the store, altered where a mistake is planted.
    pub fn altered_info(&self, conn: ConnId, mut info: StoreInfo) -> StoreInfo {
        if self.is(Bug::EpochKept) || self.is(Bug::ContributionReused) {
            // A store that is opened again under the same epoch looks as if it had not been closed.
            info.epochs.dedup_by_key(|start| start.epoch);
        }
        if self.is(Bug::WatermarkHidden) {
            info.gc_watermark = Revision(0);
        }
        if self.is(Bug::OtherSiteResumed)
            && let Some(open) = self.conns.get(&conn)
            && let Some(cursor) = open.peer_store.and_then(|peer| info.cursors.get_mut(&peer))
        {
            cursor.site = open.sides[HUB].site.clone();
        }
        info
    }
}

/// The families of a push, each with its first value.
fn first_values(op: &WriteOp) -> BTreeMap<Arc<str>, u64> {
    match op {
        WriteOp::Put(families) | WriteOp::Post(families) => families
            .iter()
            .filter_map(|family| Some((family.name().clone(), family.values().first()?.to_bits())))
            .collect(),
        WriteOp::Refuse | WriteOp::Delete | WriteOp::Add(_) => BTreeMap::new(),
    }
}

fn change(action: WriteOp, moment: PushTime) -> Group {
    match action {
        WriteOp::Put(families) => Group::put(moment, families),
        WriteOp::Post(families) => Group::post(moment, families),
        // The mistakes that need this are planted in plain pushes only.
        WriteOp::Refuse | WriteOp::Add(_) => Group::refused(moment),
        WriteOp::Delete => Group::delete(moment.stamp),
    }
}

fn describe_delta(delta: &Delta) -> String {
    format!("{}{}", delta.id.key, super::content::show(Some(&delta.group)))
}

pub(super) fn describe_reports(reports: &[ConflictReport]) -> String {
    let each = reports.iter().map(|v| format!("{} of {}: {}", v.family, v.key, v.text));
    each.collect::<Vec<_>>().join("; ")
}

fn describe_action(action: &WriteOp) -> String {
    let names = |families: &[pushrelay::model::Family]| {
        let each = families.iter().map(|f| format!("{}={:?}", f.name(), f.values().first()));
        each.collect::<Vec<_>>().join(" ")
    };
    match action {
        WriteOp::Put(families) => format!("PUT {}", names(families)),
        WriteOp::Post(families) => format!("POST {}", names(families)),
        WriteOp::Refuse => "refused".into(),
        WriteOp::Add(increment) => format!("adds {}", names(&increment.families)),
        WriteOp::Delete => "DELETE".into(),
    }
}
