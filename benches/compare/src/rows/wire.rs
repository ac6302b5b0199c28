//! Bytes between what is pushed to and what it forwards to.

use std::time::Duration;

use super::push;
use crate::Result;
use crate::bench::{Bench, Turn};
use crate::deployment::{Deployment, Kind, Setup};
use crate::drift::{Changes, Drift, RANDOM_SERIES, REAL_SERIES};
use crate::load::Requests;
use crate::machine::{Meter, Noise};

/// Many groups pushed in turn, their values changing as real ones do.
pub fn real(bench: &mut Bench, turn: Turn) -> Result<()> {
    let (groups, period) = (bench.scale.wire_groups, bench.scale.wire_period);
    let rate = groups as f64 / period.as_secs_f64();
    for (changes, name) in [(Changes::All, "all values change"), (Changes::Tenth, "a tenth of the values changes")] {
        for remote_write in [false, true] {
            let case = format!("{name}{}", protocol(remote_write));
            let deployment = match start(bench, turn, remote_write)? {
                Some(deployment) => deployment,
                None => continue,
            };
            let mut drift = Drift::real(deployment.prefix(), groups, changes);
            // First every group is sent once: shapes, names and whatever else is sent only then is not counted.
            let (bytes, pushes, noise) = count(bench, &deployment, &mut drift, rate, [period, period * 3])?;
            let held = pushes * REAL_SERIES as f64;
            let changed = if changes == Changes::All { held } else { held / REAL_SERIES as f64 };
            let metrics = [
                ("bytes_a_changed_sample", bytes / changed),
                ("bytes_a_sample_held", bytes / held),
                ("pushes", pushes),
            ];
            bench.record(turn, "wire-real", &case, noise, &metrics);
        }
    }
    Ok(())
}

/// Random values at three rates.
pub fn random(bench: &mut Bench, turn: Turn) -> Result<()> {
    for rate in [10.0, 100.0, 1_000.0] {
        for remote_write in [false, true] {
            let case = format!("{rate} pushes a second{}", protocol(remote_write));
            let Some(deployment) = start(bench, turn, remote_write)? else { continue };
            let mut drift = Drift::random(deployment.prefix(), 100);
            let warm = Duration::from_secs_f64(100.0 / rate).min(bench.scale.load_time);
            let (bytes, pushes, noise) =
                count(bench, &deployment, &mut drift, rate, [warm, bench.scale.load_time * 3])?;
            let metrics = [("bytes_a_sample", bytes / (pushes * RANDOM_SERIES as f64)), ("pushes", pushes)];
            bench.record(turn, "wire-random", &case, noise, &metrics);
        }
    }
    Ok(())
}

fn protocol(remote_write: bool) -> &'static str {
    if remote_write { ", by Prometheus remote write" } else { "" }
}

/// Starts with a proxy; `None` for a protocol that the server does not speak, or that is not to be measured.
fn start(bench: &Bench, turn: Turn, remote_write: bool) -> Result<Option<Deployment>> {
    if remote_write && (turn.kind != Kind::Vmagent || !bench.scale.remote_write) {
        return Ok(None);
    }
    bench.start(turn.kind, Setup { proxied: true, remote_write, ..Setup::default() }).map(Some)
}

/// Pushes at a rate, first to warm up, then to count: bytes that passed, and pushes that made them.
fn count(
    bench: &Bench,
    deployment: &Deployment,
    requests: &mut dyn Requests,
    rate: f64,
    [warm, during]: [Duration; 2],
) -> Result<(f64, f64, Noise)> {
    let link = deployment.link.as_ref().ok_or("started without a proxy")?;
    bench.load(&push::paced(deployment, rate, warm), requests)?;
    drain();
    let (before, meter) = (link.passed(), Meter::start(&deployment.processes()));
    let outcome = bench.load(&push::paced(deployment, rate, during), requests)?;
    let noise = meter.stop().noise;
    drain();
    let after = link.passed();
    let bytes = (after.up - before.up + after.down - before.down) as f64;
    Ok((bytes, outcome.done() as f64, noise))
}

/// Everything pushed is sent after this: vmagent flushes once a second.
fn drain() {
    std::thread::sleep(Duration::from_millis(1_500));
}
