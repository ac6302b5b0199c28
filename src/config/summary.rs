//! What a configuration comes to, for people who check it.

use crate::node::options::{NodeOptions, Role, StorageOptions};

/// What a node with these options does, in a sentence.
pub fn summary(options: &NodeOptions) -> String {
    let join = |addresses: &[String]| addresses.join(" and ");
    let web = join(&options.web.listen_addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    let storage = match &options.storage {
        StorageOptions { path: Some(path), .. } => format!("kept in {}", path.display()),
        StorageOptions { path: None, .. } => "kept in memory only".into(),
    };
    let (role, link) = match (options.role, &options.hub) {
        (Role::Hub, Some(hub)) => {
            let edges = join(&hub.listen_addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
            ("a hub", format!("edges connect to {edges}"))
        }
        _ if options.uplinks.is_empty() => ("an edge", "no hub to send to".into()),
        _ => {
            let hubs: Vec<String> = options.uplinks.iter().map(|uplink| uplink.hub.to_string()).collect();
            ("an edge", format!("sends to {}", join(&hubs)))
        }
    };
    format!("{role}: pushes at {web}, {storage}; {link}")
}
