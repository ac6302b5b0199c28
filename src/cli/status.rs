//! `pushrelay status` and `pushrelay edges`: the health of a running node, and of the edges of a hub.

use std::io::{self, IsTerminal, Write};

use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use super::node_url::NodeUrl;
use super::table::{print, shown};

/// The arguments of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusCommand {
    /// Only ask whether the node is ready, as the health check of a container does
    #[arg(long)]
    ready: bool,
    /// Print JSON. Text is printed only on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

/// The arguments of `edges`.
#[derive(Clone, Debug, Args)]
pub struct EdgesCommand {
    /// Print JSON. A table is printed only on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeUrl,
}

impl StatusCommand {
    /// Prints the state of the node. Returns whether it is healthy: no trouble of its own, every hub connected, no edge
    /// with a trouble.
    ///
    /// # Errors
    /// The node cannot be reached, or nothing can be printed.
    pub fn run(self) -> Result<bool, String> {
        if self.ready {
            return Ok(self.node.send("GET", "/-/ready", Bytes::new())?.status == 200);
        }
        let mut answer = self.node.json("GET", "/api/v1/status")?;
        let mut data = answer["data"].take();
        let health = data["health"].take();
        if !health.is_object() {
            return Err(format!("{} tells no health: is it a Pushgateway, or an older pushrelay?", self.node.url()));
        }
        let edges = self.node.json("GET", "/api/v1/edges")?["data"].take();
        let is_healthy = is_healthy(&health, &edges);
        let mut out = io::stdout().lock();
        let printed = if self.json || !out.is_terminal() {
            let (build, started) = (&data["build_information"], &data["start_time"]);
            let all = serde_json::json!({
                "healthy": is_healthy, "build": build, "start_time": started, "health": health, "edges": states(&edges),
            });
            writeln!(out, "{all}")
        } else {
            print_status(&self.node.url(), &data, &health, &edges, &mut out)
        };
        printed.map(|()| is_healthy).map_err(|error| format!("cannot print: {error}"))
    }
}

impl EdgesCommand {
    /// Prints the roll of a hub. Returns whether no edge has a trouble.
    ///
    /// # Errors
    /// The node cannot be reached, or nothing can be printed.
    pub fn run(self) -> Result<bool, String> {
        let edges = self.node.json("GET", "/api/v1/edges")?["data"].take();
        let mut out = io::stdout().lock();
        let printed = match self.json || !out.is_terminal() {
            true => writeln!(out, "{edges}"),
            false => print_edges(&edges, &mut out),
        };
        printed.map(|()| items(&edges).iter().all(is_good)).map_err(|error| format!("cannot print: {error}"))
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or("-")
}

/// Whether an edge has no trouble, or is out of service.
fn is_good(edge: &Value) -> bool {
    ["connected", "retired"].contains(&text(edge, "state"))
}

fn is_healthy(health: &Value, edges: &Value) -> bool {
    let is_linked = items(&health["uplinks"]).iter().all(|uplink| uplink["connected"] == true);
    items(&health["troubles"]).is_empty() && is_linked && items(edges).iter().all(is_good)
}

/// The number of edges in each state.
fn states(edges: &Value) -> serde_json::Map<String, Value> {
    let mut states = serde_json::Map::new();
    for edge in items(edges) {
        let count = states.entry(text(edge, "state")).or_insert(0.into());
        *count = (count.as_u64().unwrap_or_default() + 1).into();
    }
    states
}

fn print_status(url: &str, data: &Value, health: &Value, edges: &Value, out: &mut dyn Write) -> io::Result<()> {
    let build = &data["build_information"];
    let (role, version, revision) = (text(build, "role"), text(build, "version"), text(build, "revision"));
    writeln!(
        out,
        "{} {} ({}) at {url}, since {}",
        shown(role),
        shown(version),
        shown(revision),
        shown(text(data, "start_time"))
    )?;
    writeln!(out, "store: {} groups, {} series", health["groups"], health["series"])?;
    for uplink in items(&health["uplinks"]) {
        let state = match uplink["connected"] == true {
            true => "connected".to_owned(),
            false => format!("NOT CONNECTED: {}", shown(text(uplink, "last_error"))),
        };
        let (hub, pending) = (shown(text(uplink, "hub")), uplink["pending"].as_u64().unwrap_or_default());
        let waits = if pending > 0 { format!(", {pending} changes wait") } else { String::new() };
        writeln!(out, "hub {hub}: {state}{waits}")?;
    }
    for receiver in items(&health["receivers"]) {
        let (name, error) = (shown(text(receiver, "name")), text(receiver, "last_error"));
        let state = match (error, &receiver["last_success"]) {
            ("", Value::String(at)) => format!("written at {}", shown(at)),
            ("", _) => "nothing is written yet".into(),
            (error, _) => format!("NOT WRITTEN: {}", shown(error)),
        };
        writeln!(out, "receiver {name}: {state}")?;
    }
    let states: Vec<String> = states(edges).iter().map(|(state, count)| format!("{count} {}", shown(state))).collect();
    if !states.is_empty() {
        writeln!(out, "edges: {}", states.join(", "))?;
    }
    for trouble in items(&health["troubles"]) {
        writeln!(out, "TROUBLE: {}: {}", shown(text(trouble, "text")), shown(text(trouble, "remedy")))?;
    }
    for edge in items(edges).iter().filter(|edge| !is_good(edge)) {
        let trouble = &edge["troubles"][0];
        writeln!(out, "TROUBLE: edge {}: {}", shown(text(edge, "name")), shown(text(trouble, "text")))?;
    }
    writeln!(out, "{}", if is_healthy(health, edges) { "OK" } else { "NOT OK" })
}

fn print_edges(edges: &Value, out: &mut dyn Write) -> io::Result<()> {
    let head = ["NAME", "STATE", "SITE", "LAST SEEN", "GROUPS", "VERSION", "TROUBLE"].map(str::to_owned);
    let row = |edge: &Value| {
        let site = edge["site"].as_object().into_iter().flatten();
        let site = site.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
        let groups = edge["groups"].as_u64().map_or("-".to_owned(), |groups| groups.to_string());
        let seen = text(edge, "last_seen").split('.').next().unwrap_or_default();
        let own = |name: &str| text(edge, name).to_owned();
        let trouble = edge["troubles"][0]["text"].as_str().unwrap_or_default();
        let version = text(edge, "software").trim_start_matches("pushrelay ").to_owned();
        [own("name"), own("state"), site.collect::<Vec<_>>().join(" "), seen.into(), groups, version, trouble.into()]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(items(edges).iter().map(row)).collect();
    print(&rows, out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_healthy_if_nothing_has_a_trouble() {
        let good = json!({"groups": 1, "series": 2, "troubles": [], "uplinks": [{"hub": "h:1", "connected": true}]});
        let edges = |state: &str| json!([{"name": "a", "state": state, "troubles": [{"text": "it is away"}], "site": {"IDC": "BJ"}}]);
        assert!(is_healthy(&good, &edges("connected")) && is_healthy(&good, &edges("retired")));
        for state in ["away", "degraded", "refused"] {
            assert!(!is_healthy(&good, &edges(state)), "{state}");
        }
        let cut = json!({"troubles": [], "uplinks": [{"hub": "h:1", "connected": false, "last_error": "no route", "pending": 3}],
            "receivers": [{"name": "vm", "last_error": "status 401: no"}, {"name": "b", "last_error": ""},
                {"name": "c", "last_error": "", "last_success": "2026-11-30T00:00:00Z"}]});
        assert!(!is_healthy(&cut, &json!([])));
        let mut out = Vec::new();
        print_status("http://n", &json!({"build_information": {"role": "hub"}}), &cut, &edges("away"), &mut out)
            .unwrap();
        print_edges(&edges("away"), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "hub h:1: NOT CONNECTED: no route, 3 changes wait",
            "receiver vm: NOT WRITTEN: status 401: no",
            "receiver b: nothing is written yet",
            "receiver c: written at 2026-11-30T00:00:00Z",
            "edges: 1 away",
            "TROUBLE: edge a: it is away",
            "NOT OK",
            "NAME  STATE  SITE    LAST SEEN  GROUPS  VERSION  TROUBLE",
            "a     away   IDC=BJ  -          -       -        it is away",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
        }
    }
}
