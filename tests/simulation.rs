//! Some dozen seeds of the simulation (`docs/contributing/testing.md`); `cargo run --release --example simulate` runs
//! any number.

use pushrelay_testkit::simulation::{Bug, Options, run};

/// Seeds that every run of the tests makes; `PUSHRELAY_SEEDS` asks for more.
const SEEDS: u64 = 40;
/// Threads that make them.
const THREADS: u64 = 2;
/// Seeds that found a bug once: `docs/lab/2026-11-29-simulation-findings.md`.
const FOUND: [u64; 21] = [
    76, 132, 207, 1_029, 1_577, 2_099, 2_121, 2_222, 3_641, 7_385, 9_675, 9_698, 10_154, 13_738, 15_594, 17_124,
    18_413, 25_781, 43_161, 64_547, 84_448,
];
/// Planted mistakes, each with a seed that finds it. The table of `docs/contributing/testing.md` has all of them.
const PLANTED: [(Bug, u64); 25] = [
    (Bug::RetentionIgnored, 1),
    (Bug::WallClockStamps, 0),
    (Bug::DictionaryKept, 1),
    (Bug::ResyncWithoutTombstones, 6),
    (Bug::ConflictRefusesUpdate, 1),
    (Bug::TombstoneDroppedEarly, 4),
    (Bug::AnswerBeforeSync, 8),
    (Bug::CursorApart, 42),
    (Bug::FailureIgnored, 8),
    (Bug::AckBeforeSync, 21),
    (Bug::StalePosition, 11),
    (Bug::HealthLeftOut, 0),
    (Bug::ExpiryStampedLate, 3),
    (Bug::RefusedPushProlongs, 18),
    (Bug::ContributionMixed, 2),
    (Bug::ContributionReused, 121),
    (Bug::ContributionAddedAgain, 44),
    (Bug::KeyForgotten, 99),
    (Bug::DeleteSparesContributions, 2),
    (Bug::BirthsNotMoved, 59),
    (Bug::AckReportedEarly, 44),
    (Bug::HalfResyncCounts, 71),
    (Bug::WatermarkHidden, 96),
    (Bug::LostWakeUp, 178),
    (Bug::ReplacedWithoutWaiting, 13),
];

fn check(seed: u64) {
    let outcome = run(seed, Options::default());
    if let Some(failure) = outcome.failure {
        let traced = run(seed, Options { trace: true, ..Options::default() });
        let tail = traced.trace.len().saturating_sub(60);
        panic!(
            "seed {seed}: {failure}\n…\n{}\nall of it: cargo run --release --example simulate -- --seed {seed}",
            traced.trace[tail..].join("\n")
        );
    }
}

#[test]
fn all_nodes_converge_and_nothing_acknowledged_is_lost() {
    let asked = std::env::var("PUSHRELAY_SEEDS").map(|seeds| seeds.parse().expect("PUSHRELAY_SEEDS is a number"));
    let seeds = asked.unwrap_or(SEEDS);
    FOUND.into_iter().for_each(check);
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || (first..seeds).step_by(THREADS as usize).for_each(check));
        }
    });
}

#[test]
fn a_seed_determines_the_run() {
    for seed in 0..3 {
        let [a, b] = [run(seed, Options::default()), run(seed, Options::default())];
        assert_eq!((a.digest, a.events), (b.digest, b.events), "seed {seed}");
    }
}

/// Planted mistakes are found: first by the seed that found each when the table of `docs/contributing/testing.md` was
/// made, then by some more.
#[test]
fn planted_mistakes_are_found() {
    for (bug, first) in PLANTED {
        let (_, what) = Bug::ALL.iter().find(|(of, _)| *of == bug).expect("all are listed");
        let options = Options { bug: Some(bug), ..Options::default() };
        let seeds = std::iter::once(first).chain(0..SEEDS);
        let found = seeds.into_iter().any(|seed| run(seed, options).failure.is_some());
        assert!(found, "neither seed {first} nor one below {SEEDS} finds that {what}");
    }
}
