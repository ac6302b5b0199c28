//! Floor 6: a TOML file and flags become checked options. Sees everything, is seen by the command line alone.
//!
//! [`keys`] lists every key. [`load`] reads them all and finds every mistake, not the first alone; [`check`] looks besides
//! at the files that the options name: certificates that are missing, do not fit their key or have expired.

mod build;
mod flags;
pub mod keys;
mod mistake;
mod reader;
mod summary;
mod value;
mod web;
mod web_file;

use std::path::Path;
use std::time::SystemTime;

use toml::de::DeTable;
use tracing::level_filters::LevelFilter;

pub use flags::{Flags, add_flags, arguments};
pub use mistake::{Mistake, Mistakes, SourceSpan};
pub use summary::summary;

use crate::node::options::{NodeOptions, NodeRole};
use reader::{Reader, Source};

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time=… level=INFO msg="…" key=value`
    #[default]
    Logfmt,
    /// `{"time":"…","level":"INFO","msg":"…","key":"value"}`
    Json,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The least that is logged.
    pub level: LevelFilter,
    /// How.
    pub format: LogFormat,
}

/// Everything that was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node.
    pub node: NodeOptions,
    /// The log.
    pub log: LogOptions,
}

/// A configuration larger than this is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file that the flags name, if they name one, and the flags, which win. `role` is what the node was started
/// as; `None` takes what the configuration says.
pub fn load(role: Option<NodeRole>, flags: &Flags) -> Result<Options, Mistakes> {
    read(role, flags, None)
}

/// The same, looking at certificates and keys as they are at `now`.
pub fn check(flags: &Flags, now: SystemTime) -> Result<Options, Mistakes> {
    read(None, flags, Some(now))
}

fn read(role: Option<NodeRole>, flags: &Flags, examine_at: Option<SystemTime>) -> Result<Options, Mistakes> {
    let Some(file) = &flags.config_file else { return build(role, Reader::new(None, flags), examine_at) };
    let text = read_file(file).map_err(|text| {
        let span = SourceSpan::Key(file.display().to_string());
        Mistakes(vec![Mistake { span, text }])
    })?;
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut reader = Reader::new(Some(Source { file, text: &text, table: table.get_ref() }), flags);
    if errors.is_empty() {
        return build(role, reader, examine_at);
    }
    // What a broken file would mean is a guess; its names are not.
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.file_mistake(at, explain_syntax(error.message()));
    }
    reader.check_names();
    Err(Mistakes(reader.finish().0))
}

fn read_file(file: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let opened = std::fs::File::open(file);
    match opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            Err(format!("this file is larger than {FILE_BYTES_MAX} bytes: it is no configuration"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read the configuration: {error}")),
    }
}

fn explain_syntax(message: &str) -> String {
    let advice = if message.contains("duplicate key") { ": it is there already; put both parts into one" } else { "" };
    format!("{message}{advice}")
}

fn build(role: Option<NodeRole>, mut reader: Reader<'_>, examine_at: Option<SystemTime>) -> Result<Options, Mistakes> {
    reader.check_names();
    let (web, push, storage) = (build::web(&mut reader), build::push(&mut reader), build::storage(&mut reader));
    let (limits, log, link) = (build::limits(&mut reader), build::log(&mut reader), build::link(&mut reader));
    let uplinks = build::uplinks(&mut reader);
    let is_hub = build::is_hub(&reader);
    let to_be_hub = role.map_or(is_hub, |role| role == NodeRole::Hub);
    let hub = if to_be_hub { build::hub(&mut reader, is_hub) } else { None };
    let role = build::role(&mut reader, role, is_hub);
    if let Some(now) = examine_at {
        reader.examine(now);
    }
    let (mistakes, seen) = reader.finish();
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes));
    }
    let flags = describe(&seen);
    Ok(Options { node: NodeOptions { role, web, push, storage, limits, link, uplinks, hub, flags }, log })
}

/// Flags and their values, one line each, for the status page. None of them is a secret: those were noted as such, and of
/// URLs users and passwords are left out.
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
