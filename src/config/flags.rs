//! Flags of the command line: one for each key that has one, and `--config.file`.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::keys::KEYS;

const CONFIG_FILE: &str = "config.file";

/// What was given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config.file`
    pub config_file: Option<PathBuf>,
    /// Values by the path of their key, in the order given.
    values: HashMap<&'static str, Vec<String>>,
}

/// Adds the flags to a command.
pub fn add_flags(command: Command) -> Command {
    let file = Arg::new(CONFIG_FILE)
        .long(CONFIG_FILE)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("the configuration file; flags win over what it says");
    let flags = KEYS.iter().filter_map(|key| {
        let arg = Arg::new(key.path).long(key.flag?).help(key.meaning).action(ArgAction::Append);
        Some(match key.value {
            // A switch may be turned off again: `--web.enable-lifecycle=false`.
            "" => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
            value => arg.value_name(value),
        })
    });
    command.arg(file).args(flags)
}

impl Flags {
    /// What the flags that [`add_flags`] added were given.
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

    /// The values of a key; none if it was not given.
    pub(super) fn get(&self, path: &str) -> Option<&[String]> {
        self.values.get(path).map(Vec::as_slice)
    }
}
