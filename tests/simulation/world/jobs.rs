//! What a writer is asked for, done on its draft: pushes, merges, verdicts, facts, tombstones that go; all but pushes and facts
//! by the product's own `node/draft.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushrelay::model::{Group, PushTime, Revision, WriteTimestamp};
use pushrelay::node::draft::{Merge, forget, note_failures};
use pushrelay::session::Event as Input;
use pushrelay::store::{Record, WriteOp};
use pushrelay::wire::{ConflictReport, Delta, EpochStart, PeerInfo, StoreCursor};

use super::bug::Bug;
use super::node::Running;
use super::writer::{Answer, Drafted, Job, Target};
use super::{Checked, ConnId, EDGE, Event, MILLISECOND, NodeId, World};

impl World {
    /// Does a job on the draft.
    pub(super) fn perform(&mut self, at: NodeId, job: Job, drafted: &mut Drafted) -> Checked {
        match job {
            Job::Push { target, action } => self.perform_push(at, target, action, drafted),
            Job::Wipe => {
                let live = self.running(at).store.published().groups();
                for entry in live {
                    self.perform_push(at, Target::Group(entry.id().clone()), WriteOp::Delete, drafted)?;
                }
                Ok(())
            }
            Job::Merge { conn, end, id, scope, deltas, peer, position } => {
                // What comes with a push in one batch may be later than it, or move its group to its place.
                drafted.shown.clear();
                let chain = self.running(at).chains.entry((conn, end)).or_default().clone();
                let merge = Merge { scope, deltas, peer, position, sequence: chain };
                let merged = self.merge(at, merge);
                if self.is(Bug::AckBeforeSync) && merged.is_ok() {
                    self.handle(conn, end, Input::Committed { id, suppressed: Vec::new() });
                } else {
                    drafted.answers.push(Answer::Commit { conn, end, id, merged });
                }
                Ok(())
            }
            Job::PeerInfo { conn, end } => {
                let info = self.info(at, conn, end);
                let wait = self.random.span(MILLISECOND / 100, 30 * MILLISECOND);
                self.after(wait, Event::PeerInfo { conn, end, info: Box::new(info) });
                Ok(())
            }
            Job::Held { uplink, revision } => {
                if let Some(held) = self.running(at).held.get_mut(uplink) {
                    *held = revision;
                }
                if self.nodes[at].is_hub { Ok(()) } else { self.forget(at) }
            }
            Job::HeldBack { scope, reports } => {
                let now = self.store_now(at);
                let noted = note_failures(&mut self.running(at).store, &scope, &reports, now);
                for _ in 0..noted {
                    self.count("state: a verdict moved a failure time");
                }
                Ok(())
            }
            Job::Sweep => self.forget(at),
        }
    }

    fn perform_push(&mut self, at: NodeId, target: Target, action: WriteOp, drafted: &mut Drafted) -> Checked {
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
            let moment =
                PushTime { stamp: WriteTimestamp { time_ns: now.stamp_ns, node: identity.node }, wall_ns: now.wall_ns };
            let change = change(action.clone(), moment);
            store.merge(&id, change, identity.store).map(drop)
        } else {
            store.write(id.clone(), action.clone(), now)
        };
        let records: Vec<Record> = store.records()[before.min(store.records().len())..].to_vec();
        let shown = drafted.shown.entry(id.clone()).or_default();
        match (&written, &action) {
            (Err(_), _) | (_, WriteOp::Refuse) => {}
            (Ok(()), WriteOp::Put(_) | WriteOp::Delete) => *shown = due,
            (Ok(()), WriteOp::Post(_)) => shown.extend(due),
        }
        self.oracle.wrote(&records);
        let refused = written.is_err();
        self.trace(|| format!("{at} push {id} of place {} {} refused {refused}", id.site, describe_action(&action)));
        self.count(if refused { "push refused" } else { "push taken" });
        if self.is(Bug::AnswerBeforeSync) {
            self.made_known(at, &records);
        }
        drafted.answers.push(if refused { Answer::Refused } else { Answer::Push });
        Ok(())
    }

    fn merge(&mut self, at: NodeId, merge: Merge) -> Result<Vec<ConflictReport>, String> {
        let text: Vec<String> = match self.options.trace {
            true => merge.deltas.iter().map(describe_delta).collect(),
            false => Vec::new(),
        };
        let (peer, position) = (merge.peer, merge.position);
        self.trace(|| format!("{at} merges of {peer} up to {position:?}: {}", text.join("; ")));
        let blocks = self.is(Bug::HeldBackBlocks);
        let Running { store, drafted, .. } = self.running(at);
        let reports = drafted.merge(store, merge).map_err(|error| error.to_string())?;
        if !reports.is_empty() && blocks {
            drafted.abort(store);
            return Err("planted: a family conflicts".into());
        }
        if !reports.is_empty() {
            self.count("state: a family was held back");
            self.trace(|| format!("{at} holds back {}", describe_reports(&reports)));
        }
        Ok(reports)
    }

    /// What a store says of itself to a peer: all it holds of hubs at an edge, what it holds of that edge at that place at a hub.
    pub fn info(&mut self, at: NodeId, conn: ConnId, end: usize) -> PeerInfo {
        let asked = self.conns.get(&conn).map(|conn| (conn.peer_store, conn.sides[end].site.clone()));
        let any_site = self.is(Bug::OtherSiteResumed);
        let epoch_kept = self.is(Bug::EpochKept);
        let said_forgotten = !self.is(Bug::ForgottenNotSaid);
        let name = self.nodes[at].name.clone();
        let store = &self.running(at).store;
        let mut cursors: Vec<StoreCursor> = store
            .cursors()
            .iter()
            .filter(|(peer, cursor)| match &asked {
                Some((Some(asked), site)) if end != EDGE => *peer == asked && (any_site || cursor.site == *site),
                // What is held of hubs.
                _ => end != EDGE || cursor.site.is_empty(),
            })
            .map(|(store, cursor)| StoreCursor { store: *store, position: cursor.position })
            .collect();
        cursors.sort_by_key(|cursor| cursor.store);
        cursors.truncate(pushrelay::wire::message::CURSORS_MAX);
        let starts = store.epochs().iter().map(|p| EpochStart { epoch: p.epoch, revision: p.revision });
        let mut epochs: Vec<EpochStart> = starts.collect();
        if epoch_kept {
            // Opened again under the same epoch, it is as if it had not been closed.
            epochs.dedup_by_key(|start| start.epoch);
        }
        PeerInfo {
            node: name,
            software: "simulation".into(),
            store: store.identity().store,
            epochs,
            head: store.published().head(),
            gc_watermark: if said_forgotten { store.forgotten() } else { Revision(0) },
            cursors,
        }
    }

    /// Drops tombstones that every hub holds and that are old enough.
    fn forget(&mut self, at: NodeId) -> Checked {
        let hub_ns = if self.nodes[at].is_hub { self.plan.retention_ns } else { 0 };
        let hub_ns = if self.is(Bug::RetentionIgnored) { 0 } else { hub_ns };
        let stamp_ns = self.store_now(at).stamp_ns;
        let early = self.is(Bug::TombstoneDroppedEarly);
        let running = self.running(at);
        let held = match running.held.iter().max() {
            Some(most) if early => vec![*most],
            _ => running.held.clone(),
        };
        let before = running.store.records().len();
        forget(&mut running.store, &held, stamp_ns, hub_ns);
        let dropped: Vec<Record> = running.store.records()[before..].to_vec();
        for record in dropped {
            self.count("state: tombstone dropped");
            self.trace(|| format!("{at} drops {record:?}"));
        }
        Ok(())
    }
}

/// What a push says that is shown afterwards.
fn due(action: &WriteOp) -> BTreeMap<Arc<str>, u64> {
    match action {
        WriteOp::Put(families) | WriteOp::Post(families) => families
            .iter()
            .filter_map(|family| Some((family.name().clone(), family.values().first()?.to_bits())))
            .collect(),
        WriteOp::Refuse | WriteOp::Delete => BTreeMap::new(),
    }
}

fn change(action: WriteOp, moment: PushTime) -> Group {
    match action {
        WriteOp::Put(families) => Group::put(moment, families),
        WriteOp::Post(families) => Group::post(moment, families),
        WriteOp::Refuse => Group::refused(moment),
        WriteOp::Delete => Group::delete(moment.stamp),
    }
}

fn describe_delta(delta: &Delta) -> String {
    format!("{}{}", delta.id.key, super::content::show(Some(&delta.group)))
}

fn describe_reports(reports: &[ConflictReport]) -> String {
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
        WriteOp::Delete => "DELETE".into(),
    }
}
