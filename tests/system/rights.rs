//! Rights and limits by subject, as pushers, scrapers and operators meet them.

use std::fs;

use pushrelay_testkit::http::{self, Reply};
use pushrelay_testkit::node::Role;
use pushrelay_testkit::{Node, Page, Site, eventually};

use super::web_security::{TLS, curl, gateway, hash, have_curl};

/// Of the tokens `token of NAME`.
const TOKENS: &str = r#"[web.tokens]
pusher = "25e33b94e53f9a99cfd553f41a4766d68e9295ac2de9536fd392957ddee21ae4"
deleter = "ea24322c25015abc55930c73b1fb8c136b7b444ec259a706cbbe96eaf2744bb2"
reader = "72f54c1fafb10a31a38159a8fcee5e21f2221c0fc27e7c07c9db1d12a44eb850"
admin = "c5543d09d8f267207c5d2e2855ef501377d400312c444a0fd2408c57c59395ef"
team-a = "9e89522a26ce3a64ce48538ce6058913df06022d9963e4c9c92d51430dfc128c"
team-b = "37ba726ce4977e65c169a5a30dd0167c394f262928e6a9d0fd1c0a6738f63969"
"#;

fn allow(subject: &str, may: &str, more: &str) -> String {
    format!("[[allow]]\n{subject}\nmay = {may}\n{more}\n")
}

/// A request with the token of that name; without credentials if the name is empty.
fn ask(node: &Node, name: &str, method: &str, path: &str, body: &str) -> Reply {
    let authorization = format!("Bearer token of {name}");
    let headers = [("Authorization", &*authorization)];
    let headers = if name.is_empty() { &[][..] } else { &headers[..] };
    http::request(node.web(), method, path, headers, body.as_bytes()).unwrap()
}

fn status(node: &Node, name: &str, method: &str, path: &str) -> u16 {
    ask(node, name, method, path, if method == "DELETE" { "" } else { "x 1\n" }).status
}

/// Methods, an example of the path, and the right of each route that the reference lists.
fn routes() -> Vec<(String, String, String)> {
    let rows = include_str!("../../docs/reference/http-api.md").lines().skip_while(|line| *line != "## Routes").skip(1);
    let rows = rows.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    let mut routes = Vec::new();
    for row in rows {
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let fixed = cells[2].split('<').next().unwrap();
        for method in cells[1].split(", ") {
            let rest = match fixed {
                "/static/" => "page.css",
                "/api/v1/edges/" if method == "PUT" => "x/retire",
                "/api/v1/groups" if method == "DELETE" => "?match[]={job=%22x%22}",
                fixed if fixed.ends_with("@base64/") => "YQ",
                fixed if fixed.ends_with('/') && cells[2].contains('<') => "x",
                _ => "",
            };
            let mut rights = cells[3].split("; ");
            let first = rights.next().unwrap();
            let own = rights.find_map(|right| right.strip_prefix(&format!("{method}: "))).unwrap_or(first);
            routes.push((method.to_owned(), format!("{fixed}{rest}"), own.to_owned()));
        }
    }
    assert!(routes.len() >= 30, "only {} routes seen", routes.len());
    routes
}

#[test]
fn each_route_needs_its_right_and_no_other() {
    let site = Site::new();
    let subjects = [("pusher", "push"), ("deleter", "delete"), ("reader", "read"), ("admin", "admin")];
    let rules: String =
        subjects.iter().map(|(name, right)| allow(&format!("token = '{name}'"), &format!("['{right}']"), "")).collect();
    let node = gateway(&site, "routes", &format!("enable_admin_api = true\n{TOKENS}{rules}"));
    let mut routes = routes();
    // The last one ends the node.
    routes.sort_by_key(|(method, path, _)| path == "/-/quit" && method != "GET");
    let quit = routes.iter().position(|(method, path, _)| path == "/-/quit" && method != "GET").unwrap();
    for (at, (method, path, right)) in routes.iter().enumerate() {
        for (name, own) in [("", "none"), ("unknown", "none")].iter().chain(&subjects) {
            let is_allowed = match &**right {
                "–" => true,
                "overview" => ["read", "admin"].contains(own),
                right => right == *own,
            };
            if is_allowed && at >= quit {
                continue;
            }
            let seen = status(&node, name, method, path);
            let expected = match (*name, is_allowed) {
                ("unknown", _) => seen == 401,
                (_, true) => ![401, 403].contains(&seen),
                (_, false) => seen == 403,
            };
            assert!(expected, "{method} {path} needs {right:?}; {name:?} got {seen}");
        }
    }
    assert_eq!(status(&node, "admin", "POST", "/-/quit"), 200);
}

fn page(node: &Node, name: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let authorization = format!("Bearer token of {name}");
    let headers: Vec<_> = headers.iter().copied().chain([("Authorization", &*authorization)]).collect();
    let reply = http::request(node.web(), "GET", path, &headers, b"").unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    if reply.header("content-encoding") == Some("gzip") { gunzip(&reply.body) } else { reply.text() }
}

fn gunzip(bytes: &[u8]) -> String {
    String::from_utf8(pushrelay::compression::gunzip(bytes, 64 << 20).unwrap()).unwrap()
}

#[test]
fn each_team_sees_and_changes_its_own_groups_alone() {
    let site = Site::new();
    let team = |name: &str| {
        let selector = format!("match = '{{team=\"{name}\"}}'");
        allow(&format!("token = 'team-{name}'"), "['push', 'delete', 'read']", &selector)
    };
    let rules = team("a") + &team("b") + &allow("token = 'admin'", "['push', 'read', 'admin']", "");
    let rules = rules + &allow("anonymous = true", "['read']", "match = '{team=\"public\"}'");
    let node = gateway(&site, "teams", &format!("{TOKENS}{rules}"));
    // Many groups: the page of everybody is cached in pieces that have groups of both teams.
    for number in 0..60 {
        for team in ["a", "b"] {
            let path = format!("/metrics/job/j{number}/team/{team}");
            let body =
                format!("m{{of=\"{team}\"}} {number}\n# A long line that makes pieces worth to be cached, {number}.\n");
            assert_eq!(ask(&node, &format!("team-{team}"), "PUT", &path, &body).status, 200);
        }
    }
    assert_eq!(status(&node, "admin", "PUT", "/metrics/job/j/team/public"), 200);
    // A metric of two types: the second is held back, and conflicts with a group of another team.
    assert_eq!(ask(&node, "team-a", "PUT", "/metrics/job/t/team/a", "# TYPE t counter\nt 1\n").status, 200);
    let refused = ask(&node, "team-b", "PUT", "/metrics/job/t/team/a", "t 1\n");
    assert_eq!(refused.status, 403);
    for part in
        ["token \"team-b\" may not push to the group {job=\"t\",team=\"a\"}", "[[allow]] rule 2", "{team=\"b\"}"]
    {
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    for gzip in ["identity", "gzip"] {
        for path in ["/metrics", "/metrics?match[]={job=~%22j.*%22}", "/metrics?match[]=m", "/metrics?shard=1/1"] {
            let accepts = [("Accept-Encoding", gzip)];
            // In this order twice: each page is cached before another subject asks.
            for name in ["admin", "team-a", "team-b", "admin", "team-a"] {
                let text = page(&node, name, path, &accepts);
                let seen = ["a", "b"].map(|team| text.matches(&format!("of=\"{team}\"")).count());
                let expected = match name {
                    "admin" => [60, 60],
                    "team-a" => [60, 0],
                    _ => [0, 60],
                };
                assert_eq!(seen, expected, "{path} {gzip} {name}");
                let is_foreign = |line: &&str| name == "team-b" && line.contains("team=\"a\"");
                assert_eq!(text.lines().find(is_foreign), None);
                let has_own = text.contains("pushrelay_store_groups");
                assert_eq!(has_own, name == "admin" && !path.contains("match"), "{path} {name}");
            }
        }
    }
    for path in ["/api/v1/metrics", "/api/v1/groups?limit=1000", "/", "/?part=list", "/api/v1/sd"] {
        let text = page(&node, "team-b", path, &[]);
        assert!(!text.contains("\"a\"") && !text.contains(">a<") && !text.contains("team=a"), "{path}: {text}");
    }
    let total = |name: &str| ask(&node, name, "GET", "/api/v1/groups", "").json()["data"]["total"].as_u64().unwrap();
    assert_eq!((total("team-a"), total("team-b"), total("admin"), total("")), (62, 61, 122, 1));
    assert_eq!(status(&node, "team-b", "GET", "/status/group/job/j1/team/a"), 403);
    assert_eq!(status(&node, "team-a", "GET", "/status/group/job/j1/team/a"), 200);
    // A delete by a selector that matches groups of both.
    let delete = |name, query: &str| {
        ask(&node, name, "DELETE", &format!("/api/v1/groups?match[]={{job=~%22j.*%22}}{query}"), "").json()
    };
    assert_eq!(delete("team-b", "&dry_run=true")["data"]["total"], 60);
    assert_eq!(delete("team-b", "")["data"]["deleted"], 60);
    assert_eq!((total("team-a"), total("team-b")), (62, 1));
    assert_eq!(status(&node, "team-b", "DELETE", "/metrics/job/j1/team/a"), 403);
    assert_eq!(status(&node, "", "DELETE", "/metrics/job/j/team/public"), 403);
    let counts = Page::parse(&page(&node, "admin", "/metrics", &[])).unwrap();
    let count = |subject: &str, result| {
        let labels = [("kind", "token"), ("subject", subject), ("result", result)];
        counts.values("pushrelay_web_subject_requests_total", &labels)
    };
    assert_eq!((count("team-b", "forbidden"), count("team-a", "forbidden")), (vec![3.0], vec![0.0]));
    assert!(count("team-b", "granted")[0] > 60.0);
}

#[test]
fn limits_refuse_with_their_rule_across_a_restart_and_a_reload_replaces_them() {
    let site = Site::new();
    let config = |limits: &str| {
        let rule = allow("token = 'pusher'", "['push', 'delete']", &format!("match = '{{team=\"a\"}}'\n{limits}"));
        let web = "[web]\nlisten_address = '127.0.0.1:0'\nenable_lifecycle = true\n";
        format!("{web}{TOKENS}{rule}{}", allow("token = 'admin'", "['admin', 'push', 'read']", ""))
    };
    let store = site.path().join("limited");
    let with_store = |limits: &str| format!("{}[storage]\npath = '{}'\n", config(limits), store.display());
    let mut node = Node::new(Role::Edge, site.path(), "limited", &with_store("groups_max = 3\nseries_max = 5"));
    node.start_listening();
    let push = |node: &Node, job: usize, body: &str| {
        let reply = ask(node, "pusher", "PUT", &format!("/metrics/job/j{job}/team/a"), body);
        (reply.status, reply.text())
    };
    for job in 0..3 {
        assert_eq!(push(&node, job, "x 1\n").0, 200);
    }
    let over = "[[allow]] rule 1 (token \"pusher\") has the limit groups_max = 3";
    for body in ["x 1\n", "no metric\n"] {
        let (status, text) = push(&node, 3, body);
        assert!([400, 403].contains(&status), "{status}");
        assert_eq!(status == 403, text.contains(over), "{text}");
    }
    assert_eq!(push(&node, 1, "x 1\ny 1\nz 1\n").0, 200, "three more series are five");
    let (status, text) = push(&node, 2, "x 1\ny 2\n");
    assert!(status == 403 && text.contains("series_max = 5"), "{status} {text}");
    let groups = |node: &Node| ask(node, "admin", "GET", "/api/v1/groups", "").json()["data"]["total"].as_u64();
    assert_eq!(groups(&node), Some(3), "no refused push makes a group");
    node.restart();
    let (status, text) = push(&node, 3, "x 1\n");
    assert!(status == 403 && text.contains(over), "{status} {text}");
    assert_eq!(ask(&node, "pusher", "DELETE", "/metrics/job/j1/team/a", "").status, 202);
    assert_eq!(push(&node, 3, "x 1\n").0, 200);
    // The operator's own rule has no limit.
    assert_eq!(self::status(&node, "admin", "PUT", "/metrics/job/j4/team/a"), 200);

    fs::write(site.path().join("limited.toml"), with_store("pushes_per_second = 2")).unwrap();
    let reloaded = ask(&node, "admin", "POST", "/-/reload", "");
    assert!(reloaded.status == 200 && reloaded.text().contains("taken: allow."), "{}", reloaded.text());
    let replies: Vec<Reply> =
        (0..20).map(|job| ask(&node, "pusher", "PUT", &format!("/metrics/job/r{job}/team/a"), "x 1\n")).collect();
    let limited: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(!limited.is_empty() && replies[..2].iter().all(|reply| reply.status == 200));
    assert_eq!(limited[0].header("retry-after"), Some("1"));
    assert!(limited[0].text().contains("rule 1 (token \"pusher\") has the limit pushes_per_second = 2"));
    assert_eq!(self::status(&node, "pusher", "GET", "/-/healthy"), 200, "health is never limited");
    eventually("the rate lets a push pass again", || {
        (self::status(&node, "pusher", "PUT", "/metrics/job/again/team/a") == 200).then_some(())
    });
    let page = Page::parse(&page(&node, "admin", "/metrics", &[])).unwrap();
    let labels = [("subject", "pusher"), ("result", "limited")];
    assert!(page.values("pushrelay_web_subject_requests_total", &labels)[0] >= limited.len() as f64);
}

#[test]
fn users_and_certificates_are_subjects_and_browsers_are_asked_for_a_password() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    site.pki(&["edge", "ci"]);
    let rules = allow("user = 'alice'", "['push']", "match = '{team=\"a\"}'")
        + &allow("certificate = 'ci'", "['push']", "match = '{team=\"b\"}'")
        + &allow("anonymous = true", "['read']", "");
    let auth = "client_auth_type = 'VerifyClientCertIfGiven'\nclient_ca_file = 'CERTS/ca.pem'\n";
    let users = format!("[web.basic_auth_users]\nalice = '{}'\nbob = '{}'\n", hash("x"), hash("y"));
    let node = gateway(&site, "subjects", &format!("{TLS}{auth}{users}{rules}"));
    let path = |name: &str| site.cert(name).display().to_string();
    let (cert, key) = (path("ci.pem"), path("ci.key"));
    let certificate = ["--cert", &*cert, "--key", &*key];
    let with = |arguments: &[&str], path: &str| {
        let push = ["--data-binary", "x 1\n", path];
        curl(&site, &node, "https", &[arguments, if path.contains("/job/") { &push } else { &push[2..] }].concat())
    };
    let (a, b) = ("/metrics/job/j/team/a", "/metrics/job/j/team/b");
    let statuses = |arguments: &[&str]| [a, b, "/metrics", "/-/ready"].map(|path| with(arguments, path).status);
    assert_eq!(statuses(&["--user", "alice:x"]), [200, 403, 200, 200]);
    assert_eq!(statuses(&certificate), [403, 200, 200, 200]);
    assert_eq!(statuses(&["--user", "bob:y"]), [403, 403, 200, 200]);
    assert_eq!(statuses(&["--user", "alice:y"]), [401; 4]);
    assert_eq!(statuses(&[]), [401, 401, 200, 200], "a password would help");
    assert_eq!(
        statuses(&[&certificate[..], &["--user", "alice:x"]].concat()),
        [200, 403, 200, 200],
        "the password counts"
    );
    let refused = with(&certificate, a).body;
    assert!(
        refused.contains("certificate \"") && refused.contains("\"ci\"") && refused.contains("{team=\"b\"}"),
        "{refused}"
    );
    let asked = with(&["--include"], a).body.to_ascii_lowercase();
    assert!(asked.contains("www-authenticate: basic"), "{asked}");
}
