//! The pushes left after a crash, and the time until the hub is equal after an outage.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::{Bench, Turn};
use crate::body::{Body, Each};
use crate::deployment::{Deployment, Kind, Setup};
use crate::fetch::Client;
use crate::load::Load;
use crate::machine::Meter;

/// Time for stored pushes to arrive, and for the hub to become equal.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pushes to many groups while the remote server is down; then SIGKILL, restart, and the remote server again: the
/// number of lost groups.
pub fn lost(bench: &mut Bench, turn: Turn) -> Result<()> {
    let saving = (turn.kind == Kind::Unchecked).then_some("10s");
    let mut deployment = bench.start(turn.kind, Setup { proxied: true, saving, ..Setup::default() })?;
    if let Some(link) = &deployment.link {
        link.cut();
    }
    let (body, number) = (Body::small(), bench.scale.lost);
    let meter = Meter::start(&[]);
    let acknowledged = bench.fill(&deployment, &body, number)?.done();
    deployment.restart(true)?;
    if let Some(link) = &deployment.link {
        link.mend();
    }
    let kept = await_kept(&deployment, acknowledged)?;
    let metrics = [("acknowledged", acknowledged as f64), ("lost", acknowledged.saturating_sub(kept) as f64)];
    bench.record(turn, "lost", "", meter.stop().noise, &metrics);
    Ok(())
}

/// The number of groups shown, once it stops to grow.
fn await_kept(deployment: &Deployment, expected: usize) -> Result<usize> {
    let (mut client, deadline) = (Client::new(deployment.shown), Instant::now() + PATIENCE);
    let (mut kept, mut since) = (0, Instant::now());
    while kept < expected && since.elapsed() < Duration::from_secs(10) && Instant::now() < deadline {
        let path = match deployment.kind {
            Kind::Vmagent => "/api/v1/export?match%5B%5D=backup_duration_seconds",
            _ => "/metrics",
        };
        let page = client.text(path, false)?;
        let is_kept = |line: &&str| {
            line.starts_with("backup_duration_seconds") || line.contains("\"__name__\":\"backup_duration_seconds\"")
        };
        let now = page.lines().filter(is_kept).count();
        if now > kept {
            (kept, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(kept)
}

/// Everything changes while the link is cut; then the link is restored.
pub fn catch_up(bench: &mut Bench, turn: Turn) -> Result<()> {
    let (body, groups) = (Body::hundred(), bench.scale.hundreds);
    let deployment = bench.start_filled(turn.kind, Setup { proxied: true, ..Setup::default() }, &body, groups)?;
    let link = deployment.link.as_ref().ok_or("started without a proxy")?;
    let before = [deployment.front(), deployment.shower()].map(|process| process.memory().resident);
    for process in deployment.processes() {
        process.reset_peak()?;
    }
    link.cut();
    change_all(bench, &deployment, &body, groups)?;
    let passed = link.passed();
    let meter = Meter::start(&deployment.processes());
    link.mend();
    let connected = await_connection(&deployment)?;
    let done = link.await_quiet(Instant::now() + PATIENCE).ok_or("the link did not come to rest")?;
    let reading = meter.stop();
    let bytes = link.passed().up + link.passed().down - passed.up - passed.down;
    let peaks = [deployment.front(), deployment.shower()].map(|process| process.memory().peak);
    let metrics = [
        ("seconds_from_connection_to_equal", done.saturating_duration_since(connected).as_secs_f64()),
        ("MB_on_the_wire", bytes as f64 / 1e6),
        ("edge_peak_over_before", peaks[0] / before[0]),
        ("hub_peak_over_before", peaks[1] / before[1]),
        ("edge_cpu_seconds", reading.cpu[0]),
        ("hub_cpu_seconds", reading.cpu[1]),
        ("series_not_equal", differences(&deployment)? as f64),
    ];
    bench.record(turn, "catch-up", &format!("{} series", groups * body.len()), reading.noise, &metrics);
    Ok(())
}

fn change_all(bench: &Bench, deployment: &Deployment, body: &Body, groups: usize) -> Result<()> {
    let load = Load {
        address: deployment.push,
        connections: 16,
        requests_max: groups,
        time_max: Duration::from_secs(600),
        rate: None,
        reconnect: false,
    };
    let mut requests = Each { tick: groups as u64, ..Each::new(body, deployment.prefix(), "filled", groups) };
    bench.load(&load, &mut requests)?;
    deployment.settle();
    Ok(())
}

fn await_connection(deployment: &Deployment) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match deployment.link.as_ref().and_then(|link| link.connected()) {
            Some(connected) => return Ok(connected),
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
    Err("the edge did not connect again".into())
}

/// The number of pushed lines that the hub does not show as the edge does, apart from the site labels.
fn differences(deployment: &Deployment) -> Result<usize> {
    let lines = |address| -> Result<Vec<String>> {
        let page = Client::new(address).text("/metrics", false)?;
        let pushed = page.lines().filter(|line| line.contains("job=\"filled\""));
        let mut lines: Vec<String> = pushed.map(|line| line.replace("IDC=\"DC000\",", "")).collect();
        lines.sort_unstable();
        Ok(lines)
    };
    let (edge, hub) = (lines(deployment.push)?, lines(deployment.shown)?);
    let different = edge.iter().zip(&hub).filter(|(edge, hub)| edge != hub).count();
    Ok(different + edge.len().abs_diff(hub.len()))
}
