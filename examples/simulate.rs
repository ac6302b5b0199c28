//! Runs seeds of the simulation: `cargo run --release --example simulate -- --seeds 1000` (see
//! `docs/contributing/testing.md`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use pushrelay_testkit::simulation::{Bug, Options, Outcome, run};

/// The product's allocator: seeds run faster with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str =
    "usage: simulate --seed N [--planted BUG] | --seeds N [--from K] [--jobs J] | --planted all|BUG [--seeds N]";
/// Failures that are printed.
const FAILURES_MAX: usize = 10;

#[derive(Debug, Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    jobs: usize,
    planted: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments { seeds: 1_000, jobs: 1, ..Arguments::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if ["--help", "-h"].contains(&word.as_str()) {
            println!("{USAGE}");
            std::process::exit(0);
        }
        let value = words.next().ok_or(format!("{word} needs a value\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}\n{USAGE}"));
        match word.as_str() {
            "--seed" => arguments.seed = Some(number()?),
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--jobs" => arguments.jobs = number()?.clamp(1, 64) as usize,
            "--planted" => arguments.planted = Some(value),
            _ => return Err(format!("{word} is not known\n{USAGE}")),
        }
    }
    Ok(arguments)
}

fn bugs(named: &str) -> Result<Vec<(Bug, &'static str)>, String> {
    let wanted = |bug: &(Bug, &'static str)| named == "all" || format!("{:?}", bug.0) == named;
    let bugs: Vec<_> = Bug::ALL.iter().copied().filter(wanted).collect();
    let names = || Bug::ALL.iter().map(|(bug, _)| format!("{bug:?}")).collect::<Vec<_>>().join(", ");
    if bugs.is_empty() { Err(format!("no such bug; there are: {}", names())) } else { Ok(bugs) }
}

/// A bar on standard error, if that is a terminal.
fn bar(seeds: u64, what: &str) -> ProgressBar {
    let template = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let style = ProgressStyle::with_template(template).expect("a valid template");
    ProgressBar::new(seeds).with_style(style).with_message(what.to_owned())
}

/// Runs a seed; a panic of the product is a failure like any other.
fn run_caught(seed: u64, options: Options) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default();
        Outcome { failure: Some(format!("panic: {text}")), ..Outcome::default() }
    })
}

fn replay(seed: u64, options: Options) -> ExitCode {
    let outcome = run_caught(seed, Options { trace: true, ..options });
    outcome.trace.iter().for_each(|line| println!("{line}"));
    match outcome.failure {
        Some(failure) => {
            println!("seed {seed}: {failure}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: all well, {} events", outcome.events);
            ExitCode::SUCCESS
        }
    }
}

#[derive(Default)]
struct Sums {
    coverage: BTreeMap<&'static str, u64>,
    failures: BTreeMap<u64, String>,
    events: u64,
    virtual_ns: u128,
}

fn campaign(arguments: &Arguments) -> ExitCode {
    let (begin, next, sums) = (Instant::now(), AtomicU64::new(0), Mutex::new(Sums::default()));
    let bar = bar(arguments.seeds, "seeds");
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds {
                        return;
                    }
                    let seed = arguments.from + number;
                    let options = Options::default();
                    let outcome = run_caught(seed, options);
                    bar.inc(1);
                    let mut sums = sums.lock().expect("no thread panics with it");
                    for (what, count) in outcome.coverage {
                        let sum = sums.coverage.entry(what).or_default();
                        *sum = if what.starts_with("most") { (*sum).max(count) } else { *sum + count };
                    }
                    sums.events += outcome.events;
                    sums.virtual_ns += u128::from(outcome.virtual_ns);
                    if let Some(failure) = outcome.failure {
                        if sums.failures.len() < FAILURES_MAX {
                            bar.suspend(|| println!("seed {seed}: {failure}"));
                        }
                        sums.failures.insert(seed, failure);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let sums = sums.into_inner().expect("all threads have ended");
    let seconds = begin.elapsed().as_secs_f64();
    for (what, count) in &sums.coverage {
        println!("{count:>12} {what}");
    }
    let days = sums.virtual_ns as f64 / 86_400e9;
    println!(
        "{} seeds from {} in {seconds:.1} s: {:.0} a second, {} events, {days:.1} days of virtual time, {} failed",
        arguments.seeds,
        arguments.from,
        arguments.seeds as f64 / seconds,
        sums.events,
        sums.failures.len()
    );
    if !sums.failures.is_empty() {
        let seeds: Vec<String> = sums.failures.keys().map(u64::to_string).collect();
        println!("failed: {}", seeds.join(" "));
    }
    if sums.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Finds the first seed that detects each planted bug.
fn find_planted(bugs: &[(Bug, &'static str)], arguments: &Arguments) -> ExitCode {
    let mut missed = 0;
    println!("| planted | what | found by seed | what was seen |\n|---|---|---|---|");
    for (bug, what) in bugs {
        let options = Options { bug: Some(*bug), trace: false };
        let seeds = arguments.from..arguments.from + arguments.seeds;
        // A seed that fails without the mistake, too, proves nothing.
        let sound = |seed| run_caught(seed, Options::default()).failure.is_none();
        let bar = bar(arguments.seeds, &format!("{bug:?}"));
        let failing = |seed| {
            bar.inc(1);
            Some((seed, run_caught(seed, options).failure?))
        };
        let found = seeds.into_iter().filter_map(failing).find(|(seed, _)| sound(*seed));
        bar.finish_and_clear();
        match found {
            Some((seed, failure)) => {
                let short: String = failure.chars().take(90).collect();
                println!("| {bug:?} | {what} | {seed} | {} |", short.replace('|', "/"));
            }
            None => {
                missed += 1;
                println!("| {bug:?} | {what} | none of {} | |", arguments.seeds);
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let run = || -> Result<ExitCode, String> {
        let arguments = arguments()?;
        let planted = arguments.planted.as_deref().map(bugs).transpose()?;
        Ok(match (arguments.seed, planted) {
            (Some(seed), planted) => {
                let bug = planted.and_then(|bugs| Some(bugs.first()?.0));
                replay(seed, Options { bug, trace: true })
            }
            (None, Some(bugs)) => find_planted(&bugs, &arguments),
            (None, None) => campaign(&arguments),
        })
    };
    run().unwrap_or_else(|text| {
        eprintln!("{text}");
        ExitCode::FAILURE
    })
}
