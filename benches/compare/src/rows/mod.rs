//! The rows of the tables, and the stages that measure them.
//!
//! A stage brings one deployment into one state and measures all rows that need that state.

mod fault;
mod fleet;
mod hold;
mod link;
mod push;
mod remote_write;
mod wire;

use std::time::Duration;

use crate::Result;
use crate::bench::{Bench, Turn};
use crate::deployment::Kind;

/// A row of the tables.
pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    /// The goal for pushrelay.
    pub goal: &'static str,
}

const fn row(name: &'static str, title: &'static str, goal: &'static str) -> Row {
    Row { name, title, goal }
}

/// All rows, in the order of the report.
pub const ROWS: &[Row] = &[
    row(
        "push3",
        "push 3 series; the processor time is that of the process that is pushed to",
        "32 connections ≤ 28 µs, p99 ≤ 4 ms (in memory ≤ 18 µs); one: p50 ≤ 0.30 ms; a new one each push ≤ 61 µs",
    ),
    row("add3", "push 3 series that add, 32 connections, beside a push that replaces", "≤ 1.3 × the replacing one"),
    row("push3-held", "the same with groups held", "≤ 28 µs; flat within 10 %"),
    row("push100", "push 100 series, 39 of them of histograms, 32 connections", "≤ 52 µs, also with 1 M series held"),
    row("push10k", "push 10,000 series into one group", "≤ 2.8 ms"),
    row("push3-million", "push 3 series with 1 M series held", "≤ 1.3 × the cost on an empty store"),
    row(
        "scrape",
        "scrape of 1 M series: 100 groups of 10,000",
        "identity ≤ 120 ms; gzip ≤ 450 ms when all changed, ≤ 40 ms when under 1 % did, body ≤ 2 × Pushgateway's",
    ),
    row(
        "scrape-ten",
        "scrape of 10 series × 10,000 groups, gzip",
        "≤ 75 ms when all changed; ≤ 4 ms when under 1 % did",
    ),
    row("memory", "resident memory with 1 M series after a scrape", "≤ 140 MB"),
    row("prometheus", "a real Prometheus scraping 1 M series", "inside its 10 s timeout, the hub's share ≤ 3 %"),
    row(
        "push-scraped",
        "push 3 series, 200 a second, while 1 M series are scraped back to back from the same process",
        "p99 ≤ 2 ms, max ≤ 15 ms",
    ),
    row("push-saving", "push 3 series, 200 a second, while state of 1 M series is saved or compacted", "max ≤ 15 ms"),
    row("start", "start to ready with 1 M series on disk", "≤ 0.4 s"),
    row("idle", "resident memory when idle", "≤ 6 MB"),
    row(
        "lost",
        "acknowledged pushes lost by SIGKILL while the remote is down (Pushgateway as it comes; unchecked with --persistence.interval=10s)",
        "0",
    ),
    row(
        "wire-real",
        "bytes on the wire, both ways, of 1,000 groups × 10 series pushed in turn, values changing as real ones do",
        "≤ 2.2 a changed sample and ≥ 3 × under vmagent; ≤ 0.5 a sample when 10 % change; at no more delay than its 1 s",
    ),
    row(
        "wire-random",
        "bytes on the wire, both ways, of wholly random values, 3 series a push",
        "≥ 3 × / 1.5 × / 1.2 × under vmagent at 10 / 100 / 1,000 pushes a second, at no more delay than its 1 s",
    ),
    row("visible", "from a push's answer until it is shown, 1,000 pushes a second beside", "p50 ≤ 2 ms, p99 ≤ 10 ms"),
    row(
        "catch-up",
        "after an outage in which 1 M series in 10,000 groups all changed",
        "hub equal in ≤ 3 s; peak memory ≤ 1.3 × before",
    ),
    row("hub", "processor time of what is forwarded to, a push", "≤ 3 µs of 3 series, ≤ 18 µs of 100"),
    row(
        "fleet",
        "a hub taking many edges × 10,000 series, all changing every 15 s",
        "100 edges: ≤ 25 % of one core, scrape latency unharmed",
    ),
    row(
        "remote-write",
        "remote write of 1 M series that all change, to a sink: by the node, or by a scraper of it; each case is a sender",
        "CPU ≤ 1/7 of the best scraper's; bytes: 1.0 no more, 2.0 ≤ 0.75 × Prometheus's; ≤ 40 MB; tick ≤ 1 s",
    ),
];

/// Brings about one state, and measures the rows that need it.
pub struct Stage {
    pub rows: &'static [&'static str],
    pub servers: &'static [Kind],
    /// Heavy stages take fewer rounds than asked for.
    pub rounds_max: usize,
    pub run: fn(&mut Bench, Turn) -> Result<()>,
}

const PUSHGATEWAYS_FLOOR_OURS: &[Kind] = &[Kind::Checked, Kind::Unchecked, Kind::FloorSynced, Kind::Ours];
/// Servers in rows that measure scrapes only: a checking Pushgateway's scrapes cost the same, and a change of its
/// contents takes it most of an hour.
const UNCHECKED_FLOOR_OURS: &[Kind] = &[Kind::Unchecked, Kind::FloorSynced, Kind::Ours];
const ALL_DURABLE: &[Kind] =
    &[Kind::Checked, Kind::Unchecked, Kind::Vmagent, Kind::FloorSynced, Kind::Floor, Kind::Ours];
const FORWARDING: &[Kind] = &[Kind::Vmagent, Kind::Ours];

/// All stages, in the order in which they run.
pub const STAGES: &[Stage] = &[
    Stage { rows: &["push3", "idle"], servers: &Kind::ALL, rounds_max: 100, run: push::empty },
    Stage { rows: &["add3"], servers: &[Kind::Ours, Kind::OursInMemory], rounds_max: 3, run: push::adding },
    Stage { rows: &["push3-held"], servers: ALL_DURABLE, rounds_max: 3, run: push::held },
    Stage { rows: &["push100"], servers: ALL_DURABLE, rounds_max: 3, run: push::hundred },
    Stage { rows: &["push10k"], servers: ALL_DURABLE, rounds_max: 3, run: push::wide },
    Stage {
        rows: &["scrape", "memory", "push3-million", "push10k", "push-scraped", "start"],
        servers: PUSHGATEWAYS_FLOOR_OURS,
        rounds_max: 3,
        run: hold::million,
    },
    Stage { rows: &["push-saving"], servers: &[Kind::Unchecked, Kind::Ours], rounds_max: 2, run: hold::saving },
    Stage { rows: &["scrape-ten"], servers: UNCHECKED_FLOOR_OURS, rounds_max: 3, run: hold::ten },
    Stage { rows: &["prometheus"], servers: &[Kind::Unchecked, Kind::Ours], rounds_max: 1, run: hold::prometheus },
    Stage {
        rows: &["lost"],
        servers: &[Kind::Checked, Kind::Unchecked, Kind::Vmagent, Kind::Ours],
        rounds_max: 3,
        run: fault::lost,
    },
    Stage { rows: &["wire-real"], servers: FORWARDING, rounds_max: 2, run: wire::real },
    Stage { rows: &["wire-random"], servers: FORWARDING, rounds_max: 2, run: wire::random },
    Stage { rows: &["visible"], servers: FORWARDING, rounds_max: 3, run: link::visible },
    Stage { rows: &["hub"], servers: FORWARDING, rounds_max: 3, run: link::hub },
    Stage { rows: &["catch-up"], servers: &[Kind::Ours], rounds_max: 3, run: fault::catch_up },
    Stage { rows: &["remote-write"], servers: &[Kind::Ours], rounds_max: 1, run: remote_write::senders },
    Stage { rows: &["fleet"], servers: &[Kind::Ours], rounds_max: 1, run: fleet::fleet },
];

/// The sizes of the loads.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub load_time: Duration,
    pub requests_max: usize,
    /// Groups held by pushers of three series.
    pub held: &'static [usize],
    /// Groups of a hundred series.
    pub hundreds: usize,
    /// Groups of ten thousand series.
    pub wides: usize,
    /// Groups of ten series.
    pub tens: usize,
    /// Groups whose values cross the wire, and how often each is pushed.
    pub wire_groups: usize,
    pub wire_period: Duration,
    /// Whether vmagent is also measured speaking Prometheus's remote write.
    pub remote_write: bool,
    /// Pushes that could be lost.
    pub lost: usize,
    pub edges: usize,
    pub fleet_period: Duration,
    /// How long a Prometheus scrapes, and how often.
    pub prometheus_time: Duration,
    pub prometheus_interval_seconds: u64,
}

/// The tables' rows and stages.
pub const FULL: Scale = Scale {
    load_time: Duration::from_secs(5),
    requests_max: 100_000,
    held: &[1_000, 10_000, 100_000],
    hundreds: 10_000,
    wides: 100,
    tens: 10_000,
    wire_groups: 1_000,
    wire_period: Duration::from_secs(15),
    remote_write: true,
    lost: 1_000,
    edges: 100,
    fleet_period: Duration::from_secs(15),
    prometheus_time: Duration::from_secs(50),
    prometheus_interval_seconds: 15,
};

/// Whether everything works.
pub const QUICK: Scale = Scale {
    load_time: Duration::from_millis(300),
    requests_max: 3_000,
    held: &[500],
    hundreds: 300,
    wides: 5,
    tens: 500,
    wire_groups: 200,
    wire_period: Duration::from_secs(1),
    remote_write: false,
    lost: 200,
    edges: 4,
    fleet_period: Duration::from_secs(2),
    prometheus_time: Duration::from_secs(6),
    prometheus_interval_seconds: 2,
};

/// Whether there is a row of that name.
pub fn is_known(name: &str) -> bool {
    ROWS.iter().any(|row| row.name == name)
}

/// Prints the rows.
pub fn list() {
    for row in ROWS {
        println!("{:<14} {}", row.name, row.title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_measured_by_some_stage_and_every_stage_measures_rows() {
        assert!(ROWS.iter().all(|row| STAGES.iter().any(|stage| stage.rows.contains(&row.name))));
        assert!(STAGES.iter().flat_map(|stage| stage.rows).all(|row| is_known(row)));
    }
}
