//! The cost of a push for the process that accepts it.

use std::time::Duration;

use crate::Result;
use crate::bench::{Bench, Turn};
use crate::body::{Body, Each, Repeat};
use crate::deployment::{Deployment, Kind, Setup};
use crate::load::Load;
use crate::machine::Meter;

/// Beyond this many groups, a checking Pushgateway answers a handful of pushes in the time of a load.
const CHECKED_GROUPS_MAX: usize = 10_000;

/// How a body is pushed.
#[derive(Clone, Copy)]
pub struct Manner {
    pub connections: usize,
    pub reconnect: bool,
    /// Groups that receive pushes, in turn; with `None`, each connection has its own.
    pub groups: Option<usize>,
    /// The path below which pushes go; empty for the root.
    pub below: &'static str,
}

impl Manner {
    /// Connections that are kept, each pushing to a group of its own.
    pub const fn kept(connections: usize) -> Self {
        Self { connections, reconnect: false, groups: None, below: "" }
    }
}

/// Loads a deployment with pushes and records what they cost.
pub fn measure(
    bench: &mut Bench,
    turn: Turn,
    row: &'static str,
    case: &str,
    deployment: &Deployment,
    body: &Body,
    manner: Manner,
) -> Result<()> {
    let load = Load {
        address: deployment.push,
        connections: manner.connections,
        requests_max: bench.scale.requests_max,
        time_max: bench.scale.load_time,
        rate: None,
        reconnect: manner.reconnect,
    };
    let prefix = format!("{}{}", deployment.prefix(), manner.below);
    let mut repeat = Repeat::new(body, &prefix, "filled");
    let mut each = Each::new(body, &prefix, "filled", manner.groups.unwrap_or(1));
    let requests: &mut dyn crate::load::Requests = if manner.groups.is_some() { &mut each } else { &mut repeat };
    // Groups exist, schemas are known and buffers have their sizes before anything is measured.
    let warm = Load { requests_max: (load.requests_max / 10).max(64), time_max: load.time_max / 4, ..load };
    bench.load(&warm, requests)?;
    let meter = Meter::start(&deployment.processes());
    let mut outcome = bench.load(&load, requests)?;
    let reading = meter.stop();
    let pushes = outcome.done() as f64;
    let mut metrics = vec![
        ("cpu_µs_a_push", reading.cpu[0] / pushes * 1e6),
        ("p50_ms", outcome.latencies.quantile_ms(0.5)),
        ("p99_ms", outcome.latencies.quantile_ms(0.99)),
        ("max_ms", outcome.latencies.quantile_ms(1.0)),
        ("pushes_a_second", pushes / outcome.wall.as_secs_f64()),
        ("generator_busy_share", outcome.generator_busy),
    ];
    if let Some(back) = reading.cpu.get(1) {
        metrics.push(("cpu_µs_a_push_behind", back / pushes * 1e6));
    }
    bench.record(turn, row, case, reading.noise, &metrics);
    Ok(())
}

/// Three series into a store that holds little, and the memory of a server that has nothing to do.
pub fn empty(bench: &mut Bench, turn: Turn) -> Result<()> {
    let deployment = bench.start(turn.kind, Setup::default())?;
    if bench.wants("idle") {
        let meter = Meter::start(&deployment.processes());
        deployment.settle();
        let noise = meter.stop().noise;
        let mut metrics = vec![("resident_MB", deployment.front().memory().resident / 1e6)];
        if let Some(back) = &deployment.back {
            metrics.push(("resident_behind_MB", back.memory().resident / 1e6));
        }
        bench.record(turn, "idle", "", noise, &metrics);
    }
    if bench.wants("push3") {
        let body = Body::small();
        let renewed = Manner { reconnect: true, ..Manner::kept(16) };
        measure(bench, turn, "push3", "c32", &deployment, &body, Manner::kept(32))?;
        measure(bench, turn, "push3", "c1", &deployment, &body, Manner::kept(1))?;
        measure(bench, turn, "push3", "c16, new connections", &deployment, &body, renewed)?;
    }
    Ok(())
}

/// Three series that add, beside three that replace.
pub fn adding(bench: &mut Bench, turn: Turn) -> Result<()> {
    let body = Body::small();
    for (case, below) in [("c32, replacing", ""), ("c32, adding", "/aggregate")] {
        // A group that replaces cannot add, so each case has a store of its own.
        let deployment = bench.start(turn.kind, Setup::default())?;
        measure(bench, turn, "add3", case, &deployment, &body, Manner { below, ..Manner::kept(32) })?;
    }
    Ok(())
}

/// Three series into stores that hold ever more groups.
pub fn held(bench: &mut Bench, turn: Turn) -> Result<()> {
    let body = Body::small();
    for groups in bench.scale.held {
        if turn.kind == Kind::Checked && *groups > CHECKED_GROUPS_MAX {
            continue;
        }
        let deployment = bench.start_filled(turn.kind, Setup::default(), &body, *groups)?;
        let case = format!("c32, {groups} groups");
        measure(bench, turn, "push3-held", &case, &deployment, &body, Manner::kept(32))?;
    }
    Ok(())
}

/// A hundred series, into little and into much.
pub fn hundred(bench: &mut Bench, turn: Turn) -> Result<()> {
    let body = Body::hundred();
    let deployment = bench.start(turn.kind, Setup::default())?;
    measure(bench, turn, "push100", "c32", &deployment, &body, Manner::kept(32))?;
    drop(deployment);
    let groups = bench.scale.hundreds;
    let deployment = bench.start_filled(turn.kind, Setup::default(), &body, groups)?;
    let case = format!("c32, {} series held", groups * body.len());
    measure(bench, turn, "push100", &case, &deployment, &body, Manner::kept(32))
}

/// Ten thousand series into one group.
pub fn wide(bench: &mut Bench, turn: Turn) -> Result<()> {
    let deployment = bench.start(turn.kind, Setup::default())?;
    measure(bench, turn, "push10k", "c1", &deployment, &Body::wide(1_000), Manner::kept(1))
}

/// A paced load of three series for as long as `during`, into groups of their own.
pub fn paced(deployment: &Deployment, rate: f64, during: Duration) -> Load {
    Load {
        address: deployment.push,
        connections: 8,
        requests_max: usize::MAX,
        time_max: during,
        rate: Some(rate),
        reconnect: false,
    }
}
