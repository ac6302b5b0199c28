//! Filtered scrapes, shards, service discovery, and groups listed and deleted by selectors.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pushrelay_testkit::folder::binary;
use pushrelay_testkit::{Folder, Node, Page, Site, eventually, skip};
use serde_json::Value;

use super::prometheus::{newest_prometheus, older_prometheus, query, start_with};

/// A path with a selector.
fn selecting(path: &str, selector: &str) -> String {
    let encoded: String = selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("{path}?match[]={encoded}")
}

fn page(node: &Node, path: &str) -> Page {
    let reply = node.get(path);
    assert_eq!(reply.status, 200, "{}", reply.text());
    Page::parse(&reply.text()).unwrap()
}

fn groups(node: &Node, selector: &str) -> Vec<String> {
    let json = node.get(&selecting("/api/v1/groups", selector)).json();
    let groups = json["data"]["groups"].as_array().unwrap().iter();
    groups.map(|group| group["labels"].to_string()).collect()
}

#[test]
fn each_site_is_shown_with_its_own_types() {
    let (_site, hub, syq, bj) = Site::with_two_edges();
    bj.push("job/app", "app_total 1\n");
    hub.shows("app_total", &[("IDC", "BJ")], 1.0);
    syq.push("job/app", "# TYPE app_total counter\napp_total 2\n");
    hub.shows("pushrelay_store_held_back_families", &[("IDC", "BJ")], 1.0);
    for (idc, value) in [("BJ", 1.0), ("SYQ", 2.0)] {
        let of_site = page(&hub, &selecting("/metrics", &format!("{{IDC=\"{idc}\"}}")));
        assert_eq!(of_site.values("app_total", &[("IDC", idc)]), [value]);
        assert_eq!(of_site.values("push_time_seconds", &[]).len(), 1, "no other site");
        assert!(of_site.values("pushrelay_store_groups", &[]).is_empty(), "nor the node's own metrics");
    }
    let own = page(&hub, &selecting("/metrics", "pushrelay_store_groups"));
    assert_eq!(own.values("pushrelay_store_groups", &[]), [2.0]);
    let broken = hub.get("/metrics?match[]={IDC=");
    assert_eq!(broken.status, 400);
    assert_eq!(broken.text(), "selector \"{IDC=\", column 6: expected a value in quotes, found the end\n");
    assert_eq!(hub.get("/metrics?shard=3/2").status, 400);
}

#[test]
fn groups_are_listed_page_by_page_and_deleted_by_a_selector() {
    let (_site, mut hub, syq, bj) = Site::with_two_edges();
    for job in 0..5 {
        bj.push(&format!("job/ci-{job}"), "m 1\nn 2\n");
    }
    syq.push("job/ci-9", "m 1\n");
    bj.push("job/stays", "m 1\n");
    hub.push("job/ci-local", "m 1\n");
    hub.shows("pushrelay_store_groups", &[], 8.0);

    let mut path = selecting("/api/v1/groups", "{job=~\"ci-.*\",IDC=\"BJ\"}") + "&limit=2";
    let (mut seen, first) = (Vec::new(), path.clone());
    loop {
        let data = hub.get(&path).json()["data"].clone();
        assert_eq!(data["total"], 5);
        for group in data["groups"].as_array().unwrap() {
            assert_eq!((&group["series"], &group["site"]["IDC"]), (&Value::from(2), &Value::from("BJ")));
            seen.push(group["labels"]["job"].as_str().unwrap().to_owned());
        }
        let Some(next) = data["next"].as_str() else { break };
        path = format!("{first}&after={next}");
    }
    assert_eq!(seen, ["ci-0", "ci-1", "ci-2", "ci-3", "ci-4"]);

    let path = selecting("/api/v1/groups", "{job=~\"ci-.*\",IDC=~\"BJ|SYQ\"}");
    let dry = hub.request("DELETE", &format!("{path}&dry_run=true"), &[], b"").json();
    let counts = |json: &Value| ["total", "series", "deleted"].map(|name| json["data"][name].as_u64().unwrap());
    assert_eq!(counts(&dry), [6, 11, 0]);
    hub.shows("pushrelay_store_groups", &[], 8.0);
    let deleted = hub.request("DELETE", &path, &[], b"").json();
    assert_eq!(counts(&deleted), [6, 11, 6]);
    assert_eq!(groups(&hub, "{job=~\".+\"}").len(), 2);
    // The deletes travel to the edges, and survive a restart of the hub.
    syq.lacks("m", &[]);
    bj.lacks("m", &[("job", "ci-0")]);
    bj.shows("m", &[("job", "stays")], 1.0);
    let line = hub.process().line("the delete", |line| line.contains("deleted by a selector").then(|| line.to_owned()));
    assert!(line.contains("groups=6") && line.contains("series=11") && line.contains("BJ|SYQ"), "{line}");
    hub.restart();
    eventually("the deletes are durable", || (groups(&hub, "{job=~\".+\"}").len() == 2).then_some(()));

    for (path, part) in [
        ("/api/v1/groups", "match[] is missing"),
        ("/api/v1/groups?match[]={}", "at least one matcher"),
        ("/api/v1/groups?match[]=m", "__name__ selects series"),
    ] {
        let refused = hub.request("DELETE", path, &[], b"");
        assert!(refused.status == 400 && refused.text().contains(part), "{}", refused.text());
    }
    let unknown = hub.request("DELETE", &selecting("/api/v1/groups", "{nowhere=\"x\"}"), &[], b"");
    assert_eq!((unknown.status, counts(&unknown.json())), (200, [0, 0, 0]));
    assert_eq!(hub.get("/api/v1/groups?after=x").status, 400);
    let preflight = hub.request("OPTIONS", "/api/v1/groups", &[], b"");
    assert!(preflight.header("access-control-allow-methods").is_none());
}

/// Runs `pushrelay groups` on a node: the exit code, and both outputs.
fn command(node: &Node, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.arg("groups").args(arguments).env("PUSHRELAY_NODE", format!("http://{}", node.web()));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_lists_and_deletes() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    for job in ["a", "b"] {
        hub.push(&format!("job/{job}"), "m 1\n");
    }
    let (code, out, err) = command(&hub, &["list", "--match", "{job=\"a\"}"]);
    assert_eq!((code, &*err), (Some(0), ""));
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["labels"]["job"]), (1, &Value::from("a")));
    let (code, out, _) = command(&hub, &["delete", "--match", "{job=~\"a|b\"}", "--dry-run"]);
    assert!(code == Some(0) && out.contains("\"deleted\":0") && out.contains("\"total\":2"), "{out}");
    let (code, out, _) = command(&hub, &["delete", "--match", "{job=\"a\"}"]);
    assert!(code == Some(0) && out.contains("\"deleted\":1"), "{out}");
    assert_eq!(groups(&hub, "{job=~\".+\"}"), ["{\"job\":\"b\"}"]);

    let (code, _, err) = command(&hub, &["delete", "--match", "{job=\"a\""]);
    assert!(code == Some(2) && err.contains("column 9: expected a comma or }, found the end"), "{err}");
    assert_eq!(command(&hub, &["delete"]).0, Some(2), "a delete needs a selector");
    let (code, _, err) = command(&hub, &["list", "--node", "hub:9091"]);
    assert!(code == Some(1) && err.contains("is no URL of a node"), "{err}");
    let (code, _, err) = command(&hub, &["list", "--node", "http://127.0.0.1:1"]);
    assert!(code == Some(1) && err.contains("cannot connect to 127.0.0.1:1"), "{err}");
}

const DISCOVERY: &str = "
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: shards
  honor_labels: true
  http_sd_configs: [{url: 'http://HUB/api/v1/sd?shards=4', refresh_interval: 1s}]
  metric_relabel_configs: [{target_label: by, replacement: shards}]
- job_name: sites
  honor_labels: true
  http_sd_configs: [{url: 'http://HUB/api/v1/sd', refresh_interval: 1s}]
  metric_relabel_configs: [{target_label: by, replacement: sites}]
- job_name: whole
  honor_labels: true
  static_configs: [{targets: ['HUB'], labels: {instance: pushrelay}}]
  metric_relabel_configs: [{target_label: by, replacement: whole}]
";

/// The series of one scrape job, each with its labels, without the label that names the job.
fn series(prometheus: std::net::SocketAddr, by: &str, expression: &str) -> Option<BTreeSet<String>> {
    let encoded: String = expression.replace("BY", by).bytes().map(|byte| format!("%{byte:02x}")).collect();
    let reply =
        pushrelay_testkit::http::request(prometheus, "GET", &format!("/api/v1/query?query={encoded}"), &[], b"");
    let json = reply.ok().filter(|reply| reply.status == 200)?.json();
    let metric = |item: &Value| {
        let mut metric = item["metric"].clone();
        metric.as_object_mut()?.remove("by");
        Some(metric.to_string())
    };
    json["data"]["result"].as_array()?.iter().map(metric).collect()
}

#[test]
fn real_prometheuses_scrape_shards_and_sites_that_they_discover() {
    let (_site, hub, syq, bj) = Site::with_two_edges();
    for job in 0..40 {
        bj.push(&format!("job/j{job}"), "m{k=\"1\"} 1\nm{k=\"2\"} 2\n");
    }
    syq.push("job/app", "# TYPE app_total counter\napp_total 2\n");
    hub.shows("app_total", &[], 2.0);
    bj.push("job/app", "app_total 1\n");
    hub.push("job/local", "m 3\n");
    hub.shows("pushrelay_store_groups", &[], 43.0);
    for found in [older_prometheus(), newest_prometheus()] {
        let binary = match found {
            Ok(binary) => binary,
            Err(reason) => {
                skip(&reason);
                continue;
            }
        };
        let folder = Folder::new();
        let config = DISCOVERY.replace("HUB", &hub.web().to_string());
        let (mut process, address) = start_with(binary, &folder, &config, &[]);
        let mut seen = None;
        eventually("Prometheus scrapes 4 shards, 3 targets for 2 sites and the whole", || {
            assert!(process.is_alive(), "Prometheus ended:\n{}", process.output());
            seen = query(address, "count by (job) (up == 1)", "job");
            let expected = [("shards", "4"), ("sites", "3"), ("whole", "1")];
            let expected: Vec<_> = expected.iter().map(|(job, up)| ((*job).to_owned(), (*up).to_owned())).collect();
            (seen.as_ref() == Some(&expected)).then_some(())
        });
        let pushed = "{__name__=~\"m|push_time_seconds\",by=\"BY\"}";
        eventually("all jobs see the same series", || {
            let whole = series(address, "whole", pushed)?;
            let [shards, sites] = ["shards", "sites"].map(|by| series(address, by, pushed));
            (whole.len() == 81 + 43 && shards.as_ref() == Some(&whole) && sites.as_ref() == Some(&whole)).then_some(())
        });
        // The whole page and its shards hide the type of one site. A scrape of each site does not.
        let totals = |by: &str| series(address, by, "app_total{by=\"BY\"}").unwrap().len();
        assert_eq!((totals("whole"), totals("shards"), totals("sites")), (1, 1, 2));
        // A real Prometheus selects the same series as the filtered scrape.
        for selector in [
            "{k=~\"1\",job!~\"j1.*\"}",
            "{job=~\"j.|app\",k!=\"2\",IDC=\"BJ\"}",
            "m{IDC=\"\"}",
            "{IDC=\"BJ\",k=\"\",job=~\"j.*\"}",
        ] {
            let expression = selector.replacen('}', ",by=\"BY\"}", 1);
            let expected = series(address, "sites", &expression).unwrap();
            let scraped = hub.get(&selecting("/metrics", selector)).text();
            let own = scraped.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(own, expected.len(), "{selector}: {expected:?}\n{scraped}");
        }
    }
}

/// Each delete is an ordinary write, so pushes go on between.
#[test]
fn pushes_go_on_while_many_groups_are_deleted() {
    const GROUPS: usize = 5_000;
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    std::thread::scope(|scope| {
        for part in 0..8 {
            let hub = &hub;
            scope.spawn(move || {
                for group in (part..GROUPS).step_by(8) {
                    hub.push(&format!("job/many/instance/{group}"), "m 1\n");
                }
            });
        }
    });
    let deleting = std::thread::scope(|scope| {
        let hub = &hub;
        let deleting = scope.spawn(move || {
            let began = Instant::now();
            let reply = hub.request("DELETE", &selecting("/api/v1/groups", "{job=\"many\"}"), &[], b"");
            assert_eq!(reply.json()["data"]["deleted"], GROUPS);
            began.elapsed()
        });
        let mut slowest = Duration::ZERO;
        while !deleting.is_finished() {
            let began = Instant::now();
            hub.push("job/other", "m 2\n");
            slowest = slowest.max(began.elapsed());
        }
        let took = deleting.join().unwrap();
        assert!(slowest < took / 2, "a push waited {slowest:?} of {took:?}");
        took
    });
    assert!(deleting < Duration::from_secs(30), "{deleting:?}");
    assert_eq!(groups(&hub, "{job=~\".+\"}"), ["{\"job\":\"other\"}"]);
}
