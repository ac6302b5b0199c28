//! Samples of the nodes' resource usage, and the rule that decides whether it is flat.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::node::Node;

/// A node's resource usage at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    resident_bytes: u64,
    files: u64,
    threads: u64,
    disk_bytes: u64,
    cpu_ticks: u64,
}

/// All samples, also in a file.
pub struct Samples {
    csv: File,
    edge: Vec<Sample>,
    hub: Vec<Sample>,
}

/// The share of the samples that counts as warm-up; at least ten minutes.
const WARM_UP: f64 = 0.2;
const WARM_UP_MIN: usize = 60;
/// Minimum number of samples in a third for a decision.
const THIRD_MIN: usize = 3;

impl Sample {
    /// Reads the usage from the system. An error means that the node has ended.
    pub fn take(node: &mut Node) -> Result<Sample, String> {
        if let Ok(Some(status)) = node.process.try_wait() {
            return Err(format!("the {} ended with {status}", node.name));
        }
        let proc = Path::new("/proc").join(node.process.id().to_string());
        Sample::of(&proc, &node.store).map_err(|error| format!("{}: {error}", proc.display()))
    }

    fn of(proc: &Path, store: &Path) -> io::Result<Sample> {
        let status = fs::read_to_string(proc.join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let stat = fs::read_to_string(proc.join("stat"))?;
        let times = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
        let mut disk_bytes = 0;
        for entry in fs::read_dir(store)? {
            // A checkpoint may remove a file meanwhile.
            disk_bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
        }
        Ok(Sample {
            resident_bytes: field("VmRSS:") * 1024,
            files: fs::read_dir(proc.join("fd"))?.count() as u64,
            threads: field("Threads:"),
            disk_bytes,
            cpu_ticks: times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum(),
        })
    }
}

impl Samples {
    /// No samples.
    pub fn new(csv: &Path) -> io::Result<Samples> {
        let mut csv = File::create(csv)?;
        writeln!(csv, "seconds,node,resident_bytes,files,threads,disk_bytes,cpu_ticks")?;
        Ok(Samples { csv, edge: Vec::new(), hub: Vec::new() })
    }

    /// Takes one more sample of each node.
    pub fn add(&mut self, edge: Sample, hub: Sample) -> io::Result<()> {
        self.edge.push(edge);
        self.hub.push(hub);
        let seconds = 10 * self.edge.len();
        for (name, s) in [("edge", edge), ("hub", hub)] {
            let Sample { resident_bytes, files, threads, disk_bytes, cpu_ticks } = s;
            writeln!(self.csv, "{seconds},{name},{resident_bytes},{files},{threads},{disk_bytes},{cpu_ticks}")?;
        }
        Ok(())
    }

    /// Prints each series of samples, and returns whether all are flat.
    ///
    /// The rule compares the last third after the warm-up with the first. The median of memory may be 10 % and 1 MiB
    /// higher; the peak of the disk 25 % and 1 MiB; the peaks of open files and threads 4.
    pub fn judge(&self) -> bool {
        println!("node  what               first third  last third  peak       allowed    slope an hour");
        let mut flat = true;
        for (node, samples) in [("edge", &self.edge), ("hub", &self.hub)] {
            let warm_up = ((samples.len() as f64 * WARM_UP) as usize).max(WARM_UP_MIN);
            let warm = &samples[warm_up.min(samples.len())..];
            let of = |pick: fn(&Sample) -> u64| warm.iter().map(pick).map(|n| n as f64).collect::<Vec<f64>>();
            let mib = f64::from(1 << 20);
            flat &= row(node, "memory, MiB", &of(|s| s.resident_bytes), mib, median, |first| 1.1 * first + mib);
            flat &= row(node, "disk, MiB", &of(|s| s.disk_bytes), mib, peak, |first| 1.25 * first + mib);
            flat &= row(node, "open files", &of(|s| s.files), 1.0, peak, |first| first + 4.0);
            flat &= row(node, "threads", &of(|s| s.threads), 1.0, peak, |first| first + 4.0);
            if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
                let seconds = 10.0 * (samples.len() - 1).max(1) as f64;
                // A tick is a hundredth of a second on every Linux.
                let share = (last.cpu_ticks - first.cpu_ticks) as f64 / seconds;
                println!("{node:4}  processor          {share:.1} % of one core");
            }
        }
        flat
    }
}

fn row(
    node: &str,
    what: &str,
    samples: &[f64],
    unit: f64,
    of: fn(&[f64]) -> f64,
    allowed: impl Fn(f64) -> f64,
) -> bool {
    let third = samples.len() / 3;
    if third < THIRD_MIN {
        println!("{node:4}  {what:17}  the run was too short to judge");
        return true;
    }
    let (first, last) = (of(&samples[..third]), of(&samples[samples.len() - third..]));
    let allowed = allowed(first);
    let report = if last <= allowed { "" } else { "  FAILED: it grows" };
    let (peak, slope) = (peak(samples) / unit, 360.0 * slope(samples) / unit);
    let (first, last, allowed) = (first / unit, last / unit, allowed / unit);
    println!("{node:4}  {what:17}  {first:<11.2}  {last:<10.2}  {peak:<9.2}  {allowed:<9.2}  {slope:+.2}{report}");
    report.is_empty()
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn peak(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(0.0, f64::max)
}

/// The slope from one sample to the next, by least squares.
fn slope(samples: &[f64]) -> f64 {
    let n = samples.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, samples.iter().sum::<f64>() / n);
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in samples.iter().enumerate() {
        let dx = x as f64 - mean_x;
        above += dx * (y - mean_y);
        below += dx * dx;
    }
    above / below
}
