//! `pushrelay backup DIR TARGET`: a consistent copy of a store, whether or not a node uses it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::node::metrics::OWN_FAMILIES;
use crate::storage::backup;

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct BackupCommand {
    /// The directory in storage.path
    path: PathBuf,
    /// The directory of the copy, which must not exist
    target: PathBuf,
}

impl BackupCommand {
    /// Makes the copy, reads it back, and prints what it has. Returns whether it is intact.
    ///
    /// # Errors
    /// There is no copy, or nothing can be printed.
    pub fn run(self, out: &mut dyn Write) -> Result<bool, String> {
        let copy = backup(&self.path, &self.target, OWN_FAMILIES).map_err(|error| error.to_string())?;
        let (counts, bytes) = (copy.store.published().counts(), copy.files.iter().map(|(_, len)| len).sum::<u64>());
        let (groups, series, target) = (counts.groups, counts.series, self.target.display());
        let unprintable = |error: io::Error| format!("cannot print: {error}");
        for lost in &copy.report.lost {
            writeln!(out, "DAMAGED: {lost}").map_err(unprintable)?;
        }
        writeln!(out, "{target}: {groups} groups, {series} series, {bytes} bytes").map_err(unprintable)?;
        Ok(copy.report.is_intact())
    }
}
