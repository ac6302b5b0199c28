//! axe-core finds nothing on any page, and the pages of a hub stay small however many edges and groups it has.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Browser;
use pushrelay_testkit::{Node, Site, eventually, skip};

/// The version of axe-core, an npm package.
const AXE: &str = "axe-core@4.14.1";
/// The rules that axe applies.
const RULES: &str = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], \
                     resultTypes: ['violations']}";

/// The script of axe-core. Without npm, or a registry, it prints that the test is skipped.
fn axe() -> Option<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", AXE, "--prefix"]).arg(&folder);
        let outcome = npm.env("npm_config_cache", folder.join("cache")).output();
        if !outcome.as_ref().is_ok_and(|output| output.status.success()) {
            skip(&format!("axe does not look at the pages: {AXE} cannot be installed: {outcome:?}"));
            return None;
        }
    }
    Some(std::fs::read_to_string(script).unwrap())
}

/// Asserts that axe finds nothing on the open page.
fn check(browser: &Browser, axe: &str, page: &str) {
    browser.command("execute/sync", json!({"script": axe, "args": []}));
    let run = format!(
        "const done = arguments[arguments.length - 1]; axe.run(document, {RULES}).then((found) => \
         done({{violations: found.violations.map((one) => [one.id, one.help, one.nodes.map((node) => node.html)]), \
         passes: found.passes.length}}), (error) => done({{error: String(error)}}))"
    );
    let found = browser.command("execute/async", json!({"script": run, "args": []}));
    assert_eq!(found["violations"], json!([]), "{page}: {found}");
    assert!(found["passes"].as_u64().unwrap() > 10, "{page}: {found}");
}

/// A hub whose roll has `edges` edges that are away, in a tenth as many sites.
fn hub_with_roll(site: &Site, edges: usize) -> Node {
    let mut hub = site.hub();
    let entry = |at: usize| {
        json!({
            "name": format!("edge-{at:04}"), "site": {"IDC": format!("DC{:03}", at / 10)}, "sessions": 3,
            "last_seen_ns": 1_790_000_000_000_000_000_u64, "last_error": "nothing heard for 15000 ms",
            "software": "pushrelay 0.1.0", "groups": 12, "series": 340,
        })
    };
    let roll = json!({"version": 1, "edges": (0..edges).map(entry).collect::<Vec<Value>>()});
    std::fs::create_dir_all(hub.store()).unwrap();
    std::fs::write(hub.store().join("edges.json"), roll.to_string()).unwrap();
    hub.start();
    hub
}

const TABS: [&str; 8] = [
    "/",
    "/?tab=edges",
    "/?edge=syq-1",
    "/?tab=groups",
    "/?tab=groups&sort=busiest",
    "/?tab=held",
    "/status",
    "/status/group/job/at-hub",
];

#[test]
fn axe_finds_nothing_and_pages_fit_a_phone() {
    let Some(browser) = Browser::start() else { return };
    let site = Site::new();
    let hub = hub_with_roll(&site, 40);
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    edge.start();
    hub.put("job/at-hub", "# TYPE conflicting gauge\nconflicting 1\n");
    hub.put("job/gone", "m 1\n");
    edge.put("job/at-edge", "# TYPE conflicting counter\nconflicting 2\nfine 3\n");
    edge.put("job/nightly/instance/web-1", "fine 3\n");
    hub.shows("fine", &[("IDC", "SYQ"), ("job", "nightly")], 3.0);
    assert_eq!(hub.request("DELETE", "/metrics/job/gone", &[], b"").status, 202);
    let Some(axe) = axe() else { return };
    for path in TABS {
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            browser.open(hub.web(), path);
            check(&browser, &axe, path);
            let name: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
            browser.photograph(&format!("hub-{name}-{scheme}"));
        }
    }
    browser.prefer("light");
    browser.open(hub.web(), "/?tab=edges");
    browser.click(".edge:last-of-type summary");
    browser.wait("document.querySelector('.edge:last-of-type article')?.innerText.includes('Lag')");
    check(&browser, &axe, "an opened edge");
    browser.photograph("hub-edge-opened");
    let metrics = json!({"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": false});
    browser.chromium("Emulation.setDeviceMetricsOverride", metrics);
    for path in TABS {
        browser.open(hub.web(), path);
        let excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert!(browser.ask(excess).as_i64().unwrap() <= 0, "{path} is wider than a phone");
        let cut =
            "Array.from(document.querySelectorAll('.wide')).filter((one) => one.scrollWidth > one.clientWidth).length";
        assert_eq!(browser.ask(cut), 0, "{path} has a table that is cut on a phone");
        let name: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
        browser.photograph(&format!("phone-{name}"));
    }
    browser.nothing_happened();
}

#[test]
fn a_thousand_edges_are_pages_of_fifty() {
    let Some(browser) = Browser::start() else { return };
    let site = Site::new();
    let hub = hub_with_roll(&site, 1_000);
    browser.open(hub.web(), "/");
    assert!(browser.text("section[aria-labelledby=sites] h2").contains("1000 away"));
    assert_eq!(browser.count("section[aria-labelledby=sites] tbody tr"), 20);
    assert!(browser.text("section[aria-labelledby=wrong]").contains("and 980 more edges in trouble"));
    browser.open(hub.web(), "/?tab=edges");
    assert_eq!(browser.count(".edge[data-row]"), 50);
    assert!(browser.count("*") < 3_000, "{}", browser.count("*"));
    browser.click(".pager a[rel=next]");
    browser.wait("document.querySelector('.edge summary')?.innerText.includes('edge-0050')");
    for path in ["/", "/?tab=edges", "/?tab=edges&edges=950"] {
        let mut bytes = 0;
        // The fastest of some: other tests share the machine.
        let fastest = (0..5).map(|_| {
            let began = Instant::now();
            bytes = hub.get(path).body.len();
            began.elapsed()
        });
        let fastest = fastest.min().unwrap();
        assert!(bytes < 100 << 10 && fastest < Duration::from_secs(1), "{path}: {bytes} bytes in {fastest:?}");
    }
    browser.nothing_happened();
}

/// The pages answer HEAD, and are compressed for those who accept it.
#[test]
fn pages_are_compressed_and_have_heads() {
    let (_site, hub, edge) = Site::with_one_edge();
    for at in 0..40 {
        edge.put(&format!("job/a/instance/{at}"), "m 1\n");
    }
    eventually("the groups are there", || hub.get("/?tab=groups").text().contains("40 groups").then_some(()));
    let script = hub.get("/").text();
    let script = script.split("src=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for path in ["/", "/?tab=groups", "/?tab=edges", "/status", &format!("/{script}")] {
        let plain = hub.get(path);
        let small = hub.request("GET", path, &[("accept-encoding", "gzip")], b"");
        assert_eq!((small.status, small.header("content-encoding")), (200, Some("gzip")), "{path}");
        assert!(small.body.len() < plain.body.len(), "{path}: {} of {}", small.body.len(), plain.body.len());
        let head = hub.request("HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), plain.header("content-type"), "{path}");
    }
}
