//! A hub with many edges, each a real process with a certificate and an IDC of its own.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::{Bench, Turn};
use crate::body::{Body, Each};
use crate::deployment::{Deployment, Edge, Setup, edge_name};
use crate::fetch::Client;
use crate::latency::Latencies;
use crate::load::{self, Load};
use crate::machine::{Meter, Noise};

/// How many periods are measured.
const PERIODS: u32 = 3;

/// Every edge's series change once a period, one edge after the other; meanwhile the hub is scraped.
pub fn fleet(bench: &mut Bench, turn: Turn) -> Result<()> {
    let deployment = bench.start(turn.kind, Setup { proxied: true, ..Setup::default() })?;
    let edges = start_edges(bench, &deployment)?;
    let (body, period) = (Body::wide(1_000), bench.scale.fleet_period);
    let case = format!("{} edges × {} series", edges.len(), body.len());
    push_to_all(&edges, &body, Duration::ZERO)?;
    deployment.settle();
    let (still, _) = scrapes(&deployment, period)?;
    let (busy, cpu, noise) = thread::scope(|scope| -> Result<_> {
        let pusher = scope.spawn(|| {
            let periods = || (0..PERIODS).try_for_each(|_| push_to_all(&edges, &body, period));
            periods().map_err(|error| error.to_string())
        });
        let (latencies, reading) = scrapes(&deployment, period * PERIODS)?;
        pusher.join().map_err(|_| "the pusher failed")??;
        Ok((latencies, reading.0, reading.1))
    })?;
    let (mut still, mut busy) = (still, busy);
    let metrics = [
        ("hub_cpu_share", cpu),
        ("scrape_p50_ms", busy.quantile_ms(0.5)),
        ("scrape_max_ms", busy.quantile_ms(1.0)),
        ("scrape_p50_ms_while_nothing_changes", still.quantile_ms(0.5)),
        ("hub_resident_MB", deployment.shower().memory().resident / 1e6),
        ("edge_resident_MB", edges.last().map_or(f64::NAN, |edge| edge.process.memory().resident / 1e6)),
    ];
    bench.record(turn, "fleet", &case, noise, &metrics);
    Ok(())
}

fn start_edges(bench: &Bench, deployment: &Deployment) -> Result<Vec<Edge>> {
    let site = bench.site();
    let program = site.peers.ours.as_deref().ok_or("pushrelay is missing")?;
    let certificates = site.certificates.ok_or("no certificates were made")?;
    let hub = deployment.link.as_ref().ok_or("started without a proxy")?.target();
    let edge = |number| {
        let mut edge = Edge::start(program, certificates, &site.folder, &edge_name(number), hub, true, None)?;
        edge.process.await_ready(edge.web, "/-/ready")?;
        Ok(edge)
    };
    // Edge number 0 belongs to the deployment.
    (1..=bench.scale.edges).map(edge).collect()
}

/// One push to each edge, spread over the period.
fn push_to_all(edges: &[Edge], body: &Body, period: Duration) -> Result<()> {
    let started = Instant::now();
    for (at, edge) in edges.iter().enumerate() {
        let load = Load {
            address: edge.web,
            connections: 1,
            requests_max: 1,
            time_max: Duration::from_secs(60),
            rate: None,
            reconnect: false,
        };
        let tick = started.elapsed().as_nanos() as u64 & 0xffff;
        load::run(&load, &mut Each { tick, ..Each::new(body, "/metrics", "fleet", 1) })?.checked()?;
        let due = period * (at as u32 + 1) / edges.len() as u32;
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}

/// Scrapes the hub four times for as long as given: the latencies, and the hub's share of a processor without them.
fn scrapes(deployment: &Deployment, during: Duration) -> Result<(Latencies, (f64, Noise))> {
    let (started, mut latencies) = (Instant::now(), Latencies::default());
    let meter = Meter::start(&deployment.processes());
    let mut scraping = 0.0;
    for number in 1..=4 {
        thread::sleep((during * number / 5).saturating_sub(started.elapsed()));
        let before = deployment.shower().cpu_seconds();
        let reply = Client::new(deployment.shown).get("/metrics", true, |_| ())?;
        latencies.add(reply.wall);
        scraping += deployment.shower().cpu_seconds() - before;
    }
    thread::sleep(during.saturating_sub(started.elapsed()));
    let reading = meter.stop();
    // The work that the hub did for updates during the scrapes is not subtracted: the shares of both kinds of work are
    // small.
    let share = (reading.cpu[1] - scraping) / reading.wall.as_secs_f64();
    Ok((latencies, (share, reading.noise)))
}
