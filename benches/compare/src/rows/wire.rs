//! Bytes between the server that is pushed to and the server that it forwards to.

use std::time::Duration;

use super::push;
use crate::Result;
use crate::bench::{Bench, Turn};
use crate::deployment::{Deployment, Setup};
use crate::drift::{Changes, Drift, RANDOM_SERIES, REAL_SERIES};
use crate::load::Requests;
use crate::machine::{Meter, Noise};

/// Many groups pushed in turn, their values changing as real ones do.
pub fn real(bench: &mut Bench, turn: Turn) -> Result<()> {
    let (groups, period) = (bench.scale.wire_groups, bench.scale.wire_period);
    let rate = groups as f64 / period.as_secs_f64();
    for (changes, name) in [(Changes::All, "all values change"), (Changes::Tenth, "a tenth of the values changes")] {
        for (manner, setup) in manners(bench, turn) {
            let case = format!("{name}{manner}");
            let deployment = bench.start(turn.kind, setup)?;
            let mut drift = Drift::real(deployment.prefix(), groups, changes);
            // Every group is sent once before the count: schemas, names and other one-time data do not count.
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

/// Random values at three rates. Each group is pushed every other second or less often, so that every push is sent.
/// One more case pushes to few groups, whose pushes conflate if updates are apart.
pub fn random(bench: &mut Bench, turn: Turn) -> Result<()> {
    for (rate, groups) in [(10.0, 100), (100.0, 200), (1_000.0, 2_000), (1_000.0, 100)] {
        for (manner, setup) in manners(bench, turn) {
            let case = format!("{rate} pushes a second, {groups} groups{manner}");
            let deployment = bench.start(turn.kind, setup)?;
            let mut drift = Drift::random(deployment.prefix(), groups);
            let warm = Duration::from_secs_f64(groups as f64 / rate).min(bench.scale.load_time * 2);
            let (bytes, pushes, noise) =
                count(bench, &deployment, &mut drift, rate, [warm, bench.scale.load_time * 3])?;
            let metrics = [("bytes_a_sample", bytes / (pushes * RANDOM_SERIES as f64)), ("pushes", pushes)];
            bench.record(turn, "wire-random", &case, noise, &metrics);
        }
    }
    Ok(())
}

/// The ways in which a server can forward, each with its name in the report.
fn manners(bench: &Bench, turn: Turn) -> Vec<(&'static str, Setup)> {
    let plain = Setup { proxied: true, ..Setup::default() };
    let mut manners = vec![("", plain)];
    if turn.kind.is_ours() {
        manners.push((", updates 1 s apart", Setup { send_interval: Some("1s"), ..plain }));
    } else if bench.scale.remote_write {
        manners.push((", by Prometheus remote write", Setup { remote_write: true, ..plain }));
    }
    manners
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

/// After this time every push has been sent: vmagent flushes once a second.
fn drain() {
    std::thread::sleep(Duration::from_millis(1_500));
}
