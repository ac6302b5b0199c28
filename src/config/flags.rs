//! Flags of the command line: one for each key that may have one, and `--config.file`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::keys::KEYS;
use crate::node::options::NodeRole;

const CONFIG_FILE: &str = "config.file";

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

/// The flags given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config.file`
    pub config_file: Option<PathBuf>,
    /// The values of each key, by its path, in the order given.
    values: HashMap<&'static str, Vec<String>>,
}

/// Adds the flags to a command. The help of an edge does not list the flags of hubs; an edge refuses them with advice.
pub fn add_flags(command: Command, role: NodeRole) -> Command {
    let file = Arg::new(CONFIG_FILE)
        .long(CONFIG_FILE)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("the configuration file; flags override it");
    let flags = KEYS.iter().filter_map(|key| {
        let arg = Arg::new(key.path).long(key.flag?).help(key.meaning).action(ArgAction::Append);
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

impl Flags {
    /// Flags that only name a configuration file.
    pub fn of_file(file: PathBuf) -> Self {
        Self { config_file: Some(file), ..Self::default() }
    }

    /// The values of the flags that [`add_flags`] added.
    pub fn from_matches(matches: &ArgMatches) -> Self {
        let given = |path| Some(matches.get_many::<String>(path)?.cloned().collect());
        Self {
            config_file: matches.get_one::<PathBuf>(CONFIG_FILE).cloned(),
            values: KEYS
                .iter()
                .filter(|key| key.flag.is_some())
                .filter_map(|key| Some((key.path, given(key.path)?)))
                .collect(),
        }
    }

    /// The values of a key; `None` if no flag sets it.
    pub(super) fn get(&self, path: &str) -> Option<&[String]> {
        self.values.get(path).map(Vec::as_slice)
    }
}
