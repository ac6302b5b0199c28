//! Pushes to the gateway given as the only argument with the `prometheus` crate, as tests/clients/main.rs expects. The
//! crate refuses slashes and writes values into the URL as they are: the program writes what a URL cannot have in base64
//! or escaped. The crate cannot delete.

use std::collections::HashMap;

use prometheus::{BasicAuthentication, Gauge, Histogram, HistogramOpts, Registry, push_add_metrics, push_metrics};

fn registry(gauges: &[(&str, f64)]) -> Registry {
    let registry = Registry::new();
    for (name, value) in gauges {
        let gauge = Gauge::new(*name, "Some help.").unwrap();
        gauge.set(*value);
        registry.register(Box::new(gauge)).unwrap();
    }
    registry
}

/// The user name and password, if the gateway needs them. The CA is in `SSL_CERT_FILE`.
fn secrets() -> Option<BasicAuthentication> {
    let [username, password] = ["PUSH_USER", "PUSH_PASSWORD"].map(|name| std::env::var(name).ok());
    Some(BasicAuthentication { username: username?, password: password? })
}

fn main() {
    let url = std::env::args().nth(1).expect("the gateway's address");
    let labels = [
        ("path@base64", "L3Zhci90bXA"),
        ("empty@base64", "="),
        ("name", "Προμηθεύς"),
        ("space", "a b+c%25d"),
    ];
    let group = || HashMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let push = |registry: Registry| push_metrics("rust client", group(), &url, registry.gather(), secrets()).unwrap();
    push(registry(&[("client_old", 1.0)]));
    let pushed = registry(&[("client_value", 41.0)]);
    let options = HistogramOpts::new("client_latency", "Some help.").buckets(vec![0.1, 1.0]);
    let latency = Histogram::with_opts(options).unwrap();
    latency.observe(0.5);
    pushed.register(Box::new(latency)).unwrap();
    push(pushed);
    let added = registry(&[("client_value", 42.0), ("client_added", 7.0)]);
    push_add_metrics("rust client", group(), &url, added.gather(), secrets()).unwrap();
}
