//! Labels, values and help that look like HTML or scripts must stay text on the pages.

use serde_json::json;

use crate::{Browser, edge};
use pushrelay_testkit::{Folder, Node};

const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>",
    "'><svg onload=alert(3)>",
    "javascript:alert(4)",
    "</summary></details></ol></main><h1 id=injected>",
    "<!--",
    "</title><style>*{display:none}</style>",
    "&lt;b&gt; &amp;quot; {{7*7}} ${7*7}",
    "a\u{202e}evil\u{2066}\u{202d}\u{0000}\u{0007}b",
    "\u{0300}\u{0489}Z̷̢̈a̵l̶g̸o̴",
    "../../../../static/page.js?x#y",
    "line\nbreak\ttab",
];

fn push_hostile(node: &Node) {
    for (i, hostile) in HOSTILE.iter().enumerate() {
        let encoded = base64url(hostile.as_bytes());
        let escaped = hostile.replace('\\', "\\\\").replace('\n', "\\n");
        let quoted = escaped.replace('"', "\\\"");
        let body =
            format!("# HELP hostile_{i} {escaped}\n# TYPE hostile_{i} gauge\nhostile_{i}{{label=\"{quoted}\"}} 1\n");
        node.put(&format!("job@base64/{encoded}/other@base64/{encoded}"), &body);
    }
    let name = "\"><script>alert(5)</script>";
    let body = format!("{{\"{}\",\"{}\"=\"x\"}} 1\n", name.replace('"', "\\\""), name.replace('"', "\\\""));
    node.put("job/names", &body);
}

#[test]
fn pushed_texts_run_no_script() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let node = edge(&folder, &["--push.enable-utf8-names", "--web.enable-admin-api"]);
    push_hostile(&node);
    browser.open(node.web(), "/");
    let groups = HOSTILE.len() as u64 + 1;
    assert_eq!(browser.count(".group"), groups);
    browser.ask("document.querySelectorAll('.group summary').forEach((summary) => summary.click())");
    browser.wait(&format!("document.querySelectorAll('.group .family').length === {groups}"));
    check(&browser, groups);
    let seen = browser.ask("document.querySelector('#list').textContent");
    for hostile in HOSTILE.iter().filter(|hostile| !hostile.contains('\0')) {
        assert!(seen.as_str().unwrap().matches(hostile).count() >= 3, "{hostile} in {seen}");
    }
    for hostile in HOSTILE {
        browser.ask(&format!("document.querySelector('#search').value = {}", json!(hostile)));
        browser.ask("document.querySelector('#search').dispatchEvent(new Event('input', {bubbles: true}))");
        let settled = format!("new URLSearchParams(location.search).get('q') === {}", json!(hostile.replace('\n', "")));
        browser.wait(&settled);
        check(&browser, 1);
    }
    let links =
        "Array.from(document.links, (link) => link.href).filter((href) => !href.startsWith(location.origin + '/'))";
    browser.open(node.web(), "/");
    assert_eq!(browser.ask(links), json!([]));
    // The dialog shows the labels too, and deletes exactly that group.
    for left in (0..groups).rev() {
        browser.click(".group > button");
        check(&browser, left + 1);
        browser.click("dialog button.danger");
        browser.wait(&format!("document.querySelectorAll('.group').length === {left}"));
    }
    browser.nothing_happened();
}

/// No element was injected, and no pushed text extends beyond its row.
fn check(browser: &Browser, groups: u64) {
    browser.nothing_happened();
    let injected = "#injected, main script, main style, main img, dialog img, dialog script, svg:not(.meter), iframe";
    assert_eq!(browser.count(injected), 0);
    assert_eq!((browser.count("main"), browser.count("h1")), (1, 1));
    assert!(browser.count(".group") <= groups);
    let wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.ask(wide), false, "the page is wider than its window");
    let isolated = "Array.from(document.querySelectorAll('.label bdi, .help')).every((value) => \
                    getComputedStyle(value).unicodeBidi === 'isolate')";
    assert_eq!(browser.ask(isolated), true);
}

/// Base64 for URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let chunks = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]))
    });
    chunks.collect()
}
