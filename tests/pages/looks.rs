//! The look of the pages: contrast in light and dark, and pages that fit narrow windows.

use serde_json::{Value, json};

use crate::{ADMIN, Browser, edge, fill};
use pushrelay_testkit::Folder;

/// Texts whose contrast to their background is below 4.5:1 (WCAG 2), each with its ratio.
const TOO_FAINT: &str = r"(() => {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (rgb) => {
    const linear = rgb.slice(0, 3).map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) {
        return color;
      }
    }
    return [255, 255, 255];
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest('.sr, .skip')) {
      continue;
    }
    seen += 1;
    const pair = [light(channels(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) {
      faint.push([element.className, texts.currentNode.data.trim(), ratio]);
    }
  }
  return { seen, faint };
})()";

fn check_contrast(browser: &Browser, at_least: u64) {
    let found = browser.ask(TOO_FAINT);
    assert_eq!(found["faint"], json!([]));
    assert!(found["seen"].as_u64().unwrap() >= at_least, "{found}");
}

#[test]
fn texts_stand_out_in_light_and_dark() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, ADMIN);
    fill(&node);
    let mut grounds: Vec<Value> = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.open(node.web(), "/");
        browser.ask("document.querySelectorAll('.group summary').forEach((summary) => summary.click())");
        browser.wait("document.querySelectorAll('.group article').length === 5");
        check_contrast(&browser, 60);
        browser.photograph(&format!("groups-{scheme}"));
        browser.click("#wipe");
        check_contrast(&browser, 64);
        browser.photograph(&format!("dialog-{scheme}"));
        browser.open(node.web(), "/status");
        check_contrast(&browser, 20);
        browser.photograph(&format!("status-{scheme}"));
        grounds.push(browser.ask("getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1]);
    browser.nothing_happened();
}

#[test]
fn pages_fit_a_narrow_window() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, ADMIN);
    fill(&node);
    let metrics = json!({"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": false});
    browser.chromium("Emulation.setDeviceMetricsOverride", metrics);
    for path in ["/", "/status", "/status/group/job/backup/instance/web-1"] {
        browser.open(node.web(), path);
        let excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert!(browser.ask(excess).as_i64().unwrap() <= 0, "{path} is wider than its window");
        browser.photograph(&format!("narrow{}", path.split('/').next_back().unwrap_or_default()));
    }
    browser.nothing_happened();
}
