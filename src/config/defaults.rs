//! The defaults of all keys, as text: read from a configuration that has nothing but what is required.

use std::path::Path;

use toml::de::DeTable;

use super::aggregate;
use super::allow;
use super::build;
use super::expiry;
use super::flags::Flags;
use super::keys::Key;
use super::reader::{ConfigReader, ConfigSource};
use super::remote_write;

/// What a hub with an uplink needs.
const REQUIRED: &str = "\
[[uplink]]
hub = 'hub:9443'
[uplink.tls]
ca_file = 'ca.pem'
cert_file = 'node.pem'
key_file = 'node.key'
[hub.tls]
client_ca_file = 'ca.pem'
cert_file = 'node.pem'
key_file = 'node.key'
[[hub.edge]]
name = 'NAME'
[[remote_write]]
url = 'http://vm/'
[[expire]]
match = '{job=~\".+\"}'
after = '1h'
[[allow]]
may = 'read'
[[aggregate.rule]]
match = '{job=~\".+\"}'
";

/// The text of a default that does not exist.
pub const IS_REQUIRED: &str = "required";

/// The default of every key, as the status page compares it with the value; empty if the key has none.
pub fn texts() -> Vec<(&'static Key, String)> {
    let known = defaults().into_iter();
    known.map(|(key, value)| (key, if value == IS_REQUIRED { String::new() } else { value })).collect()
}

/// Every key with its default; empty if it has none.
pub fn defaults() -> Vec<(&'static Key, String)> {
    let (file, flags) = (Path::new("defaults"), Flags::default());
    let (table, _) = DeTable::parse_recoverable(REQUIRED);
    let source = ConfigSource { file, text: REQUIRED, table: table.get_ref() };
    let mut reader = ConfigReader::new(Some(source), &flags);
    let web = build::web(&mut reader);
    build::push(&mut reader);
    aggregate::aggregate(&mut reader);
    build::storage(&mut reader);
    build::limits(&mut reader);
    build::log(&mut reader);
    build::link(&mut reader);
    build::uplinks(&mut reader);
    remote_write::remote_writes(&mut reader, &web);
    build::hub(&mut reader, true);
    expiry::rules(&mut reader);
    allow::rules(&mut reader, &web.security);
    let rules = ["expire.match", "expire.after", "allow.may", "aggregate.rule.match"];
    let named = [&rules[..], &["uplink.hub", "hub.edge.name", "remote_write.url"]].concat();
    let optional = ["web.", "hub.tls.crl_file", "uplink.tls.renew"];
    let is_required = |key: &Key| {
        named.contains(&key.path)
            || (key.path.contains(".tls.") && !optional.iter().any(|path| key.path.starts_with(path)))
    };
    let read = reader.finish().1.into_iter();
    read.map(|(key, value)| (key, if is_required(key) { IS_REQUIRED.into() } else { value })).collect()
}
