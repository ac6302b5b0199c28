//! Runs the fuzz targets (`fuzz/`) as tests: over the committed corpora, over inputs derived from them, and over random
//! bytes. A finding of the fuzzer becomes a file of the corpus, and so a case of this test.

mod seeds;

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use pushrelay_testkit::targets;

/// A lower count means that the files were not found.
const INPUTS_MIN: usize = 10;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(folder(target)).unwrap() {
        let path = entry.unwrap().path();
        inputs.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    inputs.sort();
    assert!(inputs.len() >= INPUTS_MIN, "{target}: only {} inputs", inputs.len());
    inputs
}

/// Runs the whole corpus of a target, then its inputs cut, changed and joined, then random bytes.
fn cursors(target: &str) {
    let (_, run) = targets::TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let inputs = corpus(target);
    for (name, input) in &inputs {
        eprintln!("{name}");
        run(input);
    }
    let input = || proptest::sample::select(inputs.clone()).prop_map(|(_, input)| input);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let made = (input(), input(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), changes).prop_map(
        |(mut first, second, end, start, changes)| {
            first.truncate(end.index(first.len() + 1));
            first.extend_from_slice(&second[start.index(second.len() + 1)..]);
            for (at, byte) in changes {
                let len = first.len();
                first.get_mut(at.index(len.max(1))).into_iter().for_each(|b| *b = byte);
            }
            first
        },
    );
    let any = prop_oneof![3 => made, 1 => proptest::collection::vec(any::<u8>(), 0..300)];
    // A larger number makes a long run, on a machine without libFuzzer.
    let cases = std::env::var("PUSHRELAY_CORPORA_CASES").map_or(200, |text| text.parse().expect("a number of cases"));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&any, |input| {
            run(&input);
            Ok(())
        })
        .unwrap();
}

macro_rules! targets {
    ($($target:ident),*) => {
        $(#[test]
        fn $target() {
            cursors(stringify!($target));
        })*

        #[test]
        fn every_target_is_run_here() {
            let run = [$(stringify!($target)),*];
            let known = targets::TARGETS.map(|(name, _)| name);
            assert_eq!(run, known);
            for name in known {
                let file = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
                assert!(std::path::Path::new(&file).is_file(), "{file} is missing");
            }
        }
    };
}

targets!(compression, config, conversation, names, openmetrics, path, protobuf, store, text, wire);
