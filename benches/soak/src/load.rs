//! The load: pushes that change their schemas, groups that come and go, deletes, pushes that must be refused, scrapes.
//!
//! Each accepted push has the series `soak_sequence`, the number of the request, so that the expected state at the end
//! is known.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;

use pushrelay_testkit::http::request;

/// Groups that stay.
const GROUPS: u64 = 150;
/// Groups that come and go: when there are more, the oldest is deleted.
const PASSING: usize = 50;
/// Most series of one push.
const SERIES_MAX: u64 = 120;

/// The load's state: the pushes so far, and the expected state.
pub struct Load {
    random: u64,
    sequence: u64,
    passing: VecDeque<String>,
    /// The `soak_sequence` of each group that was not deleted.
    pub expected: BTreeMap<String, u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Load {
    /// The same load for the same seed.
    pub fn new(seed: u64) -> Load {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Load { random, sequence: 0, passing: VecDeque::new(), expected: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// The number of requests of each kind.
    pub fn summary(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        counts.join(", ")
    }

    /// Makes one request, and checks its answer.
    pub fn push(&mut self, edge: SocketAddr) -> Result<(), String> {
        self.sequence += 1;
        let group = format!("g{}", self.below(GROUPS));
        match self.below(100) {
            0..5 if self.expected.contains_key(&group) => self.delete(edge, &group),
            5..10 => self.refused(edge, &group),
            10..20 => {
                let name = format!("p{}", self.sequence);
                self.passing.push_back(name.clone());
                if self.passing.len() > PASSING
                    && let Some(oldest) = self.passing.pop_front()
                {
                    self.delete(edge, &oldest)?;
                }
                self.accepted(edge, "PUT", &name)
            }
            20..60 => self.accepted(edge, "POST", &group),
            _ => self.accepted(edge, "PUT", &group),
        }
    }

    /// Scrapes both nodes, sometimes as other clients do, and reads a page.
    pub fn scrape(&mut self, edge: SocketAddr, hub: SocketAddr) -> Result<(), String> {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let headers: &[(&str, &str)] = match self.below(4) {
            0 | 1 => &[],
            2 => &[("accept-encoding", "gzip")],
            _ => &[("accept", protobuf)],
        };
        for server in [edge, hub] {
            self.ask(server, "GET", "/metrics", headers, "", 200, "scrapes")?;
        }
        if self.below(10) == 0 {
            self.ask(hub, "GET", "/", &[], "", 200, "pages")?;
            self.ask(edge, "GET", "/api/v1/metrics", &[], "", 200, "pages")?;
        }
        Ok(())
    }

    fn accepted(&mut self, edge: SocketAddr, method: &'static str, group: &str) -> Result<(), String> {
        let body = self.body();
        self.ask(edge, method, &path(group), &[], &body, 200, "pushes")?;
        self.expected.insert(group.to_owned(), self.sequence);
        Ok(())
    }

    fn delete(&mut self, edge: SocketAddr, group: &str) -> Result<(), String> {
        self.ask(edge, "DELETE", &path(group), &[], "", 202, "deletes")?;
        self.expected.remove(group);
        Ok(())
    }

    /// Makes a push that cannot be parsed, or that conflicts with another group; neither changes what is shown.
    fn refused(&mut self, edge: SocketAddr, group: &str) -> Result<(), String> {
        if self.below(2) == 0 || !self.expected.contains_key(group) {
            return self.ask(edge, "POST", &path(group), &[], "soak_sequence{ 1\n", 400, "refused pushes");
        }
        let body = "# TYPE soak_sequence counter\nsoak_sequence 1\n# TYPE soak_gauge histogram\nsoak_gauge_count 1\n";
        self.ask(edge, "POST", &path(group), &[], body, 400, "refused pushes")
    }

    fn body(&mut self) -> String {
        let mut body = format!("# TYPE soak_sequence gauge\nsoak_sequence {}\n", self.sequence);
        // Most pushes repeat one of a few schemas; some have a new one that never occurs again.
        let fresh = self.below(10) == 0;
        let series = if fresh { 1 + self.below(SERIES_MAX) } else { 10 * (1 + self.below(SERIES_MAX / 10)) };
        body += "# HELP soak_gauge A gauge.\n# TYPE soak_gauge gauge\n";
        for i in 0..series {
            let value = self.below(1_000_000) as f64 / 8.0;
            let _ = match fresh {
                true => writeln!(body, "soak_gauge{{i=\"{i}\",run=\"{}\"}} {value}", self.sequence),
                false => writeln!(body, "soak_gauge{{i=\"{i}\",zone=\"a\\\"b\"}} {value}"),
            };
        }
        body += "# TYPE soak_seconds histogram\n";
        for le in ["0.1", "1", "+Inf"] {
            let _ = writeln!(body, "soak_seconds_bucket{{le=\"{le}\"}} {series}");
        }
        let _ = writeln!(body, "soak_seconds_sum {}\nsoak_seconds_count {series}", series as f64 / 4.0);
        let _ = writeln!(body, "# TYPE soak_family_{0} counter\nsoak_family_{0} {1}", self.below(40), self.sequence);
        body
    }

    #[expect(clippy::too_many_arguments, reason = "a request is what it is")]
    fn ask(
        &mut self,
        server: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        status: u16,
        what: &'static str,
    ) -> Result<(), String> {
        let reply = request(server, method, path, headers, body.as_bytes());
        let reply = reply.map_err(|error| format!("{method} http://{server}{path}: {error}"))?;
        if reply.status != status {
            return Err(format!("{method} {path}: {} instead of {status}: {}", reply.status, reply.text()));
        }
        *self.counts.entry(what).or_default() += 1;
        Ok(())
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }
}

fn path(group: &str) -> String {
    format!("/metrics/job/soak/group/{group}")
}
