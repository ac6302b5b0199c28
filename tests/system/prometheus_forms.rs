//! Real Prometheuses of two generations take every form of a hub's page: text and protobuf, with each escaping. The
//! pushes are a sample of those that could spoil a page. `src/node/http/scrape/strict.rs` tries many more, with a
//! strict reader instead of a Prometheus.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use prost::Message;
use pushrelay::exposition::protobuf::message::{BucketSpan, Histogram, Metric};
use pushrelay_testkit::{Folder, Node, Site, eventually, http, protobuf, skip};

use super::prometheus::{newest_prometheus, older_prometheus, query, start_with};

/// A family with one histogram, delimited.
pub fn family(name: &str, histogram: Histogram) -> Vec<u8> {
    let metric = Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec();
    let mut family = Vec::new();
    prost::encoding::string::encode(1, &name.to_owned(), &mut family);
    prost::encoding::int32::encode(3, &4, &mut family);
    prost::encoding::bytes::encode(4, &metric, &mut family);
    let mut body = Vec::new();
    prost::encoding::encode_varint(family.len() as u64, &mut body);
    [body, family].concat()
}

/// Counts 1 and 2 in two buckets.
pub fn native() -> Histogram {
    Histogram {
        sample_count: Some(3),
        sample_sum: Some(7.5),
        schema: Some(3),
        zero_threshold: Some(1e-128),
        positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
        positive_delta: vec![1, 1],
        ..Histogram::default()
    }
}

/// Groups and bodies, each with the expected status.
const TEXTS: [(&str, &str, u16); 18] = [
    ("job/a", "m{l=\"1\"} 1\n", 200),
    ("job/a/instance/i", "m{l=\"1\"} 2\n", 200),
    ("job/utf8", "{\"a.b/c\"} 7\n", 200),
    ("job/utf8", "{\"é\"} 1\n", 200),
    // Underscores make one name of two.
    ("job/utf8", "{\"ü\"} 1\n", 400),
    ("job/other", "a_b_c 1\n", 400),
    ("job/other", "# TYPE \"a.b\" histogram\n{\"a.b_count\"} 1\n", 200),
    ("job/other", "a_b_sum 1\n", 400),
    ("job/labels", "n{\"x.y\"=\"1\",x_y=\"2\"} 5\n", 400),
    ("job/labels", "n{\"x.y\"=\"1\"} 5\nn{\"x.y\"=\"2\"} 6\n", 200),
    ("job/labels/x_y/2", "n{\"x.y\"=\"3\"} 5\n", 400),
    ("job/labels/x_y/2", "n 5\n", 400),
    ("job/empty", "e{l=\"\"} 1\ne 2\n", 400),
    ("job/empty", "e{l=\"\"} 1\ne{l=\"x\"} 2\n", 200),
    ("job/empty/l@base64/=", "f 1\n", 400),
    ("job/twice", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 2\nh_count 3\n", 400),
    ("job/twice", "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.50\"} 2\ns_count 3\n", 400),
    ("job/twice", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 2\nh_sum 4\nh_count 3\n", 200),
];

/// Families of native histograms, each with the expected status. The contradiction is one that only makes a Prometheus
/// drop the scrape.
fn natives() -> Vec<(&'static str, Histogram, u16)> {
    let span = |offset, length| vec![BucketSpan { offset: Some(offset), length: Some(length) }];
    vec![
        ("native", native(), 200),
        ("native.dotted", native(), 200),
        ("count_differs", Histogram { sample_count: Some(7), ..native() }, 400),
        ("with_nan", Histogram { sample_sum: Some(f64::NAN), sample_count: Some(5), ..native() }, 200),
        ("with_infinity", Histogram { sample_sum: Some(f64::INFINITY), ..native() }, 200),
        ("empty", Histogram { positive_span: span(0, 0), schema: Some(0), ..Histogram::default() }, 200),
        (
            "float",
            Histogram {
                sample_count_float: Some(2.5),
                sample_sum: Some(4.5),
                schema: Some(0),
                positive_span: span(1, 2),
                positive_count: vec![1.0, 1.5],
                ..Histogram::default()
            },
            200,
        ),
    ]
}

fn push_all(node: &Node) {
    for (group, body, expected) in TEXTS {
        let reply = node.request("POST", &format!("/metrics/{group}"), &[], body.as_bytes());
        assert_eq!(reply.status, expected, "{group} {body}: {}", reply.text());
    }
    for (name, histogram, expected) in natives() {
        let body = family(name, histogram);
        let reply = node.request("POST", "/metrics/job/native", &[("Content-Type", protobuf::MEDIA_TYPE)], &body);
        assert_eq!(reply.status, expected, "{name}: {}", reply.text());
    }
}

/// A version as major and minor number.
fn version(prometheus: &Path) -> (u32, u32) {
    let output = Command::new(prometheus).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let number = text.split("version ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let mut parts = number.unwrap_or_else(|| panic!("no version: {text}")).split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("no version: {text}"),
    }
}

/// The scrape jobs that ask for each form that this version can ask for, by name.
fn jobs(version: (u32, u32)) -> Vec<(&'static str, &'static str)> {
    let legacy = |scheme| ("legacy", scheme);
    match version {
        (..=2, _) => vec![("default", "")],
        _ => vec![("utf8", "allow-utf-8"), legacy("underscores"), legacy("dots"), legacy("values")],
    }
}

fn config(hub: SocketAddr, version: (u32, u32), natives: bool) -> (String, Vec<String>) {
    let mut text = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    let mut names = Vec::new();
    for (validation, scheme) in jobs(version) {
        let name = format!("{validation}-{scheme}");
        text += &format!("- job_name: {name}\n  honor_labels: true\n");
        if !scheme.is_empty() {
            text +=
                &format!("  metric_name_validation_scheme: {validation}\n  metric_name_escaping_scheme: {scheme}\n");
        }
        // A flag of older versions became an option.
        if natives && version >= (3, 8) {
            text += "  scrape_native_histograms: true\n";
        }
        // The jobs scrape the same series.
        text += &format!(
            "  static_configs: [{{targets: ['{hub}'], labels: {{instance: pushgateway}}}}]\n  metric_relabel_configs: \
             [{{target_label: form, replacement: {name}}}]\n"
        );
        names.push(name);
    }
    (text, names)
}

/// The samples of all scrapes that were there twice.
fn duplicates(prometheus: SocketAddr) -> f64 {
    let page = http::request(prometheus, "GET", "/metrics", &[], b"").unwrap().text();
    let name = "prometheus_target_scrapes_sample_duplicate_timestamp_total ";
    page.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

/// All scrape jobs of a Prometheus get the page.
fn takes_the_page(binary: &Path, hub: &Node, natives: bool) {
    let version = version(binary);
    let (config, names) = config(hub.web(), version, natives);
    let folder = Folder::new();
    let flags: &[&str] = if natives { &["--enable-feature=native-histograms"] } else { &[] };
    let (mut process, address) = start_with(binary, &folder, &config, flags);
    let mut expected: Vec<(String, String)> = names.iter().map(|name| (name.clone(), "1".to_owned())).collect();
    expected.sort();
    let mut seen = None;
    eventually(&format!("{version:?} with natives {natives} takes all forms: {expected:?}"), || {
        assert!(process.is_alive(), "Prometheus ended:\n{}", process.output());
        seen = query(address, "up", "job");
        (seen.as_ref() == Some(&expected)).then_some(())
    });
    assert_eq!(duplicates(address), 0.0, "samples that were there twice, {version:?}");
    let one = |expression: &str| query(address, expression, "form").unwrap();
    for name in &names {
        let classic = one(&format!("h_bucket{{le=~\"1|1.0\",form=\"{name}\",job=\"twice\"}}"));
        assert_eq!(classic, [(name.clone(), "1".to_owned())], "{version:?} {name}");
    }
    if version >= (3, 0) {
        let utf8 = one("{\"a.b/c\"}");
        assert_eq!(utf8, [("utf8-allow-utf-8".to_owned(), "7".to_owned())], "natives {natives}");
    }
    if natives {
        // Text would give no value here.
        let counts = one("histogram_count(native)");
        assert!(!counts.is_empty() && counts.iter().all(|(_, count)| count == "3"), "{version:?} {counts:?}");
    }
}

fn hub_with_nasty_pushes() -> (Site, Node, Node) {
    let utf8 = ["--push.enable-utf8-names"];
    let site = Site::new();
    let mut hub = site.hub().flags(&utf8);
    hub.start();
    site.pki(&["edge", "syq-1", "--label", "data_center=SYQ"]);
    let cert = |end: &str| site.cert(&format!("syq-1.{end}"));
    let mut edge = site.edge_with("syq-1", hub.line(), &cert("pem"), &cert("key")).flags(&utf8);
    edge.start();
    push_all(&hub);
    // At the edge this label is unique.
    edge.push("job/site", "o{\"data.center\"=\"x\"} 1\np 1\n");
    hub.shows("p", &[("data_center", "SYQ")], 1.0);
    assert!(hub.page().values("o", &[]).is_empty(), "two labels would have one name");
    hub.shows("pushrelay_store_held_back_families", &[("data_center", "SYQ")], 1.0);
    (site, hub, edge)
}

#[test]
fn prometheuses_of_two_generations_take_every_form_of_the_page() {
    let (_site, hub, _edge) = hub_with_nasty_pushes();
    for found in [older_prometheus(), newest_prometheus()] {
        match found {
            Ok(binary) => [false, true].into_iter().for_each(|natives| takes_the_page(binary, &hub, natives)),
            Err(reason) => skip(&reason),
        }
    }
}
