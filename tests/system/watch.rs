//! The view of operators and supervisors: health, status, own metrics, logs, the page.

use pushrelay_testkit::process::logfmt;
use pushrelay_testkit::{Node, Site, eventually};

/// Own metrics of both roles, with Pushgateway's names where the meaning is the same.
const OF_EVERY_NODE: &[&str] = &[
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "pushgateway_build_info",
    "pushgateway_http_push_duration_seconds",
    "pushgateway_http_push_size_bytes",
    "pushgateway_http_requests_total",
];

/// The metrics of each uplink at an edge.
const OF_AN_UPLINK: &[&str] = &[
    "pushrelay_uplink_acknowledged_revision",
    "pushrelay_uplink_clock_offset_seconds",
    "pushrelay_uplink_connected",
    "pushrelay_uplink_lag_seconds",
    "pushrelay_uplink_message_sent_bytes_total",
    "pushrelay_uplink_pending_revisions",
    "pushrelay_uplink_reconnects_total",
    "pushrelay_uplink_resyncs_total",
    "pushrelay_uplink_wire_received_bytes_total",
    "pushrelay_uplink_wire_sent_bytes_total",
];

/// The metrics of each edge at a hub, with the labels of its site.
const OF_AN_EDGE: &[&str] = &[
    "pushrelay_edge_certificate_expiry_timestamp_seconds",
    "pushrelay_edge_clock_offset_seconds",
    "pushrelay_edge_connected",
    "pushrelay_edge_lag_seconds",
    "pushrelay_edge_last_seen_timestamp_seconds",
    "pushrelay_edge_message_received_bytes_total",
    "pushrelay_edge_resyncs_total",
    "pushrelay_edge_revision",
    "pushrelay_edge_wire_received_bytes_total",
    "pushrelay_edge_wire_sent_bytes_total",
];

/// The store's metrics of every node.
const OF_A_STORE: &[&str] = &[
    "pushrelay_store_commit_failures_total",
    "pushrelay_store_commits_total",
    "pushrelay_store_groups",
    "pushrelay_store_held_back_families",
    "pushrelay_store_series",
];

/// Fails if one of the metrics is missing, and names all that are.
fn has(node: &Node, names: &[&str]) {
    let page = node.page();
    let families: Vec<&str> = page.families().collect();
    let missing: Vec<_> = names.iter().filter(|name| !families.contains(name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}\nof: {families:#?}");
}

#[test]
fn health_and_readiness_answer_as_pushgateway_does() {
    let (_site, hub, edge) = Site::with_one_edge();
    for node in [&hub, &edge] {
        for path in ["/-/healthy", "/-/ready"] {
            let reply = node.get(path);
            assert_eq!((reply.status, reply.text().as_str()), (200, "OK"), "{path}");
        }
    }
}

#[test]
fn the_query_api_lists_groups_with_their_metrics() {
    let (_site, hub, edge) = Site::with_one_edge();
    edge.push("job/j/k/v", "# TYPE x gauge\n# HELP x Some help.\nx{l=\"1\"} 1.5\n");
    hub.shows("x", &[("IDC", "SYQ")], 1.5);
    let at_edge = edge.get("/api/v1/metrics").json();
    assert_eq!(at_edge["status"], "success");
    let group = &at_edge["data"][0];
    assert_eq!(group["labels"], serde_json::json!({"job": "j", "k": "v"}));
    assert_eq!(group["last_push_successful"], true);
    assert_eq!(group["x"]["type"], "GAUGE");
    assert_eq!(group["x"]["help"], "Some help.");
    assert_eq!(group["x"]["metrics"][0]["value"], "1.5");
    assert_eq!(group["x"]["metrics"][0]["labels"]["l"], "1");
    let at_hub = hub.get("/api/v1/metrics").json();
    assert_eq!(at_hub["data"][0]["labels"], serde_json::json!({"IDC": "SYQ", "job": "j", "k": "v"}));
}

#[test]
fn the_status_api_tells_build_and_flags() {
    let (_site, hub, edge) = Site::with_one_edge();
    for node in [&hub, &edge] {
        let status = node.get("/api/v1/status").json();
        assert_eq!(status["status"], "success");
        assert_eq!(status["data"]["build_information"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(status["data"]["flags"]["web.listen-address"].as_str().unwrap().contains("127.0.0.1:0"));
        assert!(status["data"]["start_time"].is_string());
    }
}

#[test]
fn both_roles_show_their_own_metrics() {
    let (_site, hub, edge) = Site::with_one_edge();
    for node in [&hub, &edge] {
        node.push("job/own", "own 1\n");
        node.get("/api/v1/status");
        has(node, OF_EVERY_NODE);
        has(node, OF_A_STORE);
    }
    let pushes = [("code", "200"), ("handler", "push"), ("method", "post")];
    assert_eq!(edge.page().value("pushgateway_http_requests_total", &pushes), Some(1.0));
}

#[test]
fn the_link_is_seen_from_both_ends() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    edge.push("job/j", "x 1\n");
    hub.shows("x", &[], 1.0);
    has(&edge, OF_AN_UPLINK);
    has(&hub, OF_AN_EDGE);

    let labels = [("edge", "syq-1"), ("IDC", "SYQ")];
    hub.shows("pushrelay_edge_connected", &labels, 1.0);
    edge.shows("pushrelay_uplink_connected", &[], 1.0);
    let first = |node: &Node, name: &str| node.page().values(name, &[])[0];
    let expiry = first(&hub, "pushrelay_edge_certificate_expiry_timestamp_seconds");
    assert!(expiry > 1.7e9, "{expiry} is no time of this century's certificates");
    assert!(first(&edge, "pushrelay_uplink_wire_sent_bytes_total") > 0.0);
    assert!(first(&edge, "pushrelay_uplink_message_sent_bytes_total") > 0.0);

    hub.cut();
    hub.shows("pushrelay_edge_connected", &labels, 0.0);
    edge.shows("pushrelay_uplink_connected", &[], 0.0);
    assert_eq!(hub.page().values("x", &[]), [1.0], "a silent edge keeps its metrics");
    hub.join();
    hub.shows("pushrelay_edge_connected", &labels, 1.0);
    let reconnects = || (first(&edge, "pushrelay_uplink_reconnects_total") >= 1.0).then_some(());
    eventually("the reconnect is counted", reconnects);
    edge.kill();
    hub.shows("pushrelay_edge_connected", &labels, 0.0);
}

#[test]
fn pushed_metrics_cannot_pass_for_own_ones() {
    let (_site, hub, edge) = Site::with_one_edge();
    let body = b"# TYPE pushrelay_edge_connected counter\npushrelay_edge_connected{edge=\"syq-1\"} 7\nok 1\n";
    // At the edge the name is free. At the hub it coexists with the hub's own family or is suppressed, but the scrape
    // stays valid.
    let status = edge.request("POST", "/metrics/job/j", &[], body).status;
    assert!([200, 400].contains(&status), "{status}");
    edge.push("job/other", "ok 2\n");
    hub.shows("ok", &[("job", "other")], 2.0);
    assert_eq!(hub.page().metric_type("pushrelay_edge_connected"), Some("gauge"));
}

#[test]
fn logs_are_json_when_asked() {
    let site = Site::new();
    let mut hub = site.hub().flags(&["--log.format", "json", "--log.level", "debug"]);
    let process = hub.spawn();
    let address = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        (event["msg"] == "listening" && event["face"] == "web").then(|| event["address"].as_str().unwrap().to_owned())
    };
    let address: String = process.line("a JSON line with the address of the web listener", address);
    assert!(address.starts_with("127.0.0.1:"));
    for line in process.lines() {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["time", "level", "msg"] {
            assert!(event[field].is_string(), "no {field}: {line}");
        }
    }
}

#[test]
fn logs_are_logfmt_at_the_level_asked_for() {
    let (_site, mut hub, mut edge) = Site::with_one_edge();
    edge.push("job/j", "x 1\n");
    hub.shows("x", &[], 1.0);
    for node in [&mut hub, &mut edge] {
        let (code, output) = node.stop();
        assert_eq!(code, Some(0));
        for line in output.lines() {
            let fields = logfmt(line);
            let level = fields.iter().find(|(key, _)| key == "level").map(|(_, value)| &**value);
            assert!(["INFO", "WARN", "ERROR"].contains(&level.unwrap_or_default()), "{line}");
        }
        assert!(!output.contains("PRIVATE KEY"), "secrets never print");
    }

    let site = Site::new();
    let mut quiet = site.hub().flags(&["--log.level", "error"]);
    let process = quiet.spawn();
    process.signal("TERM");
    process.wait();
    assert_eq!(process.output(), "");
}

#[test]
fn the_page_lists_groups_and_edges() {
    let (_site, hub, edge) = Site::with_one_edge();
    edge.push("job/visible_job/place/%3Cscript%3Ealert(1)", "visible_metric 1\n");
    hub.shows("visible_metric", &[], 1.0);
    for node in [&hub, &edge] {
        let reply = node.get("/?tab=groups");
        assert_eq!(reply.status, 200);
        assert!(reply.header("content-type").unwrap().starts_with("text/html"));
        let text = reply.text();
        assert!(text.contains("visible_job"), "{text}");
        assert!(!text.contains("<script>alert(1)"), "label values are escaped");
        assert_eq!(node.get("/status").status, 200);
    }
    let text = hub.get("/?tab=edges").text();
    assert!(text.contains("syq-1") && text.contains("SYQ"), "{text}");
}

#[test]
fn a_reload_keeps_links_and_a_bad_file_keeps_the_old_one() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&["--web.enable-lifecycle"]);
    edge.start();
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    let file = site.path().join("syq-1.toml");
    let good = std::fs::read_to_string(&file).unwrap();

    std::fs::write(&file, format!("{good}\n[nonsense]\n")).unwrap();
    let reply = edge.request("POST", "/-/reload", &[], b"");
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("nonsense"), "{}", reply.text());
    let changed = good.replace("[web]\n", "[web]\nheaders = { X-Frame-Options = 'deny' }\ntelemetry_path = '/other'\n");
    std::fs::write(&file, changed).unwrap();
    let reply = edge.request("POST", "/-/reload", &[], b"");
    assert_eq!(reply.status, 200);
    assert!(
        reply.text().contains("\ntaken: web.headers\nwaits for a restart: web.telemetry-path\n"),
        "{}",
        reply.text()
    );
    std::fs::write(&file, good).unwrap();
    let reply = edge.request("POST", "/-/reload", &[], b"");
    assert!(reply.text().contains("\ntaken: web.headers\nwaits for a restart: nothing\n"), "{}", reply.text());
    edge.process().signal("HUP");
    edge.push("job/j", "x 1\n");
    hub.shows("x", &[], 1.0);
    assert!(edge.process().is_alive());
    let reconnects = edge.page().values("pushrelay_uplink_reconnects_total", &[]);
    assert_eq!(reconnects, [0.0], "links outlive a reload");
}
