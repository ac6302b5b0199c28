#!/usr/bin/env bash
# The Rust crate `prometheus_push` joins the job to the gateway's URL as a relative reference. A job with a colon, as in
# `cron:backup`, is then a URL of its own, and the push ends with an error about the scheme `cron`.
# Version: prometheus_push 0.4.7 (Rust crate). Needs: cargo, a C compiler.
# Does: pushes the job `cron:backup`, and prints the URL of the error and how many requests arrived.
# Output:
#   error for url (cron:backup)
#   requests: 0
. "$(dirname "$0")/common.sh"
record 200
build_rust 'prometheus = { version = "=0.14.0", default-features = false, features = ["protobuf"] }
reqwest = { version = "0.13", default-features = false, features = ["blocking"] }
url = "2"
[dependencies.prometheus_push]
version = "=0.4.7"
default-features = false
features = ["with_reqwest_blocking", "prometheus_crate"]' <<'END'
use prometheus::{Gauge, Registry};
use prometheus_push::prometheus_crate::PrometheusMetricsPusherBlocking;

fn main() {
    let registry = Registry::new();
    registry.register(Box::new(Gauge::new("seconds", "Some help.").unwrap())).unwrap();
    let url = url::Url::parse(&std::env::args().nth(1).unwrap()).unwrap();
    let client = reqwest::blocking::Client::new();
    let pusher = PrometheusMetricsPusherBlocking::from(client, &url).unwrap();
    match pusher.push_all("cron:backup", &std::collections::HashMap::new(), registry.gather()) {
        Ok(()) => println!("pushed"),
        Err(error) => println!("{error:?}"),
    }
}
END
./push "http://127.0.0.1:$port" > said
{
  grep -o 'cron:backup' said | head -n 1 | sed 's/.*/error for url (&)/'
  echo "requests: $(wc -l < requests)"
} | check
