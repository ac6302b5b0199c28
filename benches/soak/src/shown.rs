//! Checks that both nodes show the same, and every acknowledged push.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pushrelay_testkit::http::request;

use crate::load::Load;
use crate::node::Site;

/// Waits until the hub shows the same as the edge, and both show every acknowledged push; returns the number of
/// series.
pub fn converge(site: &Site, load: &Load, patience: Duration) -> Result<usize, String> {
    let started = Instant::now();
    loop {
        let outcome = compare(site, load);
        if outcome.is_ok() || started.elapsed() > patience {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn compare(site: &Site, load: &Load) -> Result<usize, String> {
    let edge = series(site.edge.web, "")?;
    let hub = series(site.hub.web, "IDC=\"SOAK\",")?;
    if let Some(line) = edge.symmetric_difference(&hub).next() {
        let whose = if edge.contains(line) { "edge" } else { "hub" };
        return Err(format!("only the {whose} shows {line}"));
    }
    let expected: BTreeSet<String> = load
        .expected
        .iter()
        .map(|(group, sequence)| format!("soak_sequence{{group=\"{group}\",instance=\"\",job=\"soak\"}} {sequence}"))
        .collect();
    let shown: BTreeSet<String> = edge.iter().filter(|line| line.starts_with("soak_sequence{")).cloned().collect();
    match expected.symmetric_difference(&shown).next() {
        None => Ok(edge.len()),
        Some(line) if shown.contains(line) => Err(format!("{line} is shown, but was replaced or deleted")),
        Some(line) => Err(format!("{line} was acknowledged, but is not shown")),
    }
}

/// The lines of the pushed series, without the label that the hub adds.
fn series(server: SocketAddr, label: &str) -> Result<BTreeSet<String>, String> {
    let reply = request(server, "GET", "/metrics", &[], b"").map_err(|error| format!("scrape: {error}"))?;
    if reply.status != 200 {
        return Err(format!("a scrape is answered {}", reply.status));
    }
    let page = String::from_utf8(reply.body).map_err(|error| error.to_string())?;
    let pushed = |line: &&str| line.starts_with("soak_") || line.starts_with("push_");
    let mut lines = BTreeSet::new();
    for line in page.lines().filter(pushed) {
        let bare = line.replacen(label, "", 1);
        if !label.is_empty() && bare == line {
            return Err(format!("{line} lacks {label}"));
        }
        // Values are compared as numbers: the nodes print all numbers alike, but this program does not.
        let (series, value) = bare.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
        let value: f64 = value.parse().map_err(|_| format!("not a number: {line}"))?;
        lines.insert(format!("{series} {value}"));
    }
    Ok(lines)
}
