//! Conformance with Pushgateway: every case is recorded from a real one, and an edge and a hub must give the same
//! answers.
//!
//! To record again, from the binary on the path or another one, or (suites without flags) from any server that runs
//! with `--web.enable-admin-api`:
//!
//! ```text
//! PUSHGATEWAY_BIN=/path/to/pushgateway cargo test --test conformance -- --ignored record_pushgateway
//! PUSHGATEWAY=127.0.0.1:9091           cargo test --test conformance -- --ignored record_pushgateway
//! ```
//!
//! `differences.toml` lists the cases in which pushrelay differs on purpose, with the reason. `cargo test --test
//! conformance -- --ignored record_the_differences` records pushrelay's answers in these cases.

mod case;
mod differences;
mod metrics;
mod outcome;
mod proxies;
mod random;
mod random_text;
mod recording;
mod servers;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use case::{Case, Suite, suites};
use differences::differences;
use outcome::Server;
use pushrelay_testkit::node::Role;
use pushrelay_testkit::skip;
use recording::{Recorded, Recording};
use serde_json::Value;
use servers::{Ours, Theirs, pushgateway};

/// A random sequence by its seed.
type Generator = fn(u64) -> Case;

/// The suites of random sequences, with their generators; the number of seeds that are recorded for each, and the
/// number that run if a Pushgateway is installed.
const RANDOM: [(&str, Generator); 2] = [("random", random::case), ("random-text", random_text::case)];
const SEEDS_RECORDED: u64 = 100;
const SEEDS_LIVE: u64 = 300;

/// The recording of pushrelay's answers in the cases that differ.
const OURS: &str = "ours";

/// All cases, random ones included, by suite.
fn all_suites() -> Vec<Suite> {
    let random = RANDOM.map(|(name, generator)| {
        let cases = (0..SEEDS_RECORDED).map(|seed| (format!("seed {seed:03}"), generator(seed))).collect();
        let (flags, prefix, telemetry_path) = (Vec::new(), String::new(), "/metrics".to_owned());
        Suite { name: name.to_owned(), flags, prefix, telemetry_path, cases }
    });
    suites().into_iter().chain(random).collect()
}

/// The cases with a known difference.
fn differing() -> BTreeSet<String> {
    differences().into_iter().flat_map(|difference| difference.cases).collect()
}

/// Runs a suite and lists the cases whose outcome differs from the recording.
fn replay(server: &Server, suite: &Suite, differing: &BTreeSet<String>) -> Vec<String> {
    let (theirs, ours) = (Recording::read(&suite.name), Recording::read(OURS));
    let mut failures = Vec::new();
    for (name, case) in &suite.cases {
        let id = format!("{}/{name}", suite.name);
        let recorded = if differing.contains(&id) { ours.cases.get(&id) } else { theirs.cases.get(name) };
        let outcome = server.run(case);
        // If pushrelay differs on purpose, the text page must at least be valid; otherwise the outcome must be the
        // same.
        let mut found = if differing.contains(&id) { repeated_series(&outcome) } else { Vec::new() };
        match recorded {
            Some(recorded) => found.extend(recorded.differences(case, &outcome)),
            None => found.push("not recorded".to_owned()),
        }
        failures.extend((!found.is_empty()).then(|| format!("{id}\n    {}", found.join("\n    "))));
    }
    failures
}

/// The series that the text page shows more than once.
fn repeated_series(outcome: &Value) -> Vec<String> {
    let lines = outcome["text"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let series = lines.filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.rsplit_once(' ')?.0));
    let mut seen = BTreeSet::new();
    series.filter(|series| !seen.insert(*series)).map(|series| format!("a series twice: {series}")).collect()
}

/// Whether a push was refused for a known difference: see "A bucket or quantile twice".
fn repeats_a_sample(outcome: &Value) -> bool {
    let messages = outcome["steps"].as_array().into_iter().flatten().filter_map(|step| step["message"].as_str());
    let is_sample = |message: &str| message.contains("_bucket\" {") || message.contains("quantile=\"");
    messages.filter(|message| message.contains("was collected before")).any(is_sample)
}

fn replay_on(role: Role) {
    let differing = differing();
    let (mut failures, mut count) = (Vec::new(), 0);
    for suite in all_suites() {
        let node = Ours::start(role, &suite);
        count += suite.cases.len();
        failures.extend(replay(&node.server(&suite), &suite, &differing));
    }
    assert!(failures.is_empty(), "{} of {count} cases differ:\n{}", failures.len(), failures.join("\n"));
}

/// Reports that a comparison with a live Pushgateway is skipped. It is no failure, because Debian's stable releases
/// have older versions only.
fn skip_without_pushgateway(what: &str, reason: &str) {
    skip::report(&format!("{what}: {reason}"));
}

#[test]
fn an_edge_answers_as_recorded() {
    replay_on(Role::Edge);
}

#[test]
fn a_hub_answers_as_recorded() {
    replay_on(Role::Hub);
}

#[test]
fn random_requests_are_answered_as_by_pushgateway() {
    let binary = match pushgateway() {
        Ok(binary) => binary,
        Err(reason) => {
            return skip_without_pushgateway("random requests are compared with recorded answers only", &reason);
        }
    };
    let suite = all_suites().pop().unwrap();
    let theirs = Theirs::start(&binary, &suite).unwrap();
    let ours = Ours::start(Role::Edge, &suite);
    let seeds = std::env::var("SEEDS").map_or(SEEDS_LIVE, |seeds| seeds.parse().expect("SEEDS is a number"));
    let mut failures = Vec::new();
    let seeded = (SEEDS_RECORDED..SEEDS_RECORDED + seeds).flat_map(|seed| RANDOM.map(|random| (seed, random)));
    for (seed, (name, generator)) in seeded {
        let case = generator(seed);
        let expected = theirs.server(&suite).run(&case);
        // A dropped connection is a known difference: see "Text that makes Pushgateway drop the connection".
        if expected["steps"].as_array().unwrap().iter().any(|step| step["status"] == 0) {
            continue;
        }
        let outcome = ours.server(&suite).run(&case);
        if repeats_a_sample(&outcome) {
            continue;
        }
        let found = Recorded::new(&case, expected).differences(&case, &outcome);
        let found = (!found.is_empty()).then(|| found.join("\n    "));
        failures.extend(found.map(|found| format!("{name} seed {seed}: {case:?}\n    {found}")));
    }
    assert!(failures.is_empty(), "{} of {seeds} seeds' sequences differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn pushgateway_still_answers_as_recorded() {
    let binary = match pushgateway() {
        Ok(binary) => binary,
        Err(reason) => return skip_without_pushgateway("the recordings are not checked against their origin", &reason),
    };
    let differing = differing();
    let mut failures = Vec::new();
    for mut suite in all_suites() {
        // In some of these cases Pushgateway's answer is random.
        suite.cases.retain(|name, _| !differing.contains(&format!("{}/{name}", suite.name)));
        let Some(theirs) = Theirs::start(&binary, &suite) else { continue };
        failures.extend(replay(&theirs.server(&suite), &suite, &differing));
    }
    assert!(failures.is_empty(), "{} cases differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn cases_and_recordings_belong_together() {
    let suites = all_suites();
    let mut count = 0;
    for suite in &suites {
        let recorded: BTreeSet<String> = Recording::read(&suite.name).cases.into_keys().collect();
        let cases: BTreeSet<String> = suite.cases.keys().cloned().collect();
        assert_eq!(cases, recorded, "cases (left) and recordings (right) of {}", suite.name);
        count += if RANDOM.iter().any(|(name, _)| *name == suite.name) { 0 } else { cases.len() };
    }
    assert!(count >= 400, "only {count} cases seen");
    let known = |id: &String| {
        suites.iter().any(|s| id.strip_prefix(&format!("{}/", s.name)).is_some_and(|c| s.cases.contains_key(c)))
    };
    let unknown: Vec<String> = differing().into_iter().filter(|id| !known(id)).collect();
    assert!(unknown.is_empty(), "differences of cases that do not exist: {unknown:?}");
}

#[test]
fn the_documentation_lists_every_difference() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/pushgateway-compatibility.md");
    let page = std::fs::read_to_string(file).unwrap();
    // The page is wrapped, so white space is normalized.
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for difference in differences() {
        let heading = format!("### {}", difference.title);
        assert!(page.contains(&heading), "not in {file}: {heading}");
        for text in [&difference.pushgateway, &difference.ours, &difference.reason] {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(page.contains(&text), "not in {file}, under {:?}: {text}", difference.title);
        }
    }
}

#[test]
#[ignore = "writes the recordings, from a Pushgateway"]
fn record_pushgateway() {
    let binary = pushgateway().unwrap_or_else(|reason| panic!("{reason}"));
    let differing = differing();
    let mut unsteady = Vec::new();
    for suite in all_suites() {
        let Some(theirs) = Theirs::start(&binary, &suite) else {
            println!("left out, for it needs {:?}: {}", suite.flags, suite.name);
            continue;
        };
        let server = theirs.server(&suite);
        let mut recording = Recording { recorded_from: server.version(), ..Recording::default() };
        for (name, case) in &suite.cases {
            let recorded = Recorded::new(case, server.run(case));
            let again = recorded.differences(case, &server.run(case));
            if !again.is_empty() && !differing.contains(&format!("{}/{name}", suite.name)) {
                unsteady.push(format!("{}/{name}\n    {}", suite.name, again.join("\n    ")));
            }
            recording.cases.insert(name.clone(), recorded);
        }
        recording.write(&suite.name);
    }
    assert!(unsteady.is_empty(), "not the same twice:\n{}", unsteady.join("\n"));
}

#[test]
#[ignore = "writes what pushrelay does where it differs"]
fn record_the_differences() {
    let differing = differing();
    let mut recording = Recording { recorded_from: "pushrelay".to_owned(), cases: BTreeMap::new() };
    for suite in all_suites() {
        let id = |name: &String| format!("{}/{name}", suite.name);
        let cases: Vec<(&String, &Case)> =
            suite.cases.iter().filter(|(name, _)| differing.contains(&id(name))).collect();
        if cases.is_empty() {
            continue;
        }
        let node = Ours::start(Role::Edge, &suite);
        for (name, case) in cases {
            recording.cases.insert(id(name), Recorded::new(case, node.server(&suite).run(case)));
        }
    }
    recording.write(OURS);
}
