//! The replies of the query API, `/api/v1/…`, with the headers that allow scripts of other origins to read them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::instant::rfc3339;
use super::reply::{HttpReply, JSON};

/// The status of a node, for `/api/v1/status` and the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Version, revision and the like, by name.
    pub build: Vec<(String, String)>,
    /// The configuration in force, by the names of flags. The caller masks secrets.
    pub flags: Vec<(String, String)>,
    /// The flags whose value is not the default: name, value, default.
    pub changed: Vec<(String, String, String)>,
    /// The time when the node started, in nanoseconds since the Unix epoch.
    pub start_ns: u64,
}

/// The JSON of `/api/v1/status`.
#[derive(Serialize)]
struct StatusAnswer<'a> {
    data: StatusData<'a>,
    status: &'static str,
}

#[derive(Serialize)]
struct StatusData<'a> {
    build_information: BTreeMap<&'a str, &'a str>,
    flags: BTreeMap<&'a str, &'a str>,
    health: &'a Value,
    start_time: String,
}

/// The reply to `/api/v1/status`; `health` is what Pushgateway's answer lacks.
pub fn status(status: &NodeStatus, health: &Value) -> HttpReply {
    fn map(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
    let start_time = rfc3339(status.start_ns);
    let data = StatusData { build_information: map(&status.build), flags: map(&status.flags), health, start_time };
    let json = serde_json::to_vec(&StatusAnswer { data, status: "success" }).expect("maps of strings are JSON");
    shared(HttpReply::new(200, JSON, json))
}

/// The reply to `/api/v1/metrics`, with each group as [`crate::exposition::json::group`] shows it, and to
/// `/api/v1/edges`. Only one item at a time exists as a `Value`; the others are text already.
pub fn list(items: impl IntoIterator<Item = Value>) -> HttpReply {
    let mut body = br#"{"status":"success","data":["#.to_vec();
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item.to_string().as_bytes());
    }
    body.extend_from_slice(b"]}");
    shared(HttpReply::new(200, JSON, body))
}

/// The reply to OPTIONS anywhere below `/api/v1/`.
pub(super) fn options() -> HttpReply {
    shared(HttpReply::empty(200))
}

/// Adds the headers that all replies of the API have.
fn shared(reply: HttpReply) -> HttpReply {
    reply
        .with("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin")
        .with("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
        .with("Access-Control-Allow-Origin", "*")
        .with("Access-Control-Expose-Headers", "Date")
        .with("Cache-Control", "no-cache, no-store, must-revalidate")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_has_pushgateways_fields() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let node = NodeStatus {
            build: pairs(&[("version", "1.11.2"), ("branch", "HEAD")]),
            flags: pairs(&[("web.telemetry-path", "/metrics")]),
            changed: Vec::new(),
            start_ns: 1_795_343_653_281_320_029,
        };
        let reply = status(&node, &json!({"groups": 1}));
        let expected = r#"{"data":{"build_information":{"branch":"HEAD","version":"1.11.2"},"flags":{"web.telemetry-path":"/metrics"},"health":{"groups":1},"start_time":"2026-11-22T10:34:13.281320029Z"},"status":"success"}"#;
        assert_eq!(String::from_utf8(reply.body).unwrap(), expected);
        assert_eq!(reply.content_type, Some("application/json"));
        assert!(reply.headers.contains(&("Access-Control-Allow-Origin", "*".into())));
    }

    #[test]
    fn groups_are_listed() {
        let body = |groups: Vec<Value>| String::from_utf8(list(groups).body).unwrap();
        assert_eq!(body(vec![]), r#"{"status":"success","data":[]}"#);
        assert_eq!(body(vec![json!({}), json!({ "a": "1" })]), r#"{"status":"success","data":[{},{"a":"1"}]}"#);
    }
}
