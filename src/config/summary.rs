//! A summary of a configuration, for `check-config`.

use crate::node::options::{NodeOptions, NodeRole, RemoteWriteOptions, StorageOptions, UplinkOptions};

/// A sentence about what a node with these options would do.
pub fn summary(options: &NodeOptions) -> String {
    let join = |addresses: &[String]| addresses.join(" and ");
    let web = join(&options.web.listen_addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    let storage = match &options.storage {
        StorageOptions { path: Some(path), .. } => format!("kept in {}", path.display()),
        StorageOptions { path: None, .. } => "kept in memory only".into(),
    };
    let role = if options.role == NodeRole::Hub { "a hub" } else { "an edge" };
    let mut links = Vec::new();
    if let Some(hub) = &options.hub {
        let own = hub.listen_addresses.iter().map(|address| match &hub.tls {
            Some(_) => address.to_string(),
            None => format!("{address} without TLS"),
        });
        let at_web = hub.web_link.then(|| "the gateway's address".to_owned());
        let edges = join(&own.chain(at_web).collect::<Vec<_>>());
        links.push(format!("edges connect to {edges}"));
    }
    if !options.uplinks.is_empty() {
        let hubs: Vec<String> = options.uplinks.iter().map(uplink).collect();
        links.push(format!("sends to {}", join(&hubs)));
    }
    if !options.remote_writes.is_empty() {
        let receiver =
            |options: &RemoteWriteOptions| format!("{} every {} s", options.url, options.interval.as_secs_f64());
        let receivers: Vec<String> = options.remote_writes.iter().map(receiver).collect();
        links.push(format!("writes to {}", join(&receivers)));
    }
    if options.hub.is_none() && options.uplinks.is_empty() {
        links.push("no hub to send to".into());
    }
    let security = &options.web.security;
    let protection = match (security.tls.is_some(), security.guard.users.is_empty()) {
        (true, true) => " in TLS",
        (true, false) => " in TLS with passwords",
        (false, true) => "",
        (false, false) => " with passwords",
    };
    format!("{role}: pushes at {web}{protection}, {storage}; {}", links.join(", "))
}

/// The hub of an uplink, with its proxy.
fn uplink(uplink: &UplinkOptions) -> String {
    match uplink.proxy.as_ref().filter(|proxy| !proxy.no_proxy.has(&uplink.hub)) {
        Some(proxy) => format!("{} through the proxy {}", uplink.hub, proxy.url),
        None => uplink.hub.to_string(),
    }
}
