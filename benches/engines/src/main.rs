//! Measures embedded stores on pushrelay's workload: many small transactions over 10,000 keys, one sync each.
//!
//!     engines DIR                                    all of it, as the tables in docs/reference/storage.md
//!     engines DIR commits ENGINE RECORDS BYTES       one row of the first table
//!     engines DIR flips ENGINE                       one row of the second
//!     engines DIR start | checkpoint                 recovery, and commits while a checkpoint is written (log only)
//!
//! ENGINE: bare (an append and a sync), log (pushrelay's; log:BYTES reserves that much space ahead), fjall, redb. DIR
//! is on the disk to be measured; the program makes directories in it and removes them. Each row is a process of its
//! own, so that its memory and CPU are its own.

mod engines;
mod flips;
mod scale;
mod usage;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use engines::{Engine, KEYS};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [directory] => all(directory),
        [directory, "commits", engine, records, bytes] => {
            commits(Path::new(directory), engine, records.parse()?, bytes.parse()?)
        }
        [directory, "flips", engine] => flips::flips(Path::new(directory), engine),
        [directory, "start"] => scale::start(Path::new(directory)),
        [directory, "checkpoint"] => scale::checkpoint(Path::new(directory)),
        _ => Err("usage: engines DIR [commits ENGINE RECORDS BYTES | flips ENGINE | start | checkpoint]".into()),
    }
}

fn all(directory: &str) -> Result<(), Failure> {
    let run = |arguments: &[&str]| -> Result<(), Failure> {
        Command::new(std::env::current_exe()?).arg(directory).args(arguments).status()?;
        Ok(())
    };
    println!(
        "| records × bytes a commit | engine | CPU µs a record | µs a commit p50 | p99 | max | memory MB | disk MB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (records, bytes) in [("1", "100"), ("64", "100"), ("64", "1000")] {
        for engine in engines::NAMES {
            run(&["commits", engine, records, bytes])?;
        }
    }
    println!(
        "\n| engine | flips | kept all | lost some, said so | lost some, silent | wrong value | refused to open | panicked |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for engine in &engines::NAMES[1..] {
        run(&["flips", engine])?;
    }
    println!();
    run(&["start"])?;
    run(&["checkpoint"])
}

/// Commits for a few seconds, and prints the cost.
fn commits(directory: &Path, name: &str, records: usize, bytes: usize) -> Result<(), Failure> {
    let directory = usage::Directory::new(directory)?;
    let data = engines::Data::new(name, bytes);
    let memory = usage::resident_bytes()?;
    let mut engine = engines::open(name, &directory.path, data)?;
    let count = if records == 1 { 4000 } else { 1500 };
    let mut at = 0;
    let mut turn = |engine: &mut Box<dyn Engine>| {
        let begin = at;
        at = (at + records) % (KEYS - records);
        engine.commit(begin..begin + records)
    };
    for _ in 0..200 {
        turn(&mut engine)?;
    }
    let (cpu, mut latencies) = (usage::cpu()?, Vec::with_capacity(count));
    for _ in 0..count {
        let begin = Instant::now();
        turn(&mut engine)?;
        latencies.push(begin.elapsed());
    }
    let cpu = usage::cpu()? - cpu;
    latencies.sort();
    let at = |part: usize| latencies[(latencies.len() - 1) * part / 1000].as_micros();
    println!(
        "| {records} × {bytes} | {name} | {:.1} | {} | {} | {} | {:.1} | {:.1} |",
        micros(cpu) / (count * records) as f64,
        at(500),
        at(990),
        at(1000),
        usage::resident_bytes()?.saturating_sub(memory) as f64 / 1e6,
        directory.disk_bytes()? as f64 / 1e6,
    );
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
