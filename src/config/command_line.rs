//! The definition of the flags for clap, with help that has headings and defaults; and advice for misspelt ones.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use super::defaults::{IS_REQUIRED, defaults};
use super::flags::CONFIG_FILE;
use super::keys::{KEYS, Key};
use crate::node::options::NodeRole;

/// Flags of Pushgateway that do not exist here, and what to use instead.
const ABSENT: [(&str, &str); 3] = [
    (
        "persistence.file",
        "pushes are stored in the directory --storage.path (in memory only with --storage.path=\"\"); Pushgateway's file \
         cannot be read: push again",
    ),
    ("persistence.interval", "a push is on disk before it is answered (--storage.sync); remove the flag"),
    ("web.local-assets", "the pages are part of the program; remove the flag"),
];

/// The headings of the help, each with the beginning of its keys; the first that fits counts.
const HEADINGS: [(&str, &str); 14] = [
    ("web.tls.", "TLS of the gateway"),
    ("web.", "The gateway"),
    ("push.", "Pushes"),
    ("storage.", "The store"),
    ("uplink.tls.", "TLS to the hub"),
    ("uplink.proxy", "The proxy to the hub"),
    ("uplink.no_proxy", "The proxy to the hub"),
    ("uplink.", "The hubs to send to"),
    ("hub.tls.", "TLS for edges"),
    ("hub.", "Edges"),
    ("link.", "Links"),
    ("limits.", "Limits"),
    ("log.", "The log"),
    ("", "Options"),
];

/// The heading of a key's flag.
fn heading(key: &Key) -> &'static str {
    HEADINGS.iter().find(|(begin, _)| key.path.starts_with(begin)).map_or("Options", |(_, heading)| heading)
}

/// Adds the flags to a command. The help of an edge does not list the flags of hubs; an edge refuses them with advice.
pub fn add_flags(command: Command, role: NodeRole) -> Command {
    let file = Arg::new(CONFIG_FILE)
        .long(CONFIG_FILE)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("the configuration file; flags override it");
    let defaults = defaults();
    let flags = KEYS.iter().filter_map(|key| {
        let default = defaults.iter().find(|(known, _)| known.path == key.path).map_or("", |(_, text)| text);
        let help = match default {
            "" | IS_REQUIRED => key.meaning.to_owned(),
            default => format!("{} [default: {default}]", key.meaning),
        };
        let arg = Arg::new(key.path).long(key.flag?).help(help).action(ArgAction::Append);
        let arg = arg.help_heading(heading(key));
        let arg = arg.hide(role == NodeRole::Edge && key.path.starts_with("hub."));
        Some(match key.value {
            // A switch can also be turned off: `--web.enable-lifecycle=false`.
            "" => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
            value => arg.value_name(value),
        })
    });
    let absent = ABSENT.map(|(name, advice)| {
        let refuse = move |_: &str| Err::<String, _>(advice);
        Arg::new(name)
            .long(name)
            .num_args(0..=1)
            .default_missing_value("")
            .value_name("…")
            .value_parser(refuse)
            .hide(true)
    });
    // Some flags are so long that a text beside them would have a column as narrow as a word.
    command.next_line_help(true).arg(file).args(flags).args(absent)
}

/// Rewrites Pushgateway's way to turn a switch off, `--no-web.enable-lifecycle`, into the one that [`add_flags`]
/// knows.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let switch = |flag: &str| KEYS.iter().any(|key| key.flag == Some(flag) && key.value.is_empty());
    given.into_iter().map(move |argument| match argument.to_str().and_then(|text| text.strip_prefix("--no-")) {
        Some(flag) if switch(flag) => format!("--{flag}=false").into(),
        _ => argument,
    })
}

/// The advice for a command line that clap refuses: a flag with one dash, or a switch with its value apart.
pub fn hint(given: &[OsString]) -> Option<String> {
    let key = |flag: &str| KEYS.iter().find(|key| key.flag == Some(flag));
    let mut arguments = given.iter().filter_map(|argument| argument.to_str()).peekable();
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or(argument);
        if let Some(flag) = name.strip_prefix('-')
            && (key(flag).is_some() || flag == CONFIG_FILE)
        {
            return Some(format!("flags have two dashes: -{argument}"));
        }
        let is_switch = argument.strip_prefix("--").and_then(key).is_some_and(|key| key.value.is_empty());
        if let Some(value) = arguments.peek().filter(|value| is_switch && ["true", "false"].contains(value)) {
            return Some(format!("a switch has its value behind an equals sign: {argument}={value}"));
        }
    }
    None
}
