//! Pushes at an edge, as at a Pushgateway, that appear at the hub.

use std::os::unix::process::CommandExt;
use std::process::Command;

use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Node, Process, Site, eventually, http, protobuf};

const PUSH_INSTANCE: &str = r#"cat <<E | curl -s -w '%{http_code}' --data-binary @- http://EDGE/metrics/job/some_job/instance/some_instance
ifeng_a_some_metric{label="test",IDC="SYQ"} 100
E"#;

const PUSH_JOB: &str =
    r#"echo "some_metric 3.14" | curl -s -w '%{http_code}' --data-binary @- http://EDGE/metrics/job/some_job"#;

const PUSH_TYPED: &str = r#"cat <<E | curl -s -w '%{http_code}' --data-binary @- http://EDGE/metrics/job/some_job/instance/some_instance
# TYPE some_metric counter
some_metric{label="val1"} 42
# TYPE another_metric gauge
# HELP another_metric Just an example.
another_metric 2398.283
E"#;

const DELETE_INSTANCE: &str =
    "curl -s -w '%{http_code}' -X DELETE http://EDGE/metrics/job/some_job/instance/some_instance";
const DELETE_JOB: &str = "curl -s -w '%{http_code}' -X DELETE http://EDGE/metrics/job/some_job";

/// A host's periodic push: its running processes, with their unusual names.
const TOP: &str = r#"
z=$(ps aux)
while read -r z
do
   var=$var$(awk '{print "cpu_usage{process=\""$11"\", pid=\""$2"\"}", $3z}');
done <<< "$z"
curl -s -w '%{http_code}' -X POST -H  "Content-Type: text/plain" --data "$var
" http://EDGE/metrics/job/top/instance/machine
"#;

/// Runs a documented command at `node`; returns the status and the output before it.
fn at(node: &Node, script: &str) -> String {
    bash(&script.replace("EDGE", &node.web().to_string()))
}

/// The value of the documented command, which happens to look like a constant of mathematics.
#[allow(clippy::approx_constant)]
const SOME_METRIC: f64 = 3.14;

const INSTANCE: [(&str, &str); 2] = [("instance", "some_instance"), ("job", "some_job")];
const AT_SYQ: [(&str, &str); 3] = [("IDC", "SYQ"), ("instance", "some_instance"), ("job", "some_job")];

#[test]
fn the_documented_commands_show_at_edge_and_hub() {
    let (_site, hub, edge) = Site::with_one_edge();

    assert_eq!(at(&edge, PUSH_INSTANCE), "200");
    let labels = [AT_SYQ.as_slice(), &[("label", "test")]].concat();
    assert_eq!(edge.page().value("ifeng_a_some_metric", &labels), Some(100.0), "at once at the edge");
    hub.shows("ifeng_a_some_metric", &labels, 100.0);
    assert_eq!(hub.page().metric_type("ifeng_a_some_metric"), Some("untyped"));

    assert_eq!(at(&edge, PUSH_TYPED), "200");
    hub.shows("some_metric", &[AT_SYQ.as_slice(), &[("label", "val1")]].concat(), 42.0);
    hub.shows("another_metric", &AT_SYQ, 2398.283);
    let page = hub.page();
    assert_eq!(page.metric_type("some_metric"), Some("counter"));
    assert_eq!(page.metric_type("another_metric"), Some("gauge"));
    assert_eq!(page.values("ifeng_a_some_metric", &AT_SYQ), [100.0], "POST leaves other families alone");
    assert!(hub.get("/metrics").text().contains("# HELP another_metric Just an example.\n"));

    assert_eq!(at(&edge, DELETE_INSTANCE), "202");
    assert!(edge.page().values("another_metric", &[]).is_empty(), "at once at the edge");
    hub.lacks("another_metric", &AT_SYQ);
    hub.lacks("push_time_seconds", &AT_SYQ);

    assert_eq!(at(&edge, PUSH_JOB), "200");
    hub.shows("some_metric", &[("IDC", "SYQ"), ("instance", ""), ("job", "some_job")], SOME_METRIC);
    assert_eq!(at(&edge, DELETE_JOB), "202");
    hub.lacks("some_metric", &[("job", "some_job")]);
}

/// In the documented order, the third command conflicts with the second about a type.
#[test]
fn a_push_of_another_type_is_refused_as_pushgateway_does() {
    let (_site, hub, edge) = Site::with_one_edge();
    assert_eq!(at(&edge, PUSH_INSTANCE), "200");
    assert_eq!(at(&edge, PUSH_JOB), "200");
    let answer = at(&edge, PUSH_TYPED);
    assert!(answer.ends_with("400"), "{answer}");
    assert!(answer.contains("pushed metrics are invalid or inconsistent with existing metrics"), "{answer}");

    let page = edge.page();
    assert!(page.values("another_metric", &[]).is_empty(), "a refused push changes no family");
    assert!(page.value("push_failure_time_seconds", &INSTANCE).unwrap() > 0.0);
    hub.shows("some_metric", &[("IDC", "SYQ")], SOME_METRIC);
    eventually("the hub shows the failure", || {
        (hub.page().values("push_failure_time_seconds", &AT_SYQ).first()? > &0.0).then_some(())
    });
}

#[test]
fn the_shell_script_pushes_every_process() {
    let (_site, hub, edge) = Site::with_one_edge();
    // `ps aux` must find names that would be syntax outside quotes.
    let odd = Process::spawn(Command::new("sleep").arg0("od{d},na=me#1").arg("300"));
    assert_eq!(at(&edge, TOP), "200");
    let pid = odd.id().to_string();
    let group = [("instance", "machine"), ("job", "top"), ("pid", &*pid)];
    assert_eq!(edge.page().values("cpu_usage", &group).len(), 1);
    let process = "od{d},na=me#1";
    hub.shows("cpu_usage", &[&group[..], &[("process", process), ("IDC", "SYQ")]].concat(), 0.0);

    assert_eq!(at(&edge, TOP), "200", "and again, as every second");
}

#[test]
fn put_replaces_post_merges_delete_removes() {
    let (_site, hub, edge) = Site::with_one_edge();
    edge.put("job/j/host/a", "x 1\ny 1\n");
    edge.push("job/j/host/a", "y{k=\"2\"} 2\n");
    edge.put("job/j/host/b", "x 3\n");
    hub.shows("x", &[("IDC", "SYQ"), ("host", "a")], 1.0);
    hub.shows("y", &[("host", "a")], 2.0);
    hub.shows("x", &[("host", "b")], 3.0);

    edge.put("job/j/host/a", "y 4\n");
    hub.lacks("x", &[("host", "a")]);
    hub.shows("y", &[("host", "a")], 4.0);

    edge.put("job/j/host/a", "");
    hub.lacks("y", &[("host", "a")]);
    hub.shows("x", &[("host", "b")], 3.0);
    let times = hub.page().values("push_time_seconds", &[("host", "a")]);
    assert_eq!(times.len(), 1, "an empty PUT empties the group and keeps it");

    edge.delete("job/j/host/a");
    hub.lacks("push_time_seconds", &[("host", "a")]);
    hub.shows("x", &[("host", "b")], 3.0);
    edge.delete("job/j/host/never");
}

#[test]
fn equal_groups_of_two_sites_stand_side_by_side() {
    let (_site, hub, syq, bj) = Site::with_two_edges();
    syq.push("job/backup", "# TYPE files gauge\nfiles{IDC=\"SYQ\"} 1\nsize 10\n");
    bj.push("job/backup", "# TYPE files gauge\nfiles{IDC=\"SYQ\"} 2\nsize 20\n");
    hub.shows("size", &[("IDC", "SYQ"), ("job", "backup")], 10.0);
    hub.shows("size", &[("IDC", "BJ"), ("job", "backup")], 20.0);
    hub.shows("files", &[("IDC", "SYQ")], 1.0);
    hub.shows("files", &[("IDC", "BJ"), ("exported_IDC", "SYQ")], 2.0);
    let exported = hub.page().values("files", &[("exported_IDC", "SYQ")]);
    assert_eq!(exported, [2.0], "a pushed label that agrees with the site labels is not added twice");
}

#[test]
fn one_bad_push_never_breaks_the_scrape() {
    let (_site, hub, syq, bj) = Site::with_two_edges();
    syq.push("job/a", "# TYPE m counter\nm 1\nx_count 1\n");
    hub.shows("m", &[("IDC", "SYQ")], 1.0);
    hub.shows("x_count", &[("IDC", "SYQ")], 1.0);
    // The family is valid at its own edge, and conflicts with another one at the hub.
    bj.push("job/a", "# TYPE m gauge\nm 2\n# TYPE x summary\nx_sum 1\nx_count 1\ngood 5\n");
    hub.shows("good", &[("IDC", "BJ")], 5.0);
    let page = hub.page();
    assert_eq!(page.metric_type("m"), Some("counter"), "the incumbent stays");
    assert_eq!(page.values("m", &[]), [1.0], "the newcomer is suppressed");
    // The edge learns of the conflict, and the hub's page shows it too.
    let failed = || bj.page().values("push_failure_time_seconds", &[("job", "a")]).pop().filter(|at| *at > 0.0);
    let at_edge = eventually("the edge knows", failed);
    assert_eq!(bj.page().values("m", &[("job", "a")]), [2.0]);
    assert_eq!(bj.page().values("pushrelay_uplink_held_back_families_total", &[]), [2.0], "m and x");
    hub.shows("push_failure_time_seconds", &[("IDC", "BJ"), ("job", "a")], at_edge);
    hub.shows("push_failure_time_seconds", &[("IDC", "SYQ"), ("job", "a")], 0.0);

    syq.delete("job/a");
    hub.shows("m", &[("IDC", "BJ")], 2.0);
    assert_eq!(hub.page().metric_type("m"), Some("gauge"), "admitted when the conflict is gone");
}

#[test]
fn the_hub_takes_pushes_of_its_own() {
    let (_site, hub, edge) = Site::with_one_edge();
    hub.push("job/local", "x 1\n");
    edge.push("job/remote", "x 2\n");
    hub.shows("x", &[("IDC", "SYQ"), ("job", "remote")], 2.0);
    assert_eq!(hub.page().value("x", &[("instance", ""), ("job", "local")]), Some(1.0));
    assert!(edge.page().values("x", &[("job", "local")]).is_empty());
}

#[test]
fn base64_labels_and_compressed_bodies_are_taken() {
    let (_site, hub, edge) = Site::with_one_edge();
    edge.push("job/j/path@base64/L3Zhci90bXA", "x 1\n");
    hub.shows("x", &[("path", "/var/tmp"), ("IDC", "SYQ")], 1.0);
    let script = "printf 'y 2\\n' | gzip | curl -s -w '%{http_code}' -H 'Content-Encoding: gzip' --data-binary @- \
                  http://EDGE/metrics/job/j";
    assert_eq!(at(&edge, script), "200");
    hub.shows("y", &[("IDC", "SYQ"), ("job", "j")], 2.0);
}

#[test]
fn a_scraper_gets_the_format_it_asks_for() {
    let (_site, hub, edge) = Site::with_one_edge();
    edge.push("job/j", "x 1\n");
    hub.shows("x", &[], 1.0);
    let address = hub.web();
    let ask = |headers: &[(&str, &str)]| http::request(address, "GET", "/metrics", headers, b"").unwrap();

    let plain = ask(&[]);
    assert!(plain.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{plain:?}");
    let binary = ask(&[("accept", protobuf::MEDIA_TYPE)]);
    assert!(binary.header("content-type").unwrap().starts_with("application/vnd.google.protobuf"), "{binary:?}");
    assert!(!binary.body.starts_with(b"#"));
    let zipped = ask(&[("accept-encoding", "gzip")]);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(zipped.body.starts_with(&[0x1f, 0x8b]));
}

#[test]
fn an_exemplar_that_changes_alone_reaches_the_hub() {
    let (_site, hub, edge) = Site::with_one_edge();
    let headers = [("content-type", protobuf::MEDIA_TYPE), ("accept", protobuf::MEDIA_TYPE)];
    for trace in ["first", "second", "third"] {
        let body = protobuf::counter_with_exemplar("hits_total", trace);
        let reply = edge.request("POST", "/metrics/job/j", &headers, &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        for node in [&edge, &hub] {
            eventually(&format!("the exemplar {trace} is shown"), || {
                let page = node.request("GET", "/metrics", &headers[1..], b"").body;
                page.windows(trace.len()).any(|part| part == trace.as_bytes()).then_some(())
            });
        }
    }
}

/// A cache between scraper and node would hide everything that happens while it serves an older answer.
#[test]
fn answers_that_change_are_not_cached() {
    let (_site, hub, edge) = Site::with_one_edge();
    for node in [&hub, &edge] {
        for path in ["/metrics", "/-/healthy", "/-/ready", "/api/v1/metrics", "/api/v1/status", "/", "/status", "/nope"]
        {
            let reply = node.get(path);
            assert!(reply.header("cache-control").is_some_and(|rule| rule.contains("no-store")), "{path}");
            let vary = (path == "/metrics").then_some("Accept, Accept-Encoding");
            assert_eq!(reply.header("vary"), vary, "{path}");
        }
    }
}
