//! The rules of `config/alerts.yml`, tried with Prometheus's own tool.

use std::process::Command;

use pushrelay_testkit::folder::project;
use pushrelay_testkit::{Folder, skip};

use crate::prometheus::prometheus;

#[test]
fn the_alerts_fire_when_they_should() {
    let promtool = match prometheus() {
        Ok(binary) => binary.with_file_name("promtool"),
        Err(reason) => return skip(&reason),
    };
    if !promtool.is_file() {
        return skip(&format!("the alerts are not tried: no promtool beside {}", promtool.display()));
    }
    let folder = Folder::new();
    std::fs::copy(project().join("config/alerts.yml"), folder.path().join("alerts.yml")).unwrap();
    std::fs::copy(project().join("tests/system/alerts.yml"), folder.path().join("cases.yml")).unwrap();
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "cases.yml"]] {
        let output = Command::new(&promtool).args(arguments).current_dir(folder.path()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}\n{said}", output.status);
    }
}

#[test]
fn every_alert_has_a_case_and_is_documented() {
    let read = |path: &str| std::fs::read_to_string(project().join(path)).unwrap();
    let (rules, cases, page) =
        (read("config/alerts.yml"), read("tests/system/alerts.yml"), read("docs/how-to/alert.md"));
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 8, "only {names:?} seen");
    for name in names {
        let fires = cases
            .split(&format!("alertname: {name}\n"))
            .skip(1)
            .any(|rest| rest.trim_start().starts_with("exp_alerts:"));
        assert!(fires, "no case in which {name} fires");
        assert!(page.contains(&format!("| `{name}` |")), "the page does not list {name}");
    }
    // The page explains these two: it must quote them as they are.
    for block in page.split("```promql").skip(1) {
        let expression = block.split("```").next().unwrap().trim();
        assert!(rules.contains(&format!("expr: {expression}\n")), "not in the rules: {expression}");
    }
}
