//! The pages behind an ingress, for each external URL and route prefix: all links lead to the node.

use std::collections::BTreeSet;

use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Folder, Node, Reply};

/// External URL, route prefix (`None`: not given), and the path at which the ingress serves the node.
///
/// The ingress replaces that path by the route prefix, with or without a slash at its end, as nginx does with
/// `rewrite ^/pushgateway(/|$)(.*) /$2`.
const SETTINGS: &[(&str, Option<&str>, &str)] = &[
    ("", None, ""),
    ("", Some("/"), ""),
    ("", Some("/pg"), "/pg"),
    ("", Some("/pg/"), "/pg"),
    ("http://h", None, ""),
    ("http://h/", None, ""),
    ("http://h", Some("/"), ""),
    ("http://h/", Some("/pg"), ""),
    ("http://h/pushgateway", None, "/pushgateway"),
    ("http://h/pushgateway/", None, "/pushgateway"),
    ("http://h/pushgateway", Some("/"), "/pushgateway"),
    ("http://h/pushgateway/", Some("/"), "/pushgateway"),
    ("http://h/pushgateway", Some("/pg"), "/pushgateway"),
    ("http://h/pushgateway/", Some("pg/"), "/pushgateway"),
    ("http://h/a%20b/c", Some("/"), "/a%20b/c"),
    ("/pushgateway", Some("/"), "/pushgateway"),
    ("/pushgateway/", None, "/pushgateway"),
];

/// A node behind an ingress.
struct Ingress {
    node: Node,
    /// The path before it, without a slash at its end.
    outer: String,
    /// The prefix that the node expects, without a slash at its end.
    inner: String,
}

impl Ingress {
    /// The answer to a GET of a path that a browser asks for; `None` if the path is not the node's.
    fn get(&self, path: &str) -> Option<Reply> {
        let rest = path.strip_prefix(&self.outer)?;
        // A node that sees its whole path can redirect, so that a prefix is given to it as sent.
        let rest = if rest.is_empty() && self.outer != self.inner { "/" } else { rest };
        (rest.is_empty() || rest.starts_with(['/', '?'])).then(|| self.node.get(&format!("{}{rest}", self.inner)))
    }

    /// A page and its path, after redirects.
    fn open(&self, path: &str) -> (String, String) {
        let mut path = path.to_owned();
        for _ in 0..2 {
            let reply = self.get(&path).unwrap_or_else(|| panic!("{path} does not lead to the node"));
            match reply.header("location") {
                Some(location) => path = location.to_owned(),
                None => {
                    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                    return (path, reply.text());
                }
            }
        }
        panic!("{path} is redirected again and again")
    }
}

/// A reference in a page at `path`, as a browser resolves it.
fn resolved(path: &str, reference: &str) -> String {
    if reference.starts_with('/') {
        assert!(!reference.starts_with("//"), "{reference} leads to another host");
    }
    let folder = &path[..=path.rfind('/').unwrap()];
    let whole = if reference.starts_with('/') { reference.to_owned() } else { format!("{folder}{reference}") };
    let mut parts: Vec<&str> = Vec::new();
    let slash = whole.ends_with('/') || whole.ends_with("/.") || whole.ends_with("/..");
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if slash && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

/// The references of a page: links, style, script and forms, and the addresses that the script makes from `data-root`.
fn references(page: &str) -> BTreeSet<String> {
    let of = |attribute: &str| {
        let opening = format!(" {attribute}=\"");
        let values = page.split(&opening).skip(1).map(|rest| rest.split('"').next().unwrap());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let found = [of("href"), of("src"), of("action")].concat();
    let found = found.into_iter().filter(|value| !value.starts_with(['#', '?']) && !value.starts_with("data:"));
    found.chain(of("data-root").iter().map(|root| format!("{root}api/v1/metrics"))).collect()
}

#[test]
fn every_link_leads_to_the_node() {
    for (external, prefix, outer) in SETTINGS {
        let folder = Folder::new();
        let config = "[web]\nlisten_address = [\"127.0.0.1:0\"]\n[storage]\npath = \"\"\n";
        let external_flag = (!external.is_empty()).then(|| format!("--web.external-url={external}"));
        let flags = [external_flag, prefix.map(|prefix| format!("--web.route-prefix={prefix}"))];
        let flags: Vec<&str> = flags.iter().flatten().map(String::as_str).collect();
        let inner = prefix.map_or(*outer, |prefix| prefix.trim_matches('/'));
        let inner = if inner.is_empty() || inner.starts_with('/') { inner.to_owned() } else { format!("/{inner}") };
        let mut node = Node::new(Role::Edge, folder.path(), "edge", config).flags(&flags);
        node.start_at(&inner);
        let pushed = node.request("PUT", &format!("{inner}/metrics/job/a/path@base64/L3g"), &[], b"m 1\n");
        assert_eq!(pushed.status, 200, "{flags:?}");
        let ingress = Ingress { node, outer: (*outer).to_owned(), inner };
        for page in ["", "/", "/status", "/status/group/job/a/path@base64/L3g"] {
            let address = format!("{outer}{page}");
            let (path, html) = ingress.open(if address.is_empty() { "/" } else { &address });
            let references = references(&html);
            assert!(references.len() >= 5, "{flags:?} {path}: {references:?}");
            for reference in references {
                let target = resolved(&path, &reference);
                let status = ingress.get(&target).map(|reply| reply.status);
                assert_eq!(status, Some(200), "{flags:?}, opened at {address}: {reference:?} is {target}");
            }
        }
    }
}
