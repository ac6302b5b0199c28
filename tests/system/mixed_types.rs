//! Sites that push one metric with different types, as during a rolling upgrade.

use pushrelay_testkit::{Node, Site, eventually};
use serde_json::json;

/// The line of the hub's page that says the type of a metric.
fn shown_type(hub: &Node, name: &str) -> Option<String> {
    let page = hub.get("/metrics").text();
    let head = format!("# TYPE {name} ");
    page.lines().find_map(|line| line.strip_prefix(&head)).map(str::to_owned)
}

#[test]
fn the_hub_shows_the_type_of_most_sites_and_says_what_it_does_not_show() {
    let (_site, mut hub, syq, bj) = Site::with_two_edges();
    bj.push("job/app", "app_total 1\n");
    hub.shows("app_total", &[("IDC", "BJ")], 1.0);
    syq.push("job/app", "# TYPE app_total counter\napp_total 2\n");
    hub.shows("pushrelay_store_held_back_families", &[("IDC", "BJ")], 1.0);
    hub.shows("pushrelay_store_mixed_type_names", &[], 1.0);
    let counter = || (shown_type(&hub, "app_total").as_deref() == Some("counter")).then_some(());
    eventually("the type that says more is shown", counter);
    hub.shows("app_total", &[("IDC", "SYQ")], 2.0);
    assert!(hub.page().values("app_total", &[("IDC", "BJ")]).is_empty());
    let page = hub.get("/?tab=held").text();
    assert!(page.contains("has type untyped here but type counter elsewhere"), "{page}");
    let text = "sites push this metric with several types: the type of most sites is shown";
    let line = hub.process().line("a line about the types", |line| {
        (line.contains(text) && line.contains("shown=counter")).then(|| line.to_owned())
    });
    assert!(line.contains("metric=app_total") && line.contains("not_shown=\"untyped (1 site)\""), "{line}");

    let line = hub.process().line("a line about the site", |line| {
        line.contains("metrics of a site are held back").then(|| line.to_owned())
    });
    let is_of = |idc: &str| line.contains(&format!("site=\"{{IDC=\\\"{idc}\\\"}}\""));
    assert!((is_of("BJ") || is_of("SYQ")) && line.contains("metric=app_total"), "{line}");
    let held_back = &hub.get("/api/v1/status").json()["data"]["health"]["held_back"];
    assert_eq!(*held_back, json!([{"site": {"IDC": "BJ"}, "families": 1}]));

    bj.put("job/app", "# TYPE app_total counter\napp_total 3\n");
    hub.shows("app_total", &[("IDC", "BJ")], 3.0);
    hub.shows("pushrelay_store_held_back_families", &[("IDC", "BJ")], 0.0);
    hub.shows("pushrelay_store_mixed_type_names", &[], 0.0);
}
