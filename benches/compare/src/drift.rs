//! The pushes of the wire measurements: values that change as real ones do, or values at random.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::body::{push_head, xorshift};
use crate::load::Requests;

/// Series a group of [`Drift::real`].
pub const REAL_SERIES: usize = 10;
/// Decimals of each of them.
const DECIMALS: [i32; REAL_SERIES] = [0, 0, 0, 2, 2, 2, 3, 3, 0, 3];
/// Series a push of [`Drift::random`].
pub const RANDOM_SERIES: usize = 3;

/// The series that change in a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Every value.
    All,
    /// One series of ten, another one each time.
    Tenth,
}

/// Pushes to many groups in turn, remembering each group's values.
pub struct Drift<'a> {
    prefix: &'a str,
    changes: Option<Changes>,
    groups: Vec<[f64; REAL_SERIES]>,
    random: u64,
    tick: usize,
    body: String,
}

impl<'a> Drift<'a> {
    /// Counters, gauges of two and three decimals and a timestamp, ten series a group.
    pub fn real(prefix: &'a str, groups: usize, changes: Changes) -> Self {
        let mut drift = Self { changes: Some(changes), ..Self::random(prefix, groups) };
        for group in 0..groups {
            drift.groups[group] = drift.start();
        }
        drift
    }

    /// Three series a push, of 53 random bits each.
    pub fn random(prefix: &'a str, groups: usize) -> Self {
        let groups = vec![[0.0; REAL_SERIES]; groups];
        Self { prefix, changes: None, groups, random: 0x2545_f491_4f6c_dd1d, tick: 0, body: String::new() }
    }

    /// A number from 0 to below 1.
    fn share(&mut self) -> f64 {
        self.random = xorshift(self.random);
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    fn start(&mut self) -> [f64; REAL_SERIES] {
        [
            self.between(1e4, 1e7).floor(),
            self.between(0.0, 1e3).floor(),
            self.between(1e8, 1e11).floor(),
            self.between(1e3, 1e5),
            self.between(0.1, 8.0),
            self.between(30.0, 70.0),
            self.between(0.01, 0.5),
            self.between(0.2, 0.99),
            self.between(1e8, 1e9).floor(),
            0.0,
        ]
    }

    /// The value of a series one push later; it always differs.
    fn step(&mut self, series: usize, value: f64) -> f64 {
        let next = match series {
            0 => value + self.between(1.0, 300.0),
            1 => value + self.between(1.0, 4.0),
            2 => value + self.between(1e3, 1e6),
            3 => value + self.between(0.02, 14.0),
            4 => (value + self.between(-0.3, 0.3)).clamp(0.05, 40.0),
            5 => (value + self.between(-1.5, 1.5)).clamp(20.0, 95.0),
            6 => (value * self.between(0.8, 1.25)).clamp(0.002, 9.0),
            7 => (value + self.between(-0.05, 0.05)).clamp(0.001, 1.0),
            8 => (value + 4096.0 * self.between(-500.0, 500.0).floor()).max(1e7),
            _ => now_seconds(),
        };
        let unit = 10_f64.powi(DECIMALS[series]);
        let (units, before) = ((next * unit).floor(), (value * unit).round());
        (if units == before { units + 1.0 } else { units }) / unit
    }

    fn write_real(&mut self, group: usize, changes: Changes) {
        let mut values = self.groups[group];
        let chosen = (self.tick / self.groups.len()) % REAL_SERIES;
        for (series, value) in values.iter_mut().enumerate() {
            if changes == Changes::All || series == chosen {
                *value = self.step(series, *value);
            }
        }
        self.groups[group] = values;
        let [ok, failed, bytes, cpu, load, celsius, latency, ratio, memory, at] = values;
        // Writing to a string cannot fail.
        let _ = write!(
            self.body,
            "# TYPE app_requests_total counter\n\
             app_requests_total{{code=\"200\"}} {ok}\napp_requests_total{{code=\"500\"}} {failed}\n\
             # TYPE app_sent_bytes_total counter\napp_sent_bytes_total {bytes}\n\
             # TYPE app_cpu_seconds_total counter\napp_cpu_seconds_total {cpu:.2}\n\
             # TYPE host_load gauge\nhost_load {load:.2}\n\
             # TYPE host_temperature_celsius gauge\nhost_temperature_celsius {celsius:.2}\n\
             # TYPE app_latency_seconds gauge\napp_latency_seconds {latency:.3}\n\
             # TYPE app_cache_hit_ratio gauge\napp_cache_hit_ratio {ratio:.3}\n\
             # TYPE app_memory_bytes gauge\napp_memory_bytes {memory}\n\
             # TYPE app_last_success_timestamp_seconds gauge\napp_last_success_timestamp_seconds {at:.3}\n"
        );
    }

    fn write_random(&mut self) {
        self.body.push_str("# TYPE noise gauge\n");
        for series in 0..RANDOM_SERIES {
            let value = self.share();
            let _ = writeln!(self.body, "noise{{series=\"{series}\"}} {value}");
        }
    }
}

impl Requests for Drift<'_> {
    fn next(&mut self, _: usize, request: &mut Vec<u8>) {
        let group = self.tick % self.groups.len();
        self.body.clear();
        match self.changes {
            Some(changes) => self.write_real(group, changes),
            None => self.write_random(),
        }
        self.tick += 1;
        request.clear();
        request.extend_from_slice(push_head(self.prefix, "PUT", "drift", group, self.body.len()).as_bytes());
        request.extend_from_slice(self.body.as_bytes());
    }
}

fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushes(drift: &mut Drift<'_>, number: usize) -> Vec<Vec<String>> {
        let mut request = Vec::new();
        let samples = |request: &[u8]| {
            let text = String::from_utf8(request.to_vec()).unwrap();
            let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
            body.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut push = |_| {
            drift.next(0, &mut request);
            samples(&request)
        };
        (0..number).map(&mut push).collect()
    }

    #[test]
    fn as_many_values_change_as_are_counted() {
        let changed = |changes| {
            let pushes = pushes(&mut Drift::real("/metrics", 1, changes), 30);
            let pairs = pushes.windows(2).map(|pair| pair[0].iter().zip(&pair[1]).filter(|(a, b)| a != b).count());
            pairs.sum::<usize>() as f64 / 29.0
        };
        assert!(changed(Changes::All) == 10.0, "{}", changed(Changes::All));
        assert!(changed(Changes::Tenth) == 1.0, "{}", changed(Changes::Tenth));
    }

    #[test]
    fn random_pushes_have_three_series() {
        assert!(pushes(&mut Drift::random("/metrics", 2), 3).iter().all(|push| push.len() == RANDOM_SERIES));
    }
}
