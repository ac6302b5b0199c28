#!/usr/bin/env bash
# The Rust crate `prometheus_push` sends the registry of `prometheus-client`, which is OpenMetrics, as `text/plain`. The
# text format of Prometheus has no type `info`, so one such metric makes a gateway refuse the whole push.
# Version: prometheus_push 0.4.7 with prometheus-client 0.24.1 (Rust crate). Needs: cargo, a C compiler.
# Does: pushes a registry with an info metric, and prints the content type and the body.
# Output:
#   content-type: text/plain
#   # HELP build Some help.
#   # TYPE build info
#   build_info{version="1"} 1
#   # EOF
. "$(dirname "$0")/common.sh"
record 200
build_rust 'prometheus-client = { version = "=0.24.1", default-features = false }
reqwest = { version = "0.13", default-features = false, features = ["blocking"] }
url = "2"
[dependencies.prometheus_push]
version = "=0.4.7"
default-features = false
features = ["with_reqwest_blocking", "prometheus_client_crate"]' <<'END'
use prometheus_client::{encoding::text::encode, metrics::info::Info, registry::Registry};
use prometheus_push::prometheus_client_crate::PrometheusClientMetricsPusherBlocking;

fn main() {
    let mut registry = Registry::default();
    registry.register("build", "Some help", Info::new(vec![("version", "1")]));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let url = url::Url::parse(&std::env::args().nth(1).unwrap()).unwrap();
    let client = reqwest::blocking::Client::new();
    let pusher = PrometheusClientMetricsPusherBlocking::create(client, &url).unwrap();
    pusher.push_all("build", &std::collections::HashMap::new(), text).unwrap();
}
END
./push "http://127.0.0.1:$port"
{ grep -io '^content-type: .*' headers | tr 'CT' 'ct'; cat body; } | check
