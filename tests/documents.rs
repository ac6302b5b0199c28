//! The documents, checked: links lead somewhere, tests that are named exist, the README stays short.

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

/// A page's text without its code blocks.
fn prose(page: &str) -> String {
    let mut in_code = false;
    let mut lines = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines += line;
            lines.push('\n');
        }
    }
    lines
}

/// The targets of a page's links, `[text](target)`.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    headings.map(anchor).collect()
}

/// Why a link of the page at `from` leads nowhere, if it does.
fn broken(from: &Path, target: &str) -> Option<String> {
    let is_elsewhere = ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme));
    if is_elsewhere {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() { from.to_owned() } else { from.parent().unwrap().join(path) };
    if !file.exists() {
        return Some("there is no such file".into());
    }
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    let found = anchor.is_empty() || !is_page || anchors(&fs::read_to_string(&file).unwrap()).contains(anchor);
    (!found).then(|| format!("{} has no such heading", file.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let pages = files(root(), "md");
    let (mut found, mut seen) = (Vec::new(), 0);
    for page in &pages {
        for target in links(&fs::read_to_string(page).unwrap()) {
            seen += 1;
            if let Some(why) = broken(page, &target) {
                found.push(format!("{}: {target}: {why}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(pages.len() >= 10 && seen >= 50, "only {seen} links in {} pages seen", pages.len());
    assert!(found.is_empty(), "broken links:\n{}", found.join("\n"));
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

#[test]
fn headings_get_githubs_anchors() {
    let page = "# A title\n```\n# no heading [x](y)\n```\n## [web.tls] and passwords\n[link](../a.md#b) [other](#c)\n";
    assert_eq!(anchors(page), ["a-title", "webtls-and-passwords"].map(String::from).into());
    assert_eq!(links(page), ["../a.md#b", "#c"]);
}
