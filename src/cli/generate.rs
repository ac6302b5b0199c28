//! `pushrelay completions SHELL` and `pushrelay man DIR`: files that packages install beside the program.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

/// The name of the program.
const PROGRAM: &str = "pushrelay";

/// The arguments of `completions`.
#[derive(Clone, Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the completions.
    ///
    /// # Errors
    /// If it cannot print.
    pub fn run(self, mut command: Command, out: &mut dyn Write) -> io::Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, PROGRAM, &mut text);
        out.write_all(&text)
    }
}

/// The arguments of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManPages {
    /// The directory, which must exist
    directory: PathBuf,
}

impl ManPages {
    /// Writes a page for the program, and one for each command.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn run(self, command: Command) -> Result<(), String> {
        let written = clap_mangen::generate_to(command.name(PROGRAM), &self.directory);
        written.map_err(|error| format!("cannot write into {}: {error}", self.directory.display()))
    }
}
