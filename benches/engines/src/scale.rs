//! A million series: how fast the log reads them back, and how fast commits are while a checkpoint is written.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pushrelay::storage::{DiskOptions, Log, RealDisk, recover};
use pushrelay::store::Record;

use crate::engines::{IDENTITY, family, record};
use crate::{Failure, usage};

const GROUPS: usize = 100;
const SERIES: usize = 10_000;

/// Groups with a schema each.
fn state() -> Vec<Record> {
    (0..GROUPS).map(|i| record(i, family(&format!("metric_{i}"), SERIES, i as f64))).collect()
}

fn open(directory: &Path, each: &mut dyn FnMut(Record)) -> Result<Log, Failure> {
    Ok(recover(Arc::new(RealDisk::open(directory)?), DiskOptions::default(), each)?.start(IDENTITY)?)
}

/// Recovery from a checkpoint and from a log.
pub fn start(directory: &Path) -> Result<(), Failure> {
    let directory = usage::Directory::new(directory)?;
    let state = state();
    let mut log = open(&directory.path, &mut |_| {})?;
    for record in &state {
        log.commit(std::slice::from_ref(record))?;
    }
    drop(log);
    let report = |from: &str| -> Result<Log, Failure> {
        let (mut records, begin) = (Vec::new(), Instant::now());
        let log = open(&directory.path, &mut |record| records.push(record))?;
        let took = begin.elapsed();
        println!("recovery of {GROUPS} × {SERIES} series from a {from}: {:.0} ms", took.as_secs_f64() * 1e3);
        assert!(records.len() == state.len(), "all groups are there");
        Ok(log)
    };
    let mut log = report("log")?;
    let mut writer = log.rotate()?;
    state.iter().try_for_each(|record| writer.write(record))?;
    writer.finish()?;
    drop(log);
    report("checkpoint")?;
    println!("disk: {:.1} MB", directory.disk_bytes()? as f64 / 1e6);
    Ok(())
}

/// Small commits, without and with a checkpoint being written.
pub fn checkpoint(directory: &Path) -> Result<(), Failure> {
    let directory = usage::Directory::new(directory)?;
    let state = state();
    let small: Vec<Record> = (0..1000).map(|i| record(i, family("small", 5, i as f64))).collect();
    let mut log = open(&directory.path, &mut |_| {})?;
    state.iter().try_for_each(|record| log.commit(std::slice::from_ref(record)))?;
    let mut latencies = Vec::new();
    for record in &small {
        let begin = Instant::now();
        log.commit(std::slice::from_ref(record))?;
        latencies.push(begin.elapsed());
    }
    print("commits alone", &mut latencies);
    let begin = Instant::now();
    let mut writer = log.rotate()?;
    println!("rotate: {} µs", begin.elapsed().as_micros());
    let begin = Instant::now();
    let thread = std::thread::spawn(move || {
        let written = state.iter().try_for_each(|record| writer.write(record));
        written.and_then(|()| writer.finish())
    });
    latencies.clear();
    for record in small.iter().cycle() {
        let begin = Instant::now();
        log.commit(std::slice::from_ref(record))?;
        latencies.push(begin.elapsed());
        if thread.is_finished() {
            break;
        }
    }
    thread.join().map_err(|_| "the checkpoint panicked")??;
    println!("checkpoint: {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    print("commits meanwhile", &mut latencies);
    Ok(())
}

fn print(what: &str, latencies: &mut [std::time::Duration]) {
    latencies.sort();
    let at = |part: usize| latencies[(latencies.len() - 1) * part / 1000].as_micros();
    println!("{what}: {} in all, p50 {} µs, p99 {} µs, max {} µs", latencies.len(), at(500), at(990), at(1000));
}
