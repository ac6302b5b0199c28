//! The documents, checked: tests that are named exist, the README stays short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The README fits two screens.
const README_LINES_MAX: usize = 90;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` with that extension; build output and the fuzzer's corpus are no part of the project's text.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && !["target", "corpus"].contains(&name) {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, {README_LINES_MAX} are enough");
}

/// The names of all test functions, those of properties included.
fn tests() -> BTreeSet<String> {
    let sources = ["src", "tests"].map(|folder| files(&root().join(folder), "rs")).concat();
    let mut names = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
                names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn each_defence_of_the_threat_model_has_its_test() {
    let page = fs::read_to_string(root().join("docs/explanation/threat-model.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| test |"));
    let (known, mut seen) = (tests(), 0);
    for row in rows {
        let cell = row.trim_end_matches(['|', ' ']).rsplit_once('|').unwrap().1;
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test named: {row}");
        for name in named {
            assert!(known.contains(name), "there is no test {name:?}, which the threat model names");
            seen += 1;
        }
    }
    assert!(seen >= 50, "only {seen} tests seen in the threat model");
}
