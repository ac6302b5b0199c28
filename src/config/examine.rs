//! Looks at what the options name, for people who check a configuration.

use std::time::SystemTime;

use super::mistake::{Mistake, Place};
use crate::net::tls::{Credentials, TlsFiles};
use crate::node::options::{NodeOptions, Role, StorageOptions};

/// What is wrong with the files of certificates and keys at `now`.
pub fn examine(options: &NodeOptions, now: SystemTime) -> Vec<Mistake> {
    let hub = options.hub.iter().map(|hub| ("hub.tls".to_owned(), &hub.tls));
    let uplinks = options.uplinks.iter().map(|uplink| (format!("uplink.tls (hub {})", uplink.hub), &uplink.tls));
    let examine_one = |(name, files): (String, &TlsFiles)| {
        let errors = Credentials::examine(files, now);
        errors.into_iter().map(move |error| Mistake { place: Place::Key(name.clone()), text: error.to_string() })
    };
    hub.chain(uplinks).flat_map(examine_one).collect()
}

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
