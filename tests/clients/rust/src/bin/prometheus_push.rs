//! Pushes to the gateway given as the only argument with the `prometheus_push` crate, as tests/clients/main.rs expects.
//! The crate refuses slashes and writes values into the URL as they are: the program writes what a URL cannot have in
//! base64 or escaped. The crate cannot delete.

use std::collections::HashMap;

use prometheus::{Gauge, Histogram, HistogramOpts, Registry};
use prometheus_push::prometheus_crate::PrometheusMetricsPusherBlocking;
use reqwest::blocking::Client;

fn registry(gauges: &[(&str, f64)]) -> Registry {
    let registry = Registry::new();
    for (name, value) in gauges {
        let gauge = Gauge::new(*name, "Some help.").unwrap();
        gauge.set(*value);
        registry.register(Box::new(gauge)).unwrap();
    }
    registry
}

fn main() {
    let mut url = url::Url::parse(&std::env::args().nth(1).expect("the gateway's address")).unwrap();
    // User name and password, if the gateway needs them. The CA is in `SSL_CERT_FILE`.
    if let (Ok(user), Ok(password)) = (std::env::var("PUSH_USER"), std::env::var("PUSH_PASSWORD")) {
        url.set_username(&user).unwrap();
        url.set_password(Some(&password)).unwrap();
    }
    let pusher = PrometheusMetricsPusherBlocking::from(Client::new(), &url).unwrap();
    let group = HashMap::from([
        ("path@base64", "L3Zhci90bXA"),
        ("empty@base64", "="),
        ("name", "Προμηθεύς"),
        ("space", "a b+c%25d"),
    ]);
    let job = "rust push client";
    pusher.push_all(job, &group, registry(&[("client_old", 1.0)]).gather()).unwrap();
    let pushed = registry(&[("client_value", 41.0)]);
    let options = HistogramOpts::new("client_latency", "Some help.").buckets(vec![0.1, 1.0]);
    let latency = Histogram::with_opts(options).unwrap();
    latency.observe(0.5);
    pushed.register(Box::new(latency)).unwrap();
    pusher.push_all(job, &group, pushed.gather()).unwrap();
    pusher.push_add(job, &group, registry(&[("client_value", 42.0), ("client_added", 7.0)]).gather()).unwrap();
}
