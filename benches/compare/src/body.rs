//! The bodies that the load pushes: their values change with every push, at the cost of overwriting digits.

use crate::load::Requests;

/// The position of a value in a body; all values have a fixed number of digits.
#[derive(Clone, Copy)]
enum Hole {
    /// Seven digits that grow by `step` a push, as counters and buckets do.
    Count { at: usize, step: u64 },
    /// Three digits, a point and two more, at random, as gauges are.
    Gauge { at: usize },
}

/// The position of a label value that differs from group to group: six digits.
#[derive(Clone, Copy)]
struct Mark {
    at: usize,
    number: usize,
}

/// A text exposition with holes for its values.
#[derive(Clone)]
pub struct Body {
    text: Vec<u8>,
    holes: Vec<Hole>,
    marks: Vec<Mark>,
}

impl Body {
    fn new() -> Self {
        Self { text: Vec::new(), holes: Vec::new(), marks: Vec::new() }
    }

    /// Three series, as a cron job pushes them.
    pub fn small() -> Self {
        let mut body = Self::new();
        body.head("backup_files_total", "counter");
        body.count("backup_files_total{outcome=\"copied\"}", 3);
        body.count("backup_files_total{outcome=\"failed\"}", 1);
        body.head("backup_duration_seconds", "gauge");
        body.gauge("backup_duration_seconds");
        body
    }

    /// Ten series in five families.
    pub fn ten() -> Self {
        let mut body = Self::new();
        for family in 0..5 {
            let name = format!("node_stage_{family}_seconds");
            body.head(&name, "gauge");
            for stage in ["read", "write"] {
                body.gauge(&format!("{name}{{stage=\"{stage}\"}}"));
            }
        }
        body
    }

    /// A hundred series: three histograms of 13 lines, 31 counters, 30 gauges, as an instrumented service has them.
    pub fn hundred() -> Self {
        let mut body = Self::new();
        for name in ["http_request_duration_seconds", "db_query_duration_seconds", "queue_wait_seconds"] {
            body.histogram(name);
        }
        body.head("http_requests_total", "counter");
        for code in 0..31 {
            body.count(&format!("http_requests_total{{code=\"{}\",method=\"GET\"}}", 200 + code), code + 1);
        }
        for gauge in 0..30 {
            let name = format!("service_pool_{gauge:02}_in_use");
            body.head(&name, "gauge");
            body.gauge(&name);
        }
        body
    }

    /// Ten families with the given number of series each (at most 1,000), about 90 bytes a line when scraped. No two
    /// groups have the same series, as with processes: a server cannot share here what it might share between equal
    /// groups.
    pub fn wide(series_a_family: usize) -> Self {
        let mut body = Self::new();
        for family in 0..10 {
            body.wide_family(family, series_a_family);
        }
        body
    }

    /// The first family of [`Body::wide`].
    pub fn wide_part(series: usize) -> Self {
        let mut body = Self::new();
        body.wide_family(0, series);
        body
    }

    fn wide_family(&mut self, family: usize, series: usize) {
        let name = format!("process_usage_{family}");
        self.head(&name, "gauge");
        for number in 0..series {
            let at = self.text.len() + name.len() + "{pid=\"".len();
            self.marks.push(Mark { at, number });
            self.gauge(&format!("{name}{{pid=\"000000\",process=\"worker-{}\"}}", number % 40));
        }
    }

    fn head(&mut self, name: &str, metric_type: &str) {
        let head = format!("# HELP {name} What the benchmark pushes.\n# TYPE {name} {metric_type}\n");
        self.text.extend_from_slice(head.as_bytes());
    }

    fn count(&mut self, series: &str, step: u64) {
        self.text.extend_from_slice(format!("{series} ").as_bytes());
        self.holes.push(Hole::Count { at: self.text.len(), step });
        self.text.extend_from_slice(b"1000000\n");
    }

    fn gauge(&mut self, series: &str) {
        self.text.extend_from_slice(format!("{series} ").as_bytes());
        self.holes.push(Hole::Gauge { at: self.text.len() });
        self.text.extend_from_slice(b"100.01\n");
    }

    fn histogram(&mut self, name: &str) {
        let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"];
        self.head(name, "histogram");
        for (bucket, bound) in bounds.iter().enumerate() {
            self.count(&format!("{name}_bucket{{le=\"{bound}\"}}"), bucket as u64 + 1);
        }
        self.gauge(&format!("{name}_sum"));
        self.count(&format!("{name}_count"), bounds.len() as u64);
    }

    /// Number of sample lines.
    pub fn len(&self) -> usize {
        self.holes.len()
    }

    /// The body's bytes.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Writes the parts that differ between groups into a copy of the body that starts at `from`.
    pub fn mark(&self, group: usize, bytes: &mut [u8], from: usize) {
        for mark in &self.marks {
            let pid = (group * 1_000 + mark.number) % 1_000_000;
            digits(&mut bytes[from + mark.at..from + mark.at + 6], pid as u64);
        }
    }

    /// Writes the values of push number `tick` into a copy of the body that starts at `from`.
    pub fn stamp(&self, tick: u64, bytes: &mut [u8], from: usize) {
        let mut random = tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for hole in &self.holes {
            match *hole {
                Hole::Count { at, step } => {
                    digits(&mut bytes[from + at..from + at + 7], 1_000_000 + tick * step % 9_000_000);
                }
                Hole::Gauge { at } => {
                    random = xorshift(random);
                    digits(&mut bytes[from + at..from + at + 3], 100 + (random >> 8) % 900);
                    digits(&mut bytes[from + at + 4..from + at + 6], (random >> 40) % 99 + 1);
                }
            }
        }
    }
}

/// One step of a small generator: good enough to be incompressible, cheap enough not to be noticed.
pub fn xorshift(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

fn digits(into: &mut [u8], mut number: u64) {
    for byte in into.iter_mut().rev() {
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The head of a push to a group.
pub fn push_head(prefix: &str, method: &str, job: &str, instance: usize, length: usize) -> String {
    format!(
        "{method} {prefix}/job/{job}/instance/host-{instance:05} HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Each connection pushes to a group of its own, again and again.
pub struct Repeat<'a> {
    pub body: &'a Body,
    pub prefix: &'a str,
    pub job: &'a str,
    pub tick: u64,
}

impl<'a> Repeat<'a> {
    pub fn new(body: &'a Body, prefix: &'a str, job: &'a str) -> Self {
        Self { body, prefix, job, tick: 0 }
    }
}

impl Requests for Repeat<'_> {
    fn next(&mut self, connection: usize, request: &mut Vec<u8>) {
        let head = push_head(self.prefix, "PUT", self.job, connection, self.body.text().len());
        if request.is_empty() {
            request.extend_from_slice(head.as_bytes());
            request.extend_from_slice(self.body.text());
            self.body.mark(connection, request, head.len());
        }
        self.tick += 1;
        self.body.stamp(self.tick, request, head.len());
    }
}

/// Pushes to one group after the other, beginning again after the last.
pub struct Each<'a> {
    pub body: &'a Body,
    pub prefix: &'a str,
    pub method: &'a str,
    pub job: &'a str,
    pub groups: usize,
    pub tick: u64,
}

impl<'a> Each<'a> {
    pub fn new(body: &'a Body, prefix: &'a str, job: &'a str, groups: usize) -> Self {
        Self { body, prefix, method: "PUT", job, groups, tick: 0 }
    }
}

impl Requests for Each<'_> {
    fn next(&mut self, _: usize, request: &mut Vec<u8>) {
        let group = self.tick as usize % self.groups;
        let head = push_head(self.prefix, self.method, self.job, group, self.body.text().len());
        request.clear();
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(self.body.text());
        self.body.mark(group, request, head.len());
        self.tick += 1;
        self.body.stamp(self.tick, request, head.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_series_they_say_and_change_with_every_push() {
        let bodies = [(Body::small(), 3), (Body::ten(), 10), (Body::hundred(), 100), (Body::wide(1000), 10_000)];
        for (body, series) in bodies {
            let lines = std::str::from_utf8(body.text()).unwrap().lines().filter(|line| !line.starts_with('#'));
            assert_eq!((body.len(), lines.count()), (series, series));
            let mut stamped = [b"head ".to_vec(), body.text().to_vec()].concat();
            body.stamp(7, &mut stamped, 5);
            assert_eq!(stamped.len(), body.text().len() + 5);
            for line in std::str::from_utf8(&stamped[5..]).unwrap().lines().filter(|line| !line.starts_with('#')) {
                assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() >= 100.0, "{line}");
            }
            assert_ne!(&stamped[5..], body.text());
        }
    }

    #[test]
    fn no_two_groups_have_the_same_wide_series() {
        let series = |group| {
            let body = Body::wide(1_000);
            let mut bytes = body.text().to_vec();
            body.mark(group, &mut bytes, 0);
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<std::collections::HashSet<_>>()
        };
        let (first, second) = (series(0), series(99));
        assert_eq!((first.len(), second.len()), (10_000, 10_000));
        assert!(first.is_disjoint(&second));
    }

    #[test]
    fn buckets_grow_towards_infinity() {
        let body = Body::hundred();
        let mut stamped = body.text().to_vec();
        body.stamp(1234, &mut stamped, 0);
        let text = String::from_utf8(stamped).unwrap();
        let buckets: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("queue_wait_seconds_bucket"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(buckets.len() == 11 && buckets.is_sorted());
    }
}
