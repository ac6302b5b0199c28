//! The documents, checked: links and paths exist, tests that are named exist, the README stays short, and the commands of the
//! tutorial print what it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
fn every_page_can_be_reached_from_the_start_page() {
    let docs = root().join("docs");
    let start = docs.join("README.md");
    let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(page) = open.pop() {
        if !reached.insert(page.canonicalize().unwrap()) {
            continue;
        }
        for target in links(&fs::read_to_string(&page).unwrap()) {
            let path = page.parent().unwrap().join(target.split('#').next().unwrap());
            if path.extension().is_some_and(|extension| extension == "md") && path.exists() {
                open.push(path);
            }
        }
    }
    let pages = files(&docs, "md");
    let lost: Vec<_> = pages.iter().filter(|page| !reached.contains(&page.canonicalize().unwrap())).collect();
    assert!(lost.is_empty(), "no link from docs/README.md leads to {lost:?}");
}

/// Pages that tell of the past: what they name may have gone.
const DATED: &[&str] = &["docs/adr", "docs/lab"];

#[test]
fn every_path_that_is_named_exists() {
    let folders =
        ["src", "tests", "docs", "config", "scripts", "benches", "fuzz", "examples", "monitoring", "packaging"];
    let modules: Vec<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.contains('.'))
        .collect();
    let (mut seen, mut missing) = (0, Vec::new());
    for page in files(root(), "md") {
        let name = page.strip_prefix(root()).unwrap();
        if DATED.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        for span in prose(&fs::read_to_string(&page).unwrap()).split('`').skip(1).step_by(2) {
            let first = span.split('/').next().unwrap();
            let is_path = span.contains('/') && span.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
            let path = match first {
                _ if !is_path => continue,
                _ if folders.contains(&first) => root().join(span),
                // A file of the source may be named from there.
                _ if modules.iter().any(|module| module == first) && span.ends_with(".rs") => {
                    root().join("src").join(span)
                }
                _ => continue,
            };
            seen += 1;
            if !path.exists() {
                missing.push(format!("{}: {span}", name.display()));
            }
        }
    }
    assert!(seen >= 30, "only {seen} paths seen");
    assert!(missing.is_empty(), "paths that do not exist:\n{}", missing.join("\n"));
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

/// The blocks of a page in that language, in order.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let begin = format!("```{language}\n");
    page.split(&*begin).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// A command of a console block with the lines that it prints.
fn commands(block: &str) -> Vec<(&str, String)> {
    let mut commands: Vec<(&str, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, String::new())),
            (None, Some((_, printed))) => *printed += &format!("{line}\n"),
            (None, None) => panic!("{line:?} comes before any command"),
        }
    }
    commands
}

#[test]
fn the_tutorial_prints_what_it_says() {
    let page = fs::read_to_string(root().join("docs/tutorial/first-deployment.md")).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tutorial-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (name, block) in ["hub.toml", "edge.toml"].iter().zip(blocks(&page, "toml")) {
        fs::write(folder.join(name), block).unwrap();
    }
    let mut run = Vec::new();
    for (command, expected) in blocks(&page, "console").into_iter().flat_map(commands) {
        let Some(arguments) = command.strip_prefix("pushrelay ") else { continue };
        if !["pki", "check-config"].iter().any(|name| arguments.starts_with(name)) {
            continue;
        }
        let mut process = Command::new(env!("CARGO_BIN_EXE_pushrelay"));
        let output = process.args(arguments.split(' ')).current_dir(&folder).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(printed, expected, "{command}");
        for file in fs::read_dir(folder.join("certs")).unwrap() {
            // The tutorial copies them to each node.
            let file = file.unwrap();
            if file.path().is_file() {
                fs::copy(file.path(), folder.join(file.file_name())).unwrap();
            }
        }
        run.push(command);
    }
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(run.len(), 5, "{run:?}");
}

#[test]
fn headings_get_githubs_anchors() {
    let page = "# A title\n```\n# no heading [x](y)\n```\n## [web.tls] and passwords\n[link](../a.md#b) [other](#c)\n";
    assert_eq!(anchors(page), ["a-title", "webtls-and-passwords"].map(String::from).into());
    assert_eq!(links(page), ["../a.md#b", "#c"]);
}
