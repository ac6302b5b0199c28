#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! A soak test: a real edge and a real hub over TLS on loopback, a mixed load at a bounded rate for as long as
//! requested, and a check at the end that nothing has grown.
//!
//! One thread does everything in turn, by a schedule of ticks: it pushes (`load`), scrapes both nodes, cuts the line
//! between them (`line`), makes both read their configuration again, and samples their resource usage (`sample`). At
//! the end it restores the line and waits until both nodes show the same, and every acknowledged push (`shown`).

mod load;
mod node;
mod sample;
mod shown;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use load::Load;
use node::Site;
use pushrelay_testkit::Line;
use sample::{Sample, Samples};

const USAGE: &str = "usage: soak --binary FILE --dir DIR [--minutes N] [--rate PUSHES_PER_SECOND] [--seed N]";

/// Interval of the samples.
const SAMPLE: Duration = Duration::from_secs(10);
/// Interval of the scrapes of both nodes.
const SCRAPE: Duration = Duration::from_secs(5);
/// Interval of broken connections that return at once.
const BREAK: Duration = Duration::from_secs(47);
/// Interval of the line's cuts, and their length.
const OUTAGE: Duration = Duration::from_secs(301);
const OUTAGE_LASTS: Duration = Duration::from_secs(45);
/// Interval of reloads of both nodes.
const RELOAD: Duration = Duration::from_secs(127);
/// Time for the hub at the end to show the same as the edge.
const CONVERGE: Duration = Duration::from_secs(60);

struct Options {
    binary: PathBuf,
    dir: PathBuf,
    minutes: f64,
    rate: f64,
    seed: u64,
}

fn main() -> ExitCode {
    let outcome = options().and_then(|options| soak(&options));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("soak: {text}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options { binary: PathBuf::new(), dir: PathBuf::new(), minutes: 60.0, rate: 40.0, seed: 1 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        let number = || value.parse::<f64>().map_err(|_| format!("{name} {value:?} is not a number; {USAGE}"));
        match &*name {
            "--binary" => options.binary = value.into(),
            "--dir" => options.dir = value.into(),
            "--minutes" => options.minutes = number()?.clamp(0.5, 100_000.0),
            "--rate" => options.rate = number()?.clamp(0.1, 1_000.0),
            "--seed" => options.seed = number()? as u64,
            _ => return Err(format!("{name} is unknown; {USAGE}")),
        }
    }
    if options.binary.as_os_str().is_empty() || options.dir.as_os_str().is_empty() {
        return Err(USAGE.to_owned());
    }
    Ok(options)
}

/// A task that is due at an interval.
struct Due {
    every: Duration,
    at: Instant,
}

impl Due {
    fn new(every: Duration) -> Due {
        Due { every, at: Instant::now() + every }
    }

    /// Whether it is due now. Missed runs are not repeated.
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.at;
        if due {
            self.at = (self.at + self.every).max(now);
        }
        due
    }
}

fn soak(options: &Options) -> Result<bool, String> {
    let line = Line::new();
    let mut site = Site::start(&options.binary, &options.dir, &line)?;
    let mut load = Load::new(options.seed);
    let samples = run(options, &line, &mut site, &mut load)?;
    site.repair(&line)?;
    println!("load: {}", load.summary());
    let converged = shown::converge(&site, &load, CONVERGE);
    match &converged {
        Ok(series) => println!("hub and edge show the same {series} series, and all that was acknowledged: OK"),
        Err(text) => println!("hub and edge do not converge: FAILED: {text}"),
    }
    let complaints = site.complaints();
    complaints.iter().for_each(|text| println!("log: {text}"));
    let flat = samples.judge();
    site.stop()?;
    let passed = converged.is_ok() && flat && complaints.is_empty();
    println!("soak of {} min: {}", options.minutes, if passed { "PASSED" } else { "FAILED" });
    Ok(passed)
}

/// Runs the load and all other tasks until the time is over.
fn run(options: &Options, line: &Line, site: &mut Site, load: &mut Load) -> Result<Samples, String> {
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let csv = options.dir.join("samples.csv");
    let mut samples = Samples::new(&csv).map_err(|error| format!("{}: {error}", csv.display()))?;
    let (mut push, mut sample) = (Due::new(Duration::from_secs_f64(1.0 / options.rate)), Due::new(SAMPLE));
    let (mut scrape, mut cut, mut reload) = (Due::new(SCRAPE), Due::new(BREAK), Due::new(RELOAD));
    let (mut outage, mut repair) = (Due::new(OUTAGE), None);
    while Instant::now() < end {
        if push.take() {
            load.push(site.edge.web)?;
        }
        if scrape.take() {
            load.scrape(site.edge.web, site.hub.web)?;
        }
        if cut.take() && repair.is_none() {
            line.break_connections();
        }
        if outage.take() {
            line.cut();
            repair = Some(Instant::now() + OUTAGE_LASTS);
        }
        if repair.is_some_and(|at| Instant::now() >= at) {
            site.repair(line)?;
            repair = None;
        }
        if reload.take() {
            site.reload()?;
        }
        if sample.take() {
            let (edge, hub) = (Sample::take(&mut site.edge)?, Sample::take(&mut site.hub)?);
            samples.add(edge, hub).map_err(|error| format!("{}: {error}", csv.display()))?;
            let _ = std::io::stdout().flush();
        }
        std::thread::sleep(push.at.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
    }
    Ok(samples)
}
