//! Single cases of the random trials, and cases that they do not reach.

use super::*;

/// Commits until a checkpoint is due; returns the number of commits.
fn fill(trial: &mut Trial) -> usize {
    let commit = TrialStep::Commit(vec![TrialWrite { job: 0, name: 0, series: 50, kind: 0 }]);
    let mut commits = 0;
    while !trial.log.as_mut().is_some_and(Log::wants_checkpoint) {
        assert!(trial.step(&commit));
        commits += 1;
    }
    commits
}

#[test]
fn commits_go_on_in_the_old_log_while_no_file_can_be_created() {
    let mut trial = Trial::new(SimulatedDisk::new(0));
    fill(&mut trial);
    let (files, operations) = (trial.disk.list().unwrap(), trial.disk.operations());
    trial.disk.fail_at(operations, DiskFault::Full);
    assert!(matches!(trial.log.as_mut().unwrap().rotate(), Err(CommitError::Full { .. })));
    assert_eq!(trial.disk.operations(), operations + 1);
    assert!(!trial.log.as_mut().unwrap().wants_checkpoint(), "it failed just now");
    assert!(fill(&mut trial) > 1, "tried again when the log has grown");
    assert_eq!(trial.disk.list().unwrap(), files);
    trial.disk.crash();
    trial.open();
    assert!(trial.step(&TrialStep::Checkpoint) && !trial.log.as_mut().unwrap().wants_checkpoint());
    trial.open();
}

#[test]
fn a_log_is_given_up_for_one_that_was_created_and_could_not_be_begun() {
    for after in 1..4 {
        let mut trial = Trial::new(SimulatedDisk::new(after));
        fill(&mut trial);
        let operations = trial.disk.operations();
        trial.disk.fail_at(operations + after, DiskFault::Full);
        // Nor can the new file be removed.
        trial.disk.fail_at(operations + after + 1, DiskFault::Broken);
        assert!(trial.log.as_mut().unwrap().rotate().is_err());
        assert!(!trial.log.as_mut().unwrap().wants_checkpoint(), "it failed just now");
        fill(&mut trial);
        trial.disk.crash();
        trial.open();
    }
}

/// Opens the store but completes no checkpoint: the store reports the same damage until a checkpoint replaces
/// everything.
fn is_missed_until_a_checkpoint(disk: &SimulatedDisk) {
    let lost = open(disk).1.report.lost;
    assert!(!lost.is_empty());
    for _ in 0..2 {
        let (state, recovered) = open(disk);
        assert_eq!(recovered.report.lost, lost);
        let mut log = recovered.start(IDENTITY).unwrap();
        disk.halt_at(disk.operations());
        assert!(!checkpoint(&mut log, &state) && log.commit(&[record(&ANY, 9)]).is_err());
        drop(log);
        disk.crash();
    }
    let (state, recovered) = open(disk);
    assert_eq!(recovered.report.lost, lost);
    let mut log = recovered.start(IDENTITY).unwrap();
    assert!(log.wants_checkpoint() && checkpoint(&mut log, &state));
    drop(log);
    assert!(open(disk).1.report.is_intact());
}

const ANY: TrialWrite = TrialWrite { job: 0, name: 0, series: 1, kind: 0 };

#[test]
fn the_missing_log_of_a_checkpoint_is_missed_until_the_next() {
    let mut trial = Trial::new(SimulatedDisk::new(0));
    assert!(
        trial.step(&TrialStep::Commit(vec![ANY]))
            && trial.step(&TrialStep::Checkpoint)
            && trial.step(&TrialStep::Commit(vec![ANY]))
    );
    drop(trial.log.take());
    trial.disk.remove(&log_name(&trial.disk)).unwrap();
    trial.disk.sync_dir().unwrap();
    is_missed_until_a_checkpoint(&trial.disk);
}

#[test]
fn a_log_without_an_intact_frame_is_missed_until_a_checkpoint() {
    for logs in 1..3 {
        let disk = SimulatedDisk::new(0);
        (0..logs).for_each(|_| drop(independent(&disk, 3)));
        disk.damage(&log_name(&disk), |bytes| bytes.fill(0xa5));
        is_missed_until_a_checkpoint(&disk);
    }
}

#[test]
fn a_disk_that_is_full_at_the_sync_takes_what_fits() {
    let mut trial = Trial::new(SimulatedDisk::new(0));
    trial.open();
    trial.disk.set_full_late(true);
    // The capacity is less than the reserved space.
    trial.disk.set_capacity(Some(3_000));
    for _ in 0..5 {
        assert!(trial.step(&TrialStep::Commit(vec![ANY])));
    }
    let logs = trial.disk.list().unwrap().len();
    assert_eq!(logs, 2, "one that reserved space, and one that does not");
    while trial.step(&TrialStep::Commit(vec![ANY])) {}
    trial.doubtful = None;
    trial.disk.set_capacity(None);
    assert!(trial.step(&TrialStep::Commit(vec![ANY])));
    trial.disk.crash();
    trial.open();
}
