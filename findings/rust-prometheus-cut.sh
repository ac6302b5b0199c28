#!/usr/bin/env bash
# The Rust crate `prometheus` writes grouping values into the URL as they are: a value is cut at `#` or `?`, with all
# labels after it, and the push is reported as a success.
# Version: prometheus 0.14.0 (Rust crate), feature `push`. Needs: cargo, a C compiler, OpenSSL's headers.
# Does: pushes with the grouping key {ticket="A#7"}, then with {question="who?"}, and prints the requests.
# Output:
#   PUT /metrics/job/build/ticket/A
#   PUT /metrics/job/build/question/who?
. "$(dirname "$0")/common.sh"
record 200
build_rust 'prometheus = { version = "=0.14.0", features = ["push"] }' <<'END'
use prometheus::{push_metrics, Gauge, Registry};

fn main() {
    let registry = Registry::new();
    registry.register(Box::new(Gauge::new("seconds", "Some help.").unwrap())).unwrap();
    for (name, value) in [("ticket", "A#7"), ("question", "who?")] {
        let group = [(name.to_owned(), value.to_owned())].into_iter().collect::<std::collections::HashMap<_, _>>();
        push_metrics("build", group, &std::env::args().nth(1).unwrap(), registry.gather(), None).unwrap();
    }
}
END
./push "http://127.0.0.1:$port"
check < requests
