//! `pushrelay check-config FILE`: prints what a node with that configuration would do, or every mistake in it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::{self, Flags};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckConfig {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl CheckConfig {
    /// Checks the file; prints a summary to `out` and warnings to `errors`, or one line for each mistake to `errors`.
    /// Returns whether there are no mistakes.
    ///
    /// # Errors
    /// If it cannot print.
    pub fn run(self, now: SystemTime, out: &mut dyn Write, errors: &mut dyn Write) -> io::Result<bool> {
        let name = self.file.display().to_string();
        match config::check(&Flags::of_file(self.file), now) {
            Ok(options) => {
                for warning in &options.warnings {
                    writeln!(errors, "warning: {warning}")?;
                }
                writeln!(out, "OK: {name}: {}", config::summary(&options.node)).map(|()| true)
            }
            Err(mistakes) => {
                let count = mistakes.0.len();
                let noun = if count == 1 { "mistake" } else { "mistakes" };
                writeln!(errors, "{mistakes}\n{name}: {count} {noun}").map(|()| false)
            }
        }
    }
}
