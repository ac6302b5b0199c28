//! The rules and dashboards of `monitoring/`: the rules tried with Prometheus's own tool, and all that they name compared
//! with the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use pushrelay_testkit::folder::project;
use pushrelay_testkit::{Folder, skip};
use serde_json::Value;

use crate::prometheus::prometheus;

fn read(path: &str) -> String {
    std::fs::read_to_string(project().join(path)).unwrap()
}

fn promtool() -> Result<PathBuf, String> {
    let binary = prometheus()?.with_file_name("promtool");
    if binary.is_file() { Ok(binary) } else { Err(format!("no promtool at {}", binary.display())) }
}

/// The dashboards, each with the expressions of its panels.
fn dashboards() -> Vec<(PathBuf, Vec<String>)> {
    let files = std::fs::read_dir(project().join("monitoring/dashboards")).unwrap().map(|file| file.unwrap().path());
    let expressions = |path: &PathBuf| {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let panels = json["panels"].as_array().unwrap().iter();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap().clone());
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
    };
    files.map(|path| (path.clone(), expressions(&path))).collect()
}

/// The expressions of a file of rules.
fn expressions(rules: &str) -> Vec<String> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect()
}

#[test]
fn the_alerts_fire_when_they_should() {
    let promtool = match promtool() {
        Ok(binary) => binary,
        Err(reason) => return skip(&format!("the alerts are not tried: {reason}")),
    };
    let run = |arguments: &[&str], folder: PathBuf| {
        let output = Command::new(&promtool).args(arguments).current_dir(folder).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}\n{said}", output.status);
    };
    let monitoring = project().join("monitoring");
    run(&["check", "rules", "alerts.yml", "rules.yml"], monitoring.clone());
    run(&["test", "rules", "tests.yml"], monitoring);
    let mut all = "groups:\n- name: dashboards\n  rules:\n".to_owned();
    for (at, expression) in dashboards().into_iter().flat_map(|(_, expressions)| expressions).enumerate() {
        all += &format!("  - record: panel:{at}\n    expr: {}\n", serde_json::to_string(&expression).unwrap());
    }
    let folder = Folder::new();
    std::fs::write(folder.path().join("dashboards.yml"), all).unwrap();
    run(&["check", "rules", "dashboards.yml"], folder.path().to_owned());
}

#[test]
fn every_alert_fires_in_one_case_and_not_in_another_and_leads_to_its_page() {
    let (rules, cases, page) =
        (read("monitoring/alerts.yml"), read("monitoring/tests.yml"), read("docs/how-to/alert.md"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 11, "only {} alerts seen", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        let case = format!("alertname: {name}\n");
        let fires = cases.split(&case).skip(1).any(|rest| rest.trim_start().starts_with("exp_alerts:"));
        assert!(fires, "no case in which {name} fires");
        // A case has a moment without the alert, or series that do not fire beside one that does.
        let is_silent = cases.contains(&format!("alertname: {name}}}"));
        let of_some = ["PushrelaySiteWithoutEdge", "PushrelayCertificateExpires", "PushStale"].contains(&name);
        assert!(is_silent || of_some, "no case in which {name} does not fire");
        assert!(page.contains(&format!("| `{name}` |")), "the page does not list {name}");
        let (_, link) = alert.split_once("runbook_url: ").unwrap_or_else(|| panic!("{name} leads to no page"));
        let (path, anchor) = link.lines().next().unwrap().split_once('#').unwrap_or((link.lines().next().unwrap(), ""));
        let headings =
            read(path).lines().filter_map(|line| line.strip_prefix('#')).map(anchor_of).collect::<BTreeSet<_>>();
        assert!(anchor.is_empty() || headings.contains(anchor), "{name}: {path} has no heading {anchor}");
        assert!(alert.contains("severity: "), "{name} has no severity");
    }
    // The page explains these two: it must quote them as they are.
    for block in page.split("```promql").skip(1) {
        let expression = block.split("```").next().unwrap().trim();
        assert!(rules.contains(&format!("expr: {expression}\n")), "not in the rules: {expression}");
    }
}

fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The documented metrics, each with its labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    for row in read("docs/reference/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let Some(name) = names(cells[0]).first().cloned() else { continue };
        metrics.insert(name, names(cells.get(2).copied().unwrap_or_default()).into_iter().collect());
    }
    let jobs = read("docs/how-to/wrap-a-job.md");
    for name in jobs.split('`').filter(|span| span.starts_with("job_last_")) {
        metrics.insert(name.split('{').next().unwrap().to_owned(), BTreeSet::new());
    }
    for line in read("monitoring/rules.yml").lines() {
        metrics.extend(line.trim().strip_prefix("- record: ").map(|name| (name.to_owned(), BTreeSet::new())));
    }
    metrics
}

/// The names of metrics in an expression, each with the labels of its matchers.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let (mut rest, mut before) = (expression, ' ');
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        before = rest[..at].chars().last().unwrap_or(before);
        let token = &rest[at..];
        let end = token.find(|c: char| !is_name(c)).unwrap_or(token.len());
        let (name, after) = token.split_at(end);
        rest = after;
        let is_metric = ["push", "process_", "job_", "IDC:"].iter().any(|begin| name.starts_with(begin));
        if !is_metric || before == '"' {
            before = name.chars().last().unwrap_or(' ');
            continue;
        }
        let matchers = after.strip_prefix('{').and_then(|after| after.split('}').next()).unwrap_or_default();
        rest = &after[if matchers.is_empty() { 0 } else { matchers.len() + 2 }..];
        let labels = matchers.split(',').filter(|matcher| !matcher.is_empty());
        found.push((name.to_owned(), labels.map(|label| label.split(['=', '!']).next().unwrap().to_owned()).collect()));
    }
    found
}

#[test]
fn every_metric_and_label_that_the_rules_and_dashboards_name_is_documented() {
    let metrics = documented();
    assert!(metrics.len() > 80, "only {} metrics seen", metrics.len());
    let rules = ["monitoring/alerts.yml", "monitoring/rules.yml"].map(|path| expressions(&read(path))).concat();
    let panels: Vec<String> = dashboards().into_iter().flat_map(|(_, expressions)| expressions).collect();
    assert!(rules.len() >= 16 && panels.len() >= 45, "only {} and {} expressions seen", rules.len(), panels.len());
    // Labels of every group and of every target.
    let everywhere = ["IDC", "job", "instance"];
    let mut seen = 0;
    for expression in rules.iter().chain(&panels) {
        let names = named(expression);
        assert!(!names.is_empty(), "no metric seen in {expression}");
        for (name, labels) in names {
            let known = metrics.get(&name).unwrap_or_else(|| panic!("{name} is not documented: {expression}"));
            for label in labels {
                let is_known = known.contains(&label) || everywhere.contains(&&*label) || label == "quantile";
                assert!(is_known, "{name} has no label {label}: {expression}");
            }
            seen += 1;
        }
    }
    assert!(seen > 70, "only {seen} names seen");
}

#[test]
fn the_dashboards_are_those_that_the_script_renders() {
    let folder = Folder::new();
    let script = project().join("scripts/render-dashboards");
    match Command::new(&script).arg(folder.path()).output() {
        Ok(output) if output.status.code() == Some(127) => return skip("the dashboards are not rendered: no python3"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return skip(&format!("the dashboards are not rendered: {error}")),
    }
    let rendered = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let mut seen = 0;
    for file in rendered {
        let committed = project().join("monitoring/dashboards").join(file.file_name().unwrap());
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            std::fs::read_to_string(&committed).unwrap(),
            "{committed:?}"
        );
        seen += 1;
    }
    assert_eq!(seen, dashboards().len(), "rendered (left) and committed (right)");
}
