//! Values of the flags of the command line: one for each key that may have one, and `--config.file`.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::ArgMatches;

use super::keys::KEYS;

/// The flag that names the configuration file.
pub(super) const CONFIG_FILE: &str = "config.file";

/// The flags given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config.file`
    pub config_file: Option<PathBuf>,
    /// The values of each key, by its path, in the order given.
    values: HashMap<&'static str, Vec<String>>,
}

impl Flags {
    /// Flags that only name a configuration file.
    pub fn of_file(file: PathBuf) -> Self {
        Self { config_file: Some(file), ..Self::default() }
    }

    /// The values of the flags that [`super::add_flags`] added.
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
