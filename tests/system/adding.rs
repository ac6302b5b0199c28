//! Pushes that add, with real nodes: exactly once, whatever is killed meanwhile.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pushrelay_testkit::http::Client;
use pushrelay_testkit::{Node, Site, eventually};

const CONNECTIONS: usize = 64;
const PUSHES: usize = 100;
/// The increment of each push.
const VALUE: usize = 3;

/// Adds a body to a group, and returns status and text.
fn add(node: &Node, group: &str, key: &str, body: &str) -> (u16, String) {
    let headers = [("idempotency-key", key)];
    let headers = if key.is_empty() { &headers[..0] } else { &headers[..] };
    let reply = node.request("POST", &format!("/aggregate/metrics/{group}"), headers, body.as_bytes());
    (reply.status, reply.text())
}

/// Pushes that repeat a request until it is answered, each under its own key. A node that was killed has another
/// address then.
fn push_all(connection: usize, address: &Mutex<SocketAddr>, answered: &AtomicUsize) {
    let server = || *address.lock().unwrap();
    let mut client = Client::new(server(), Duration::from_secs(20));
    for push in 0..PUSHES {
        let body = format!("# TYPE runs_total counter\nruns_total {VALUE}\n");
        let head = "POST /aggregate/metrics/job/ci HTTP/1.1\r\nhost: edge\r\n";
        let request =
            format!("{head}idempotency-key: {connection}-{push}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let reply = || match client.send("POST", request.as_bytes(), |_| {}) {
            Ok((head, _)) => Some(head.status),
            Err(_) => {
                client = Client::new(server(), Duration::from_secs(20));
                None
            }
        };
        assert_eq!(eventually("a push is answered", reply), 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn increments_are_counted_once_though_nodes_are_killed() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    let (address, answered) = (Mutex::new(edge.web()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (address, answered) = (&address, &answered);
            scope.spawn(move || push_all(connection, address, answered));
        }
        for part in [4, 2] {
            let many = || (answered.load(Ordering::Relaxed) >= CONNECTIONS * PUSHES / part).then_some(());
            eventually("a part of the pushes is answered", many);
            edge.restart();
            *address.lock().unwrap() = edge.web();
            hub.restart();
        }
    });
    // Pushed at the hub itself, to the group of the edge.
    assert_eq!(add(&hub, "job/ci/IDC/SYQ", "", "# TYPE runs_total counter\nruns_total 7\n").0, 200);
    let sum = (CONNECTIONS * PUSHES * VALUE + 7) as f64;
    hub.shows("runs_total", &[("job", "ci"), ("IDC", "SYQ")], sum);
    edge.shows("runs_total", &[("job", "ci")], sum);
    // An edge that lost its disk gets its sum back, and goes on.
    edge.wipe();
    edge.start();
    edge.shows("runs_total", &[("job", "ci")], sum);
    assert_eq!(add(&edge, "job/ci", "", "# TYPE runs_total counter\nruns_total 1\n").0, 200);
    hub.shows("runs_total", &[("job", "ci"), ("IDC", "SYQ")], sum + 1.0);
    hub.delete("job/ci/IDC/SYQ");
    edge.lacks("runs_total", &[("job", "ci")]);
    assert_eq!(add(&edge, "job/ci", "", "# TYPE runs_total counter\nruns_total 2\n").0, 200);
    hub.shows("runs_total", &[("job", "ci"), ("IDC", "SYQ")], 2.0);
}

#[test]
fn increments_that_do_not_fit_are_refused_and_change_nothing() {
    let (_site, _hub, edge) = Site::with_one_edge();
    let histogram = |bound: &str| {
        format!(
            "# TYPE h histogram\nh_bucket{{le=\"{bound}\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_sum 3\nh_count 2\n\
             # TYPE c counter\nc 1\n# TYPE g gauge\ng 5\n# TYPE s summary\ns{{quantile=\"0.5\"}} 1\ns_sum 4\ns_count 1\n"
        )
    };
    for _ in 0..2 {
        assert_eq!(add(&edge, "job/a", "once", &histogram("1")), (200, String::new()));
    }
    assert_eq!(add(&edge, "job/a", "", &histogram("1")).0, 200);
    let page = |edge: &Node| edge.get("/metrics").text();
    let shown = page(&edge);
    for line in [
        "h_bucket{instance=\"\",job=\"a\",le=\"1\"} 2",
        "h_bucket{instance=\"\",job=\"a\",le=\"+Inf\"} 4",
        "h_sum{instance=\"\",job=\"a\"} 6",
        "h_count{instance=\"\",job=\"a\"} 4",
        "c{instance=\"\",job=\"a\"} 2",
        "g{instance=\"\",job=\"a\"} 5",
        "s_sum{instance=\"\",job=\"a\"} 8",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    assert!(!shown.lines().any(|line| line.starts_with("s{")), "quantiles are dropped: {shown}");
    let long = "k".repeat(256);
    for (key, body, status, text) in [
        ("", histogram("2"), 400, "pushed le = 2 +Inf; the sum has le = 1 +Inf"),
        ("", "# TYPE c counter\nc -1\n".into(), 400, "a value of -1 is negative: a counter only grows"),
        ("", "# TYPE c counter\nc NaN\n".into(), 400, "a value of NaN cannot be added"),
        ("", "# TYPE c gauge\nc 1\n".into(), 400, "is pushed as gauge but the sum is of the type counter"),
        ("once", "# TYPE c counter\nc 1\n".into(), 422, "was used for a push with another body"),
        (&long, "# TYPE c counter\nc 1\n".into(), 400, "has 256 bytes: 1 to 255 are allowed"),
    ] {
        let (found, reason) = add(&edge, "job/a", key, &body);
        assert!(found == status && reason.contains(text), "{found} {reason}");
    }
    let reply = edge.request("PUT", "/metrics/job/a", &[], b"c 1\n");
    assert_eq!((reply.status, reply.text().contains("adds up")), (409, true), "{}", reply.text());
    edge.push("job/plain", "c2 1\n");
    let (status, reason) = add(&edge, "job/plain", "", "c2 1\n");
    assert_eq!((status, reason.contains("does not add up")), (409, true), "{reason}");
    let sums = |page: &str| {
        let lines = page.lines().filter(|line| line.contains("job=\"a\"") && !line.contains("push_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sums(&page(&edge)), sums(&shown));
    // In protobuf, the sum has the time at which it began.
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text";
    let text = edge.request("GET", "/metrics", &[("accept", accept)], b"").text();
    assert_eq!(text.matches("created_timestamp").count(), 3, "of c, h and s: {text}");
    edge.delete("job/a");
    edge.push("job/a", "c 1\n");
}

/// Takes a minute with an optimized node: `cargo test --release --test system -- --ignored a_million_increments`.
#[test]
#[ignore = "long; run it with an optimized build"]
fn a_million_increments_from_64_connections_end_at_the_right_number() {
    let site = Site::new();
    let mut node = site.hub();
    node.start();
    const INCREMENTS: usize = 1_000_000 / CONNECTIONS;
    let (server, started) = (node.web(), std::time::Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(move || {
                let body = "# TYPE runs_total counter\nruns_total 1\n";
                let head = "POST /aggregate/metrics/job/ci HTTP/1.1\r\nhost: hub\r\n";
                let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                let mut client = Client::new(server, Duration::from_secs(20));
                for _ in 0..INCREMENTS {
                    assert_eq!(client.send("POST", request.as_bytes(), |_| {}).unwrap().0.status, 200);
                }
            });
        }
    });
    let total = (CONNECTIONS * INCREMENTS) as f64;
    println!("{total} increments in {:.1} s", started.elapsed().as_secs_f64());
    node.shows("runs_total", &[("job", "ci")], total);
    node.shows("pushrelay_store_added_pushes_total", &[], total);
    node.restart();
    node.shows("runs_total", &[("job", "ci")], total);
}
