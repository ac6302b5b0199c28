//! `pushrelay store check|dump|compact PATH`: commands on the files of a stopped node.
//!
//! All three read all intact records, as a node does at its start. Only [`compact`] changes files, and it never loses
//! intact records.

pub mod compact;
mod damage;
pub mod dump;
mod failure;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use damage::print_damage;
pub use failure::Failure;

use super::progress::Bar;
use crate::net::identity::parse_label;
use crate::node::metrics::OWN_FAMILIES;
use crate::storage::{Inspection, inspect};

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Read everything; report what is intact and what is damaged
    Check {
        /// The directory in storage.path
        path: PathBuf,
    },
    /// Print all groups as text that can be pushed again
    Dump {
        /// The directory in storage.path
        path: PathBuf,
        /// Print only groups that show this label, such as job=backup; may be repeated
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// Print a bash script that pushes the groups to a node; its argument is the node's URL
        #[arg(long)]
        script: bool,
        /// Print groups without their site labels, to push a hub's groups to their edges again
        #[arg(long)]
        without_place: bool,
    },
    /// Replace all files by one checkpoint of everything intact
    Compact {
        /// The directory in storage.path
        path: PathBuf,
        /// Keep the old files in a directory beside the new ones, even if they are intact
        #[arg(long)]
        keep: bool,
    },
}

impl StoreCommand {
    /// Runs the command: prints its result to `out`, and damage to `errors`. Returns whether the store was intact.
    ///
    /// # Errors
    /// If the store cannot be read or written, or the result cannot be printed.
    pub fn run(self, out: &mut dyn Write, errors: &mut dyn Write) -> Result<bool, Failure> {
        let mut out = BufWriter::new(out);
        let intact = match self.command {
            Command::Check { path } => {
                let inspection = inspected(&path)?;
                check(&path, &inspection, &mut out)?;
                inspection.report.is_intact()
            }
            Command::Dump { path, labels, script, without_place } => {
                let inspection = inspected(&path)?;
                print_damage(&inspection.report, errors)?;
                dump::Dump { labels, script, without_place }.print(&path, &inspection, &mut out)?;
                inspection.report.is_intact()
            }
            Command::Compact { path, keep } => compact::run(&path, keep, &mut out)?,
        };
        out.flush()?;
        Ok(intact)
    }
}

fn inspected(path: &std::path::Path) -> Result<Inspection, Failure> {
    inspect(path, OWN_FAMILIES, Arc::new(Bar::new())).map_err(|error| Failure(error.to_string()))
}

/// Prints the contents of the store, and what is lost.
fn check(path: &std::path::Path, inspection: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    let Inspection { report, identity, files, store, .. } = inspection;
    match identity {
        Some(identity) => writeln!(out, "store {} in {}", identity.store, path.display())?,
        None => writeln!(out, "a store in {} without an id: no intact file header is left", path.display())?,
    }
    for (name, len) in files {
        writeln!(out, "file {name}: {len} bytes")?;
    }
    let counts = store.published().counts();
    writeln!(out, "intact: {} records in {} bytes of {} files", report.records, report.bytes, report.files)?;
    let (groups, series) = (counts.groups, counts.series);
    writeln!(
        out,
        "holds: {groups} groups, {series} series, {} families held back, {} tombstones",
        counts.suppressed, counts.tombstones
    )?;
    if report.torn_bytes > 0 {
        let torn = report.torn_bytes;
        writeln!(out, "cut short: {torn} bytes of a commit that a crash interrupted; it was never acknowledged")?;
    }
    print_damage(report, out)?;
    if report.is_intact() {
        return writeln!(out, "OK");
    }
    writeln!(
        out,
        "the next start, or `pushrelay store compact`, keeps all intact records; links restore the rest where they can"
    )
}
