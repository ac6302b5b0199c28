//! Writes of clients that speak another protocol, by their path. A second line of the 404 says so.
//!
//! [`PATHS`] is the table. `docs/reference/http-api.md` has the same, which a test checks.

const REMOTE_WRITE: &str = "this looks like Prometheus remote write, and this is a push gateway: send it to a remote-write \
                            receiver, or push text to /metrics/job/NAME";
const OTLP: &str = "this looks like OTLP, and this is a push gateway: push text to /metrics/job/NAME";
const LINE_PROTOCOL: &str =
    "this looks like InfluxDB's line protocol, and this is a push gateway: push text to /metrics/job/NAME";
const IMPORT: &str = "this looks like VictoriaMetrics's import of text, and this is a push gateway: push it to \
                      /metrics/job/NAME";

/// The paths at which other programs take what their clients send, and the second line of the answer here.
const PATHS: &[(&str, &str)] = &[
    ("/api/v1/write", REMOTE_WRITE),
    ("/api/v1/push", REMOTE_WRITE),
    ("/api/prom/push", REMOTE_WRITE),
    ("/v1/metrics", OTLP),
    ("/otlp/v1/metrics", OTLP),
    ("/write", LINE_PROTOCOL),
    ("/api/v2/write", LINE_PROTOCOL),
    ("/api/v1/import/prometheus", IMPORT),
];

/// The second line of a 404 to a request for that decoded path, whatever prefix it has.
pub(super) fn advice(path: &[u8]) -> Option<&'static str> {
    let ending = PATHS.iter().filter(|(end, _)| path.ends_with(end.as_bytes()));
    ending.max_by_key(|(end, _)| end.len()).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::HttpReply;

    #[test]
    fn each_path_has_its_advice() {
        for (path, said) in PATHS {
            assert_eq!(advice(path.as_bytes()), Some(*said));
            assert_eq!(advice(format!("/prefix{path}").as_bytes()), Some(*said));
        }
        for path in ["/", "/nope", "/metrics", "/writes", "/api/v1/writes"] {
            assert_eq!(advice(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn only_a_write_gets_a_second_line() {
        let answer = |method| String::from_utf8(HttpReply::no_route(method, b"/api/v1/write").body).unwrap();
        assert_eq!(answer("POST"), format!("404 page not found\n{REMOTE_WRITE}\n"));
        assert_eq!(answer("GET"), "404 page not found\n");
    }

    #[test]
    fn the_http_reference_lists_the_paths() {
        let page = include_str!("../../docs/reference/http-api.md");
        for advice in [REMOTE_WRITE, OTLP, LINE_PROTOCOL, IMPORT] {
            let paths = PATHS.iter().filter(|path| path.1 == advice).map(|(path, _)| format!("`{path}`"));
            let row = format!("| {} | `{advice}` |", paths.collect::<Vec<_>>().join(", "));
            assert!(page.contains(&row), "not in docs/reference/http-api.md: {row}");
        }
    }
}
