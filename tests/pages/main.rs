//! The web pages in a real browser: headless Chromium against the binary.

mod axe;
mod browser;
mod hostile;
mod looks;
mod native;

use std::io::{Read, Write};

use browser::{Browser, key};
use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Folder, Node, Site, http};
use serde_json::json;

/// A running edge with these flags, without hub and disk.
fn edge(folder: &Folder, flags: &[&str]) -> Node {
    let config = "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"\"\n";
    let mut node = Node::new(Role::Edge, folder.path(), "edge", config).flags(flags);
    node.start();
    node
}

const ADMIN: &[&str] = &["--web.enable-admin-api"];

/// Pushes metrics of every type to a few groups.
fn fill(node: &Node) {
    let body = "# HELP backup_bytes How much was written.\n# TYPE backup_bytes gauge\nbackup_bytes{disk=\"sda\"} 1.5e9\n\
                # TYPE backup_seconds histogram\nbackup_seconds_bucket{le=\"1\"} 2\nbackup_seconds_bucket{le=\"10\"} 8\n\
                backup_seconds_bucket{le=\"+Inf\"} 9\nbackup_seconds_sum 40.5\nbackup_seconds_count 9\n\
                # TYPE backup_rate summary\nbackup_rate{quantile=\"0.5\"} 3.25\nbackup_rate_sum 7\nbackup_rate_count 2\n";
    node.put("job/backup/instance/web-1", body);
    node.put("job/backup/instance/web-2", body);
    node.put("job/report", "report_rows 12\n");
    let proto = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let pushed = node.request("PUT", "/metrics/job/native", &[("content-type", proto)], &native::histogram());
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    let refused = node.request("PUT", "/metrics/job/failing", &[], b"# TYPE report_rows counter\nreport_rows 1\n");
    assert_eq!(refused.status, 400);
}

#[test]
fn groups_are_searched_opened_and_read() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, ADMIN);
    browser.open(node.web(), "/");
    assert!(browser.text("#list").contains("Nothing has been pushed yet"));
    fill(&node);
    browser.open(node.web(), "/");
    assert_eq!((browser.count(".group"), browser.count(".group.failing")), (5, 1));
    assert!(browser.text(".group.failing").contains("job=\"failing\""));
    browser.click("#search");
    browser.press("JOB=backup web");
    browser.wait("document.querySelectorAll('.group').length === 2");
    browser.press("-2");
    browser.wait("document.querySelectorAll('.group').length === 1");
    assert_eq!(browser.text("#count"), "1 group found, of 5 · last push failed in 1");
    browser.wait("location.search === '?q=JOB%3Dbackup+web-2'");
    browser.click(".group summary");
    browser.wait("document.querySelectorAll('.group .family').length === 3");
    let shown = browser.text(".group article");
    for part in
        ["backup_bytes", "gauge", "How much was written.", "disk=\"sda\"", "1.5e+09", "(1, 10]", "(10, ∞)", "3.25"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(browser.count(".group rect"), 3);
    let widths = "Array.from(document.querySelectorAll('.group rect'), (bar) => bar.getAttribute('width'))";
    assert_eq!(browser.ask(widths), json!(["33.3", "100.0", "16.7"]));
    browser.click("#failing");
    browser.wait("document.querySelector('#list').innerText.includes('No group is like this')");
    browser.nothing_happened();
}

#[test]
fn native_histograms_are_read_as_ranges() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, &[]);
    fill(&node);
    browser.open(node.web(), "/status/group/job/native");
    let shown = browser.text("article");
    for part in ["[-0.001, 0.001]", "(0.5, 1]", "(1, 2]", "(4, 8]", "count 10", "sum 27.5", "trace_id=\"<b>4711</b>\""]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let bars = "Array.from(document.querySelectorAll('.points tbody tr'), (row) => row.querySelector('td').innerText)";
    assert_eq!(browser.ask(bars), json!(["2", "1", "4", "3"]));
    assert_eq!(browser.count("rect"), 4);
    browser.nothing_happened();
}

#[test]
fn deleting_asks_first() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, ADMIN);
    fill(&node);
    let groups = || node.get("/api/v1/metrics").json()["data"].as_array().unwrap().len();
    browser.open(node.web(), "/?q=report");
    for no in ["dialog button[value=cancel]", ""] {
        browser.click(".group > button");
        assert!(browser.text("dialog").contains("Delete this group?") && browser.text("dialog").contains("report"));
        if no.is_empty() {
            browser.press(key::ESCAPE)
        } else {
            browser.click(no)
        }
        browser.wait("!document.querySelector('dialog').open");
        assert_eq!(groups(), 5);
    }
    browser.click(".group > button");
    browser.click("dialog button.danger");
    browser.wait("document.querySelectorAll('.group').length === 0");
    assert_eq!(groups(), 4);
    browser.open(node.web(), "/status/group/job/backup/instance/web-1");
    browser.click("article button.danger");
    browser.click("dialog button.danger");
    browser.wait("location.pathname === '/' && document.querySelectorAll('.group').length === 3");
    browser.click("#wipe");
    assert!(browser.text("dialog").contains("All 3 groups"));
    browser.click("dialog button[value=cancel]");
    assert_eq!(groups(), 3);
    browser.click("#wipe");
    browser.click("dialog button.danger");
    browser.wait("document.querySelector('#list').innerText.includes('Nothing has been pushed')");
    assert_eq!(groups(), 0);
    browser.nothing_happened();
}

#[test]
fn groups_that_a_selector_finds_are_deleted_after_they_were_counted() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, &[]);
    fill(&node);
    browser.open(node.web(), "/?q=backup");
    assert_eq!(browser.count("[data-delete-found]"), 0);
    browser.open(node.web(), "/?q=%7Bjob%3D%22backup%22%7D");
    browser.click("[data-delete-found]");
    browser.wait("document.querySelector('dialog').open");
    let asked = browser.text("dialog");
    assert!(asked.contains("{job=\"backup\"}") && asked.contains("These 2 groups with 6 series"), "{asked}");
    browser.click("dialog button.danger");
    browser.wait("document.querySelector('#message').innerText === '2 groups were deleted.'");
    assert_eq!(node.get("/api/v1/metrics").json()["data"].as_array().unwrap().len(), 3);
    browser.nothing_happened();
}

#[test]
fn the_page_refreshes_itself() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let mut node = edge(&folder, &[]);
    node.put("job/report", "report_rows 12\n");
    browser.open(node.web(), "/");
    assert!(browser.text(".owner").starts_with("gateway "));
    browser.click(".group summary");
    browser.wait("document.querySelectorAll('.group .family').length === 1");
    browser.ask("document.activeElement.blur()");
    node.put("job/backup", "backup_bytes 1\n");
    browser.wait("document.querySelectorAll('.group').length === 2");
    assert_eq!(browser.count(".group details[open] .family"), 1, "the opened group stays open");
    assert!(browser.text("#fresh").starts_with("as of "));
    node.kill();
    browser.wait("document.querySelector('#fresh.bad')?.innerText.startsWith('no answer since ')");
}

/// The `close` event of a dialog may arrive after the next question is open.
#[test]
fn a_late_close_event_does_not_answer_the_next_question() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, &[]);
    fill(&node);
    browser.open(node.web(), "/?q=report");
    let ask_twice = "(() => { const ask = document.querySelector('[data-delete]'); const dialog = \
                     document.querySelector('dialog'); ask.click(); dialog.close(); ask.click(); return dialog.open; })()";
    assert_eq!(browser.ask(ask_twice), true);
    browser.click("dialog button.danger");
    browser.wait("document.querySelectorAll('.group').length === 0");
    assert!(!node.page().values("report_rows", &[]).contains(&12.0));
    browser.nothing_happened();
}

#[test]
fn the_pages_can_be_used_with_a_keyboard_alone() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, &[]);
    fill(&node);
    let outlined = "getComputedStyle(document.activeElement).outlineStyle === 'solid'";
    browser.open(node.web(), "/");
    assert_eq!(browser.count("#wipe"), 0, "not without the admin API");
    browser.press(key::TAB);
    browser.wait("document.activeElement.matches('.skip')");
    browser.press("/report");
    browser.wait("document.querySelectorAll('.group').length === 1");
    assert_eq!(browser.ask("document.activeElement.id"), "search");
    browser.press(key::ENTER);
    browser.wait("document.activeElement.matches('.group summary')");
    browser.wait(outlined);
    browser.press(key::ENTER);
    browser.wait("document.querySelector('.group article .value')?.innerText === '12'");
    browser.press(key::DOWN);
    browser.wait("document.activeElement.matches('.family > summary')");
    browser.wait(outlined);
    browser.press(key::TAB);
    browser.wait("document.activeElement.matches('[data-delete]')");
    browser.wait(outlined);
    browser.press(key::ENTER);
    browser.wait("document.activeElement.value === 'cancel' && document.querySelector('dialog').open");
    browser.press(key::ESCAPE);
    browser.wait("!document.querySelector('dialog').open && document.activeElement.matches('[data-delete]')");
    browser.press(&[key::ENTER, key::TAB].concat());
    browser.wait("document.activeElement.value === 'delete'");
    browser.press(key::ENTER);
    browser.wait("document.activeElement.id === 'search' && document.querySelectorAll('.group').length === 0");
    assert!(!node.page().values("report_rows", &[]).contains(&12.0));
    browser.nothing_happened();
}

#[test]
fn pages_can_be_read_without_scripts_and_behind_a_prefix() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let config = "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"\"\n";
    let flags = ["--web.external-url=http://admin:letmein@example.org/push", "--web.route-prefix=/push"];
    let mut node = Node::new(Role::Edge, folder.path(), "edge", config).flags(&flags);
    node.start_at("/push");
    for group in ["job/a", "job/b"] {
        let reply = node.request("PUT", &format!("/push/metrics/{group}"), &[], b"m 1\n");
        assert_eq!(reply.status, 200);
    }
    browser.open(node.web(), "/push/");
    browser.click(".group summary");
    browser.wait("document.querySelector('.group article')?.innerText.includes('m')");
    browser.open(node.web(), "/push/status");
    let status = browser.text("main");
    for part in ["version", "Started", "web.route-prefix", "/push"] {
        assert!(status.contains(part), "{part} in {status}");
    }
    assert!(!status.contains("letmein") && !node.get("/push/api/v1/status").text().contains("letmein"), "{status}");
    browser.nothing_happened();
    browser.chromium("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    browser.open(node.web(), "/push/?q=job%3Db");
    assert_eq!(browser.count(".group"), 1);
    assert_eq!(browser.count(".group > button"), 1);
    assert_eq!(browser.ask("document.querySelector('.group > button').checkVisibility()"), false);
    browser.click(".group summary");
    browser.click(".group details a");
    browser.wait("document.querySelector('article .value')?.innerText === '1'");
}

#[test]
fn a_hub_shows_its_edges_and_suppressed_metrics() {
    let Some(browser) = Browser::start() else { return };
    let (_site, hub, edge) = Site::with_one_edge();
    hub.put("job/at-hub", "# TYPE conflicting gauge\nconflicting 1\n");
    edge.put("job/at-edge", "# TYPE conflicting counter\nconflicting 2\nfine 3\n");
    hub.shows("fine", &[("IDC", "SYQ")], 3.0);
    browser.open(hub.web(), "/");
    assert!(browser.text("section[aria-labelledby=wrong]").contains("No node is in trouble"));
    assert!(browser.text("section[aria-labelledby=sites]").contains("1 connected"));
    assert!(browser.text("section[aria-labelledby=held-now]").contains("IDC=\"SYQ\""));
    browser.photograph("hub");
    browser.click("nav a[href$='tab=edges']");
    browser.wait("document.querySelectorAll('.edge[data-row]').length === 1");
    let row = browser.text(".edge[data-row] summary");
    for part in ["syq-1", "IDC=\"SYQ\"", "connected", "in "] {
        assert!(row.contains(part), "{part} in {row}");
    }
    browser.click(".edge[data-row] summary");
    browser.wait("document.querySelectorAll('.edge article svg.plot').length === 2");
    let opened = browser.text(".edge article");
    for part in ["Pushes", "Lag", "Certificate expires", "Address", "job=\"at-edge\"", "pushrelay_edge_healthy"] {
        assert!(opened.contains(part), "{part} in {opened}");
    }
    browser.open(hub.web(), "/?tab=held");
    let held_back = browser.text("section[aria-labelledby=held] .held li");
    for part in [
        "conflicting",
        "counter",
        "job=\"at-edge\"",
        "IDC=\"SYQ\"",
        "gauge",
        "job=\"at-hub\"",
        "one name needs one type",
    ] {
        assert!(held_back.contains(part), "{part} in {held_back}");
    }
    browser.click("section[aria-labelledby=held] .held a");
    browser.wait("document.querySelector('article')?.innerText.includes('Not shown to scrapes')");
    browser.open(edge.web(), "/");
    assert!(browser.text("section[aria-labelledby=hubs]").contains("connected"));
    browser.open(hub.web(), "/");
    drop(edge);
    // The page refreshes itself.
    let wrong = "document.querySelector('section[aria-labelledby=wrong]').innerText";
    browser.wait(&format!("{wrong}.includes('syq-1') && {wrong}.includes('away') && {wrong}.includes('Do: ')"));
    browser.nothing_happened();
}

#[test]
fn ten_thousand_groups_are_a_page_of_a_hundred() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, &[]);
    push_many(&node, 10_000);
    browser.open(node.web(), "/");
    assert_eq!(browser.text("#count"), "1 to 100 of 10,000 groups");
    assert_eq!(browser.count(".group"), 100);
    assert!(browser.count("*") < 3_000, "{}", browser.count("*"));
    assert!(node.get("/").body.len() < 150 << 10);
    browser.photograph("many");
    browser.click(".pager a[rel=next]");
    browser.wait("document.querySelector('#count').innerText.startsWith('101 to 200')");
    browser.click("#search");
    let requests = "performance.getEntriesByType('resource').filter((e) => e.name.includes('part=list')).length";
    let before = browser.ask(requests).as_u64().unwrap();
    browser.press("host-0777");
    browser.wait("document.querySelectorAll('.group').length === 10");
    assert_eq!(browser.text("#count"), "10 groups found, of 10,000");
    let asked = browser.ask(requests).as_u64().unwrap() - before;
    assert!((1..=9).contains(&asked), "{asked} requests for 9 keys");
    assert!(node.get("/?part=list&q=host-0777").body.len() < 20 << 10);
    browser.nothing_happened();
}

/// Pushes that many groups over one connection.
fn push_many(node: &Node, groups: usize) {
    let mut stream = http::connect(node.web()).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for i in 0..groups {
            let last = if i + 1 == groups { "connection: close\r\n" } else { "" };
            let request = format!(
                "PUT /metrics/job/batch/instance/host-{i:05} HTTP/1.1\r\nhost: x\r\n{last}content-length: 4\r\n\r\nm 1\n"
            );
            sender.write_all(request.as_bytes()).unwrap();
        }
    });
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    sending.join().unwrap();
    let accepted = replies.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count();
    assert_eq!(accepted, groups);
}
