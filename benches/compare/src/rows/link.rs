//! The time until a push is shown, and the cost for the process that shows it.

use std::thread;
use std::time::{Duration, Instant};

use super::push;
use crate::Result;
use crate::bench::{Bench, Turn};
use crate::body::{Body, Each};
use crate::deployment::{Deployment, Kind, Setup};
use crate::fetch::Client;
use crate::latency::Latencies;
use crate::load::{self, Load};
use crate::machine::Meter;

const PUSHES_A_SECOND: f64 = 1_000.0;
const GROUPS: usize = 100;
const MARKER: &str = "visible_marker";
/// After this time, no push waits any longer to be sent together with others.
const APART: Duration = Duration::from_millis(1_200);

/// Time from the answer to a push until a scrape shows it, while others push.
pub fn visible(bench: &mut Bench, turn: Turn) -> Result<()> {
    let deployment = bench.start(turn.kind, Setup::default())?;
    let during = bench.scale.load_time * 4;
    let body = Body::small();
    let (mut latencies, noise) = thread::scope(|scope| -> Result<_> {
        let load = push::paced(&deployment, PUSHES_A_SECOND, during);
        let mut requests = Each::new(&body, deployment.prefix(), "filled", GROUPS);
        let pusher = scope.spawn(move || {
            let outcome = load::run(&load, &mut requests);
            outcome.and_then(load::Outcome::checked).map_err(|error| error.to_string())
        });
        let meter = Meter::start(&deployment.processes());
        let latencies = watch(&deployment, during);
        let noise = meter.stop().noise;
        pusher.join().map_err(|_| "the pusher failed")??;
        Ok((latencies?, noise))
    })?;
    let metrics = [
        ("p50_ms", latencies.quantile_ms(0.5)),
        ("p95_ms", latencies.quantile_ms(0.95)),
        ("p99_ms", latencies.quantile_ms(0.99)),
        ("max_ms", latencies.quantile_ms(1.0)),
        ("markers", latencies.len() as f64),
    ];
    bench.record(turn, "visible", "1,000 pushes a second beside", noise, &metrics);
    Ok(())
}

/// Pushes markers and scrapes until each is shown; the scrape that shows it is part of its latency. The first is not
/// counted: a new series takes longer.
fn watch(deployment: &Deployment, during: Duration) -> Result<Latencies> {
    let started = Instant::now();
    let (mut pusher, mut scraper) = (Client::new(deployment.push), Client::new(deployment.shown));
    let path = format!("{}/job/marker", deployment.prefix());
    let mut latencies = Latencies::default();
    for number in 1_u64.. {
        if started.elapsed() > during && latencies.len() > 0 {
            break;
        }
        pusher.put(&path, &format!("{MARKER} {number}\n"))?;
        let answered = Instant::now();
        while shown_marker(&mut scraper, deployment.kind)? < number as f64 {
            if answered.elapsed() > Duration::from_secs(30) {
                return Err("a push was not shown within 30 s".into());
            }
        }
        if number > 1 {
            latencies.add(answered.elapsed());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(latencies)
}

/// The newest marker that is shown; 0 if none is.
fn shown_marker(scraper: &mut Client, kind: Kind) -> Result<f64> {
    if kind != Kind::Vmagent {
        let page = scraper.text("/metrics", false)?;
        let line = page.lines().find(|line| line.starts_with(MARKER));
        return Ok(line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0));
    }
    let page = scraper.text(&format!("/api/v1/export?match%5B%5D={MARKER}"), false)?;
    let newest = |line: &str| {
        let series: serde_json::Value = serde_json::from_str(line).ok()?;
        series["values"].as_array()?.last()?.as_f64()
    };
    Ok(page.lines().filter_map(newest).fold(0.0, f64::max))
}

/// The cost of a forwarded push for the receiving server: at a fixed rate, and as fast as it accepts them, in turn to
/// so many groups that hardly any is pushed again before it was forwarded.
pub fn hub(bench: &mut Bench, turn: Turn) -> Result<()> {
    forwarded(bench, turn, None, "")?;
    if turn.kind.is_ours() {
        forwarded(bench, turn, Some("1s"), ", updates 1 s apart")?;
    }
    Ok(())
}

fn forwarded(bench: &mut Bench, turn: Turn, send_interval: Option<&'static str>, manner: &str) -> Result<()> {
    for (body, rate, series) in [(Body::small(), 1_000.0, 3), (Body::hundred(), 300.0, 100)] {
        let groups = bench.scale.hundreds;
        let deployment = bench.start_filled(turn.kind, Setup { send_interval, ..Setup::default() }, &body, groups)?;
        for (rate, case) in [
            (Some(rate), format!("{series} series, {rate} pushes a second{manner}")),
            (None, format!("{series} series, c32{manner}")),
        ] {
            let during = bench.scale.load_time * 2;
            let load = Load { rate, connections: 32, ..push::paced(&deployment, 1.0, during) };
            let mut requests = Each::new(&body, deployment.prefix(), "filled", groups);
            thread::sleep(APART);
            deployment.settle();
            let meter = Meter::start(&deployment.processes());
            let outcome = bench.load(&load, &mut requests)?;
            thread::sleep(APART);
            deployment.settle();
            let reading = meter.stop();
            let pushes = outcome.done() as f64;
            let metrics = [
                ("cpu_µs_a_push", reading.cpu[1] / pushes * 1e6),
                ("cpu_µs_a_push_in_front", reading.cpu[0] / pushes * 1e6),
                ("pushes_a_second", pushes / outcome.wall.as_secs_f64()),
            ];
            bench.record(turn, "hub", &case, reading.noise, &metrics);
        }
    }
    Ok(())
}
