//! The outcome of a case: the answer to each step, then all pushed metrics as text, as protobuf, and as JSON of the
//! query API. Everything on which two correct servers may differ is removed.
//!
//! That is: the server's own metrics (they lack the labels `job` and `instance`), and the order of families, series and
//! groups. The times of pushes become `T`, unless they are 0.

use std::net::SocketAddr;

use flate2::read::MultiGzDecoder;
use pushrelay_testkit::{Reply, eventually};
use serde_json::{Map, Value, json};

use crate::case::{Case, PROTOBUF, Step, Suite};
use crate::metrics::{Metric, MetricFamily, undelimited};
use crate::wire::{get, send};

/// The job of a push that shows when everything before it is done.
const FENCE_JOB: &str = "conformance-fence";

/// The headers that clients may rely on.
const HEADERS: &[&str] = &[
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "content-encoding",
    "content-type",
    "location",
    "x-content-type-options",
];

const TIMES: &[&str] = &["push_time_seconds", "push_failure_time_seconds"];

/// A running server.
pub struct Server {
    address: SocketAddr,
    prefix: String,
    telemetry_path: String,
    /// It answers pushes before they are done.
    answers_early: bool,
}

impl Server {
    /// The server at `address`, which was started with the flags of `suite`.
    pub fn new(address: SocketAddr, suite: &Suite) -> Server {
        let answers_early = suite.flags.iter().any(|flag| flag == "--push.disable-consistency-check");
        let (prefix, telemetry_path) = (suite.prefix.clone(), suite.telemetry_path.clone());
        Server { address, prefix, telemetry_path, answers_early }
    }

    /// Wipes the server, makes the requests of the case, and reads the outcome.
    pub fn run(&self, case: &Case) -> Value {
        self.wipe();
        let answers: Vec<Value> = case.steps.iter().map(|step| self.answer(step)).collect();
        // Deletes and wipes are answered before they are done.
        let early = |step: &Step| step.request.starts_with("DELETE") || step.request.contains("/admin/wipe");
        if self.answers_early || case.steps.iter().any(early) {
            self.fence();
        }
        json!({"steps": answers, "text": self.text(), "protobuf": self.protobuf(), "query": self.query()})
    }

    /// Which Pushgateway this is.
    pub fn version(&self) -> String {
        let status: Value = serde_json::from_slice(&self.get("/api/v1/status", None).body).unwrap();
        let build = &status["data"]["build_information"];
        format!("pushgateway {} ({})", build["version"].as_str().unwrap(), build["revision"].as_str().unwrap())
    }

    fn wipe(&self) {
        let target = format!("{}/api/v1/admin/wipe", self.prefix);
        let reply = get(self.address, "PUT", &target, None).unwrap();
        assert_eq!(reply.status, 202, "the server must run with --web.enable-admin-api: {}", reply.text());
        eventually("the server is wiped", || (self.groups()? == 0).then_some(()));
    }

    /// Waits until all requests are carried out. Writes are done in order, so a last one becomes visible after all
    /// others.
    fn fence(&self) {
        let step = Step::new(&format!("POST {}/metrics/job/{FENCE_JOB}", self.prefix), Some("fence 1\n".into()), None);
        send(self.address, &step).unwrap();
        let job = format!("\"job\":\"{FENCE_JOB}\"");
        eventually("the fence is visible", || self.get("/api/v1/metrics", None).text().contains(&job).then_some(()));
    }

    fn groups(&self) -> Option<usize> {
        let page: Value = serde_json::from_slice(&self.get("/api/v1/metrics", None).body).ok()?;
        page["data"].as_array().map(Vec::len)
    }

    fn get(&self, path: &str, accept: Option<&str>) -> Reply {
        get(self.address, "GET", &format!("{}{path}", self.prefix), accept).unwrap()
    }

    fn answer(&self, step: &Step) -> Value {
        let reply = send(self.address, step).unwrap();
        let (method, target) = step.method_and_target();
        // Pushgateway sends no body with these, pushrelay an explanation.
        let is_explained = [301, 307].contains(&reply.status) && ["PUT", "POST", "DELETE"].contains(&method);
        let mut answer = Map::from_iter([("status".to_owned(), json!(reply.status))]);
        for name in HEADERS.iter().filter(|name| !is_explained || **name != "content-type") {
            // Pushgateway lets caches store its answers: see "Caches" in `differences.toml`.
            if let Some(value) =
                reply.header_values(name).filter(|value| (*name, &**value) != ("cache-control", "no-store"))
            {
                answer.insert((*name).to_owned(), json!(value));
            }
        }
        let path = target.split('?').next().unwrap_or(target);
        if method == "GET" && reply.status == 200 {
            answer.insert("page".to_owned(), self.page(path, &reply));
        } else if reply.status == 400 || is_explained {
            // Only the first line of some messages is compared: see `recording.rs`.
            answer.insert("message".to_owned(), json!(reply.text()));
        } else if !reply.body.is_empty() {
            answer.insert("body".to_owned(), json!(reply.text()));
        }
        Value::Object(answer)
    }

    /// The outcome of a GET.
    fn page(&self, path: &str, reply: &Reply) -> Value {
        let body = decoded(reply);
        let content_type = reply.header("content-type").unwrap_or_default();
        match content_type.split(';').next().unwrap_or_default() {
            "text/plain" if content_type.contains("version=") => return pushed_text(&String::from_utf8_lossy(&body)),
            "application/vnd.google.protobuf" if content_type.contains("delimited") => return pushed_protobuf(&body),
            "application/vnd.google.protobuf" => return Value::Null,
            // The web pages may differ.
            "text/html" => return json!("a page"),
            _ => {}
        }
        let path = path.strip_prefix(&self.prefix).unwrap_or(path);
        match path {
            "/api/v1/metrics" => pushed_query(&body),
            "/api/v1/status" => shape(&serde_json::from_slice(&body).unwrap_or_default(), 2),
            _ => json!(String::from_utf8_lossy(&body)),
        }
    }

    fn text(&self) -> Value {
        let reply = self.get(&self.telemetry_path, None);
        if reply.status == 200 { pushed_text(&reply.text()) } else { json!({"status": reply.status}) }
    }

    fn protobuf(&self) -> Value {
        let reply = self.get(&self.telemetry_path, Some(PROTOBUF));
        if reply.status == 200 { pushed_protobuf(&reply.body) } else { json!({"status": reply.status}) }
    }

    fn query(&self) -> Value {
        let reply = self.get("/api/v1/metrics", None);
        if reply.status == 200 { pushed_query(&reply.body) } else { json!({"status": reply.status}) }
    }
}

/// The body without its compression.
fn decoded(reply: &Reply) -> Vec<u8> {
    let mut body = reply.body.clone();
    if reply.header("content-encoding") == Some("gzip") {
        body.clear();
        std::io::Read::read_to_end(&mut MultiGzDecoder::new(&*reply.body), &mut body).unwrap();
    }
    body
}

/// The lines of pushed series, after the HELP and TYPE of their family; sorted by family, then by line.
fn pushed_text(page: &str) -> Value {
    let mut families: Vec<(String, Vec<String>, Vec<String>)> = Vec::new();
    for line in page.split('\n').filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let name = comment.split(' ').nth(1).unwrap_or_default();
            if families.last().is_none_or(|family| family.0 != name) {
                families.push((name.to_owned(), Vec::new(), Vec::new()));
            }
            families.last_mut().unwrap().1.push(line.to_owned());
        } else if ["{job=\"", ",job=\""].iter().any(|job| line.contains(job)) && !line.contains(FENCE_JOB) {
            let time = TIMES.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
            let cut = if time { line.rfind(' ').map(|at| format!("{} T", &line[..at])) } else { None };
            if let Some(family) = families.last_mut() {
                family.2.push(cut.unwrap_or_else(|| line.to_owned()));
            }
        }
    }
    families.sort();
    let lines =
        families.into_iter().filter(|(_, _, samples)| !samples.is_empty()).flat_map(|(_, head, mut samples)| {
            samples.sort();
            [head, samples].concat()
        });
    json!(lines.collect::<Vec<_>>())
}

/// The pushed series of each family, sorted by family, then by series.
fn pushed_protobuf(page: &[u8]) -> Value {
    let families = match undelimited(page) {
        Ok(families) => families,
        Err(error) => return json!({"undecodable": error.to_string()}),
    };
    let pushed = families.into_iter().filter_map(|mut family| {
        family.metric.retain(is_pushed);
        (!family.metric.is_empty()).then(|| family_json(&family))
    });
    let mut pushed: Vec<Value> = pushed.collect();
    pushed.sort_by_key(Value::to_string);
    Value::Array(pushed)
}

fn is_pushed(metric: &Metric) -> bool {
    let job = metric.label.iter().find(|label| label.name.as_deref() == Some("job"));
    job.is_some_and(|label| label.value.as_deref() != Some(FENCE_JOB))
}

fn family_json(family: &MetricFamily) -> Value {
    let mut json = present(serde_json::to_value(family).unwrap());
    let time = TIMES.iter().any(|name| family.name.as_deref() == Some(name));
    let metrics = json["metric"].as_array_mut().unwrap();
    for metric in metrics.iter_mut().filter(|_| time) {
        if metric["gauge"]["value"] != "0.0" {
            metric["gauge"]["value"] = json!("T");
        }
    }
    metrics.sort_by_key(Value::to_string);
    json
}

/// The same without absent and empty fields.
fn present(value: Value) -> Value {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, field)| !empty(field)).map(|(name, field)| (name, present(field))).collect()
        }
        Value::Array(items) => items.into_iter().map(present).collect(),
        other => other,
    }
}

/// The groups of the query API: groups and series sorted, times as `T`.
fn pushed_query(page: &[u8]) -> Value {
    let Ok(mut page) = serde_json::from_slice::<Value>(page) else {
        return json!({"undecodable": String::from_utf8_lossy(page)});
    };
    let Some(groups) = page["data"].as_array_mut() else { return page };
    groups.retain(|group| group["labels"]["job"] != FENCE_JOB);
    for (name, family) in groups.iter_mut().filter_map(Value::as_object_mut).flatten() {
        let time = TIMES.contains(&name.as_str());
        // The group's labels are left unchanged: those may have any name.
        let Some(family) = family.as_object_mut().filter(|family| family.contains_key("metrics")) else { continue };
        if family.get("time_stamp").is_some_and(Value::is_string) {
            family.insert("time_stamp".to_owned(), json!("T"));
        }
        let Some(metrics) = family.get_mut("metrics").and_then(Value::as_array_mut) else { continue };
        for metric in metrics.iter_mut().filter(|metric| time && metric["value"] != "0") {
            metric["value"] = json!("T");
        }
        metrics.sort_by_key(Value::to_string);
    }
    groups.sort_by_key(Value::to_string);
    page
}

/// The keys of a document down to a depth; below it, only the types.
fn shape(value: &Value, depth: usize) -> Value {
    match value {
        Value::Object(fields) if depth > 0 => {
            let fields = fields.iter().filter(|(name, _)| *name != "flags");
            fields.map(|(name, field)| (name.clone(), shape(field, depth - 1))).collect()
        }
        Value::Object(fields) => json!(fields.keys().collect::<Vec<_>>()),
        Value::String(_) => json!("string"),
        other => other.clone(),
    }
}

#[test]
fn own_metrics_and_times_are_left_out() {
    let page = "# TYPE go_x gauge\ngo_x 1\n# HELP b h\n# TYPE b gauge\nb 3\nb{job=\"z\"} 1\nb{instance=\"\",job=\"a\"} 2\n\
                # TYPE push_time_seconds gauge\npush_time_seconds{instance=\"\",job=\"a\"} 1.5e+09\n\
                push_time_seconds{instance=\"\",job=\"b\"} 0\n";
    let lines = [
        "# HELP b h",
        "# TYPE b gauge",
        "b{instance=\"\",job=\"a\"} 2",
        "b{job=\"z\"} 1",
        "# TYPE push_time_seconds gauge",
        "push_time_seconds{instance=\"\",job=\"a\"} T",
        "push_time_seconds{instance=\"\",job=\"b\"} 0",
    ];
    assert_eq!(pushed_text(page), json!(lines));
}
