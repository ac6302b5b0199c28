//! The machine: its description, its current speed, and its use by other programs.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::body::xorshift;
use crate::process::{self, Process};

/// A measurement is noisy if other programs use more than this share of all processors.
pub const FOREIGN_MAX: f64 = 0.10;
/// A measurement is noisy if its calibration is slower than the fastest by this factor.
pub const SLOWER_MAX: f64 = 1.15;

/// Measures how much of the machine the measured processes use, and how much all others use.
pub struct Meter {
    processes: Vec<(u32, f64)>,
    own: f64,
    busy: f64,
    calibration: Duration,
    started: Instant,
}

/// The reading of a [`Meter`].
#[derive(Clone, Debug)]
pub struct Reading {
    pub wall: Duration,
    /// Seconds of processor time of each process.
    pub cpu: Vec<f64>,
    pub noise: Noise,
}

/// How far a measurement can be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// The share of all processors that others used, the hypervisor included.
    pub foreign: f64,
    /// How long the calibration took, the slower of before and after.
    pub calibration: Duration,
}

impl Meter {
    pub fn start(processes: &[&Process]) -> Self {
        let calibration = calibrate();
        let processes = processes.iter().map(|process| (process.id(), process.cpu_seconds())).collect();
        Self { processes, own: process::own_cpu_seconds(), busy: busy_seconds(), calibration, started: Instant::now() }
    }

    pub fn stop(self) -> Reading {
        let wall = self.started.elapsed();
        let used = |(id, before): &(u32, f64)| process::cpu_seconds_of(*id) - before;
        let cpu: Vec<f64> = self.processes.iter().map(used).collect();
        let ours = cpu.iter().sum::<f64>() + process::own_cpu_seconds() - self.own;
        let foreign = (busy_seconds() - self.busy - ours) / (wall.as_secs_f64() * processors() as f64);
        let calibration = self.calibration.max(calibrate());
        Reading { wall, cpu, noise: Noise { foreign: foreign.clamp(0.0, 1.0), calibration } }
    }
}

/// Does a fixed piece of work.
fn calibrate() -> Duration {
    let started = Instant::now();
    let mut state = 1;
    for _ in 0..4_000_000 {
        state = xorshift(state);
    }
    std::hint::black_box(state);
    started.elapsed()
}

/// Seconds that all processors together were not idle, stolen ones included.
fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let counts: Vec<f64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|count| count.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| counts.get(*at)).sum::<f64>();
    busy / 100.0
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Facts about the machine that readers of the figures need.
pub fn describe(work: &Path) -> Vec<(String, String)> {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
        value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (appended, overwritten) = sync_cost(work).unwrap_or_default();
    let sync = format!("{:.0} µs appending, {:.0} µs pre-allocated", appended, overwritten);
    vec![
        ("date".into(), run("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("processors".into(), format!("{} × {}", processors(), line("/proc/cpuinfo", "model name"))),
        ("memory".into(), line("/proc/meminfo", "MemTotal")),
        ("kernel".into(), run("uname", &["-sr"])),
        ("file system of the data".into(), run("stat", &["-f", "-c", "%T", &work.to_string_lossy()])),
        ("sync of 4 KB (median)".into(), sync),
    ]
}

/// Median microseconds of writing and syncing 4 KB: at the end of a file, and over zeros written before.
fn sync_cost(work: &Path) -> std::io::Result<(f64, f64)> {
    const ROUNDS: usize = 101;
    let path = work.join("sync-cost");
    let median = |allocate: bool| {
        let mut file = File::create(&path)?;
        if allocate {
            file.write_all(&vec![0; ROUNDS * 4096])?;
            file.sync_all()?;
            file = File::options().write(true).open(&path)?;
        }
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            file.write_all(&[1; 4096])?;
            file.sync_data()?;
            times.push(started.elapsed());
        }
        times.sort();
        Ok::<f64, std::io::Error>(times[ROUNDS / 2].as_secs_f64() * 1e6)
    };
    let costs = (median(false)?, median(true)?);
    fs::remove_file(&path)?;
    Ok(costs)
}
