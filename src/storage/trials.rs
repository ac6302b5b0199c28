//! The store on a disk that fails, loses power and decays, compared with a model that cannot fail.

mod cases;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use pushrelay_testkit::disk::{DiskFault, SimulatedDisk};

use super::*;
use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupId, LabelSet, Lifetime, MetricType, NodeId, Position, PushTime, Revision,
    StoreId, ValueLayout, WriteTimestamp,
};
use crate::store::{FamilyMeta, FamilyMetas, GroupRecord, Identity, PeerCursor, Record};

const IDENTITY: Identity = Identity { store: StoreId(7), node: NodeId(8) };

fn options() -> DiskOptions {
    DiskOptions { sync: SyncPolicy::Always, checkpoint_log_bytes_min: 4096, reserve_bytes: 4096 }
}

type Marked = (Group, FamilyMeta, BTreeMap<Arc<str>, FamilyMeta>);

/// The state that the records of a store add up to.
#[derive(Clone, Debug, Default, PartialEq)]
struct ModelState {
    groups: BTreeMap<GroupId, Marked>,
    cursors: BTreeMap<u64, PeerCursor>,
}

impl ModelState {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Opened { .. } | Record::Key(_) => {}
            Record::Forgotten { id, .. } => drop(self.groups.remove(id)),
            Record::Cursor { peer, cursor } => drop(self.cursors.insert(peer.0, cursor.clone())),
            Record::Group(record) => {
                let (group, header, marks) = self.groups.entry(record.id.clone()).or_default();
                let changes = group.merge(&record.group);
                if changes.header {
                    *header = record.header;
                }
                marks.retain(|name, _| group.family(name).is_some());
                let set: Vec<_> = changes.set(group).collect();
                for (at, family) in record.group.families().iter().enumerate() {
                    if set.contains(&family) {
                        marks.insert(family.family.name().clone(), record.families.get(at));
                    }
                }
            }
        }
    }

    fn with(&self, records: &[Record]) -> ModelState {
        let mut state = self.clone();
        records.iter().for_each(|record| state.apply(record));
        state
    }

    fn snapshot(&self) -> Vec<Record> {
        let groups = self.groups.iter().map(|(id, (group, header, marks))| {
            let families = group.families().iter().map(|f| marks[f.family.name()]).collect();
            Record::Group(GroupRecord { id: id.clone(), group: group.clone(), header: *header, families })
        });
        let cursors =
            self.cursors.iter().map(|(peer, cursor)| Record::Cursor { peer: StoreId(*peer), cursor: cursor.clone() });
        groups.chain(cursors).collect()
    }
}

/// One transaction; its records are made when it is committed, so that timestamps rise.
#[derive(Clone, Debug)]
struct TrialWrite {
    job: u8,
    name: u8,
    series: u8,
    kind: u8,
}

#[derive(Clone, Debug)]
enum TrialStep {
    Commit(Vec<TrialWrite>),
    Checkpoint,
    Reopen,
}

fn family(name: u8, series: u8, value: f64) -> Family {
    let mut builder = FamilyBuilder::new(format!("metric_{name}"), MetricType::Gauge);
    for i in 0..series {
        builder.series(&[("i", &format!("{i:03}"))], &ValueLayout::Single, &[value], None);
    }
    builder.finish().unwrap()
}

fn record(write: &TrialWrite, turn: u64) -> Record {
    let id = GroupId::local(LabelSet::new([("job", format!("job {}", write.job))]));
    let moment = PushTime { stamp: WriteTimestamp { time_ns: turn, node: IDENTITY.node }, wall_ns: turn };
    let families = vec![family(write.name, write.series, turn as f64)];
    let group = match write.kind {
        0..=4 => Group::post(moment, families),
        5..=6 => Group::put(moment, families),
        // These need files of format 2.
        7 => Group::put(moment, families).living(Lifetime::of_ms(turn)),
        8 if write.series > 40 => Group::expire(moment.stamp, turn),
        8 => Group::delete(moment.stamp),
        9 => {
            let position = Position { epoch: Epoch(1), revision: Revision(turn) };
            return Record::Cursor {
                peer: StoreId(write.job.into()),
                cursor: PeerCursor { position, ..PeerCursor::default() },
            };
        }
        _ => return Record::Forgotten { id, stamp: moment.stamp, revision: Revision(turn) },
    };
    let mark = FamilyMeta { revision: Revision(turn), ..FamilyMeta::default() };
    Record::Group(GroupRecord { id, group, header: mark, families: FamilyMetas::Same(mark) })
}

fn write() -> impl Strategy<Value = TrialWrite> {
    (0..3u8, 0..3u8, 0..60u8, 0..11u8).prop_map(|(job, name, series, kind)| TrialWrite { job, name, series, kind })
}

fn script() -> impl Strategy<Value = Vec<TrialStep>> {
    let step = prop_oneof![
        6 => proptest::collection::vec(write(), 1..4).prop_map(TrialStep::Commit),
        1 => Just(TrialStep::Checkpoint),
        1 => Just(TrialStep::Reopen),
    ];
    proptest::collection::vec(step, 1..14)
}

/// A store and its expected contents.
struct Trial {
    disk: SimulatedDisk,
    log: Option<Log>,
    /// The acknowledged state.
    state: ModelState,
    /// The other possible state: with the commit during which the machine stopped.
    doubtful: Option<ModelState>,
    turn: u64,
    refused: usize,
}

impl Trial {
    fn new(disk: SimulatedDisk) -> Trial {
        Trial { disk, log: None, state: ModelState::default(), doubtful: None, turn: 0, refused: 0 }
    }

    /// Opens the store and compares its contents with the expected ones.
    fn open(&mut self) {
        self.log = None;
        let (state, recovered) = open(&self.disk);
        assert!(recovered.report.is_intact(), "{:?}", recovered.report);
        assert!(recovered.identity.is_none_or(|identity| identity == IDENTITY));
        assert!(
            state == self.state || self.doubtful.as_ref() == Some(&state),
            "found {state:#?}\nacknowledged {:#?}",
            self.state
        );
        self.state = state;
        self.doubtful = None;
        self.log = recovered.start(IDENTITY).ok();
    }

    /// Whether the step succeeded.
    fn step(&mut self, step: &TrialStep) -> bool {
        if self.log.is_none() {
            self.open();
        }
        let Some(log) = &mut self.log else { return false };
        match step {
            TrialStep::Commit(writes) => {
                self.turn += 1;
                let records: Vec<_> = writes.iter().map(|write| record(write, self.turn)).collect();
                let after = self.state.with(&records);
                match log.commit(&records) {
                    Ok(()) => self.state = after,
                    Err(_) => {
                        self.doubtful = Some(after);
                        self.refused += 1;
                        return false;
                    }
                }
            }
            TrialStep::Checkpoint => return checkpoint(log, &self.state),
            TrialStep::Reopen => self.open(),
        }
        true
    }
}

fn open(disk: &SimulatedDisk) -> (ModelState, Recovered) {
    let mut state = ModelState::default();
    let recovered = recover(Arc::new(disk.clone()), options(), &mut |record| state.apply(&record)).unwrap();
    (state, recovered)
}

fn checkpoint(log: &mut Log, state: &ModelState) -> bool {
    let Ok(mut writer) = log.rotate() else { return false };
    state.snapshot().iter().try_for_each(|record| writer.write(record)).and_then(|()| writer.finish()).is_ok()
}

fn operations(script: &[TrialStep], seed: u64) -> u64 {
    let mut trial = Trial::new(SimulatedDisk::new(seed));
    script.iter().for_each(|step| assert!(trial.step(step)));
    trial.disk.operations()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_crash_after_any_operation_loses_nothing_acknowledged(script in script(), seed in any::<u64>()) {
        for at in 0..operations(&script, seed) {
            let mut trial = Trial::new(SimulatedDisk::new(seed ^ at));
            trial.disk.halt_at(at);
            let done = script.iter().position(|step| !trial.step(step));
            trial.log = None;
            trial.disk.crash();
            trial.open();
            for step in &script[done.unwrap_or(0)..] {
                prop_assert!(trial.step(step), "goes on after the crash");
            }
            trial.open();
        }
    }

    #[test]
    fn a_crash_of_a_recovering_store_loses_nothing_acknowledged(script in script(), seed in any::<u64>(), crashes in proptest::collection::vec(0..20u64, 1..10)) {
        let mut trial = Trial::new(SimulatedDisk::new(seed));
        for after in crashes {
            trial.disk.halt_at(trial.disk.operations() + after);
            let _ = script.iter().all(|step| trial.step(step));
            trial.log = None;
            trial.disk.crash();
            trial.open();
        }
    }

    #[test]
    fn one_failed_operation_undoes_its_commit_only(script in script(), seed in any::<u64>(), full in any::<bool>(), stop in any::<bool>()) {
        let fault = if full { DiskFault::Full } else { DiskFault::Broken };
        for at in 0..operations(&script, seed) {
            let mut trial = Trial::new(SimulatedDisk::new(seed ^ at));
            trial.disk.fail_at(at, fault);
            for step in &script {
                let refused = trial.refused;
                trial.step(step);
                // The disk worked again at once, so that the commit could be undone.
                trial.doubtful = None;
                if stop && trial.refused > refused {
                    break;
                }
            }
            trial.log = None;
            trial.disk.crash();
            trial.open();
        }
    }

    #[test]
    fn many_failed_operations_undo_their_commits_only(script in script(), seed in any::<u64>(), faults in proptest::collection::btree_set(0..100u64, 1..60)) {
        let mut trial = Trial::new(SimulatedDisk::new(seed));
        trial.open();
        let begin = trial.disk.operations();
        faults.iter().for_each(|at| trial.disk.fail_at(begin + at, if at % 3 == 0 { DiskFault::Full } else { DiskFault::Broken }));
        for step in script.iter().filter(|step| !matches!(step, TrialStep::Reopen)) {
            trial.step(step);
        }
        // Once a commit succeeds, no earlier failed one may be replayed.
        while !trial.step(&TrialStep::Commit(vec![TrialWrite { job: 0, name: 0, series: 1, kind: 0 }])) {}
        trial.doubtful = None;
        trial.log = None;
        trial.disk.crash();
        trial.open();
    }

    #[test]
    fn unsynced_writes_of_a_killed_process_are_durable_once_they_are_read(script in script(), seed in any::<u64>(), after in 0..40u64) {
        let mut trial = Trial::new(SimulatedDisk::new(seed));
        trial.disk.halt_at(after);
        let _ = script.iter().all(|step| trial.step(step));
        trial.log = None;
        trial.disk.kill();
        trial.open();
        trial.log = None;
        trial.disk.crash();
        trial.open();
    }

    #[test]
    fn a_full_disk_refuses_commits_until_it_has_space(script in script(), seed in any::<u64>(), capacity in 0..8_000u64) {
        let mut trial = Trial::new(SimulatedDisk::new(seed));
        trial.disk.set_capacity(Some(capacity));
        for step in &script {
            trial.step(step);
            trial.doubtful = None;
        }
        trial.disk.set_capacity(None);
        for step in &script {
            prop_assert!(trial.step(step), "goes on when there is room");
        }
        trial.log = None;
        trial.disk.crash();
        trial.open();
    }
}

/// Fills a store with transactions that do not depend on each other; returns their records.
fn independent(disk: &SimulatedDisk, count: u8) -> Vec<Record> {
    let (_, recovered) = open(disk);
    let mut log = recovered.start(IDENTITY).unwrap();
    let write = |i| TrialWrite { job: i, name: i, series: 1 + i % 7, kind: 0 };
    let records: Vec<Record> = (0..count).map(|i| record(&write(i), u64::from(i) + 1)).collect();
    records.iter().for_each(|record| log.commit(std::slice::from_ref(record)).unwrap());
    log.close().unwrap();
    records
}

fn replayed(disk: &SimulatedDisk) -> (Vec<Record>, Recovered) {
    let mut records = Vec::new();
    let recovered = recover(Arc::new(disk.clone()), options(), &mut |record| records.push(record)).unwrap();
    (records, recovered)
}

fn log_name(disk: &SimulatedDisk) -> String {
    disk.list().unwrap().into_iter().rfind(|name| name.starts_with("log-")).unwrap()
}

#[test]
fn a_flipped_byte_costs_one_transaction_and_is_reported() {
    let disk = SimulatedDisk::new(0);
    let records = independent(&disk, 12);
    let name = log_name(&disk);
    let end = replayed(&disk).1.report.bytes;
    for at in 0..end as usize {
        disk.damage(&name, |bytes| bytes[at] ^= 0x10);
        let (found, recovered) = replayed(&disk);
        let (report, first_lost) = (&recovered.report, records.iter().zip(&found).position(|(a, b)| a != b));
        if report.is_intact() {
            assert_eq!(found, records, "byte {at}");
            assert!(report.torn_bytes > 0, "only the mark of an orderly close is unprotected");
        } else {
            assert_eq!(report.lost_count, 1, "byte {at}: {report:?}");
            let mut left = records.clone();
            if found.len() < records.len() {
                left.remove(first_lost.unwrap_or(records.len() - 1));
            }
            assert_eq!(found, left, "byte {at}");
            assert!(report.lost[0].bytes.contains(&(at as u64)));
            assert_eq!(report.lost[0].file, name);
        }
        disk.damage(&name, |bytes| bytes[at] ^= 0x10);
    }
}

/// Groups with common schemas: each frame but the first refers to schemas that other frames define.
#[test]
fn a_flipped_byte_costs_no_schema() {
    let disk = SimulatedDisk::new(0);
    let (_, recovered) = open(&disk);
    let mut log = recovered.start(IDENTITY).unwrap();
    let write = |i| TrialWrite { job: i, name: 0, series: 20, kind: 0 };
    let records: Vec<Record> = (0..50).map(|i| record(&write(i), u64::from(i) + 1)).collect();
    records.iter().for_each(|record| log.commit(std::slice::from_ref(record)).unwrap());
    log.close().unwrap();
    let cost = |kind: &str, at_most: usize| {
        let name = disk.list().unwrap().into_iter().rfind(|name| name.starts_with(kind)).unwrap();
        let whole = replayed(&disk).0;
        for at in (0..disk.open(&name).unwrap().len().unwrap() as usize).step_by(11) {
            disk.damage(&name, |bytes| bytes[at] ^= 0x10);
            let (found, recovered) = replayed(&disk);
            let lost = whole.iter().filter(|record| !found.contains(record)).count();
            assert!(recovered.report.lost_count <= 1, "byte {at} of {name}: {:?}", recovered.report);
            assert!(lost <= at_most, "byte {at} of {name}: {lost} of {}", whole.len());
            disk.damage(&name, |bytes| bytes[at] ^= 0x10);
        }
    };
    cost("log-", 1);
    let (state, recovered) = open(&disk);
    let mut log = recovered.start(IDENTITY).unwrap();
    assert!(checkpoint(&mut log, &state));
    drop(log);
    assert_eq!(replayed(&disk).0.iter().filter(|record| matches!(record, Record::Group(_))).count(), records.len());
    // One frame of the checkpoint contains several groups.
    cost("checkpoint-", 20);
}

#[test]
fn a_damaged_store_is_whole_again_after_a_checkpoint() {
    let disk = SimulatedDisk::new(0);
    independent(&disk, 5);
    disk.damage(&log_name(&disk), |bytes| bytes[200] ^= 1);
    let (state, recovered) = open(&disk);
    assert!(!recovered.report.is_intact());
    let identity = Identity { store: StoreId(99), ..IDENTITY };
    let mut log = recovered.start(identity).unwrap();
    assert!(log.wants_checkpoint());
    assert!(checkpoint(&mut log, &state));
    assert!(!log.wants_checkpoint());
    drop(log);
    let (again, recovered) = open(&disk);
    assert!(recovered.report.is_intact());
    assert_eq!((again, recovered.identity), (state, Some(identity)));
}

#[test]
fn a_cut_checkpoint_and_missing_files_are_reported() {
    let disk = SimulatedDisk::new(0);
    let records = independent(&disk, 9);
    let (state, recovered) = open(&disk);
    let mut log = recovered.start(IDENTITY).unwrap();
    assert!(checkpoint(&mut log, &state));
    log.close().unwrap();
    let checkpoint = disk.list().unwrap().into_iter().find(|name| name.starts_with("checkpoint-")).unwrap();
    let mut len = 0;
    disk.damage(&checkpoint, |bytes| len = bytes.len());
    for cut in (0..len).rev() {
        disk.damage(&checkpoint, |bytes| bytes.truncate(cut));
        assert!(!open(&disk).1.report.is_intact(), "cut to {cut}");
    }
    let disk = SimulatedDisk::new(0);
    independent(&disk, 9);
    independent(&disk, 9);
    let log = disk.list().unwrap().into_iter().find(|name| name.starts_with("log-")).unwrap();
    disk.remove(&log).unwrap();
    let (found, recovered) = replayed(&disk);
    assert_eq!((found, recovered.report.lost[0].damage), (records, Damage::Missing));
}

#[test]
fn a_definition_lost_in_the_log_is_found_in_the_checkpoint() {
    let disk = SimulatedDisk::new(0);
    let mut trial = Trial::new(disk.clone());
    let write = TrialWrite { job: 1, name: 1, series: 50, kind: 0 };
    // The schema is defined in the first log, kept alive by the state, and defined again in each later file.
    assert!(trial.step(&TrialStep::Commit(vec![write.clone()])) && trial.step(&TrialStep::Checkpoint));
    assert!(trial.step(&TrialStep::Commit(vec![write.clone()])) && trial.step(&TrialStep::Commit(vec![write])));
    let state = trial.state.clone();
    drop(trial.log.take());
    disk.damage(&log_name(&disk), |bytes| bytes[150] ^= 1);
    let (found, recovered) = open(&disk);
    assert_eq!(recovered.report.lost_count, 1);
    assert_eq!(found, state, "the newest values are there");
}

#[test]
fn a_store_is_used_by_one_process_at_a_time() {
    let disk = SimulatedDisk::new(0);
    let (_, recovered) = open(&disk);
    let error = recover(Arc::new(disk.clone()), options(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let log = recovered.start(IDENTITY).unwrap();
    assert!(recover(Arc::new(disk.clone()), options(), &mut |_| {}).is_err());
    drop(log);
    let mut log = open(&disk).1.start(IDENTITY).unwrap();
    let writer = log.rotate().unwrap();
    drop(log);
    assert!(recover(Arc::new(disk.clone()), options(), &mut |_| {}).is_err(), "it may still remove files");
    drop(writer);
    open(&disk);
}

#[test]
fn unfinished_files_of_others_stay() {
    let disk = SimulatedDisk::new(0);
    for name in ["checkpoint-0000000009.tmp", "log-0000000009.tmp", "notes.tmp", "checkpoint-x.tmp"] {
        disk.create(name).unwrap();
    }
    open(&disk);
    let left: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".tmp")).collect();
    assert_eq!(left, ["checkpoint-x.tmp", "notes.tmp"]);
}

#[test]
fn another_format_is_refused_by_its_number() {
    let disk = SimulatedDisk::new(0);
    independent(&disk, 1);
    let name = log_name(&disk);
    disk.damage(&name, |bytes| {
        let len = u32::from_le_bytes(*bytes[4..].first_chunk().unwrap()) as usize;
        bytes[frame::HEADER_BYTES] = 9;
        let salt = files::FileName::parse(&name).unwrap().salt();
        frame::seal(&mut bytes[..frame::HEADER_BYTES + len], salt, 0);
    });
    let error = recover(Arc::new(disk), options(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OpenError::Format { version: 9, .. }));
    assert!(error.to_string().contains(&name) && error.to_string().contains("format 9"));
}

#[test]
fn format_2_begins_with_the_first_record_that_needs_it() {
    let disk = SimulatedDisk::new(0);
    let formats = |disk: &SimulatedDisk| {
        let mut names: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.contains('-')).collect();
        names.sort();
        let format = |name: String| {
            let mut byte = [0];
            disk.open(&name).unwrap().read_at(frame::HEADER_BYTES as u64, &mut byte).unwrap();
            format!("{} {}", name.split('-').next().unwrap(), byte[0])
        };
        names.into_iter().map(format).collect::<Vec<_>>()
    };
    let write = |kind, turn| record(&TrialWrite { job: 1, name: 1, series: 1, kind }, turn);
    let mut state = ModelState::default();
    let mut log = open(&disk).1.start(IDENTITY).unwrap();
    log.commit(&[write(5, 1)]).unwrap();
    assert_eq!(formats(&disk), ["log 1"], "a program that knows format 1 only reads it");
    log.commit(&[write(7, 2)]).unwrap();
    log.commit(&[write(5, 3)]).unwrap();
    assert_eq!(formats(&disk), ["log 1", "log 2"]);
    [write(5, 1), write(7, 2), write(5, 3)].iter().for_each(|record| state.apply(record));
    drop(log);
    let mut log = open(&disk).1.start(IDENTITY).unwrap();
    assert_eq!(formats(&disk), ["log 1", "log 2", "log 2"]);
    assert!(checkpoint(&mut log, &state));
    assert_eq!(formats(&disk), ["checkpoint 2", "log 2"]);
    drop(log);
    // The lifetime was that of an older push: nothing needs the format any more.
    open(&disk).1.start(IDENTITY).unwrap();
    assert_eq!(formats(&disk), ["checkpoint 2", "log 2", "log 1"]);
}

#[test]
fn checkpoints_are_due_when_logs_are_long_and_not_while_one_is_written() {
    let mut trial = Trial::new(SimulatedDisk::new(0));
    let commit = TrialStep::Commit(vec![TrialWrite { job: 0, name: 0, series: 50, kind: 0 }]);
    let mut commits = 0;
    while !trial.log.as_mut().is_some_and(Log::wants_checkpoint) {
        assert!(trial.step(&commit));
        commits += 1;
    }
    assert!(commits > 2);
    let writer = trial.log.as_mut().unwrap().rotate().unwrap();
    for _ in 0..3 * commits {
        assert!(trial.step(&commit) && !trial.log.as_mut().unwrap().wants_checkpoint());
    }
    drop(writer);
    assert!(trial.log.as_mut().unwrap().wants_checkpoint(), "it was not finished");
    assert!(trial.step(&TrialStep::Checkpoint));
    assert!(!trial.log.as_mut().unwrap().wants_checkpoint());
    trial.open();
}

#[test]
fn a_real_directory_serves() {
    let path = std::env::temp_dir().join(format!("pushrelay-storage-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let mut state = ModelState::default();
    for life in 1..4u64 {
        let mut found = ModelState::default();
        let disk = Arc::new(RealDisk::open(&path).unwrap());
        let recovered = recover(disk.clone(), options(), &mut |record| found.apply(&record)).unwrap();
        assert_eq!(found, state);
        assert!(matches!(recover(disk, options(), &mut |_| {}), Err(OpenError::Locked { .. })));
        let mut log = recovered.start(IDENTITY).unwrap();
        for i in 0..20 {
            let records = [record(&TrialWrite { job: i, name: i, series: 30, kind: 0 }, life * 100 + u64::from(i))];
            log.commit(&records).unwrap();
            state = state.with(&records);
        }
        if life == 2 {
            assert!(checkpoint(&mut log, &state));
        }
    }
    std::fs::remove_dir_all(&path).unwrap();
}
