//! Layer 6: the configuration, for the command line: reads a TOML file and flags into checked options.
//!
//! [`keys`] lists every key. [`load`] reads them all and reports every mistake, not only the first. [`check`] also
//! examines the files that the options name, and reports certificates that no peer would accept.

mod aggregate;
mod allow;
mod build;
mod command_line;
mod defaults;
mod doubts;
mod expiry;
mod file;
mod file_keys;
mod flags;
pub mod keys;
mod log;
mod mistake;
mod proxy;
mod reader;
mod receiver_files;
mod remote_write;
mod summary;
mod token_files;
mod value;
mod web;
mod web_checks;
mod web_file;

use std::time::SystemTime;

use toml::de::DeTable;

pub use command_line::{add_flags, arguments, hint};
pub use defaults::defaults;
pub use flags::Flags;
pub use log::{LogFormat, LogOptions};
pub use mistake::{Mistake, Mistakes, SourceSpan};
pub use summary::summary;

use crate::node::options::{NodeOptions, NodeRole};
use file::read_file;
use reader::{ConfigReader, ConfigSource};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The node.
    pub node: NodeOptions,
    /// The log.
    pub log: LogOptions,
    /// Doubts about rules, and about certificates if they were examined: each may be meant as it is.
    pub warnings: Vec<Mistake>,
}

/// Reads the configuration file, if the flags name one, and the flags, which override it. `role` is the node's role on
/// the command line; with `None` the configuration decides.
///
/// # Errors
/// Every mistake that was found.
pub fn load(role: Option<NodeRole>, flags: &Flags) -> Result<Configuration, Mistakes> {
    read(role, flags, None)
}

/// As [`load`], and also examines certificates and keys as they are at `now`.
///
/// # Errors
/// Every mistake that was found.
pub fn check(flags: &Flags, now: SystemTime) -> Result<Configuration, Mistakes> {
    read(None, flags, Some(now))
}

fn read(role: Option<NodeRole>, flags: &Flags, examine_at: Option<SystemTime>) -> Result<Configuration, Mistakes> {
    let Some(file) = &flags.config_file else { return build(role, ConfigReader::new(None, flags), examine_at) };
    let text = read_file(file).map_err(|text| {
        let span = SourceSpan::Key(file.display().to_string());
        Mistakes(vec![Mistake { span, text }])
    })?;
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut reader = ConfigReader::new(Some(ConfigSource { file, text: &text, table: table.get_ref() }), flags);
    if errors.is_empty() {
        return build(role, reader, examine_at);
    }
    // The values of a file with syntax errors are a guess; its names are not.
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.file_mistake(at, explain_syntax(error.message()));
    }
    reader.check_names();
    Err(Mistakes(reader.finish().0))
}

fn explain_syntax(message: &str) -> String {
    let advice = if message.contains("duplicate key") { ": it is there already; put both parts into one" } else { "" };
    format!("{message}{advice}")
}

fn build(
    role: Option<NodeRole>,
    mut reader: ConfigReader<'_>,
    examine_at: Option<SystemTime>,
) -> Result<Configuration, Mistakes> {
    reader.check_names();
    let (web, push, storage) = (build::web(&mut reader), build::push(&mut reader), build::storage(&mut reader));
    let (limits, log, link) = (build::limits(&mut reader), build::log(&mut reader), build::link(&mut reader));
    let aggregate = aggregate::aggregate(&mut reader);
    let uplinks = build::uplinks(&mut reader);
    let remote_writes = remote_write::remote_writes(&mut reader, &web);
    let is_hub = build::is_hub(&reader);
    let to_be_hub = role.map_or(is_hub, |role| role == NodeRole::Hub);
    let hub = if to_be_hub { build::hub(&mut reader, is_hub) } else { None };
    let role = build::role(&mut reader, role, is_hub);
    let expiry = expiry::rules(&mut reader);
    let allow = allow::rules(&mut reader, &web.security);
    if let Some(hub) = &hub {
        build::ports(&mut reader, &web, hub);
    }
    if let Some(now) = examine_at {
        reader.examine(now);
    }
    let warnings = reader.take_warnings();
    let (mistakes, seen) = reader.finish();
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes));
    }
    let flags = describe(&seen);
    let defaults = describe(&defaults::texts());
    let node = NodeOptions {
        role,
        web,
        push,
        aggregate,
        storage,
        limits,
        link,
        uplinks,
        remote_writes,
        hub,
        expiry,
        allow,
        flags,
        defaults,
    };
    Ok(Configuration { node, log, warnings })
}

/// Flags and their values, one line each, for the status page. No value is a secret: secrets were replaced before, and
/// users and passwords in URLs are masked.
fn describe(seen: &[(&'static keys::Key, String)]) -> Vec<(String, String)> {
    let mut described: Vec<(String, String)> = Vec::new();
    for (key, value) in seen {
        let (name, value) = (key.flag.unwrap_or(key.path), masked(value));
        match described.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.push(';');
                values.push_str(&value);
            }
            None => described.push((name.into(), value)),
        }
    }
    described
}

/// The value with the user and password of a URL masked: `http://***@proxy.example:3128`.
fn masked(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.into() };
    let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests;
