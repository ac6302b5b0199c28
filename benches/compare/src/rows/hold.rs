//! The cost of a million series: scrapes, memory, saving, starting, and pushes at the same time.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::push::{self, Manner};
use crate::Result;
use crate::bench::{Bench, Turn};
use crate::body::{Body, Each, Repeat};
use crate::deployment::{Deployment, Kind, Setup};
use crate::fetch::Client;
use crate::load::{self, Load};
use crate::machine::Meter;
use crate::process::{Process, Spec, free_address};

const PUSHES_A_SECOND: f64 = 200.0;

/// A hundred groups of ten thousand series, and everything that is measured there.
pub fn million(bench: &mut Bench, turn: Turn) -> Result<()> {
    let (body, groups) = (Body::wide(1_000), bench.scale.wides);
    let saving = bench.wants("start").then_some("60m");
    let mut deployment = bench.start_filled(turn.kind, Setup { saving, ..Setup::default() }, &body, groups)?;
    let held = format!("{} series held", groups * body.len());
    if bench.wants("scrape") || bench.wants("memory") {
        scrapes(bench, turn, "scrape", &deployment, &body, groups, &Body::wide_part(1_000))?;
    }
    if bench.wants("memory") {
        memory(bench, turn, &deployment, &held);
    }
    if bench.wants("push-scraped") {
        scraped(bench, turn, &deployment, &held)?;
    }
    if bench.wants("push10k") {
        let turns = Manner { groups: Some(groups), ..Manner::kept(1) };
        push::measure(bench, turn, "push10k", &format!("c1, {held}"), &deployment, &body, turns)?;
    }
    if bench.wants("push3-million") {
        let case = format!("c32, {held}");
        push::measure(bench, turn, "push3-million", &case, &deployment, &Body::small(), Manner::kept(32))?;
    }
    if bench.wants("start") && turn.kind != Kind::FloorSynced {
        let meter = Meter::start(&[]);
        let ready = deployment.restart(false)?.as_secs_f64() * 1e3;
        bench.record(turn, "start", &held, meter.stop().noise, &[("ready_ms", ready)]);
    }
    Ok(())
}

/// Ten thousand groups of ten series, scraped.
pub fn ten(bench: &mut Bench, turn: Turn) -> Result<()> {
    let (body, groups) = (Body::ten(), bench.scale.tens);
    let deployment = bench.start_filled(turn.kind, Setup::default(), &body, groups)?;
    scrapes(bench, turn, "scrape-ten", &deployment, &body, groups, &body)
}

/// Scrapes after the fill, after a change of everything, and after a change of a small part.
fn scrapes(
    bench: &mut Bench,
    turn: Turn,
    row: &'static str,
    deployment: &Deployment,
    body: &Body,
    groups: usize,
    part: &Body,
) -> Result<()> {
    let path = if turn.kind == Kind::FloorSynced { "/metrics?pieces" } else { "/metrics" };
    let times = if matches!(turn.kind, Kind::Checked | Kind::Unchecked) { 1 } else { 5 };
    if row == "scrape" {
        scrape(bench, turn, row, "identity", deployment, ("/metrics", false), times, || Ok(()))?;
    }
    let mut bodies = Each::new(body, deployment.prefix(), "filled", groups);
    let change_all = || change(deployment, &mut bodies, groups);
    scrape(bench, turn, row, "gzip, all changed", deployment, ("/metrics", true), times.min(2), change_all)?;
    // Five groups of ten thousand, or a tenth of one group of a hundred.
    let few = if row == "scrape" { 1 } else { (groups / 200).max(1) };
    let mut parts = Each { method: "POST", ..Each::new(part, deployment.prefix(), "filled", groups) };
    // From here on, the compressed form of everything that changed is cached.
    Client::new(deployment.shown).get(path, true, |_| ())?;
    let change_few = || change(deployment, &mut parts, few);
    scrape(bench, turn, row, "gzip, under 1 % changed", deployment, (path, true), times, change_few)
}

/// Pushes to a number of groups and waits until they are shown.
fn change(deployment: &Deployment, bodies: &mut Each<'_>, number: usize) -> Result<()> {
    let load = Load {
        address: deployment.push,
        connections: 1,
        requests_max: number,
        time_max: Duration::from_secs(600),
        rate: None,
        reconnect: false,
    };
    load::run(&load, bodies)?.checked()?;
    deployment.settle();
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "what and how to scrape, and where the figures belong")]
fn scrape(
    bench: &mut Bench,
    turn: Turn,
    row: &'static str,
    case: &str,
    deployment: &Deployment,
    (path, gzip): (&str, bool),
    times: usize,
    mut before_each: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut client = Client::new(deployment.shown);
    for _ in 0..times {
        before_each()?;
        let meter = Meter::start(&[deployment.shower()]);
        let reply = client.get(path, gzip, |_| ())?;
        let reading = meter.stop();
        if reply.status != 200 {
            return Err(format!("GET {path}: {}", reply.status).into());
        }
        let metrics = [
            ("wall_ms", reply.wall.as_secs_f64() * 1e3),
            ("cpu_ms", reading.cpu[0] * 1e3),
            ("body_MB", reply.body_bytes as f64 / 1e6),
        ];
        bench.record(turn, row, case, reading.noise, &metrics);
    }
    Ok(())
}

fn memory(bench: &mut Bench, turn: Turn, deployment: &Deployment, held: &str) {
    let noise = Meter::start(&[]).stop().noise;
    let (front, shower) = (deployment.front().memory(), deployment.shower().memory());
    let mut metrics = vec![("resident_MB", shower.resident / 1e6), ("peak_MB", shower.peak / 1e6)];
    if turn.kind.is_ours() {
        metrics.push(("edge_resident_MB", front.resident / 1e6));
        metrics.push(("edge_peak_MB", front.peak / 1e6));
    }
    bench.record(turn, "memory", held, noise, &metrics);
}

/// Small pushes while the process that takes them is scraped without a pause.
fn scraped(bench: &mut Bench, turn: Turn, deployment: &Deployment, held: &str) -> Result<()> {
    let (over, address) = (AtomicBool::new(false), deployment.push);
    let during = bench.scale.load_time * 4;
    let body = Body::small();
    let (outcome, noise, scrapes) = thread::scope(|scope| -> Result<_> {
        let scraper = scope.spawn(|| {
            let (mut client, mut scrapes) = (Client::new(address), 0);
            while !over.load(Ordering::Relaxed) && client.get("/metrics", true, |_| ()).is_ok() {
                scrapes += 1;
            }
            scrapes
        });
        let meter = Meter::start(&deployment.processes());
        let mut requests = Repeat::new(&body, deployment.prefix(), "small");
        let outcome = load::run(&push::paced(deployment, PUSHES_A_SECOND, during), &mut requests);
        over.store(true, Ordering::Relaxed);
        let noise = meter.stop().noise;
        let scrapes = scraper.join().map_err(|_| "the scraper failed")?;
        Ok((outcome?.checked()?, noise, scrapes))
    })?;
    let mut latencies = outcome.latencies;
    let metrics = [
        ("p50_ms", latencies.quantile_ms(0.5)),
        ("p99_ms", latencies.quantile_ms(0.99)),
        ("max_ms", latencies.quantile_ms(1.0)),
        ("scrapes", f64::from(scrapes)),
    ];
    bench.record(turn, "push-scraped", held, noise, &metrics);
    Ok(())
}

/// Small pushes while large ones make the server save or compact its state.
pub fn saving(bench: &mut Bench, turn: Turn) -> Result<()> {
    let (body, groups) = (Body::wide(1_000), bench.scale.wides);
    let setup = Setup { saving: Some("2s"), ..Setup::default() };
    let deployment = bench.start_filled(turn.kind, setup, &body, groups)?;
    let before = deployment.files();
    let during = bench.scale.load_time * 6;
    let small = Body::small();
    let large = Load { connections: 1, ..push::paced(&deployment, 50.0, during) };
    let (outcome, noise, large) = thread::scope(|scope| -> Result<_> {
        let prefix = deployment.prefix();
        let pusher = scope.spawn(|| {
            let outcome = load::run(&large, &mut Each::new(&body, prefix, "filled", groups));
            outcome.and_then(load::Outcome::checked).map_err(|error| error.to_string())
        });
        let meter = Meter::start(&deployment.processes());
        let mut requests = Repeat::new(&small, prefix, "small");
        let outcome = load::run(&push::paced(&deployment, PUSHES_A_SECOND, during), &mut requests);
        let noise = meter.stop().noise;
        let large = pusher.join().map_err(|_| "the pusher failed")??;
        Ok((outcome?.checked()?, noise, large))
    })?;
    let mut latencies = outcome.latencies;
    let new = deployment.files().iter().filter(|file| !before.contains(file)).count();
    let metrics = [
        ("p50_ms", latencies.quantile_ms(0.5)),
        ("p99_ms", latencies.quantile_ms(0.99)),
        ("max_ms", latencies.quantile_ms(1.0)),
        ("large_pushes", large.done() as f64),
        ("new_files", new as f64),
    ];
    let held = format!("{} series held", groups * body.len());
    bench.record(turn, "push-saving", &held, noise, &metrics);
    Ok(())
}

/// A real Prometheus scrapes; its resource usage and the scraped server's meanwhile.
pub fn prometheus(bench: &mut Bench, turn: Turn) -> Result<()> {
    let program = bench.peers.prometheus.clone().ok_or("prometheus is missing")?;
    let (body, groups) = (Body::wide(1_000), bench.scale.wides);
    let deployment = bench.start_filled(turn.kind, Setup::default(), &body, groups)?;
    let folder = bench.site().folder.join("prometheus");
    fs::create_dir_all(&folder)?;
    let interval = bench.scale.prometheus_interval_seconds;
    let config = format!(
        "global: {{scrape_interval: {interval}s, scrape_timeout: {}s}}\nscrape_configs:\n- job_name: pushgateway\n  \
         honor_labels: true\n  static_configs:\n  - targets: ['{}']\n    labels: {{instance: pushgateway}}\n",
        interval.min(10),
        deployment.shown
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, config)?;
    let address = free_address()?;
    let arguments = vec![
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    let mut prometheus = Process::start(Spec { program, arguments, log: folder.join("prometheus.log") })?;
    prometheus.await_ready(address, "/-/ready")?;
    let mut client = Client::new(address);
    // Prometheus takes seconds to find its targets: the time counts from the first scrape.
    query(&mut client, "up")?;
    let meter = Meter::start(&[deployment.shower(), &prometheus]);
    thread::sleep(bench.scale.prometheus_time);
    let reading = meter.stop();
    let wall = reading.wall.as_secs_f64();
    let metrics = [
        ("scrape_seconds", query(&mut client, "scrape_duration_seconds")?),
        ("up", query(&mut client, "up")?),
        ("samples", query(&mut client, "scrape_samples_scraped")?),
        ("server_cpu_share", reading.cpu[0] / wall),
        ("prometheus_cpu_share", reading.cpu[1] / wall),
    ];
    let held = format!("{} series held", groups * body.len());
    bench.record(turn, "prometheus", &held, reading.noise, &metrics);
    Ok(())
}

/// The value of an instant query with one result.
fn query(client: &mut Client, query: &str) -> Result<f64> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = client.text(&format!("/api/v1/query?query={query}"), false)?;
        let reply: serde_json::Value = serde_json::from_str(&reply)?;
        let value = &reply["data"]["result"][0]["value"][1];
        match value.as_str() {
            Some(value) => return Ok(value.parse()?),
            None if Instant::now() > deadline => return Err(format!("{query} has no value: {reply}").into()),
            None => thread::sleep(Duration::from_millis(200)),
        }
    }
}
